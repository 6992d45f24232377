//! The programs and what they share, against the real kernel: every test makes network namespaces of its own. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod agent;
mod article;
mod article_001;
mod article_004;
mod bgp;
mod cluster;
mod cni;
mod conformance;
mod ctl;
#[cfg(feature = "etcd")]
mod etcd;
mod flows;
mod lab;
mod namespace;
mod workload;
