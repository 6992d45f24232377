//! Numbers that BGP speaks: autonomous systems, router identifiers, communities.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::net::{ParseError, serde_as_text};

/// A four-octet autonomous system number (RFC 6793), never 0 (RFC 7607).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsNumber(u32);

impl AsNumber {
    /// The number Calico uses when nothing is configured.
    pub const DEFAULT: AsNumber = AsNumber(64512);
    /// The placeholder that an old speaker sees for a number over 65,535 (RFC 6793 section 9).
    pub const TRANS: AsNumber = AsNumber(23456);

    /// Makes an AS number, or `None` for 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for AsNumber {
    type Err = ParseError;

    /// Reads `65000` or the dotted form `1.10`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fault =
            || ParseError::new(text, "an AS number from 1 to 4294967295, or in dotted form such as 1.10");
        let number = match text.split_once('.') {
            Some((high, low)) => {
                let high: u16 = high.parse().map_err(|_| fault())?;
                let low: u16 = low.parse().map_err(|_| fault())?;
                u32::from(high) << 16 | u32::from(low)
            }
            None => text.parse().map_err(|_| fault())?,
        };
        Self::new(number).ok_or_else(fault)
    }
}

impl fmt::Display for AsNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A BGP identifier (RFC 4271 section 4.2, RFC 6286): a non-zero number written as an IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(Ipv4Addr);

impl RouterId {
    /// Makes a router identifier, or `None` for 0.0.0.0.
    #[must_use]
    pub fn new(id: Ipv4Addr) -> Option<Self> {
        (!id.is_unspecified()).then_some(Self(id))
    }

    /// Returns the identifier in its address form.
    #[must_use]
    pub fn addr(self) -> Ipv4Addr {
        self.0
    }
}

impl FromStr for RouterId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.parse()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| ParseError::new(text, "a router id: an IPv4 address other than 0.0.0.0"))
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A community that a route carries: standard (RFC 1997) `aa:nn`, or large (RFC 8092) `aa:nn:mm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// Two 16-bit halves.
    Standard(u16, u16),
    /// Three 32-bit parts.
    Large(u32, u32, u32),
}

impl FromStr for Community {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fault =
            || ParseError::new(text, "a community: aa:nn with 16-bit halves, or aa:nn:mm with 32-bit parts");
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [a, b] => Ok(Self::Standard(a.parse().map_err(|_| fault())?, b.parse().map_err(|_| fault())?)),
            [a, b, c] => Ok(Self::Large(
                a.parse().map_err(|_| fault())?,
                b.parse().map_err(|_| fault())?,
                c.parse().map_err(|_| fault())?,
            )),
            _ => Err(fault()),
        }
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(a, b) => write!(f, "{a}:{b}"),
            Self::Large(a, b, c) => write!(f, "{a}:{b}:{c}"),
        }
    }
}

serde_as_text!(AsNumber, RouterId, Community);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_as_number_reads_both_forms_and_never_zero() {
        assert_eq!("1.10".parse(), Ok(AsNumber(65546)));
        assert_eq!("64512".parse(), Ok(AsNumber::DEFAULT));
        assert!("0".parse::<AsNumber>().is_err());
        assert!("0.0".parse::<AsNumber>().is_err());
        assert!("4294967296".parse::<AsNumber>().is_err());
    }

    #[test]
    fn communities_keep_their_widths() {
        assert_eq!("65535:1".parse(), Ok(Community::Standard(65535, 1)));
        assert!("65536:1".parse::<Community>().is_err());
        assert_eq!("65536:1:2".parse(), Ok(Community::Large(65536, 1, 2)));
    }
}
