//! Values without fields: text, numbers, lists, enumerations.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::{Number, Value, json};

use super::{FromWire, Path, Report, Schemas, ToWire, text_schema};
use crate::asn::AsNumber;
use crate::label::Labels;
use crate::net::Protocol;
use crate::selector::Selector;

/// Reads text through a type's own parser, so that the parser's words become the fault's rule.
pub(crate) fn text_from_wire<T: FromStr<Err: fmt::Display>>(
    value: &Value,
    at: Path<'_>,
    report: &mut Report,
) -> Option<T> {
    let Some(text) = value.as_str() else {
        report.fault(at, Some(value), "must be text");
        return None;
    };
    text.parse().map_err(|error: T::Err| report.fault(at, Some(value), error.to_string())).ok()
}

/// Makes types that are read from text and written as text readable and writable; a pattern says to the schema what the
/// parser takes, and may take more.
macro_rules! wire_text {
    ($($type:ty $(= $pattern:literal)?),* $(,)?) => {$(
        impl $crate::wire::FromWire for $type {
            fn from_wire(
                value: &serde_json::Value,
                at: $crate::wire::Path<'_>,
                report: &mut $crate::wire::Report,
            ) -> Option<Self> {
                $crate::wire::text_from_wire(value, at, report)
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

/// Declares an enumeration by its texts. `in any case` before it reads them whether upper or lower, as upstream reads
/// the settings of its agents.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        wire_enum!(@define $(#[$meta])* $vis enum $name { $($(#[$vmeta])* $variant = $text),* });
        wire_enum!(@read $name str::eq, serde_json::json!({"type": "string", "enum": [$($text),*]}), $($variant = $text),*);
    };
    (in any case $(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        wire_enum!(@define $(#[$meta])* $vis enum $name { $($(#[$vmeta])* $variant = $text),* });
        wire_enum!(@read $name str::eq_ignore_ascii_case, $crate::wire::text_schema(Some(&$crate::wire::any_case(&[$($text),*]))), $($variant = $text),*);
    };
    (@define $(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name { $($(#[$vmeta])* $variant),* }

        impl $name {
            /// Returns the text that resources use.
            #[must_use]
            $vis fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::wire::ToWire for $name {
            fn to_wire(&self) -> serde_json::Value {
                serde_json::Value::String(self.as_str().to_owned())
            }
        }
    };
    (@read $name:ident $same:path, $schema:expr, $($variant:ident = $text:literal),*) => {
        impl $crate::wire::FromWire for $name {
            fn from_wire(
                value: &serde_json::Value,
                at: $crate::wire::Path<'_>,
                report: &mut $crate::wire::Report,
            ) -> Option<Self> {
                let all = [$(($text, Self::$variant)),*];
                let found = value.as_str().and_then(|text| all.into_iter().find(|(one, _)| $same(one, text)));
                if found.is_none() {
                    report.fault(at, Some(value), format!("must be one of {}", [$($text),*].join(", ")));
                }
                found.map(|(_, variant)| variant)
            }

            fn schema(_: &mut $crate::wire::Schemas) -> serde_json::Value {
                $schema
            }
        }
    };
}
pub(crate) use wire_enum;

wire_text!(
    crate::net::Cidr = "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$",
    crate::net::InterfaceAddr = "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$",
    crate::net::Mac,
    crate::asn::RouterId = "^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$",
    crate::asn::Community = "^[0-9]+:[0-9]+(:[0-9]+)?$",
    crate::name::Name = "^[a-z0-9.-]{1,253}$",
    crate::name::NodeName = "^[a-z0-9.-]{1,253}$",
    crate::name::Namespace = "^[a-z0-9-]{1,63}$",
    crate::name::InterfaceName = "^[a-zA-Z0-9_.-]{1,15}$",
    crate::resource::block::Owner = "^(host|virtual):",
    String,
);

/// The standard library's addresses, whose parsers do not say what they want.
macro_rules! wire_address {
    ($($type:ty = $pattern:literal, $rule:literal;)*) => {$(
        impl FromWire for $type {
            fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
                let read = value.as_str().and_then(|text| text.parse().ok());
                if read.is_none() {
                    report.fault(at, Some(value), $rule);
                }
                read
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
    std::net::IpAddr = "^[0-9a-fA-F:.]+$", "must be an address without a prefix length";
    std::net::Ipv4Addr = "^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$", "must be an IPv4 address without a prefix length";
    std::net::Ipv6Addr = "^[0-9a-fA-F:.]+$", "must be an IPv6 address without a prefix length";
}

impl FromWire for Selector {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        let error = match value.as_str().map(str::parse::<Selector>) {
            None => return text_from_wire(value, at, report),
            Some(Ok(selector)) => return Some(selector),
            Some(Err(error)) => error,
        };
        report.fault(at, Some(value), error.to_string());
        if let Some(fault) = report.faults.last_mut() {
            fault.snippet = Some(error.caret());
        }
        None
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

impl FromWire for bool {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        let read = value.as_bool();
        if read.is_none() {
            report.fault(at, Some(value), "must be true or false");
        }
        read
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({"type": "boolean"})
    }
}

impl ToWire for bool {
    fn to_wire(&self) -> Value {
        Value::Bool(*self)
    }
}

macro_rules! wire_unsigned {
    ($($type:ty),*) => {$(
        impl FromWire for $type {
            fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
                let whole = value.as_u64().or_else(|| value.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0).map(|f| f as u64));
                let read = whole.and_then(|n| <$type>::try_from(n).ok());
                if read.is_none() {
                    report.fault(at, Some(value), format!("must be a whole number from 0 to {}", <$type>::MAX));
                }
                read
            }

            fn schema(_: &mut Schemas) -> Value {
                json!({"type": "integer", "minimum": 0, "maximum": <$type>::MAX})
            }
        }

        impl ToWire for $type {
            fn to_wire(&self) -> Value {
                Value::Number(Number::from(*self))
            }
        }
    )*};
}
wire_unsigned!(u8, u16, u32, u64);

impl FromWire for i64 {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        let read = value.as_i64();
        if read.is_none() {
            report.fault(at, Some(value), "must be a whole number");
        }
        read
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({"type": "integer"})
    }
}

impl ToWire for i64 {
    fn to_wire(&self) -> Value {
        Value::Number(Number::from(*self))
    }
}

impl FromWire for f64 {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        let read = value.as_f64().filter(|number| number.is_finite());
        if read.is_none() {
            report.fault(at, Some(value), "must be a number");
        }
        read
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({"type": "number"})
    }
}

impl ToWire for f64 {
    /// A whole number is written without a fraction, as Go does.
    fn to_wire(&self) -> Value {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if self.fract() == 0.0 && self.abs() <= EXACT {
            return Value::Number(Number::from(*self as i64));
        }
        Number::from_f64(*self).map_or(Value::Null, Value::Number)
    }
}

impl FromWire for AsNumber {
    /// A number, or text in plain or dotted form.
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        if value.is_string() {
            return text_from_wire(value, at, report);
        }
        let read = value.as_u64().and_then(|number| u32::try_from(number).ok()).and_then(AsNumber::new);
        if read.is_none() {
            report.fault(at, Some(value), "must be an AS number from 1 to 4294967295");
        }
        read
    }

    fn schema(_: &mut Schemas) -> Value {
        let number = json!({"type": "integer", "minimum": 1, "maximum": u32::MAX});
        json!({"anyOf": [number, text_schema(Some("^[0-9]+([.][0-9]+)?$"))]})
    }
}

impl ToWire for AsNumber {
    fn to_wire(&self) -> Value {
        Value::Number(Number::from(self.get()))
    }
}

impl FromWire for Protocol {
    /// A name, a number, or a number as text.
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        if value.is_string() {
            return text_from_wire(value, at, report);
        }
        u8::from_wire(value, at, report).map(Protocol::from_number)
    }

    fn schema(schemas: &mut Schemas) -> Value {
        json!({"anyOf": [u8::schema(schemas), text_schema(Some("^(TCP|UDP|ICMP|ICMPv6|SCTP|UDPLite|[0-9]+)$"))]})
    }
}

impl ToWire for Protocol {
    fn to_wire(&self) -> Value {
        self.name()
            .map_or_else(|| Value::Number(Number::from(self.number())), |name| Value::String(name.to_owned()))
    }
}

impl<T: FromWire> FromWire for Vec<T> {
    /// Reads every item, so that each faulty one is reported.
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        let Some(items) = value.as_array() else {
            report.fault(at, Some(value), "must be a list");
            return None;
        };
        // Exactly as large as it has to be: what is read is held by the hundred thousand.
        let mut read = Vec::with_capacity(items.len());
        read.extend(items.iter().enumerate().filter_map(|(i, item)| T::from_wire(item, at.index(i), report)));
        (read.len() == items.len()).then_some(read)
    }

    fn schema(schemas: &mut Schemas) -> Value {
        json!({"type": "array", "items": T::schema(schemas)})
    }
}

impl<T: ToWire> ToWire for Vec<T> {
    fn to_wire(&self) -> Value {
        Value::Array(self.iter().map(ToWire::to_wire).collect())
    }
}

impl<T: FromWire> FromWire for Box<T> {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        T::from_wire(value, at, report).map(Box::new)
    }

    fn schema(schemas: &mut Schemas) -> Value {
        T::schema(schemas)
    }
}

impl<T: ToWire> ToWire for Box<T> {
    fn to_wire(&self) -> Value {
        T::to_wire(self)
    }
}

impl<T: FromWire> FromWire for Option<T> {
    /// An item of a list that may be null.
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        if value.is_null() { Some(None) } else { T::from_wire(value, at, report).map(Some) }
    }

    fn schema(schemas: &mut Schemas) -> Value {
        json!({"anyOf": [T::schema(schemas), {"type": "null"}]})
    }
}

impl<T: ToWire> ToWire for Option<T> {
    fn to_wire(&self) -> Value {
        self.as_ref().map_or(Value::Null, ToWire::to_wire)
    }
}

impl<T: FromWire> FromWire for BTreeMap<String, T> {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        let Some(object) = value.as_object() else {
            report.fault(at, Some(value), "must be an object");
            return None;
        };
        let read: Self = object
            .iter()
            .filter_map(|(key, item)| Some((key.clone(), T::from_wire(item, at.key(key), report)?)))
            .collect();
        (read.len() == object.len()).then_some(read)
    }

    fn schema(schemas: &mut Schemas) -> Value {
        json!({"type": "object", "additionalProperties": T::schema(schemas)})
    }
}

impl<T: ToWire> ToWire for BTreeMap<String, T> {
    fn to_wire(&self) -> Value {
        self.iter().map(|(key, value)| (key.clone(), value.to_wire())).collect()
    }
}

impl FromWire for Value {
    /// Any JSON, let be.
    fn from_wire(value: &Value, _: Path<'_>, _: &mut Report) -> Option<Self> {
        Some(value.clone())
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({})
    }
}

impl ToWire for Value {
    fn to_wire(&self) -> Value {
        self.clone()
    }
}

impl FromWire for crate::resource::block::AffinityState {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        let read = serde_json::from_value(value.clone()).ok();
        if read.is_none() {
            report.fault(at, Some(value), "must be one of confirmed, pending, pendingDeletion");
        }
        read
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({"type": "string", "enum": ["confirmed", "pending", "pendingDeletion"]})
    }
}

impl ToWire for crate::resource::block::AffinityState {
    fn to_wire(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

impl FromWire for Labels {
    /// Checks keys and values by the rules of Kubernetes labels.
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        let map = BTreeMap::<String, String>::from_wire(value, at, report)?;
        let before = report.faults.len();
        for (key, text) in &map {
            if !is_label_key(key) {
                report.fault(at.key(key), Some(&Value::from(key.as_str())), LABEL_KEY);
            }
            if !is_label_value(text) && !is_name_of_kubernetes(key, text) {
                report.fault(
                    at.key(key),
                    Some(&Value::String(text.clone())),
                    "must be empty, or 1 to 63 letters, digits, '-', '_' or '.' between letters or digits",
                );
            }
        }
        (report.faults.len() == before).then(|| map.into_iter().collect())
    }

    fn schema(schemas: &mut Schemas) -> Value {
        BTreeMap::<String, String>::schema(schemas)
    }
}

impl ToWire for Labels {
    fn to_wire(&self) -> Value {
        self.iter().map(|(key, value)| (key.to_owned(), Value::String(value.to_owned()))).collect()
    }
}

fn is_label_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Reports whether a label that Calico makes of a name of Kubernetes holds one. A service account's may be longer than the
/// value of a label.
fn is_name_of_kubernetes(key: &str, text: &str) -> bool {
    let made =
        ["pcns.projectcalico.org/name", "pcsa.projectcalico.org/name", "projectcalico.org/serviceaccount"];
    made.contains(&key) && text.parse::<crate::name::Name>().is_ok()
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_word(text)
}

/// What the key of a label or annotation must be.
pub(crate) const LABEL_KEY: &str = "must have a key of an optional DNS prefix and '/', then 1 to 63 letters, digits, '-', '_' or '.' between letters or digits";

/// Reports whether text may be the key of a label.
pub(crate) fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, word)) => prefix.parse::<crate::name::Name>().is_ok() && is_label_word(word),
        None => is_label_word(key),
    }
}
