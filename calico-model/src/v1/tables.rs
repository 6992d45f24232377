//! The fields of the seven kinds.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use crate::asn::AsNumber;
use crate::label::Labels;
use crate::net::{Cidr, Family, InterfaceAddr, Mac};
use crate::resource::endpoint::check_addresses;
use crate::resource::policy::PolicyType;
use crate::wire::{FromWire, Rules, ToWire, wire_enum, wire_struct};

/// A kind: what stands under `metadata` and under `spec`.
pub(super) trait Kind {
    /// The metadata.
    type Metadata: FromWire;
    /// The spec.
    type Spec: FromWire;
}

macro_rules! kinds {
    ($($kind:ident: $metadata:ident, $spec:ident;)*) => {$(
        #[doc = concat!("The kind of `", stringify!($kind), "`.")]
        pub(super) struct $kind;

        impl Kind for $kind {
            type Metadata = $metadata;
            type Spec = $spec;
        }
    )*};
}

kinds! {
    IpPool: IpPoolMetadata, IpPoolSpec;
    Node: Named, NodeSpec;
    HostEndpoint: HostMetadata, HostSpec;
    WorkloadEndpoint: WorkloadMetadata, WorkloadSpec;
    Policy: PolicyMetadata, PolicySpec;
    Profile: ProfileMetadata, ProfileSpec;
    BgpPeer: PeerMetadata, PeerSpec;
}

wire_struct! {
    /// Metadata of a name alone.
    pub(super) struct Named {
        /// The name.
        name: String = "name" required,
    }
}

wire_struct! {
    /// A pool's metadata.
    pub(super) struct IpPoolMetadata {
        /// The network, which names the pool.
        cidr: Cidr = "cidr" required,
    }
}

wire_struct! {
    /// A pool's spec.
    pub(super) struct IpPoolSpec {
        /// Whether IP-in-IP is used.
        ipip: Option<Ipip> = "ipip" optional,
        /// Whether packets that leave all pools get the node's own address.
        nat_outgoing: bool = "nat-outgoing" empty,
        /// Whether the pool is closed.
        disabled: bool = "disabled" empty,
    }
}

wire_struct! {
    /// How IP-in-IP is used.
    pub(super) struct Ipip {
        /// Whether it is.
        enabled: bool = "enabled" empty,
        /// When: `always`, which empty text means too, or `cross-subnet`.
        mode: String = "mode" empty,
    }
    check = check_ipip;
}

fn check_ipip(ipip: &mut Ipip, mut rules: Rules<'_, '_, '_>) {
    if !["", "always", "cross-subnet"].contains(&ipip.mode.as_str()) {
        rules.wrong("mode", "must be always or cross-subnet");
    }
}

wire_struct! {
    /// A node's spec.
    pub(super) struct NodeSpec {
        /// Its part in BGP.
        bgp: Option<NodeBgp> = "bgp" optional,
        /// What orchestrators call it.
        orch_refs: Vec<OrchRef> = "orchRefs" empty,
    }
}

wire_struct! {
    /// A node's part in BGP.
    pub(super) struct NodeBgp {
        /// Its AS number.
        as_number: Option<AsNumber> = "asNumber" optional,
        /// Its IPv4 address.
        ipv4_address: Option<InterfaceAddr> = "ipv4Address" optional,
        /// Its IPv6 address.
        ipv6_address: Option<InterfaceAddr> = "ipv6Address" optional,
    }
    check = check_bgp;
}

fn check_bgp(bgp: &mut NodeBgp, mut rules: Rules<'_, '_, '_>) {
    if bgp.ipv4_address.is_none() && bgp.ipv6_address.is_none() {
        rules.broken("", &[], "must have ipv4Address or ipv6Address");
    }
    for (key, addr, family) in
        [("ipv4Address", bgp.ipv4_address, Family::V4), ("ipv6Address", bgp.ipv6_address, Family::V6)]
    {
        if addr.is_some_and(|addr| Family::of(addr.addr()) != family) {
            rules.wrong(key, format!("must be an {family} address"));
        }
    }
}

wire_struct! {
    /// What an orchestrator calls a node.
    pub(super) struct OrchRef {
        /// The name there.
        node_name: Option<String> = "nodeName" optional,
        /// The orchestrator.
        orchestrator: String = "orchestrator" required,
    }
}

wire_struct! {
    /// A host endpoint's metadata.
    pub(super) struct HostMetadata {
        /// The name.
        name: String = "name" required,
        /// The node.
        node: String = "node" required,
        /// The labels.
        labels: Labels = "labels" empty,
    }
}

wire_struct! {
    /// A host endpoint's spec.
    pub(super) struct HostSpec {
        /// The interface.
        interface_name: Option<String> = "interfaceName" optional,
        /// The addresses.
        expected_ips: Vec<IpAddr> = "expectedIPs" empty,
        /// The profiles.
        profiles: Vec<String> = "profiles" empty,
    }
    check = check_host;
}

fn check_host(host: &mut HostSpec, mut rules: Rules<'_, '_, '_>) {
    if host.interface_name.is_none() && host.expected_ips.is_empty() {
        rules.broken("interfaceName", &[], "is required when expectedIPs is empty");
    }
}

wire_struct! {
    /// A workload endpoint's metadata.
    pub(super) struct WorkloadMetadata {
        /// The name: that of the interface.
        name: String = "name" required,
        /// The node.
        node: String = "node" required,
        /// The orchestrator.
        orchestrator: String = "orchestrator" required,
        /// The workload; `NAMESPACE.POD` for Kubernetes.
        workload: String = "workload" required,
        /// The container.
        active_instance_id: String = "activeInstanceID" empty,
        /// The labels.
        labels: Labels = "labels" empty,
    }
}

