//! **What things are**: the vocabulary that every other Calico crate speaks.
#![deny(missing_docs)]

pub mod asn;
pub mod datastore;
pub mod label;
pub mod learned;
pub mod net;
pub mod revision;
pub mod selector;

pub use asn::{AsNumber, Community, RouterId};
pub use datastore::{Datastore, MemoryStore};
pub use label::Labels;
pub use learned::{LearnedRoute, LearnedRoutes};
pub use net::{Cidr, Family, InterfaceAddr, Mac, ParseError, Protocol};
pub use revision::{Revision, SequenceNumber};
pub use selector::{LabelSource, Selector, SelectorError};
