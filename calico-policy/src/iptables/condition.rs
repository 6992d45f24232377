//! What a rule's matches become: alternatives, each of matches that iptables can hold in one rule.
//!
//! Alternatives of one rule never hold for the same packet, so that whatever the rule does is done once.

use std::collections::BTreeSet;

use calico_model::{Family, Protocol};

use super::lower::Lowering;
use super::program::{Key, Match};
use crate::packet::PortProtocol;
use crate::ruleset::{self, Bound, Element, End, Interface, Op, PortSet, SetName};

/// Conditions that must all hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Condition {
    /// Those that one rule holds.
    pub(super) matches: Vec<Match>,
    /// Those for which that rule has no place left.
    pub(super) more: Vec<Match>,
    /// That an interface is one of a set, or none of it.
    pub(super) interfaces: Vec<(Bound, Op, SetName)>,
}

/// What one rule of iptables holds at most.
const MULTIPORT: usize = 15;

impl Lowering<'_> {
    /// Returns the conditions of which one holds exactly when all matches do; none when a packet of the family cannot be so.
    pub(super) fn conditions(&mut self, matches: &[ruleset::Match]) -> Vec<Condition> {
        let Some(protocols) = Protocols::of(matches, self.family) else { return Vec::new() };
        let mut alternatives = vec![Condition::default()];
        for protocol in protocols.words() {
            alternatives[0].put(protocol);
        }
        if let Some(each) = protocols.each(matches) {
            alternatives = each
                .into_iter()
                .map(|protocol| {
                    let mut condition = Condition::default();
                    condition.put(Match::Protocol(Op::Is, protocol));
                    condition
                })
                .collect();
        }
        for m in matches {
            if !self.meet(m, matches, &mut alternatives) {
                return Vec::new();
            }
        }
        alternatives
    }

    /// Adds what a match asks to every alternative; `false` when nothing of the family can be so.
    fn meet(
        &mut self,
        m: &ruleset::Match,
        all: &[ruleset::Match],
        alternatives: &mut Vec<Condition>,
    ) -> bool {
        let family = self.family;
        match m {
            ruleset::Match::Family(of) => *of == family,
            // Settled already.
            ruleset::Match::Protocol(..) => true,
            ruleset::Match::Network(_, op, net) if net.prefix_len() == 0 => {
                net.family() == family && *op == Op::Is
            }
            ruleset::Match::Network(end, op, net) => {
                net.family() == family && put(alternatives, Match::Network(*end, *op, *net))
            }
            ruleset::Match::InSet(end, of, op, set) => {
                *of == family && self.look_up(*op, set, Key::Address(*end), alternatives)
            }
            ruleset::Match::SocketInSet(end, of, op, set) => {
                *of == family && self.look_up(*op, set, Key::Socket(*end), alternatives)
            }
            ruleset::Match::FlowInSet(end, of, set) => {
                *of == family && self.look_up(Op::Is, set, Key::Flow(*end), alternatives)
            }
            ruleset::Match::SourceAllowed(of, set) => {
                *of == family && self.look_up(Op::Is, set, Key::SourceAndInterface, alternatives)
            }
            ruleset::Match::Port(end, op, ports) => self.ports(*end, *op, ports, alternatives),
            ruleset::Match::IcmpType(of, op, first, last) => {
                *of == family && icmp_types(family, *op, *first, *last, alternatives)
            }
            ruleset::Match::IcmpCode(of, op, code) => {
                *of == family && icmp_code(family, *op, *code, all, alternatives)
            }
            ruleset::Match::Interface(bound, op, Interface::Prefix(name)) => {
                put(alternatives, Match::Prefix(*bound, *op, name.clone()))
            }
            ruleset::Match::Interface(bound, op, Interface::Named(name)) => {
                put(alternatives, Match::Interface(*bound, *op, name.clone()))
            }
            ruleset::Match::Interface(bound, op, Interface::InSet(set)) => {
                alternatives.iter_mut().for_each(|of| of.interfaces.push((*bound, *op, set.clone())));
                true
            }
            ruleset::Match::Established => put(alternatives, Match::Established),
            ruleset::Match::Withdrawn(op) => put(alternatives, Match::Withdrawn(*op)),
            ruleset::Match::TrackedOrInvalid => put(alternatives, Match::TrackedOrInvalid),
            ruleset::Match::Accepted => put(alternatives, Match::Mark(self.options.marks.early)),
            ruleset::Match::Local => put(alternatives, Match::Local),
            ruleset::Match::FromLocal => put(alternatives, Match::FromLocal),
            ruleset::Match::Translated => put(alternatives, Match::Translated),
            ruleset::Match::Anycast => put(alternatives, Match::Anycast),
        }
    }

    fn look_up(&mut self, op: Op, set: &SetName, key: Key, alternatives: &mut [Condition]) -> bool {
        let Some(kind) = self.set(set).map(|set| set.kind) else { return false };
        // What holds no such elements matches nothing.
        if super::IpsetKind::of(kind).is_none_or(|kind| kind.family() != self.family) {
            return false;
        }
        let name = self.use_set(set);
        put(alternatives, Match::Set(op, name, key))
    }

    fn ports(&mut self, end: End, op: Op, ports: &PortSet, alternatives: &mut Vec<Condition>) -> bool {
        let ranges = match ports {
            PortSet::Range(first, last) => vec![(*first, *last)],
            PortSet::InSet(set) => {
                let Some(set) = self.set(set) else { return false };
                let range = |e: &Element| {
                    if let Element::Ports(first, last) = e { Some((*first, *last)) } else { None }
                };
                set.elements.iter().filter_map(range).collect()
            }
        };
        match (op, ranges.as_slice()) {
            (Op::Is, []) => false,
            (Op::IsNot, []) => true,
            (_, [(0, u16::MAX)]) => op == Op::Is,
            // The nft variant gives such a rule back as what is left.
            (Op::IsNot, [(0, last @ 1..)]) => put(alternatives, Match::Port(end, Op::Is, last + 1, u16::MAX)),
            (_, [(first, last)]) => put(alternatives, Match::Port(end, op, *first, *last)),
            (Op::IsNot, ranges) => {
                for chunk in chunks(ranges) {
                    put(alternatives, Match::Ports(end, op, chunk));
                }
                true
            }
            (Op::Is, ranges) => {
                let each = chunks(ranges).into_iter().map(|chunk| Match::Ports(end, op, chunk)).collect();
                split(alternatives, each)
            }
        }
    }
}

