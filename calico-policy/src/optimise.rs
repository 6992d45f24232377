//! The same meaning in fewer steps.
//!
//! A list of policies is a list of rules, and a kernel that asks one after the other needs the longer the more there are. Three
//! steps make the first packet of a flow cheap whatever the number of policies, and change no verdict:
//!
//! 1. **Merge.** Among neighbours that do the same and end there, order means nothing. Those that differ in one thing only, the
//!    addresses or the ports of one end, become one rule that looks it up in a set.
//! 2. **Gather.** Rules that name networks, a protocol and ports become the elements of one set for each thing that they do, as far
//!    as they can be asked before the others.
//! 3. **Dispatch.** Rules that each name a protocol and a destination port are found by one lookup of both, which leads to the
//!    chain of the rules for that port, in their order.
//!
//! What is in a set that several selectors fill is kept once more for each such set. So they are merged only where there are
//! many of them, and each names the value of some label: what selects broadly stays in a set of its own.

mod flows;
mod scope;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use calico_model::selector::{Restriction, Restrictions};
use calico_model::{Cidr, Protocol, Selector};

use crate::ruleset::{
    Action, Chain, ChainName, Element, End, Match, Op, PortSet, Rule, SetKind, SetName, VerdictMap,
};
use crate::sets::Sets;

/// Whether rules are laid out as they are written, or so that packets pass quickly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// One rule after the other.
    AsWritten,
    /// Merged and dispatched.
    #[default]
    Optimised,
}

/// From how many on it is worth a set that they share with nobody to look selectors up at once.
const WORTH_SHARED_SET: usize = 8;
/// From how many rules and ports on a lookup of the port is worth it.
const WORTH_DISPATCH: usize = 8;
const WORTH_PORTS: usize = 4;
/// A rule for more ports than this is not written down for each of them.
const MOST_PORTS: usize = 16;

/// Returns rules that decide as these do, for the chain `owner`. What else the policies or profiles say that they come from is
/// `beside` them.
pub(crate) fn optimise(
    owner: &ChainName,
    rules: Vec<Rule>,
    beside: impl FnOnce() -> Vec<String>,
    sets: &mut Sets,
) -> Vec<Rule> {
    let mut segments: Vec<Vec<(Rule, Option<Keyed>)>> = Vec::new();
    let (merged, own) = flows::gather(&merged(rules, sets), sets);
    // Where order means nothing, those that can be dispatched stand together.
    let together = merged.chunk_by(are_a_run).flat_map(|run| {
        let all = run.iter().map(|rule| (rule.clone(), keyed(rule, sets)));
        let (first, last): (Vec<_>, Vec<_>) = all.partition(|(_, keyed)| keyed.is_some());
        first.into_iter().chain(last)
    });
    for (rule, keyed) in together {
        match segments.last_mut() {
            Some(last) if last[0].1.is_some() == keyed.is_some() => last.push((rule, keyed)),
            _ => segments.push(vec![(rule, keyed)]),
        }
    }
    let mut rules = Vec::new();
    for segment in segments {
        rules.extend(dispatched(segment, sets));
    }
    if !own.is_empty() {
        flows::name(owner, &beside(), &mut rules, own, sets);
    }
    rules
}

/// What of a rule decides where a dispatch leads.
struct Keyed {
    keys: Vec<Element>,
    /// The rule without that.
    rest: Rule,
}

/// `None` for a rule that names no port, or too many, or whose return would not leave the owner.
fn keyed(rule: &Rule, sets: &Sets) -> Option<Keyed> {
    if rule.action == Action::Return {
        return None;
    }
    let protocol = |m: &Match| if let Match::Protocol(Op::Is, protocol) = m { Some(*protocol) } else { None };
    let ports = |m: &Match| {
        if let Match::Port(End::Destination, Op::Is, ports) = m { Some(ports.clone()) } else { None }
    };
    let protocol: Protocol = rule.matches.iter().find_map(protocol)?;
    let mut named = rule.matches.iter().filter_map(ports);
    let ranges = ranges(&named.next()?, sets);
    let count: usize = ranges.iter().map(|(first, last)| usize::from(last - first) + 1).sum();
    if named.next().is_some() || count > MOST_PORTS {
        return None;
    }
    let keys = ranges.iter().flat_map(|(first, last)| *first..=*last);
    let rest = rule
        .matches
        .iter()
        .filter(|m| !matches!(m, Match::Protocol(Op::Is, _) | Match::Port(End::Destination, Op::Is, _)));
    Some(Keyed {
        keys: keys.map(|port| Element::ProtocolPort(protocol, port)).collect(),
        rest: Rule { matches: rest.cloned().collect(), action: rule.action.clone() },
    })
}

