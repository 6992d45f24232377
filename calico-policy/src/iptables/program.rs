//! What iptables and ipset should hold, as data.

use std::collections::BTreeMap;

use calico_model::{Cidr, Family, InterfaceName, Protocol};

use crate::packet::NewSource;
use crate::ruleset::{Bound, ChainName, Element, Elements, End, Hook, Op, Set, SetKind, SetName};

/// Everything that iptables and ipset should hold for policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// The chains and rules.
    pub rules: Rules,
    /// The sets, by name.
    pub sets: BTreeMap<SetName, Ipset>,
}

/// The chains of all tables, and which sets they look things up in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The tables, of each family.
    pub tables: BTreeMap<(Family, TableName), Table>,
    /// The sets that rules look at, by the names that they have there, and the names that the ruleset gives them.
    pub sets: BTreeMap<SetName, SetName>,
}

/// A table of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableName {
    /// Before connection tracking.
    Raw,
    /// Before destinations are translated.
    Mangle,
    /// Where addresses are translated.
    Nat,
    /// Where packets are let through or dropped.
    Filter,
}

/// What is ours in a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The one rule of ours in each of the kernel's own chains.
    pub hooks: BTreeMap<Hook, HookRule>,
    /// Our chains, by name.
    pub chains: BTreeMap<ChainName, Vec<Rule>>,
}

/// A rule of ours in a chain of the kernel's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookRule {
    /// Where it stands among the rules of others.
    pub place: super::Insertion,
    /// The rule.
    pub rule: Rule,
}

/// A rule. Every match must hold for the target to be taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// What the packet must be.
    pub matches: Vec<Match>,
    /// What is done with it.
    pub target: Target,
}

/// One thing that a packet must be. A rule holds at most one [`Network`](Self::Network) for each end, one
/// [`Interface`](Self::Interface) for each bound and one [`Protocol`](Self::Protocol), which are words of iptables itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// An end's address is in the network: `-s`, `-d`.
    Network(End, Op, Cidr),
    /// The same, once more in the same rule: `-m iprange`.
    Range(End, Op, Cidr),
    /// The interface has this name: `-i eth0`, `-o eth0`.
    Interface(Bound, Op, InterfaceName),
    /// The interface's name begins so: `-i cali+`.
    Prefix(Bound, Op, InterfaceName),
    /// The IP protocol: `-p`.
    Protocol(Op, Protocol),
    /// An end's port, from the first to the last; the rule names the protocol.
    Port(End, Op, u16, u16),
    /// An end's port is one of these, which take at most 15 places: `-m multiport`. The rule names the protocol.
    Ports(End, Op, Vec<(u16, u16)>),
    /// The ICMP type, the code, or both; the rule names the protocol.
    Icmp(Family, Op, Option<u8>, Option<u8>),
    /// What the key says of the packet is in the set: `-m set`.
    Set(Op, SetName, Key),
    /// It belongs to a tracked flow that was let through, or is an error about one.
    Established,
    /// It belongs to a tracked flow from which the permission was taken back: `-m connmark`.
    Withdrawn(Op),
    /// It belongs to a tracked flow or is an error about one, or connection tracking finds it invalid.
    TrackedOrInvalid,
    /// It goes to an address of the node itself: `-m addrtype`.
    Local,
    /// It comes from an address of the node itself: `-m addrtype`.
    FromLocal,
    /// It belongs to a tracked flow whose destination is translated.
    Translated,
    /// It goes to an anycast address of the node itself: `-m addrtype`.
    Anycast,
    /// All these bits of its mark are set.
    Mark(u32),
}

/// What of a packet is looked up in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// An end's address.
    Address(End),
    /// An end's address, with the protocol and that end's port.
    Socket(End),
    /// An end's address, with the protocol and the destination port.
    Flow(End),
    /// The source address, with the interface it came in by.
    SourceAndInterface,
}

