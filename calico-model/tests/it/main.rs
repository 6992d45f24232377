//! Integration tests of `calico-model`.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod allocations;
#[cfg(feature = "yaml")]
mod articles;
#[cfg(all(feature = "etcd", feature = "strategies"))]
mod datastore_etcd;
#[cfg(feature = "strategies")]
mod datastore_memory;
#[cfg(all(feature = "sqlite", feature = "strategies"))]
mod datastore_sqlite;
mod felix;
#[cfg(feature = "yaml")]
mod hostile;
mod rules;
mod schema;
#[cfg(all(any(feature = "etcd", feature = "sqlite"), feature = "strategies"))]
mod scratch;
mod selector;
mod snapshot;
