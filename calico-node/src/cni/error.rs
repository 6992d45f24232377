//! What a plugin says when it fails.

use std::error::Error;
use std::path::PathBuf;

use calico_model::datastore::client::ClientError;
use calico_model::{InterfaceName, NodeName, ParseError};
use serde_json::{Value, json};

use super::SpecVersion;
use crate::workload::WorkloadError;

/// A request that a plugin did not carry out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CniError {
    /// The configuration is of a version that we do not speak.
    #[error(
        "CNI version {asked:?} is not supported: use one of {}",
        SpecVersion::ALL.map(SpecVersion::as_str).join(", ")
    )]
    Version {
        /// The version.
        asked: String,
    },
    /// The configuration is of a version that does not have this command.
    #[error("CNI version {version} does not have {command}: it came with {since}")]
    TooOld {
        /// The configuration's version.
        version: SpecVersion,
        /// The command.
        command: &'static str,
        /// The version that brought the command.
        since: SpecVersion,
    },
    /// An environment variable is missing or cannot be used.
    #[error("the environment variable {variable} {problem}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Standard input could not be read.
    #[error("could not read the network configuration from standard input")]
    Input(#[source] std::io::Error),
    /// Nobody listens to the answer.
    #[error("could not write the answer to standard output")]
    Unheard(#[source] std::io::Error),
    /// Standard input is no network configuration.
    #[error("the network configuration on standard input is not usable JSON: {problem}")]
    Decode {
        /// What the parser says.
        problem: String,
    },
    /// A key of the network configuration cannot be used.
    #[error("{key} in the network configuration {problem}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong with it and what to do about it.
        problem: String,
    },
    /// The agent has never run on this node.
    #[error(
        "this node is not set up: {} does not exist; is calico-node running on it?", nodename_file.display()
    )]
    NotSetUp {
        /// The file in which the agent leaves the node's name.
        nodename_file: PathBuf,
    },
    /// A file of the node cannot be used.
    #[error("{} {problem}", path.display())]
    NodeFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The datastore is not to be acted upon yet, or not now.
    #[error("the datastore is not ready: {problem}")]
    NotReady {
        /// Why.
        problem: String,
    },
    /// The datastore could not be opened.
    #[error("could not open the datastore")]
    Open(#[source] Box<dyn Error + Send + Sync>),
    /// The datastore failed.
    #[error("could not {attempted}")]
    Datastore {
        /// What was attempted.
        attempted: String,
        /// Why not.
        #[source]
        source: Box<ClientError>,
    },
    /// A part of the workload's name or labels cannot be used in the datastore.
    #[error("{what} cannot be used")]
    Name {
        /// What has that name.
        what: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// The node would let the workload do whatever it likes.
    #[error(
        "the rules of calico-node are not in force on this node, so the workload behind {interface} would be open: start calico-node"
    )]
    Unpoliced {
        /// The interface on the node.
        interface: InterfaceName,
    },
    /// The node would let any workload do whatever it likes.
    #[error("the rules of calico-node are not in force on this node: start calico-node")]
    NoRules,
    /// STATUS found that no ADD can succeed.
    #[error("{0}")]
    Unavailable(Box<CniError>),
    /// It cannot be seen whether the node's rules are in force.
    #[error("could not see whether the rules of calico-node are in force on this node")]
    Rules(#[source] Box<calico_policy::nft::ApplyError>),
    /// The interface on the node is another workload's.
    #[error(
        "{interface} on the node belongs to the workload endpoint {owner}: Calico gives a container one interface, and this container or pod has it already"
    )]
    InterfaceTaken {
        /// The interface on the node.
        interface: InterfaceName,
        /// Whose it is.
        owner: String,
    },
    /// The kernel refused.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The IPAM plugin cannot be run.
    #[error("could not run the IPAM plugin {plugin}: {problem}")]
    NoPlugin {
        /// The plugin's name.
        plugin: String,
        /// Why not.
        problem: String,
    },
    /// The IPAM plugin failed, in its own words.
    #[error("{plugin}: {msg}")]
    Plugin {
        /// The plugin's name.
        plugin: String,
        /// Its error code.
        code: u64,
        /// Its message.
        msg: String,
        /// Its details.
        details: String,
    },
    /// The IPAM plugin gave an address that a workload cannot have.
    #[error("the IPAM plugin {plugin} gave {given}, of no use to a workload")]
    Unusable {
        /// The plugin's name.
        plugin: String,
        /// What it gave.
        given: String,
    },
    /// No address could be assigned.
    #[error("no address could be assigned on {node}")]
    Assign {
        /// The node.
        node: NodeName,
        /// Why not.
        #[source]
        source: Box<calico_ipam::AssignError>,
    },
    /// Addresses could not be released.
    #[error("the addresses of {handle} could not be released")]
    Release {
        /// The handle.
        handle: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// CHECK found differences.
    #[error("the workload is not as it was plugged in: {}", differences.join("; "))]
    Differs {
        /// What differs, a sentence each.
        differences: Vec<String>,
    },
    /// Several things went wrong; the first is what it is about.
    #[error("{first}")]
    Several {
        /// The first failure.
        first: Box<CniError>,
        /// What went wrong as well, such as undoing what had been done.
        others: Vec<CniError>,
    },
}

