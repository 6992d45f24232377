//! The programs and what they share, against the real kernel: every test makes network namespaces of its own. Needs root.

mod namespace;
mod workload;
