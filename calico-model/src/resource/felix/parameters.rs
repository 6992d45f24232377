//! The table of all parameters.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::bpf::*;
use super::check::check;
use super::values::*;
use super::words::*;
use crate::net::Cidr;
use crate::resource::MAX_ROUTE_PRIORITY;
use crate::resource::duration::GoDuration;
use crate::resource::ipam::Switch;
use crate::resource::policy::PortMatch;
use crate::resource::severity::Severity;
use crate::selector::Selector;
use crate::wire::{FromWire, Limit, Path, Report, ToWire, wire_struct};

/// Declares the parameters: each with its meaning, type, name, and the default that counts when it is unset nowhere.
macro_rules! parameters {
    ($($(#[doc = $doc:literal])* $field:ident: $type:ty = $key:literal $([$($limit:expr),+])? $(or $default:expr)?;)*) => {
        wire_struct! {
            /// A `FelixConfiguration`: `default` is for the cluster, `node.NAME` for one node. A parameter that is unset
            /// is taken from the wider configuration, and at last from [`FelixConfiguration::defaults`].
            pub struct FelixConfiguration {
                $($(#[doc = $doc])* $field: Option<$type> = $key optional $(($default))? $([$($limit),+])?,)*
            }
            check = check;
        }

        impl FelixConfiguration {
            /// Makes a configuration in which nothing is set.
            #[must_use]
            pub fn new() -> Self {
                Self { $($field: None),* }
            }

            /// Returns what counts where nothing is set: the defaults that upstream's agent has, and not those that its
            /// documentation claims.
            #[must_use]
            pub fn defaults() -> Self {
                Self { $($field: parameters!(@default $key $($default)?)),* }
            }

            /// Returns this configuration with every unset parameter taken from `wider`.
            #[must_use]
            pub fn or(&self, wider: &FelixConfiguration) -> FelixConfiguration {
                FelixConfiguration { $($field: self.$field.clone().or_else(|| wider.$field.clone())),* }
            }
        }
    };
    (@default $key:literal) => { None };
    (@default $key:literal $default:expr) => { documented($key, &json!($default)) };
}

parameters! {
    /// Overrides what was detected of the kernel and the tools: a comma-separated list of `Name=true` or `Name=false`.
    feature_detect_override: String = "featureDetectOverride" [Limit::Assignments];
    /// Switches unfinished features on or off: a comma-separated list of `Name=true` or `Name=false`.
    feature_gates: String = "featureGates" [Limit::Assignments];
    /// Upstream's garbage collector; has no meaning here.
    go_gc_threshold: i64 = "goGCThreshold" or 40;
    /// Upstream's scheduler; has no meaning here.
    go_max_procs: i64 = "goMaxProcs" or -1;
    /// Upstream's garbage collector; has no meaning here.
    go_memory_limit_mb: i64 = "goMemoryLimitMB" or -1;
    /// Whether health is told over HTTP.
    health_enabled: bool = "healthEnabled" or false;
    /// The address that health is told on.
    health_host: String = "healthHost" or "localhost";
    /// The port that health is told on.
    health_port: u16 = "healthPort" or 9099;
    /// How long a component may be silent before it counts as dead, where that differs from its own default.
    health_timeout_overrides: Vec<HealthTimeout> = "healthTimeoutOverrides";
    /// How many packets a Log rule logs at most, such as `5/minute`; unset is all.
    log_action_rate_limit: String = "logActionRateLimit" [Limit::Rate];
    /// How many packets a Log rule logs at once before the limit counts.
    log_action_rate_limit_burst: u32 = "logActionRateLimitBurst" or 5;
    /// Upstream's source files whose debug messages are logged, as a regular expression.
    log_debug_filename_regex: String = "logDebugFilenameRegex";
    /// The file that is logged to.
    log_file_path: String = "logFilePath" or "/var/log/calico/felix.log";
    /// How the kernel's log lines of Log rules begin; `%t`, `%k`, `%n` and `%p` stand for tier, kind, name and policy.
    log_prefix: String = "logPrefix" or "calico-packet";
    /// The least severity that goes to the file.
    log_severity_file: Severity = "logSeverityFile" or "Info";
    /// The least severity that goes to standard error.
    log_severity_screen: Severity = "logSeverityScreen" or "Info";
    /// The least severity that goes to syslog.
    log_severity_sys: Severity = "logSeveritySys" or "Info";
    /// Whether metrics of upstream's runtime are told.
    prometheus_go_metrics_enabled: bool = "prometheusGoMetricsEnabled" or true;
    /// The file of the authorities that may have signed the certificates of those who ask for metrics.
    prometheus_metrics_ca_file: String = "prometheusMetricsCAFile";
    /// The file of the certificate of the metrics' server.
    prometheus_metrics_cert_file: String = "prometheusMetricsCertFile";
    /// What is asked of the certificates of those who ask for metrics.
    prometheus_metrics_client_auth: ClientAuth = "prometheusMetricsClientAuth" or "NoClientCert";
    /// Whether metrics are told.
    prometheus_metrics_enabled: bool = "prometheusMetricsEnabled" or false;
    /// The address that metrics are told on; unset is every one.
    prometheus_metrics_host: String = "prometheusMetricsHost" [Limit::Chars(1, 64, ":._+-")];
    /// The file of the key of the metrics' server.
    prometheus_metrics_key_file: String = "prometheusMetricsKeyFile";
    /// The port that metrics are told on.
    prometheus_metrics_port: u16 = "prometheusMetricsPort" or 9091;
    /// Whether metrics of the process are told.
    prometheus_process_metrics_enabled: bool = "prometheusProcessMetricsEnabled" or true;
    /// Whether metrics of WireGuard are told.
    prometheus_wireguard_metrics_enabled: bool = "prometheusWireGuardMetricsEnabled" or true;
    /// Whether workloads may send IP-in-IP packets of their own.
    allow_ipip_packets_from_workloads: bool = "allowIPIPPacketsFromWorkloads" or false;
    /// Whether workloads may send VXLAN packets of their own.
    allow_vxlan_packets_from_workloads: bool = "allowVXLANPacketsFromWorkloads" or false;
    /// Where cgroups of version 2 are mounted.
    cgroup_v2_path: String = "cgroupV2Path";
    /// Whether our jumps come before or after the rules of others.
    chain_insert_mode: ChainInsertMode = "chainInsertMode" or "Insert";
    /// Upstream's external dataplane; has no meaning here.
    dataplane_driver: String = "dataplaneDriver" or "calico-iptables-plugin";
    /// How long the dataplane may be busy before it counts as dead.
    dataplane_watchdog_timeout: GoDuration = "dataplaneWatchdogTimeout" or "1m30s";
    /// What becomes of allowed traffic from a workload to its own node.
    default_endpoint_to_host_action: EndpointToHostAction = "defaultEndpointToHostAction" or "Drop";
    /// The protocol number of routes over workloads' interfaces.
    device_route_protocol: u8 = "deviceRouteProtocol" or 3;
    /// The source address of packets from the node to workloads; unset leaves it to the kernel.
    device_route_source_address: Ipv4Addr = "deviceRouteSourceAddress";
    /// The same for IPv6.
    device_route_source_address_ipv6: Ipv6Addr = "deviceRouteSourceAddressIPv6";
    /// Whether packets that connection tracking finds invalid are let be.
    disable_conntrack_invalid_check: bool = "disableConntrackInvalidCheck" or false;
    /// The folder under which endpoints' status is left in files.
    endpoint_status_path_prefix: String = "endpointStatusPathPrefix" or "/var/run/calico";
    /// Addresses of machines outside the cluster that may send encapsulated packets.
    external_nodes_list: Vec<Cidr> = "externalNodesList";
    /// Ports of the node that no host endpoint's policy can close, for traffic to it.
    failsafe_inbound_host_ports: Vec<ProtoPort> = "failsafeInboundHostPorts" or ProtoPort::inbound().to_wire();
    /// Ports that no host endpoint's policy can close, for traffic from the node.
    failsafe_outbound_host_ports: Vec<ProtoPort> = "failsafeOutboundHostPorts" or ProtoPort::outbound().to_wire();
    /// Whether flows that policy has ceased to allow are stopped, or go on to their end as upstream has it.
    flow_reevaluation: Switch = "flowReevaluation" or "Enabled";
    /// Whether addresses from outside may lead to workloads.
    floating_ips: Switch = "floatingIPs" or "Disabled";
    /// Whether the node is made to forward packets.
    ip_forwarding: Switch = "ipForwarding" or "Enabled";
    /// The metric of IPv4 routes that win over ordinary ones while a machine migrates.
    ipv4_elevated_route_priority: u32 = "ipv4ElevatedRoutePriority" [Limit::Range(1, MAX_ROUTE_PRIORITY)] or 512;
    /// The metric of ordinary IPv4 routes.
    ipv4_normal_route_priority: u32 = "ipv4NormalRoutePriority" [Limit::Range(1, MAX_ROUTE_PRIORITY)] or 1024;
    /// The metric of IPv6 routes that win over ordinary ones while a machine migrates.
    ipv6_elevated_route_priority: u32 = "ipv6ElevatedRoutePriority" [Limit::Range(1, MAX_ROUTE_PRIORITY)] or 512;
    /// The metric of ordinary IPv6 routes.
    ipv6_normal_route_priority: u32 = "ipv6NormalRoutePriority" [Limit::Range(1, MAX_ROUTE_PRIORITY)] or 1024;
    /// Interfaces that are not looked at: names, or regular expressions between slashes, separated by commas.
    interface_exclude: String = "interfaceExclude" or "kube-ipvs0";
    /// How the names of workloads' host interfaces begin: a comma-separated list.
    interface_prefix: String = "interfacePrefix" or "cali";
    /// How often all interfaces are looked at anew.
    interface_refresh_interval: GoDuration = "interfaceRefreshInterval" or "1m30s";
    /// Whether IPv6 is served.
    ipv6_support: bool = "ipv6Support" or true;
    /// Whether Istio's ambient mode is supported.
    istio_ambient_mode: Switch = "istioAmbientMode" or "Disabled";
    /// The DSCP value of Istio's packets, as a number or a name.
    istio_dscp_mark: Dscp = "istioDSCPMark" or 23;
    /// How long the routes of a machine that has migrated win over ordinary ones.
    live_migration_route_convergence_time: GoDuration = "liveMigrationRouteConvergenceTime" or "30s";
    /// Whether the node answers for addresses of workloads in its own subnet.
    local_subnet_l2_reachability: L2Reachability = "localSubnetL2Reachability" or "Disabled";
    /// How often that is told anew.
    local_subnet_l2_reachability_refresh_interval: GoDuration = "localSubnetL2ReachabilityRefreshInterval" or "2m0s";
    /// Which interfaces' MTU counts for the workloads', as a regular expression.
    mtu_iface_pattern: String = "mtuIfacePattern" or "^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)";
    /// The source address of packets that leave all pools; unset is the outgoing interface's.
    nat_outgoing_address: Ipv4Addr = "natOutgoingAddress";
    /// Which destinations keep the source address as it is.
    nat_outgoing_exclusions: NatExclusions = "natOutgoingExclusions" or "IPPoolsOnly";
    /// The source ports of packets that leave all pools; 0 is any.
    nat_port_range: PortMatch = "natPortRange" or 0;
    /// Which interfaces take part in flow offload, as a regular expression.
    nftables_flow_table_data_iface_pattern: String = "nftablesFlowTableDataIfacePattern";
    /// Whether established flows bypass the rules.
    nftables_flow_table_offload: FlowOffload = "nftablesFlowTableOffload" or "Disabled";
    /// Whether nftables is used rather than iptables.
    nftables_mode: NftablesMode = "nftablesMode" or "Auto";
    /// How long the kernel may take to answer.
    netlink_timeout: GoDuration = "netlinkTimeout" or "10s";
    /// The folder of the sockets over which policy is told to enforcers of HTTP rules.
    policy_sync_path_prefix: String = "policySyncPathPrefix";
    /// Which routes between nodes are programmed from the datastore.
    program_cluster_routes: ProgramClusterRoutes = "programClusterRoutes" or "EnabledIPIPOnly";
    /// Whether routes of others over workloads' interfaces are removed.
    remove_external_routes: bool = "removeExternalRoutes" or true;
    /// Whether the agent refuses to run when it cannot leave the MTU for the CNI plugin.
    require_mtu_file: bool = "requireMTUFile" or false;
    /// How often all routes are compared; 0 is never.
    route_refresh_interval: GoDuration = "routeRefreshInterval" or "1m30s";
    /// Where it is known from which node an address is on.
    route_source: RouteSource = "routeSource" or "CalicoIPAM";
    /// Whether routes are left to somebody else.
    route_sync_disabled: bool = "routeSyncDisabled" or false;
    /// The routing tables that may be used, 1 to 250.
    route_table_range: TableRange = "routeTableRange";
    /// The routing tables that may be used.
    route_table_ranges: Vec<TableRange> = "routeTableRanges";
    /// What becomes of packets to service addresses that no service takes.
    service_loop_prevention: LoopPrevention = "serviceLoopPrevention" or "Drop";
    /// Whether traffic to side-cars on the same node takes a short cut.
    sidecar_acceleration_enabled: bool = "sidecarAccelerationEnabled" or false;
    /// Upstream's external dataplane; has no meaning here.
    use_internal_dataplane_driver: bool = "useInternalDataplaneDriver" or true;
    /// Whether workloads may ask to send from foreign addresses.
    workload_source_spoofing: SourceSpoofing = "workloadSourceSpoofing" or "Disabled";
    /// How often all IP sets are compared; 0 is never.
    ipsets_refresh_interval: GoDuration = "ipsetsRefreshInterval" or "1m30s";
    /// Which kind of iptables is used.
    iptables_backend: IptablesBackend = "iptablesBackend" or "Auto";
    /// What becomes of allowed packets in the filter table.
    iptables_filter_allow_action: AllowAction = "iptablesFilterAllowAction" or "Accept";
    /// What becomes of denied packets.
    iptables_filter_deny_action: DenyAction = "iptablesFilterDenyAction" or "Drop";
    /// How often the lock of iptables is tried.
    iptables_lock_probe_interval: GoDuration = "iptablesLockProbeInterval" or "50ms";
    /// What becomes of allowed packets in the mangle table.
    iptables_mangle_allow_action: AllowAction = "iptablesMangleAllowAction" or "Accept";
    /// The bits of packet marks that may be used.
    iptables_mark_mask: u32 = "iptablesMarkMask" or 0xffff_0000u32;
    /// The interface out of which packets must leave to get the node's address; unset is any.
    iptables_nat_outgoing_interface_filter: String = "iptablesNATOutgoingInterfaceFilter" [Limit::Chars(1, 15, ":._+-")];
    /// How long after a write it is checked.
    iptables_post_write_check_interval: GoDuration = "iptablesPostWriteCheckInterval" or "5s";
    /// How often all rules are compared; 0 is never.
    iptables_refresh_interval: GoDuration = "iptablesRefreshInterval" or "3m0s";
    /// The ports of Kubernetes' services of type NodePort.
    kube_node_port_ranges: Vec<PortMatch> = "kubeNodePortRanges" or ["30000:32767"];
    /// How many members an IP set may have.
    max_ipset_size: u32 = "maxIpsetSize" or 1048576;
    /// What becomes of allowed packets.
    nftables_filter_allow_action: AllowAction = "nftablesFilterAllowAction" or "Accept";
    /// What becomes of denied packets.
    nftables_filter_deny_action: DenyAction = "nftablesFilterDenyAction" or "Drop";
    /// What becomes of allowed packets before they are routed.
    nftables_mangle_allow_action: AllowAction = "nftablesMangleAllowAction" or "Accept";
    /// The bits of packet marks that may be used.
    nftables_mark_mask: u32 = "nftablesMarkMask" or 0xffff_0000u32;
    /// How often all rules are compared; 0 is never.
    nftables_refresh_interval: GoDuration = "nftablesRefreshInterval" or "3m0s";
    /// eBPF: how programs are attached.
    bpf_attach_type: BpfAttachType = "bpfAttachType" or "Netkit";
    /// eBPF: what the connect-time load balancer logs.
    bpf_ctlb_log_filter: String = "bpfCTLBLogFilter";
    /// eBPF: which protocols are balanced at connect time.
    bpf_connect_time_load_balancing: BpfConnectTime = "bpfConnectTimeLoadBalancing" or "TCP";
    /// eBPF: deprecated by `bpfConnectTimeLoadBalancing`.
    bpf_connect_time_load_balancing_enabled: bool = "bpfConnectTimeLoadBalancingEnabled";
    /// eBPF: who cleans up tracked connections.
    bpf_conntrack_mode: BpfConntrackMode = "bpfConntrackMode" or "Auto";
    /// eBPF: the log level of connection tracking.
    bpf_conntrack_log_level: BpfConntrackLog = "bpfConntrackLogLevel" or "Off";
    /// eBPF: how long connections are remembered.
    bpf_conntrack_timeouts: ConntrackTimeouts = "bpfConntrackTimeouts" or conntrack_timeouts();
    /// eBPF: clients that get no direct server return.
    bpf_dsr_optout_cidrs: Vec<Cidr> = "bpfDSROptoutCIDRs";
    /// eBPF: the interfaces that lead to other nodes, as a regular expression.
    bpf_data_iface_pattern: String = "bpfDataIfacePattern" or "^((en|wl|ww|sl|ib)[Popsx].*|(eth|wlan|wwan|bond).*)";
    /// eBPF: interfaces whose receive offload is switched off, as a regular expression.
    bpf_disable_gro_for_ifaces: String = "bpfDisableGROForIfaces";
    /// eBPF: whether unprivileged programs may load none.
    bpf_disable_unprivileged: bool = "bpfDisableUnprivileged" or true;
    /// eBPF: whether it is used.
    bpf_enabled: bool = "bpfEnabled" or false;
    /// eBPF: how strictly source addresses are checked.
    bpf_enforce_rpf: BpfRpf = "bpfEnforceRPF" or "Loose";
    /// eBPF: destinations that are not translated.
    bpf_exclude_cidrs_from_nat: Vec<Cidr> = "bpfExcludeCIDRsFromNAT";
    /// eBPF: the size of the buffer of exported events, in MB.
    bpf_export_buffer_size_mb: u32 = "bpfExportBufferSizeMB" or 1;
    /// eBPF: the mark of connections from outside to services.
    bpf_ext_to_service_connmark: u32 = "bpfExtToServiceConnmark" or 0;
    /// eBPF: how packets from outside reach services on other nodes.
    bpf_external_service_mode: BpfServiceMode = "bpfExternalServiceMode" or "Tunnel";
    /// eBPF: interfaces whose packets the kernel tracks too.
    bpf_force_track_packets_from_ifaces: Vec<String> = "bpfForceTrackPacketsFromIfaces" [Limit::Each(&Limit::Chars(1, 15, ":._+-"))] or ["docker+"];
    /// eBPF: whether the kernel's connection tracking is bypassed.
    bpf_host_conntrack_bypass: bool = "bpfHostConntrackBypass" or false;
    /// eBPF: whether services are translated for the host's own programs.
    bpf_host_networked_nat_without_ctlb: Switch = "bpfHostNetworkedNATWithoutCTLB" or "Enabled";
    /// eBPF: how long fragments are kept.
    bpf_ip_frag_timeout: GoDuration = "bpfIPFragTimeout" or "0s";
    /// eBPF: whether fragments are put together.
    bpf_ip_fragment_reassembly_enabled: bool = "bpfIPFragmentReassemblyEnabled" or true;
    /// eBPF: how the compiler is hardened.
    bpf_jit_hardening: BpfHardening = "bpfJITHardening" or "Auto";
    /// eBPF: the port that tells kube-proxy's health.
    bpf_kube_proxy_healthz_port: u16 = "bpfKubeProxyHealthzPort" or 10256;
    /// eBPF: whether kube-proxy's rules are removed.
    bpf_kube_proxy_iptables_cleanup_enabled: bool = "bpfKubeProxyIptablesCleanupEnabled" or true;
    /// eBPF: how often services are written at most.
    bpf_kube_proxy_min_sync_period: GoDuration = "bpfKubeProxyMinSyncPeriod" or "1s";
    /// eBPF: interfaces without link-layer headers, as a regular expression.
    bpf_l3_iface_pattern: String = "bpfL3IfacePattern";
    /// eBPF: what the programs of an interface log.
    bpf_log_filters: BTreeMap<String, String> = "bpfLogFilters";
    /// eBPF: the programs' log level.
    bpf_log_level: BpfLogLevel = "bpfLogLevel" or "Off";
    /// eBPF: how many endpoints a balanced service may have.
    bpf_maglev_max_endpoints_per_service: u32 = "bpfMaglevMaxEndpointsPerService" or 100;
    /// eBPF: how many balanced services there may be.
    bpf_maglev_max_services: u32 = "bpfMaglevMaxServices" or 100;
    /// eBPF: the size of the table of connections.
    bpf_map_size_conntrack: u32 = "bpfMapSizeConntrack" or 512000;
    /// eBPF: the size of the queue of connections to forget.
    bpf_map_size_conntrack_cleanup_queue: u32 = "bpfMapSizeConntrackCleanupQueue" or 100000;
    /// eBPF: what becomes of a table of connections that is full.
    bpf_map_size_conntrack_scaling: BpfScaling = "bpfMapSizeConntrackScaling" or "DoubleIfFull";
    /// eBPF: the size of the table of IP sets.
    bpf_map_size_ip_sets: u32 = "bpfMapSizeIPSets" or 1048576;
    /// eBPF: the size of the table of interfaces.
    bpf_map_size_if_state: u32 = "bpfMapSizeIfState" or 1000;
    /// eBPF: the size of the table of service affinities.
    bpf_map_size_nat_affinity: u32 = "bpfMapSizeNATAffinity" or 65536;
    /// eBPF: the size of the table of service endpoints.
    bpf_map_size_nat_backend: u32 = "bpfMapSizeNATBackend" or 262144;
    /// eBPF: the size of the table of services.
    bpf_map_size_nat_frontend: u32 = "bpfMapSizeNATFrontend" or 65536;
    /// eBPF: the size of the table of connections for each processor.
    bpf_map_size_per_cpu_conntrack: u32 = "bpfMapSizePerCpuConntrack" or 0;
    /// eBPF: the size of the table of routes.
    bpf_map_size_route: u32 = "bpfMapSizeRoute" or 262144;
    /// eBPF: the source address of the host's packets through tunnels.
    bpf_overlay_host_source_ip: BpfOverlaySource = "bpfOverlayHostSourceIP" or "TunnelAddress";
    /// eBPF: the ports that clashing source ports are translated to.
    bpf_psnat_ports: PortMatch = "bpfPSNATPorts" or "20000:29999";
    /// eBPF: whether the compiled policy can be looked at.
    bpf_policy_debug_enabled: bool = "bpfPolicyDebugEnabled" or true;
    /// eBPF: whether programs are profiled.
    bpf_profiling: Switch = "bpfProfiling" or "Disabled";
    /// eBPF: whether packets skip the host's end of a workload's interface.
    bpf_redirect_to_peer: Switch = "bpfRedirectToPeer" or "Enabled";
    /// Windows: whether firewall rules are managed.
    windows_manage_firewall_rules: Switch = "windowsManageFirewallRules" or "Disabled";
    /// OpenStack: how late endpoints' status is reported.
    endpoint_reporting_delay: GoDuration = "endpointReportingDelay" or "1s";
    /// OpenStack: whether endpoints' status is reported.
    endpoint_reporting_enabled: bool = "endpointReportingEnabled" or false;
    /// OpenStack: the metadata service's address.
    metadata_addr: String = "metadataAddr" or "127.0.0.1";
    /// OpenStack: the metadata service's port.
    metadata_port: u16 = "metadataPort" or 8775;
    /// OpenStack: the region.
    openstack_region: String = "openstackRegion";
    /// OpenStack: how often the agent's status is reported; 0 is never.
    reporting_interval: GoDuration = "reportingInterval" or "30s";
    /// OpenStack: how long a reported status counts.
    reporting_ttl: GoDuration = "reportingTTL" or "1m30s";
    /// XDP: whether its slow form may be used.
    generic_xdp_enabled: bool = "genericXDPEnabled" or false;
    /// XDP: whether it is used for untracked policy.
    xdp_enabled: bool = "xdpEnabled" or true;
    /// XDP: how often its state is compared.
    xdp_refresh_interval: GoDuration = "xdpRefreshInterval" or "1m30s";
    /// Whether VXLAN is used; unset follows the pools.
    vxlan_enabled: bool = "vxlanEnabled";
    /// The MTU of the IPv4 VXLAN device; 0 detects it.
    vxlan_mtu: u16 = "vxlanMTU" or 0;
    /// The MTU of the IPv6 VXLAN device; 0 detects it.
    vxlan_mtu_v6: u16 = "vxlanMTUV6" or 0;
    /// The UDP port of VXLAN.
    vxlan_port: u16 = "vxlanPort" or 4789;
    /// The VXLAN network identifier.
    vxlan_vni: u32 = "vxlanVNI" [Limit::Range(0, 16_777_215)] or 4096;
    /// Whether IP-in-IP is used; unset follows the pools.
    ipip_enabled: bool = "ipipEnabled";
    /// The MTU of the IP-in-IP device; 0 detects it.
    ipip_mtu: u16 = "ipipMTU" or 0;
    /// WireGuard: whether it is used for IPv4.
    wireguard_enabled: bool = "wireguardEnabled" or false;
    /// WireGuard: whether it is used for IPv6.
    wireguard_enabled_v6: bool = "wireguardEnabledV6" or false;
    /// WireGuard: whether traffic between the nodes themselves is encrypted.
    wireguard_host_encryption_enabled: bool = "wireguardHostEncryptionEnabled" or false;
    /// WireGuard: the IPv4 device.
    wireguard_interface_name: String = "wireguardInterfaceName" or "wireguard.cali";
    /// WireGuard: the IPv6 device.
    wireguard_interface_name_v6: String = "wireguardInterfaceNameV6" or "wg-v6.cali";
    /// WireGuard: the UDP port for IPv4.
    wireguard_listening_port: u16 = "wireguardListeningPort" or 51820;
    /// WireGuard: the UDP port for IPv6.
    wireguard_listening_port_v6: u16 = "wireguardListeningPortV6" or 51821;
    /// WireGuard: the MTU of the IPv4 device; 0 detects it.
    wireguard_mtu: u16 = "wireguardMTU" or 0;
    /// WireGuard: the MTU of the IPv6 device; 0 detects it.
    wireguard_mtu_v6: u16 = "wireguardMTUV6" or 0;
    /// WireGuard: how often an idle tunnel says something; 0 is never.
    wireguard_keep_alive: GoDuration = "wireguardKeepAlive" or "0s";
    /// WireGuard: the priority of the routing rule.
    wireguard_routing_rule_priority: u32 = "wireguardRoutingRulePriority" or 99;
    /// WireGuard: whether the kernel uses threads.
    wireguard_threading_enabled: bool = "wireguardThreadingEnabled" or false;
    /// Flow logs: whether their collector is traced.
    flow_logs_collector_debug_trace: bool = "flowLogsCollectorDebugTrace" or false;
    /// Flow logs: how often they are written.
    flow_logs_flush_interval: GoDuration = "flowLogsFlushInterval" or "5m0s";
    /// Flow logs: the server they are sent to.
    flow_logs_goldmane_server: String = "flowLogsGoldmaneServer";
    /// Flow logs: whether they are told on the node.
    flow_logs_local_reporter: Switch = "flowLogsLocalReporter" or "Disabled";
    /// Flow logs: whether pending policy is evaluated for flows that go on.
    flow_logs_policy_evaluation_mode: FlowEvaluation = "flowLogsPolicyEvaluationMode" or "Continuous";
    /// AWS: what is done with the instance's source and destination check.
    aws_src_dst_check: AwsCheck = "awsSrcDstCheck" or "DoNothing";
    /// Debugging: whether log lines are never dropped.
    debug_disable_log_dropping: bool = "debugDisableLogDropping" or false;
    /// Debugging: the profiler's address.
    debug_host: String = "debugHost" or "localhost";
    /// Debugging: the file for memory profiles.
    debug_memory_profile_path: String = "debugMemoryProfilePath";
    /// Debugging: the profiler's port.
    debug_port: u16 = "debugPort";
    /// Debugging: simulates a hang.
    debug_simulate_calc_graph_hang_after: GoDuration = "debugSimulateCalcGraphHangAfter" or "0s";
    /// Debugging: simulates a slow dataplane.
    debug_simulate_dataplane_apply_delay: GoDuration = "debugSimulateDataplaneApplyDelay" or "0s";
    /// Debugging: simulates a hang.
    debug_simulate_dataplane_hang_after: GoDuration = "debugSimulateDataplaneHangAfter" or "0s";
    /// Upstream's usage report; nothing is reported here.
    usage_reporting_enabled: bool = "usageReportingEnabled" or true;
    /// Upstream's usage report; nothing is reported here.
    usage_reporting_initial_delay: GoDuration = "usageReportingInitialDelay" or "5m0s";
    /// Upstream's usage report; nothing is reported here.
    usage_reporting_interval: GoDuration = "usageReportingInterval" or "24h0m0s";
    /// The nodes this is for, when it is neither the cluster's nor one node's.
    node_selector: Selector = "nodeSelector";
}

/// Reads a default that is written above as it would be in a file.
fn documented<T: FromWire>(key: &str, value: &Value) -> Option<T> {
    let read = T::from_wire(value, Path::root(key), &mut Report::default());
    debug_assert!(read.is_some(), "the default of {key} is not one");
    read
}

fn conntrack_timeouts() -> Value {
    json!({
        "creationGracePeriod": "10s", "tcpSynSent": "20s", "tcpEstablished": "1h", "tcpFinsSeen": "Auto",
        "tcpResetSeen": "40s", "udpTimeout": "60s", "genericTimeout": "10m", "icmpTimeout": "5s",
    })
}
