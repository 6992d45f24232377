//! The shape of a field that is known and that nothing here acts on.

use serde_json::Value;

use super::{Path, Report};

/// Fields that belong to a kind beside those that are read, by name.
pub(crate) type Others = &'static [(&'static str, Shape)];

/// What a value must look like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// True or false.
    Bool,
    /// A whole number, which may be negative.
    Whole,
    /// Any text.
    Text,
    /// Numbers with units, such as `1m30s`.
    Duration,
    /// A whole number or text.
    WholeOrText,
    /// One of these texts, in any case, as the agents have always read them.
    OneOf(&'static [&'static str]),
    /// A list.
    List,
    /// An object.
    Object,
}

impl Shape {
    /// Reports a value that does not look like this.
    pub(super) fn check(self, value: &Value, at: Path<'_>, report: &mut Report) -> bool {
        let sound = match self {
            Shape::Bool => value.is_boolean(),
            Shape::Whole => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            Shape::Text => value.is_string(),
            Shape::Duration => value.as_str().is_some_and(is_duration),
            Shape::WholeOrText => {
                value.is_string() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            Shape::OneOf(texts) => {
                value.as_str().is_some_and(|text| texts.iter().any(|one| one.eq_ignore_ascii_case(text)))
            }
            Shape::List => value.is_array(),
            Shape::Object => value.is_object(),
        };
        if !sound {
            report.fault(at, Some(value), self.rule());
        }
        sound
    }

    fn rule(self) -> String {
        match self {
            Shape::Bool => "must be true or false".to_owned(),
            Shape::Whole => "must be a whole number".to_owned(),
            Shape::Text => "must be text".to_owned(),
            Shape::Duration => "must be a duration such as 30s or 1m30s".to_owned(),
            Shape::WholeOrText => "must be a whole number or text".to_owned(),
            Shape::OneOf(texts) => format!("must be one of {}", texts.join(", ")),
            Shape::List => "must be a list".to_owned(),
            Shape::Object => "must be an object".to_owned(),
        }
    }
}

/// Numbers, each with a unit: `([0-9]+(\\.[0-9]+)?(ms|s|m|h))*`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits(rest);
        rest = &rest[whole..];
        if let Some(fraction) = rest.strip_prefix('.') {
            let places = digits(fraction);
            rest = &fraction[places..];
            if places == 0 {
                return false;
            }
        }
        let unit = ["ms", "s", "m", "h"].into_iter().find(|unit| rest.starts_with(unit));
        match unit {
            Some(unit) if whole > 0 => rest = &rest[unit.len()..],
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_of_the_wrong_shape_is_reported() {
        let sound = |shape: Shape, value: Value| shape.check(&value, Path::root("x"), &mut Report::default());
        for (shape, good, bad) in [
            (Shape::Bool, json!(true), json!("true")),
            (Shape::Whole, json!(-1), json!(1.5)),
            (Shape::Text, json!("a"), json!(1)),
            (Shape::WholeOrText, json!(1), json!([])),
            (Shape::OneOf(&["Auto", "Off"]), json!("off"), json!("on")),
            (Shape::List, json!([]), json!({})),
            (Shape::Object, json!({}), json!([])),
        ] {
            assert!(sound(shape, good), "{shape:?}");
            assert!(!sound(shape, bad), "{shape:?}");
        }
    }

    #[test]
    fn durations_are_numbers_with_units() {
        for good in ["", "30s", "1m30s", "1.5h", "500ms"] {
            assert!(is_duration(good), "{good}");
        }
        for bad in ["30", "s", "1.s", "1x", "-1s", "1m 30s"] {
            assert!(!is_duration(bad), "{bad}");
        }
    }
}
