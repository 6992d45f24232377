//! A packet run through a ruleset, as a kernel would run it.

use std::net::IpAddr;

use calico_model::{Cidr, InterfaceName, Protocol};

use crate::packet::{ConnectionState, Outcome, Packet, Path, SourceNat, Transport};
use crate::ruleset::{
    Action, Base, Bound, Chain, ChainKind, ChainName, Element, End, Hook, Interface, Match, PortSet, Ruleset,
    Set, SetKind, SetName,
};

/// Returns what becomes of a packet on the node that a ruleset is for.
///
/// It equals [`evaluate`](crate::evaluate) of the snapshot that the ruleset was compiled from, for every packet of the node.
/// A name that the ruleset does not hold drops the packet.
#[must_use]
pub fn simulate(ruleset: &Ruleset, packet: &Packet) -> Outcome {
    Simulator::new(ruleset).run(packet)
}

/// A ruleset with its base chains in the order in which packets meet them, for whoever runs many packets.
#[derive(Debug)]
pub(crate) struct Simulator<'r> {
    ruleset: &'r Ruleset,
    bases: Vec<(Base, &'r Chain)>,
}

impl<'r> Simulator<'r> {
    pub(crate) fn new(ruleset: &'r Ruleset) -> Self {
        let chains = ruleset.chains.values();
        let mut bases: Vec<(Base, &Chain)> =
            chains.filter_map(|chain| chain.base.map(|base| (base, chain))).collect();
        bases.sort_by_key(|(base, _)| base.priority);
        Self { ruleset, bases }
    }

    /// See [`simulate`].
    pub(crate) fn run(&self, packet: &Packet) -> Outcome {
        let (state, source_nat) = (packet.state, SourceNat::Keep);
        let mut run = Run { ruleset: self.ruleset, packet, state, source_nat, accepted: false };
        for hook in hooks(&packet.path) {
            for (base, chain) in self.bases.iter().filter(|(base, _)| base.hook == *hook) {
                if base.kind == ChainKind::Nat && run.state != ConnectionState::New {
                    continue;
                }
                match run.chain(chain, &View::of(*base)) {
                    Fate::Dropped => return Outcome::DROPPED,
                    Fate::Rejected => return Outcome::REJECTED,
                    Fate::Accepted | Fate::Undecided => {}
                }
            }
        }
        Outcome { source_nat: run.source_nat, ..Outcome::ALLOWED }
    }
}

/// The hooks on a packet's way, in order.
fn hooks(path: &Path) -> &'static [Hook] {
    match path {
        Path::ToHost { .. } => &[Hook::Prerouting, Hook::Input],
        Path::Forward { .. } => &[Hook::Prerouting, Hook::Forward, Hook::Postrouting],
        Path::FromHost { .. } => &[Hook::Output, Hook::Postrouting],
    }
}

/// Which form of the destination a chain sees, and which route.
struct View {
    translated: bool,
    output: bool,
}

impl View {
    /// Destinations are translated at priority -100, of what comes in and of what the node sends.
    fn of(base: Base) -> Self {
        let before = matches!(base.hook, Hook::Prerouting | Hook::Output) && base.priority < -100;
        Self { translated: !before, output: base.hook == Hook::Output }
    }
}

/// Where a chain left a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its stage is over.
    Accepted,
    /// It is gone.
    Dropped,
    /// It is gone, and its sender is told.
    Rejected,
    /// The chain returned.
    Undecided,
}

struct Run<'r> {
    ruleset: &'r Ruleset,
    packet: &'r Packet,
    state: ConnectionState,
    source_nat: SourceNat,
    /// The mark of earlier host policy.
    accepted: bool,
}

