//! From what is known to what the kernel is wanted to hold.
//!
//! What is wanted falls into places, each of which is worked out by itself from the known things it depends on:
//! all routes to one destination, the settings of one interface, the tunnel's entries of one peer. [`compute()`] works out
//! all of them. A [`Computer`] is told of one change after the other, marks the places that depend on it, and works out
//! those; what concerns everything (a pool, the configuration, the node itself) has it begin anew.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use calico_model::{
    Cidr, Family, InterfaceAddr, InterfaceName, LearnedRoutes, Mac, NodeName, Snapshot, Update,
};

use crate::desired::{Desired, Problem};
use crate::encap::Source;
use crate::route::{Class, Route, RouteKey, Target};
use crate::sysctl::Sysctl;
use known::{Dirty, Known, Place};
use view::View;

mod known;
mod learned;
mod local;
mod remote;
mod tunnel;
mod view;

/// Computes everything that a node's kernel is wanted to hold.
///
/// The result depends on the arguments only: not on the machine, not on the order in which the snapshot came about.
/// Whatever cannot be served is in [`Desired::problems`], and everything else goes on. No BGP session needs anything of its
/// own: that is what [`Computer::peer`] is for.
#[must_use]
pub fn compute(snapshot: &Snapshot, node: &NodeName, learned: &LearnedRoutes) -> Desired {
    Laid::out(&View::new(&Known::of(snapshot, node), learned, &Peering::default())).desired
}

/// What BGP sessions need of the kernel, beside what they learn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peering {
    /// The peers that are reached by a gateway of their own, with the gateway.
    pub gateways: BTreeMap<IpAddr, IpAddr>,
    /// The addresses of this node's workloads that peer with it at an address which is there for nothing else, with that
    /// address.
    pub workloads: BTreeMap<IpAddr, IpAddr>,
}

/// Computes what a node's kernel is wanted to hold, change by change.
///
/// Whatever the order of the changes and however they are grouped, [`Computer::desired`] is what [`compute()`] makes of
/// the snapshot that they result in, and the cost of each follows what it changes.
///
/// # Examples
/// ```
/// use calico_model::resource::{Object, WorkloadEndpoint};
/// use calico_model::Update;
/// use calico_route::Computer;
///
/// let mut computer = Computer::new("node1".parse()?);
/// computer.settle();
/// let mut web = Object::new("web".parse()?, WorkloadEndpoint::on("node1".parse()?));
/// web.spec.interface_name = Some("cali0123456789a".parse()?);
/// web.spec.ip_networks = vec!["192.168.0.5/32".parse()?];
/// computer.apply(&Update::Put(Box::new(web.into())));
/// let delta = computer.settle();
/// assert_eq!(delta.routes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.168.0.5/32 metric 1024"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Computer {
    known: Known,
    learned: Arc<LearnedRoutes>,
    /// The next hops of what was learned: routes are many, gateways few.
    gateways: BTreeSet<IpAddr>,
    peering: Peering,
    dirty: Dirty,
    laid: Laid,
}

/// Which entries of [`Desired`] are not what they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// More than entries changed: devices, the node's addresses, what is ours, or a learned route that may lead to the next
    /// hops of others. Anything may be different.
    pub everything: bool,
    /// Routes that are other ones now, or wanted no more, or only now.
    pub routes: BTreeSet<RouteKey>,
    /// Neighbours likewise.
    pub neighbours: BTreeSet<(InterfaceName, IpAddr)>,
    /// Forwarding entries likewise.
    pub fdb: BTreeSet<(InterfaceName, Mac)>,
    /// Kernel settings likewise.
    pub sysctls: BTreeSet<Sysctl>,
}

impl Delta {
    /// Reports whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Computer {
    /// Makes a computer that knows nothing but which node it is for.
    #[must_use]
    pub fn new(node: NodeName) -> Self {
        Self {
            known: Known::nothing(node),
            learned: Arc::default(),
            gateways: BTreeSet::new(),
            peering: Peering::default(),
            dirty: Dirty { everything: true, places: BTreeSet::new() },
            laid: Laid::default(),
        }
    }

    /// Takes in one change of the datastore.
    pub fn apply(&mut self, update: &Update) {
        self.known.apply(update, &mut self.dirty);
    }

    /// Takes in all that BGP has learned.
    pub fn learn(&mut self, learned: Arc<LearnedRoutes>) {
        if Arc::ptr_eq(&self.learned, &learned) {
            return;
        }
        let before = mem::replace(&mut self.learned, learned);
        self.gateways.clear();
        let mut old = before.iter().peekable();
        for (prefix, route) in self.learned.iter() {
            while let Some((gone, _)) = old.next_if(|(old, _)| *old < prefix) {
                self.dirty.prefix(*gone);
            }
            if old.next_if(|(old, _)| *old == prefix).is_none_or(|(_, earlier)| earlier != route) {
                self.dirty.prefix(*prefix);
            }
            self.gateways.extend(&route.next_hops);
        }
        old.for_each(|(gone, _)| self.dirty.prefix(*gone));
    }

