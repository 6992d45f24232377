//! Rules that each name networks, a protocol and ports, as the elements of one set.
//!
//! The set is the owner's and keeps its name as long as nothing else of the owner changes, so that a policy whose rules become
//! others of this form changes elements, and no rule: the kernel then has nothing to validate. When something else changes
//! with it, the set has another name, and so is another set: a packet takes the rules that were in force when it came, but
//! finds the elements that are there when it looks, and old rules that find new elements would say what neither the old nor
//! the new ones do (`nft_do_chain` and `nft_set_do_lookup` of Linux 6.18).
//!
//! No two elements hold the same address, protocol and port, as no kernel takes such; a rule that would make some stays a rule.

use std::collections::BTreeMap;

use calico_model::{Cidr, Family, Protocol};

use super::{are_a_run, ranges};
use crate::ruleset::{ChainName, Element, Elements, End, Match, Op, Rule, Set, SetKind, SetName};
use crate::sets::Sets;

/// From how many rules on a set of their own is worth it.
const WORTH_SET: usize = 3;
/// A rule that would be more elements than this stays a rule.
const MOST_ELEMENTS: usize = 64;

/// A set that a chain of its own looks at.
pub(super) struct Own {
    /// The name that rules call it by until [`name`] gives it its own.
    draft: SetName,
    word: &'static str,
    family: Family,
    set: Set,
}

/// Puts one lookup in the place of rules that can be elements of a set, wherever their order means nothing. The sets that
/// come of it are still without a name.
pub(super) fn gather(rules: &[Rule], sets: &Sets) -> (Vec<Rule>, Vec<Own>) {
    let (mut gathered, mut own) = (Vec::new(), Vec::new());
    for (place, run) in rules.chunk_by(are_a_run).enumerate() {
        let mut rest = run.to_vec();
        for end in [End::Source, End::Destination] {
            for family in Family::ALL {
                let (mut flows, mut others, mut count) = (Flows::default(), Vec::new(), 0);
                for rule in &rest {
                    match elements(rule, end, family, sets) {
                        Some(elements) if flows.add(&elements) => count += 1,
                        Some(_) | None => others.push(rule.clone()),
                    }
                }
                if count < WORTH_SET {
                    continue;
                }
                let kind = SetKind::Flow(family);
                let word = match (end, family) {
                    (End::Source, Family::V4) => "from4",
                    (End::Source, Family::V6) => "from6",
                    (End::Destination, Family::V4) => "to4",
                    (End::Destination, Family::V6) => "to6",
                };
                let draft = SetName::fixed(&format!("{word}-{place}"));
                let matches = [Match::Family(family), Match::FlowInSet(end, family, draft.clone())];
                own.push(Own { draft, word, family, set: Set { kind, elements: flows.into_elements() } });
                gathered.push(Rule::when(matches, run[0].action.clone()));
                rest = others;
            }
        }
        gathered.append(&mut rest);
    }
    (gathered, own)
}

/// Makes the sets of a chain that has these rules, each named by all that decides beside it about packets of its family.
pub(super) fn name(owner: &ChainName, rules: &mut [Rule], own: Vec<Own>, sets: &mut Sets) {
    if own.is_empty() {
        return;
    }
    let texts: Vec<String> = rules.iter().map(Rule::to_string).collect();
    let contents: Vec<(Family, String)> = own.iter().map(|own| (own.family, own.set.to_string())).collect();
    for (place, Own { draft, word, family, set }) in own.into_iter().enumerate() {
        let others = contents.iter().enumerate().filter(|(other, (of, _))| *other != place && *of == family);
        let beside = others.map(|(_, (_, content))| content).chain(&texts).map(String::as_str);
        let name = SetName::digest(word, [owner.as_str(), draft.as_str()].into_iter().chain(beside));
        for m in rules.iter_mut().flat_map(|rule| &mut rule.matches) {
            if let Match::FlowInSet(_, _, looked_at) = m
                && *looked_at == draft
            {
                looked_at.clone_from(&name);
            }
        }
        sets.out.put_set(&name, set);
    }
}

