//! What deciding costs, without any store.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use calico_ipam::plan::{Candidate, Role, View, plan};
use calico_ipam::{Block, Holder, PerFamily, Versioned};
use calico_model::Revision;
use calico_model::datastore::Atomicity;
use calico_model::resource::block::{AffinityState, StoredAffinity};

use crate::measure::{Stopwatch, median};
use crate::now;

const RUNS: u32 = 7;

fn holder() -> Holder {
    Holder { handle: "h".to_owned(), attributes: BTreeMap::new() }
}

fn block() -> Block {
    Block::new("10.0.0.0/26".parse().unwrap(), Some("host:n1".parse().unwrap()), now())
}

/// Assignments per second of processor, as the median of several runs.
fn rate(assignments: u32, run: impl Fn()) -> f64 {
    let rates = (0..RUNS).map(|_| {
        let watch = Stopwatch::start();
        run();
        f64::from(assignments) / watch.cost().cpu.as_secs_f64()
    });
    median(rates.collect())
}

/// Assignments of the algebra alone: 64 of them fill a block, then it starts anew.
pub(crate) fn algebra() {
    let (empty, holder) = (block(), holder());
    let rounds = 5_000;
    let one = rate(rounds * 64, || {
        for _ in 0..rounds {
            let mut block = empty.clone();
            for _ in 0..64 {
                block = block.assign(1, &holder, &[], now(), Duration::ZERO).0;
            }
            black_box(&block);
        }
    });
    println!("a block's algebra: {one:.0} assignments per second and core, one at a time");
}

/// Whole assignments: planned, and applied to what they are planned from, one address at a time until the block is full;
/// then the same together with the bytes that a store would be given.
pub(crate) fn plans() {
    let holder = holder();
    let owner = "host:n1".parse().unwrap();
    let affinity = StoredAffinity { state: AffinityState::Confirmed, ..StoredAffinity::default() };
    let affinity = Versioned::at(affinity, Revision(1));
    let block = Versioned::at(block(), Revision(1));
    let cidr = "10.0.0.0/26".parse().unwrap();
    let empty = Candidate { pool: "p".parse().unwrap(), cidr, block, affinity, role: Role::Own };
    let assign = |candidate: &Candidate, count| {
        let view = View {
            owner: &owner,
            candidates: std::slice::from_ref(candidate),
            handle: &Versioned::absent(),
            reserved: &[],
            cooldown: Duration::ZERO,
            atomicity: Atomicity::Atomic,
            kept: calico_ipam::Kept::NONE,
        };
        plan(&view, PerFamily { v4: count, v6: 0 }, &holder, now())
    };
    let rounds = 2_000;
    let decided = rate(rounds * 64, || {
        for _ in 0..rounds {
            let mut candidate = empty.clone();
            for revision in 2..66 {
                let mut plan = assign(&candidate, 1);
                let block = plan.blocks.pop().and_then(|block| block.value).unwrap();
                candidate.block = Versioned::at(block, Revision(revision));
                black_box(plan);
            }
        }
    });
    println!(
        "planned and applied in memory: {decided:.0} assignments per second and core (at least 1,000,000)"
    );
    for count in [1, 64] {
        let rate = rate(rounds * 64, || {
            for _ in 0..rounds * 64 / count {
                black_box(assign(&empty, count as usize).writes());
            }
        });
        println!("  planned and encoded for a store, {count} at a time: {rate:.0} per second and core");
    }
    let writes = assign(&empty, 1).writes();
    let values: Vec<serde_json::Value> =
        writes.iter().filter_map(|write| serde_json::from_slice(write.value.as_deref()?).ok()).collect();
    let json = rate(rounds, || {
        for _ in 0..rounds {
            black_box(values.iter().map(|value| serde_json::to_vec(value).unwrap()).collect::<Vec<_>>());
        }
    });
    println!("  the JSON of the writes of one address alone, by serde_json: {json:.0} per second and core");
}
