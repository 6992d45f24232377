//! **The process**: what the programs `calico-node`, `calicoctl`, `calico`, `calico-ipam` and `calico-lab` share.
//!
//! Thin by intent: everything that decides is in the libraries; here it is joined to files, sockets and signals.
#![deny(missing_docs)]

pub mod agent;
pub mod cni;
pub mod config;
pub mod ctl;
pub mod datastore;
pub mod desired;
pub mod lab;
pub mod paths;
pub mod settings;
pub mod stamp;
pub mod startup;
pub mod status;
pub mod telemetry;
pub mod workload;
