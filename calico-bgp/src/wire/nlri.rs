//! Prefixes as BGP carries them: a length in bits and just enough octets, with a path identifier before each one when
//! the two sides agreed on it (RFC 4271 section 4.3, RFC 4760 section 5, RFC 7911 section 3).
//!
//! ```text
//! [path identifier, 4 octets, only with ADD-PATH] [length in bits, 1 octet] [ceil(length / 8) octets]
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use calico_model::{Cidr, Family};

use super::error::{DecodeError, Notification};
use super::reader::Reader;

/// An address of one family, so that tables and codecs are written once and stored compactly.
pub trait Address: Copy + Ord + Hash + fmt::Debug + fmt::Display + Into<IpAddr> + 'static {
    /// The family.
    const FAMILY: Family;
    /// The number of bits.
    const BITS: u8;

    /// Makes an address of its leading octets, the rest being zero, and clears the bits after `len`.
    fn from_octets(octets: &[u8], len: u8) -> Self;

    /// Returns the address when it is of this family.
    fn from_ip(addr: IpAddr) -> Option<Self>;

    /// Calls `take` with the octets.
    fn with_octets<R>(self, take: impl FnOnce(&[u8]) -> R) -> R;

    /// Reports whether routers pass on packets to the prefix with this first address and length: not to groups, nor to what
    /// every host or link has for itself, nor to the address of no host or of all of them (RFC 6890). A prefix that only
    /// holds such addresses among others, as the default route does, is another one.
    fn is_routable(self, len: u8) -> bool;

    /// What prefixes are compared by: one number where that is possible, because tables compare them all the time.
    type Rank: Ord;

    /// Returns the rank of the prefix with this first address and length: by address, then by length.
    fn rank(self, len: u8) -> Self::Rank;
}

fn mask(octets: &mut [u8], len: u8) {
    for (i, octet) in octets.iter_mut().enumerate() {
        let kept = usize::from(len).saturating_sub(i * 8).min(8);
        *octet &= (0xff00_u16 >> kept) as u8;
    }
}

impl Address for Ipv4Addr {
    const FAMILY: Family = Family::V4;
    const BITS: u8 = 32;

    fn from_octets(octets: &[u8], len: u8) -> Self {
        let mut word = [0; 4];
        let count = octets.len().min(4);
        word[..count].copy_from_slice(&octets[..count]);
        let kept = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
        Self::from(u32::from_be_bytes(word) & kept)
    }

    fn from_ip(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }
    }

    fn with_octets<R>(self, take: impl FnOnce(&[u8]) -> R) -> R {
        take(&self.octets())
    }

    fn is_routable(self, len: u8) -> bool {
        match self.octets()[0] {
            0 => len < 8,
            // What is reserved for future use has long come into use inside of data centres.
            240..=255 => !self.is_broadcast(),
            first => first != 127 && first < 224,
        }
    }

    type Rank = u64;

    fn rank(self, len: u8) -> u64 {
        u64::from(u32::from(self)) << 8 | u64::from(len)
    }
}

impl Address for Ipv6Addr {
    const FAMILY: Family = Family::V6;
    const BITS: u8 = 128;

    fn from_octets(octets: &[u8], len: u8) -> Self {
        let mut word = [0; 16];
        let count = octets.len().min(16);
        word[..count].copy_from_slice(&octets[..count]);
        mask(&mut word, len);
        Self::from(word)
    }

    fn from_ip(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(v6),
        }
    }

    fn with_octets<R>(self, take: impl FnOnce(&[u8]) -> R) -> R {
        take(&self.octets())
    }

    fn is_routable(self, len: u8) -> bool {
        match self.octets()[0] {
            0 => len < 128 || u128::from(self) > 1,
            0xfe => len < 10 || !self.is_unicast_link_local(),
            first => first != 0xff,
        }
    }

    type Rank = (u128, u8);

    fn rank(self, len: u8) -> (u128, u8) {
        (u128::from(self), len)
    }
}

/// A destination of one family, in 5 or 17 octets; the bits after its length are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix<A> {
    addr: A,
    len: u8,
}

impl<A: Address> Ord for Prefix<A> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.addr.rank(self.len).cmp(&other.addr.rank(other.len))
    }
}

impl<A: Address> PartialOrd for Prefix<A> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<A: Address> Prefix<A> {
    /// Returns the prefix of a network when it is of this family.
    #[must_use]
    pub fn of(cidr: Cidr) -> Option<Self> {
        Some(Self { addr: A::from_ip(cidr.addr())?, len: cidr.prefix_len() })
    }

