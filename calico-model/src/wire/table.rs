//! Structs as tables of fields: one table reads, writes and knows its names.

use serde_json::{Map, Value};

use super::{FromWire, Limit, Others, Path, Report, ToWire, UnknownField};

/// An object being read: every field that is asked for becomes known, the rest is reported as unknown.
pub(crate) struct Fields<'v, 'p, 'r> {
    object: &'v Map<String, Value>,
    at: Path<'p>,
    report: &'r mut Report,
    known: usize,
}

impl<'v, 'p, 'r> Fields<'v, 'p, 'r> {
    /// Opens an object, or reports that the value is none.
    pub(crate) fn open(value: &'v Value, at: Path<'p>, report: &'r mut Report) -> Option<Self> {
        match value.as_object() {
            Some(object) => Some(Self { object, at, report, known: 0 }),
            None => {
                report.fault(at, Some(value), "must be an object");
                None
            }
        }
    }

    /// Reads a field; `None` when it is absent or null, and perhaps a stand-in when it is faulty.
    pub(crate) fn optional<T: FromWire>(&mut self, key: &'static str, limits: &[Limit]) -> Option<T> {
        let value = self.object.get(key)?;
        self.known += 1;
        if value.is_null() {
            return None;
        }
        let at = self.at.key(key);
        let before = self.report.faults.len();
        let read = T::in_part(value, at, self.report);
        if self.report.faults.len() == before {
            limits.iter().for_each(|limit| limit.check(value, at, self.report));
        }
        Some(read)
    }

    /// Reads a field whose text, where it is empty, is none; `None` as for [`optional`](Self::optional).
    pub(crate) fn omitempty<T: FromWire>(&mut self, key: &'static str, limits: &[Limit]) -> Option<T> {
        if self.object.get(key).and_then(Value::as_str) == Some("") {
            self.known += 1;
            return None;
        }
        self.optional(key, limits)
    }

    /// Reads a field that must be there.
    pub(crate) fn required<T: FromWire>(&mut self, key: &'static str, limits: &[Limit]) -> T {
        if self.object.get(key).is_none_or(Value::is_null) {
            self.report.fault(self.at.key(key), None, "is required");
            self.known += usize::from(self.object.contains_key(key));
            return T::stand_in();
        }
        self.optional(key, limits).unwrap_or_else(T::stand_in)
    }

    /// Checks the fields that are known and not read: nothing here acts on them, and they stay in the document.
    fn also(&mut self, others: Others) {
        for (key, value) in self.object {
            let Some((_, shape)) = others.iter().find(|(name, _)| name == key) else { continue };
            self.known += 1;
            if !value.is_null() {
                shape.check(value, self.at.key(key), self.report);
            }
        }
    }