    /// Takes in what BGP sessions need.
    pub fn peer(&mut self, peering: Peering) {
        // Routes to peers seldom change, and much may lead over them.
        self.dirty.everything |= self.peering.gateways != peering.gateways;
        self.peering = peering;
    }

    /// Adds the places that depend on places: a workload may be the gateway of what was learned.
    fn spread(&self, dirty: &mut Dirty) {
        let host = |place: &Place| match place {
            Place::Prefix(prefix) if prefix.is_host() => Some(prefix.addr()),
            Place::Prefix(_) | Place::Interface(_) | Place::Peer(_) => None,
        };
        let leads = |addr: &IpAddr| self.peering.gateways.values().any(|gateway| gateway == addr);
        let moved = dirty.places.iter().filter_map(host);
        let moved: BTreeSet<IpAddr> =
            moved.filter(|addr| self.gateways.contains(addr) || leads(addr)).collect();
        if moved.iter().any(leads) {
            dirty.everything = true;
        } else if !moved.is_empty() {
            let behind = self.learned.iter().filter(|(_, route)| !moved.is_disjoint(&route.next_hops));
            behind.for_each(|(prefix, _)| dirty.prefix(*prefix));
        }
    }

    /// Works out what depends on the changes since the last time, and says what became different.
    pub fn settle(&mut self) -> Delta {
        let mut dirty = mem::take(&mut self.dirty);
        self.spread(&mut dirty);
        let view = View::new(&self.known, &self.learned, &self.peering);
        if dirty.everything {
            let before = mem::replace(&mut self.laid, Laid::out(&view));
            return Delta { everything: before.desired != self.laid.desired, ..Delta::default() };
        }
        let (delta, moved) = self.laid.lay_anew(&view, &dirty.places);
        // What leads over them is not known here, and they change seldom.
        let everything = delta.everything || moved.iter().any(|prefix| self.holds_gateway(prefix));
        Delta { everything, ..delta }
    }

    /// Reports whether an address may be the gateway of a route that is wanted.
    fn holds_gateway(&self, prefix: &Cidr) -> bool {
        let inside = prefix.addr()..=prefix.last();
        self.gateways.range(inside.clone()).next().is_some()
            || self.known.node_addresses.range(inside).next().is_some()
            || self.peering.gateways.values().any(|gateway| prefix.contains(*gateway))
    }

    /// Returns what says where the routes to a destination come from when it is on another node; `None` when no pool holds it.
    /// What comes from the datastore is never learned.
    pub fn sources(&self) -> impl Fn(&Cidr) -> Option<Source> {
        let view = View::new(&self.known, &self.learned, &self.peering);
        move |destination| Some(view.pools.encap(destination)?.source(view.cluster_routes()))
    }

    /// Returns what is wanted, as of the last [`Computer::settle`].
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.laid.desired
    }
}

/// The entries and problems of one place, or of several.
#[derive(Debug, Default, PartialEq, Eq)]
struct Part {
    routes: BTreeMap<RouteKey, Route>,
    neighbours: BTreeMap<(InterfaceName, IpAddr), Mac>,
    fdb: BTreeMap<(InterfaceName, Mac), IpAddr>,
    sysctls: BTreeMap<Sysctl, String>,
    problems: BTreeSet<Problem>,
}

impl Part {
    fn of(view: &View<'_>, place: &Place) -> Self {
        let mut part = Self::default();
        match place {
            Place::Prefix(prefix) => {
                local::workload(view, *prefix, &mut part);
                part.neighbours.retain(|(device, _), _| view.ownership.is_workload(device));
                local::blackhole(view, *prefix, &mut part);
                remote::route(view, *prefix, &mut part);
                learned::route(view, *prefix, &mut part);
            }
            Place::Interface(device) if view.ownership.is_workload(device) => {
                local::settings(view, device, &mut part);
            }
            // Everything on a workload's interface is ours; what has another name may be anybody's.
            Place::Interface(device) => {
                let workload = view.known.interfaces.get(device).and_then(BTreeSet::first);
                part.problems.extend(workload.map(|workload| Problem::MisnamedInterface {
                    device: device.clone(),
                    workload: workload.to_string(),
                }));
            }
            Place::Peer(node) => tunnel::peer(view, node, &mut part),
        }
        part
    }

    /// Adds a route unless one of a better [class](crate::route::Class) has its key. Between equals the lesser target
    /// stays, so the order of the offers does not matter.
    fn offer(&mut self, key: RouteKey, route: Route) {
        let rank = |route: &Route| (route.class, route.target.clone());
        if self.routes.get(&key).is_none_or(|held| rank(&route) < rank(held)) {
            self.routes.insert(key, route);
        }
    }
}

/// What is wanted, and what of it came from where as far as that cannot be told from the entries.
#[derive(Debug, Clone, Default)]
struct Laid {
    desired: Desired,
    problems: BTreeMap<Place, BTreeSet<Problem>>,
    peers: BTreeMap<NodeName, BTreeSet<(InterfaceName, IpAddr, Mac)>>,
    /// Problems of the node as a whole.
    general: BTreeSet<Problem>,
}

