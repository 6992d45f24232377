//! What is wrong with a resource, and where.

use std::fmt;

use serde_json::Value;

/// One thing that is wrong with a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The path of the field: `spec.ingress[2].source.ports[0]`, cut at 400 characters.
    pub path: String,
    /// The value that was found there, as JSON cut at 80 characters; `None` when there was none.
    pub value: Option<String>,
    /// The rule it breaks, as the end of a sentence that begins with the path: `must be ...`.
    pub rule: String,
    /// Two lines that show where inside the value the mistake is, for those who have room: the value and a caret.
    pub snippet: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}: {}", self.path, self.rule),
            None => write!(f, "{}: {}", self.path, self.rule),
        }
    }
}

/// All that is wrong with a resource. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

/// How many mistakes of one resource are shown: hostile input has a hundred thousand.
pub(crate) const SHOWN: usize = 100;

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [only] => only.fmt(f),
            many => {
                many.iter().take(SHOWN).try_for_each(|fault| write!(f, "\n  - {fault}"))?;
                match many.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                    Some(more) => write!(f, "\n  and {more} more"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// A field that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownField {
    /// The path of the field.
    pub path: String,
    /// The name of the field that is meant, when there is one that differs only in case, dashes and underscores.
    pub meant: Option<&'static str>,
}

impl UnknownField {
    /// Tells of the unknown field `key`, where these are known.
    pub(crate) fn new(path: String, key: &str, known: impl IntoIterator<Item = &'static str>) -> Self {
        Self { path, meant: known.into_iter().find(|name| letters(name).eq(letters(key))) }
    }
}

impl fmt::Display for UnknownField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.meant {
            Some(meant) => write!(f, "{} (did you mean {meant}?)", cut(&self.path)),
            None => f.write_str(&cut(&self.path)),
        }
    }
}

/// What of a name is hard to mistake.
fn letters(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars().filter(|c| !['-', '_'].contains(c)).map(|c| c.to_ascii_lowercase())
}

/// What reading a resource found: its faults, and the fields this version does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Everything that breaks a rule.
    pub(crate) faults: Vec<Fault>,
    /// The fields that no rule knows. They are kept, and only a user's input is refused for them.
    pub(crate) unknown: Vec<UnknownField>,
    /// The paths of what could not be read, so that no rule between fields is asked of a stand-in: the first of them, one
    /// more than are shown.
    pub(super) unread: Vec<String>,
}

impl Report {
    /// Reports a value that cannot be read.
    pub(crate) fn fault(&mut self, at: Path<'_>, value: Option<&Value>, rule: impl Into<String>) {
        let path = at.to_string();
        self.broken(&path, value, rule);
        if self.unread.len() <= SHOWN {
            self.unread.push(path);
        }
    }

    /// Reports a value that can be read and breaks a rule.
    pub(super) fn broken(&mut self, path: &str, value: Option<&Value>, rule: impl Into<String>) {
        let fault = Fault { path: cut(path), value: value.map(quoted), rule: rule.into(), snippet: None };
        self.faults.push(fault);
    }

    /// Takes over what another report found.
    pub(super) fn append(&mut self, mut other: Report) {
        self.faults.append(&mut other.faults);
        self.unread.append(&mut other.unread);
    }
}

/// The path of a field as an error shows it, cut so that hostile input cannot fill a log.
pub(crate) fn cut(path: &str) -> String {
    const LIMIT: usize = 400;
    if path.chars().count() <= LIMIT {
        path.to_owned()
    } else {
        path.chars().take(LIMIT - 3).chain("...".chars()).collect()
    }
}

/// A value as an error quotes it: JSON, cut so that hostile input cannot fill a log.
pub(crate) fn quoted(value: &Value) -> String {
    let mut start = Start(Vec::new());
    // The only failure is that the value is longer than what is quoted of it.
    let _longer = serde_json::to_writer(&mut start, value);
    let text = String::from_utf8_lossy(&start.0);
    if text.chars().count() <= 80 {
        text.into_owned()
    } else {
        text.chars().take(77).chain("...".chars()).collect()
    }
}

/// Keeps the first bytes that are written, enough for 80 characters and a cut one, and ends the writing of the rest.
struct Start(Vec<u8>);

impl std::io::Write for Start {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = (4 * 81_usize).saturating_sub(self.0.len());
        let taken = &bytes[..bytes.len().min(room)];
        self.0.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Where in a resource a value stands: a list of steps held on the stack and only written out for a fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    pub(crate) fn root(key: &'p str) -> Self {
        Self { parent: None, step: Step::Key(key) }
    }

    pub(crate) fn key(&'p self, key: &'p str) -> Self {
        Self { parent: Some(self), step: Step::Key(key) }
    }

    pub(crate) fn index(&'p self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(index) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Key(key) if self.parent.is_some() => write!(f, ".{key}"),
            Step::Key(key) => f.write_str(key),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}
