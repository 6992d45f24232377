//! Elements of sets as the kernel keeps them.
//!
//! A key is its fields one after the other, each padded to four bytes. A range is two elements: where it begins, and, with a
//! flag, the first key after it; one that goes to the last key there is has no end.

use std::collections::BTreeSet;
use std::net::IpAddr;

use calico_model::{Cidr, Family, InterfaceName, Protocol};

use super::expression::octets;
use super::wire::until_nul;
use crate::ruleset::{Element, Elements, SetKind};

/// One element of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) bytes: Vec<u8>,
    /// Whether it ends a range.
    pub(super) end: bool,
}

/// What the kernel is told of a kind of set.
pub(super) struct Shape {
    pub(super) interval: bool,
    /// The type's number, for people who list the set with `nft`.
    pub(super) key_type: u32,
    pub(super) key_length: u32,
}

const IPV4: u32 = 7;
const IPV6: u32 = 8;
const PROTOCOL: u32 = 12;
const SERVICE: u32 = 13;
pub(super) const IFNAME: u32 = 41;

/// How many bits a type has in the number of a concatenation.
const TYPE_BITS: u32 = 6;

impl Shape {
    pub(super) fn of(kind: SetKind) -> Self {
        let addr = |family| if family == Family::V4 { (IPV4, 4) } else { (IPV6, 16) };
        let (interval, key_type, key_length) = match kind {
            SetKind::Address(family) => (false, addr(family).0, addr(family).1),
            SetKind::Network(family) => (true, addr(family).0, addr(family).1),
            SetKind::Socket(family) => {
                let (addr, length) = addr(family);
                (false, (addr << (2 * TYPE_BITS)) | (PROTOCOL << TYPE_BITS) | SERVICE, length + 8)
            }
            SetKind::ProtocolPort => (false, (PROTOCOL << TYPE_BITS) | SERVICE, 8),
            SetKind::Ports => (true, SERVICE, 2),
            SetKind::Interface => (false, IFNAME, 16),
            SetKind::InterfaceAddress(family) => {
                (false, (IFNAME << TYPE_BITS) | addr(family).0, 16 + addr(family).1)
            }
        };
        Self { interval, key_type, key_length }
    }

    /// Returns the kind of set that has this shape.
    pub(super) fn kind(&self) -> Option<SetKind> {
        let families = |kind: fn(Family) -> SetKind| Family::ALL.map(kind);
        let all = families(SetKind::Address)
            .into_iter()
            .chain(families(SetKind::Network))
            .chain(families(SetKind::Socket))
            .chain(families(SetKind::InterfaceAddress))
            .chain([SetKind::ProtocolPort, SetKind::Ports, SetKind::Interface]);
        let same = |kind: &SetKind| {
            let shape = Shape::of(*kind);
            (shape.interval, shape.key_type, shape.key_length)
                == (self.interval, self.key_type, self.key_length)
        };
        all.into_iter().find(same)
    }
}

/// Returns an interface's name as a key: sixteen bytes, zeros after it.
pub(super) fn interface(name: &InterfaceName) -> Vec<u8> {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// Returns the kernel's elements of one of ours: one, or the two of a range.
pub(super) fn keys(element: &Element) -> Vec<Key> {
    let exact = |bytes| vec![Key { bytes, end: false }];
    match element {
        Element::Address(addr) => exact(octets(*addr)),
        Element::Network(net) => {
            let first = octets(net.addr());
            let host_bits = net.family().bits() - net.prefix_len();
            range(first.clone(), add(&first, host_bits))
        }
        Element::Socket(addr, protocol, port) => {
            let mut bytes = octets(*addr);
            bytes.extend([protocol.number(), 0, 0, 0]);
            bytes.extend(port.to_be_bytes());
            bytes.extend([0, 0]);
            exact(bytes)
        }
        Element::ProtocolPort(protocol, port) => {
            let mut bytes = vec![protocol.number(), 0, 0, 0];
            bytes.extend(port.to_be_bytes());
            bytes.extend([0, 0]);
            exact(bytes)
        }
        Element::Ports(first, last) => {
            let after = last.checked_add(1).map(|after| after.to_be_bytes().to_vec());
            range(first.to_be_bytes().to_vec(), after)
        }
        Element::Interface(name) => exact(interface(name)),
        Element::InterfaceAddress(name, addr) => {
            let mut bytes = interface(name);
            bytes.extend(octets(*addr));
            exact(bytes)
        }
    }
}

fn range(first: Vec<u8>, after: Option<Vec<u8>>) -> Vec<Key> {
    let begin = Key { bytes: first, end: false };
    std::iter::once(begin).chain(after.map(|bytes| Key { bytes, end: true })).collect()
}

/// Adds 2^`bit`; `None` beyond the last number.
fn add(bytes: &[u8], bit: u8) -> Option<Vec<u8>> {
    let mut sum = bytes.to_vec();
    let place = bytes.len().checked_sub(1 + usize::from(bit / 8))?;
    let mut carry = 1_u16 << (bit % 8);
    for byte in sum[..=place].iter_mut().rev() {
        carry += u16::from(*byte);
        *byte = carry as u8;
        carry >>= 8;
    }
    (carry == 0).then_some(sum)
}

/// Returns our elements of the kernel's; `None` when one is nothing that we write.
pub(super) fn elements(kind: SetKind, keys: BTreeSet<Key>) -> Option<Elements> {
    match kind {
        SetKind::Network(_) => ranges(keys)?.into_iter().map(network).collect(),
        SetKind::Ports => ranges(keys)?.into_iter().map(ports).collect(),
        SetKind::Address(_)
        | SetKind::Socket(_)
        | SetKind::ProtocolPort
        | SetKind::Interface
        | SetKind::InterfaceAddress(_) => {
            keys.into_iter().map(|key| if key.end { None } else { exact(kind, &key.bytes) }).collect()
        }
    }
}

/// A range: its first key, and the first after it unless it goes to the last there is.
struct Span {
    first: Vec<u8>,
    after: Option<Vec<u8>>,
}

/// Joins beginnings and ends; an end that ends nothing is the kernel's business.
fn ranges(keys: BTreeSet<Key>) -> Option<Vec<Span>> {
    let mut ranges = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    // At one key an end comes before a beginning.
    let mut sorted: Vec<Key> = keys.into_iter().collect();
    sorted.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(b.end.cmp(&a.end)));
    for key in sorted {
        match (key.end, open.take()) {
            (true, Some(first)) => ranges.push(Span { first, after: Some(key.bytes) }),
            (true, None) => {}
            (false, None) => open = Some(key.bytes),
            (false, Some(_)) => return None,
        }
    }
    ranges.extend(open.map(|first| Span { first, after: None }));
    Some(ranges)
}

