//! Rules that each name networks, a protocol and ports, as the elements of sets: one for each thing that such rules do.
//!
//! The sets are the owner's and keep their names as long as nothing else of the owner changes, so that a policy whose rules become
//! others of this form, or do something else, changes elements, and no rule: the kernel then has nothing to validate. When
//! something else changes with a set, it has another name, and so is another set: a packet takes the rules that were in force
//! when it came, but finds the elements that are there when it looks, and old rules that find new elements would say what
//! neither the old nor the new ones do (`nft_do_chain` and `nft_set_do_lookup` of Linux 6.18).
//!
//! That holds for the policies whose rules they are, too: one that denies at the other end what it denied at this one would have
//! chains be new when elements are still the old ones, as the kernel puts ranges of several fields in place last of all
//! (`nft_set_commit_update`).
//!
//! Those that stand together change in place together. No packet is in two of them, and each does something else: one that the
//! old ones and the new ones treat alike is in the same one before and after, and in no other ever. What a packet finds between
//! is only another thing where old and new differ too.
//!
//! No two elements hold the same address, protocol and port, as no kernel takes such; a rule that would make some stays a rule.
//!
//! What may stand together takes the longer to find the more the rules lie across one another. So it is looked for only as long as
//! is fair for as many rules; what is left then stays as it is, which says the same.

use std::collections::BTreeMap;

use calico_model::{Cidr, Family, Protocol};

use super::scope::Scope;
use super::{ends, ranges};
use crate::ruleset::{Action, ChainName, Element, Elements, End, Match, Op, Rule, Set, SetKind, SetName};
use crate::sets::Sets;

/// From how many rules on sets of their own are worth it.
const WORTH_SET: usize = 3;
/// A rule that would be more elements than this stays a rule.
const MOST_ELEMENTS: usize = 64;

/// A set that a chain of its own looks at.
pub(super) struct Own {
    /// The name that rules call it by until [`name`] gives it its own.
    draft: SetName,
    word: &'static str,
    family: Family,
    /// Those that stand together.
    group: usize,
    set: Set,
}

/// Puts lookups in the place of rules that can be elements of sets, wherever they may stand together. The sets that come of it
/// are still without a name.
pub(super) fn gather(rules: &[Rule], sets: &Sets) -> (Vec<Rule>, Vec<Own>) {
    gather_within(&mut Effort::for_each(rules), rules, sets)
}

fn gather_within(effort: &mut Effort, rules: &[Rule], sets: &Sets) -> (Vec<Rule>, Vec<Own>) {
    let (mut gathered, mut own) = (Vec::new(), Vec::new());
    // A set is named by all rules.
    let naming = LOOKUP * rules.len();
    // What a packet goes on after keeps its place.
    for stretch in rules.chunk_by(|a, b| ends(a) && ends(b)) {
        let mut stretch = stretch.to_vec();
        for end in [End::Source, End::Destination] {
            for family in Family::ALL {
                let flows: Vec<_> = stretch.iter().map(|rule| elements(rule, end, family, sets)).collect();
                if flows.iter().flatten().count() < WORTH_SET {
                    continue;
                }
                effort.grant(flows.iter().flatten().map(Vec::len).sum());
                let candidate = |(rule, flows)| Candidate { scope: Scope::of(&rule, sets), rule, flows };
                let candidates = stretch.into_iter().zip(flows).map(candidate).collect();
                stretch = gather_of(candidates, (end, family), &mut own, effort, naming);
            }
        }
        gathered.append(&mut stretch);
    }
    (gathered, own)
}

/// A rule that may become elements.
struct Candidate {
    rule: Rule,
    scope: Scope,
    flows: Option<Vec<Flow>>,
}

/// Gathers what names networks of one end, of one family.
fn gather_of(
    mut left: Vec<Candidate>,
    (end, family): (End, Family),
    own: &mut Vec<Own>,
    effort: &mut Effort,
    naming: usize,
) -> Vec<Rule> {
    let word = match (end, family) {
        (End::Source, Family::V4) => "from4",
        (End::Source, Family::V6) => "from6",
        (End::Destination, Family::V4) => "to4",
        (End::Destination, Family::V6) => "to6",
    };
    let mut gathered: Vec<Rule> = Vec::new();
    while let Some(first) = left.iter().position(|candidate| candidate.flows.is_some()) {
        if !effort.spend(left.len()) {
            break;
        }
        let (flows, behind) = together(&left, effort);
        if left.len() - behind.len() < WORTH_SET {
            // They do not come past what is before the first, or past the first.
            gathered.extend(left.drain(..first.max(1)).map(|candidate| candidate.rule));
            continue;
        }
        if !effort.spend(naming) {
            break;
        }
        let group = own.len();
        for (place, (action, elements)) in flows.into_elements(&left).into_iter().enumerate() {
            let draft = SetName::fixed(&format!("{word}-{group}-{place}"));
            let matches = [Match::Family(family), Match::FlowInSet(end, family, draft.clone())];
            gathered.push(Rule::when(matches, action));
            own.push(Own { draft, word, family, group, set: Set { kind: SetKind::Flow(family), elements } });
        }
        let mut place = 0..;
        left.retain(|_| place.next().is_some_and(|place| behind.binary_search(&place).is_ok()));
    }
    gathered.extend(left.into_iter().map(|candidate| candidate.rule));
    gathered
}

