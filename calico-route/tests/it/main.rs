//! Tests of `calico-route` as its users see it; with the feature `netlink` also against the real kernel, in network
//! namespaces of their own.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[cfg(feature = "netlink")]
mod advertisement;
mod articles;
#[cfg(feature = "netlink")]
mod beside;
mod classes;
mod cluster;
mod computed;
#[cfg(feature = "netlink")]
mod drift;
mod incremental;
#[cfg(feature = "netlink")]
mod kernel;
#[cfg(feature = "netlink")]
mod lab;
mod laws;
#[cfg(feature = "netlink")]
mod machines;
#[cfg(feature = "netlink")]
mod namespace;
mod next_hops;
#[cfg(feature = "netlink")]
mod on_link;
#[cfg(feature = "netlink")]
mod orders;
mod patience;
mod peering;
mod services;
mod settings;
mod six;
#[cfg(feature = "netlink")]
mod storm;
#[cfg(feature = "netlink")]
mod watched;
