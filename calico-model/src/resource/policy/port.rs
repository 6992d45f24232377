//! Ports as rules write them.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::net::ParseError;
use crate::wire::{FromWire, Path, Report, Schemas, ToWire, text_from_wire, text_schema};

/// A port, a range of ports, or the name of a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// From the first to the last, both included; a single port is a range of one.
    Range(u16, u16),
    /// A name that endpoints give to ports of theirs.
    Named(Box<str>),
}

const PORT: &str = "a port from 0 to 65535, a range such as 8000:8080, or a name of 1 to 128 letters, digits, '_', '.' or '-'";

impl FromStr for PortMatch {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fault = || ParseError::new(text, PORT);
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if let Some((first, last)) = text.split_once(':') {
            let (first, last): (u16, u16) =
                (first.parse().map_err(|_| fault())?, last.parse().map_err(|_| fault())?);
            return if first <= last { Ok(Self::Range(first, last)) } else { Err(fault()) };
        }
        if digits(text) {
            let port = text.parse().map_err(|_| fault())?;
            return Ok(Self::Range(port, port));
        }
        let named = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if named { Ok(Self::Named(text.into())) } else { Err(fault()) }
    }
}

impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(first, last) if first == last => write!(f, "{first}"),
            Self::Range(first, last) => write!(f, "{first}:{last}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl FromWire for PortMatch {
    /// A number, or text.
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        if value.is_string() {
            return text_from_wire(value, at, report);
        }
        u16::from_wire(value, at, report).map(|port| Self::Range(port, port))
    }

    fn stand_in() -> Self {
        Self::Range(1, 1)
    }

    fn schema(schemas: &mut Schemas) -> Value {
        json!({"anyOf": [u16::schema(schemas), text_schema(Some("^([0-9]+:[0-9]+|[a-zA-Z0-9_.-]{1,128})$"))]})
    }
}

impl ToWire for PortMatch {
    fn to_wire(&self) -> Value {
        match self {
            Self::Range(first, last) if first == last => first.to_wire(),
            Self::Range(..) | Self::Named(_) => Value::String(self.to_string()),
        }
    }
}