impl Laid {
    fn out(view: &View<'_>) -> Self {
        let mut laid = Self::default();
        tunnel::devices(view, &mut laid.desired);
        laid.general = mem::take(&mut laid.desired.problems);
        for place in view.places() {
            let part = Part::of(view, &place);
            laid.put(place, part);
        }
        laid.finish(view);
        laid
    }

    /// Works out some places again; returns what became different, and to which destinations learned routes did.
    fn lay_anew(&mut self, view: &View<'_>, places: &BTreeSet<Place>) -> (Delta, BTreeSet<Cidr>) {
        let mut before = Part::default();
        places.iter().for_each(|place| self.take(place, &mut before));
        let mut after = Part::default();
        for place in places {
            let part = Part::of(view, place);
            after.routes.extend(part.routes.iter().map(|(key, route)| (*key, route.clone())));
            after.neighbours.extend(part.neighbours.clone());
            after.fdb.extend(part.fdb.clone());
            after.sysctls.extend(part.sysctls.clone());
            self.put(place.clone(), part);
        }
        let peering = self.desired.workload_peering.clone();
        let forwarding = self.finish(view);
        let mut delta = Delta {
            everything: peering != self.desired.workload_peering,
            routes: differing(&before.routes, &after.routes),
            neighbours: differing(&before.neighbours, &after.neighbours),
            fdb: differing(&before.fdb, &after.fdb),
            sysctls: differing(&before.sysctls, &after.sysctls),
        };
        delta.sysctls.extend(forwarding);
        let is_learned = |key: &&RouteKey| {
            let mut routes = [&before, &after].into_iter().filter_map(|part| part.routes.get(key));
            routes.any(|route| route.class == Class::Learned)
        };
        let moved = delta.routes.iter().filter(is_learned).map(|key| key.prefix).collect();
        (delta, moved)
    }

    fn put(&mut self, place: Place, part: Part) {
        if let Place::Peer(node) = &place
            && !part.neighbours.is_empty()
        {
            let entries = part.neighbours.iter().map(|((device, addr), mac)| (device.clone(), *addr, *mac));
            self.peers.insert(node.clone(), entries.collect());
        }
        self.desired.routes.extend(part.routes);
        self.desired.neighbours.extend(part.neighbours);
        self.desired.fdb.extend(part.fdb);
        self.desired.sysctls.extend(part.sysctls);
        if !part.problems.is_empty() {
            self.problems.insert(place, part.problems);
        }
    }

    /// Moves what a place wanted out of the whole.
    fn take(&mut self, place: &Place, into: &mut Part) {
        self.problems.remove(place);
        let desired = &mut self.desired;
        match place {
            Place::Prefix(prefix) => {
                let keys: Vec<RouteKey> =
                    desired.routes.range(RouteKey::all_to(*prefix)).map(|(key, _)| *key).collect();
                for key in keys {
                    let Some(route) = desired.routes.remove(&key) else { continue };
                    if let Route { class: Class::LocalWorkload, target: Target::Device(device) } = &route {
                        let neighbour = (device.clone(), prefix.addr());
                        let held = desired.neighbours.remove_entry(&neighbour);
                        into.neighbours.extend(held);
                    }
                    into.routes.insert(key, route);
                }
            }
            Place::Interface(device) => {
                let settings = Sysctl::all_of_workload(device);
                into.sysctls.extend(settings.filter_map(|sysctl| desired.sysctls.remove_entry(&sysctl)));
            }
            Place::Peer(node) => {
                for (device, addr, mac) in self.peers.remove(node).into_iter().flatten() {
                    into.neighbours.extend(desired.neighbours.remove_entry(&(device.clone(), addr)));
                    into.fdb.extend(desired.fdb.remove_entry(&(device, mac)));
                }
            }
        }
    }

    /// Settles what depends on all places together; returns the settings that changed.
    fn finish(&mut self, view: &View<'_>) -> BTreeSet<Sysctl> {
        let mut changed = BTreeSet::new();
        for family in view.families() {
            let forwarding = Sysctl::forwarding(family);
            let is_wanted = view.uses(family);
            if is_wanted == self.desired.sysctls.contains_key(&forwarding) {
                continue;
            }
            if is_wanted {
                self.desired.sysctls.insert(forwarding.clone(), "1".to_owned());
            } else {
                self.desired.sysctls.remove(&forwarding);
            }
            changed.insert(forwarding);
        }
        self.desired.workload_peering.clear();
        for (workload, ours) in &view.peering.workloads {
            let address = InterfaceAddr::new(*ours, Family::of(*ours).bits());
            if let Some((device, address)) = local::device_of(view, *workload).zip(address) {
                self.desired.workload_peering.entry(device.clone()).or_default().insert(address);
            }
        }
        self.desired.problems = self.problems.values().flatten().chain(&self.general).cloned().collect();
        changed
    }
}

/// The keys that only one of two maps has, or that lead to different values.
fn differing<K: Ord + Clone, V: PartialEq>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> BTreeSet<K> {
    let keys = before.keys().chain(after.keys());
    keys.filter(|key| before.get(key) != after.get(key)).cloned().collect()
}
