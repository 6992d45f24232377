//! What a workload answers on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::probe::Probe;

/// A port that a workload answers on: `80` or `80/tcp` for TCP, `53/udp` for UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Port {
    /// A TCP port.
    Tcp(u16),
    /// A UDP port.
    Udp(u16),
}

/// A text that is no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a port is a number between 1 and 65535, or such a number with /tcp or /udp behind it")]
pub struct PortError;

impl Port {
    /// Returns the probe that asks for it.
    #[must_use]
    pub fn probe(self) -> Probe {
        match self {
            Self::Tcp(number) => Probe::Tcp(number),
            Self::Udp(number) => Probe::Udp(number),
        }
    }
}

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        match (number.parse().map_err(|_| PortError)?, protocol) {
            (0, _) => Err(PortError),
            (number, "tcp") => Ok(Self::Tcp(number)),
            (number, "udp") => Ok(Self::Udp(number)),
            _ => Err(PortError),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(number) => write!(f, "{number}"),
            Self::Udp(number) => write!(f, "{number}/udp"),
        }
    }
}

impl TryFrom<String> for Port {
    type Error = PortError;

    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        port.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_reads_what_it_prints_and_nothing_odd() {
        for port in [Port::Tcp(80), Port::Udp(53), Port::Tcp(65535)] {
            assert_eq!(port.to_string().parse(), Ok(port));
        }
        assert_eq!("80/tcp".parse(), Ok(Port::Tcp(80)));
        for text in ["", "0", "65536", "80/", "/udp", "80/sctp", "-1", "80/udp/udp"] {
            assert_eq!(text.parse::<Port>(), Err(PortError), "{text}");
        }
    }
}
