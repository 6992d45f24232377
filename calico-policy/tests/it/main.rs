//! What the compiler promises, seen from outside.
#![allow(clippy::unwrap_used, reason = "tests")]

mod compare;
mod edge_cases;
mod edges;
mod edges_of_flows;
mod edges_of_kubernetes;
mod edges_of_paths;
mod every_filter;
mod explain;
mod golden;
mod host_paths;
mod incremental;
mod iptables;
mod iptables_lock;
mod kernel;
mod lab;
mod meaning;
mod netns;
mod packets;
mod race;
mod refused;
mod source_nat;
mod transition;
mod words;
