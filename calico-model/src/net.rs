//! Addresses, networks, ports and protocols: one type for both address families.
//!
//! Everything here is strict at the door. A [`Cidr`] never has host bits set, an address is never written with
//! leading zeros, and text that another Calico would read differently is refused rather than guessed at.

mod mac;
mod protocol;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use mac::Mac;
pub use protocol::Protocol;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// Returns the family of an address.
    #[must_use]
    pub fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Returns the number of bits of an address: 32 or 128.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// Returns the version number, 4 or 6, as resources write it.
    #[must_use]
    pub fn version(self) -> u8 {
        match self {
            Family::V4 => 4,
            Family::V6 => 6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// Text that is not what the type it was meant for accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct ParseError {
    /// The text as given, cut at 80 characters.
    pub value: String,
    /// What would have been accepted, as a noun phrase.
    pub expected: &'static str,
}

impl ParseError {
    /// Makes an error that quotes `value`, cut so that hostile input cannot fill a log.
    #[must_use]
    pub fn new(value: &str, expected: &'static str) -> Self {
        Self { value: value.chars().take(80).collect(), expected }
    }
}

/// A network: an address with all host bits zero, and a prefix length.
///
/// # Examples
/// ```
/// use calico_model::Cidr;
/// let pool: Cidr = "192.168.0.0/16".parse()?;
/// assert!(pool.contains("192.168.3.4".parse().unwrap()));
/// assert!("192.168.0.1/16".parse::<Cidr>().is_err(), "host bits are set");
/// assert_eq!("10.0.0.1".parse::<Cidr>()?.to_string(), "10.0.0.1/32");
/// # Ok::<(), calico_model::ParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNet);

impl Cidr {
    /// Makes the network of `prefix_len` bits that holds `addr`, or `None` when the length exceeds the family's.
    #[must_use]
    pub fn holding(addr: IpAddr, prefix_len: u8) -> Option<Self> {
        IpNet::new(addr, prefix_len).ok().map(|net| Self(net.trunc()))
    }

    /// Makes the /32 or /128 of one address.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        Self(IpNet::from(addr))
    }

    /// Returns the first address of the network.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.0.addr()
    }

    /// Returns the last address of the network.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.0.broadcast()
    }

    /// Returns the prefix length in bits.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Returns the address family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.addr())
    }

    /// Reports whether this is a single address.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.prefix_len() == self.family().bits()
    }

    /// Reports whether `addr` is inside; an address of the other family never is.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.contains(&addr)
    }

    /// Reports whether `other` is equal to or inside this network.
    #[must_use]
    pub fn covers(&self, other: &Cidr) -> bool {
        self.prefix_len() <= other.prefix_len() && self.contains(other.addr())
    }

    /// Reports whether the two networks share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Returns the `index`th address from the first, or `None` outside the network.
    #[must_use]
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        let size_bits = u32::from(self.family().bits() - self.prefix_len());
        if size_bits < 128 && index >> size_bits != 0 {
            return None;
        }
        match self.addr() {
            IpAddr::V4(a) => {
                Some(IpAddr::V4(Ipv4Addr::from(u32::from(a).checked_add(u32::try_from(index).ok()?)?)))
            }
            IpAddr::V6(a) => Some(IpAddr::V6(Ipv6Addr::from(u128::from(a).checked_add(index)?))),
        }
    }

    /// Returns the position of `addr` counted from the first address, or `None` when it is outside.
    #[must_use]
    pub fn index_of(&self, addr: IpAddr) -> Option<u128> {
        if !self.contains(addr) {
            return None;
        }
        match (self.addr(), addr) {
            (IpAddr::V4(base), IpAddr::V4(a)) => Some(u128::from(u32::from(a) - u32::from(base))),
            (IpAddr::V6(base), IpAddr::V6(a)) => Some(u128::from(a) - u128::from(base)),
            _ => None,
        }
    }

    /// Returns how many networks of `prefix_len` bits fit, or `None` when not even one does or they exceed 2^127.
    #[must_use]
    pub fn subnet_count(&self, prefix_len: u8) -> Option<u128> {
        let bits = prefix_len.checked_sub(self.prefix_len())?;
        (prefix_len <= self.family().bits() && bits < 128).then(|| 1u128 << bits)
    }

    /// Returns the `index`th subnet of `prefix_len` bits.
    #[must_use]
    pub fn subnet(&self, prefix_len: u8, index: u128) -> Option<Cidr> {
        let count = self.subnet_count(prefix_len)?;
        let host_bits = u32::from(self.family().bits() - prefix_len);
        if index >= count {
            return None;
        }
        let offset = if host_bits >= 128 { 0 } else { index << host_bits };
        Cidr::holding(self.nth(offset)?, prefix_len)
    }

    /// Returns the form with `-` for `/` that datastore keys use: `10.0.0.0-26`.
    #[must_use]
    pub fn key_form(&self) -> String {
        format!("{}-{}", self.addr(), self.prefix_len())
    }

    /// Reads the form that datastore keys use: `10.0.0.0-26`.
    ///
    /// # Errors
    /// When the text is not an address, a dash and a prefix length, or host bits are set.
    pub fn from_key_form(text: &str) -> Result<Self, ParseError> {
        let (addr, len) = text.rsplit_once('-').ok_or_else(|| ParseError::new(text, CIDR))?;
        parse_cidr(text, addr, len)
    }
}

