//! A packet run through a program, as a kernel would run it.

use std::net::IpAddr;

use calico_model::{Cidr, InterfaceName};

use super::program::{Key, Match, Program, Rule, Table, TableName, Target};
use crate::packet::{ConnectionState, Outcome, Packet, Path, SourceNat, Transport};
use crate::ruleset::{Bound, ChainName, Element, End, Hook, SetName};

/// Returns what becomes of a packet that nobody has marked. It equals [`simulate`](crate::simulate()) of the ruleset that the
/// program was lowered from.
#[must_use]
pub fn simulate(program: &Program, packet: &Packet) -> Outcome {
    simulate_marked(program, packet, 0)
}

/// The same of a packet that comes in with a mark. Whatever the mark, the outcome is the same.
#[must_use]
pub fn simulate_marked(program: &Program, packet: &Packet, mark: u32) -> Outcome {
    let mut run = Run { program, packet, mark, state: packet.state, source_nat: SourceNat::Keep };
    for (table, hook) in way(&packet.path) {
        let Some(held) = program.rules.tables.get(&(packet.family(), *table)) else { continue };
        if *table == TableName::Nat && run.state != ConnectionState::New {
            continue;
        }
        let Some(entry) = held.hooks.get(hook) else { continue };
        let before = matches!(hook, Hook::Prerouting | Hook::Output)
            && matches!(table, TableName::Raw | TableName::Mangle);
        let place = Place { table: held, hook: *hook, translated: !before };
        match run.rules(std::slice::from_ref(&entry.rule), place) {
            Some(Fate::Dropped) => return Outcome::DROPPED,
            Some(Fate::Rejected) => return Outcome::REJECTED,
            Some(Fate::Accepted) | None => {}
        }
    }
    Outcome { source_nat: run.source_nat, ..Outcome::ALLOWED }
}

/// The tables at the hooks on a packet's way, in order.
fn way(path: &Path) -> &'static [(TableName, Hook)] {
    use Hook::{Forward, Input, Output, Postrouting, Prerouting};
    use TableName::{Filter, Mangle, Nat, Raw};
    match path {
        Path::ToHost { .. } => {
            &[(Raw, Prerouting), (Mangle, Prerouting), (Nat, Prerouting), (Mangle, Input), (Filter, Input)]
        }
        Path::Forward { .. } => &[
            (Raw, Prerouting),
            (Mangle, Prerouting),
            (Nat, Prerouting),
            (Mangle, Forward),
            (Filter, Forward),
            (Mangle, Postrouting),
            (Nat, Postrouting),
        ],
        Path::FromHost { .. } => &[
            (Raw, Output),
            (Mangle, Output),
            (Nat, Output),
            (Filter, Output),
            (Mangle, Postrouting),
            (Nat, Postrouting),
        ],
    }
}

/// What a table did with a packet.
#[derive(Clone, Copy)]
enum Fate {
    /// It lets it pass.
    Accepted,
    /// It is gone.
    Dropped,
    /// It is gone, and its sender is told.
    Rejected,
}

#[derive(Clone, Copy)]
struct Place<'p> {
    table: &'p Table,
    hook: Hook,
    /// Whether the destination is translated here.
    translated: bool,
}

struct Run<'r> {
    program: &'r Program,
    packet: &'r Packet,
    mark: u32,
    state: ConnectionState,
    source_nat: SourceNat,
}