impl CniError {
    /// Joins the failures of one request; `None` when there is none.
    #[must_use]
    pub fn joined(errors: Vec<CniError>) -> Option<CniError> {
        let mut errors = errors.into_iter();
        let first = errors.next()?;
        let others: Vec<CniError> = errors.collect();
        Some(if others.is_empty() { first } else { Self::Several { first: Box::new(first), others } })
    }

    /// Makes it the reason for which STATUS says that the plugin is not available.
    pub(super) fn unavailable(self) -> Self {
        Self::Unavailable(Box::new(self))
    }

    pub(super) fn datastore(attempted: impl Into<String>, source: ClientError) -> Self {
        Self::Datastore { attempted: attempted.into(), source: Box::new(source) }
    }

    /// Returns the error code: those below 100 are the specification's, the others ours.
    ///
    /// 100: the datastore; 101: IPAM; 102: the kernel; 103: CHECK found differences; 104: the endpoint is another's.
    #[must_use]
    pub fn code(&self) -> u64 {
        match self {
            Self::Version { .. } | Self::TooOld { .. } => 1,
            Self::Environment { .. } => 4,
            Self::Input(_) | Self::Unheard(_) => 5,
            Self::Decode { .. } => 6,
            Self::Config { .. } | Self::Name { .. } => 7,
            // "Try again later": the agent or an operator has to do something first.
            Self::NotSetUp { .. } | Self::NotReady { .. } | Self::Unpoliced { .. } | Self::NoRules => 11,
            // "The plugin is not available": what STATUS says, whatever the reason (CNI specification 1.1).
            Self::Unavailable(_) => 50,
            Self::NodeFile { .. } | Self::Open(_) | Self::Datastore { .. } => 100,
            Self::NoPlugin { .. } | Self::Unusable { .. } | Self::Assign { .. } | Self::Release { .. } => 101,
            Self::Plugin { code, .. } => *code,
            Self::Workload(WorkloadError::NoNamespace { .. } | WorkloadError::NotANamespace { .. }) => 3,
            Self::Workload(_) | Self::Rules(_) => 102,
            Self::Differs { .. } => 103,
            Self::InterfaceTaken { .. } => 104,
            Self::Several { first, .. } => first.code(),
        }
    }

    /// Returns the JSON that a plugin writes to standard output when it fails.
    #[must_use]
    pub fn to_json(&self, version: SpecVersion) -> Value {
        let mut body =
            json!({ "cniVersion": version.as_str(), "code": self.code(), "msg": self.to_string() });
        let details = self.details();
        if !details.is_empty() {
            body["details"] = details.into();
        }
        body
    }

    /// Returns the causes, from the nearest on; empty when there is none.
    pub(super) fn details(&self) -> String {
        if let Self::Several { first, others } = self {
            let others = others.iter().map(|other| format!("also: {other}{}", indented(&other.details())));
            let parts = [first.details()].into_iter().chain(others);
            return parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        }
        if let Self::Plugin { details, .. } = self {
            return details.clone();
        }
        if let Self::Unavailable(reason) = self {
            return reason.details();
        }
        let mut causes = Vec::new();
        let mut cause = self.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        causes.join(": ")
    }
}

fn indented(details: &str) -> String {
    if details.is_empty() { String::new() } else { format!(" ({details})") }
}

#[cfg(test)]
mod tests {
    use calico_route::netlink::ConnectError;

    use super::*;

    #[test]
    fn an_error_is_said_with_its_causes_and_with_what_went_wrong_in_undoing() {
        let refused =
            || WorkloadError::Connect(ConnectError::Socket(std::io::Error::other("no sockets left")));
        let undo = CniError::Plugin {
            plugin: "calico-ipam".to_owned(),
            code: 100,
            msg: "could not open the datastore".to_owned(),
            details: "disk full".to_owned(),
        };
        let error = CniError::joined(vec![refused().into(), undo]).unwrap();
        assert_eq!(
            error.to_json(SpecVersion::V1_0_0),
            json!({
                "cniVersion": "1.0.0",
                "code": 102,
                "msg": "cannot open a route netlink socket",
                "details": "no sockets left; also: calico-ipam: could not open the datastore (disk full)",
            })
        );
        assert!(CniError::joined(Vec::new()).is_none());
    }
}
