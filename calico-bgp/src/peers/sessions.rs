//! The sessions of a node.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::time::Duration;

use calico_model::name::{Name, NodeName};
use calico_model::resource::bgp::{
    self, BindMode, FailureDetection, RestartMode, ReversePeering, SourceAddress,
};
use calico_model::resource::{BgpPeer, GoDuration, Node, Object};
use calico_model::snapshot::Snapshot;
use calico_model::{AsNumber, Cidr, Family};

use super::configuration::Configuration;
use super::policy::{Policies, Standing};
use super::problem::Problem;
use super::secrets::{Missing, Secrets};
use super::{PORT, applies, as_number, cluster_id, is_standalone, object};
use crate::bfd::BfdConfig;
use crate::session::{Initiation, Peering};
use crate::speaker::{Distance, DynamicPeers, LongLived, MaxPrefixes, NextHopMode, PeerConfig, Reflection};
use crate::wire::HoldTime;
use crate::wire::open::AddPath;

/// A node's sessions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sessions {
    /// The peers, in the order of their addresses.
    pub peers: Vec<PeerConfig>,
    /// The networks from which peers may come that nobody named, in the order of the networks. Nobody may come, with a
    /// limit of 0, from the address or the network of a session that is left out: by a wider network it would be without
    /// the password that is missing, and without its filters.
    pub dynamic: Vec<DynamicPeers>,
    /// The peers that are reached by a gateway of their own, with the gateway.
    pub gateways: BTreeMap<IpAddr, IpAddr>,
    /// What cannot be done as asked.
    pub problems: Vec<Problem>,
}

/// Decides a node's sessions, in the order of the peers' addresses.
#[must_use]
pub fn peers(snapshot: &Snapshot, node: &NodeName, secrets: &Secrets) -> Sessions {
    let Some(local) = object(snapshot, node) else { return Sessions::default() };
    let configuration = Configuration::of(snapshot, node);
    let here = Here { snapshot, local, configuration };
    let scope = |peer: &BgpPeer| u8::from(!is_global(peer));
    let mut resources: Vec<&Object<BgpPeer>> = snapshot.bgp_peers.values().map(AsRef::as_ref).collect();
    resources.sort_by_key(|peer| scope(&peer.spec));
    let (mut ours, mut problems) = (Vec::new(), Vec::new());
    for peer in resources.iter().copied().filter(|peer| applies(&peer.spec, local)) {
        match here.stays_with_mesh(peer) {
            Some(problem) => problems.push(problem),
            None => ours.push(peer),
        }
    }
    let answered =
        || resources.iter().filter(|peer| peer.spec.reverse_peering != Some(ReversePeering::Manual));
    // What a resource says of this node counts before what follows from what another says of the peer, and both before
    // the mesh of the nodes; a resource that leads everyone to the stand-alone reflectors is not meant for their own.
    let (first, last) =
        if is_standalone(local) { (Some(here.mesh()), None) } else { (None, Some(here.mesh())) };
    let asked = first.into_iter().flatten().chain(ours.iter().flat_map(|peer| here.named(peer)));
    let asked =
        asked.chain(answered().flat_map(|peer| here.reversed(peer))).chain(last.into_iter().flatten());
    let mut wanted: BTreeMap<IpAddr, Wanted<'_>> = BTreeMap::new();
    for session in asked {
        match wanted.entry(session.config.address) {
            Entry::Vacant(free) => drop(free.insert(session)),
            Entry::Occupied(kept) => problems.extend(kept.get().displaces(&session, kept.key())),
        }
    }
    // Who has a BGPPeer of its own that fits needs no answer.
    let fits = |resource: &BgpPeer, session: &Wanted<'_>| {
        session.by.is_some() && resource.as_number == Some(session.config.local_as)
    };
    let is_met = |resource: &Object<BgpPeer>| {
        let with = |asker: IpAddr| wanted.get(&asker).is_some_and(|session| fits(&resource.spec, session));
        here.askers(resource).all(with)
    };
    problems.extend(answered().filter(|peer| !is_met(peer)).filter_map(|peer| here.unanswered(peer)));
    let gateways =
        wanted.iter().filter_map(|(address, session)| Some((*address, session.gateway?))).collect();
    let mut ranges: BTreeMap<Cidr, (u32, Wanted<'_>)> = BTreeMap::new();
    for peer in ours {
        let Some((network, limit, session)) = here.range(peer) else { continue };
        match ranges.entry(network) {
            Entry::Vacant(free) => drop(free.insert((limit, session))),
            Entry::Occupied(kept) => problems.extend(kept.get().1.displaces(&session, kept.key())),
        }
    }
    let mut policies = Policies::new(snapshot, local, configuration);
    let mut finish = |Wanted { mut config, password, filters, standing, .. }: Wanted<'_>| {
        if let Some(IpAddr::V6(own)) = config.local_address
            && own.is_unicast_link_local()
        {
            let own = IpAddr::from(own);
            // It says the same of each session.
            let problem =
                if here.has(own) { Problem::LinkLocalNode(own) } else { Problem::LinkLocalForWorkloads(own) };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
            return Err(Box::new(config));
        }
        match secrets.of(password) {
            Ok(password) => config.password = password,
            Err(Missing { name, key }) => {
                problems.push(Problem::NoPassword { peer: config.name.clone(), name, key });
                return Err(Box::new(config));
            }
        }
        (config.import, config.export) = policies.of(filters, config.peering(), standing, &mut problems);
        Ok(config)
    };
    let (mut peers, mut open, mut closed) = (Vec::new(), Vec::new(), Vec::new());
    let nobody = |prefix, settings| DynamicPeers { prefix, limit: 0, settings };
    for session in wanted.into_values() {
        match finish(session) {
            Ok(config) => peers.push(config),
            Err(config) => closed.push(nobody(Cidr::host(config.address), *config)),
        }
    }
    for (prefix, (limit, session)) in ranges {
        match finish(session) {
            Ok(settings) => open.push(DynamicPeers { prefix, limit, settings }),
            Err(settings) => closed.push(nobody(prefix, *settings)),
        }
    }
    let dynamic = without(open, closed);
    Sessions { peers, dynamic, gateways, problems }
}

