//! Sets of values, and maps from interfaces to chains.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_model::{Cidr, Family, InterfaceName, Protocol};

use super::ChainName;

/// What a set's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// Single addresses.
    Address(Family),
    /// Networks, none inside another.
    Network(Family),
    /// An address, a protocol and a port together.
    Socket(Family),
    /// A network, a protocol and a range of ports together, no two of which hold the same address, protocol and port.
    Flow(Family),
    /// A protocol and a port together.
    ProtocolPort,
    /// Ranges of ports, apart from one another.
    Ports,
    /// Interfaces.
    Interface,
    /// An interface and an address together.
    InterfaceAddress(Family),
}

/// One element of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// A single address.
    Address(IpAddr),
    /// A network.
    Network(Cidr),
    /// An address, a protocol and a port.
    Socket(IpAddr, Protocol, u16),
    /// A network, a protocol, and the ports from the first to the last, both included.
    Flow(Cidr, Protocol, u16, u16),
    /// A protocol and a port.
    ProtocolPort(Protocol, u16),
    /// The ports from the first to the last, both included.
    Ports(u16, u16),
    /// An interface.
    Interface(InterfaceName),
    /// An interface and an address; boxed, so that single addresses, of which there are most, take 24 bytes.
    InterfaceAddress(Box<(InterfaceName, IpAddr)>),
}

impl Element {
    pub(crate) fn interface_address(interface: InterfaceName, addr: IpAddr) -> Self {
        Self::InterfaceAddress(Box::new((interface, addr)))
    }
}

/// The elements of a set, sorted.
pub type Elements = BTreeSet<Element>;

/// A set that rules look things up in. One that is empty matches nothing; it does not vanish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What its elements are.
    pub kind: SetKind,
    /// The elements, all of the kind.
    pub elements: Elements,
}

/// A map from what a packet is to the chain that decides about it: from its interface to one that is run in place of the rest
/// of the chain that asks, from its protocol and port to one that may return there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictMap {
    /// What its keys are.
    pub kind: SetKind,
    /// The chain of each key, all of the kind.
    pub elements: BTreeMap<Element, ChainName>,
}

impl Set {
    /// Makes a set of networks; those inside others are left out, as no kernel set takes both.
    pub(crate) fn networks(family: Family, cidrs: impl IntoIterator<Item = Cidr>) -> Self {
        let sorted: BTreeSet<Cidr> = cidrs.into_iter().collect();
        let mut elements = Elements::new();
        let mut last: Option<Cidr> = None;
        // Wider networks sort before what they cover, and everything they cover follows at once.
        for cidr in sorted {
            if last.is_none_or(|wider| !wider.covers(&cidr)) {
                elements.insert(Element::Network(cidr));
                last = Some(cidr);
            }
        }
        Set { kind: SetKind::Network(family), elements }
    }

    /// Makes a set of ports; ranges that touch become one.
    pub(crate) fn ports(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let sorted: BTreeSet<(u16, u16)> = ranges.into_iter().collect();
        let mut joined: Vec<(u16, u16)> = Vec::new();
        for (first, last) in sorted {
            match joined.last_mut() {
                Some(before) if u32::from(first) <= u32::from(before.1) + 1 => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        let elements = joined.into_iter().map(|(first, last)| Element::Ports(first, last)).collect();
        Set { kind: SetKind::Ports, elements }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_element_is_small() {
        assert_eq!(size_of::<Element>(), 24);
    }

    proptest! {
        #[test]
        fn pe47_networks_never_overlap_and_cover_the_same_addresses(
            nets in proptest::collection::vec((0u8..16, 28u8..=32), 0..8),
        ) {
            let cidrs: Vec<Cidr> =
                nets.iter().filter_map(|(low, len)| Cidr::holding([10, 0, 0, *low].into(), *len)).collect();
            let set = Set::networks(Family::V4, cidrs.iter().copied());
            let held: Vec<Cidr> = set
                .elements
                .iter()
                .filter_map(|element| if let Element::Network(cidr) = element { Some(*cidr) } else { None })
                .collect();
            for low in 0..32u8 {
                let addr = IpAddr::from([10, 0, 0, low]);
                let by_set = held.iter().filter(|cidr| cidr.contains(addr)).count();
                prop_assert_eq!(by_set, usize::from(cidrs.iter().any(|cidr| cidr.contains(addr))));
            }
        }

        #[test]
        fn pe33_ports_join_to_ranges_that_hold_the_same_ports(
            ranges in proptest::collection::vec((0u16..20, 0u16..4), 0..33),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(first, more)| (first, first + more)).collect();
            let set = Set::ports(ranges.iter().copied());
            for port in 0..30u16 {
                let held = set
                    .elements
                    .iter()
                    .filter(|e| matches!(e, Element::Ports(first, last) if (first..=last).contains(&&port)))
                    .count();
                let meant = ranges.iter().any(|(first, last)| (first..=last).contains(&&port));
                prop_assert_eq!(held, usize::from(meant));
            }
        }
    }

    #[test]
    fn the_last_port_joins_without_overflow() {
        let set = Set::ports([(65_535, 65_535), (0, 65_535)]);
        assert_eq!(set.elements, [Element::Ports(0, 65_535)].into());
    }
}
