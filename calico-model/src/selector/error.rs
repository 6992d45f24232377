//! Why a selector does not parse, and where.

use std::fmt::Write as _;

use thiserror::Error;

/// How much of the input a snippet shows on each side of the fault, in characters.
const CONTEXT: usize = 40;

/// A text that is no selector: what is wrong, and at which column.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("selector is invalid at column {column}: {message}")]
pub struct SelectorError {
    input: Box<str>,
    column: usize,
    message: Box<str>,
}

impl SelectorError {
    /// `at` is a byte offset into `input`, on a character boundary.
    pub(super) fn new(input: &str, at: usize, message: impl Into<Box<str>>) -> Self {
        Self { input: input.into(), column: input[..at].chars().count() + 1, message: message.into() }
    }

    /// Returns the text that was refused.
    #[must_use]
    pub fn input(&self) -> &str {
        &self.input
    }

    /// Returns where the fault is, in characters from 1; one past the end when something is missing there.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// Returns what is wrong, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns two lines: the input around the fault, and a caret under it.
    ///
    /// Long input is cut with `…` on either side, and control characters show as `·`, so that both lines stay lines.
    ///
    /// ```
    /// # use calico_model::Selector;
    /// let error = "role = 'db'".parse::<Selector>().unwrap_err();
    /// assert_eq!(error.caret(), "role = 'db'\n     ^");
    /// ```
    #[must_use]
    pub fn caret(&self) -> String {
        let at = self.column - 1;
        let start = at.saturating_sub(CONTEXT);
        let mut rest = self.input.chars().skip(start);
        let shown: String =
            rest.by_ref().take(2 * CONTEXT).map(|c| if c.is_control() { '·' } else { c }).collect();
        let before = if start > 0 { "…" } else { "" };
        let after = if rest.next().is_some() { "…" } else { "" };
        let indent = at - start + before.chars().count();
        let mut lines = format!("{before}{shown}{after}\n");
        // Writing to a String cannot fail.
        let _ = write!(lines, "{:indent$}^", "");
        lines
    }
}
