//! The published schemas: valid, and of one mind with the reader.

use std::collections::BTreeMap;

use calico_model::resource::{API_VERSION, Document, Kind};
use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};

fn validator(kind: Kind) -> Validator {
    let schema = kind.json_schema();
    assert!(jsonschema::draft202012::meta::is_valid(&schema), "the schema of {kind} is none");
    jsonschema::draft202012::new(&schema).unwrap()
}

fn document(kind: Kind, spec: &Value) -> Value {
    let name = if kind == Kind::WorkloadEndpoint { "n-cni-c-eth0" } else { "default" };
    let mut metadata = json!({"name": name, "labels": {"a": "b"}, "annotations": {"c": "d"}});
    if kind.scope() == calico_model::resource::Scope::Namespaced {
        metadata["namespace"] = json!("default");
    }
    if kind == Kind::Tier {
        metadata["name"] = json!("mine");
    }
    json!({"apiVersion": API_VERSION, "kind": kind.as_str(), "metadata": metadata, "spec": spec})
}

/// A sound spec of each kind, with every field that can stand beside the others.
fn full() -> BTreeMap<Kind, Value> {
    let rule = json!({
        "action": "Allow", "ipVersion": 4, "protocol": "TCP", "notProtocol": 17,
        "source": {"nets": ["10.0.0.0/8"], "selector": "a == 'b'", "namespaceSelector": "global()", "notNets": ["10.1.0.0/16"],
                   "notSelector": "has(c)", "serviceAccounts": {"names": ["x"], "selector": "all()"}},
        "destination": {"ports": [80, "1:2", "web"], "notPorts": [443]},
        "http": {"methods": ["GET"], "paths": [{"exact": "/"}, {"prefix": "/a"}]},
        "metadata": {"annotations": {"a": "b"}},
    });
    let ping =
        json!({"action": "Deny", "protocol": "ICMP", "icmp": {"type": 8, "code": 0}, "notICMP": {"type": 9}});
    let policy = json!({
        "tier": "default", "order": 10.5, "selector": "all()", "types": ["Ingress", "Egress"],
        "serviceAccountSelector": "all()", "performanceHints": ["AssumeNeededOnEveryNode"],
        "ingress": [rule, ping], "egress": [{"action": "Allow", "destination": {"services": {"name": "s", "namespace": "n"}}}],
    });
    let with = |more: Value| {
        let mut policy = policy.clone();
        policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        policy
    };
    let global =
        json!({"namespaceSelector": "all()", "doNotTrack": true, "preDNAT": false, "applyOnForward": true});
    let mut staged_global = with(global.clone());
    staged_global["stagedAction"] = json!("Set");
    let filter = json!({
        "action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 8, "max": 32},
        "source": "RemotePeers", "interface": "eth*", "peerType": "eBGP", "communities": {"values": ["1:2"]},
        "asPathPrefix": [65000, "1.1"], "priority": 1024,
        "operations": [{"addCommunity": {"value": "1:2:3"}}, {"prependASPath": {"prefix": [1]}}, {"setPriority": {"value": 1}}],
    });
    let port = json!({"name": "web", "protocol": "TCP", "port": 80});
    [
        (Kind::IpPool, json!({
            "cidr": "10.0.0.0/16", "blockSize": 26, "ipipMode": "CrossSubnet", "vxlanMode": "Never", "natOutgoing": true,
            "disabled": false, "disableBGPExport": true, "nodeSelector": "all()", "namespaceSelector": "all()",
            "allowedUses": ["Workload"], "assignmentMode": "Manual",
        })),
        (Kind::IpReservation, json!({"reservedCIDRs": ["10.0.0.1", "10.0.1.0/24", "fd00::/64"]})),
        (Kind::IpamConfiguration, json!({
            "strictAffinity": true, "maxBlocksPerHost": 4, "autoAllocateBlocks": true,
            "kubeVirtVMAddressPersistence": "Enabled", "ipCooldownSeconds": 60,
        })),
        (Kind::BlockAffinity, json!({"state": "pending", "node": "n", "type": "host", "cidr": "10.0.0.0/26", "deleted": false})),
        (Kind::IpamBlock, json!({
            "cidr": "10.0.0.0/30", "affinity": "host:n", "affinityClaimTime": "2026-01-01T00:00:00Z",
            "allocations": [0, null, null, null], "unallocated": [1, 2, 3],
            "attributes": [{"handle_id": "h", "secondary": {"node": "n"}, "alternateOwnerAttrs": {}, "releasedAt": "2026-01-01T00:00:00Z"}],
            "sequenceNumber": 3, "sequenceNumberForAllocation": {"0": 2}, "deleted": false, "strictAffinity": false,
        })),
        (Kind::IpamHandle, json!({"handleID": "h", "block": {"10.0.0.0/30": 1}, "deleted": false})),
        (Kind::Node, json!({
            "bgp": {"asNumber": "1.1", "ipv4Address": "10.0.0.1/24", "ipv6Address": "fd00::1", "ipv4IPIPTunnelAddr": "10.1.0.1",
                    "routeReflectorClusterID": "1.0.0.1"},
            "ipv4VXLANTunnelAddr": "10.1.0.2", "vxlanTunnelMACAddr": "66:00:00:00:00:01", "ipv6VXLANTunnelAddr": "fd01::1",
            "vxlanTunnelMACAddrV6": "66:00:00:00:00:02", "orchRefs": [{"nodeName": "n", "orchestrator": "k8s"}],
            "wireguard": {"interfaceIPv4Address": "10.1.0.3", "interfaceIPv6Address": "fd01::2"},
            "addresses": [{"address": "10.0.0.1/24", "type": "CalicoNodeIP"}], "interfaces": [{"name": "eth0", "addresses": ["10.0.0.1"]}],
        })),
        (Kind::WorkloadEndpoint, json!({
            "orchestrator": "cni", "workload": "w", "node": "n", "containerID": "c", "pod": "p", "endpoint": "eth0",
            "serviceAccountName": "sa", "ipNetworks": ["10.0.0.1/32"], "ipNATs": [{"internalIP": "10.0.0.1", "externalIP": "1.2.3.4"}],
            "ipv4Gateway": "10.0.0.254", "ipv6Gateway": "fd00::1", "profiles": ["p"], "interfaceName": "cali0", "mac": "ee:ee:ee:ee:ee:ee",
            "ports": [{"name": "web", "protocol": 6, "port": 80, "hostPort": 8080, "hostIP": "10.0.0.9"}],
            "allowSpoofedSourcePrefixes": ["10.9.0.0/16"], "qosControls": {"ingressBandwidth": 1000000, "egressMaxConnections": 10, "dscp": "AF11"},
        })),
        (Kind::HostEndpoint, json!({"node": "n", "interfaceName": "*", "expectedIPs": ["10.0.0.1", "fd00::1"], "profiles": ["p"], "ports": [port]})),
        (Kind::Profile, json!({"ingress": [rule], "egress": [ping], "labelsToApply": {"a": "", "b": "c"}})),
        (Kind::Tier, json!({"order": 1.5, "defaultAction": "Pass"})),
        (Kind::NetworkPolicy, policy.clone()),
        (Kind::GlobalNetworkPolicy, with(global)),
        (Kind::StagedNetworkPolicy, with(json!({"stagedAction": "Learn"}))),
        (Kind::StagedGlobalNetworkPolicy, staged_global),
        (Kind::StagedKubernetesNetworkPolicy, json!({
            "stagedAction": "Set", "podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}}]}], "egress": [{}],
        })),
        (Kind::NetworkSet, json!({"nets": ["10.0.0.0/8", "10.0.0.1"]})),
        (Kind::GlobalNetworkSet, json!({"nets": ["fd00::/8"]})),
        (Kind::KubernetesService, json!({
            "type": "LoadBalancer", "clusterIP": "10.0.0.1", "externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local",
            "loadBalancerIP": "192.0.2.2", "loadBalancerIPs": ["192.0.2.2", "fd00::2"],
        })),
        (Kind::KubernetesEndpointSlice, json!({
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n", "conditions": {"ready": true}}],
            "ports": [{"name": "web", "protocol": "TCP", "port": 80}],
        })),
        (Kind::BgpConfiguration, json!({
            "nodeToNodeMeshEnabled": true, "asNumber": 64512, "listenPort": 179, "logSeverityScreen": "info",
            "communities": [{"name": "c", "value": "1:2"}], "prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["c", "1:2:3"]}],
            "serviceLoadBalancerIPs": [{"cidr": "10.0.0.0/8"}], "serviceExternalIPs": [{"cidr": "10.0.0.0/8"}],
            "serviceClusterIPs": [{"cidr": "10.0.0.0/8"}], "serviceLoadBalancerAggregation": "Disabled",
            "nodeMeshPassword": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}, "nodeMeshMaxRestartTime": "1m30s",
            "bindMode": "NodeIP", "ignoredInterfaces": ["eth*"], "localWorkloadPeeringIPV4": "10.0.0.1", "localWorkloadPeeringIPV6": "fd00::1",
            "programClusterRoutes": "Enabled", "ipv4NormalRoutePriority": 1, "ipv6NormalRoutePriority": 2147483646,
            "bmpStations": [{"address": "10.0.0.1:11019"}, {"address": "[fd00::1]:11019"}],
        })),
        (Kind::BgpPeer, json!({
            "nodeSelector": "all()", "peerIP": "[fd00::1]:1179", "asNumber": 65000, "localASNumber": "1.2", "nextHopMode": "Self",
            "password": {"secretKeyRef": {"name": "s", "key": "k"}}, "sourceAddress": "None", "maxRestartTime": "10s",
            "keepaliveTime": "20s", "numAllowedLocalASNumbers": 1, "ttlSecurity": 2, "reachableBy": "fd00::2", "filters": ["f"],
            "reversePeering": "Manual", "restartMode": "LongLivedGracefulRestart", "longLivedStaleTime": "1h", "holdTime": "0s",
            "failureDetectionMode": "BFDIfDirectlyConnected",
        })),
        (Kind::BgpFilter, json!({"exportV4": [filter, {"action": "Reject"}], "importV4": [filter], "exportV6": [], "importV6": [{"action": "Accept"}]})),
        (Kind::CalicoNodeStatus, json!({"node": "n", "classes": ["Agent", "BGP", "Routes"], "updatePeriodSeconds": 10})),
        (Kind::KubeControllersConfiguration, json!({
            "logSeverityScreen": "Info", "healthChecks": "Enabled", "etcdV3CompactionPeriod": "10m", "prometheusMetricsPort": 9094,
            "debugProfilePort": 0, "controllers": {
                "node": {"reconcilerPeriod": "5m", "syncLabels": "Enabled", "leakGracePeriod": "15m", "hostEndpoint": {
                    "autoCreate": "Enabled", "createDefaultHostEndpoint": "Disabled", "templates": [{
                        "generateName": "t", "interfaceCIDRs": ["10.0.0.0/8"], "interfacePattern": "eth.*", "labels": {"a": "b"},
                        "annotations": {"a": "b"}, "nodeSelector": "all()"}]}},
                "policy": {"reconcilerPeriod": "5m"}, "workloadEndpoint": {}, "serviceAccount": {}, "namespace": {},
                "loadBalancer": {"assignIPs": "RequestedServicesOnly"}, "migration": {"policyNameMigrator": "Disabled"},
            },
        })),
        (Kind::FelixConfiguration, json!({
            "logSeverityScreen": "info", "natPortRange": "1:2", "istioDSCPMark": "AF11", "kubeNodePortRanges": [80, "1:2"],
            "routeTableRanges": [{"min": 1, "max": 2}], "failsafeInboundHostPorts": [{"protocol": "tcp", "port": 22, "net": "10.0.0.0/8"}],
            "bpfConntrackTimeouts": {"tcpFinsSeen": "Auto"}, "featureGates": "a=b, c=d", "healthTimeoutOverrides": [{"name": "a b", "timeout": "1s"}],
            "externalNodesList": ["10.0.0.1"], "iptablesBackend": "nft", "reportingInterval": "0s", "mtuIfacePattern": "^eth.*",
        })),
        (Kind::ClusterInformation, json!({
            "clusterGUID": "0123456789abcdef0123456789abcdef", "clusterType": "k8s,bgp", "calicoVersion": "v3", "datastoreReady": true, "variant": "Calico",
        })),
    ]
    .into_iter()
    .collect()
}

