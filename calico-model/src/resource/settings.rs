//! Settings of the cluster and of the agents.

use crate::net::{Cidr, Protocol};
use crate::wire::{Path, Report, wire_enum, wire_struct};

wire_enum! {
    /// What becomes of traffic from a workload to its own node, after the workload's policy allowed it.
    pub enum EndpointToHostAction {
        /// It is dropped.
        Drop = "Drop",
        /// It is accepted.
        Accept = "Accept",
        /// The rules of others decide.
        Return = "Return",
    }
}

wire_enum! {
    /// Which routes between nodes the route programmer writes from the datastore; the rest is left to BGP.
    pub enum ProgramClusterRoutes {
        /// Only VXLAN's.
        Disabled = "Disabled",
        /// All.
        Enabled = "Enabled",
        /// VXLAN's and IP-in-IP's.
        IpipOnly = "EnabledIPIPOnly",
        /// VXLAN's and those without encapsulation.
        NoEncapOnly = "EnabledNoEncapOnly",
    }
}

wire_struct! {
    /// A `FelixConfiguration`: `default` is for the cluster, `node.NAME` for one node. An unset field has the
    /// documented default, which the accessors give.
    pub struct FelixConfiguration {
        /// What becomes of allowed traffic from a workload to its own node.
        default_endpoint_to_host_action: Option<EndpointToHostAction> = "defaultEndpointToHostAction" optional,
        /// How the names of workloads' host interfaces begin: a comma-separated list.
        interface_prefix: Option<String> = "interfacePrefix" optional,
        /// Which routes between nodes are programmed from the datastore.
        program_cluster_routes: Option<ProgramClusterRoutes> = "programClusterRoutes" optional,
        /// The UDP port of VXLAN.
        vxlan_port: Option<u16> = "vxlanPort" optional,
        /// The VXLAN network identifier.
        vxlan_vni: Option<u32> = "vxlanVNI" optional,
        /// The MTU of the VXLAN device; 0 or unset detects it.
        vxlan_mtu: Option<u16> = "vxlanMTU" optional,
        /// The MTU of the IP-in-IP device; 0 or unset detects it.
        ipip_mtu: Option<u16> = "ipipMTU" optional,
        /// Whether workloads may send VXLAN packets of their own.
        allow_vxlan_packets_from_workloads: Option<bool> = "allowVXLANPacketsFromWorkloads" optional,
        /// Whether workloads may send IP-in-IP packets of their own.
        allow_ipip_packets_from_workloads: Option<bool> = "allowIPIPPacketsFromWorkloads" optional,
        /// Whether packets that connection tracking finds invalid are let be.
        disable_conntrack_invalid_check: Option<bool> = "disableConntrackInvalidCheck" optional,
        /// How the kernel's log lines of Log rules begin.
        log_prefix: Option<String> = "logPrefix" optional,
        /// The log level.
        log_severity_screen: Option<String> = "logSeverityScreen" optional,
        /// What every host endpoint lets in, whatever policy says; unset is [`ProtoPort::inbound`].
        failsafe_inbound_host_ports: Option<Vec<ProtoPort>> = "failsafeInboundHostPorts" optional,
        /// What every host endpoint lets out, whatever policy says; unset is [`ProtoPort::outbound`].
        failsafe_outbound_host_ports: Option<Vec<ProtoPort>> = "failsafeOutboundHostPorts" optional,
        /// How often a status is reported.
        reporting_interval: Option<String> = "reportingInterval" optional,
        /// Whether IPv6 is served; unset is true.
        ipv6_support: Option<bool> = "ipv6Support" optional,
        /// The metric of ordinary IPv4 routes; unset is 1024.
        ipv4_normal_route_priority: Option<u32> = "ipv4NormalRoutePriority" optional,
        /// The metric of ordinary IPv6 routes; unset is 1024.
        ipv6_normal_route_priority: Option<u32> = "ipv6NormalRoutePriority" optional,
    }
    check = check_felix;
}

wire_struct! {
    /// A port that stays open, so that a host cannot lock out those who manage it.
    pub struct ProtoPort {
        /// Who is at the other end; `None` is anybody.
        net: Option<Cidr> = "net" optional,
        /// The protocol, in either case: TCP, UDP or SCTP.
        protocol: String = "protocol" required,
        /// The number.
        port: u16 = "port" required,
    }
    check = check_proto_port;
}

impl ProtoPort {
    /// Returns the protocol.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol.to_uppercase().parse().ok().filter(|protocol: &Protocol| protocol.has_ports())
    }

    /// Returns what is let in when nothing is configured: SSH, DHCP, BGP, etcd, Typha and the Kubernetes API.
    #[must_use]
    pub fn inbound() -> Vec<Self> {
        Self::all(("UDP", &[68]), &[22, 179, 2379, 2380, 5473, 6443, 6666, 6667])
    }

    /// Returns what is let out when nothing is configured: DNS, DHCP, BGP, etcd, Typha and the Kubernetes API.
    #[must_use]
    pub fn outbound() -> Vec<Self> {
        Self::all(("UDP", &[53, 67]), &[179, 2379, 2380, 5473, 6443, 6666, 6667])
    }

    fn all((protocol, ports): (&str, &[u16]), tcp: &[u16]) -> Vec<Self> {
        let each =
            |protocol: &str, port: &u16| Self { net: None, protocol: protocol.to_owned(), port: *port };
        tcp.iter()
            .map(|port| each("TCP", port))
            .chain(ports.iter().map(|port| each(protocol, port)))
            .collect()
    }
}

