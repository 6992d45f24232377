//! Elements of sets as the kernel keeps them.
//!
//! A key is its fields one after the other, each padded to four bytes. A range is two elements: where it begins, and, with a
//! flag, the first key after it; one that goes to the last key there is has no end.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Deref;

use calico_model::{Cidr, Family, InterfaceName, Protocol};

use super::encode::{CONCATENATION, INTERVAL};
use super::expression::octets;
use super::wire::until_nul;
use crate::ruleset::{Element, Elements, SetKind};

/// The bytes of a key, at most those of an interface and an address: a start writes hundreds of thousands of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bytes {
    bytes: [u8; 32],
    length: usize,
}

impl Bytes {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut all = Self { bytes: [0; 32], length: 0 };
        all.extend(bytes);
        all
    }

    fn extend(&mut self, more: &[u8]) {
        self.bytes[self.length..self.length + more.len()].copy_from_slice(more);
        self.length += more.len();
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// One element of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) bytes: Bytes,
    /// Whether it ends a range.
    pub(super) end: bool,
    /// The last key of a range of fields, each from its first to its last.
    pub(super) last: Option<Bytes>,
}

/// What the kernel is told of a kind of set.
pub(super) struct Shape {
    pub(super) interval: bool,
    /// How long each field is, when they are ranges together.
    pub(super) fields: &'static [u32],
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
        let fields: &[u32] = match kind {
            SetKind::Flow(Family::V4) => &[4, 1, 2],
            SetKind::Flow(Family::V6) => &[16, 1, 2],
            SetKind::Address(_)
            | SetKind::Network(_)
            | SetKind::Socket(_)
            | SetKind::ProtocolPort
            | SetKind::Ports
            | SetKind::Interface
            | SetKind::InterfaceAddress(_) => &[],
        };
        let (interval, key_type, key_length) = match kind {
            SetKind::Address(family) => (false, addr(family).0, addr(family).1),
            SetKind::Network(family) => (true, addr(family).0, addr(family).1),
            SetKind::Socket(family) | SetKind::Flow(family) => {
                let (addr, length) = addr(family);
                (
                    !fields.is_empty(),
                    (addr << (2 * TYPE_BITS)) | (PROTOCOL << TYPE_BITS) | SERVICE,
                    length + 8,
                )
            }
            SetKind::ProtocolPort => (false, (PROTOCOL << TYPE_BITS) | SERVICE, 8),
            SetKind::Ports => (true, SERVICE, 2),
            SetKind::Interface => (false, IFNAME, 16),
            SetKind::InterfaceAddress(family) => {
                (false, (IFNAME << TYPE_BITS) | addr(family).0, 16 + addr(family).1)
            }
        };
        Self { interval, fields, key_type, key_length }
    }

    /// Returns the flags of a set of this shape.
    pub(super) fn flags(&self) -> u32 {
        let ranges = if self.interval { INTERVAL } else { 0 };
        ranges | if self.fields.is_empty() { 0 } else { CONCATENATION }
    }

    /// Returns the kind of set that has this shape.
    pub(super) fn kind(flags: u32, key_type: u32, key_length: u32) -> Option<SetKind> {
        let families = |kind: fn(Family) -> SetKind| Family::ALL.map(kind);
        let all = families(SetKind::Address)
            .into_iter()
            .chain(families(SetKind::Network))
            .chain(families(SetKind::Socket))
            .chain(families(SetKind::Flow))
            .chain(families(SetKind::InterfaceAddress))
            .chain([SetKind::ProtocolPort, SetKind::Ports, SetKind::Interface]);
        let same = |kind: &SetKind| {
            let shape = Shape::of(*kind);
            (shape.flags(), shape.key_type, shape.key_length) == (flags, key_type, key_length)
        };
        all.into_iter().find(same)
    }
}

/// Returns an interface's name as a key: sixteen bytes, zeros after it.
pub(super) fn interface(name: &InterfaceName) -> Bytes {
    let mut bytes = Bytes::of(name.as_str().as_bytes());
    bytes.length = 16;
    bytes
}

