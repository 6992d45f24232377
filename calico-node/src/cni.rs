//! The CNI plugins `calico` and `calico-ipam`, as functions.
//!
//! A runtime runs `calico` with a command in the environment and a network configuration on standard input. The plugin
//! asks the IPAM plugin for addresses, makes the workload known in the datastore, waits for the agent to put its policy in
//! force, and plugs it in. In that order: a workload can neither send nor receive before its policy is in force.
//!
//! An ADD that fails undoes what it had done and says everything that went wrong. A second ADD of the same container
//! gives the first one's result. A DEL may be repeated and removes only what is the container's own.

mod add;
mod check;
mod config;
mod del;
mod delegate;
mod error;
mod gc;
mod identity;
mod ipam;
mod log;
mod plugin;
mod policed;
mod program;
mod request;
mod result;
mod version;

pub use config::{Config, IpamConfig, PolicyType};
pub use delegate::Delegate;
pub use error::CniError;
pub use identity::Identity;
pub use program::{Program, main};
pub use request::{Args, Container, ContainerId, Request};
pub use result::{AddResult, ResultInterface, ResultIp};
pub use version::SpecVersion;
