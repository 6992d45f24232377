//! What it costs to follow a large cluster.
//!
//! `cargo bench -p calico-policy --bench compiler`. CPU time of the process, for 1,000 updates of endpoints of which one in a
//! hundred is the node's own, each with the deltas taken after ten updates; beside one whole compilation in the same run.

#[path = "common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Duration;

use calico_model::{Snapshot, Update};
use calico_policy::{Changes, Compiler, compile};
use common::{Size, node, resident};
use nix::sys::resource::{UsageWho, getrusage};

const SIZE: Size = Size { endpoints: 100_000, local: 200, policies: 2_000, rules: 5 };
const UPDATES: usize = 1_000;
const ROUNDS: usize = 7;

fn put(update: impl Into<calico_model::resource::Resource>) -> Update {
    Update::Put(Box::new(update.into()))
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the kernel tells a process its own usage");
    let part = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), 1000 * u32::try_from(time.tv_usec()).unwrap_or_default())
    };
    part(usage.user_time()) + part(usage.system_time())
}

/// Every endpoint's turn comes, far from the one before; of each hundred one is the node's own.
fn turn(i: usize) -> usize {
    if i.is_multiple_of(100) { i / 100 % SIZE.local } else { i * 7_919 % SIZE.endpoints }
}

fn learned(world: &Snapshot) -> Compiler {
    let mut compiler = Compiler::new(node());
    world.workloads.values().for_each(|object| compiler.apply(put(object.clone())));
    world.policies.values().for_each(|object| compiler.apply(put(object.clone())));
    compiler
}

fn main() {
    let mut world = Snapshot::default();
    (0..SIZE.endpoints).for_each(|i| world.insert(SIZE.endpoint(i, 0)));
    (0..SIZE.policies).for_each(|i| world.insert(SIZE.policy(i, 8000)));
    let before = cpu();
    let whole = compile(&world, &node());
    let full = cpu() - before;
    println!(
        "{} endpoints, {} of them local, {} selectors in {} policies: {}",
        SIZE.endpoints,
        SIZE.local,
        SIZE.policies * SIZE.rules,
        SIZE.policies,
        whole.stats()
    );
    drop(whole);
    println!("  whole compilation                  {:8.0} ms", full.as_secs_f64() * 1e3);

    let mut compiler = learned(&world);
    drop(world);
    assert_eq!(compiler.changes(), Changes::Everything);
    println!("  resident with the compiler         {:8} MB", resident());
    let report = |what: &str, mut times: Vec<Duration>, updates: usize| {
        times.sort();
        let median = times[times.len() / 2].as_secs_f64();
        println!(
            "  {what:34} {:8.2} ms of CPU: {:5.2} % of a core at 1,000 a second; a whole compilation for each batch is {:.0} times that",
            median * 1e3,
            median * 100.0 * 1_000.0 / updates as f64,
            full.as_secs_f64() * (updates as f64 / 10.0) / median
        );
    };
    let rounds = |compiler: &mut Compiler, change: &mut dyn FnMut(&mut Compiler, usize, usize)| {
        let times = (1..=ROUNDS).map(|round| {
            let before = cpu();
            for i in 0..UPDATES {
                change(compiler, i, round);
                if i % 10 == 9 {
                    black_box(compiler.changes());
                }
            }
            cpu() - before
        });
        times.collect::<Vec<_>>()
    };
    let times = rounds(&mut compiler, &mut |compiler, i, round| {
        compiler.apply(put(SIZE.endpoint(turn(i), round % 3)));
    });
    report("1,000 endpoints change", times, UPDATES);
    let times = rounds(&mut compiler, &mut |compiler, i, _| {
        let object = SIZE.endpoint(turn(i / 2), 0);
        compiler.apply(if i % 2 == 0 { Update::Removed(object.key()) } else { put(object) });
    });
    report("500 endpoints go and come", times, UPDATES);
    let times = (1..=ROUNDS).map(|round| {
        let before = cpu();
        for i in 0..100 {
            compiler.apply(put(SIZE.policy(i * 17 % SIZE.policies, 8_000 + round as u16)));
            black_box(compiler.changes());
        }
        cpu() - before
    });
    report("100 policies change", times.collect(), 100);
    println!("  resident at the end                {:8} MB", resident());
}