/// What is done with a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The table lets it pass.
    Accept,
    /// The packet is gone.
    Drop,
    /// The packet is gone, and its sender is told by the ICMP of the family that it reached no port.
    Reject(Family),
    /// The rest of the chain is skipped.
    Return,
    /// The chain is run; if it returns, the next rule is asked.
    Jump(ChainName),
    /// The chain is run in place of the rest of this one.
    Goto(ChainName),
    /// A line is written to the kernel's log; the next rule is asked.
    Log(Box<str>),
    /// The packet is kept from connection tracking; the next rule is asked.
    Notrack,
    /// Bits of the packet's mark are set, others cleared; the next rule is asked.
    Mark {
        /// Those that are set.
        set: u32,
        /// Those that are cleared.
        clear: u32,
    },
    /// The source becomes another.
    SourceNat(NewSource),
}

/// A set of the kernel's ipset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipset {
    /// What its elements are.
    pub kind: IpsetKind,
    /// The elements: networks, sockets, or interfaces with an address.
    pub elements: Elements,
}

/// What the elements of an ipset are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpsetKind {
    /// Networks: `hash:net`.
    Networks(Family),
    /// An address, a protocol and a port: `hash:ip,port`.
    Sockets(Family),
    /// A network, a protocol and a port: `hash:net,port`.
    Flows(Family),
    /// An address and an interface: `hash:net,iface`.
    Interfaces(Family),
}

impl TableName {
    /// All of them.
    pub const ALL: [TableName; 4] = [TableName::Raw, TableName::Mangle, TableName::Nat, TableName::Filter];

    /// Returns the name as iptables has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            TableName::Raw => "raw",
            TableName::Mangle => "mangle",
            TableName::Nat => "nat",
            TableName::Filter => "filter",
        }
    }
}

impl Rule {
    /// Makes a rule for every packet.
    pub(super) fn always(target: Target) -> Self {
        Self { matches: Vec::new(), target }
    }

    /// Makes a rule.
    pub(super) fn when(matches: impl Into<Vec<Match>>, target: Target) -> Self {
        Self { matches: matches.into(), target }
    }
}

impl Match {
    /// The place of a word of iptables itself, of which a rule holds one; `None` for what an extension matches.
    pub(super) fn slot(&self) -> Option<u8> {
        match self {
            Match::Network(End::Source, ..) => Some(0),
            Match::Network(End::Destination, ..) => Some(1),
            Match::Interface(Bound::In, ..) | Match::Prefix(Bound::In, ..) => Some(2),
            Match::Interface(Bound::Out, ..) | Match::Prefix(Bound::Out, ..) => Some(3),
            Match::Protocol(..) => Some(4),
            Match::Range(..)
            | Match::Port(..)
            | Match::Ports(..)
            | Match::Icmp(..)
            | Match::Set(..)
            | Match::Established
            | Match::Withdrawn(_)
            | Match::TrackedOrInvalid
            | Match::Local
            | Match::FromLocal
            | Match::Translated
            | Match::Anycast
            | Match::Mark(_) => None,
        }
    }

    /// The same of everything else; itself when that cannot be asked.
    pub(super) fn negated(mut self) -> Self {
        match &mut self {
            Match::Network(_, op, _)
            | Match::Range(_, op, _)
            | Match::Interface(_, op, _)
            | Match::Prefix(_, op, _)
            | Match::Protocol(op, _)
            | Match::Port(_, op, ..)
            | Match::Ports(_, op, _)
            | Match::Icmp(_, op, ..)
            | Match::Withdrawn(op)
            | Match::Set(op, ..) => *op = if *op == Op::Is { Op::IsNot } else { Op::Is },
            Match::Established
            | Match::TrackedOrInvalid
            | Match::Local
            | Match::FromLocal
            | Match::Translated
            | Match::Anycast
            | Match::Mark(_) => {}
        }
        self
    }
}

impl IpsetKind {
    /// Returns the kind of ipset that a set needs; `None` for one that becomes rules instead.
    #[must_use]
    pub fn of(kind: SetKind) -> Option<Self> {
        match kind {
            SetKind::Address(family) | SetKind::Network(family) => Some(Self::Networks(family)),
            SetKind::Socket(family) => Some(Self::Sockets(family)),
            SetKind::InterfaceAddress(family) => Some(Self::Interfaces(family)),
            SetKind::Flow(family) => Some(Self::Flows(family)),
            SetKind::ProtocolPort | SetKind::Ports | SetKind::Interface => None,
        }
    }

