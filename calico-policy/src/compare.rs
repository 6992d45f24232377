//! What changes between two worlds: between which ends which traffic begins or ceases to be allowed.
//!
//! [`compare`] says it exactly: for every two addresses and everything that may go from one to the other, of which
//! [`evaluate`] is asked about every node on the way, a change is told if the verdicts of the two worlds differ, and only then.
//! It asks about one of each kind: addresses that no rule, and no host endpoint, tells apart are one kind, and so is traffic. Where
//! nothing can have changed at either end it does not ask.
//!
//! What a workload may send from addresses that are not its own is not looked at.

mod classes;
mod traffic;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use calico_model::resource::ResourceKey;
use calico_model::{Cidr, Family, InterfaceName, Name, Snapshot};

use crate::evaluate;
use crate::packet::{Packet, Path, Transport, Verdict};
use crate::trace::Step;
use crate::way::{Home, Homes};
use classes::Classes;
pub use traffic::Traffic;

/// What changes between two worlds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// The changes, each for all ends that it is the same for: first what is denied from now on.
    pub changes: Vec<Change>,
    cells: BTreeSet<Cidr>,
}

/// Traffic that begins or ceases to be allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// From where.
    pub sources: Vec<Place>,
    /// To where; to nothing that is the source itself.
    pub destinations: Vec<Place>,
    /// Which traffic.
    pub traffic: Vec<Traffic>,
    /// What becomes of it from now on.
    pub verdict: Verdict,
    /// One packet of it.
    pub example: Example,
}

/// An end of traffic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Who has it.
    pub who: Who,
    /// Its addresses: all of the network but those of narrower networks that rules, endpoints or sets name.
    pub net: Cidr,
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A workload.
    Workload(ResourceKey),
    /// A node.
    Node(Name),
    /// Nobody of the cluster.
    Outside,
}

/// One packet whose verdict changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// What it carries.
    pub transport: Transport,
    /// What denies it, now or until now.
    pub denied_by: Step,
}

/// Compares two worlds. What goes to or comes from outside a node passes by its interface `uplink`.
///
/// ```
/// use calico_model::resource::{Object, Profile, WorkloadEndpoint};
/// use calico_model::Snapshot;
/// use calico_policy::{Verdict, compare};
///
/// let mut before = Snapshot::default();
/// for (name, addr) in [("web", "10.0.0.1/32"), ("db", "10.0.0.2/32")] {
///     let mut workload = Object::new(name.parse()?, WorkloadEndpoint::on("node-1".parse()?));
///     workload.metadata.namespace = Some("shop".parse()?);
///     workload.spec.interface_name = Some(format!("cali{name}").parse()?);
///     workload.spec.ip_networks = vec![addr.parse()?];
///     workload.spec.profiles = vec!["open".parse()?];
///     before.insert(workload);
/// }
/// let mut after = before.clone();
/// after.insert(Object::new("open".parse()?, Profile::allow_all()));
///
/// let comparison = compare(&before, &after, &"eth0".parse()?);
/// assert!(comparison.changes.iter().all(|change| change.verdict == Verdict::Allow));
/// assert_eq!(comparison.pairs(Verdict::Allow), 2, "each to the other, beside what is outside");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn compare(before: &Snapshot, after: &Snapshot, uplink: &InterfaceName) -> Comparison {
    let classes = Classes::of(before, after);
    let (smaller_before, smaller_after) = classes.reduced();
    let sides = [Side::of(&smaller_before), Side::of(&smaller_after)];
    let mut asked = Asked { classes: &classes, sides, uplink, answers: BTreeMap::new() };
    let mut found: BTreeMap<(bool, Vec<Traffic>, usize), BTreeSet<usize>> = BTreeMap::new();
    let mut examples = BTreeMap::new();
    for (from, source) in classes.all.iter().enumerate() {
        for (to, destination) in classes.all.iter().enumerate() {
            if source.family != destination.family || !(source.active || destination.active) {
                continue;
            }
            let Some(ends) = source.two(destination) else { continue };
            for (verdict, traffic, example) in asked.about((from, to), ends) {
                let allows = verdict == Verdict::Allow;
                examples.entry((allows, traffic.clone(), from, to)).or_insert(example);
                found.entry((allows, traffic, from)).or_default().insert(to);
            }
        }
    }
    let mut alike: BTreeMap<(bool, Vec<Traffic>, BTreeSet<usize>), Vec<usize>> = BTreeMap::new();
    for ((allows, traffic, from), to) in found {
        alike.entry((allows, traffic, to)).or_default().push(from);
    }
    let mut changes: Vec<Change> = Vec::new();
    for ((allows, traffic, to), from) in alike {
        let first = to.first().and_then(|to| examples.remove(&(allows, traffic.clone(), from[0], *to)));
        let Some(example) = first else { continue };
        let places = |classes_of: &mut dyn Iterator<Item = usize>| {
            let mut places: Vec<Place> =
                classes_of.flat_map(|class| classes.all[class].places.iter().cloned()).collect();
            places.sort();
            places
        };
        let verdict = if allows { Verdict::Allow } else { Verdict::Deny };
        let (sources, destinations) = (places(&mut from.into_iter()), places(&mut to.into_iter()));
        changes.push(Change { sources, destinations, traffic, verdict, example });
    }
    changes.sort_by(|a, b| {
        let key = |change: &Change| {
            (change.verdict == Verdict::Allow, change.sources.clone(), change.destinations.clone())
        };
        key(a).cmp(&key(b)).then_with(|| a.traffic.cmp(&b.traffic))
    });
    Comparison { changes: one_of_both_families(changes), cells: classes.cells }
}

