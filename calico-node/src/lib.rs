//! **The process**: what the programs `calico-node`, `calicoctl`, `calico`, `calico-ipam` and `calico-lab` share.
//!
//! Thin by intent: everything that decides is in the libraries; here it is joined to files, sockets and signals.
//!
//! ```
//! use calico_model::Snapshot;
//! use calico_node::desired::Desired;
//! use calico_node::settings::Settings;
//!
//! let var = |name: &str| (name == "IP").then(|| "172.16.6.47/24".to_owned());
//! let settings = Settings::read(var, None, "node1")?;
//! let mut desired = Desired::new(settings.node, settings.backend);
//! desired.settle(&Snapshot::default(), None);
//! assert!(desired.bgp().is_none(), "the node is not in the datastore yet");
//! # Ok::<(), calico_node::settings::SettingError>(())
//! ```
#![deny(missing_docs)]

pub mod agent;
pub mod clock;
pub mod cni;
pub mod config;
pub mod ctl;
pub mod datastore;
pub mod desired;
pub mod flows;
pub mod ipam;
pub mod lab;
pub mod paths;
pub mod reflector;
mod secrets;
pub mod settings;
pub mod stamp;
pub mod startup;
pub mod status;
pub mod telemetry;
pub mod workload;