/// Puts to the networks that peers may come from those inside of them that nobody may come from.
fn without(mut open: Vec<DynamicPeers>, mut closed: Vec<DynamicPeers>) -> Vec<DynamicPeers> {
    open.retain(|range| closed.iter().all(|place| place.prefix != range.prefix));
    closed.retain(|place| open.iter().any(|range| range.prefix.covers(&place.prefix)));
    open.append(&mut closed);
    open.sort_by_key(|range| range.prefix);
    open
}

/// A session that something asks for, without what it is to keep secret and let pass.
struct Wanted<'s> {
    config: PeerConfig,
    /// By which gateway the peer is reached, where that is said.
    gateway: Option<IpAddr>,
    password: Option<&'s bgp::Password>,
    filters: &'s [Name],
    standing: Standing,
    /// The BGPPeer that asks this node for it, unless the mesh does or it answers one of another node.
    by: Option<&'s Name>,
}

impl Wanted<'_> {
    /// Says what is lost by it that another session with the same peer is not opened, if that is something a BGPPeer says
    /// of this node.
    fn displaces(&self, other: &Wanted<'_>, peer: &impl ToString) -> Option<Problem> {
        let kept = self.by?;
        let Some(left_out) = other.by else {
            return (self.password.is_none() && other.password.is_some())
                .then(|| Problem::Unsigned { peer: peer.to_string(), resource: kept.clone() });
        };
        let renamed = PeerConfig { name: other.config.name.clone(), ..self.config.clone() };
        let is_same = (renamed == other.config)
            && (self.password, self.filters, self.standing, self.gateway)
                == (other.password, other.filters, other.standing, other.gateway);
        (kept != left_out && !is_same).then(|| Problem::Twice {
            peer: peer.to_string(),
            kept: kept.clone(),
            left_out: left_out.clone(),
        })
    }
}

/// Who is on the other side of a session.
#[derive(Clone, Copy)]
enum Party<'s> {
    Node(&'s Object<Node>),
    Workload,
    Stranger,
}