/// What is the same between the same ends in both families is told once.
fn one_of_both_families(changes: Vec<Change>) -> Vec<Change> {
    let ends = |change: &Change| {
        let who =
            |places: &[Place]| -> BTreeSet<Who> { places.iter().map(|place| place.who.clone()).collect() };
        (who(&change.sources), who(&change.destinations))
    };
    let mut told: Vec<Change> = Vec::new();
    for change in changes {
        let same = told.iter_mut().find(|before| {
            before.verdict == change.verdict
                && before.traffic == change.traffic
                && before.family() != change.family()
                && ends(before) == ends(&change)
        });
        match same {
            Some(before) => {
                before.sources.extend(change.sources);
                before.destinations.extend(change.destinations);
                before.sources.sort();
                before.destinations.sort();
            }
            None => told.push(change),
        }
    }
    told
}

impl Comparison {
    /// Returns what becomes of a packet from now on, if that changes.
    #[must_use]
    pub fn verdict(&self, source: IpAddr, destination: IpAddr, transport: Transport) -> Option<Verdict> {
        if source == destination || Family::of(source) != Family::of(destination) {
            return None;
        }
        let cell = |addr: IpAddr| {
            let lengths = (0..=Family::of(addr).bits()).rev();
            let mut nets = lengths.filter_map(|length| Cidr::holding(addr, length));
            nets.find(|net| self.cells.contains(net))
        };
        let (source, destination) = (cell(source)?, cell(destination)?);
        let is_among = |places: &[Place], net: Cidr| places.iter().any(|place| place.net == net);
        let mut told = self.changes.iter().filter(|change| {
            is_among(&change.sources, source)
                && is_among(&change.destinations, destination)
                && change.traffic.iter().any(|traffic| traffic.holds(transport))
        });
        told.next().map(|change| change.verdict)
    }

    /// Returns of how many pairs of workloads and nodes some traffic gets this verdict; those outside are not counted.
    #[must_use]
    pub fn pairs(&self, verdict: Verdict) -> usize {
        let mut pairs = BTreeSet::new();
        for change in self.changes.iter().filter(|change| change.verdict == verdict) {
            let inside = |places: &'_ [Place]| -> BTreeSet<Who> {
                places.iter().map(|place| place.who.clone()).filter(|who| *who != Who::Outside).collect()
            };
            for source in inside(&change.sources) {
                let others = inside(&change.destinations).into_iter().filter(|other| *other != source);
                pairs.extend(others.map(|other| (source.clone(), other)));
            }
        }
        pairs.len()
    }
}

impl Change {
    fn family(&self) -> Family {
        Family::of(self.example.source)
    }
}

/// What is asked of the two worlds, which are smaller ones: only one of each kind is left in them.
struct Asked<'a> {
    classes: &'a Classes<'a>,
    sides: [Side<'a>; 2],
    uplink: &'a InterfaceName,
    answers: BTreeMap<Question, Option<Rc<Step>>>,
}