#[test]
fn every_kind_has_a_schema_that_its_resources_keep() {
    let full = full();
    for kind in Kind::ALL {
        let value = document(*kind, &full[kind]);
        let checked = Document::from_value(value.clone()).unwrap().check_input();
        let checked = checked.unwrap_or_else(|error| panic!("{error}"));
        let validator = validator(*kind);
        for value in [&value, Document::from(&checked).value()] {
            let errors: Vec<String> =
                validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert!(errors.is_empty(), "{kind}: {errors:#?}");
        }
    }
}

/// Every place in a value that has fields or is a leaf, as a path of keys and indices.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            found.push(at.to_owned());
            for (key, inner) in object {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(inner, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            found.push(at.to_owned());
            items.iter().enumerate().for_each(|(i, item)| places(item, &format!("{at}/{i}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => found.push(at.to_owned()),
    }
}

#[test]
fn an_unknown_field_or_a_wrong_type_is_refused_by_the_schema_where_the_reader_refuses_it() {
    let full = full();
    let mut refused = 0;
    for kind in Kind::ALL {
        let value = document(*kind, &full[kind]);
        let validator = validator(*kind);
        let mut all = Vec::new();
        places(&value["spec"], "/spec", &mut all);
        for place in all {
            let mut unknown = value.clone();
            let spot = unknown.pointer_mut(&place).unwrap();
            if let Value::Object(object) = spot {
                object.insert("zzz".to_owned(), json!(true));
            } else {
                // What is no object becomes one, which is no field's type but that of an object.
                *spot = json!({"zzz": true});
            }
            let reader = Document::from_value(unknown.clone()).unwrap().check_input().is_ok();
            let schema = validator.is_valid(&unknown);
            assert_eq!(schema, reader, "{kind} {place} with a field that is not its own");
            refused += usize::from(!reader);
        }
    }
    assert!(refused > 400, "only {refused} places were tried in vain");
}

/// Draws one field of some sound resource and puts another value there.
fn changed() -> impl Strategy<Value = (Kind, Value)> {
    let values = prop_oneof![
        Just(json!(true)),
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(7)),
        Just(json!(70000)),
        Just(json!(1.5)),
        Just(json!("")),
        Just(json!("x")),
        Just(json!("a b")),
        Just(json!("10.0.0.0/8")),
        Just(json!("Enabled")),
        Just(json!("1s")),
        Just(json!([])),
        Just(json!(["x"])),
        Just(json!([1, 2])),
        Just(json!({})),
        Just(json!({"name": "x"})),
        "[a-z0-9:./]{0,300}".prop_map(|text| json!(text)),
    ];
    (proptest::sample::select(Kind::ALL), any::<proptest::sample::Index>(), values).prop_map(
        |(kind, index, new)| {
            let mut value = document(kind, &full()[&kind]);
            let mut all = Vec::new();
            places(&value["spec"], "/spec", &mut all);
            let place: &String = index.get(&all);
            *value.pointer_mut(place).unwrap() = new;
            (kind, value)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_the_reader_accepts_keeps_the_schema((kind, value) in changed()) {
        if Document::from_value(value.clone()).unwrap().check_input().is_ok() {
            let found = cached(kind).is_valid(&value);
            prop_assert!(found, "{kind}: {value}");
        }
    }
}

/// Schemas are compiled once.
fn cached(kind: Kind) -> &'static Validator {
    static ALL: std::sync::OnceLock<BTreeMap<Kind, Validator>> = std::sync::OnceLock::new();
    &ALL.get_or_init(|| Kind::ALL.iter().map(|kind| (*kind, validator(*kind))).collect())[&kind]
}