/// Puts one lookup in the place of neighbours that all name ports, if it is worth it.
///
/// The map is named by what is in it: a packet that still runs the rules of before finds the map of before.
fn dispatched(segment: Vec<(Rule, Option<Keyed>)>, sets: &mut Sets) -> Vec<Rule> {
    let count = segment.len();
    let (rules, keyed): (Vec<Rule>, Vec<Option<Keyed>>) = segment.into_iter().unzip();
    let mut by_key: BTreeMap<Element, Vec<Rule>> = BTreeMap::new();
    for Keyed { keys, rest } in keyed.into_iter().flatten() {
        for key in keys {
            by_key.entry(key).or_default().push(rest.clone());
        }
    }
    if count < WORTH_DISPATCH || by_key.len() < WORTH_PORTS {
        return rules;
    }
    let mut elements = BTreeMap::new();
    for (key, rules) in by_key {
        let rules = merged(rules, sets);
        let texts: Vec<String> = rules.iter().map(Rule::to_string).collect();
        let chain = ChainName::digest("port", texts.iter().map(String::as_str));
        sets.put_chain(&chain, Chain { base: None, rules });
        elements.insert(key, chain);
    }
    let texts: Vec<String> = elements.iter().map(|(key, chain)| format!("{key} {chain}")).collect();
    let map = SetName::digest("ports-of", texts.iter().map(String::as_str));
    sets.out.put_map(&map, &VerdictMap { kind: SetKind::ProtocolPort, elements });
    vec![Rule::always(Action::DispatchPort(End::Destination, map))]
}

/// Merges what differs in one thing only, among neighbours whose order means nothing.
fn merged(rules: Vec<Rule>, sets: &mut Sets) -> Vec<Rule> {
    let mut merged = Vec::new();
    for run in rules.chunk_by(are_a_run) {
        let mut run = run.to_vec();
        for field in [
            Field::Address(End::Source),
            Field::Address(End::Destination),
            Field::Port(End::Source),
            Field::Port(End::Destination),
        ] {
            // The first time, rules that are the same become one.
            let is_asked =
                field.is_first() || run.iter().any(|rule| rule.matches.iter().any(|m| field.is(m)));
            if run.len() > 1 && is_asked {
                run = merged_by(field, run, sets);
            }
        }
        merged.extend(run);
    }
    merged
}

/// Reports whether it means nothing which of two neighbours is asked first: they do the same, and end there.
fn are_a_run(a: &Rule, b: &Rule) -> bool {
    ends(a) && a.action == b.action
}

/// Reports whether a packet that a rule matches goes no further in its chain.
fn ends(rule: &Rule) -> bool {
    matches!(rule.action, Action::Accept | Action::Drop | Action::Reject | Action::Return | Action::Goto(_))
}

/// What rules may differ in.
#[derive(Clone, Copy)]
enum Field {
    Address(End),
    Port(End),
}

impl Field {
    fn is_first(self) -> bool {
        matches!(self, Field::Address(End::Source))
    }

    fn is(self, m: &Match) -> bool {
        match self {
            Field::Address(wanted) => {
                matches!(m, Match::Network(end, Op::Is, _) | Match::InSet(end, _, Op::Is, _) if *end == wanted)
            }
            Field::Port(wanted) => matches!(m, Match::Port(end, Op::Is, _) if *end == wanted),
        }
    }
}

