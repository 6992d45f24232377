//! Manifests: resources as users write them, in YAML or JSON, and YAML as we write it.
//!
//! [`parse`] takes what stands in one file: several documents, a `List` or `NetworkPolicyList` of resources, a bare YAML
//! list. Each resource is read on its own, so that one that is wrong does not hide the others, and each error says where
//! it is.
//!
//! Input is not trusted. The size of the text and of each document, the depth, and what aliases may add are all bounded;
//! a key that is given twice and a NUL are errors.
//!
//! ```
//! use calico_model::manifest;
//!
//! let text = "
//! apiVersion: projectcalico.org/v3
//! kind: IPPool
//! metadata: {name: default}
//! spec: {cidr: 192.168.0.0/16}
//! ---
//! kind: Banana
//! ";
//! let read = manifest::parse(text.as_bytes());
//! assert_eq!(read[0].as_ref().map(|document| document.kind().as_str()), Ok("IPPool"));
//! assert_eq!(read[1].as_ref().unwrap_err().to_string(), "document 2 (line 7): apiVersion (none) is not known: write projectcalico.org/v3");
//! ```

use std::fmt;

use serde_json::Value;

use crate::resource::{Document, ReadError};
use crate::{kubernetes, v1};

mod tree;
mod write;

pub use write::to_yaml;

/// The most bytes that one file may have: 64 MiB.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The most documents that one file may have.
pub const MAX_DOCUMENTS: usize = 100_000;

/// Where in a file a resource stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The document, counted from 1.
    pub document: usize,
    /// The item, counted from 1, when the document is a list.
    pub item: Option<usize>,
    /// The line, counted from 1, at which the document begins or the mistake is.
    pub line: usize,
    /// The column, counted from 1, of a mistake of which it is known.
    pub column: Option<usize>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}", self.document)?;
        if let Some(item) = self.item {
            write!(f, ", item {item}")?;
        }
        match self.column {
            Some(column) => write!(f, " (line {}, column {column})", self.line),
            None => write!(f, " (line {})", self.line),
        }
    }
}

/// What is wrong with a file, or with one resource in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file is too large.
    #[error("the text is {bytes} bytes long, and at most {MAX_BYTES} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The file is not text.
    #[error("the text is not UTF-8: there is a wrong byte at offset {offset}")]
    NotUtf8 {
        /// How many bytes before it are right.
        offset: usize,
    },
    /// There are too many documents.
    #[error("there are more than {MAX_DOCUMENTS} documents")]
    TooMany,
    /// A document is neither YAML nor JSON, or larger or deeper than any resource may be.
    #[error("{position}: {problem}")]
    Syntax {
        /// Where the mistake is.
        position: Position,
        /// What it is.
        problem: String,
    },
    /// A document is sound YAML and no resource.
    #[error("{position}: {problem}")]
    NotAResource {
        /// Where the document begins.
        position: Position,
        /// What it is.
        problem: ReadError,
    },
    /// A document, or an item of a list, is not even an object.
    #[error(
        "{position}: a resource must be an object with apiVersion, kind and metadata, and this is {found}"
    )]
    NotAnObject {
        /// Where it begins.
        position: Position,
        /// What it is.
        found: &'static str,
    },
}

/// Reads every resource of a file. A file with nothing in it gives nothing; a resource of the v1 dialect comes out as
/// today's, and an object of Kubernetes as the resource that it [means](crate::kubernetes).
///
/// A document whose syntax is wrong is one error; the documents around it are read all the same.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<Result<Document, ManifestError>> {
    values(text)
        .into_iter()
        .map(|(position, value)| {
            let value = value?;
            match value {
                Value::Object(_) => {
                    let read = if v1::is_v1(&value) {
                        v1::to_v3(&value)
                    } else if kubernetes::is_kubernetes(&value) {
                        kubernetes::to_v3(&value)
                    } else {
                        Document::from_value(value)
                    };
                    read.map_err(|problem| ManifestError::NotAResource { position, problem })
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    Err(ManifestError::NotAnObject { position, found: what(&value) })
                }
            }
        })
        .collect()
}