impl Run<'_> {
    /// Runs rules; `None` when none of them decides for the whole table.
    fn rules(&mut self, rules: &[Rule], place: Place<'_>) -> Option<Fate> {
        for rule in rules {
            if !rule.matches.iter().all(|m| self.holds(m, place)) {
                continue;
            }
            match &rule.target {
                Target::Accept => return Some(Fate::Accepted),
                Target::Drop => return Some(Fate::Dropped),
                Target::Reject(_) => return Some(Fate::Rejected),
                Target::Return => return None,
                Target::Jump(chain) => {
                    if let decided @ Some(_) = self.chain(chain, place) {
                        return decided;
                    }
                }
                Target::Goto(chain) => return self.chain(chain, place),
                Target::Log(_) => {}
                Target::Notrack => self.state = ConnectionState::Untracked,
                Target::Mark { set, clear } => self.mark = self.mark & !clear | set,
                Target::SourceNat(new) => {
                    self.source_nat = SourceNat::Change(*new);
                    return Some(Fate::Accepted);
                }
            }
        }
        None
    }

    /// No kernel takes a rule that leads to a chain that is not there: such a program drops.
    fn chain(&mut self, name: &ChainName, place: Place<'_>) -> Option<Fate> {
        match place.table.chains.get(name) {
            Some(rules) => self.rules(rules, place),
            None => Some(Fate::Dropped),
        }
    }

    fn holds(&self, m: &Match, place: Place<'_>) -> bool {
        let packet = self.packet;
        let interface = |bound: &Bound| match bound {
            Bound::In => packet.path.from().map(InterfaceName::as_str),
            Bound::Out if place.hook == Hook::Output => packet.path.first().map(InterfaceName::as_str),
            Bound::Out => packet.path.to().map(InterfaceName::as_str),
        };
        match m {
            Match::Network(end, op, net) | Match::Range(end, op, net) => {
                op.says(net.contains(self.addr(*end, place)))
            }
            Match::Interface(bound, op, name) => op.says(interface(bound) == Some(name.as_str())),
            Match::Prefix(bound, op, prefix) => {
                op.says(interface(bound).is_some_and(|name| name.starts_with(prefix.as_str())))
            }
            Match::Protocol(op, protocol) => op.says(packet.protocol() == *protocol),
            Match::Port(end, op, first, last) => {
                self.port(*end, place).is_some_and(|port| op.says((*first..=*last).contains(&port)))
            }
            Match::Ports(end, op, ranges) => self.port(*end, place).is_some_and(|port| {
                op.says(ranges.iter().any(|(first, last)| (*first..=*last).contains(&port)))
            }),
            Match::Icmp(family, op, icmp_type, code) => {
                let Transport::Icmp { icmp_type: t, code: c } = packet.transport else { return false };
                let is = icmp_type.is_none_or(|wanted| wanted == t) && code.is_none_or(|wanted| wanted == c);
                packet.family() == *family && op.says(is)
            }
            Match::Set(op, set, key) => {
                self.element(*key, place).is_some_and(|of| op.says(self.is_in(&of, set)))
            }
            Match::Established => {
                matches!(self.state, ConnectionState::Established | ConnectionState::Withdrawn)
            }
            Match::Withdrawn(op) => op.says(self.state == ConnectionState::Withdrawn),
            Match::TrackedOrInvalid => {
                !matches!(self.state, ConnectionState::New | ConnectionState::Untracked)
            }
            Match::Local => {
                let to_all = packet.destination.is_multicast();
                matches!(packet.path, Path::ToHost { .. }) && !to_all
            }
            Match::FromLocal => matches!(packet.path, Path::FromHost { .. }),
            Match::Translated => packet.original_destination.is_some(),
            Match::Anycast => false,
            Match::Mark(bits) => self.mark & bits == *bits,
        }
    }

    /// What is looked up in a set.
    fn element(&self, key: Key, place: Place<'_>) -> Option<Element> {
        match key {
            Key::Address(end) => Some(Element::Network(Cidr::host(self.addr(end, place)))),
            Key::Socket(end) => {
                let port = self.port(end, place)?;
                Some(Element::Socket(self.addr(end, place), self.packet.protocol(), port))
            }
            Key::Flow(end) => {
                let (addr, port) = (self.addr(end, place), self.port(End::Destination, place)?);
                Some(Element::Flow(Cidr::host(addr), self.packet.protocol(), port, port))
            }
            Key::SourceAndInterface => {
                Some(Element::interface_address(self.packet.path.from()?.clone(), self.packet.source))
            }
        }
    }

    fn is_in(&self, element: &Element, set: &SetName) -> bool {
        let Some(set) = self.program.sets.get(set) else { return false };
        match element {
            // Of networks that do not overlap, only the last that does not begin after it can hold it.
            Element::Network(host) => set
                .elements
                .range(..=element.clone())
                .next_back()
                .is_some_and(|e| matches!(e, Element::Network(net) if net.covers(host))),
            Element::Flow(host, protocol, port, _) => set.elements.iter().any(|e| {
                matches!(e, Element::Flow(net, of, only, _) if net.covers(host) && of == protocol && only == port)
            }),
            Element::Address(_)
            | Element::Socket(..)
            | Element::ProtocolPort(..)
            | Element::Ports(..)
            | Element::Interface(_)
            | Element::InterfaceAddress(..) => set.elements.contains(element),
        }
    }

    /// Before the destination is translated, the packet still carries the original one.
    fn addr(&self, end: End, place: Place<'_>) -> IpAddr {
        match (end, self.packet.original_destination, place.translated) {
            (End::Source, _, _) => self.packet.source,
            (End::Destination, Some(original), false) => original.addr,
            (End::Destination, _, _) => self.packet.destination,
        }
    }

    fn port(&self, end: End, place: Place<'_>) -> Option<u16> {
        let Transport::Ports { source, destination, .. } = self.packet.transport else { return None };
        Some(match (end, self.packet.original_destination, place.translated) {
            (End::Source, _, _) => source,
            (End::Destination, Some(original), false) => original.port,
            (End::Destination, _, _) => destination,
        })
    }
}
