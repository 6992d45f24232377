//! Addresses in the classes that policy tells apart, in either world.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use calico_model::resource::{FelixConfiguration, ResourceKey};
use calico_model::snapshot::Held;
use calico_model::{Cidr, Family, Name, NodeName, Protocol, Snapshot};

use super::traffic::{Cuts, Traffic};
use super::world::{Matchers, Membership, Standing, World, named_ports};
use super::{Place, Who};
use crate::order::tiers;
use crate::packet::Transport;
use crate::way::Home;

/// All addresses, in classes.
pub(super) struct Classes<'s> {
    pub(super) all: Vec<Class>,
    /// The networks that are told apart.
    pub(super) cells: BTreeSet<Cidr>,
    worlds: [World<'s>; 2],
    standings: Vec<[Standing; 2]>,
    configurations: Vec<FelixConfiguration>,
    known: RefCell<Known>,
}

/// Numbers of named ports, with their protocols.
type Ports = Vec<(u8, u16)>;

/// What is asked of a pair, and with which packet.
type Questions = Vec<(Traffic, Transport)>;

/// What was worked out already.
#[derive(Default)]
struct Known {
    cuts: BTreeMap<usize, Rc<Cuts>>,
    traffic: BTreeMap<(usize, usize, Ports), Rc<Questions>>,
    matchers: BTreeMap<usize, Rc<[Matchers; 2]>>,
    peers: BTreeMap<(usize, usize, usize), usize>,
    memberships: BTreeMap<Membership, usize>,
}

/// Addresses that no rule, and no host endpoint, tells apart in either world.
pub(super) struct Class {
    pub(super) family: Family,
    /// Whether anything may have changed for them, or for whoever knows them.
    pub(super) active: bool,
    pub(super) places: Vec<Place>,
    /// One address of it, and another.
    addrs: [Option<IpAddr>; 2],
    standing: usize,
    /// The numbers of its named ports, with their protocols.
    ports: Ports,
}

/// What differs between the worlds.
struct Differences {
    changed: BTreeSet<ResourceKey>,
    relabelled: BTreeSet<Name>,
    /// Whether everything may be otherwise.
    everything: bool,
    /// Whether the nodes themselves, and what guards them, may be.
    nodes: bool,
}

struct End {
    place: Place,
    addr: IpAddr,
    standing: usize,
    active: bool,
    moved: bool,
}

impl<'s> Classes<'s> {
    pub(super) fn of(before: &'s Snapshot, after: &'s Snapshot) -> Self {
        let mut configurations = Vec::new();
        let mut worlds = [before, after].map(|snapshot| World::of(snapshot, &mut configurations));
        let differences = Differences::between(&worlds);
        let mut cells: BTreeSet<Cidr> = worlds.iter().flat_map(World::networks).collect();
        let failsafes = configurations.iter().flat_map(|felix| {
            [crate::compile::inbound(felix), crate::compile::outbound(felix)].concat().into_iter()
        });
        cells.extend(failsafes.filter_map(|port| port.net));
        cells.extend(["0.0.0.0/0", "::/0"].iter().filter_map(|net| net.parse::<Cidr>().ok()));

        let mut numbers: BTreeMap<[Standing; 2], usize> = BTreeMap::new();
        let mut ends = Vec::new();
        for (net, addr) in representatives(&cells) {
            let [before, after] = &mut worlds;
            let standings = [before.standing(addr), after.standing(addr)];
            let touched = differences.touch(&worlds, addr, &standings);
            let moved = differences.moved(&worlds, addr);
            let next = numbers.len();
            let standing = *numbers.entry(standings).or_insert(next);
            let place = Place { who: who(&worlds, addr), net };
            ends.push(End { place, addr, standing, active: touched || moved, moved });
        }
        let mut standings: Vec<([Standing; 2], usize)> = numbers.into_iter().collect();
        standings.sort_by_key(|(_, number)| *number);
        let standings: Vec<[Standing; 2]> = standings.into_iter().map(|(standing, _)| standing).collect();
        let mut classes =
            Self { all: Vec::new(), cells, worlds, standings, configurations, known: RefCell::default() };
        classes.all = classes.sort(ends);
        classes
    }

