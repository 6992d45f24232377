//! Labels, by Kubernetes' rules.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{FromWire, Path, Report, Schemas, ToWire};
use crate::label::Labels;
use crate::selector::{NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX};

impl FromWire for Labels {
    /// Checks keys and values by the rules of Kubernetes labels.
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        let before = report.faults.len();
        let map = BTreeMap::<String, String>::in_part(value, at, report);
        for (key, text) in &map {
            if !is_label_key(key) && !is_key_of_kubernetes(key) {
                report.fault(at.key(key), Some(&Value::from(key.as_str())), LABEL_KEY);
            }
            if !is_label_value(text) && !is_name_of_kubernetes(key, text) {
                report.fault(
                    at.key(key),
                    Some(&Value::String(text.clone())),
                    "must be empty, or 1 to 63 letters, digits, '-', '_' or '.' between letters or digits",
                );
            }
        }
        (report.faults.len() == before).then(|| map.into_iter().collect())
    }

    fn stand_in() -> Self {
        Labels::new()
    }

    fn schema(schemas: &mut Schemas) -> Value {
        BTreeMap::<String, String>::schema(schemas)
    }
}

impl ToWire for Labels {
    fn to_wire(&self) -> Value {
        self.iter().map(|(key, value)| (key.to_owned(), Value::String(value.to_owned()))).collect()
    }
}

fn is_label_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Reports whether a label that Calico makes of a name of Kubernetes holds one. A service account's may be longer than the
/// value of a label.
fn is_name_of_kubernetes(key: &str, text: &str) -> bool {
    let made =
        ["pcns.projectcalico.org/name", "pcsa.projectcalico.org/name", "projectcalico.org/serviceaccount"];
    made.contains(&key) && text.parse::<crate::name::Name>().is_ok()
}

/// Reports whether a key is one that Calico makes of a namespace's or service account's: its prefix counts for nothing.
fn is_key_of_kubernetes(key: &str) -> bool {
    [NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX]
        .iter()
        .any(|prefix| key.strip_prefix(prefix).is_some_and(is_label_key))
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_word(text)
}

/// What the key of a label or annotation must be.
pub(crate) const LABEL_KEY: &str = "must have a key of an optional DNS prefix and '/', then 1 to 63 letters, digits, '-', '_' or '.' between letters or digits";

/// Reports whether text may be the key of a label.
pub(crate) fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, word)) => prefix.parse::<crate::name::Name>().is_ok() && is_label_word(word),
        None => is_label_word(key),
    }
}
