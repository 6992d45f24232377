//! From Calico's resources to sessions and prefixes: pure functions of a [`Snapshot`].
//!
//! A node peers with every other node of the mesh that has an address of the family, and with what BGPPeer resources
//! name. Between two nodes the one with the address that is smaller *as text* dials; upstream's nodes compare in the
//! same way, so exactly one side of each pair dials in a mixed mesh too.
//!
//! When several things ask for a session with one address, the mesh counts before a BGPPeer of the cluster, and that
//! before one of the node, as upstream has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use calico_model::name::{Name, NodeName};
use calico_model::resource::bgp;
use calico_model::resource::block::StoredBlock;
use calico_model::resource::{BgpPeer, Node, Object};
use calico_model::snapshot::Snapshot;
use calico_model::{AsNumber, Cidr, Community, Family, RouterId};

use crate::session::Initiation;
use crate::speaker::{
    Distance, METRIC_BASE, NORMAL_LOCAL_PREF, NextHopMode, Origination, PeerConfig, Reflection, SpeakerConfig,
};

/// The port of BGP.
pub const PORT: u16 = 179;

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

/// Makes a router id of a node's name, for nodes without an IPv4 address.
fn hashed_id(node: &NodeName) -> RouterId {
    let fnv = |hash: u32, octet: u8| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193);
    let hash = node.as_str().bytes().fold(0x811c_9dc5, fnv);
    RouterId::new(Ipv4Addr::from(hash)).unwrap_or_else(|| {
        RouterId::new(Ipv4Addr::LOCALHOST).expect("the loopback address is not the unspecified one")
    })
}