    /// An active end is told apart by everybody's rules; another by its own and those of active ends.
    fn sort(&self, ends: Vec<End>) -> Vec<Class> {
        let active: BTreeSet<usize> = ends.iter().filter(|end| end.active).map(|end| end.standing).collect();
        let by_all = self.matchers(0..self.standings.len());
        let by_active = self.matchers(active.iter().copied());
        let mut by_own: BTreeMap<usize, [Matchers; 2]> = BTreeMap::new();
        let mut sorted: BTreeMap<_, Vec<End>> = BTreeMap::new();
        for end in ends {
            let matchers = if end.active {
                &by_all
            } else {
                by_own.entry(end.standing).or_insert_with(|| {
                    let mut matchers = by_active.clone();
                    self.add_matchers(end.standing, &mut matchers);
                    matchers
                })
            };
            let [before, after] = &self.worlds;
            let membership =
                [before.membership(end.addr, &matchers[0]), after.membership(end.addr, &matchers[1])];
            let key = (Family::of(end.addr), end.standing, end.active, end.moved, membership);
            sorted.entry(key).or_default().push(end);
        }
        let class = |((family, standing, active, _, _), ends): ((Family, usize, bool, bool, _), Vec<End>)| {
            let addrs = [ends.first().map(|end| end.addr), ends.get(1).map(|end| end.addr)];
            let holders =
                addrs[0].iter().flat_map(|addr| self.worlds.iter().flat_map(|world| world.holders(*addr)));
            let ports = named_ports(&holders.collect::<Vec<_>>());
            Class {
                family,
                active,
                addrs,
                places: ends.into_iter().map(|end| end.place).collect(),
                standing,
                ports: ports.into_iter().map(|(_, protocol, port)| (protocol, port)).collect(),
            }
        };
        sorted.into_iter().map(class).collect()
    }

    fn matchers(&self, standings: impl Iterator<Item = usize>) -> [Matchers; 2] {
        let mut matchers = [Matchers::default(), Matchers::default()];
        standings.for_each(|standing| self.add_matchers(standing, &mut matchers));
        matchers
    }

    fn add_matchers(&self, standing: usize, matchers: &mut [Matchers; 2]) {
        for (i, world) in self.worlds.iter().enumerate() {
            world.match_by(&self.standings[standing][i], &self.configurations, &mut matchers[i]);
        }
    }

    /// Returns the traffic between two classes, in classes of its own that no rule tells apart within.
    pub(super) fn traffic(&self, source: &Class, destination: &Class) -> Rc<Vec<(Traffic, Transport)>> {
        let mut ports = [source.ports.as_slice(), &destination.ports].concat();
        ports.sort_unstable();
        ports.dedup();
        let key = (source.standing, destination.standing, ports);
        if let Some(known) = self.known.borrow().traffic.get(&key) {
            return Rc::clone(known);
        }
        let mut cuts = self.cuts(source.standing).join(&self.cuts(destination.standing));
        for (protocol, port) in &key.2 {
            cuts.of_port(Protocol::from_number(*protocol), *port);
        }
        let traffic = Rc::new(cuts.classes());
        self.known.borrow_mut().traffic.insert(key, Rc::clone(&traffic));
        traffic
    }

    fn cuts(&self, standing: usize) -> Rc<Cuts> {
        if let Some(known) = self.known.borrow().cuts.get(&standing) {
            return Rc::clone(known);
        }
        let mut cuts = Cuts::default();
        for (i, world) in self.worlds.iter().enumerate() {
            world.cut(&self.standings[standing][i], &self.configurations, &mut cuts);
        }
        let cuts = Rc::new(cuts);
        self.known.borrow_mut().cuts.insert(standing, Rc::clone(&cuts));
        cuts
    }

    /// Reports whether nothing but policies and profiles decides about a class in a world, wherever the other end is.
    pub(super) fn is_plain(&self, world: usize, class: usize) -> bool {
        World::is_plain(&self.standings[self.all[class].standing][world])
    }

    /// Returns the number of what a class is to the policies and profiles of another, and the packet that stands for those
    /// like this one.
    pub(super) fn seen(
        &self,
        world: usize,
        (subject, peer): (usize, usize),
        packet: Transport,
    ) -> (usize, Transport) {
        let standing = self.all[subject].standing;
        let matchers = self.own_matchers(standing);
        let packet = if matchers[world].named { packet } else { self.cuts(standing).first_alike(packet) };
        let key = (world, standing, peer);
        if let Some(known) = self.known.borrow().peers.get(&key) {
            return (*known, packet);
        }
        let addr = self.all[peer].addrs[0];
        let membership = addr.map(|addr| self.worlds[world].membership(addr, &matchers[world]));
        let known = &mut *self.known.borrow_mut();
        let next = known.memberships.len();
        let number = membership.map_or(next, |found| *known.memberships.entry(found).or_insert(next));
        known.peers.insert(key, number);
        (number, packet)
    }

