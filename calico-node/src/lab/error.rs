//! What can go wrong with a lab, each as one sentence with its remedy.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use calico_model::Faults;

/// A topology that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// The file cannot be read.
    #[error("the topology {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is not YAML.
    #[error("the topology is not YAML: {0}")]
    Malformed(String),
    /// The topology breaks rules.
    #[error("the topology cannot be used: {0}")]
    Invalid(Faults),
    /// A lab's name is out of bounds.
    #[error("{name:?} is no name for a lab: use at most 15 lower-case letters, digits and inner dashes")]
    LabName {
        /// The name.
        name: String,
    },
}

/// Something that a lab could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The topology cannot be used.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The caller is not root.
    #[error("a lab makes network namespaces, which takes root: run this as root (sudo)")]
    NotRoot,
    /// A lab of that name is up, or was left behind.
    #[error("the lab {name} is up already: take it down with `calico-lab down {name}`")]
    Exists {
        /// The lab.
        name: String,
    },
    /// A namespace is another lab's.
    #[error(
        "the network namespace {netns} belongs to the lab {owner}: take that down with `calico-lab down {owner}`"
    )]
    NetnsOfLab {
        /// The namespace.
        netns: String,
        /// The lab that has it.
        owner: String,
    },
    /// A namespace is taken.
    #[error("a network namespace named {netns} exists already: remove it with `ip netns del {netns}`")]
    NetnsTaken {
        /// The namespace.
        netns: String,
    },
    /// A lab could not be made.
    #[error("the lab could not be made (its logs are kept in {})", logs.display())]
    Up {
        /// Why.
        source: Box<LabError>,
        /// Where its logs are.
        logs: PathBuf,
    },
    /// A workload has no address.
    #[error("the workload {workload} is not attached to the network")]
    NotAttached {
        /// The workload.
        workload: String,
    },
    /// No lab of that name is known.
    #[error("there is no lab {name}: `calico-lab list` shows the labs that are up")]
    NoSuchLab {
        /// The lab.
        name: String,
    },
    /// A lab was given up before it was written down.
    #[error("the lab {name} is only a folder: `calico-lab down {name}` removes it")]
    NotWrittenDown {
        /// The lab.
        name: String,
    },
    /// No host or workload of that name is known.
    #[error("the lab {lab} has no host or workload {name}: it has {known}")]
    NoSuchMember {
        /// The lab.
        lab: String,
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A program is missing.
    #[error("the program {program} is missing: {remedy}")]
    MissingProgram {
        /// The program.
        program: String,
        /// What to do.
        remedy: String,
    },
    /// A program failed.
    #[error("{command} failed ({status}): {output}")]
    Failed {
        /// The command.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        output: String,
    },
    /// A program did not end in time.
    #[error("{command} did not end within {seconds} s")]
    TooSlow {
        /// The command.
        command: String,
        /// How long it was given.
        seconds: u64,
    },
    /// An agent did not become ready.
    #[error("calico-node on {host} is not ready after {seconds} s: {reason}; its log is {}", log.display())]
    NotReady {
        /// The host.
        host: String,
        /// How long it was given.
        seconds: u64,
        /// What is missing.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// An agent ended by itself.
    #[error("calico-node on {host} ended by itself; its log is {}, and ends with:\n{tail}", log.display())]
    AgentEnded {
        /// The host.
        host: String,
        /// Its log.
        log: PathBuf,
        /// The end of its log.
        tail: String,
    },
    /// A file, folder, namespace or process could not be worked with.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted.
        attempt: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program's answer cannot be understood.
    #[error("{program} gave an answer that cannot be understood ({reason}): {answer}")]
    Answer {
        /// The program.
        program: String,
        /// What is wrong.
        reason: String,
        /// What it said.
        answer: String,
    },
    /// The user interrupted the lab.
    #[error("interrupted")]
    Interrupted,
    /// Parts of a lab could not be removed.
    #[error("the lab {name} is not wholly gone: {}", list(failures))]
    LeftBehind {
        /// The lab.
        name: String,
        /// What could not be removed.
        failures: Vec<LabError>,
    },
}

impl LabError {
    /// Returns a maker of [`LabError::Io`] for `map_err`.
    pub(super) fn io<E: Into<io::Error>>(attempt: impl Into<String>) -> impl FnOnce(E) -> Self {
        let attempt = attempt.into();
        |source| Self::Io { attempt, source: source.into() }
    }
}

fn list(failures: &[LabError]) -> String {
    failures.iter().map(with_causes).collect::<Vec<_>>().join("; ")
}

fn with_causes(error: &LabError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