wire_struct! {
    /// A workload endpoint's spec.
    pub(super) struct WorkloadSpec {
        /// The addresses.
        ip_networks: Vec<Cidr> = "ipNetworks" empty,
        /// Addresses that lead to it from outside.
        ip_nats: Vec<IpNat> = "ipNATs" empty,
        /// Its IPv4 gateway.
        ipv4_gateway: Option<std::net::Ipv4Addr> = "ipv4Gateway" optional,
        /// Its IPv6 gateway.
        ipv6_gateway: Option<std::net::Ipv6Addr> = "ipv6Gateway" optional,
        /// The profiles.
        profiles: Vec<String> = "profiles" empty,
        /// The host interface.
        interface_name: Option<String> = "interfaceName" optional,
        /// The MAC address.
        mac: Option<Mac> = "mac" optional,
    }
    check = check_workload;
}

wire_struct! {
    /// An address that leads to a workload from outside.
    pub(super) struct IpNat {
        /// The workload's.
        internal_ip: IpAddr = "internalIP" required,
        /// The outside one.
        external_ip: IpAddr = "externalIP" required,
    }
}

fn check_workload(workload: &mut WorkloadSpec, rules: Rules<'_, '_, '_>) {
    let nats = workload.ip_nats.iter().map(|nat| (nat.internal_ip, nat.external_ip));
    check_addresses(&workload.ip_networks, nats, rules);
}

wire_struct! {
    /// A policy's metadata.
    pub(super) struct PolicyMetadata {
        /// The name.
        name: String = "name" required,
        /// Notes.
        annotations: BTreeMap<String, String> = "annotations" empty,
    }
}

wire_struct! {
    /// A policy's spec.
    pub(super) struct PolicySpec {
        /// The place: lower is earlier.
        order: Option<f64> = "order" optional,
        /// The endpoints it applies to.
        selector: String = "selector" empty,
        /// Rules for traffic to them, converted one by one.
        ingress: Vec<Value> = "ingress" empty,
        /// Rules for traffic from them, converted one by one.
        egress: Vec<Value> = "egress" empty,
        /// The directions.
        types: Vec<Direction> = "types" empty,
        /// Whether it comes before connection tracking.
        do_not_track: bool = "doNotTrack" empty,
        /// Whether it comes before translation of destinations.
        pre_dnat: bool = "preDNAT" empty,
    }
    check = check_policy;
}

wire_enum! {
    /// A direction.
    pub(super) enum Direction {
        /// To the endpoint.
        Ingress = "ingress",
        /// From the endpoint.
        Egress = "egress",
    }
}

impl Direction {
    /// Returns the direction as today's resources write it.
    pub(super) fn to_v3(self) -> Value {
        match self {
            Self::Ingress => PolicyType::Ingress,
            Self::Egress => PolicyType::Egress,
        }
        .to_wire()
    }
}

fn check_policy(policy: &mut PolicySpec, mut rules: Rules<'_, '_, '_>) {
    if let Err(error) = policy.selector.parse::<crate::selector::Selector>() {
        rules.wrong("selector", error.to_string());
    }
    if policy.pre_dnat && policy.do_not_track {
        rules.broken("preDNAT", &["preDNAT", "doNotTrack"], "must not be set together with doNotTrack");
    }
    let egress = !policy.egress.is_empty();
    if policy.pre_dnat && (egress || policy.types.contains(&Direction::Egress)) {
        let reads: &[&str] = if egress { &["preDNAT"] } else { &["preDNAT", "types"] };
        rules.broken("egress", reads, "must be absent when preDNAT is set");
    }
}

wire_struct! {
    /// A profile's metadata.
    pub(super) struct ProfileMetadata {
        /// The name.
        name: String = "name" required,
        /// Labels of its endpoints.
        labels: Labels = "labels" empty,
        /// Tags of its endpoints.
        tags: Vec<String> = "tags" empty,
    }
}

wire_struct! {
    /// A profile's spec.
    pub(super) struct ProfileSpec {
        /// Rules for traffic to its endpoints, converted one by one.
        ingress: Vec<Value> = "ingress" empty,
        /// Rules for traffic from its endpoints, converted one by one.
        egress: Vec<Value> = "egress" empty,
    }
}

wire_struct! {
    /// A BGP peer's metadata.
    pub(super) struct PeerMetadata {
        /// Whether all nodes peer (`global`) or one (`node`).
        scope: Scope = "scope" required,
        /// The node.
        node: String = "node" empty,
        /// The peer's address.
        peer_ip: IpAddr = "peerIP" required,
    }
    check = check_peer;
}

wire_enum! {
    /// Which nodes peer.
    pub(super) enum Scope {
        /// All.
        Global = "global",
        /// One.
        Node = "node",
    }
}

fn check_peer(peer: &mut PeerMetadata, mut rules: Rules<'_, '_, '_>) {
    if (peer.scope == Scope::Node) == peer.node.is_empty() {
        rules.broken("node", &["scope", "node"], "must be given when scope is node, and only then");
    }
}

wire_struct! {
    /// A BGP peer's spec.
    pub(super) struct PeerSpec {
        /// The peer's AS number.
        as_number: AsNumber = "asNumber" required,
    }
}
