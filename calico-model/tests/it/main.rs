//! Integration tests of `calico-model`.

#[cfg(feature = "strategies")]
mod datastore_memory;