/// Networks, a protocol, and the first and last of some ports.
type Flow = (Cidr, Protocol, u16, u16);

/// Returns what a rule names, if that is networks of one end, one protocol and destination ports, and nothing else.
fn elements(rule: &Rule, wanted: End, family: Family, sets: &Sets) -> Option<Vec<Flow>> {
    let [Match::Family(of), Match::Protocol(Op::Is, protocol), rest @ ..] = rule.matches.as_slice() else {
        return None;
    };
    let (address, ports) = match rest {
        [address, Match::Port(End::Destination, Op::Is, ports)]
        | [Match::Port(End::Destination, Op::Is, ports), address] => (address, ranges(ports, sets)),
        _ => return None,
    };
    let nets = networks(address, wanted, family, sets).filter(|_| *of == family)?;
    let is_few = nets.len() * ports.len() <= MOST_ELEMENTS;
    let flow = |net: &Cidr| {
        let net = *net;
        ports.iter().map(move |(first, last)| (net, *protocol, *first, *last)).collect::<Vec<_>>()
    };
    is_few.then(|| nets.iter().flat_map(flow).collect())
}

/// Returns the networks that a match names, none inside another, if it names networks of the wanted end.
fn networks(address: &Match, wanted: End, family: Family, sets: &Sets) -> Option<Vec<Cidr>> {
    if let Match::Network(end, Op::Is, net) = address {
        return (*end == wanted).then(|| vec![*net]);
    }
    let Match::InSet(end, _, Op::Is, set) = address else { return None };
    let (_, nets) = sets.addresses(set).filter(|(selectors, _)| *end == wanted && selectors.is_empty())?;
    let apart = Set::networks(family, nets.iter().copied()).elements;
    let network = |element| if let Element::Network(net) = element { Some(net) } else { None };
    Some(apart.into_iter().filter_map(network).collect())
}

/// Flows that are all apart.
#[derive(Default)]
struct Flows(BTreeMap<Protocol, BTreeMap<Cidr, Vec<(u16, u16)>>>);

impl Flows {
    /// Adds flows that are apart from one another, unless one has something in common with what is there and is no part of it.
    fn add(&mut self, flows: &[Flow]) -> bool {
        let mut new = Vec::new();
        for flow in flows {
            match self.relation(flow) {
                Relation::Apart => new.push(flow),
                Relation::Inside => {}
                Relation::Across => return false,
            }
        }
        for (net, protocol, first, last) in new {
            self.0.entry(*protocol).or_default().entry(*net).or_default().push((*first, *last));
        }
        true
    }

    fn relation(&self, (net, protocol, first, last): &Flow) -> Relation {
        let Some(nets) = self.0.get(protocol) else { return Relation::Apart };
        let meets = |ports: &&(u16, u16)| ports.0 <= *last && *first <= ports.1;
        let mut wider = (0..=net.prefix_len())
            .filter_map(|len| nets.get(&Cidr::holding(net.addr(), len)?))
            .flat_map(|ports| ports.iter().filter(meets));
        if let Some(ports) = wider.next() {
            let is_inside = ports.0 <= *first && *last <= ports.1;
            return if is_inside { Relation::Inside } else { Relation::Across };
        }
        let mut inner = nets.range(net..).take_while(|(inner, _)| net.covers(inner));
        if inner.any(|(_, ports)| ports.iter().any(|ports| meets(&ports))) {
            return Relation::Across;
        }
        Relation::Apart
    }

    fn into_elements(self) -> Elements {
        let nets = |(protocol, nets): (Protocol, BTreeMap<Cidr, Vec<(u16, u16)>>)| {
            let element = move |(net, ports): (Cidr, Vec<(u16, u16)>)| {
                ports.into_iter().map(move |(first, last)| Element::Flow(net, protocol, first, last))
            };
            nets.into_iter().flat_map(element)
        };
        self.0.into_iter().flat_map(nets).collect()
    }
}

/// How a flow lies to those that are there.
enum Relation {
    /// It has nothing in common with any.
    Apart,
    /// It is a part of one.
    Inside,
    /// It has something in common with one.
    Across,
}