    /// Returns the first address.
    #[must_use]
    pub fn addr(self) -> A {
        self.addr
    }

    /// Returns the length in bits.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the length of a prefix, which is not a container")]
    pub fn len(self) -> u8 {
        self.len
    }

    /// Returns the model's form.
    #[must_use]
    pub fn cidr(self) -> Cidr {
        Cidr::holding(self.addr.into(), self.len).unwrap_or_else(|| Cidr::host(self.addr.into()))
    }

    /// Reports whether routers pass on packets to its addresses; see [`Address::is_routable`].
    pub(crate) fn is_routable(self) -> bool {
        self.addr.is_routable(self.len)
    }

    fn wire_len(self) -> usize {
        usize::from(self.len).div_ceil(8)
    }
}

impl<A: fmt::Display> fmt::Display for Prefix<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl<A: fmt::Debug> fmt::Debug for Prefix<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.addr, self.len)
    }
}

/// A prefix with the identifier of the path meant; 0 where the sides did not agree on identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nlri<A> {
    /// The destination.
    pub prefix: Prefix<A>,
    /// The path identifier (RFC 7911), or 0.
    pub path_id: u32,
}

impl<A: Address> Ord for Nlri<A> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.prefix.cmp(&other.prefix).then(self.path_id.cmp(&other.path_id))
    }
}

impl<A: Address> PartialOrd for Nlri<A> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Whether each prefix has a path identifier before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathIds {
    /// Prefixes stand alone.
    #[default]
    Absent,
    /// Each prefix follows its four-octet identifier (RFC 7911).
    Present,
}

impl<A: Address> Nlri<A> {
    /// Returns how many octets [`Nlri::encode`] appends.
    #[must_use]
    pub fn encoded_len(self, ids: PathIds) -> usize {
        let id = match ids {
            PathIds::Absent => 0,
            PathIds::Present => 4,
        };
        id + 1 + self.prefix.wire_len()
    }

    /// Appends the wire form.
    pub fn encode(self, ids: PathIds, out: &mut Vec<u8>) {
        if ids == PathIds::Present {
            out.extend_from_slice(&self.path_id.to_be_bytes());
        }
        out.push(self.prefix.len);
        self.prefix.addr.with_octets(|octets| out.extend_from_slice(&octets[..self.prefix.wire_len()]));
    }
}

fn read<A: Address>(reader: &mut Reader<'_>, ids: PathIds) -> Option<Nlri<A>> {
    let path_id = match ids {
        PathIds::Absent => 0,
        PathIds::Present => reader.u32()?,
    };
    let len = reader.u8().filter(|len| *len <= A::BITS)?;
    let octets = reader.take(usize::from(len).div_ceil(8))?;
    Some(Nlri { prefix: Prefix { addr: A::from_octets(octets, len), len }, path_id })
}

/// A list of prefixes inside a received message: checked once, read without copying.
#[derive(Debug, Clone, Copy)]
pub struct Prefixes<'a, A> {
    octets: &'a [u8],
    ids: PathIds,
    family: PhantomData<A>,
}

impl<'a, A: Address> Prefixes<'a, A> {
    /// Returns a list of no prefixes.
    #[must_use]
    pub fn none() -> Self {
        Self { octets: &[], ids: PathIds::Absent, family: PhantomData }
    }

    /// Checks a list.
    ///
    /// # Errors
    /// A length beyond the family's, or a prefix cut short: the rest of the list cannot be found any more, so the
    /// session must be reset (RFC 7606 section 5.3).
    pub fn decode(octets: &'a [u8], ids: PathIds) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(octets);
        while !reader.is_empty() {
            if read::<A>(&mut reader, ids).is_none() {
                return Err(DecodeError::reset(
                    Notification::INVALID_NETWORK_FIELD,
                    "a prefix is longer than its family's addresses or than its list",
                ));
            }
        }
        Ok(Self { octets, ids, family: PhantomData })
    }

    /// Reports whether there is nothing in the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Returns the prefixes in the order received.
    pub fn iter(&self) -> impl Iterator<Item = Nlri<A>> + 'a {
        let ids = self.ids;
        let mut reader = Reader::new(self.octets);
        std::iter::from_fn(move || read(&mut reader, ids))
    }
}
