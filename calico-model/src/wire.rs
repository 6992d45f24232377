//! The door between JSON and checked types.
//!
//! The *wire* shape of a resource is its JSON value: lenient, and kept whole, so that what we do not know survives a
//! read-modify-write. The *checked* shape is a Rust type in which a wrong state cannot be written down. Reading turns
//! one into the other and gathers **every** fault, each with the path of its field; writing merges a checked value over
//! the stored one.
//!
//! Each checked struct is one table of fields (the crate-internal `wire_struct!`), so that reading, writing, the list of
//! known names and the JSON Schema cannot drift apart.

mod fault;
mod limit;
mod merge;
mod scalar;
mod schema;
mod shape;
mod table;

pub use fault::{Fault, Faults, UnknownField};
pub(crate) use fault::{Path, Report, SHOWN, cut, quoted};
pub(crate) use limit::Limit;
pub(crate) use merge::merge;
pub(crate) use scalar::{LABEL_KEY, is_label_key, text_from_wire, wire_enum, wire_text};
pub(crate) use schema::{FieldNotes, Schemas, StructSchema, any_case, text_schema};
pub(crate) use shape::{Others, Shape};
pub(crate) use table::{Fields, joined, omitted, two_tables, wire_struct};

use serde_json::Value;

/// A checked type that can be read from its JSON form.
pub(crate) trait FromWire: Sized {
    /// Reads a value; `None` means that at least one fault was reported.
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self>;

    /// Describes the values that can be read.
    fn schema(schemas: &mut Schemas) -> Value;
}

/// A checked type that can be written as JSON.
pub(crate) trait ToWire {
    /// Returns the JSON form.
    fn to_wire(&self) -> Value;
}