fn merged_by(field: Field, rules: Vec<Rule>, sets: &mut Sets) -> Vec<Rule> {
    let mut merged = Vec::new();
    for group in groups(field, &rules) {
        let first = &rules[group[0]];
        if group.len() == 1 {
            merged.push(first.clone());
            continue;
        }
        let own: Option<Vec<Match>> =
            group.iter().map(|place| rules[*place].matches.iter().find(|m| field.is(m)).cloned()).collect();
        let unions = match (own, field) {
            // One that does not look at it at all says it all.
            (None, _) => vec![None],
            (Some(own), Field::Address(end)) => any_address(end, &own, sets).into_iter().map(Some).collect(),
            (Some(own), Field::Port(end)) => vec![Some(any_port(end, &own, sets))],
        };
        merged.extend(unions.into_iter().map(|union| {
            let rest = first.matches.iter().filter(|m| !field.is(m)).cloned();
            Rule { matches: rest.chain(union).collect(), action: first.action.clone() }
        }));
    }
    merged
}

/// Returns the places of rules that differ in nothing else, together. One that names the field more than once is alone.
fn groups(field: Field, rules: &[Rule]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut places: HashMap<Vec<&Match>, usize> = HashMap::new();
    for (place, rule) in rules.iter().enumerate() {
        let rest: Vec<&Match> = rule.matches.iter().filter(|m| !field.is(m)).collect();
        if rest.len() + 1 < rule.matches.len() {
            groups.push(vec![place]);
            continue;
        }
        match places.get(&rest) {
            Some(group) => groups[*group].push(place),
            None => {
                places.insert(rest, groups.len());
                groups.push(vec![place]);
            }
        }
    }
    groups
}

/// Returns as few matches as it is worth that together hold for any of these.
fn any_address(end: End, own: &[Match], sets: &mut Sets) -> Vec<Match> {
    let (mut nets, mut selectors, mut others) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut family = None;
    for m in own {
        if let Match::Network(_, _, net) = m {
            family = Some(net.family());
            nets.insert(*net);
        } else if let Match::InSet(_, of, _, set) = m {
            family = Some(*of);
            match sets.addresses(set) {
                Some((some, more)) if some.iter().all(names_a_value) => {
                    nets.extend(more.iter().copied());
                    selectors.extend(some.iter().map(|selector| (selector.clone(), m.clone())));
                }
                Some(_) | None => drop(others.insert(m.clone())),
            }
        }
    }
    let Some(family) = family else { return own.to_vec() };
    let mut shared = BTreeSet::new();
    if selectors.len() >= WORTH_SHARED_SET {
        shared.extend(selectors.into_iter().map(|(selector, _)| selector));
    } else {
        others.extend(selectors.into_iter().map(|(_, m)| m));
    }
    let single: Option<Cidr> =
        if nets.len() == 1 && shared.is_empty() { nets.first().copied() } else { None };
    let mut unions = Vec::new();
    if let Some(net) = single {
        unions.push(Match::Network(end, Op::Is, net));
    } else if !nets.is_empty() || !shared.is_empty() {
        unions.push(Match::InSet(end, family, Op::Is, sets.any_of(family, shared, nets)));
    }
    unions.extend(others);
    unions
}

/// Reports whether a selector matches only what has a label of some value.
fn names_a_value(selector: &Selector) -> bool {
    match selector.restrictions() {
        Restrictions::Impossible => true,
        Restrictions::Labels(labels) => {
            labels.values().any(|restriction| matches!(restriction, Restriction::OneOf(_)))
        }
    }
}

fn any_port(end: End, own: &[Match], sets: &mut Sets) -> Match {
    let ports = own.iter().filter_map(|m| if let Match::Port(_, _, ports) = m { Some(ports) } else { None });
    let all: Vec<(u16, u16)> = ports.flat_map(|ports| ranges(ports, sets)).collect();
    Match::Port(end, Op::Is, sets.port_set(&all))
}

fn ranges(ports: &PortSet, sets: &Sets) -> Vec<(u16, u16)> {
    match ports {
        PortSet::Range(first, last) => vec![(*first, *last)],
        PortSet::InSet(set) => {
            let elements = sets.out.set(set).map(|set| &set.elements).into_iter().flatten();
            elements
                .filter_map(
                    |e| if let Element::Ports(first, last) = e { Some((*first, *last)) } else { None },
                )
                .collect()
        }
    }
}
