//! From Calico's resources to sessions and prefixes: pure functions of a [`Snapshot`].
//!
//! A node peers with every other node of the mesh that has an address of the family, and with what BGPPeer resources
//! name. Between two nodes the one with the address that is smaller *as text* dials; upstream's nodes compare in the
//! same way, so exactly one side of each pair dials in a mixed mesh too.
//!
//! When several things ask for a session with one address, a BGPPeer of the cluster counts before one of the node, as
//! upstream has it, and that before a peering back that follows from a BGPPeer of the other side. The mesh comes last: a
//! BGPPeer between two of its nodes says more of their session than the mesh does, unless it can only fail. Only stand-alone reflectors meet one
//! another as such whatever leads the nodes to them.
//!
//! What cannot be done as asked is a [`Problem`] and costs only what asked for it: a session whose password is missing is
//! left out rather than opened without one, and a peer whose filter is missing is told nothing and not believed.

mod concern;
mod configuration;
mod originated;
mod policy;
mod problem;
mod secrets;
mod services;
mod sessions;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use calico_model::name::{Name, NodeName};
use calico_model::resource::bgp::BindMode;
use calico_model::resource::{BgpPeer, Node, Object};
use calico_model::snapshot::Snapshot;
use calico_model::{AsNumber, Cidr, Family, RouterId};

use crate::speaker::{DynamicPeers, METRIC_BASE, Origination, PeerConfig, SpeakerConfig};
pub use concern::Concerns;
use configuration::Configuration;
pub use originated::originated;
pub use problem::Problem;
pub use secrets::{Secrets, wanted_secrets};
pub use sessions::{Sessions, peers};

/// The port of BGP.
pub const PORT: u16 = 179;

/// The label of a node that is a stand-alone route reflector: it reflects for the nodes whose BGPPeers name it, and the
/// reflectors that have it peer with one another.
pub const STANDALONE_REFLECTOR: &str = "projectcalico.org/standalone-route-reflector";

/// Everything that a node's speaker is to do.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Its own settings.
    pub speaker: SpeakerConfig,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// The sessions.
    pub peers: Vec<PeerConfig>,
    /// The networks from which peers may come that nobody named.
    pub dynamic: Vec<DynamicPeers>,
    /// Where the monitoring stations listen.
    pub stations: Vec<SocketAddr>,
    /// The prefixes that begin here.
    pub originated: BTreeMap<Cidr, Origination>,
    /// The peers that are reached by a gateway of their own, with the gateway, for the route programmer.
    pub gateways: BTreeMap<IpAddr, IpAddr>,
    /// The addresses of this node's workloads that peer with it at an address that is not the node's own, each with that
    /// address, for the route programmer: it has to be on the workload's interface.
    pub workload_peering: BTreeMap<IpAddr, IpAddr>,
    /// What cannot be done as asked.
    pub problems: Vec<Problem>,
}

/// Plans a node's speaker, or returns `None` while the node has no BGP address to be known by.
#[must_use]
pub fn plan(snapshot: &Snapshot, node: &NodeName, secrets: &Secrets) -> Option<Plan> {
    let Sessions { peers, dynamic, gateways, problems } = peers(snapshot, node, secrets);
    let workload_peering = workload_peering(snapshot, node, &peers);
    Some(Plan {
        speaker: speaker(snapshot, node)?,
        listen: listen(snapshot, node),
        peers,
        dynamic,
        stations: Configuration::of(snapshot, node).stations(),
        originated: originated(snapshot, node),
        gateways,
        workload_peering,
        problems,
    })
}

/// Decides the settings of a node's speaker, or `None` while the node has no BGP address to be known by.
#[must_use]
pub fn speaker(snapshot: &Snapshot, node: &NodeName) -> Option<SpeakerConfig> {
    let spec = snapshot.node(node)?;
    spec.bgp.as_ref()?;
    let id = match spec.addr(Family::V4).map(|addr| addr.addr()) {
        Some(IpAddr::V4(v4)) => RouterId::new(v4)?,
        _ => hashed_id(node),
    };
    let mut config = SpeakerConfig::new(as_number(snapshot, spec), id);
    config.cluster_id = cluster_id(spec).map(RouterId::addr);
    Some(config)
}

/// Makes a router id of a node's name: that of a node without an IPv4 address. It looks like the address of a host, which
/// the identifier has to be for speakers that do not know RFC 6286.
#[must_use]
pub fn hashed_id(node: &NodeName) -> RouterId {
    let fnv = |hash: u32, octet: u8| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193);
    let [first, rest @ ..] = node.as_str().bytes().fold(0x811c_9dc5, fnv).to_be_bytes();
    let first = match first {
        1..=126 | 128..=223 => first,
        0 | 127 | 224.. => first ^ 0x40,
    };
    let [b, c, d] = rest;
    RouterId::new(Ipv4Addr::new(first, b, c, d)).expect("the first octet is none of 0")
}

/// Decides where a node's speaker listens: on the configured port of every address, or of the node's own.
#[must_use]
pub fn listen(snapshot: &Snapshot, node: &NodeName) -> Vec<SocketAddr> {
    let configuration = Configuration::of(snapshot, node);
    let any = |family| match family {
        Family::V4 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let address = |family: Family| {
        let own = snapshot.node(node)?.addr(family)?.addr();
        Some(match configuration.bind_mode() {
            BindMode::NodeIp => own,
            BindMode::All => any(family),
        })
    };
    let port = configuration.listen_port();
    Family::ALL.into_iter().filter_map(address).map(|address| SocketAddr::new(address, port)).collect()
}

/// Finds the sessions with workloads at an address that is there for nothing else.
fn workload_peering(snapshot: &Snapshot, node: &NodeName, peers: &[PeerConfig]) -> BTreeMap<IpAddr, IpAddr> {
    let configuration = Configuration::of(snapshot, node);
    let with_workload = |peer: &PeerConfig| {
        let ours = configuration.local_workload_peering(Family::of(peer.address))?;
        (peer.local_address == Some(ours)).then_some((peer.address, ours))
    };
    peers.iter().filter_map(with_workload).collect()
}

fn object<'s>(snapshot: &'s Snapshot, node: &NodeName) -> Option<&'s Object<Node>> {
    snapshot.nodes.get(&Name::from(node.clone()).into()).map(AsRef::as_ref)
}

fn as_number(snapshot: &Snapshot, node: &Node) -> AsNumber {
    let own = node.bgp.as_ref().and_then(|bgp| bgp.as_number);
    own.unwrap_or_else(|| configuration::as_number(snapshot))
}

/// Reports whether a node is a stand-alone reflector.
fn is_standalone(node: &Object<Node>) -> bool {
    node.metadata.labels.get(STANDALONE_REFLECTOR).is_some()
}

fn cluster_id(node: &Node) -> Option<RouterId> {
    node.bgp.as_ref()?.route_reflector_cluster_id
}

/// Reports whether a BGPPeer is for this node.
fn applies(peer: &BgpPeer, node: &Object<Node>) -> bool {
    match (&peer.node, &peer.node_selector) {
        (Some(name), _) => name.as_str() == node.metadata.name.as_str(),
        (None, Some(selector)) => selector.matches(&node.metadata.labels),
        (None, None) => true,
    }
}

/// The LOCAL_PREF that stands for a kernel metric.
fn local_pref(metric: u32) -> u32 {
    METRIC_BASE.saturating_sub(metric)
}

#[cfg(test)]
mod tests;
