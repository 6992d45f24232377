//! Integration tests of `calico-model`.

#[cfg(all(feature = "etcd", feature = "strategies"))]
mod datastore_etcd;
#[cfg(feature = "strategies")]
mod datastore_memory;
#[cfg(all(feature = "sqlite", feature = "strategies"))]
mod datastore_sqlite;
#[cfg(all(any(feature = "etcd", feature = "sqlite"), feature = "strategies"))]
mod scratch;