/// Divides ranges into as many as one rule holds; a range of several takes two places.
fn chunks(ranges: &[(u16, u16)]) -> Vec<Vec<(u16, u16)>> {
    let mut chunks: Vec<(usize, Vec<(u16, u16)>)> = Vec::new();
    for (first, last) in ranges {
        let places = if first == last { 1 } else { 2 };
        match chunks.last_mut() {
            Some((taken, chunk)) if *taken + places <= MULTIPORT => {
                *taken += places;
                chunk.push((*first, *last));
            }
            _ => chunks.push((places, vec![(*first, *last)])),
        }
    }
    chunks.into_iter().map(|(_, chunk)| chunk).collect()
}

fn icmp_types(family: Family, op: Op, first: u8, last: u8, alternatives: &mut Vec<Condition>) -> bool {
    let types = (first..=last).map(|icmp_type| Match::Icmp(family, op, Some(icmp_type), None));
    match op {
        Op::Is => split(alternatives, types.collect()),
        Op::IsNot => {
            for m in types {
                put(alternatives, m);
            }
            true
        }
    }
}

/// A code belongs to a type. Of IPv6 a code alone is asked for each type, as nothing else finds it behind extension headers.
fn icmp_code(
    family: Family,
    op: Op,
    code: u8,
    all: &[ruleset::Match],
    alternatives: &mut Vec<Condition>,
) -> bool {
    let only = all.iter().find_map(|m| {
        if let ruleset::Match::IcmpType(_, Op::Is, first, last) = m {
            (first == last).then_some(*first)
        } else {
            None
        }
    });
    match (only, family) {
        (Some(icmp_type), _) => put(alternatives, Match::Icmp(family, op, Some(icmp_type), Some(code))),
        (None, Family::V4) => put(alternatives, Match::Icmp(family, op, None, Some(code))),
        (None, Family::V6) if op == Op::Is => {
            let each = (0..=u8::MAX).map(|icmp_type| Match::Icmp(family, op, Some(icmp_type), Some(code)));
            split(alternatives, each.collect())
        }
        (None, Family::V6) => {
            for icmp_type in 0..=u8::MAX {
                put(alternatives, Match::Icmp(family, op, Some(icmp_type), Some(code)));
            }
            true
        }
    }
}

