//! How writing and reading a resource can fail.

use crate::datastore::{CommitError, Key, StoreError};
use crate::resource::{ReadError, ResourceKey};

/// A request to the [`Client`](super::Client) that did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The resource was to be created and is there already.
    #[error("resource already exists: {key}")]
    AlreadyExists {
        /// The resource.
        key: ResourceKey,
    },
    /// The resource is not there.
    #[error("resource does not exist: {key}")]
    NotFound {
        /// The resource.
        key: ResourceKey,
    },
    /// The resource was changed since the revision that the request names. Read it again, decide again.
    #[error("update conflict: {key} was changed by another writer since it was read")]
    Conflict {
        /// The resource.
        key: ResourceKey,
    },
    /// The resource breaks a rule of its own, or clashes with another one.
    #[error(transparent)]
    Invalid(#[from] ReadError),
    /// The request is never allowed, or not while something else exists.
    #[error("{key} cannot be {attempted}: {reason}")]
    Forbidden {
        /// The resource.
        key: ResourceKey,
        /// What was attempted: `written` or `deleted`.
        attempted: &'static str,
        /// Why not.
        reason: String,
    },
    /// What is stored under the key is no resource.
    #[error("what the datastore holds at {key} cannot be read")]
    Corrupt {
        /// The key.
        key: Key,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// Others create and delete the resource again and again. Worth retrying.
    #[error("others kept creating and deleting the resource during {attempts} attempts")]
    Busy {
        /// How often it was tried.
        attempts: usize,
    },
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take the write, or its outcome is unknown.
    #[error("{key} was not written")]
    Commit {
        /// The resource.
        key: ResourceKey,
        /// Why.
        #[source]
        source: CommitError,
    },
}

impl ClientError {
    pub(super) fn from_commit(key: &ResourceKey, error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => ClientError::Conflict { key: key.clone() },
            CommitError::Store(source) => ClientError::Store(source),
            CommitError::Refused { .. } | CommitError::OutcomeUnknown { .. } => {
                ClientError::Commit { key: key.clone(), source: error }
            }
        }
    }
}