fn network(Span { first, after }: Span) -> Option<Element> {
    let addr = addr(&first)?;
    let bits = Family::of(addr).bits();
    (0..=bits)
        .filter_map(|len| Cidr::holding(addr, len))
        .filter(|net| net.addr() == addr)
        .find(|net| add(&first, bits - net.prefix_len()) == after)
        .map(Element::Network)
}

fn ports(Span { first, after }: Span) -> Option<Element> {
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    let last = match after {
        None => u16::MAX,
        Some(after) => number(&after)?.checked_sub(1)?,
    };
    Some(Element::Ports(number(&first)?, last))
}

pub(super) fn exact(kind: SetKind, bytes: &[u8]) -> Option<Element> {
    let name = |bytes: &[u8]| std::str::from_utf8(until_nul(bytes)).ok()?.parse::<InterfaceName>().ok();
    match kind {
        SetKind::Interface => name(bytes).map(Element::Interface),
        SetKind::InterfaceAddress(_) => {
            let (interface, rest) = bytes.split_at_checked(16)?;
            Some(Element::InterfaceAddress(name(interface)?, addr(rest)?))
        }
        SetKind::Socket(_) => {
            let (first, rest) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
            let port = u16::from_be_bytes([rest[4], rest[5]]);
            Some(Element::Socket(addr(first)?, Protocol::from_number(rest[0]), port))
        }
        SetKind::ProtocolPort => {
            let [protocol, _, _, _, first, second, ..] = bytes else { return None };
            Some(Element::ProtocolPort(
                Protocol::from_number(*protocol),
                u16::from_be_bytes([*first, *second]),
            ))
        }
        SetKind::Address(_) | SetKind::Network(_) | SetKind::Ports => addr(bytes).map(Element::Address),
    }
}

fn addr(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pe46_pe47_every_range_comes_back_as_it_was_written() {
        let networks = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.0.0.0/24",
            "255.255.255.255/32",
            "::/0",
            "fd00::/9",
            "fd00::1/128",
        ];
        let networks = networks.map(|net| Element::Network(net.parse().unwrap()));
        let ports = [(0, 65_535), (0, 0), (65_535, 65_535), (80, 90)].map(|(a, b)| Element::Ports(a, b));
        for (element, kind) in networks
            .into_iter()
            .map(|net| (net, SetKind::Network(Family::V4)))
            .chain(ports.into_iter().map(|ports| (ports, SetKind::Ports)))
        {
            let written: BTreeSet<Key> = keys(&element).into_iter().collect();
            assert_eq!(elements(kind, written), Some([element].into()));
        }
    }

    #[test]
    fn ranges_that_touch_stay_apart() {
        let both: Elements =
            ["10.0.0.0/24", "10.0.1.0/24"].map(|net| Element::Network(net.parse().unwrap())).into();
        let written = both.iter().flat_map(keys).collect();
        assert_eq!(elements(SetKind::Network(Family::V4), written), Some(both));
    }
}