impl<'r> Run<'r> {
    fn chain(&mut self, chain: &Chain, view: &View) -> Fate {
        for rule in &chain.rules {
            if !rule.matches.iter().all(|m| self.holds(m, view)) {
                continue;
            }
            match &rule.action {
                Action::Accept => return Fate::Accepted,
                Action::Drop => return Fate::Dropped,
                Action::Reject => return Fate::Rejected,
                Action::Return => return Fate::Undecided,
                Action::Jump(name) => match self.named(name, view) {
                    Fate::Undecided => {}
                    decided @ (Fate::Accepted | Fate::Dropped | Fate::Rejected) => return decided,
                },
                Action::Goto(name) => return self.named(name, view),
                Action::Dispatch(bound, map) => {
                    let key = self.interface(*bound, view).cloned().map(Element::Interface);
                    if let Some(name) = key.and_then(|key| self.led(map, &key)) {
                        return self.named(name, view);
                    }
                }
                Action::DispatchPort(end, map) => {
                    let port = self.port(*end, view);
                    let key = port.map(|port| Element::ProtocolPort(self.packet.protocol(), port));
                    match key.and_then(|key| self.led(map, &key)).map(|name| self.named(name, view)) {
                        None | Some(Fate::Undecided) => {}
                        Some(decided @ (Fate::Accepted | Fate::Dropped | Fate::Rejected)) => return decided,
                    }
                }
                Action::Log { .. } => {}
                Action::MarkAccepted => self.accepted = true,
                Action::ClearMark => self.accepted = false,
                Action::Notrack => self.state = ConnectionState::Untracked,
                Action::SourceNat(new) => {
                    self.source_nat = SourceNat::Change(*new);
                    return Fate::Accepted;
                }
            }
        }
        Fate::Undecided
    }

