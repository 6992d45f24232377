//! Whom to tell of routes, and how.

use crate::asn::{AsNumber, Community};
use crate::name::NodeName;
use crate::net::Cidr;
use crate::selector::Selector;
use crate::wire::{Others, Path, Report, Shape, wire_enum, wire_struct};

pub use peer_address::PeerAddress;

mod peer_address;

wire_struct! {
    /// A `BGPConfiguration`: `default` is for the cluster, `node.NAME` for one node.
    pub struct BgpConfiguration {
        /// Whether every node peers with every other; `None` is true.
        node_to_node_mesh_enabled: Option<bool> = "nodeToNodeMeshEnabled" optional,
        /// The AS number of nodes that have none of their own; `None` is 64512.
        as_number: Option<AsNumber> = "asNumber" optional,
        /// The TCP port to listen on; `None` is 179.
        listen_port: Option<u16> = "listenPort" optional,
        /// The log level of the BGP part.
        log_severity_screen: String = "logSeverityScreen" default("Info".to_owned()),
        /// Names for communities.
        communities: Vec<NamedCommunity> = "communities" empty,
        /// Communities to add to routes inside networks.
        prefix_advertisements: Vec<PrefixAdvertisement> = "prefixAdvertisements" empty,
    }
    also = OF_CONFIGURATION;
    check = check_configuration;
}

wire_struct! {
    /// A name for a community.
    pub struct NamedCommunity {
        /// The name.
        name: String = "name" required,
        /// The community.
        value: Community = "value" required,
    }
}

wire_struct! {
    /// Communities for the routes inside a network.
    pub struct PrefixAdvertisement {
        /// The network.
        cidr: Cidr = "cidr" required,
        /// Names or values of communities.
        communities: Vec<String> = "communities" empty,
    }
}

wire_enum! {
    /// What becomes of a route's next hop when it is told to a peer.
    pub enum NextHopMode {
        /// This node for external peers, and unchanged for internal ones.
        Auto = "Auto",
        /// This node.
        SelfHop = "Self",
        /// Unchanged.
        Keep = "Keep",
    }
}

wire_struct! {
    /// A `BGPPeer`: a session with a peer outside the mesh, for all nodes, one, or those selected.
    pub struct BgpPeer {
        /// The node that peers; with no `nodeSelector` either, all do.
        node: Option<NodeName> = "node" optional,
        /// The nodes that peer.
        node_selector: Option<Selector> = "nodeSelector" optional,
        /// The peer's address, with an optional port.
        peer_ip: Option<PeerAddress> = "peerIP" optional,
        /// The peer's AS number.
        as_number: Option<AsNumber> = "asNumber" optional,
        /// The nodes that are peered with.
        peer_selector: Option<Selector> = "peerSelector" optional,
        /// What becomes of next hops.
        next_hop_mode: Option<NextHopMode> = "nextHopMode" optional,
        /// The number of network hops that packets may take (RFC 5082); `None` does not check.
        ttl_security: Option<u8> = "ttlSecurity" optional,
    }
    also = OF_PEER;
    check = check_peer;
}

/// What a `BGPConfiguration` may say and nothing here acts on.
const OF_CONFIGURATION: Others = &[
    ("bindMode", Shape::OneOf(&["None", "NodeIP"])),
    ("ignoredInterfaces", Shape::List),
    ("ipv4NormalRoutePriority", Shape::Whole),
    ("ipv6NormalRoutePriority", Shape::Whole),
    ("localWorkloadPeeringIPV4", Shape::Text),
    ("localWorkloadPeeringIPV6", Shape::Text),
    ("nodeMeshMaxRestartTime", Shape::Duration),
    ("nodeMeshPassword", Shape::Object),
    ("programClusterRoutes", Shape::OneOf(&["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"])),
    ("serviceClusterIPs", Shape::List),
    ("serviceExternalIPs", Shape::List),
    ("serviceLoadBalancerAggregation", Shape::OneOf(&["Enabled", "Disabled"])),
    ("serviceLoadBalancerIPs", Shape::List),
];

/// What a `BGPPeer` may say and nothing here acts on.
const OF_PEER: Others = &[
    ("filters", Shape::List),
    ("keepOriginalNextHop", Shape::Bool),
    ("keepaliveTime", Shape::Duration),
    ("localASNumber", Shape::WholeOrText),
    ("localWorkloadSelector", Shape::Text),
    ("maxRestartTime", Shape::Duration),
    ("numAllowedLocalASNumbers", Shape::Whole),
    ("password", Shape::Object),
    ("reachableBy", Shape::Text),
    ("reversePeering", Shape::OneOf(&["Auto", "Manual"])),
    ("sourceAddress", Shape::OneOf(&["UseNodeIP", "None"])),
];

impl BgpConfiguration {
    /// The name of the configuration that is for the whole cluster.
    pub const DEFAULT: &'static str = "default";

    /// Makes a configuration in which nothing is set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            node_to_node_mesh_enabled: None,
            as_number: None,
            listen_port: None,
            log_severity_screen: "Info".to_owned(),
            communities: Vec::new(),
            prefix_advertisements: Vec::new(),
        }
    }
}

impl Default for BgpConfiguration {
    fn default() -> Self {
        Self::new()
    }
}

fn check_configuration(configuration: &mut BgpConfiguration, at: Path<'_>, report: &mut Report) {
    if configuration.listen_port == Some(0) {
        report.fault(at.key("listenPort"), None, "must be from 1 to 65535");
    }
}

fn check_peer(peer: &mut BgpPeer, at: Path<'_>, report: &mut Report) {
    if peer.node.is_some() && peer.node_selector.is_some() {
        report.fault(at.key("nodeSelector"), None, "must be absent when node is given");
    }
    match (&peer.peer_ip, &peer.peer_selector) {
        (Some(_), Some(_)) => {
            report.fault(at.key("peerSelector"), None, "must be absent when peerIP is given")
        }
        (None, None) => report.fault(at.key("peerIP"), None, "is required when peerSelector is absent"),
        (Some(_), None) if peer.as_number.is_none() => {
            report.fault(at.key("asNumber"), None, "is required with peerIP")
        }
        (None, Some(_)) if peer.as_number.is_some() => {
            report.fault(at.key("asNumber"), None, "must be absent when peerSelector is given");
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
}