/// Decides where a node's speaker listens: on every address, on the configured port.
#[must_use]
pub fn listen(snapshot: &Snapshot, node: &NodeName) -> Vec<SocketAddr> {
    let port = listen_port(snapshot);
    let any = |family| match family {
        Family::V4 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let has = |family: &Family| snapshot.node(node).is_some_and(|node| node.addr(*family).is_some());
    Family::ALL.into_iter().filter(has).map(|family| SocketAddr::new(any(family), port)).collect()
}

fn listen_port(snapshot: &Snapshot) -> u16 {
    snapshot.bgp_configuration().listen_port.unwrap_or(PORT)
}

/// Decides a node's sessions, in the order of the peers' addresses.
#[must_use]
pub fn peers(snapshot: &Snapshot, node: &NodeName) -> Vec<PeerConfig> {
    let Some(local) = snapshot.nodes.get(&Name::from(node.clone()).into()) else { return Vec::new() };
    let mut wanted: BTreeMap<IpAddr, PeerConfig> = BTreeMap::new();
    let mut add = |peer: PeerConfig| {
        wanted.entry(peer.address).or_insert(peer);
    };
    mesh(snapshot, local).for_each(&mut add);
    let scope = |peer: &BgpPeer| u8::from(!is_global(peer));
    let mut resources: Vec<&BgpPeer> = snapshot.bgp_peers.values().map(|peer| &peer.spec).collect();
    resources.sort_by_key(|peer| scope(peer));
    for peer in resources {
        if applies(peer, local) {
            named(snapshot, local, peer).for_each(&mut add);
        } else {
            reversed(snapshot, local, peer).for_each(&mut add);
        }
    }
    wanted.into_values().collect()
}

/// Decides the prefixes that begin at a node: its own blocks, whole, and each address of its workloads that is in none of
/// them, except those of pools that are not exported. An address that another node has a claim to as well, while a machine
/// migrates, is told where it is active, before all others.
#[must_use]
pub fn originated(snapshot: &Snapshot, node: &NodeName) -> BTreeMap<Cidr, Origination> {
    let configuration = snapshot.bgp_configuration();
    let named: BTreeMap<&str, Community> =
        configuration.communities.iter().map(|c| (c.name.as_str(), c.value)).collect();
    let communities = |cidr: &Cidr| {
        let all: BTreeSet<Community> = configuration
            .prefix_advertisements
            .iter()
            .filter(|advertisement| advertisement.cidr.covers(cidr))
            .flat_map(|advertisement| &advertisement.communities)
            .filter_map(|text| named.get(text.as_str()).copied().or_else(|| text.parse().ok()))
            .collect();
        all.into_iter().collect()
    };
    let blocks = snapshot
        .blocks
        .values()
        .filter(|block| block.host() == Some(node) && !block.deleted)
        .filter(|block| snapshot.pool_of(&block.cidr).is_some_and(|pool| !pool.spec.disable_bgp_export))
        .map(|block| (block.cidr, NORMAL_LOCAL_PREF));
    let own = snapshot.workloads.values().filter(|workload| workload.spec.node == *node);
    let apart = own
        .flat_map(|workload| &workload.spec.ip_networks)
        .filter_map(|net| Some((Cidr::host(net.addr()), local_pref_apart(snapshot, node, net.addr())?)));
    blocks
        .chain(apart)
        .map(|(cidr, local_pref)| {
            (cidr, Origination { local_pref, communities: communities(&cidr), ..Origination::default() })
        })
        .collect()
}

/// Returns the LOCAL_PREF of a workload's address that is told by itself; `None` where its block tells of it, or nobody is
/// to be told.
fn local_pref_apart(snapshot: &Snapshot, node: &NodeName, addr: IpAddr) -> Option<u32> {
    let pool = &snapshot.pool_of(&Cidr::host(addr)).filter(|pool| !pool.spec.disable_bgp_export)?.spec;
    let block = snapshot.blocks.get(&Cidr::holding(addr, pool.block_size)?).filter(|block| !block.deleted);
    let moving = |block: &StoredBlock| block.moving().find(|(its, _)| *its == addr).map(|(_, to)| to);
    if block.and_then(moving).as_ref() == Some(node) {
        let felix = snapshot.felix_configuration(node);
        let metric = match Family::of(addr) {
            Family::V4 => felix.ipv4_elevated_route_priority,
            Family::V6 => felix.ipv6_elevated_route_priority,
        };
        return Some(METRIC_BASE - metric.unwrap_or(ELEVATED_METRIC));
    }
    let told = block.is_some_and(|block| block.host() == Some(node));
    (!told).then_some(NORMAL_LOCAL_PREF)
}

/// The kernel metric of the route to a machine where it is active, while it migrates, when the configuration names none.
const ELEVATED_METRIC: u32 = 512;

fn as_number(snapshot: &Snapshot, node: &Node) -> AsNumber {
    node.bgp
        .as_ref()
        .and_then(|bgp| bgp.as_number)
        .or(snapshot.bgp_configuration().as_number)
        .unwrap_or(AsNumber::DEFAULT)
}

fn cluster_id(node: &Node) -> Option<RouterId> {
    node.bgp.as_ref()?.route_reflector_cluster_id
}

/// The mesh of all nodes that are no reflectors.
fn mesh<'s>(snapshot: &'s Snapshot, local: &'s Object<Node>) -> impl Iterator<Item = PeerConfig> + 's {
    let enabled = snapshot.bgp_configuration().node_to_node_mesh_enabled.unwrap_or(true);
    let member = move |node: &Node| enabled && cluster_id(node).is_none();
    snapshot
        .nodes
        .values()
        .filter(move |other| member(&local.spec) && member(&other.spec))
        .flat_map(move |other| between_nodes(snapshot, local, other, "Mesh"))
}

/// The sessions, one for each family, between two nodes.
fn between_nodes<'s>(
    snapshot: &'s Snapshot,
    local: &'s Object<Node>,
    other: &'s Object<Node>,
    kind: &'static str,
) -> impl Iterator<Item = PeerConfig> + 's {
    let is_other = local.id() != other.id();
    Family::ALL.into_iter().filter(move |_| is_other).filter_map(move |family| {
        let us = local.spec.addr(family)?.addr();
        let them = other.spec.addr(family)?.addr();
        let (local_as, remote_as) = (as_number(snapshot, &local.spec), as_number(snapshot, &other.spec));
        let mut peer = PeerConfig::new(them, remote_as, local_as);
        peer.port = listen_port(snapshot);
        peer.local_address = Some(us);
        peer.name = peer_name(kind, them, peer.port);
        if them.to_string() > us.to_string() {
            peer.initiation = Initiation::Passive;
        }
        reflect(&mut peer, &local.spec, Some(&other.spec));
        Some(peer)
    })
}