/// Returns the flows of those that may be asked before all others, the first of them first, and the places of the others. One may
/// be asked before others that come before it if they do the same or no packet matches both.
fn together(candidates: &[Candidate], effort: &mut Effort) -> (Flows, Vec<usize>) {
    let (mut flows, mut behind) = (Flows::default(), Vec::new());
    let mut scopes_behind: BTreeMap<&Action, Vec<&Scope>> = BTreeMap::new();
    for (place, candidate) in candidates.iter().enumerate() {
        let Candidate { rule: Rule { action, .. }, scope, flows: own } = candidate;
        let mut others = scopes_behind.iter().filter(|(other, _)| **other != action).flat_map(|(_, all)| all);
        let stands_with = own.as_ref().is_some_and(|own| {
            others.all(|other| effort.spend(1) && other.is_apart_from(scope)) && flows.add(own, place, effort)
        });
        if !stands_with {
            behind.push(place);
            scopes_behind.entry(action).or_default().push(scope);
        }
    }
    (flows, behind)
}

/// What may still be spent on finding what may stand together. One is what it takes to compare two rules.
#[derive(Debug)]
struct Effort {
    left: usize,
    /// What each thing that rules name adds to it.
    each: usize,
}

/// The effort that a rule is worth, and each thing that it names.
const WORTH: usize = 256;
/// The effort of looking something up among flows, or of a rule in the name of a set.
const LOOKUP: usize = 16;

impl Effort {
    fn for_each(rules: &[Rule]) -> Self {
        Self { left: WORTH * rules.len(), each: WORTH }
    }

    fn grant(&mut self, things: usize) {
        self.left += self.each * things;
    }

    /// Returns whether there was so much left.
    fn spend(&mut self, effort: usize) -> bool {
        let left = self.left.checked_sub(effort);
        self.left = left.unwrap_or_default();
        left.is_some()
    }
}

/// Makes the sets of a chain that has these rules, each named by all that decides about packets of its family, but for those that
/// stand together with it, and by what is said `beside` the rules.
pub(super) fn name(owner: &ChainName, beside: &[String], rules: &mut [Rule], own: Vec<Own>, sets: &mut Sets) {
    let texts: Vec<String> = rules.iter().map(Rule::to_string).collect();
    let contents: Vec<_> = own.iter().map(|own| (own.family, own.group, own.set.to_string())).collect();
    for Own { draft, word, family, group, set } in own {
        let others = contents.iter().filter(|(of, other, _)| *of == family && *other != group);
        let rest = others.map(|(_, _, content)| content).chain(&texts).chain(beside).map(String::as_str);
        let name = SetName::digest(word, [owner.as_str(), draft.as_str()].into_iter().chain(rest));
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

/// Flows that are all apart, each with the place of the rule that names it.
#[derive(Default)]
struct Flows(BTreeMap<Protocol, BTreeMap<Cidr, Ports>>);

/// Ranges of ports that are all apart: of each the first, the last, and the place of the rule that names them.
type Ports = BTreeMap<u16, (u16, usize)>;

/// Returns the last range that has something in common with one.
fn meeting(ports: &Ports, first: u16, last: u16) -> Option<(u16, u16)> {
    let (from, (to, _)) = ports.range(..=last).next_back()?;
    (first <= *to).then_some((*from, *to))
}

impl Flows {
    /// Adds flows that are apart from one another, unless one has something in common with what is there and is no part of it:
    /// what is there was asked first.
    fn add(&mut self, flows: &[Flow], place: usize, effort: &mut Effort) -> bool {
        let mut new = Vec::new();
        for flow in flows {
            match self.relation(flow, effort) {
                Relation::Apart => new.push(flow),
                Relation::Inside => {}
                Relation::Across => return false,
            }
        }
        for (net, protocol, first, last) in new {
            let ports = self.0.entry(*protocol).or_default().entry(*net).or_default();
            ports.insert(*first, (*last, place));
        }
        true
    }

    /// Without the effort to find out, flows lie across one another.
    fn relation(&self, (net, protocol, first, last): &Flow, effort: &mut Effort) -> Relation {
        if !effort.spend(LOOKUP) {
            return Relation::Across;
        }
        let Some(nets) = self.0.get(protocol) else { return Relation::Apart };
        let mut wider = (0..=net.prefix_len())
            .filter_map(|len| nets.get(&Cidr::holding(net.addr(), len)?))
            .filter_map(|ports| meeting(ports, *first, *last));
        if let Some((from, to)) = wider.next() {
            let is_inside = from <= *first && *last <= to;
            return if is_inside { Relation::Inside } else { Relation::Across };
        }
        let mut inner = nets.range(net..).take_while(|(inner, _)| net.covers(inner));
        if inner.any(|(_, ports)| !effort.spend(1) || meeting(ports, *first, *last).is_some()) {
            return Relation::Across;
        }
        Relation::Apart
    }

    /// Returns the elements by what the rules do that name them.
    fn into_elements(self, rules: &[Candidate]) -> BTreeMap<Action, Elements> {
        let mut elements: BTreeMap<Action, Elements> = BTreeMap::new();
        for (protocol, nets) in self.0 {
            for (net, ports) in nets {
                for (first, (last, place)) in ports {
                    let own = elements.entry(rules[place].rule.action.clone()).or_default();
                    own.insert(Element::Flow(net, protocol, first, last));
                }
            }
        }
        elements
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

#[cfg(test)]
mod tests;
