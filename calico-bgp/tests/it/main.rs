//! The speaker as a whole: on an in-memory wire, and against real peers in network namespaces.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

#[cfg(feature = "net")]
mod between_ases;
mod bird;
mod hostile;
#[cfg(feature = "net")]
mod lab;
mod pair;
mod world;
