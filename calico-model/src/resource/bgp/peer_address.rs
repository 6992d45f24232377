//! Where a BGP peer listens.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::net::ParseError;

/// A peer's address with an optional port: `1.2.3.4`, `1.2.3.4:179`, `2001::1` or `[2001::1]:179`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// The address.
    pub addr: IpAddr,
    /// The TCP port; `None` is 179.
    pub port: Option<u16>,
}

impl FromStr for PeerAddress {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Ok(addr) = text.parse() {
            return Ok(Self { addr, port: None });
        }
        match text.parse::<SocketAddr>() {
            Ok(socket) if socket.port() != 0 => Ok(Self { addr: socket.ip(), port: Some(socket.port()) }),
            _ => Err(ParseError::new(
                text,
                "an address with an optional port, such as 10.0.0.1:179 or [fd00::1]:179",
            )),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.addr, port).fmt(f),
            None => self.addr.fmt(f),
        }
    }
}

crate::wire::wire_text!(PeerAddress as "0.0.0.0" = "^[0-9a-fA-F:.\\[\\]]+$");