    fn led(&self, map: &SetName, key: &Element) -> Option<&'r ChainName> {
        self.ruleset.maps.get(map)?.elements.get(key)
    }

    fn named(&mut self, name: &ChainName, view: &View) -> Fate {
        let ruleset = self.ruleset;
        ruleset.chains.get(name).map_or(Fate::Dropped, |chain| self.chain(chain, view))
    }

    fn interface(&self, bound: Bound, view: &View) -> Option<&InterfaceName> {
        match bound {
            Bound::Out if view.output => self.packet.path.first(),
            Bound::In => self.packet.path.from(),
            Bound::Out => self.packet.path.to(),
        }
    }

    fn holds(&self, m: &Match, view: &View) -> bool {
        let packet = self.packet;
        let family = packet.family();
        match m {
            Match::Family(wanted) => family == *wanted,
            Match::Protocol(op, protocol) => op.says(packet.protocol() == *protocol),
            Match::Network(end, op, net) => {
                family == net.family() && op.says(net.contains(self.addr(*end, view)))
            }
            Match::InSet(end, wanted, op, set) => {
                family == *wanted
                    && self.set(set).is_some_and(|set| op.says(set.holds_addr(self.addr(*end, view))))
            }
            Match::SocketInSet(end, wanted, op, set) => {
                let socket = self
                    .port(*end, view)
                    .map(|port| Element::Socket(self.addr(*end, view), packet.protocol(), port));
                family == *wanted
                    && socket.is_some_and(|socket| {
                        self.set(set).is_some_and(|set| op.says(set.elements.contains(&socket)))
                    })
            }
            Match::FlowInSet(end, wanted, set) => {
                let addr = self.addr(*end, view);
                family == *wanted
                    && self.port(End::Destination, view).is_some_and(|port| {
                        self.set(set).is_some_and(|set| set.holds_flow(addr, packet.protocol(), port))
                    })
            }
            Match::Port(end, op, ports) => self.port(*end, view).is_some_and(|port| match ports {
                PortSet::Range(first, last) => op.says((first..=last).contains(&&port)),
                PortSet::InSet(set) => self.set(set).is_some_and(|set| op.says(set.holds_port(port))),
            }),
            Match::IcmpType(wanted, op, first, last) => {
                family == *wanted && self.icmp().is_some_and(|(t, _)| op.says((first..=last).contains(&&t)))
            }
            Match::IcmpCode(wanted, op, code) => {
                family == *wanted && self.icmp().is_some_and(|(_, c)| op.says(c == *code))
            }
            Match::Interface(bound, op, interface) => {
                op.says(self.interface(*bound, view).is_some_and(|name| self.is_interface(name, interface)))
            }
            Match::SourceAllowed(wanted, set) => {
                let allowed = self
                    .packet
                    .path
                    .from()
                    .map(|interface| Element::interface_address(interface.clone(), packet.source));
                family == *wanted
                    && allowed.is_some_and(|allowed| {
                        self.set(set).is_some_and(|set| set.elements.contains(&allowed))
                    })
            }
            Match::Established => {
                matches!(self.state, ConnectionState::Established | ConnectionState::Withdrawn)
            }
            Match::Withdrawn(op) => op.says(self.state == ConnectionState::Withdrawn),
            Match::TrackedOrInvalid => {
                !matches!(self.state, ConnectionState::New | ConnectionState::Untracked)
            }
            Match::Accepted => self.accepted,
            Match::Local => matches!(packet.path, Path::ToHost { .. }) && !packet.destination.is_multicast(),
            Match::FromLocal => matches!(packet.path, Path::FromHost { .. }),
            Match::Translated => packet.original_destination.is_some(),
            // Of which addresses are such a packet does not tell; what comes to the host by one is to an address of it.
            Match::Anycast => false,
        }
    }

    fn is_interface(&self, name: &InterfaceName, wanted: &Interface) -> bool {
        match wanted {
            Interface::Prefix(prefix) => name.as_str().starts_with(prefix.as_str()),
            Interface::Named(wanted) => name == wanted,
            Interface::InSet(set) => {
                self.set(set).is_some_and(|set| set.elements.contains(&Element::Interface(name.clone())))
            }
        }
    }

    fn set(&self, name: &SetName) -> Option<&Set> {
        self.ruleset.sets.get(name)
    }

    /// Before the destination is translated, the packet still carries the original one.
    fn addr(&self, end: End, view: &View) -> IpAddr {
        match (end, self.packet.original_destination, view.translated) {
            (End::Source, _, _) => self.packet.source,
            (End::Destination, Some(original), false) => original.addr,
            (End::Destination, _, _) => self.packet.destination,
        }
    }

    fn port(&self, end: End, view: &View) -> Option<u16> {
        let Transport::Ports { source, destination, .. } = self.packet.transport else { return None };
        Some(match (end, self.packet.original_destination, view.translated) {
            (End::Source, _, _) => source,
            (End::Destination, Some(original), false) => original.port,
            (End::Destination, _, _) => destination,
        })
    }

    fn icmp(&self) -> Option<(u8, u8)> {
        if let Transport::Icmp { icmp_type, code } = self.packet.transport {
            return Some((icmp_type, code));
        }
        None
    }
}

impl Set {
    /// Reports whether a set of addresses or networks holds an address.
    pub(crate) fn holds_addr(&self, addr: IpAddr) -> bool {
        match self.kind {
            SetKind::Network(_) => {
                // The only network that can hold it is the last that does not begin after it.
                let bound = Element::Network(Cidr::host(addr));
                self.elements
                    .range(..=bound)
                    .next_back()
                    .is_some_and(|e| matches!(e, Element::Network(net) if net.contains(addr)))
            }
            SetKind::Address(_)
            | SetKind::Socket(_)
            | SetKind::Flow(_)
            | SetKind::ProtocolPort
            | SetKind::Ports
            | SetKind::Interface
            | SetKind::InterfaceAddress(_) => self.elements.contains(&Element::Address(addr)),
        }
    }

    fn holds_flow(&self, addr: IpAddr, wanted: Protocol, port: u16) -> bool {
        self.elements.iter().any(|e| {
            matches!(e, Element::Flow(net, protocol, first, last)
                if *protocol == wanted && net.contains(addr) && (first..=last).contains(&&port))
        })
    }

    fn holds_port(&self, port: u16) -> bool {
        self.elements
            .range(..=Element::Ports(port, u16::MAX))
            .next_back()
            .is_some_and(|e| matches!(e, Element::Ports(first, last) if (first..=last).contains(&&port)))
    }
}
