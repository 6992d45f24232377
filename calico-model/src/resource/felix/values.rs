//! Parameters that have parts.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::net::{Cidr, ParseError, Protocol};
use crate::resource::duration::GoDuration;
use crate::wire::{
    FromWire, Limit, Path, Report, Rules, Schemas, ToWire, text_from_wire, text_schema, wire_struct,
};

wire_struct! {
    /// How long a component may be silent.
    pub struct HealthTimeout {
        /// The component.
        name: String = "name" required [Limit::Chars(1, usize::MAX, "_ -")],
        /// How long.
        timeout: GoDuration = "timeout" required,
    }
}

wire_struct! {
    /// A port that stays open, so that a host cannot lock out those who manage it.
    pub struct ProtoPort {
        /// Who is at the other end; `None` is anybody.
        net: Option<Cidr> = "net" optional,
        /// The protocol, in either case: TCP, UDP or SCTP.
        protocol: String = "protocol" required,
        /// The number.
        port: u16 = "port" required,
    }
    check = check_proto_port;
}

impl ProtoPort {
    /// Returns the protocol.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol.to_uppercase().parse().ok().filter(|protocol: &Protocol| protocol.has_ports())
    }

    /// Returns what is let in when nothing is configured: SSH, DHCP, BGP, etcd, Typha and the Kubernetes API.
    #[must_use]
    pub fn inbound() -> Vec<Self> {
        Self::all(("UDP", &[68]), &[22, 179, 2379, 2380, 5473, 6443, 6666, 6667])
    }

    /// Returns what is let out when nothing is configured: DNS, DHCP, BGP, etcd, Typha and the Kubernetes API.
    #[must_use]
    pub fn outbound() -> Vec<Self> {
        Self::all(("UDP", &[53, 67]), &[179, 2379, 2380, 5473, 6443, 6666, 6667])
    }

    fn all((protocol, ports): (&str, &[u16]), tcp: &[u16]) -> Vec<Self> {
        let each =
            |protocol: &str, port: &u16| Self { net: None, protocol: protocol.to_owned(), port: *port };
        tcp.iter()
            .map(|port| each("TCP", port))
            .chain(ports.iter().map(|port| each(protocol, port)))
            .collect()
    }
}

fn check_proto_port(port: &mut ProtoPort, mut rules: Rules<'_, '_, '_>) {
    if port.protocol().is_none() {
        rules.wrong("protocol", "must be TCP, UDP or SCTP");
    }
}

wire_struct! {
    /// A range of routing tables, both ends included.
    pub struct TableRange {
        /// The first.
        min: u32 = "min" required,
        /// The last.
        max: u32 = "max" required,
    }
}

/// The value of the field of the IP header that says how a packet is to be treated (RFC 2474), 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dscp(u8);

/// The names of values: RFC 2474 (CS), RFC 2597 (AF), RFC 3246 (EF), and DF for the default.
const DSCP_NAMES: [(&str, u8); 21] = [
    ("DF", 0),
    ("EF", 46),
    ("AF11", 10),
    ("AF12", 12),
    ("AF13", 14),
    ("AF21", 18),
    ("AF22", 20),
    ("AF23", 22),
    ("AF31", 26),
    ("AF32", 28),
    ("AF33", 30),
    ("AF41", 34),
    ("AF42", 36),
    ("AF43", 38),
    ("CS0", 0),
    ("CS1", 8),
    ("CS2", 16),
    ("CS3", 24),
    ("CS4", 32),
    ("CS5", 40),
    ("CS6", 48),
];

impl Dscp {
    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl FromStr for Dscp {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let named = DSCP_NAMES.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        named
            .or_else(|| text.parse().ok().filter(|value| *value < 64))
            .map(Self)
            .ok_or_else(|| ParseError::new(text, "a DSCP value: 0 to 63, DF, EF, AF11 to AF43 or CS0 to CS6"))
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromWire for Dscp {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        match value.as_u64() {
            Some(number) => text_from_wire(&Value::String(number.to_string()), at, report),
            None => text_from_wire(value, at, report),
        }
    }

    fn stand_in() -> Self {
        Self(0)
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({"anyOf": [{"type": "integer", "minimum": 0, "maximum": 63}, text_schema(Some("^(DF|EF|AF[1-4][1-3]|CS[0-6]|[0-9]+)$"))]})
    }
}

impl ToWire for Dscp {
    fn to_wire(&self) -> Value {
        self.0.to_wire()
    }
}