/// Reads every document of a file, lists taken apart, whatever it is a resource of.
#[must_use]
pub fn values(text: &[u8]) -> Vec<(Position, Result<Value, ManifestError>)> {
    let whole = |error| vec![(Position { document: 1, item: None, line: 1, column: None }, Err(error))];
    if text.len() > MAX_BYTES {
        return whole(ManifestError::TooLarge { bytes: text.len() });
    }
    let text = match std::str::from_utf8(text) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => return whole(ManifestError::NotUtf8 { offset: error.valid_up_to() }),
    };
    let mut read = Vec::new();
    for (index, (line, chunk)) in chunks(text).enumerate() {
        if index == MAX_DOCUMENTS {
            return whole(ManifestError::TooMany);
        }
        let position = Position { document: index + 1, item: None, line, column: None };
        match tree::read(chunk) {
            Ok(value) => take_apart(&position, value, &mut read),
            Err(mistake) => {
                let line = line + mistake.line.saturating_sub(1);
                let position = Position { line, column: mistake.column, ..position };
                let error = ManifestError::Syntax { position: position.clone(), problem: mistake.problem };
                read.push((position, Err(error)));
            }
        }
    }
    read
}

/// Adds a document, or each item of one that is a list.
fn take_apart(
    position: &Position,
    mut value: Value,
    read: &mut Vec<(Position, Result<Value, ManifestError>)>,
) {
    let kind = value.get("kind").and_then(Value::as_str).map(str::to_owned);
    let of = kind.as_deref().and_then(|kind| kind.strip_suffix("List"));
    let version = value.get("apiVersion").cloned();
    let items = match &mut value {
        Value::Array(items) => std::mem::take(items),
        Value::Object(list) if of.is_some() => match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            None | Some(Value::Null) => Vec::new(),
            Some(_) => {
                let problem = "the items of a list must be a list".to_owned();
                let error = ManifestError::Syntax { position: position.clone(), problem };
                return read.push((position.clone(), Err(error)));
            }
        },
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return read.push((position.clone(), Ok(value)));
        }
    };
    for (index, mut item) in items.into_iter().enumerate() {
        // The items of a typed list may leave out what the list says for all of them.
        if let (Some(of), Value::Object(item)) = (of.filter(|of| !of.is_empty()), &mut item) {
            item.entry("kind").or_insert_with(|| of.into());
            if let Some(version) = &version {
                item.entry("apiVersion").or_insert_with(|| version.clone());
            }
        }
        read.push((Position { item: Some(index + 1), ..position.clone() }, Ok(item)));
    }
}

/// Cuts a text at the lines that YAML ends and begins documents with, and leaves out documents with nothing in them.
/// Such a line can be nothing else, so that a mistake in one document cannot reach the next.
fn chunks(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut cuts = vec![(0, 1)];
    let mut offset = 0;
    let mut lines = 0;
    for line in text.split_inclusive('\n') {
        lines += 1;
        let marks = |mark: &str| {
            line.strip_prefix(mark)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        };
        if marks("---") {
            cuts.push((offset, lines));
        } else if marks("...") {
            cuts.push((offset + line.len(), lines + 1));
        }
        offset += line.len();
    }
    let ends: Vec<usize> = cuts.iter().skip(1).map(|(offset, _)| *offset).chain([text.len()]).collect();
    cuts.into_iter().zip(ends).filter_map(move |((start, line), end)| {
        let chunk = &text[start..end];
        for (blank, row) in chunk.lines().enumerate() {
            let content = row.strip_prefix("---").unwrap_or(row).trim();
            if !(content.is_empty() || content == "..." || content.starts_with(['#', '%'])) {
                return Some((line + blank, skip_lines(chunk, blank)));
            }
        }
        None
    })
}

/// The text after its first `count` lines.
fn skip_lines(text: &str, count: usize) -> &str {
    let skipped: usize = text.split_inclusive('\n').take(count).map(str::len).sum();
    &text[skipped..]
}

fn what(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list inside a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
