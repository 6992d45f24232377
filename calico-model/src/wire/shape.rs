//! The shape of a field that is known and that nothing here acts on.

use serde_json::{Value, json};

use super::{Path, Report};

/// Fields that belong to a kind beside those that are read, by name.
pub(crate) type Others = &'static [(&'static str, Shape)];

/// What a value must look like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// A whole number, which may be negative.
    Whole,
    /// Any text.
    Text,
    /// A list.
    List,
}

impl Shape {
    /// Reports a value that does not look like this.
    pub(super) fn check(self, value: &Value, at: Path<'_>, report: &mut Report) {
        let (sound, rule) = match self {
            Shape::Whole => {
                (value.as_f64().is_some_and(|number| number.fract() == 0.0), "must be a whole number")
            }
            Shape::Text => (value.is_string(), "must be text"),
            Shape::List => (value.is_array(), "must be a list"),
        };
        if !sound {
            report.fault(at, Some(value), rule);
        }
    }

    /// Describes what looks like this.
    pub(super) fn schema(self) -> Value {
        json!({"type": match self {
            Shape::Whole => "integer",
            Shape::Text => "string",
            Shape::List => "array",
        }})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_wrong_shape_is_reported() {
        let sound = |shape: Shape, value: Value| {
            let mut report = Report::default();
            shape.check(&value, Path::root("x"), &mut report);
            report.faults.is_empty()
        };
        for (shape, good, bad) in [
            (Shape::Whole, json!(-1), json!(1.5)),
            (Shape::Text, json!("a"), json!(1)),
            (Shape::List, json!([]), json!({})),
        ] {
            assert!(sound(shape, good), "{shape:?}");
            assert!(!sound(shape, bad), "{shape:?}");
        }
    }
}
