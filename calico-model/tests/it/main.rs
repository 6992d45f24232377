//! Integration tests of `calico-model`.

#[cfg(feature = "strategies")]
mod datastore_memory;
#[cfg(all(feature = "sqlite", feature = "strategies"))]
mod datastore_sqlite;
#[cfg(all(feature = "sqlite", feature = "strategies"))]
mod scratch;
