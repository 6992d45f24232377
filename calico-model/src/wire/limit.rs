//! Limits of a field that its type does not have: how long, how many, from where to where.

use serde_json::{Value, json};

use super::{Path, Report};

/// A limit of one field, as its table states it. It is checked on reading and told by the schema.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// A number from the first to the last, both included.
    Range(i64, i64),
    /// One of these numbers.
    Numbers(&'static [i64]),
    /// A list of at least and at most so many items.
    Items(usize, usize),
    /// A text or an object's keys: at most so many characters.
    Length(usize),
    /// Text of at least and at most so many ASCII letters, digits and characters of these.
    Chars(usize, usize, &'static str),
    /// A comma-separated list of `name=value`.
    Assignments,
    /// From 1 to 9999 of something in a unit of time: `5/minute`.
    Rate,
    /// A network with its prefix length written out.
    Prefixed,
    /// Each item of a list has this limit.
    Each(&'static Limit),
}

impl Limit {
    /// Reports a value, which is of the field's type, that breaks the limit.
    pub(super) fn check(self, value: &Value, at: Path<'_>, report: &mut Report) {
        if let Limit::Each(limit) = self {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            for (i, item) in items.iter().enumerate() {
                limit.check(item, at.index(i), report);
            }
            return;
        }
        if self.keeps(value) {
            return;
        }
        // What is no word of the field's has no meaning for other rules; what is too large still says what it says.
        if matches!(self, Limit::Numbers(_)) {
            report.fault(at, Some(value), self.rule());
        } else {
            report.broken(&at.to_string(), Some(value), self.rule());
        }
    }

    /// Says whether the value keeps the limit. What is no number, text or list has none.
    fn keeps(self, value: &Value) -> bool {
        let number = || value.as_f64().unwrap_or_default();
        let text = value.as_str();
        match self {
            #[expect(clippy::cast_precision_loss, reason = "no limit is above 2^53")]
            Limit::Range(first, last) => {
                !value.is_number() || (first as f64..=last as f64).contains(&number())
            }
            Limit::Numbers(numbers) => value.as_i64().is_none_or(|number| numbers.contains(&number)),
            Limit::Items(least, most) => {
                value.as_array().is_none_or(|items| (least..=most).contains(&items.len()))
            }
            Limit::Length(most) => text.is_none_or(|text| text.chars().count() <= most),
            Limit::Chars(least, most, extra) => text.is_none_or(|text| {
                (least..=most).contains(&text.len())
                    && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
            }),
            Limit::Assignments => text.is_none_or(|text| text.is_empty() || text.split(',').all(assigns)),
            Limit::Rate => text.is_none_or(is_rate),
            Limit::Prefixed => text.is_none_or(|text| text.contains('/')),
            Limit::Each(_) => true,
        }
    }

    fn rule(self) -> String {
        match self {
            Limit::Range(first, last) => format!("must be from {first} to {last}"),
            Limit::Numbers(numbers) => {
                let all: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                format!("must be {}", all.join(" or "))
            }
            Limit::Items(least, most) if least == most => format!("must have exactly {}", items(most)),
            Limit::Items(0, most) => format!("must have at most {}", items(most)),
            Limit::Items(least, most) => format!("must have {least} to {}", items(most)),
            Limit::Length(most) => format!("must have at most {most} characters"),
            Limit::Chars(least, most, extra) => {
                let length = if most == usize::MAX { "".to_owned() } else { format!("{least} to {most} ") };
                let extra: Vec<String> = extra.chars().map(|c| format!("'{c}'")).collect();
                format!("must be {length}letters, digits or {}", extra.join(", "))
            }
            Limit::Assignments => "must be a comma-separated list of name=value".to_owned(),
            Limit::Rate => "must be a number from 1 to 9999, '/' and second, minute, hour or day".to_owned(),
            Limit::Prefixed => "must be a network with its prefix length, such as 10.0.0.1/32".to_owned(),
            Limit::Each(limit) => limit.rule(),
        }
    }

    /// Adds the limit to the schema of the field.
    pub(super) fn describe(self, schema: &mut Value) {
        match self {
            Limit::Range(first, last) => {
                schema["minimum"] = json!(first);
                schema["maximum"] = json!(last);
            }
            Limit::Numbers(numbers) => schema["enum"] = json!(numbers),
            Limit::Items(least, most) => {
                if least > 0 {
                    schema["minItems"] = json!(least);
                }
                schema["maxItems"] = json!(most);
            }
            Limit::Length(most) => schema["maxLength"] = json!(most),
            Limit::Chars(least, most, extra) => {
                let most = if most == usize::MAX { String::new() } else { most.to_string() };
                // A dash stands last, where it is no range.
                let extra = extra.replace('-', "") + if extra.contains('-') { "-" } else { "" };
                schema["pattern"] = json!(format!("^[a-zA-Z0-9{extra}]{{{least},{most}}}$"));
            }
            Limit::Assignments => {
                schema["pattern"] = json!(r"^(\s*[a-zA-Z0-9_]+=[^,]*(,\s*[a-zA-Z0-9_]+=[^,]*)*)?$");
            }
            Limit::Rate => schema["pattern"] = json!("^[1-9][0-9]{0,3}/(second|minute|hour|day)$"),
            Limit::Prefixed => schema["pattern"] = json!("/"),
            Limit::Each(limit) => {
                if let Some(items) = schema.get_mut("items") {
                    limit.describe(items);
                }
            }
        }
    }
}

fn items(number: usize) -> String {
    if number == 1 { "1 item".to_owned() } else { format!("{number} items") }
}

fn is_rate(text: &str) -> bool {
    text.split_once('/').is_some_and(|(number, unit)| {
        let digits = number.len() <= 4 && number.bytes().all(|byte| byte.is_ascii_digit());
        digits
            && number.bytes().next().is_some_and(|first| first != b'0')
            && ["second", "minute", "hour", "day"].contains(&unit)
    })
}

fn assigns(text: &str) -> bool {
    let name = text.trim_start().split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}