/// The node that everything is decided for.
#[derive(Clone, Copy)]
struct Here<'s> {
    snapshot: &'s Snapshot,
    local: &'s Object<Node>,
    configuration: Configuration<'s>,
}

impl<'s> Here<'s> {
    /// The mesh of all nodes that are no reflectors, and that of the stand-alone reflectors.
    fn mesh(self) -> impl Iterator<Item = Wanted<'s>> {
        let cluster = self.configuration.cluster();
        let enabled = self.configuration.mesh();
        let member = move |node: &Node| enabled && cluster_id(node).is_none();
        let meets = move |other: &&'s std::sync::Arc<Object<Node>>| {
            if is_standalone(self.local) || is_standalone(other) {
                is_standalone(self.local) && is_standalone(other)
            } else {
                member(&self.local.spec) && member(&other.spec)
            }
        };
        let others = self.snapshot.nodes.values().filter(meets);
        others.flat_map(move |other| self.between_nodes(other, "Mesh")).map(move |mut config| {
            config.restart_time =
                restart_time(cluster.and_then(|c| c.node_mesh_max_restart_time.as_ref()), &config);
            let password = cluster.and_then(|cluster| cluster.node_mesh_password.as_ref());
            Wanted { config, gateway: None, password, filters: &[], standing: Standing::Inside, by: None }
        })
    }

    /// The sessions, one for each family, between this node and another.
    fn between_nodes(
        self,
        other: &'s Object<Node>,
        kind: &'static str,
    ) -> impl Iterator<Item = PeerConfig> + 's {
        let is_other = self.local.id() != other.id();
        Family::ALL.into_iter().filter(move |_| is_other).filter_map(move |family| {
            let us = self.local.spec.addr(family)?.addr();
            // Two nodes that claim one address are a mistake, and nobody has a session with itself.
            let them = other.spec.addr(family).map(|them| them.addr()).filter(|them| *them != us)?;
            let mut peer = self.with(them, as_number(self.snapshot, &other.spec), us);
            peer.port = self.port_of(other);
            peer.name = peer_name(kind, them, peer.port);
            if them.to_string() > us.to_string() {
                peer.initiation = Initiation::Passive;
            }
            Some(peer)
        })
    }

    /// A peer with Calico's settings: several paths for one prefix are offered and taken.
    fn with(self, address: IpAddr, remote_as: AsNumber, us: IpAddr) -> PeerConfig {
        let mut peer = PeerConfig::new(address, remote_as, as_number(self.snapshot, &self.local.spec));
        peer.local_address = Some(us);
        peer.add_path = AddPath::Both;
        peer.default_local_pref = Some(EXTERNAL_LOCAL_PREF);
        peer
    }

    /// The port that another node listens on.
    fn port_of(self, other: &Object<Node>) -> u16 {
        let name: Option<NodeName> = other.metadata.name.as_str().parse().ok();
        name.map_or(PORT, |name| Configuration::of(self.snapshot, &name).listen_port())
    }

    /// The sessions that a BGPPeer asks this node for.
    fn named(self, resource: &'s Object<BgpPeer>) -> Vec<Wanted<'s>> {
        let peer = &resource.spec;
        let selected = peer.peer_selector.iter().flat_map(|selector| {
            let nodes = self.snapshot.nodes.values().filter(|o| selector.matches(&o.metadata.labels));
            nodes.flat_map(|other| {
                self.between_nodes(other, kind_of(peer)).map(move |config| (config, Party::Node(other)))
            })
        });
        let workloads = self.workloads(peer).into_iter().map(|config| (config, Party::Workload));
        let configs = self.addressed(peer).into_iter().chain(selected).chain(workloads);
        configs
            .map(|(mut config, party)| {
                config.local_as = peer.local_as_number.unwrap_or(config.local_as);
                let gateway = peer.reachable_by.filter(|_| peer.peer_ip.is_some());
                let by = Some(&resource.metadata.name);
                Wanted { by, gateway, ..self.with_settings(config, peer, party) }
            })
            .collect()
    }

    /// The other side of a BGPPeer: nodes that it selects, or whose address it names, peer back.
    fn reversed(self, resource: &'s Object<BgpPeer>) -> Vec<Wanted<'s>> {
        let peer = &resource.spec;
        let selected = peer.peer_selector.as_ref().is_some_and(|s| s.matches(&self.local.metadata.labels));
        let meant = peer.peer_ip.filter(|address| self.has(address.addr));
        if (!selected && meant.is_none()) || self.unanswered(resource).is_some() {
            return Vec::new();
        }
        let others = self.snapshot.nodes.values().filter(|other| applies(peer, other));
        let of_family = |config: &PeerConfig| {
            meant.is_none_or(|meant| Family::of(meant.addr) == Family::of(config.address))
        };
        others
            .flat_map(|other| {
                let sessions = self.between_nodes(other, kind_of(peer)).filter(of_family);
                sessions.map(move |config| (config, Party::Node(other)))
            })
            .map(|(mut config, party)| {
                if let Some(theirs) = peer.local_as_number {
                    config.remote_as = theirs;
                }
                if let (Some(_), Some(ours)) = (meant, peer.as_number) {
                    config.local_as = ours;
                }
                self.with_settings(config, peer, party)
            })
            .collect()
    }

    /// The addresses of the other nodes that a BGPPeer is for, of the family of the address that it names.
    fn askers(self, resource: &'s Object<BgpPeer>) -> impl Iterator<Item = IpAddr> + 's {
        let family = resource.spec.peer_ip.map(|named| Family::of(named.addr));
        let others = self.snapshot.nodes.values().filter(move |other| self.local.id() != other.id());
        let others = others.filter(|other| applies(&resource.spec, other));
        others.filter_map(move |other| Some(other.spec.addr(family?)?.addr()))
    }

    /// Says that the session which a BGPPeer asks this node for with a node of the mesh could only fail, so that the mesh's is
    /// better: the other node has not the AS number or the port that is named, and no BGPPeer of its own that fits.
    fn stays_with_mesh(self, resource: &'s Object<BgpPeer>) -> Option<Problem> {
        let named = resource.spec.peer_ip?.addr;
        let family = Family::of(named);
        let node = self.node_at(named)?;
        let configuration = Configuration::of(self.snapshot, &node.metadata.name.as_str().parse().ok()?);
        let there = Here { snapshot: self.snapshot, local: node, configuration };
        there.unanswered(resource)?;
        let fits = |peer: &Object<BgpPeer>| {
            let spec = &peer.spec;
            let leads_here =
                spec.peer_ip.is_some_and(|back| Family::of(back.addr) == family && self.has(back.addr))
                    || spec.peer_selector.as_ref().is_some_and(|s| s.matches(&self.local.metadata.labels));
            let theirs = spec.local_as_number.unwrap_or_else(|| as_number(self.snapshot, &node.spec));
            applies(spec, node) && leads_here && Some(theirs) == resource.spec.as_number
        };
        let is_left = !self.snapshot.bgp_peers.values().any(|peer| fits(peer))
            && self.mesh().any(|session| session.config.address == named);
        is_left.then(|| Problem::StaysInMesh { resource: resource.metadata.name.clone(), peer: named })
    }

    /// Says that a BGPPeer names this node's address with another AS number or port than the node has, so that nobody peers
    /// back, as upstream's nodes do not. A stand-alone reflector is in the AS that each of its clients says.
    fn unanswered(self, resource: &Object<BgpPeer>) -> Option<Problem> {
        let named = resource.spec.peer_ip.filter(|address| self.has(address.addr))?;
        let (own, port) = (as_number(self.snapshot, &self.local.spec), self.configuration.listen_port());
        let is_right = resource.spec.as_number == Some(own) && named.port.is_none_or(|named| named == port);
        let mut others = self.snapshot.nodes.values().filter(|other| self.local.id() != other.id());
        (!is_right && !is_standalone(self.local) && others.any(|other| applies(&resource.spec, other)))
            .then(|| Problem::Unanswered { resource: resource.metadata.name.clone(), as_number: own, port })
    }

    fn has(self, address: IpAddr) -> bool {
        self.local.spec.addr(Family::of(address)).is_some_and(|own| own.addr() == address)
    }

    /// The node that has an address.
    fn node_at(self, address: IpAddr) -> Option<&'s Object<Node>> {
        let has = |node: &Object<Node>| {
            node.spec.addr(Family::of(address)).is_some_and(|own| own.addr() == address)
        };
        self.snapshot.nodes.values().map(AsRef::as_ref).find(|node| has(node))
    }

    /// The session with the address that a BGPPeer names.
    fn addressed(self, peer: &BgpPeer) -> Option<(PeerConfig, Party<'s>)> {
        let (address, remote_as) = (peer.peer_ip?, peer.as_number?);
        let family = Family::of(address.addr);
        let us = self.local.spec.addr(family)?.addr();
        if us == address.addr {
            return None;
        }
        let node = self.node_at(address.addr);
        let mut config = self.with(address.addr, remote_as, us);
        config.port = address.port.unwrap_or_else(|| node.map_or(PORT, |node| self.port_of(node)));
        config.name = peer_name(kind_of(peer), address.addr, config.port);
        if node.is_some() && address.addr.to_string() > us.to_string() {
            config.initiation = Initiation::Passive;
        }
        Some((config, node.map_or(Party::Stranger, Party::Node)))
    }

    /// The sessions with workloads of this node that a BGPPeer selects: one for each family, with a workload's first
    /// address. The workload dials, as with upstream's nodes; it has to be dialed only where the node does not listen at
    /// the address that it is told.
    fn workloads(self, peer: &BgpPeer) -> Vec<PeerConfig> {
        let (Some(selector), Some(remote_as)) = (&peer.local_workload_selector, peer.as_number) else {
            return Vec::new();
        };
        let here = |node: &NodeName| node.as_str() == self.local.metadata.name.as_str();
        let workloads = self.snapshot.workloads.values().filter(|workload| {
            here(&workload.spec.node) && selector.matches(&self.snapshot.workload_labels(workload))
        });
        let first = workloads.flat_map(|workload| {
            let addresses = workload.spec.ip_networks.iter().map(|ip| ip.addr());
            let of = move |family| addresses.clone().find(|address| Family::of(*address) == family);
            Family::ALL.into_iter().filter_map(of)
        });
        first
            .filter_map(|address| {
                let family = Family::of(address);
                let own = || self.local.spec.addr(family).map(|own| own.addr());
                let us = self.configuration.local_workload_peering(family).or_else(own)?;
                let mut config = self.with(address, remote_as, us);
                config.name = peer_name("Local_Workload", address, PORT);
                let listens = own().is_some() && self.configuration.bind_mode() == BindMode::All;
                if listens || self.has(us) {
                    config.initiation = Initiation::Passive;
                }
                Some(config)
            })
            .collect()
    }

    /// The network from which a BGPPeer lets peers come, how many, and their session.
    fn range(self, resource: &'s Object<BgpPeer>) -> Option<(Cidr, u32, Wanted<'s>)> {
        const USUAL: u32 = 100;
        let peer = &resource.spec;
        let (network, remote_as) = (peer.peer_cidr?, peer.as_number?);
        let us = self.local.spec.addr(network.family())?.addr();
        let mut config = self.with(network.addr(), remote_as, us);
        config.name = format!("Dynamic_{network}");
        config.initiation = Initiation::Passive;
        config.local_as = peer.local_as_number.unwrap_or(config.local_as);
        let limit = peer.max_peers.unwrap_or(USUAL);
        let session = self.with_settings(config, peer, Party::Stranger);
        Some((network, limit, Wanted { by: Some(&resource.metadata.name), ..session }))
    }

    /// Reports whether packets to an address need no router: it is in a network of one of the node's interfaces.
    fn is_adjacent(self, address: IpAddr) -> bool {
        let local = &self.local.spec;
        let own = Family::ALL.into_iter().filter_map(|family| local.addr(family));
        let interfaces = local.interfaces.iter().flat_map(|interface| &interface.addresses).copied();
        own.chain(interfaces).any(|own| own.subnet().covers(&Cidr::host(address)))
    }

    /// Decides whether a peer is a client, by the AS numbers of the session as it will be. A node with a cluster id
    /// reflects for peers of its AS that are not of the same cluster; those are ordinary peers.
    fn reflection(self, peering: Peering, party: Party<'_>) -> Reflection {
        let theirs = match party {
            Party::Node(node) => cluster_id(&node.spec),
            Party::Workload | Party::Stranger => None,
        };
        match (peering, cluster_id(&self.local.spec)) {
            (Peering::Internal, Some(own)) if theirs != Some(own) => Reflection::Client,
            (Peering::Internal | Peering::External, _) => Reflection::NonClient,
        }
    }

    /// Puts on a session what its BGPPeer says of it.
    fn with_settings(self, mut config: PeerConfig, peer: &'s BgpPeer, party: Party<'_>) -> Wanted<'s> {
        config.next_hop = match peer.next_hop() {
            bgp::NextHopMode::SelfHop => NextHopMode::Own,
            bgp::NextHopMode::Keep => NextHopMode::Keep,
            bgp::NextHopMode::Auto => NextHopMode::Auto,
        };
        if let Some(hops) = peer.ttl_security.filter(|hops| *hops > 0) {
            config.distance = Distance::Within(hops);
        }
        config.max_prefixes = peer.max_prefixes.map(MaxPrefixes::new);
        if peer.source_address == Some(SourceAddress::Any) {
            config.local_address = None;
        }
        config.restart_time = restart_time(peer.max_restart_time.as_ref(), &config);
        if peer.restart_mode == Some(RestartMode::LongLived) {
            config.long_lived = LongLived::For(stale_time(peer.long_lived_stale_time.as_ref()));
        }
        if peer.failure_detection_mode == Some(FailureDetection::Bfd) && self.is_adjacent(config.address) {
            config.bfd = Some(BfdConfig::default());
        }
        config.keepalive = peer.keepalive_time.as_ref().map(GoDuration::get);
        if let Some(time) = peer.hold_time.as_ref().and_then(hold_time) {
            config.hold_time = time;
        }
        let loops = peer.num_allowed_local_as_numbers.unwrap_or(0);
        config.allow_own_as = u8::try_from(loops).unwrap_or(u8::MAX);
        config.reflection = self.reflection(config.peering(), party);
        let standing = match party {
            Party::Node(_) => Standing::Inside,
            Party::Workload => Standing::Workload,
            Party::Stranger => Standing::Outside,
        };
        let password = peer.password.as_ref();
        Wanted { config, gateway: None, password, filters: &peer.filters, standing, by: None }
    }
}