    fn own_matchers(&self, standing: usize) -> Rc<[Matchers; 2]> {
        if let Some(known) = self.known.borrow().matchers.get(&standing) {
            return Rc::clone(known);
        }
        let matchers = Rc::new(self.matchers(std::iter::once(standing)));
        self.known.borrow_mut().matchers.insert(standing, Rc::clone(&matchers));
        matchers
    }

    /// Returns the two worlds with nothing in them but what decides about one or two addresses of each class.
    pub(super) fn reduced(&self) -> (Snapshot, Snapshot) {
        let addrs: BTreeSet<IpAddr> =
            self.all.iter().flat_map(|class| class.addrs.into_iter().flatten()).collect();
        let mut reduced = self.worlds.iter().enumerate().map(|(i, world)| {
            let holders = addrs.iter().flat_map(|addr| world.holders(*addr));
            let mut kept: BTreeSet<ResourceKey> = holders.map(|holder| holder.key()).collect();
            for class in &self.all {
                let standing = &self.standings[class.standing][i];
                let addrs = class.addrs.into_iter().flatten();
                addrs.for_each(|addr| kept.extend(world.depends_on(addr, standing)));
            }
            reduce(world.snapshot, &kept)
        });
        (reduced.next().unwrap_or_default(), reduced.next().unwrap_or_default())
    }
}

fn reduce(snapshot: &Snapshot, kept: &BTreeSet<ResourceKey>) -> Snapshot {
    fn of<S: Held>(snapshot: &Snapshot, kept: &BTreeSet<ResourceKey>) -> calico_model::snapshot::Table<S> {
        let table = S::table(snapshot).iter().filter(|(_, object)| kept.contains(&object.key()));
        table.map(|(id, object)| (id.clone(), Arc::clone(object))).collect()
    }
    let mut reduced = Snapshot::default();
    reduced.workloads = of(snapshot, kept);
    reduced.network_sets = of(snapshot, kept);
    reduced.global_network_sets = of(snapshot, kept);
    reduced.endpoint_slices = of(snapshot, kept);
    reduced.policies = of(snapshot, kept);
    reduced.global_policies = of(snapshot, kept);
    reduced.pools.clone_from(&snapshot.pools);
    reduced.nodes.clone_from(&snapshot.nodes);
    reduced.hosts.clone_from(&snapshot.hosts);
    reduced.profiles.clone_from(&snapshot.profiles);
    reduced.tiers.clone_from(&snapshot.tiers);
    reduced.felix_configurations.clone_from(&snapshot.felix_configurations);
    reduced.bgp_configurations.clone_from(&snapshot.bgp_configurations);
    reduced
}

impl Class {
    /// Returns an address of each class; two of one class for itself, if it has two.
    pub(super) fn two(&self, other: &Class) -> Option<(IpAddr, IpAddr)> {
        let from = self.addrs[0]?;
        let to = if other.addrs[0] == Some(from) { other.addrs[1]? } else { other.addrs[0]? };
        Some((from, to))
    }
}

