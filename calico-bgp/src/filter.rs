//! What passes between us and a peer, as a decision program compiled from Calico's resources.
//!
//! A [`Program`] is asked of one route at a time and answers with a [`Verdict`]: left out, or passed with a change. It has
//! two parts, in this order:
//!
//! 1. the rules of the peer's BGPFilters. The first that matches decides. Rules that name a network are found by a trie of
//!    those networks, so that a route is compared with the rules for where it goes, not with all;
//! 2. what holds without them: see [`Export`] and [`Import`].
//!
//! A program is data: two that are equal decide alike, peers that share one are told the same, and nothing is rendered.
//!
//! Two matches are facts of the session and of the node, so they are settled when the program is compiled: `peerType`, and
//! `interface`, which stands for the networks of the node's interfaces of that name that a next hop may be in. Which
//! of them leads to a next hop behind a router, in none of these networks, is not known: a rule that rejects what goes out of
//! some of the interfaces then rejects, and one that accepts does so only if it is for all of them. A route that begins here
//! leaves by no interface.

mod compile;
mod trie;

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use calico_model::resource::filter::{FilterRule, PeerType};
use calico_model::{AsNumber, Cidr, Community, Family};

use crate::family::PerFamily;
use crate::rib::Packed;
use crate::session::Peering;
use crate::speaker::METRIC_BASE;
use crate::wire::Attributes;
pub use compile::Facts;
pub(crate) use compile::is_like;
pub use trie::{PrefixMap, PrefixSet};

/// Who told a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// It begins here.
    Ourselves,
    /// A BGP peer.
    Peer,
}

/// A route, as a program sees it.
#[derive(Debug, Clone)]
pub struct Route<'a> {
    /// The destination.
    pub prefix: Cidr,
    /// What it is.
    pub attributes: Seen<'a>,
    /// Who told it.
    pub teller: Teller,
}

/// The attributes of a route. Those of a table are unpacked when a rule asks for them, which few do.
#[derive(Debug, Clone)]
pub struct Seen<'a>(Held<'a>);

#[derive(Debug, Clone)]
enum Held<'a> {
    Whole(&'a Attributes),
    Packed(&'a Packed, OnceCell<Attributes>),
}

impl<'a> From<&'a Attributes> for Seen<'a> {
    fn from(attributes: &'a Attributes) -> Self {
        Self(Held::Whole(attributes))
    }
}

impl<'a> From<&'a Packed> for Seen<'a> {
    fn from(attributes: &'a Packed) -> Self {
        Self(Held::Packed(attributes, OnceCell::new()))
    }
}

impl Deref for Seen<'_> {
    type Target = Attributes;

    fn deref(&self) -> &Attributes {
        match &self.0 {
            Held::Whole(attributes) => attributes,
            Held::Packed(packed, unpacked) => unpacked.get_or_init(|| packed.attributes()),
        }
    }
}

/// What becomes of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes, with a change.
    Pass(ChangeId),
    /// It is left out.
    LeaveOut,
}

/// Names one of a program's changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChangeId(u32);

impl ChangeId {
    /// Nothing is changed.
    pub const NONE: ChangeId = ChangeId(0);
}

/// One step of a change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    AddCommunities(Vec<Community>),
    Prepend(Vec<AsNumber>),
    SetLocalPref(u32),
}

/// Whether a rule's network stands for itself alone or for everything inside too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Span {
    Itself,
    Inside,
}

impl Span {
    fn holds(self, network: Cidr, prefix: Cidr) -> bool {
        match self {
            Self::Itself => network == prefix,
            Self::Inside => network.covers(&prefix),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    LengthBetween(u8, u8),
    Not(Cidr),
    /// Not inside a network with a length between two others.
    NotWithin(Cidr, u8, u8),
    ToldByPeer,
    /// The next hop is in one of the networks of the interfaces that are meant.
    LeavesBy {
        /// The networks of interfaces, and whether they are meant; those that are as what is around them are left out.
        networks: Vec<(Cidr, bool)>,
        /// Whether it holds of a next hop in none of them.
        beyond: bool,
    },
    Carries(Community),
    PathBegins(Vec<AsNumber>),
    LocalPref(u32),
}

impl Condition {
    fn holds(&self, route: &Route<'_>) -> bool {
        match self {
            Self::LengthBetween(min, max) => (*min..=*max).contains(&route.prefix.prefix_len()),
            Self::Not(network) => *network != route.prefix,
            Self::NotWithin(network, min, max) => {
                !(network.covers(&route.prefix) && (*min..=*max).contains(&route.prefix.prefix_len()))
            }
            Self::ToldByPeer => route.teller == Teller::Peer,
            Self::LeavesBy { networks, beyond } => {
                let next_hop: IpAddr = route.attributes.next_hop;
                let around = networks.iter().filter(|(network, _)| network.contains(next_hop));
                let nearest = around.max_by_key(|(network, _)| network.prefix_len());
                route.teller == Teller::Peer && nearest.map_or(*beyond, |(_, meant)| *meant)
            }
            Self::Carries(community) => route.attributes.carries(*community),
            Self::PathBegins(numbers) => {
                let mut path = route.attributes.as_path.numbers();
                numbers.iter().all(|number| path.next() == Some(number.get()))
            }
            Self::LocalPref(wanted) => route.attributes.local_pref == Some(*wanted),
        }
    }
}

/// A rule, without the network it is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    conditions: Vec<Condition>,
    /// The change of a route that passes; a route that does not is left out.
    passes: Option<ChangeId>,
}

/// The rules of one family, in the order in which they are asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Rules {
    all: Vec<Rule>,
    /// Rules that name no network a route must be in.
    anywhere: Vec<u32>,
    /// The others, by that network.
    placed: PrefixMap<Vec<(u32, Span)>>,
}

