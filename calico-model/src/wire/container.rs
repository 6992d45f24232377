//! Values that hold others: lists, maps, what may be null, and any JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{FromWire, Path, Report, SHOWN, Schemas, ToWire, whole};

impl<T: FromWire> FromWire for Vec<T> {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        whole(value, at, report)
    }

    /// Reads every item, so that each faulty one is reported.
    fn in_part(value: &Value, at: Path<'_>, report: &mut Report) -> Self {
        let Some(items) = value.as_array() else {
            report.fault(at, Some(value), "must be a list");
            return Self::stand_in();
        };
        // Exactly as large as it has to be: what is read is held by the hundred thousand.
        let mut read = Vec::with_capacity(items.len());
        let before = report.faults.len();
        for (i, item) in items.iter().enumerate() {
            let item = T::in_part(item, at.index(i), report);
            // With so many faults no rule is asked any more, and nothing is kept for it.
            if report.faults.len() - before <= SHOWN {
                read.push(item);
            }
        }
        read
    }

    /// A list that is given.
    fn stand_in() -> Self {
        vec![T::stand_in()]
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

    fn in_part(value: &Value, at: Path<'_>, report: &mut Report) -> Self {
        Box::new(T::in_part(value, at, report))
    }

    fn stand_in() -> Self {
        Box::new(T::stand_in())
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

    fn stand_in() -> Self {
        None
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
        whole(value, at, report)
    }

    /// Reads every entry, so that each faulty one is reported. Those are left out.
    fn in_part(value: &Value, at: Path<'_>, report: &mut Report) -> Self {
        let Some(object) = value.as_object() else {
            report.fault(at, Some(value), "must be an object");
            return Self::stand_in();
        };
        let read =
            |(key, item): (&String, &Value)| Some((key.clone(), T::from_wire(item, at.key(key), report)?));
        object.iter().filter_map(read).collect()
    }

    fn stand_in() -> Self {
        Self::new()
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

    fn stand_in() -> Self {
        Value::Null
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
