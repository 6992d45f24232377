//! What can go wrong with a replay, each as one sentence with its remedy.

use std::io;
use std::path::PathBuf;

use calico_policy::{iptables, nft};

use super::super::error::LabError;
use crate::workload::WorkloadError;

/// A replay that cannot be done. A probe that fails is no error: it is counted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConformanceError {
    /// The caller is not root.
    #[error(
        "packets take network namespaces, and those take root: run this as root, or use --backend simulate"
    )]
    NotRoot,
    /// A file of cases cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold cases.
    #[error("{} holds no cases that can be replayed: {reason}", path.display())]
    NotCases {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Nothing is left to replay.
    #[error("no case has the id {id}: the first ones are {known}")]
    NoSuchCase {
        /// The id that was asked for.
        id: String,
        /// Some ids that there are.
        known: String,
    },
    /// What a case says cannot be turned into resources.
    #[error("case {case} cannot be replayed: {reason}")]
    Case {
        /// The case.
        case: String,
        /// What is wrong.
        reason: String,
    },
    /// The namespaces could not be made.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A workload could not be plugged in.
    #[error("the workload {workload} cannot be plugged in")]
    Plug {
        /// The workload.
        workload: String,
        /// Why.
        source: WorkloadError,
    },
    /// The rules could not be put in force.
    #[error("the rules of {host} cannot be put in force")]
    Rules {
        /// The host.
        host: String,
        /// Why.
        source: nft::ApplyError,
    },
    /// The rules could not be put in force with iptables.
    #[error("the rules of {host} cannot be put in force")]
    Iptables {
        /// The host.
        host: String,
        /// Why.
        source: iptables::ApplyError,
    },
    /// Iptables refused some of the rules.
    #[error("iptables of {host} refuses some of the rules: {refused}")]
    Refused {
        /// The host.
        host: String,
        /// What, and why.
        refused: String,
    },
    /// The kernel does not hold what was written to it.
    #[error(
        "after case {case} the kernel of {host} does not hold what was written, which would be mended by:\n{missing}"
    )]
    Drift {
        /// The case that was replayed last.
        case: String,
        /// The host.
        host: String,
        /// What would mend it.
        missing: String,
    },
    /// Packets could not be sent or received.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted.
        attempt: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl ConformanceError {
    /// Returns a maker of [`ConformanceError::Io`] for `map_err`.
    pub(super) fn io<E: Into<io::Error>>(attempt: impl Into<String>) -> impl FnOnce(E) -> Self {
        let attempt = attempt.into();
        |source| Self::Io { attempt, source: source.into() }
    }
}