/// A node with a cluster id reflects for peers of its AS that are not of the same cluster; those are ordinary peers.
fn reflect(peer: &mut PeerConfig, local: &Node, other: Option<&Node>) {
    if let Some(own) = cluster_id(local)
        && peer.local_as == peer.remote_as
        && other.and_then(cluster_id) != Some(own)
    {
        peer.reflection = Reflection::Client;
    }
}

fn is_global(peer: &BgpPeer) -> bool {
    peer.node.is_none() && peer.node_selector.is_none()
}

/// Reports whether a BGPPeer is for this node.
fn applies(peer: &BgpPeer, node: &Object<Node>) -> bool {
    match (&peer.node, &peer.node_selector) {
        (Some(name), _) => name.as_str() == node.metadata.name.as_str(),
        (None, Some(selector)) => selector.matches(&node.metadata.labels),
        (None, None) => true,
    }
}

/// The sessions that a BGPPeer asks this node for.
fn named<'s>(
    snapshot: &'s Snapshot,
    local: &'s Object<Node>,
    peer: &'s BgpPeer,
) -> impl Iterator<Item = PeerConfig> + 's {
    let selected = peer.peer_selector.iter().flat_map(move |selector| {
        snapshot
            .nodes
            .values()
            .filter(move |other| selector.matches(&other.metadata.labels))
            .flat_map(move |other| between_nodes(snapshot, local, other, kind_of(peer)))
    });
    let addressed = addressed(snapshot, local, peer);
    addressed.into_iter().chain(selected).map(move |config| with_settings(config, peer))
}

/// The other side of a BGPPeer between nodes: those it selects must peer back.
fn reversed<'s>(
    snapshot: &'s Snapshot,
    local: &'s Object<Node>,
    peer: &'s BgpPeer,
) -> impl Iterator<Item = PeerConfig> + 's {
    let selects_us = peer.peer_selector.as_ref().is_some_and(|s| s.matches(&local.metadata.labels));
    snapshot
        .nodes
        .values()
        .filter(move |other| selects_us && applies(peer, other))
        .flat_map(move |other| between_nodes(snapshot, local, other, kind_of(peer)))
        .map(move |config| with_settings(config, peer))
}

fn addressed(snapshot: &Snapshot, local: &Object<Node>, peer: &BgpPeer) -> Option<PeerConfig> {
    let (address, remote_as) = (peer.peer_ip?, peer.as_number?);
    let family = Family::of(address.addr);
    let us = local.spec.addr(family)?.addr();
    if us == address.addr {
        return None;
    }
    let node =
        snapshot.nodes.values().find(|n| n.spec.addr(family).is_some_and(|a| a.addr() == address.addr));
    let mut config = PeerConfig::new(address.addr, remote_as, as_number(snapshot, &local.spec));
    config.port = address.port.unwrap_or(if node.is_some() { listen_port(snapshot) } else { PORT });
    config.local_address = Some(us);
    config.name = peer_name(kind_of(peer), address.addr, config.port);
    if node.is_some() && address.addr.to_string() > us.to_string() {
        config.initiation = Initiation::Passive;
    }
    reflect(&mut config, &local.spec, node.map(|node| &node.spec));
    Some(config)
}

fn with_settings(mut config: PeerConfig, peer: &BgpPeer) -> PeerConfig {
    config.next_hop = match peer.next_hop() {
        bgp::NextHopMode::SelfHop => NextHopMode::Own,
        bgp::NextHopMode::Keep => NextHopMode::Keep,
        bgp::NextHopMode::Auto => NextHopMode::Auto,
    };
    if let Some(hops) = peer.ttl_security.filter(|hops| *hops > 0) {
        config.distance = Distance::Within(hops);
    }
    config
}

fn kind_of(peer: &BgpPeer) -> &'static str {
    if is_global(peer) { "Global" } else { "Node" }
}

/// The name that status parsers expect: `Mesh_172_16_6_11`.
fn peer_name(kind: &str, address: IpAddr, port: u16) -> String {
    let address = address.to_string().replace(['.', ':'], "_");
    match port {
        PORT => format!("{kind}_{address}"),
        port => format!("{kind}_{address}_port_{port}"),
    }
}

#[cfg(test)]
mod tests;