fn who(worlds: &[World<'_>; 2], addr: IpAddr) -> Who {
    let homes = [worlds[1].home(addr), worlds[0].home(addr)];
    homes
        .into_iter()
        .find_map(|home| match home {
            Home::Workload(endpoint, _) => Some(Who::Workload(endpoint.key())),
            Home::Node(name) => Some(Who::Node(name.clone())),
            Home::Outside => None,
        })
        .unwrap_or(Who::Outside)
}

/// Returns for each network an address that is in no narrower one, if there is one.
fn representatives(cells: &BTreeSet<Cidr>) -> Vec<(Cidr, IpAddr)> {
    let free = |cell: &Cidr| {
        let mut candidate = cell.addr();
        let narrower = cells.range(*cell..).skip(1).take_while(|net| cell.covers(net));
        for net in narrower {
            if net.contains(candidate) {
                candidate = next(net.last()).filter(|addr| cell.contains(*addr))?;
            } else if net.addr() > candidate {
                break;
            }
        }
        Some((*cell, candidate))
    };
    cells.iter().filter_map(free).collect()
}

fn next(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(addr) => u32::from(addr).checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(addr) => u128::from(addr).checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

impl Differences {
    fn between(worlds: &[World<'_>; 2]) -> Self {
        let [before, after] = worlds;
        let mut changed = BTreeSet::new();
        differing::<calico_model::resource::NetworkPolicy>(before.snapshot, after.snapshot, &mut changed);
        differing::<calico_model::resource::GlobalNetworkPolicy>(
            before.snapshot,
            after.snapshot,
            &mut changed,
        );
        differing::<calico_model::resource::Profile>(before.snapshot, after.snapshot, &mut changed);
        differing::<calico_model::resource::WorkloadEndpoint>(before.snapshot, after.snapshot, &mut changed);
        differing::<calico_model::resource::HostEndpoint>(before.snapshot, after.snapshot, &mut changed);
        differing::<calico_model::resource::KubernetesEndpointSlice>(
            before.snapshot,
            after.snapshot,
            &mut changed,
        );
        differing::<calico_model::resource::NetworkSet>(before.snapshot, after.snapshot, &mut changed);
        differing::<calico_model::resource::GlobalNetworkSet>(before.snapshot, after.snapshot, &mut changed);
        let labels = |snapshot: &Snapshot, key: &ResourceKey| {
            snapshot.profiles.get(&key.id).map(|profile| profile.spec.labels_to_apply.clone())
        };
        let profiles = changed.iter().filter(|key| key.kind == calico_model::resource::Kind::Profile);
        let relabelled = profiles
            .filter(|key| {
                labels(before.snapshot, key).unwrap_or_default()
                    != labels(after.snapshot, key).unwrap_or_default()
            })
            .map(|key| key.id.name.clone())
            .collect();
        let addresses = |snapshot: &Snapshot| -> BTreeSet<(NodeName, Vec<IpAddr>)> {
            let of_node = |node: &calico_model::resource::Node| {
                Family::ALL.into_iter().filter_map(|family| node.addr(family)).map(|own| own.addr()).collect()
            };
            snapshot
                .nodes
                .values()
                .map(|node| (node.metadata.name.clone().into(), of_node(&node.spec)))
                .collect()
        };
        Self {
            everything: before.tunnels() != after.tunnels() || !same_order(before.snapshot, after.snapshot),
            nodes: addresses(before.snapshot) != addresses(after.snapshot),
            changed,
            relabelled,
        }
    }

    /// Reports whether what an address's own policy says may have changed.
    fn touch(&self, worlds: &[World<'_>; 2], addr: IpAddr, standings: &[Standing; 2]) -> bool {
        let [before, after] = standings;
        let depends = || {
            let keys =
                worlds.iter().zip(standings).flat_map(|(world, standing)| world.depends_on(addr, standing));
            keys.into_iter().any(|key| self.changed.contains(&key))
        };
        self.everything
            || before != after
            || self.nodes && (World::is_host(before) || World::is_host(after))
            || depends()
    }

    /// Reports whether others may know an address as something else.
    fn moved(&self, worlds: &[World<'_>; 2], addr: IpAddr) -> bool {
        let mut holders = worlds.iter().flat_map(|world| world.holders(addr));
        holders.any(|holder| {
            self.changed.contains(&holder.key())
                || holder.profiles().iter().any(|name| self.relabelled.contains(name))
        })
    }
}

fn differing<S: Held>(before: &Snapshot, after: &Snapshot, changed: &mut BTreeSet<ResourceKey>) {
    let (before, after) = (S::table(before), S::table(after));
    let same = |a: &Arc<_>, b: Option<&Arc<_>>| b.is_some_and(|b| Arc::ptr_eq(a, b) || a == b);
    changed.extend(
        before.iter().filter(|(id, object)| !same(object, after.get(*id))).map(|(_, object)| object.key()),
    );
    changed.extend(after.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, object)| object.key()));
}

/// Reports whether the tiers that both have are in one order and end alike.
fn same_order(before: &Snapshot, after: &Snapshot) -> bool {
    let (before, after) = (tiers(before), tiers(after));
    let common =
        |some: &[crate::order::OrderedTier<'_>], others: &[crate::order::OrderedTier<'_>]| -> Vec<_> {
            let common = some.iter().filter(|tier| others.iter().any(|other| other.name == tier.name));
            common.map(|tier| (tier.name.clone(), tier.default_action)).collect()
        };
    common(&before, &after) == common(&after, &before)
}