/// The LOCAL_PREF of a route that came without one, as a route of another AS does: that of upstream's speaker, so that the
/// nodes of a mixed mesh rank what comes from outside alike. As a metric it is behind every ordinary one.
const EXTERNAL_LOCAL_PREF: u32 = 100;

/// How long a peer is asked to keep our routes, in the 12 bits that a capability has for it: the nearest number of seconds,
/// as upstream has it.
fn restart_time(configured: Option<&GoDuration>, usual: &PeerConfig) -> u16 {
    const LONGEST: u16 = 0xfff;
    configured.map_or(usual.restart_time, |time| {
        let nearest = time.get().saturating_add(Duration::from_millis(500)).as_secs();
        u16::try_from(nearest).unwrap_or(LONGEST).min(LONGEST)
    })
}

/// For how many seconds a peer is asked to keep our routes after the restart time: an hour, as upstream's speaker does.
fn stale_time(configured: Option<&GoDuration>) -> u32 {
    const USUAL: u32 = 3600;
    configured.and_then(|time| u32::try_from(time.get().as_secs()).ok()).unwrap_or(USUAL)
}

fn hold_time(time: &GoDuration) -> Option<HoldTime> {
    HoldTime::new(u16::try_from(time.get().as_secs()).ok()?)
}

fn is_global(peer: &BgpPeer) -> bool {
    peer.node.is_none() && peer.node_selector.is_none()
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
