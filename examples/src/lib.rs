//! One idea per program: run one with `cargo run --example NAME`. None needs root.

/// The README's code, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
