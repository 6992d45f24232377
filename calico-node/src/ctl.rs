//! What `calicoctl` is made of, apart from asking: reading manifests, and showing resources.

pub mod columns;
pub mod format;
pub mod input;
pub mod table;
