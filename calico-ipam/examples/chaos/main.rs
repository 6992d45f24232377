//! Chaos: client processes on one store, killed at random, over a network that loses, delays and repeats.
//!
//! ```text
//! TMPDIR=/dev/shm OPERATIONS=1000000 DURATION=3600 SEED=7 cargo run --release -p calico-ipam --example chaos
//! ```
//!
//! Eight clients share one SQLite file; then sixteen share a real etcd of three members, whose leader is killed every ten
//! seconds. Nine tenths of the operations are SQLite's, which is so much faster that both take about as long; of
//! `DURATION`, each has half. Whichever comes first ends it. Throughout
//!
//! - clients die of SIGKILL several times a second, their successors take over what they held, and every tenth leak is
//!   left to the collector;
//! - requests and answers are held up, answers are lost, and commits arrive twice (`network`);
//! - clocks are apart by up to an hour, hosts are removed and come back, blocks are claimed and given back;
//! - a collector reclaims what no living client knows of, every two seconds.
//!
//! Every client claims each address it was given in a shared ledger *before* it goes on, so that an address which two
//! hold is found at that moment. The collector looks at the whole store at one revision: handles count what blocks hold,
//! and what clients hold is theirs. At the end everything is reclaimed that nobody holds, and then the store must hold
//! exactly what the clients do. The exit status says whether all of it was so.
//!
//! The seed decides which requests each client makes, in which order, and when clients die and answers are lost, counted
//! in requests and milliseconds: `SEED` runs the same schedule again. Not replayed is what the operating system decides:
//! how far each process has come when another one acts.

mod client;
mod collector;
mod dice;
mod journal;
mod network;
mod stores;
mod torment;

use std::time::Duration;

use stores::Kind;
use torment::{Phase, torment};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How many operations there are unless `OPERATIONS` says otherwise.
const OPERATIONS: u64 = 1_000_000;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(client) = client::Client::from_environment()? {
        return runtime.block_on(client.work());
    }
    let seed = setting("SEED")?.unwrap_or_else(|| u64::from(std::process::id()));
    let operations = setting("OPERATIONS")?.unwrap_or(OPERATIONS);
    let duration = setting("DURATION")?.map(|seconds| Duration::from_secs(seconds) / 2);
    println!("seed {seed}");
    let on_etcd = operations / 10;
    for (kind, clients, operations) in [(Kind::Sqlite, 8, operations - on_etcd), (Kind::Etcd, 16, on_etcd)] {
        runtime.block_on(torment(&Phase { kind, clients, seed, operations, duration }))?;
    }
    Ok(())
}

/// Reads a number from the environment.
pub(crate) fn setting(name: &str) -> Result<Option<u64>, Failure> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text.parse().map_err(|error| format!("{name}={text:?} is no number: {error}"))?)),
        Err(_) => Ok(None),
    }
}
