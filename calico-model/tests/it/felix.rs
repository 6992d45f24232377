//! Every parameter of Felix, with its type and its real default: that of upstream's agent, which its API documentation
//! has wrong in places.

use calico_model::resource::{API_VERSION, Document, FelixConfiguration, Kind, Object, Resource};
use serde_json::{Value, json};

/// Name, type and default as upstream's agent tells them; a type with slashes is a choice of words.
const PARAMETERS: &[(&str, &str, Option<&str>)] = &[
    ("featureDetectOverride", "string", None),
    ("featureGates", "string", None),
    ("goGCThreshold", "integer", Some("40")),
    ("goMaxProcs", "integer", Some("-1")),
    ("goMemoryLimitMB", "integer", Some("-1")),
    ("healthEnabled", "boolean", Some("false")),
    ("healthHost", "string", Some("localhost")),
    ("healthPort", "integer", Some("9099")),
    ("healthTimeoutOverrides", "array", None),
    ("logActionRateLimit", "string", None),
    ("logActionRateLimitBurst", "integer", Some("5")),
    ("logDebugFilenameRegex", "string", None),
    ("logFilePath", "string", Some("/var/log/calico/felix.log")),
    ("logPrefix", "string", Some("calico-packet")),
    ("logSeverityFile", "Debug/Error/Fatal/Info/Trace/Warning", Some("Info")),
    ("logSeverityScreen", "Debug/Error/Fatal/Info/Trace/Warning", Some("Info")),
    ("logSeveritySys", "Debug/Error/Fatal/Info/Trace/Warning", Some("Info")),
    ("prometheusGoMetricsEnabled", "boolean", Some("true")),
    ("prometheusMetricsCAFile", "string", None),
    ("prometheusMetricsCertFile", "string", None),
    (
        "prometheusMetricsClientAuth",
        "NoClientCert/RequireAndVerifyClientCert/RequireAnyClientCert/VerifyClientCertIfGiven",
        Some("NoClientCert"),
    ),
    ("prometheusMetricsEnabled", "boolean", Some("false")),
    ("prometheusMetricsHost", "string", None),
    ("prometheusMetricsKeyFile", "string", None),
    ("prometheusMetricsPort", "integer", Some("9091")),
    ("prometheusProcessMetricsEnabled", "boolean", Some("true")),
    ("prometheusWireGuardMetricsEnabled", "boolean", Some("true")),
    ("allowIPIPPacketsFromWorkloads", "boolean", Some("false")),
    ("allowVXLANPacketsFromWorkloads", "boolean", Some("false")),
    ("cgroupV2Path", "string", None),
    ("chainInsertMode", "Append/Insert", Some("Insert")),
    ("dataplaneDriver", "string", Some("calico-iptables-plugin")),
    ("dataplaneWatchdogTimeout", "string", Some("1m30s")),
    ("defaultEndpointToHostAction", "Accept/Drop/Return", Some("Drop")),
    ("deviceRouteProtocol", "integer", Some("3")),
    ("deviceRouteSourceAddress", "string", None),
    ("deviceRouteSourceAddressIPv6", "string", None),
    ("disableConntrackInvalidCheck", "boolean", Some("false")),
    ("endpointStatusPathPrefix", "string", Some("/var/run/calico")),
    ("externalNodesList", "array", None),
    (
        "failsafeInboundHostPorts",
        "array",
        Some("tcp:22,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667,udp:68"),
    ),
    (
        "failsafeOutboundHostPorts",
        "array",
        Some("tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667,udp:53,udp:67"),
    ),
    ("floatingIPs", "Disabled/Enabled", Some("Disabled")),
    ("ipForwarding", "Disabled/Enabled", Some("Enabled")),
    ("ipv4ElevatedRoutePriority", "integer", Some("512")),
    ("ipv4NormalRoutePriority", "integer", Some("1024")),
    ("ipv6ElevatedRoutePriority", "integer", Some("512")),
    ("ipv6NormalRoutePriority", "integer", Some("1024")),
    ("interfaceExclude", "string", Some("kube-ipvs0")),
    ("interfacePrefix", "string", Some("cali")),
    ("interfaceRefreshInterval", "string", Some("1m30s")),
    ("ipv6Support", "boolean", Some("true")),
    ("istioAmbientMode", "Disabled/Enabled", Some("Disabled")),
    ("istioDSCPMark", "integer or string", Some("23")),
    ("liveMigrationRouteConvergenceTime", "string", Some("30s")),
    ("localSubnetL2Reachability", "Disabled/PodsAndLoadBalancers", Some("Disabled")),
    ("localSubnetL2ReachabilityRefreshInterval", "string", Some("2m0s")),
    ("mtuIfacePattern", "string", Some("^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)")),
    ("natOutgoingAddress", "string", None),
    ("natOutgoingExclusions", "IPPoolsAndHostIPs/IPPoolsOnly", Some("IPPoolsOnly")),
    ("natPortRange", "integer or string", Some("0")),
    ("nftablesFlowTableDataIfacePattern", "string", None),
    ("nftablesFlowTableOffload", "All/Disabled", Some("Disabled")),
    ("nftablesMode", "Auto/Disabled/Enabled", Some("Auto")),
    ("netlinkTimeout", "string", Some("10s")),
    ("policySyncPathPrefix", "string", None),
    ("programClusterRoutes", "Disabled/Enabled/EnabledIPIPOnly/EnabledNoEncapOnly", Some("EnabledIPIPOnly")),
    ("removeExternalRoutes", "boolean", Some("true")),
    ("requireMTUFile", "boolean", Some("false")),
    ("routeRefreshInterval", "string", Some("1m30s")),
    ("routeSource", "CalicoIPAM/WorkloadIPs", Some("CalicoIPAM")),
    ("routeSyncDisabled", "boolean", Some("false")),
    ("routeTableRange", "object", None),
    ("routeTableRanges", "array", None),
    ("serviceLoopPrevention", "Disabled/Drop/Reject", Some("Drop")),
    ("sidecarAccelerationEnabled", "boolean", Some("false")),
    ("useInternalDataplaneDriver", "boolean", Some("true")),
    ("workloadSourceSpoofing", "Any/Disabled", Some("Disabled")),
    ("ipsetsRefreshInterval", "string", Some("1m30s")),
    ("iptablesBackend", "Auto/Legacy/NFT", Some("auto")),
    ("iptablesFilterAllowAction", "Accept/Return", Some("Accept")),
    ("iptablesFilterDenyAction", "Drop/Reject", Some("Drop")),
    ("iptablesLockProbeInterval", "string", Some("50ms")),
    ("iptablesMangleAllowAction", "Accept/Return", Some("Accept")),
    ("iptablesMarkMask", "integer", Some("0xffff0000")),
    ("iptablesNATOutgoingInterfaceFilter", "string", None),
    ("iptablesPostWriteCheckInterval", "string", Some("5s")),
    ("iptablesRefreshInterval", "string", Some("3m0s")),
    ("kubeNodePortRanges", "array", Some(r#"["30000:32767"]"#)),
    ("maxIpsetSize", "integer", Some("1048576")),
    ("nftablesFilterAllowAction", "Accept/Return", Some("Accept")),
    ("nftablesFilterDenyAction", "Drop/Reject", Some("Drop")),
    ("nftablesMangleAllowAction", "Accept/Return", Some("Accept")),
    ("nftablesMarkMask", "integer", Some("0xffff0000")),
    ("nftablesRefreshInterval", "string", Some("3m0s")),
    ("bpfAttachType", "Netkit/TC/TCX", Some("Netkit")),
    ("bpfCTLBLogFilter", "string", None),
    ("bpfConnectTimeLoadBalancing", "Disabled/Enabled/TCP", Some("TCP")),
    ("bpfConnectTimeLoadBalancingEnabled", "boolean", None),
    ("bpfConntrackMode", "Auto/BPFProgram/Userspace", Some("Auto")),
    ("bpfConntrackLogLevel", "Debug/Off", Some("off")),
    (
        "bpfConntrackTimeouts",
        "object",
        Some(
            r#"{"creationGracePeriod":"10s","genericTimeout":"10m","icmpTimeout":"5s","tcpEstablished":"1h","tcpFinsSeen":"Auto","tcpResetSeen":"40s","tcpSynSent":"20s","udpTimeout":"60s"}"#,
        ),
    ),
    ("bpfDSROptoutCIDRs", "array", None),
    ("bpfDataIfacePattern", "string", Some("^((en|wl|ww|sl|ib)[Popsx].*|(eth|wlan|wwan|bond).*)")),
    ("bpfDisableGROForIfaces", "string", None),
    ("bpfDisableUnprivileged", "boolean", Some("true")),
    ("bpfEnabled", "boolean", Some("false")),
    ("bpfEnforceRPF", "Disabled/Loose/Strict", Some("Loose")),
    ("bpfExcludeCIDRsFromNAT", "array", None),
    ("bpfExportBufferSizeMB", "integer", Some("1")),
    ("bpfExtToServiceConnmark", "integer", Some("0")),
    ("bpfExternalServiceMode", "DSR/Tunnel", Some("Tunnel")),
    ("bpfForceTrackPacketsFromIfaces", "array", Some(r#"["docker+"]"#)),
    ("bpfHostConntrackBypass", "boolean", Some("false")),
    ("bpfHostNetworkedNATWithoutCTLB", "Disabled/Enabled", Some("Enabled")),
    ("bpfIPFragTimeout", "string", Some("0s")),
    ("bpfIPFragmentReassemblyEnabled", "boolean", Some("true")),
    ("bpfJITHardening", "Auto/Strict", Some("Auto")),
    ("bpfKubeProxyHealthzPort", "integer", Some("10256")),
    ("bpfKubeProxyIptablesCleanupEnabled", "boolean", Some("true")),
    ("bpfKubeProxyMinSyncPeriod", "string", Some("1s")),
    ("bpfL3IfacePattern", "string", None),
    ("bpfLogFilters", "object", None),
    ("bpfLogLevel", "Debug/Info/Off", Some("Off")),
    ("bpfMaglevMaxEndpointsPerService", "integer", Some("100")),
    ("bpfMaglevMaxServices", "integer", Some("100")),
    ("bpfMapSizeConntrack", "integer", Some("512000")),
    ("bpfMapSizeConntrackCleanupQueue", "integer", Some("100000")),
    ("bpfMapSizeConntrackScaling", "Disabled/DoubleIfFull", Some("DoubleIfFull")),
    ("bpfMapSizeIPSets", "integer", Some("1048576")),
    ("bpfMapSizeIfState", "integer", Some("1000")),
    ("bpfMapSizeNATAffinity", "integer", Some("65536")),
    ("bpfMapSizeNATBackend", "integer", Some("262144")),
    ("bpfMapSizeNATFrontend", "integer", Some("65536")),
    ("bpfMapSizePerCpuConntrack", "integer", Some("0")),
    ("bpfMapSizeRoute", "integer", Some("262144")),
    ("bpfOverlayHostSourceIP", "HostAddress/TunnelAddress", Some("TunnelAddress")),
    ("bpfPSNATPorts", "integer or string", Some("20000:29999")),
    ("bpfPolicyDebugEnabled", "boolean", Some("true")),
    ("bpfProfiling", "Disabled/Enabled", Some("Disabled")),
    ("bpfRedirectToPeer", "Disabled/Enabled", Some("Enabled")),
    ("windowsManageFirewallRules", "Disabled/Enabled", Some("Disabled")),
    ("endpointReportingDelay", "string", Some("1s")),
    ("endpointReportingEnabled", "boolean", Some("false")),
    ("metadataAddr", "string", Some("127.0.0.1")),
    ("metadataPort", "integer", Some("8775")),
    ("openstackRegion", "string", None),
    ("reportingInterval", "string", Some("30s")),
    ("reportingTTL", "string", Some("1m30s")),
    ("genericXDPEnabled", "boolean", Some("false")),
    ("xdpEnabled", "boolean", Some("true")),
    ("xdpRefreshInterval", "string", Some("1m30s")),
    ("vxlanEnabled", "boolean", None),
    ("vxlanMTU", "integer", Some("0")),
    ("vxlanMTUV6", "integer", Some("0")),
    ("vxlanPort", "integer", Some("4789")),
    ("vxlanVNI", "integer", Some("4096")),
    ("ipipEnabled", "boolean", None),
    ("ipipMTU", "integer", Some("0")),
    ("wireguardEnabled", "boolean", Some("false")),
    ("wireguardEnabledV6", "boolean", Some("false")),
    ("wireguardHostEncryptionEnabled", "boolean", Some("false")),
    ("wireguardInterfaceName", "string", Some("wireguard.cali")),
    ("wireguardInterfaceNameV6", "string", Some("wg-v6.cali")),
    ("wireguardListeningPort", "integer", Some("51820")),
    ("wireguardListeningPortV6", "integer", Some("51821")),
    ("wireguardMTU", "integer", Some("0")),
    ("wireguardMTUV6", "integer", Some("0")),
    ("wireguardKeepAlive", "string", Some("0s")),
    ("wireguardRoutingRulePriority", "integer", Some("99")),
    ("wireguardThreadingEnabled", "boolean", Some("false")),
    ("flowLogsCollectorDebugTrace", "boolean", Some("false")),
    ("flowLogsFlushInterval", "string", Some("5m0s")),
    ("flowLogsGoldmaneServer", "string", None),
    ("flowLogsLocalReporter", "Disabled/Enabled", Some("Disabled")),
    ("flowLogsPolicyEvaluationMode", "Continuous/None", Some("Continuous")),
    ("awsSrcDstCheck", "Disable/DoNothing/Enable", Some("DoNothing")),
    ("debugDisableLogDropping", "boolean", Some("false")),
    ("debugHost", "string", Some("localhost")),
    ("debugMemoryProfilePath", "string", None),
    ("debugPort", "integer", None),
    ("debugSimulateCalcGraphHangAfter", "string", Some("0s")),
    ("debugSimulateDataplaneApplyDelay", "string", Some("0s")),
    ("debugSimulateDataplaneHangAfter", "string", Some("0s")),
    ("usageReportingEnabled", "boolean", Some("true")),
    ("usageReportingInitialDelay", "string", Some("5m0s")),
    ("usageReportingInterval", "string", Some("24h0m0s")),
];

fn specs() -> (Value, Value) {
    let object = Object::new("default".parse().unwrap(), FelixConfiguration::defaults());
    let defaults = Document::from(&Resource::from(object)).value()["spec"].clone();
    (defaults, Kind::FelixConfiguration.json_schema()["$defs"]["FelixConfiguration"]["properties"].clone())
}

/// A default as the list above writes it.
fn told(value: &Value) -> String {
    let port = |port: &Value| {
        let protocol = port["protocol"].as_str().unwrap_or_default().to_lowercase();
        format!("{protocol}:{}", port["port"])
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Array(ports) if ports.iter().all(Value::is_object) => {
            ports.iter().map(port).collect::<Vec<_>>().join(",")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

fn accepts(name: &str, value: &Value) -> bool {
    let spec = json!({name: value});
    let document = json!({"apiVersion": API_VERSION, "kind": "FelixConfiguration", "metadata": {"name": "default"}, "spec": spec});
    Document::from_value(document).unwrap().check_input().is_ok()
}

#[test]
fn every_parameter_is_there_with_its_real_default() {
    let (defaults, schema) = specs();
    for (name, _, default) in PARAMETERS {
        assert!(schema.get(name).is_some(), "{name} is not known");
        let found = defaults.get(*name).map(told);
        let expected = default.map(|text| match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap().to_string(),
            None => text.to_owned(),
        });
        // Upstream writes some words in lower case and reads them in any.
        let same = match (&found, &expected) {
            (Some(found), Some(expected)) => found.eq_ignore_ascii_case(expected),
            (found, expected) => found == expected,
        };
        assert!(same, "{name}: {found:?} is not {expected:?}");
        assert_eq!(schema[*name].get("default"), defaults.get(*name), "the schema's default of {name}");
    }
    let known = schema.as_object().unwrap().keys().map(String::as_str);
    let others = known.filter(|name| PARAMETERS.iter().all(|(one, ..)| one != name));
    assert_eq!(others.collect::<Vec<_>>(), ["flowReevaluation", "nodeSelector"], "ours, and upstream's own");
}

#[test]
fn every_parameter_takes_its_type_and_no_other() {
    for (name, kind, default) in PARAMETERS {
        let wrong = match *kind {
            "boolean" | "array" | "object" => vec![json!("x"), json!(1)],
            "integer" => vec![json!("x"), json!(1.5), json!(true)],
            "string" => vec![json!(1), json!(true), json!([])],
            "integer or string" => vec![json!(true), json!(1.5), json!("no such thing")],
            words => {
                for word in words.split('/') {
                    assert!(accepts(name, &json!(word)), "{name} must be able to be {word}");
                }
                vec![json!("NoSuchWord"), json!(1), json!(true)]
            }
        };
        for value in wrong {
            assert!(!accepts(name, &value), "{name} must not be {value}");
        }
        let right = match (*kind, default) {
            ("boolean", _) => Some(json!(true)),
            ("integer", _) => Some(json!(5)),
            ("string", Some(default)) => Some(json!(default)),
            _ => None,
        };
        if let Some(right) = right {
            assert!(accepts(name, &right), "{name} must be able to be {right}");
        }
    }
}
