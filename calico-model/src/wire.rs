//! The door between JSON and checked types.
//!
//! The *wire* shape of a resource is its JSON value: lenient, and kept whole, so that what we do not know survives a
//! read-modify-write. The *checked* shape is a Rust type in which a wrong state cannot be written down. Reading turns
//! one into the other and gathers **every** fault, each with the path of its field; writing merges a checked value over
//! the stored one.
//!
//! Each checked struct is one table of fields (the crate-internal `wire_struct!`), so that reading, writing, the list of
//! known names and the JSON Schema cannot drift apart.

mod container;
mod fault;
mod labels;
mod limit;
mod merge;
mod number;
mod rules;
mod schema;
mod shape;
mod table;
mod text;
mod word;

pub use fault::{Fault, Faults, UnknownField};
pub(crate) use fault::{Path, Report, SHOWN, cut, quoted};
pub(crate) use labels::{LABEL_KEY, is_label_key};
pub(crate) use limit::Limit;
pub(crate) use merge::merge;
pub(crate) use rules::Rules;
pub(crate) use schema::{FieldNotes, Schemas, StructSchema, any_case, text_schema};
pub(crate) use shape::{Others, Shape};
pub(crate) use table::{Fields, joined, omitted, two_tables, wire_struct};
pub(crate) use text::{text_from_wire, wire_text};
pub(crate) use word::wire_enum;

use serde_json::Value;

/// A checked type that can be read from its JSON form.
pub(crate) trait FromWire: Sized {
    /// Reads a value; `None` means that at least one fault was reported.
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self>;

    /// Reads what can be read of a value, and puts a stand-in for each part that cannot, of which the report knows.
    /// [`Rules`] between fields look at this, so that they are told together with the faults of other fields.
    fn in_part(value: &Value, at: Path<'_>, report: &mut Report) -> Self {
        Self::from_wire(value, at, report).unwrap_or_else(Self::stand_in)
    }

    /// Returns a value that stands where none could be read. It never leaves the reader.
    fn stand_in() -> Self;

    /// Describes the values that can be read.
    fn schema(schemas: &mut Schemas) -> Value;
}

/// Reads a value that has parts: `None` when anything in it is faulty.
pub(crate) fn whole<T: FromWire>(value: &Value, at: Path<'_>, report: &mut Report) -> Option<T> {
    let before = report.faults.len();
    let read = T::in_part(value, at, report);
    (report.faults.len() == before).then_some(read)
}

/// A checked type that can be written as JSON.
pub(crate) trait ToWire {
    /// Returns the JSON form.
    fn to_wire(&self) -> Value;
}
