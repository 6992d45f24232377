//! Values that are one word of a few.

use serde_json::{Value, json};

use super::{FromWire, Path, Report, Schemas, ToWire};

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

            fn stand_in() -> Self {
                [$(Self::$variant),*][0]
            }

            fn schema(_: &mut $crate::wire::Schemas) -> serde_json::Value {
                $schema
            }
        }
    };
}
pub(crate) use wire_enum;

impl FromWire for crate::resource::block::AffinityState {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        let read = serde_json::from_value(value.clone()).ok();
        if read.is_none() {
            report.fault(at, Some(value), "must be one of confirmed, pending, pendingDeletion");
        }
        read
    }

    fn stand_in() -> Self {
        Self::Confirmed
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