    /// Returns all kinds of a family.
    pub(super) fn all_of(family: Family) -> [Self; 4] {
        [Self::Networks(family), Self::Sockets(family), Self::Flows(family), Self::Interfaces(family)]
    }

    /// Returns the address family.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::Networks(family)
            | Self::Sockets(family)
            | Self::Flows(family)
            | Self::Interfaces(family) => family,
        }
    }
}

impl Ipset {
    /// Returns the set as ipset holds it; `None` for one that becomes rules instead.
    pub(super) fn of(set: &Set) -> Option<Self> {
        let kind = IpsetKind::of(set.kind)?;
        Some(Self { kind, elements: set.elements.iter().flat_map(elements_of).collect() })
    }
}

/// An ipset holds each port of a range by itself: a flow of more than these is a rule instead.
const PORTS_OF_A_FLOW: u16 = 16;

/// Returns the elements by which ipset holds one: it takes no network of all addresses, but both halves of it, and no range of
/// ports, but each of them. None for a flow of so many ports that it becomes a rule instead.
pub(super) fn elements_of(element: &Element) -> Vec<Element> {
    let halves = |net: &Cidr| match net.prefix_len() {
        0 => (0..2).filter_map(|half| net.subnet(1, half)).collect(),
        _ => vec![*net],
    };
    match element {
        Element::Address(addr) => vec![Element::Network(Cidr::host(*addr))],
        Element::Network(net) => halves(net).into_iter().map(Element::Network).collect(),
        Element::Flow(_, _, first, last) if last - first >= PORTS_OF_A_FLOW => Vec::new(),
        Element::Flow(net, protocol, first, last) => {
            let ports = |net| (*first..=*last).map(move |port| Element::Flow(net, *protocol, port, port));
            halves(net).into_iter().flat_map(ports).collect()
        }
        Element::Socket(..)
        | Element::ProtocolPort(..)
        | Element::Ports(..)
        | Element::Interface(_)
        | Element::InterfaceAddress(..) => vec![element.clone()],
    }
}

/// Returns a name that is short enough for iptables or ipset: the words of a longer one, and a digest of all of it.
pub(super) fn fitted(name: &str, most: usize) -> String {
    const LEAST_DIGEST: usize = 10;
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    if name.len() <= most {
        return name.to_owned();
    }
    let words = name.rfind('-').map_or(0, |dash| dash + 1);
    let words = &name[..words.min(most - LEAST_DIGEST)];
    let digest = crate::ruleset::digest([name]);
    let bytes: Vec<u8> = (0..digest.len() / 2)
        .filter_map(|i| u8::from_str_radix(&digest[2 * i..2 * i + 2], 16).ok())
        .collect();
    // Five bits a letter, of at most 80.
    let bits = |place: usize| {
        (0..5).fold(0, |letter, bit| {
            let at = place * 5 + bit;
            letter << 1 | usize::from(bytes.get(at / 8).copied().unwrap_or(0) >> (7 - at % 8) & 1)
        })
    };
    let letters = (0..(most - words.len()).min(16)).map(|place| char::from(LETTERS[bits(place)]));
    words.chars().chain(letters).collect()
}

/// Returns the name that a set of the ruleset has in the kernel.
pub(super) fn ipset_name(set: &SetName) -> SetName {
    SetName::read(&fitted(set.as_str(), IPSET_NAME))
}

/// The most letters that the name of a chain has.
pub(super) const CHAIN_NAME: usize = 28;
/// The most letters that the name of an ipset has.
pub(super) const IPSET_NAME: usize = 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pe95_names_fit_and_stay_apart() {
        assert_eq!(fitted("cali-forward-from", CHAIN_NAME), "cali-forward-from");
        let long = |digest: &str| fitted(&format!("cali-out-raw-tier-{digest}"), CHAIN_NAME);
        let (one, other) = (long("0123456789abcdef0123"), long("0123456789abcdef0124"));
        assert!(one.starts_with("cali-out-raw-tier-") && one.len() == CHAIN_NAME, "{one}");
        assert_ne!(one, other);
        assert_eq!(fitted(&"x".repeat(60), IPSET_NAME).len(), 16, "no words, and all of the digest");
    }
}