/// Returns the kernel's elements of one of ours: one, or the two of a range.
pub(super) fn keys(element: &Element) -> impl Iterator<Item = Key> {
    let exact = |bytes| (bytes, None, None);
    let (bytes, last, after) = match element {
        Element::Address(addr) => exact(octets(*addr)),
        Element::Network(net) => {
            let first = octets(net.addr());
            (first, None, add(&first, net.family().bits() - net.prefix_len()))
        }
        Element::Socket(addr, protocol, port) => exact(socket(*addr, *protocol, *port)),
        Element::Flow(net, protocol, first, last) => {
            let last = socket(net.last(), *protocol, *last);
            (socket(net.addr(), *protocol, *first), Some(last), None)
        }
        Element::ProtocolPort(protocol, port) => {
            let mut bytes = Bytes::of(&[protocol.number(), 0, 0, 0]);
            bytes.extend(&port.to_be_bytes());
            bytes.extend(&[0, 0]);
            exact(bytes)
        }
        Element::Ports(first, last) => {
            let after = last.checked_add(1).map(|after| Bytes::of(&after.to_be_bytes()));
            (Bytes::of(&first.to_be_bytes()), None, after)
        }
        Element::Interface(name) => exact(interface(name)),
        Element::InterfaceAddress(both) => {
            let (name, addr) = &**both;
            let mut bytes = interface(name);
            bytes.extend(&octets(*addr));
            exact(bytes)
        }
    };
    let end = after.map(|bytes| Key { bytes, end: true, last: None });
    std::iter::once(Key { bytes, end: false, last }).chain(end)
}

fn socket(addr: IpAddr, protocol: Protocol, port: u16) -> Bytes {
    let mut bytes = octets(addr);
    bytes.extend(&[protocol.number(), 0, 0, 0]);
    bytes.extend(&port.to_be_bytes());
    bytes.extend(&[0, 0]);
    bytes
}

/// Adds 2^`bit`; `None` beyond the last number.
fn add(bytes: &[u8], bit: u8) -> Option<Bytes> {
    let mut sum = Bytes::of(bytes);
    let place = bytes.len().checked_sub(1 + usize::from(bit / 8))?;
    let mut carry = 1_u16 << (bit % 8);
    for byte in sum.bytes[..=place].iter_mut().rev() {
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
        SetKind::Flow(_) => keys.into_iter().map(flow).collect(),
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
    first: Bytes,
    after: Option<Bytes>,
}

/// Joins beginnings and ends; an end that ends nothing is the kernel's business.
fn ranges(keys: BTreeSet<Key>) -> Option<Vec<Span>> {
    let mut ranges = Vec::new();
    let mut open: Option<Bytes> = None;
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

fn flow(key: Key) -> Option<Element> {
    let (first, protocol, from) = unsocket(&key.bytes)?;
    let (last, _, to) = unsocket(&key.last?)?;
    let bits = Family::of(first).bits();
    let mut nets = (0..=bits).filter_map(|len| Cidr::holding(first, len));
    let net = nets.find(|net| net.addr() == first && net.last() == last)?;
    Some(Element::Flow(net, protocol, from, to))
}

fn unsocket(bytes: &[u8]) -> Option<(IpAddr, Protocol, u16)> {
    let (first, rest) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    let port = u16::from_be_bytes([rest[4], rest[5]]);
    Some((addr(first)?, Protocol::from_number(rest[0]), port))
}

pub(super) fn exact(kind: SetKind, bytes: &[u8]) -> Option<Element> {
    let name = |bytes: &[u8]| std::str::from_utf8(until_nul(bytes)).ok()?.parse::<InterfaceName>().ok();
    match kind {
        SetKind::Interface => name(bytes).map(Element::Interface),
        SetKind::InterfaceAddress(_) => {
            let (interface, rest) = bytes.split_at_checked(16)?;
            Some(Element::interface_address(name(interface)?, addr(rest)?))
        }
        SetKind::Socket(_) => {
            let (addr, protocol, port) = unsocket(bytes)?;
            Some(Element::Socket(addr, protocol, port))
        }
        SetKind::ProtocolPort => {
            let [protocol, _, _, _, first, second, ..] = bytes else { return None };
            Some(Element::ProtocolPort(
                Protocol::from_number(*protocol),
                u16::from_be_bytes([*first, *second]),
            ))
        }
        SetKind::Address(_) | SetKind::Network(_) | SetKind::Ports | SetKind::Flow(_) => {
            addr(bytes).map(Element::Address)
        }
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
            let written: BTreeSet<Key> = keys(&element).collect();
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