const CIDR: &str = "a network such as 192.168.0.0/16 or fd00::/64, with no bits set beyond the prefix length";

fn parse_cidr(whole: &str, addr: &str, len: &str) -> Result<Cidr, ParseError> {
    let fault = || ParseError::new(whole, CIDR);
    let addr: IpAddr = addr.parse().map_err(|_| fault())?;
    let canonical_len =
        !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit()) && (len == "0" || !len.starts_with('0'));
    let prefix_len: u8 = if canonical_len { len.parse().map_err(|_| fault())? } else { return Err(fault()) };
    let cidr = Cidr::holding(addr, prefix_len).ok_or_else(fault)?;
    if cidr.addr() == addr { Ok(cidr) } else { Err(fault()) }
}

impl FromStr for Cidr {
    type Err = ParseError;

    /// Reads `addr/len`; a bare address is its /32 or /128.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.split_once('/') {
            Some((addr, len)) => parse_cidr(text, addr, len),
            None => text.parse().map(Cidr::host).map_err(|_| ParseError::new(text, CIDR)),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An address of an interface: the address itself and the length of the subnet it is in, such as `172.16.6.47/24`.
///
/// Unlike a [`Cidr`] it keeps its host bits. A node's own prefix decides which other nodes are in its subnet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddr(IpNet);

impl InterfaceAddr {
    /// Makes an interface address, or `None` when the length exceeds the family's.
    #[must_use]
    pub fn new(addr: IpAddr, prefix_len: u8) -> Option<Self> {
        IpNet::new(addr, prefix_len).ok().map(Self)
    }

    /// Returns the address.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.0.addr()
    }

    /// Returns the length of the subnet's prefix.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Returns the subnet the address is in.
    #[must_use]
    pub fn subnet(&self) -> Cidr {
        Cidr(self.0.trunc())
    }
}

impl FromStr for InterfaceAddr {
    type Err = ParseError;

    /// Reads `addr/len`; a bare address gets the full length.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fault =
            || ParseError::new(text, "an address with an optional prefix length, such as 172.16.6.47/24");
        let (addr, len) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let addr: IpAddr = addr.parse().map_err(|_| fault())?;
        let len = match len {
            Some(l) => l.parse().map_err(|_| fault())?,
            None => Family::of(addr).bits(),
        };
        Self::new(addr, len).ok_or_else(fault)
    }
}

impl fmt::Display for InterfaceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for InterfaceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(crate) use serde_as_text;

serde_as_text!(Cidr, InterfaceAddr, Mac);

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_cidr_refuses_what_another_calico_would_read_differently() {
        for text in [
            "10.0.0.1/8",
            "010.0.0.0/8",
            "10.0.0.0/08",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "",
            "/8",
            "fd00::1/64",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn subnets_are_counted_and_found_in_both_families() {
        assert_eq!(cidr("192.168.0.0/16").subnet_count(26), Some(1024));
        assert_eq!(cidr("192.168.0.0/16").subnet(26, 1023), Some(cidr("192.168.255.192/26")));
        assert_eq!(cidr("192.168.0.0/16").subnet(26, 1024), None);
        assert_eq!(cidr("fd00::/64").subnet(122, 1), Some(cidr("fd00::40/122")));
        assert_eq!(cidr("0.0.0.0/0").nth(u128::from(u32::MAX)), Some("255.255.255.255".parse().unwrap()));
        assert_eq!(cidr("0.0.0.0/0").nth(1 << 32), None);
        assert_eq!(cidr("10.0.0.0/30").index_of("10.0.0.3".parse().unwrap()), Some(3));
    }

    #[test]
    fn key_form_round_trips_in_both_families() {
        for text in ["10.0.0.0/26", "fd00:1::/122"] {
            assert_eq!(Cidr::from_key_form(&cidr(text).key_form()), Ok(cidr(text)));
        }
    }

    #[test]
    fn an_interface_address_keeps_its_host_bits() {
        let addr: InterfaceAddr = "172.16.6.47/24".parse().unwrap();
        assert_eq!(addr.to_string(), "172.16.6.47/24");
        assert_eq!(addr.subnet(), cidr("172.16.6.0/24"));
    }
}
