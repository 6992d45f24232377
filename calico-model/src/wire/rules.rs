//! Rules between the fields of one object.

use serde_json::Value;

use super::{Path, Report, SHOWN};

/// An object that was read, perhaps in part, and the report of what is wrong with it.
///
/// Whether an optional field or a list is given can always be told. A rule that goes by the *value* of a field names the
/// field in `reads`, and is not told where that could not be read: nobody is told of a stand-in. When more is wrong than
/// is shown, no rule between fields adds to it.
pub(crate) struct Rules<'v, 'p, 'r> {
    object: &'v Value,
    at: Option<Path<'p>>,
    report: &'r mut Report,
}

impl<'v, 'p, 'r> Rules<'v, 'p, 'r> {
    /// The rules of the object at a path.
    pub(crate) fn of(object: &'v Value, at: Path<'p>, report: &'r mut Report) -> Self {
        Self { object, at: Some(at), report }
    }

    /// The rules of a whole document.
    pub(crate) fn of_document(document: &'v Value, report: &'r mut Report) -> Self {
        Self { object: document, at: None, report }
    }

    /// Reports that a field breaks a rule which goes by the values of the fields `reads`. Fields are named by their paths
    /// in the object: `source.ports[0]`; the empty path is the object.
    pub(crate) fn broken(&mut self, field: &str, reads: &[&str], rule: impl Into<String>) {
        let unread = &self.report.unread;
        if unread.len() > SHOWN {
            return;
        }
        let cannot_be_read = |field: &&str| {
            let path = self.path(field);
            unread.iter().any(|unread| is_within(unread, &path) || is_within(&path, unread))
        };
        if reads.iter().any(cannot_be_read) {
            return;
        }
        let path = self.path(field);
        self.report.broken(&path, self.written(field), rule);
    }

    /// Reports a field that breaks a rule which goes by its own value alone.
    pub(crate) fn wrong(&mut self, field: &str, rule: impl Into<String>) {
        self.broken(field, &[field], rule);
    }

    /// Reports a key of a map in a field that breaks a rule.
    pub(crate) fn wrong_key(&mut self, field: &str, key: &str, rule: &str) {
        let path = format!("{}.{key}", self.path(field));
        self.report.broken(&path, Some(&Value::from(key)), rule);
    }

    /// Reports an entry of a map in a field that breaks a rule.
    pub(crate) fn wrong_entry(&mut self, field: &str, key: &str, rule: &str) {
        let path = format!("{}.{key}", self.path(field));
        let value = self.written(field).and_then(|map| map.get(key));
        self.report.broken(&path, value, rule);
    }

    fn path(&self, field: &str) -> String {
        match self.at {
            Some(at) if field.is_empty() => at.to_string(),
            Some(at) => format!("{at}.{field}"),
            None => field.to_owned(),
        }
    }

    /// Returns what the user wrote there.
    fn written(&self, field: &str) -> Option<&'v Value> {
        let steps = match field {
            "" => String::new(),
            field => format!("/{}", field.replace(['.', '['], "/").replace(']', "")),
        };
        self.object.pointer(&steps).filter(|value| !value.is_null())
    }
}

/// Says whether a path is this one or below it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
