//! How the changes of resources are printed while they happen.

use std::fmt;

use calico_model::manifest;
use calico_model::resource::{Document, Kind};
use serde_json::json;

use super::columns::{Column, Context};
use super::format::{Format, Namespaces, cells, short_name};
use super::table;

/// What became of a resource, in the words of a watch of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It came, or was there when the watch began.
    Added,
    /// It was written again.
    Modified,
    /// It is gone: what is shown is what it was.
    Deleted,
}

/// Writes the changes of one kind's resources, one after the other.
#[derive(Debug)]
pub struct Events {
    format: Format,
    columns: Vec<Column>,
    /// How wide each column is by now; none before the headings.
    widths: Vec<usize>,
    context: Context,
}

impl Events {
    /// Begins a list of changes.
    ///
    /// # Errors
    /// A sentence, when a custom heading is not one of the kind's.
    pub fn new(kind: Kind, format: Format, namespaces: Namespaces, context: Context) -> Result<Self, String> {
        Ok(Self { columns: format.columns(kind, namespaces)?, format, widths: Vec::new(), context })
    }

    /// Writes some changes: rows of a table under the headings that the first have, or objects with `type` and `object`
    /// as Kubernetes' watch sends them.
    pub fn render(&mut self, changes: &[(Change, &Document)]) -> String {
        let each = |write: &dyn Fn(Change, &Document) -> String| {
            changes.iter().map(|(change, document)| write(*change, document)).collect()
        };
        let object = |change: Change, document: &Document| json!({"type": change.to_string(), "object": document.value()});
        match self.format {
            Format::Ps | Format::Wide | Format::Custom(_) => self.rows(changes),
            Format::Yaml => {
                each(&|change, document| format!("---\n{}", manifest::to_yaml(&object(change, document))))
            }
            Format::Json => each(&|change, document| format!("{:#}\n", object(change, document))),
            Format::Name => each(&|change, document| format!("{change} {}\n", short_name(document))),
        }
    }

    fn rows(&mut self, changes: &[(Change, &Document)]) -> String {
        let mut rows = Vec::new();
        if self.widths.is_empty() {
            let headings = self.columns.iter().map(|column| column.heading.to_owned());
            rows.push(std::iter::once("EVENT".to_owned()).chain(headings).collect());
            // The longest event, so that the next column stands still.
            self.widths = vec![0; self.columns.len() + 1];
            self.widths[0] = Change::Modified.to_string().len();
        }
        for (change, document) in changes {
            let mut row = vec![change.to_string()];
            row.extend(cells(&self.columns, document, &self.context));
            rows.push(row);
        }
        let rows: Vec<&[String]> = rows.iter().map(Vec::as_slice).collect();
        table::aligned(&mut self.widths, &rows)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        })
    }
}