fn check_proto_port(port: &mut ProtoPort, at: Path<'_>, report: &mut Report) {
    if port.protocol().is_none() {
        let value = serde_json::Value::String(port.protocol.clone());
        report.fault(at.key("protocol"), Some(&value), "must be TCP, UDP or SCTP");
    }
}

impl FelixConfiguration {
    /// The name of the configuration that is for the whole cluster.
    pub const DEFAULT: &'static str = "default";

    /// Makes a configuration in which nothing is set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            default_endpoint_to_host_action: None,
            interface_prefix: None,
            program_cluster_routes: None,
            vxlan_port: None,
            vxlan_vni: None,
            vxlan_mtu: None,
            ipip_mtu: None,
            allow_vxlan_packets_from_workloads: None,
            allow_ipip_packets_from_workloads: None,
            disable_conntrack_invalid_check: None,
            log_prefix: None,
            log_severity_screen: None,
            failsafe_inbound_host_ports: None,
            failsafe_outbound_host_ports: None,
            reporting_interval: None,
            ipv6_support: None,
            ipv4_normal_route_priority: None,
            ipv6_normal_route_priority: None,
        }
    }

    /// Returns this configuration with every unset field taken from `wider`: a node's own over the cluster's.
    #[must_use]
    pub fn or(&self, wider: &FelixConfiguration) -> FelixConfiguration {
        FelixConfiguration {
            default_endpoint_to_host_action: self
                .default_endpoint_to_host_action
                .or(wider.default_endpoint_to_host_action),
            interface_prefix: self.interface_prefix.clone().or_else(|| wider.interface_prefix.clone()),
            program_cluster_routes: self.program_cluster_routes.or(wider.program_cluster_routes),
            vxlan_port: self.vxlan_port.or(wider.vxlan_port),
            vxlan_vni: self.vxlan_vni.or(wider.vxlan_vni),
            vxlan_mtu: self.vxlan_mtu.or(wider.vxlan_mtu),
            ipip_mtu: self.ipip_mtu.or(wider.ipip_mtu),
            allow_vxlan_packets_from_workloads: self
                .allow_vxlan_packets_from_workloads
                .or(wider.allow_vxlan_packets_from_workloads),
            allow_ipip_packets_from_workloads: self
                .allow_ipip_packets_from_workloads
                .or(wider.allow_ipip_packets_from_workloads),
            disable_conntrack_invalid_check: self
                .disable_conntrack_invalid_check
                .or(wider.disable_conntrack_invalid_check),
            log_prefix: self.log_prefix.clone().or_else(|| wider.log_prefix.clone()),
            log_severity_screen: self
                .log_severity_screen
                .clone()
                .or_else(|| wider.log_severity_screen.clone()),
            failsafe_inbound_host_ports: self
                .failsafe_inbound_host_ports
                .clone()
                .or_else(|| wider.failsafe_inbound_host_ports.clone()),
            failsafe_outbound_host_ports: self
                .failsafe_outbound_host_ports
                .clone()
                .or_else(|| wider.failsafe_outbound_host_ports.clone()),
            reporting_interval: self.reporting_interval.clone().or_else(|| wider.reporting_interval.clone()),
            ipv6_support: self.ipv6_support.or(wider.ipv6_support),
            ipv4_normal_route_priority: self.ipv4_normal_route_priority.or(wider.ipv4_normal_route_priority),
            ipv6_normal_route_priority: self.ipv6_normal_route_priority.or(wider.ipv6_normal_route_priority),
        }
    }

    /// Returns the prefixes of workloads' host interfaces; `cali` when unset.
    #[must_use]
    pub fn interface_prefixes(&self) -> Vec<&str> {
        self.interface_prefix
            .as_deref()
            .unwrap_or("cali")
            .split(',')
            .filter(|prefix| !prefix.is_empty())
            .collect()
    }

    /// Returns the UDP port of VXLAN; 4789 when unset.
    #[must_use]
    pub fn vxlan_port(&self) -> u16 {
        self.vxlan_port.unwrap_or(4789)
    }

    /// Returns the VXLAN network identifier; 4096 when unset.
    #[must_use]
    pub fn vxlan_vni(&self) -> u32 {
        self.vxlan_vni.unwrap_or(4096)
    }
}

impl Default for FelixConfiguration {
    fn default() -> Self {
        Self::new()
    }
}

fn check_felix(felix: &mut FelixConfiguration, at: Path<'_>, report: &mut Report) {
    if felix.vxlan_vni.is_some_and(|vni| vni >= 1 << 24) {
        report.fault(at.key("vxlanVNI"), None, "must be from 0 to 16777215");
    }
    let prefixes = felix.interface_prefixes();
    if prefixes.is_empty()
        || prefixes.iter().any(|p| p.len() > 11 || p.parse::<crate::name::InterfaceName>().is_err())
    {
        report.fault(
            at.key("interfacePrefix"),
            None,
            "must be a comma-separated list of 1 to 11 letters, digits, '_', '.' or '-' each",
        );
    }
}

wire_struct! {
    /// The `ClusterInformation`, of which there is one, named `default`.
    pub struct ClusterInformation {
        /// An identifier of the cluster: 32 hex digits.
        cluster_guid: String = "clusterGUID" empty,
        /// A comma-separated list of what the cluster is made of.
        cluster_type: String = "clusterType" empty,
        /// The version that wrote this last.
        calico_version: String = "calicoVersion" empty,
        /// Whether agents and plugins may act on the datastore; `None` is false.
        datastore_ready: Option<bool> = "datastoreReady" optional,
        /// The edition.
        variant: String = "variant" empty,
    }
}

impl ClusterInformation {
    /// The only name there is.
    pub const NAME: &'static str = "default";
}