/// What one end is asked about what it sends or receives: in which world, which class is asked, what the other end is to
/// its rules, and what goes between them.
type Question = (usize, Way, usize, usize, Transport);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Leaves,
    Arrives,
}

struct Side<'a> {
    world: &'a Snapshot,
    homes: Homes<'a>,
}

impl<'a> Side<'a> {
    fn of(world: &'a Snapshot) -> Self {
        Self { world, homes: Homes::of(world) }
    }

    /// What denies a packet on a node, if anything does.
    fn denial(&self, packet: &Packet) -> Option<Rc<Step>> {
        let trace = evaluate(self.world, packet);
        let last = trace.steps.into_iter().next_back();
        last.filter(|_| trace.outcome.verdict == Verdict::Deny).map(Rc::new)
    }
}

impl Asked<'_> {
    /// Asks about all traffic between two ends of two classes; returns what changes, summed up.
    fn about(
        &mut self,
        pair: (usize, usize),
        ends: (IpAddr, IpAddr),
    ) -> Vec<(Verdict, Vec<Traffic>, Example)> {
        let all = self.classes.traffic(&self.classes.all[pair.0], &self.classes.all[pair.1]);
        let mut changed: BTreeMap<bool, (Vec<Traffic>, Example)> = BTreeMap::new();
        for (traffic, transport) in all.iter() {
            let [was, is] = [0, 1].map(|world| self.denial(world, pair, ends, *transport));
            let (allows, denied_by) = match (was, is) {
                (None, Some(step)) => (false, step),
                (Some(step), None) => (true, step),
                (None, None) | (Some(_), Some(_)) => continue,
            };
            let (source, destination) = ends;
            let example =
                || Example { source, destination, transport: *transport, denied_by: (*denied_by).clone() };
            changed.entry(allows).or_insert_with(|| (Vec::new(), example())).0.push(*traffic);
        }
        let told = changed.into_iter().map(|(allows, (some, example))| {
            let verdict = if allows { Verdict::Allow } else { Verdict::Deny };
            (verdict, traffic::summed_up(some, all.len()), example)
        });
        told.collect()
    }

    /// What denies a packet on its way, if anything does.
    fn denial(
        &mut self,
        world: usize,
        (source, destination): (usize, usize),
        (from, to): (IpAddr, IpAddr),
        transport: Transport,
    ) -> Option<Rc<Step>> {
        let side = &self.sides[world];
        if !(self.classes.is_plain(world, source) && self.classes.is_plain(world, destination)) {
            let way = side.homes.way(from, to, transport, self.uplink);
            return way.iter().find_map(|packet| side.denial(packet));
        }
        // Where no host endpoint is, each end decides for itself, whether they are on one node or on two.
        self.decides(world, Way::Leaves, (source, destination), (from, to), transport)
            .or_else(|| self.decides(world, Way::Arrives, (destination, source), (from, to), transport))
    }

    /// What one end's own policy denies.
    fn decides(
        &mut self,
        world: usize,
        way: Way,
        (subject, peer): (usize, usize),
        (from, to): (IpAddr, IpAddr),
        transport: Transport,
    ) -> Option<Rc<Step>> {
        let side = &self.sides[world];
        let own = if way == Way::Leaves { from } else { to };
        let Home::Workload(endpoint, interface) = side.homes.home(own) else { return None };
        let (peer, transport) = self.classes.seen(world, (subject, peer), transport);
        let answer = self.answers.entry((world, way, subject, peer, transport)).or_insert_with(|| {
            let (interface, uplink) = (interface.clone(), self.uplink.clone());
            let path = match way {
                Way::Leaves => Path::Forward { from: interface, to: uplink },
                Way::Arrives => Path::Forward { from: uplink, to: interface },
            };
            let packet = Packet::new(endpoint.spec.node.clone(), path, from, to, transport);
            packet.and_then(|packet| side.denial(&packet))
        });
        answer.clone()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Workload(key) => write!(f, "{}", key.id),
            Who::Node(name) => write!(f, "node {name}"),
            Who::Outside if self.net.prefix_len() == 0 => f.write_str("anywhere else"),
            Who::Outside => write!(f, "{}", self.net),
        }
    }
}