impl Rules {
    /// Returns the first rule that matches.
    fn first(&self, route: &Route<'_>) -> Option<&Rule> {
        if self.all.is_empty() {
            return None;
        }
        let placed = self.placed.covering(route.prefix).flat_map(|(network, rules)| {
            let here = rules.iter().filter(move |(_, span)| span.holds(network, route.prefix));
            here.map(|(at, _)| *at)
        });
        let matches = |at: &u32| self.all[*at as usize].conditions.iter().all(|c| c.holds(route));
        let at = placed.chain(self.anywhere.iter().copied()).filter(matches).min()?;
        self.all.get(at as usize)
    }
}

/// What is told to a peer when no filter decides, in this order:
///
/// - nothing of pools that are not exported;
/// - what begins here: this node's blocks, whole, and what is advertised explicitly;
/// - inside this node's blocks, only routes that are preferred to ordinary ones (live migration);
/// - everything else inside the cluster's networks, and nothing outside them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Export {
    /// The pools that are not exported.
    pub closed: PrefixSet,
    /// The networks whose routes are passed on: pools, and a reflector's service networks.
    pub open: PrefixSet,
    /// Communities for routes inside networks; several entries for one network add up.
    pub communities: Vec<(Cidr, Vec<Community>)>,
    /// The metric of an ordinary route.
    pub normal_priority: PerFamily<u32>,
}

/// What is taken from a peer when no filter decides: everything but networks that are ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Import {
    /// The networks of which nothing is taken, whole or in part.
    pub refused: PrefixSet,
}

/// What holds when no filter decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Rest {
    Export { closed: PrefixSet, open: PrefixSet, changes: PrefixMap<ChangeId>, normal: PerFamily<u32> },
    Import(Import),
    Nothing,
}

/// A compiled decision about what passes to or from a peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    rules: PerFamily<Rules>,
    rest: Rest,
    changes: Vec<Vec<Operation>>,
}

/// What a change of what is taken from a peer means for the routes that it has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// Nothing.
    Same,
    /// Some of those that are held are taken no longer.
    Less,
    /// The same, and networks are no longer refused because they are ours: the peer may have told routes inside them.
    Freed,
    /// Anything: what was not taken may be, and what was may be changed in another way.
    Other,
}

