//! Numbers, what is written as one or as text, and yes or no.

use serde_json::{Number, Value, json};

use super::{FromWire, Path, Report, Schemas, ToWire, text_from_wire, text_schema};
use crate::asn::AsNumber;
use crate::net::Protocol;

impl FromWire for bool {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        let read = value.as_bool();
        if read.is_none() {
            report.fault(at, Some(value), "must be true or false");
        }
        read
    }

    fn stand_in() -> Self {
        false
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

            fn stand_in() -> Self {
                0
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

    fn stand_in() -> Self {
        0
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

    fn stand_in() -> Self {
        0.0
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

    fn stand_in() -> Self {
        AsNumber::DEFAULT
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

    fn stand_in() -> Self {
        Protocol::TCP
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
