//! **What things are**: the vocabulary that every other Calico crate speaks.
//!
//! - [`net`], [`asn`], [`name`], [`label`], [`revision`]: values that are checked once, when they are made.
//! - [`selector`]: the language that says which endpoints are meant.
//! - [`resource`]: the resources of the `projectcalico.org/v3` API, outside form and checked form.
//! - [`datastore`]: where they are kept: one small contract, several stores.
//! - [`snapshot`]: all that is known at one instant, which is what every decision is made from.
//! - `manifest` (feature `yaml`): resources as users write them.
//! - [`learned`]: routes that BGP learned, the one noun that the speaker and the route programmer share.
//!
//! The crate has no clock, no runtime and no IO, except behind its features: `sqlite` and `etcd` (stores), `yaml`
//! (manifests), `strategies` (property-test strategies and the contract that a store must keep).
//!
//! ```
//! use calico_model::resource::{IpPool, Object};
//! use calico_model::{Selector, Snapshot};
//!
//! let mut snapshot = Snapshot::default();
//! snapshot.insert(Object::new("default-ipv4-ippool".parse()?, IpPool::new("192.168.0.0/16".parse()?)));
//! let block = "192.168.3.64/26".parse()?;
//! assert_eq!(snapshot.pool_of(&block).map(|pool| pool.metadata.name.as_str()), Some("default-ipv4-ippool"));
//!
//! let databases: Selector = "role == 'database' && env in {'prod', 'test'}".parse()?;
//! assert_eq!(databases.to_string(), r#"(role == "database" && env in {"prod", "test"})"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs)]

pub mod asn;
pub mod datastore;
pub mod kubernetes;
pub mod label;
pub mod learned;
#[cfg(feature = "yaml")]
pub mod manifest;
pub mod name;
pub mod net;
pub mod resource;
pub mod revision;
pub mod selector;
pub mod snapshot;
#[cfg(any(test, feature = "strategies"))]
pub mod strategies;
pub mod timestamp;
pub mod v1;
mod wire;

pub use asn::{AsNumber, Community, RouterId};
#[cfg(feature = "sqlite")]
pub use datastore::SqliteStore;
pub use datastore::{Datastore, MemoryStore, Syncer};
#[cfg(feature = "etcd")]
pub use datastore::{EtcdConfig, EtcdStore};
pub use label::Labels;
pub use learned::{LearnedRoute, LearnedRoutes};
pub use name::{InterfaceName, Name, Namespace, NodeName};
pub use net::{Cidr, Family, InterfaceAddr, Mac, ParseError, Protocol};
pub use revision::{Revision, SequenceNumber};
pub use selector::{LabelSource, Selector, SelectorError};
pub use snapshot::{Snapshot, Update};
pub use wire::{Fault, Faults, UnknownField};
