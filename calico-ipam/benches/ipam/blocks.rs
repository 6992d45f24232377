//! Finding blocks: the first ones of a pool, the ten-thousandth, and the last address of a full one.

use std::sync::Arc;

use calico_ipam::{Ipam, Release};
use calico_model::MemoryStore;

use crate::measure::{Cost, Stopwatch, median_cost, ratios};
use crate::{now, request, with_pool};

const RUNS: u32 = 5;

/// Claims blocks of a pool, each for another host, and so many addresses in each: a hundred from the tenth on, and a hundred from the ten-thousandth on.
pub(crate) async fn ten_thousandth(addresses: usize) {
    let mut pairs = Vec::new();
    for _ in 0..RUNS {
        let store = Arc::new(MemoryStore::with_history(100));
        with_pool(&*store, "10.0.0.0/12", 26).await;
        let ipam = Ipam::new(store);
        claim(&ipam, 0..10, addresses).await;
        let early = claim(&ipam, 10..110, addresses).await;
        claim(&ipam, 110..10_000, addresses).await;
        let late = claim(&ipam, 10_000..10_100, addresses).await;
        pairs.push((late.each(100), early.each(100)));
    }
    let (cpu, wall) = ratios(&pairs);
    let (late, early): (Vec<Cost>, Vec<Cost>) = pairs.into_iter().unzip();
    println!("a block and {addresses} of its addresses: the 10th {}", median_cost(&early));
    println!(
        "  the 10,000th {}: {cpu:.2} times by processor, {wall:.2} by the clock (at most 1.5)",
        median_cost(&late)
    );
}

async fn claim(ipam: &Ipam, numbers: std::ops::Range<u32>, addresses: usize) -> Cost {
    let watch = Stopwatch::start();
    for number in numbers {
        let (host, handle) = (format!("n{number}"), format!("h{number}"));
        ipam.auto_assign(request(&host, &handle, addresses), now()).await.unwrap();
    }
    watch.cost()
}

/// The last free address of a pool of 1,024 blocks, for a process that knows nothing yet.
pub(crate) async fn last_address() {
    let store = Arc::new(MemoryStore::with_history(100));
    with_pool(&*store, "10.0.0.0/16", 26).await;
    let filler = Ipam::new(store.clone());
    let mut free = None;
    for number in 0..1024u32 {
        for part in 0..8 {
            let (host, handle) = (format!("n{number}"), format!("h{number}-{part}"));
            let got = filler.auto_assign(request(&host, &handle, 8), now()).await.unwrap();
            if (number, part) == (700, 3) {
                free = Some(got.v4[5].addr);
            }
        }
    }
    filler.release(&[Release::of(free.unwrap())], now()).await.unwrap();
    let mut costs = Vec::new();
    for _ in 0..RUNS {
        let ipam = Ipam::new(store.clone());
        let watch = Stopwatch::start();
        let got = ipam.auto_assign(request("late", "last", 1), now()).await.unwrap();
        costs.push(watch.cost());
        assert_eq!(Some(got.v4[0].addr), free);
        ipam.release_by_handle("last", now()).await.unwrap();
    }
    println!("the last free address of 65,536, for a new process: {} (at most 10 ms)", median_cost(&costs));
}
