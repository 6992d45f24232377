//! What `calicoctl` is made of, apart from asking: reading manifests, showing resources, and reports.

pub mod bgp;
pub mod cascade;
pub mod columns;
pub mod events;
pub mod explain;
pub mod format;
pub mod input;
pub mod ipam_check;
pub mod ipam_report;
pub mod ipam_use;
pub mod migrate;
pub mod node_status;
pub mod plan;
pub mod ruleset;
pub mod table;
pub mod who;
