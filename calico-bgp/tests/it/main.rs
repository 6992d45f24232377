//! The speaker as a whole: on an in-memory wire, and against real peers in network namespaces.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod between_ases;
#[cfg(feature = "net")]
mod bird;
mod calico;
mod changes;
mod chaos;
mod communities;
#[cfg(feature = "net")]
mod daemons;
mod day;
mod dialects;
#[cfg(feature = "net")]
mod distance;
#[cfg(feature = "net")]
mod driver;
#[cfg(feature = "net")]
mod filters;
mod hostile;
mod identity;
#[cfg(feature = "net")]
mod lab;
mod limits;
mod long_lived;
mod malformed;
#[cfg(feature = "net")]
mod matrix;
mod next_hops;
mod pair;
#[cfg(feature = "net")]
mod recovery;
mod refresh;
mod refused;
mod roles;
mod slow;
#[cfg(feature = "net")]
mod sockets;
#[cfg(feature = "net")]
mod station;
mod third;
#[cfg(feature = "net")]
mod unfinished;
mod watched;
mod world;
