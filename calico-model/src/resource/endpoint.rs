//! What is connected: workloads, and the machines' own interfaces.

use std::net::IpAddr;

use crate::name::{InterfaceName, Name, NodeName};
use crate::net::{Cidr, Family, Mac, Protocol};
use crate::wire::{Limit, Rules, wire_struct};

use super::felix::Dscp;

wire_struct! {
    /// A `WorkloadEndpoint`: one interface of a container or virtual machine.
    pub struct WorkloadEndpoint {
        /// The orchestrator: `k8s`, `cni`, `libnetwork`, ...
        orchestrator: String = "orchestrator" empty,
        /// The workload, for orchestrators that have no better name for it.
        workload: String = "workload" empty,
        /// The node it runs on.
        node: NodeName = "node" required,
        /// The container, as the runtime knows it.
        container_id: String = "containerID" empty [Limit::Chars(0, 1024, "_.-")],
        /// The Kubernetes pod.
        pod: String = "pod" empty,
        /// The interface's name inside the workload.
        endpoint: String = "endpoint" empty,
        /// The Kubernetes service account.
        service_account_name: String = "serviceAccountName" empty,
        /// Its addresses, each a single one.
        ip_networks: Vec<Cidr> = "ipNetworks" empty,
        /// Addresses that lead to it from outside.
        ip_nats: Vec<IpNat> = "ipNATs" empty,
        /// Its IPv4 gateway, when it is not the usual one.
        ipv4_gateway: Option<std::net::Ipv4Addr> = "ipv4Gateway" optional,
        /// Its IPv6 gateway, when it is not the usual one.
        ipv6_gateway: Option<std::net::Ipv6Addr> = "ipv6Gateway" optional,
        /// The profiles whose rules and labels it has, in order.
        profiles: Vec<Name> = "profiles" empty,
        /// The interface's name on the node.
        interface_name: Option<InterfaceName> = "interfaceName" optional,
        /// The MAC address inside the workload.
        mac: Option<Mac> = "mac" optional,
        /// Its named ports.
        ports: Vec<EndpointPort> = "ports" empty,
        /// Networks it may send from beside its own addresses.
        allow_spoofed_source_prefixes: Vec<Cidr> = "allowSpoofedSourcePrefixes" empty,
        /// How much it may send and receive.
        qos_controls: Option<Box<QosControls>> = "qosControls" optional,
    }
    check = check_workload;
}

wire_struct! {
    /// An address that leads to a workload from outside.
    pub struct IpNat {
        /// The workload's address.
        internal_ip: IpAddr = "internalIP" required,
        /// The outside address.
        external_ip: IpAddr = "externalIP" required,
    }
}

wire_struct! {
    /// How much a workload may send (egress) and receive (ingress). Nothing here acts on it yet.
    pub struct QosControls {
        /// Bits a second.
        ingress_bandwidth: Option<u64> = "ingressBandwidth" optional,
        /// Bits a second.
        egress_bandwidth: Option<u64> = "egressBandwidth" optional,
        /// Bits that may come at once.
        ingress_burst: Option<u64> = "ingressBurst" optional,
        /// Bits that may go at once.
        egress_burst: Option<u64> = "egressBurst" optional,
        /// Bits a second during a burst.
        ingress_peakrate: Option<u64> = "ingressPeakrate" optional,
        /// Bits a second during a burst.
        egress_peakrate: Option<u64> = "egressPeakrate" optional,
        /// Bytes that may come at once at the peak rate.
        ingress_minburst: Option<u64> = "ingressMinburst" optional,
        /// Bytes that may go at once at the peak rate.
        egress_minburst: Option<u64> = "egressMinburst" optional,
        /// Packets a second.
        ingress_packet_rate: Option<u64> = "ingressPacketRate" optional,
        /// Packets a second.
        egress_packet_rate: Option<u64> = "egressPacketRate" optional,
        /// Packets that may come at once.
        ingress_packet_burst: Option<u64> = "ingressPacketBurst" optional,
        /// Packets that may go at once.
        egress_packet_burst: Option<u64> = "egressPacketBurst" optional,
        /// Connections to it.
        ingress_max_connections: Option<u64> = "ingressMaxConnections" optional,
        /// Connections from it.
        egress_max_connections: Option<u64> = "egressMaxConnections" optional,
        /// The mark of its packets (RFC 2474).
        dscp: Option<Dscp> = "dscp" optional,
    }
}