    /// Ends the reading: reports unknown fields.
    pub(crate) fn close(mut self, names: &[&'static str], others: Others) {
        if self.known < self.object.len() && !others.is_empty() {
            self.also(others);
        }
        if self.known < self.object.len() {
            let known = || names.iter().copied().chain(others.iter().map(|(name, _)| *name));
            let unknown = self.object.keys().filter(|key| known().all(|name| name != key.as_str()));
            let told = unknown.map(|key| UnknownField::new(self.at.key(key).to_string(), key, known()));
            self.report.unknown.extend(told);
        }
    }
}

/// Returns the value unless it is what an absent field means.
pub(crate) fn omitted<T: ToWire + PartialEq + Default>(value: &T) -> Option<Value> {
    (*value != T::default()).then(|| value.to_wire())
}

/// Reads what can be read of one object by two tables: a field is unknown only when neither knows it.
pub(crate) fn two_tables<A: FromWire, B: FromWire>(
    value: &Value,
    at: Path<'_>,
    report: &mut Report,
) -> (A, B) {
    let mut own = Report::default();
    let first = A::in_part(value, at, &mut own);
    let mut other = Report::default();
    let second = if value.is_object() { B::in_part(value, at, &mut other) } else { B::stand_in() };
    let here = at.to_string();
    let of_this_object = |path: &str| path.rsplit_once('.').is_some_and(|(parent, _)| parent == here);
    for mut field in std::mem::take(&mut own.unknown) {
        if of_this_object(&field.path) {
            let Some(twin) = other.unknown.iter().find(|twin| twin.path == field.path) else { continue };
            field.meant = field.meant.or(twin.meant);
        }
        report.unknown.push(field);
    }
    let others = std::mem::take(&mut other.unknown);
    report.unknown.extend(others.into_iter().filter(|field| !of_this_object(&field.path)));
    report.append(own);
    report.append(other);
    (first, second)
}

/// Returns the fields of both objects as one.
pub(crate) fn joined(first: Value, second: Value) -> Value {
    match (first, second) {
        (Value::Object(mut first), Value::Object(second)) => {
            first.extend(second);
            Value::Object(first)
        }
        (first, _) => first,
    }
}

/// Declares a checked struct by the table of its fields.
///
/// Each row is `field: Type = "jsonName" mode [limits]`, where mode is
/// - `required`: the field must be there;
/// - `optional`: the type is an `Option`, absent means `None`; `optional(value)` also tells the schema what that amounts to;
/// - `omitempty`: the same, and empty text means `None` too, as it does in upstream's structs;
/// - `empty`: absent means `Type::default()`, which is not written;
/// - `default(value)`: absent means `value`, and it is always written;
/// - `derived(value)`: absent means `value`, which `check` puts something better for, and it is always written.
///
/// The limits are [`Limit`]s of the field's JSON. Doc comments are what the schema says of the struct and its fields.
///
/// After the table, `also = TABLE` names an [`Others`] of fields that are known, checked for their shape and kept in the
/// document, and that nothing here acts on; and `check = function` names a `fn(&mut Self, Rules)` for [`Rules`] between
/// fields and for defaults that depend on other fields. It is asked also when some fields are faulty, and then sees
/// stand-ins in their place.
macro_rules! wire_struct {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident {
            $($(#[doc = $fdoc:literal])* $field:ident: $type:ty = $key:literal $mode:ident $(($default:expr))? $([$($limit:expr),+])?),* $(,)?
        }
        $(also = $others:path;)?
        $(check = $check:path;)?
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name {
            $($(#[doc = $fdoc])* $vis $field: $type),*
        }

        impl $crate::wire::FromWire for $name {
            fn from_wire(
                value: &serde_json::Value,
                at: $crate::wire::Path<'_>,
                report: &mut $crate::wire::Report,
            ) -> Option<Self> {
                $crate::wire::whole(value, at, report)
            }

            fn in_part(
                value: &serde_json::Value,
                at: $crate::wire::Path<'_>,
                report: &mut $crate::wire::Report,
            ) -> Self {
                let Some(mut fields) = $crate::wire::Fields::open(value, at, report) else {
                    return Self::stand_in();
                };
                #[allow(unused_mut, reason = "only a struct with a check changes it")]
                let mut read = Self {
                    $($field: wire_struct!(@read fields $key $mode $(($default))? [$($($limit),+)?])),*
                };
                fields.close(&[$($key),*], wire_struct!(@others $($others)?));
                $($check(&mut read, $crate::wire::Rules::of(value, at, report));)?
                read
            }

            fn stand_in() -> Self {
                Self { $($field: wire_struct!(@stand_in $mode $(($default))?)),* }
            }

            fn schema(schemas: &mut $crate::wire::Schemas) -> serde_json::Value {
                schemas.of_struct(stringify!($name), |schemas| {
                    let mut made = $crate::wire::StructSchema::new(concat!($($doc, "\n"),*));
                    $(
                        let schema = wire_struct!(@schema schemas $field $type, $mode);
                        let notes = $crate::wire::FieldNotes {
                            required: wire_struct!(@must $mode),
                            default: wire_struct!(@absent $type, $mode $(($default))?),
                            or_empty: wire_struct!(@or_empty $mode),
                            limits: &[$($($limit),+)?],
                        };
                        made.field($key, concat!($($fdoc, "\n"),*), schema, notes);
                    )*
                    made.close(wire_struct!(@others $($others)?))
                })
            }
        }

        impl $crate::wire::ToWire for $name {
            fn to_wire(&self) -> serde_json::Value {
                let mut object = serde_json::Map::new();
                $(
                    if let Some(value) = wire_struct!(@write (&self.$field) $mode) {
                        object.insert($key.to_owned(), value);
                    }
                )*
                serde_json::Value::Object(object)
            }
        }
    };
    (@others) => { &[] };
    (@others $others:path) => { $others };
    (@read $fields:ident $key:literal required $limits:tt) => { $fields.required($key, &$limits) };
    (@read $fields:ident $key:literal optional $limits:tt) => { $fields.optional($key, &$limits) };
    (@read $fields:ident $key:literal optional ($default:expr) $limits:tt) => { $fields.optional($key, &$limits) };
    (@read $fields:ident $key:literal omitempty $limits:tt) => { $fields.omitempty($key, &$limits) };
    (@read $fields:ident $key:literal omitempty ($default:expr) $limits:tt) => { $fields.omitempty($key, &$limits) };
    (@read $fields:ident $key:literal empty $limits:tt) => { $fields.optional($key, &$limits).unwrap_or_default() };
    (@read $fields:ident $key:literal $mode:ident ($default:expr) $limits:tt) => { $fields.optional($key, &$limits).unwrap_or_else(|| $default) };
    (@stand_in required) => { $crate::wire::FromWire::stand_in() };
    (@stand_in optional $(($default:expr))?) => { None };
    (@stand_in omitempty $(($default:expr))?) => { None };
    (@stand_in empty) => { Default::default() };
    (@stand_in $mode:ident ($default:expr)) => { $default };
    (@schema $schemas:ident $field:ident $type:ty, optional) => { $schemas.of_optional(|read: &Self| &read.$field) };
    (@schema $schemas:ident $field:ident $type:ty, omitempty) => { $schemas.of_optional(|read: &Self| &read.$field) };
    (@schema $schemas:ident $field:ident $type:ty, $mode:ident) => { <$type as $crate::wire::FromWire>::schema($schemas) };
    (@must required) => { true };
    (@must $mode:ident) => { false };
    (@or_empty omitempty) => { true };
    (@or_empty $mode:ident) => { false };
    (@absent $type:ty, default ($default:expr)) => {{
        let absent: $type = $default;
        Some($crate::wire::ToWire::to_wire(&absent))
    }};
    (@absent $type:ty, optional ($default:expr)) => { Some(serde_json::json!($default)) };
    (@absent $type:ty, omitempty ($default:expr)) => { Some(serde_json::json!($default)) };
    (@absent $type:ty, $mode:ident $(($default:expr))?) => { None };
    (@write ($value:expr) required) => { Some($crate::wire::ToWire::to_wire($value)) };
    (@write ($value:expr) optional) => { $value.as_ref().map($crate::wire::ToWire::to_wire) };
    (@write ($value:expr) omitempty) => { $value.as_ref().map($crate::wire::ToWire::to_wire) };
    (@write ($value:expr) empty) => { $crate::wire::omitted($value) };
    (@write ($value:expr) $mode:ident) => { Some($crate::wire::ToWire::to_wire($value)) };
}
pub(crate) use wire_struct;