impl Program {
    /// Compiles what a peer is told. `filters` holds the export rules of its filters, one filter after the other.
    pub fn export<'r>(
        rules: impl Fn(Family) -> Vec<&'r FilterRule>,
        facts: &Facts,
        otherwise: Export,
    ) -> Self {
        let mut program = Self::of_rules(rules, facts);
        let Export { closed, open, communities, normal_priority } = otherwise;
        let mut merged: BTreeMap<Cidr, Vec<Community>> = BTreeMap::new();
        for (network, added) in communities {
            merged.entry(network).or_default().extend(added);
        }
        let own: PrefixMap<Vec<Community>> = merged.into_iter().collect();
        let changes = own
            .iter()
            .map(|(network, _)| {
                let mut all: Vec<Community> =
                    own.covering(network).flat_map(|(_, own)| own).copied().collect();
                all.sort_unstable();
                all.dedup();
                (network, program.add_change(vec![Operation::AddCommunities(all)]))
            })
            .collect();
        program.rest = Rest::Export { closed, open, changes, normal: normal_priority };
        program
    }

    /// Compiles what is taken from a peer.
    pub fn import<'r>(
        rules: impl Fn(Family) -> Vec<&'r FilterRule>,
        facts: &Facts,
        otherwise: Import,
    ) -> Self {
        let mut program = Self::of_rules(rules, facts);
        // Whoever refuses the same in other words is the same.
        program.rest = Rest::Import(Import { refused: otherwise.refused.outermost() });
        program
    }

    /// Returns what it means for the routes that this program has let in that another takes its place.
    pub(crate) fn turn_to(&self, new: &Self) -> Turn {
        match (&self.rest, &new.rest) {
            _ if self == new => Turn::Same,
            (Rest::Import(old), Rest::Import(now))
                if (&self.rules, &self.changes) == (&new.rules, &new.changes) =>
            {
                let is_refused = old.refused.iter().all(|(network, ())| now.refused.covers(network));
                // What a rule has changed can no longer be judged as it came.
                if is_refused && !self.changes_some() { Turn::Less } else { Turn::Freed }
            }
            _ => Turn::Other,
        }
    }

    /// Makes a program that lets nothing pass: it stands in for one that cannot be known.
    #[must_use]
    pub fn closed() -> Self {
        Self { rules: PerFamily::default(), rest: Rest::Nothing, changes: Vec::new() }
    }

    /// Reports whether nothing passes, whatever it is.
    pub(crate) fn is_closed(&self) -> bool {
        self.rest == Rest::Nothing && Family::ALL.into_iter().all(|family| self.rules[family].all.is_empty())
    }

    /// Decides about a route. `own` holds the blocks of this node.
    #[must_use]
    pub fn decide(&self, route: &Route<'_>, own: &PrefixSet) -> Verdict {
        if let Some(rule) = self.rules[route.prefix.family()].first(route) {
            return rule.passes.map_or(Verdict::LeaveOut, Verdict::Pass);
        }
        match &self.rest {
            Rest::Nothing => Verdict::LeaveOut,
            Rest::Import(import) if import.refused.covers(route.prefix) => Verdict::LeaveOut,
            Rest::Import(_) => Verdict::Pass(ChangeId::NONE),
            Rest::Export { closed, open, changes, normal } => {
                let passes = !closed.covers(route.prefix)
                    && match route.teller {
                        Teller::Ourselves => true,
                        Teller::Peer if own.covers_strictly(route.prefix) => {
                            metric(&route.attributes) < normal[route.prefix.family()]
                        }
                        Teller::Peer => open.covers(route.prefix),
                    };
                if !passes {
                    return Verdict::LeaveOut;
                }
                let change = changes.covering(route.prefix).next();
                Verdict::Pass(change.map_or(ChangeId::NONE, |(_, change)| *change))
            }
        }
    }

    /// Changes the attributes of a route that passes.
    pub fn apply(&self, change: ChangeId, attributes: &mut Attributes) {
        let Some(operations) = change.0.checked_sub(1).and_then(|at| self.changes.get(at as usize)) else {
            return;
        };
        for operation in operations {
            match operation {
                Operation::AddCommunities(communities) => attributes.add_communities(communities),
                Operation::Prepend(numbers) => {
                    for number in numbers.iter().rev() {
                        attributes.as_path = attributes.as_path.prepend(*number);
                    }
                }
                Operation::SetLocalPref(preference) => attributes.local_pref = Some(*preference),
            }
        }
    }

    /// Reports whether some routes are changed by it.
    pub(crate) fn changes_some(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Reports whether attributes may be what a change of this program has made of others.
    pub(crate) fn may_have_changed(&self, attributes: &Attributes) -> bool {
        self.changes.iter().any(|operations| bears(attributes, operations))
    }

    fn add_change(&mut self, operations: Vec<Operation>) -> ChangeId {
        if operations.is_empty() {
            return ChangeId::NONE;
        }
        let at = self.changes.iter().position(|held| *held == operations).unwrap_or_else(|| {
            self.changes.push(operations);
            self.changes.len() - 1
        });
        ChangeId(at as u32 + 1)
    }
}

/// Reports whether attributes are such as these steps leave behind.
fn bears(attributes: &Attributes, operations: &[Operation]) -> bool {
    let (mut preference, mut first) = (attributes.local_pref, attributes.as_path.neighbor());
    let mut carried = true;
    for operation in operations {
        match operation {
            Operation::AddCommunities(added) => carried &= added.iter().all(|one| attributes.carries(*one)),
            Operation::Prepend(numbers) => first = numbers.first().map(|number| number.get()).or(first),
            Operation::SetLocalPref(set) => preference = Some(*set),
        }
    }
    carried && preference == attributes.local_pref && first == attributes.as_path.neighbor()
}

/// The metric that a route's LOCAL_PREF stands for.
fn metric(attributes: &Attributes) -> u32 {
    METRIC_BASE.saturating_sub(attributes.local_pref.unwrap_or(0))
}

/// A program that several peers share.
#[derive(Debug, Clone)]
pub struct Policy(Arc<Program>);

impl Policy {
    /// Shares a program.
    #[must_use]
    pub fn new(program: Program) -> Self {
        Self(Arc::new(program))
    }

    /// Returns the program.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.0
    }
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Policy {}

impl PartialOrd for Policy {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Policy {
    fn cmp(&self, other: &Self) -> Ordering {
        // Most comparisons are between peers that share one.
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

/// What a session is, as far as rules ask for it.
fn is_of(peering: Peering, wanted: PeerType) -> bool {
    match wanted {
        PeerType::External => peering == Peering::External,
        PeerType::Internal => peering == Peering::Internal,
    }
}

#[cfg(test)]
mod tests;
