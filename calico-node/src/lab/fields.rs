//! Reading one mapping of the topology file: every fault is gathered, and what no rule asked for is refused.

use std::collections::BTreeMap;
use std::str::FromStr;

use calico_model::Fault;
use serde_json::{Map, Value};

/// The fields of one mapping, taken one by one.
pub(super) struct Fields<'f> {
    path: String,
    rest: Map<String, Value>,
    faults: &'f mut Vec<Fault>,
}

impl<'f> Fields<'f> {
    /// Opens `value`; `None`, and a fault, when it is not a mapping.
    pub(super) fn open(path: &str, value: Value, faults: &'f mut Vec<Fault>) -> Option<Self> {
        if let Value::Object(rest) = value {
            Some(Self { path: path.to_owned(), rest, faults })
        } else {
            faults.push(fault(path, Some(&value), "must be a mapping of fields"));
            None
        }
    }

    /// Takes a text that must be there.
    pub(super) fn required<T: FromStr>(&mut self, field: &str, rule: &str) -> Option<T> {
        if !self.rest.contains_key(field) {
            self.fault(field, None, &format!("is missing: it {rule}"));
        }
        self.optional(field, rule)
    }

    /// Takes a text or number that may be absent.
    pub(super) fn optional<T: FromStr>(&mut self, field: &str, rule: &str) -> Option<T> {
        let value = self.rest.remove(field)?;
        let parsed = scalar(&value).and_then(|text| text.parse().ok());
        if parsed.is_none() {
            self.fault(field, Some(&value), rule);
        }
        parsed
    }

    /// Takes a list of texts or numbers, empty when absent.
    pub(super) fn scalars<T: FromStr>(&mut self, field: &str, rule: &str) -> Vec<T> {
        let mut parsed = Vec::new();
        for (index, value) in self.list(field).into_iter().enumerate() {
            match scalar(&value).and_then(|text| text.parse().ok()) {
                Some(item) => parsed.push(item),
                None => self.fault(&format!("{field}[{index}]"), Some(&value), rule),
            }
        }
        parsed
    }

    /// Takes a mapping of texts to texts, empty when absent.
    pub(super) fn texts(&mut self, field: &str) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        match self.rest.remove(field) {
            None => {}
            Some(Value::Object(map)) => {
                for (key, value) in map {
                    match scalar(&value) {
                        Some(text) => drop(texts.insert(key, text)),
                        None => self.fault(&format!("{field}.{key}"), Some(&value), "must be a text"),
                    }
                }
            }
            Some(other) => self.fault(field, Some(&other), "must be a mapping of texts"),
        }
        texts
    }

    /// Takes a list, empty when absent.
    pub(super) fn list(&mut self, field: &str) -> Vec<Value> {
        match self.rest.remove(field) {
            None => Vec::new(),
            Some(Value::Array(values)) => values,
            Some(other) => {
                self.fault(field, Some(&other), "must be a list");
                Vec::new()
            }
        }
    }

    /// Notes a fault of one field.
    pub(super) fn fault(&mut self, field: &str, value: Option<&Value>, rule: &str) {
        let path = if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) };
        self.faults.push(fault(&path, value, rule));
    }

    /// Refuses what is left over.
    pub(super) fn close(mut self) {
        for field in std::mem::take(&mut self.rest).into_iter().map(|(field, _)| field) {
            self.fault(&field, None, "is not a field of a topology");
        }
    }
}

/// Makes a fault; a value is quoted as JSON.
pub(super) fn fault(path: &str, value: Option<&Value>, rule: &str) -> Fault {
    let value = value.map(|value| value.to_string().chars().take(80).collect());
    Fault { path: path.to_owned(), value, rule: rule.to_owned(), snippet: None }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
