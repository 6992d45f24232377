//! A decode error names its remedy (RFC 7606): drop one attribute, treat the routes as withdrawn, or end the session.

use std::fmt;

pub use super::notification::Notification;

/// What RFC 7606 section 2 wants done about a fault, mildest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// The attribute is dropped and the routes are used.
    Discard,
    /// The prefixes that the message announces are treated as withdrawn.
    TreatAsWithdraw,
    /// The session ends with this NOTIFICATION.
    Reset(Notification),
}

/// A fault in a received message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DecodeError {
    /// The type of the path attribute at fault, when one is.
    pub attribute: Option<u8>,
    /// What is wrong, as a clause.
    pub problem: &'static str,
    /// What is to be done about it.
    pub remedy: Remedy,
}

impl DecodeError {
    pub(crate) fn reset(kind: (u8, u8), problem: &'static str) -> Self {
        Self { attribute: None, problem, remedy: Remedy::Reset(Notification::new(kind)) }
    }

    pub(crate) fn reset_with(kind: (u8, u8), data: &[u8], problem: &'static str) -> Self {
        Self { attribute: None, problem, remedy: Remedy::Reset(Notification::new(kind).with_data(data)) }
    }

    pub(crate) fn withdraw(attribute: Option<u8>, problem: &'static str) -> Self {
        Self { attribute, problem, remedy: Remedy::TreatAsWithdraw }
    }

    pub(crate) fn discard(attribute: u8, problem: &'static str) -> Self {
        Self { attribute: Some(attribute), problem, remedy: Remedy::Discard }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attribute {
            Some(kind) => write!(f, "path attribute {kind}: {}", self.problem),
            None => f.write_str(self.problem),
        }
    }
}