/// Adds a match to every alternative. It can hold, so it says `true`.
fn put(alternatives: &mut [Condition], m: Match) -> bool {
    alternatives.iter_mut().for_each(|condition| condition.put(m.clone()));
    true
}

/// Makes one alternative of each with each of some matches, of which no two hold at once.
fn split(alternatives: &mut Vec<Condition>, each: Vec<Match>) -> bool {
    let with = |condition: &Condition, m: &Match| {
        let mut condition = condition.clone();
        condition.put(m.clone());
        condition
    };
    *alternatives = alternatives.iter().flat_map(|of| each.iter().map(move |m| with(of, m))).collect();
    true
}

impl Condition {
    pub(super) fn put(&mut self, m: Match) {
        let slot = m.slot();
        let taken = slot.is_some() && self.matches.iter().any(|other| other.slot() == slot);
        match (taken, m) {
            (true, Match::Network(end, op, net)) => self.matches.push(Match::Range(end, op, net)),
            (true, m) => self.more.push(m),
            (false, m) => self.matches.push(m),
        }
    }
}

/// What protocols a rule is for.
enum Protocols {
    One(Protocol),
    NoneOf(BTreeSet<Protocol>),
}

impl Protocols {
    /// `None` when no packet can be of them.
    fn of(matches: &[ruleset::Match], family: Family) -> Option<Self> {
        let (mut one, mut none) = (None, BTreeSet::new());
        for m in matches {
            match m {
                ruleset::Match::Protocol(Op::Is, protocol) if one.is_some_and(|one| one != *protocol) => {
                    return None;
                }
                ruleset::Match::Protocol(Op::Is, protocol) => one = Some(*protocol),
                ruleset::Match::Protocol(Op::IsNot, protocol) => drop(none.insert(*protocol)),
                ruleset::Match::IcmpType(..) | ruleset::Match::IcmpCode(..) => {
                    let icmp = crate::packet::icmp_of(family);
                    if one.is_some_and(|one| one != icmp) {
                        return None;
                    }
                    one = Some(icmp);
                }
                ruleset::Match::Family(_)
                | ruleset::Match::Network(..)
                | ruleset::Match::InSet(..)
                | ruleset::Match::SocketInSet(..)
                | ruleset::Match::FlowInSet(..)
                | ruleset::Match::Port(..)
                | ruleset::Match::Interface(..)
                | ruleset::Match::SourceAllowed(..)
                | ruleset::Match::Established
                | ruleset::Match::Withdrawn(_)
                | ruleset::Match::TrackedOrInvalid
                | ruleset::Match::Accepted
                | ruleset::Match::Local
                | ruleset::Match::FromLocal
                | ruleset::Match::Translated
                | ruleset::Match::Anycast => {}
            }
        }
        match one {
            // Zero stands for any protocol there, and no packet that goes through has it.
            Some(one) => (!none.contains(&one) && one.number() != 0).then_some(Self::One(one)),
            None => Some(Self::NoneOf(none.into_iter().filter(|protocol| protocol.number() != 0).collect())),
        }
    }

    fn words(&self) -> Vec<Match> {
        match self {
            Self::One(protocol) => vec![Match::Protocol(Op::Is, *protocol)],
            Self::NoneOf(none) => none.iter().map(|protocol| Match::Protocol(Op::IsNot, *protocol)).collect(),
        }
    }

    /// The protocols that have what the rule asks for, when it looks at ports: only then `Some`. What is in a set of sockets is of
    /// one of them anyway.
    fn each(&self, matches: &[ruleset::Match]) -> Option<Vec<Protocol>> {
        let asks = |m: &ruleset::Match| {
            matches!(m, ruleset::Match::Port(..) | ruleset::Match::SocketInSet(_, _, Op::IsNot, _))
        };
        if !matches.iter().any(asks) {
            return None;
        }
        let mut with_ports = PortProtocol::ALL.map(PortProtocol::protocol).to_vec();
        with_ports.retain(|protocol| match self {
            Self::One(one) => one == protocol,
            Self::NoneOf(none) => !none.contains(protocol),
        });
        Some(with_ports)
    }
}
