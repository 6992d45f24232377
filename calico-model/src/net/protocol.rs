//! IP protocols.

use std::fmt;
use std::str::FromStr;

use super::ParseError;

/// An IP protocol: one of the six that resources may name, or a number.
///
/// A number that has a name is always held as that name, so equality is meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(u8);

impl Protocol {
    /// Internet Control Message Protocol.
    pub const ICMP: Protocol = Protocol(1);
    /// Transmission Control Protocol.
    pub const TCP: Protocol = Protocol(6);
    /// User Datagram Protocol.
    pub const UDP: Protocol = Protocol(17);
    /// Internet Control Message Protocol for IPv6.
    pub const ICMPV6: Protocol = Protocol(58);
    /// Stream Control Transmission Protocol.
    pub const SCTP: Protocol = Protocol(132);
    /// Lightweight User Datagram Protocol.
    pub const UDPLITE: Protocol = Protocol(136);

    const NAMES: [(&'static str, Protocol); 6] = [
        ("ICMP", Self::ICMP),
        ("TCP", Self::TCP),
        ("UDP", Self::UDP),
        ("ICMPv6", Self::ICMPV6),
        ("SCTP", Self::SCTP),
        ("UDPLite", Self::UDPLITE),
    ];

    /// Makes a protocol from its IANA number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        Self(number)
    }

    /// Returns the IANA protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Returns the name resources use, when there is one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(_, p)| *p == self).map(|(n, _)| *n)
    }

    /// Reports whether packets of this protocol carry ports that rules may match: TCP, UDP and SCTP.
    #[must_use]
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }
}

impl FromStr for Protocol {
    type Err = ParseError;

    /// Reads a name, in exactly the case that the v3 API wants, or a number from 0 to 255.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Some((_, protocol)) = Self::NAMES.iter().find(|(n, _)| *n == text) {
            return Ok(*protocol);
        }
        text.parse().map(Protocol).map_err(|_| {
            ParseError::new(text, "TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 0 to 255")
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_names_are_case_sensitive_and_numbers_meet_their_names() {
        assert_eq!("TCP".parse(), Ok(Protocol::TCP));
        assert_eq!("6".parse(), Ok(Protocol::TCP));
        assert!("tcp".parse::<Protocol>().is_err());
        assert_eq!(Protocol::from_number(47).to_string(), "47");
    }
}
