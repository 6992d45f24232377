//! A node's routes, tunnels, neighbours and settings, changed by somebody else at random for as long as you like: each
//! change must be undone within five seconds, and what belongs to others stay as it is.
//!
//! `cargo run -p calico-route --features netlink --example drift -- SECONDS [SEED]`, as root; it makes a network namespace
//! of its own.
#![allow(clippy::unwrap_used, reason = "a check fails by panicking")]

use std::time::Duration;

#[path = "../tests/it/cluster.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod cluster;
#[path = "../tests/it/drift.rs"]
mod drift;
#[path = "../tests/it/namespace.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod namespace;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (Some(Ok(seconds)), seed) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: drift SECONDS [SEED], both whole numbers");
        std::process::exit(2);
    };
    let seed = seed.and_then(Result::ok).unwrap_or_else(|| u64::from(std::process::id()));
    let made = drift::storm(seed, Duration::from_secs(seconds)).await;
    println!("{made} changes, each undone within 5 s; nothing of others' was touched");
}
