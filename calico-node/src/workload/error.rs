use std::io;
use std::path::PathBuf;

use calico_model::InterfaceName;
use calico_route::netlink::{ConnectError, ReadError};

use super::Step;

/// A workload that could not be plugged in, unplugged or looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// There is no such network namespace.
    #[error("the network namespace {} does not exist", path.display())]
    NoNamespace {
        /// The path of the namespace.
        path: PathBuf,
    },
    /// The path is not that of a network namespace.
    #[error("{} is not a network namespace", path.display())]
    NotANamespace {
        /// The path.
        path: PathBuf,
    },
    /// The workload's namespace is the node's own.
    #[error("{} is the network namespace of the node itself, which has no workload interface", path.display())]
    OwnNamespace {
        /// The path of the namespace.
        path: PathBuf,
    },
    /// The namespace could not be opened or entered.
    #[error("could not enter the network namespace {}", path.display())]
    Enter {
        /// The path of the namespace.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel could not be talked to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The kernel refused a step.
    #[error("could not {step}")]
    Step {
        /// The step.
        step: Box<Step>,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another workload's interface has the address.
    #[error(
        "could not {step}: the address is routed to {other}, another workload's interface; if that workload is gone, remove the interface"
    )]
    AddressInUse {
        /// The step.
        step: Box<Step>,
        /// The other workload's interface.
        other: InterfaceName,
    },
    /// A route of another program has the place of the one to the address.
    #[error(
        "could not {step}: a route of another program is there ({route}); remove it, give it another metric, or keep its addresses \
         out of the IP pool, as with an IPReservation"
    )]
    RouteTaken {
        /// The step.
        step: Box<Step>,
        /// The other's route.
        route: String,
    },
    /// The kernel's state could not be read.
    #[error("could not read {what} from the kernel")]
    Read {
        /// What was to be read.
        what: String,
        /// What the kernel said.
        #[source]
        source: ReadError,
    },
}

impl WorkloadError {
    pub(super) fn step(step: &Step, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Step { step: Box::new(step.clone()), source: source.into() }
    }
}
