//! Values that are written as text: what has a parser of its own, and the standard library's addresses.

use serde_json::Value;

use super::{FromWire, Path, Report, Schemas, ToWire, text_schema};
use crate::net::ParseError;
use crate::selector::Selector;

/// Reads text through a type's own parser, so that the parser's words become the fault's rule.
pub(crate) fn text_from_wire<T: std::str::FromStr<Err: Rule>>(
    value: &Value,
    at: Path<'_>,
    report: &mut Report,
) -> Option<T> {
    let Some(text) = value.as_str() else {
        report.fault(at, Some(value), "must be text");
        return None;
    };
    text.parse().map_err(|error: T::Err| report.fault(at, Some(value), error.rule())).ok()
}

/// The error of a parser, as the rule that a value breaks: the value is told beside it.
pub(crate) trait Rule {
    /// Returns the end of a sentence that begins with the path.
    fn rule(&self) -> String;
}

impl Rule for ParseError {
    fn rule(&self) -> String {
        format!("must be {}", self.expected)
    }
}

impl Rule for std::convert::Infallible {
    fn rule(&self) -> String {
        match *self {}
    }
}

/// Makes types that are read from text and written as text readable and writable: each with a text that stands in for a
/// faulty one, and a pattern that says to the schema what the parser takes, and may take more.
macro_rules! wire_text {
    ($($type:ty as $stand_in:literal $(= $pattern:literal)?),* $(,)?) => {$(
        impl $crate::wire::FromWire for $type {
            fn from_wire(
                value: &serde_json::Value,
                at: $crate::wire::Path<'_>,
                report: &mut $crate::wire::Report,
            ) -> Option<Self> {
                $crate::wire::text_from_wire(value, at, report)
            }

            fn stand_in() -> Self {
                $stand_in.parse().expect("a constant")
            }

            fn schema(_: &mut $crate::wire::Schemas) -> serde_json::Value {
                let pattern: &[&str] = &[$($pattern)?];
                $crate::wire::text_schema(pattern.first().copied())
            }
        }

        impl $crate::wire::ToWire for $type {
            fn to_wire(&self) -> serde_json::Value {
                serde_json::Value::String(self.to_string())
            }
        }
    )*};
}
pub(crate) use wire_text;

wire_text!(
    crate::net::Cidr as "0.0.0.0/0" = "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$",
    crate::net::InterfaceAddr as "0.0.0.0" = "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$",
    crate::net::Mac as "00:00:00:00:00:00",
    crate::asn::RouterId as "1.1.1.1" = "^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$",
    crate::asn::Community as "0:0" = "^[0-9]+:[0-9]+(:[0-9]+)?$",
    crate::name::Name as "x" = "^[a-z0-9.-]{1,253}$",
    crate::name::NodeName as "x" = "^[a-z0-9.-]{1,253}$",
    crate::name::Namespace as "x" = "^[a-z0-9-]{1,63}$",
    crate::name::InterfaceName as "x" = "^[a-zA-Z0-9_.-]{1,15}$",
    crate::resource::block::Owner as "host:x" = "^(host|virtual):",
    String as "",
);

/// The standard library's addresses, whose parsers do not say what they want.
macro_rules! wire_address {
    ($($type:ty as $stand_in:expr, $pattern:literal, $rule:literal;)*) => {$(
        impl FromWire for $type {
            fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
                let read = value.as_str().and_then(|text| text.parse().ok());
                if read.is_none() {
                    report.fault(at, Some(value), $rule);
                }
                read
            }

            fn stand_in() -> Self {
                $stand_in.into()
            }

            fn schema(_: &mut Schemas) -> Value {
                text_schema(Some($pattern))
            }
        }

        impl ToWire for $type {
            fn to_wire(&self) -> Value {
                Value::String(self.to_string())
            }
        }
    )*};
}
wire_address! {
    std::net::IpAddr as std::net::Ipv4Addr::UNSPECIFIED, "^[0-9a-fA-F:.]+$", "must be an address without a prefix length";
    std::net::Ipv4Addr as Self::UNSPECIFIED, "^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$", "must be an IPv4 address without a prefix length";
    std::net::Ipv6Addr as Self::UNSPECIFIED, "^[0-9a-fA-F:.]+$", "must be an IPv6 address without a prefix length";
}

impl FromWire for Selector {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        let error = match value.as_str().map(str::parse::<Selector>) {
            None => {
                report.fault(at, Some(value), "must be text");
                return None;
            }
            Some(Ok(selector)) => return Some(selector),
            Some(Err(error)) => error,
        };
        report.fault(at, Some(value), error.to_string());
        if let Some(fault) = report.faults.last_mut() {
            fault.snippet = Some(error.caret());
        }
        None
    }

    fn stand_in() -> Self {
        Selector::all()
    }

    fn schema(_: &mut Schemas) -> Value {
        text_schema(None)
    }
}

impl ToWire for Selector {
    fn to_wire(&self) -> Value {
        Value::String(self.to_string())
    }
}