wire_struct! {
    /// A `HostEndpoint`: an interface of a node, guarded by policy.
    pub struct HostEndpoint {
        /// The node.
        node: NodeName = "node" required,
        /// The interface, or `*` for all of the node's.
        interface_name: Option<HostInterface> = "interfaceName" optional,
        /// The addresses by which rules know it, and by which it is found when no interface is named.
        expected_ips: Vec<IpAddr> = "expectedIPs" empty,
        /// The profiles whose rules and labels it has, in order.
        profiles: Vec<Name> = "profiles" empty,
        /// Its named ports.
        ports: Vec<EndpointPort> = "ports" empty,
    }
    check = check_host;
}

wire_struct! {
    /// A port with a name that rules may use.
    pub struct EndpointPort {
        /// The name.
        name: String = "name" empty [Limit::Chars(0, 128, "_.-")],
        /// The protocol.
        protocol: Protocol = "protocol" required,
        /// The number.
        port: u16 = "port" required [Limit::Range(1, 65_535)],
        /// The port of the node that leads to it, for a workload.
        host_port: Option<u16> = "hostPort" optional,
        /// The address of the node at which it does; `None` is each.
        host_ip: Option<IpAddr> = "hostIP" optional,
    }
    check = check_port;
}

impl EndpointPort {
    /// Makes a port with a name.
    #[must_use]
    pub fn named(name: &str, protocol: Protocol, port: u16) -> Self {
        Self { name: name.to_owned(), protocol, port, host_port: None, host_ip: None }
    }
}

/// Which interfaces of a node a host endpoint stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostInterface {
    /// All of them: written `*`.
    All,
    /// This one.
    Named(InterfaceName),
}

impl std::str::FromStr for HostInterface {
    type Err = crate::net::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" { Ok(Self::All) } else { text.parse().map(Self::Named) }
    }
}

impl std::fmt::Display for HostInterface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Named(name) => name.fmt(f),
        }
    }
}

crate::wire::wire_text!(HostInterface as "*" = "^([*]|[a-zA-Z0-9_.-]{1,15})$");

impl WorkloadEndpoint {
    /// Makes an endpoint of a node, with nothing else known of it.
    #[must_use]
    pub fn on(node: NodeName) -> Self {
        Self {
            orchestrator: String::new(),
            workload: String::new(),
            node,
            container_id: String::new(),
            pod: String::new(),
            endpoint: String::new(),
            service_account_name: String::new(),
            ip_networks: Vec::new(),
            ip_nats: Vec::new(),
            ipv4_gateway: None,
            ipv6_gateway: None,
            profiles: Vec::new(),
            interface_name: None,
            mac: None,
            ports: Vec::new(),
            allow_spoofed_source_prefixes: Vec::new(),
            qos_controls: None,
        }
    }

    /// Walks the endpoint's addresses of one family.
    pub fn addrs(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.ip_networks.iter().map(Cidr::addr).filter(move |addr| Family::of(*addr) == family)
    }
}

fn check_workload(endpoint: &mut WorkloadEndpoint, rules: Rules<'_, '_, '_>) {
    let nats = endpoint.ip_nats.iter().map(|nat| (nat.internal_ip, nat.external_ip));
    check_addresses(&endpoint.ip_networks, nats, rules);
}

/// Checks a workload's networks, and the inner and outer addresses that lead to it from outside.
pub(crate) fn check_addresses(
    networks: &[Cidr],
    nats: impl Iterator<Item = (IpAddr, IpAddr)>,
    mut rules: Rules<'_, '_, '_>,
) {
    for (i, _) in networks.iter().enumerate().filter(|(_, net)| !net.is_host()) {
        rules.wrong(&format!("ipNetworks[{i}]"), "must be a single address");
    }
    for (i, (inner, outer)) in nats.enumerate() {
        let nat = format!("ipNATs[{i}]");
        if Family::of(inner) != Family::of(outer) {
            rules.wrong(&nat, "must have two addresses of one family");
        }
        if !networks.iter().any(|net| net.contains(inner)) {
            let rule = "must have an internalIP that is one of ipNetworks";
            rules.broken(&nat, &["ipNetworks", &format!("{nat}.internalIP")], rule);
        }
    }
}

fn check_host(endpoint: &mut HostEndpoint, mut rules: Rules<'_, '_, '_>) {
    if endpoint.interface_name.is_none() && endpoint.expected_ips.is_empty() {
        rules.broken("interfaceName", &[], "is required when expectedIPs is empty");
    }
    for (i, port) in endpoint.ports.iter().enumerate() {
        for (key, given) in [("hostPort", port.host_port.is_some()), ("hostIP", port.host_ip.is_some())] {
            if given {
                let rule = "is only for ports of a WorkloadEndpoint";
                rules.broken(&format!("ports[{i}].{key}"), &[], rule);
            }
        }
    }
}

fn check_port(port: &mut EndpointPort, mut rules: Rules<'_, '_, '_>) {
    if !port.protocol.has_ports() {
        rules.wrong("protocol", "must be TCP, UDP or SCTP");
    }
}
