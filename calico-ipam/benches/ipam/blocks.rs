//! Finding blocks: the first ones of a pool, the ten-thousandth, and the last address of a full one.

use std::sync::Arc;
use std::time::Duration;

use calico_ipam::{Ipam, Release};
use calico_model::MemoryStore;
use calico_model::datastore::{Datastore, Key, Precondition, Prefix, Write};

use crate::measure::{Cost, Stopwatch, median, median_cost, ratios};
use crate::trips::Trips;
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

/// Fills a pool of 1,024 blocks but for one address.
pub(crate) async fn full_but_for_one() -> MemoryStore {
    let store = MemoryStore::with_history(100);
    with_pool(&store, "10.0.0.0/16", 26).await;
    let filler = Ipam::new(Arc::new(store.clone()));
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
    store
}

/// Copies everything that is stored.
pub(crate) async fn copy(from: &MemoryStore, to: &dyn Datastore) {
    let entries = from.list(&Prefix::new("/").unwrap()).await.unwrap().entries;
    for some in entries.chunks(50) {
        let put = |entry: &calico_model::datastore::Entry| {
            Write::put(entry.key.clone(), entry.value.clone(), Precondition::Any)
        };
        to.commit(some.iter().map(put).collect()).await.unwrap();
    }
}

/// The last free address, for a process that knows nothing yet; and what one round trip takes, beside it.
pub(crate) async fn last_address(name: &str, store: Arc<dyn Datastore>) {
    let nothing: Key = "/bench/nothing".parse().unwrap();
    let (mut costs, mut bare, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let watch = Stopwatch::start();
        store.get(&nothing).await.unwrap();
        bare.push(watch.cost().wall.as_secs_f64() * 1e3);
        let counted = Arc::new(Trips::new(store.clone()));
        let ipam = Ipam::new(counted.clone());
        let watch = Stopwatch::start();
        ipam.auto_assign(request("late", "last", 1), now()).await.unwrap();
        costs.push(watch.cost());
        trips.push(counted.taken());
        ipam.release_by_handle("last", now()).await.unwrap();
    }
    let round_trips = trips.iter().map(Vec::len).max().unwrap();
    let each = |number: usize| median(trips.iter().map(|trips| 1e3 * trips[number].as_secs_f64()).collect());
    let each: Vec<f64> = (0..round_trips).map(each).collect();
    let own = costs
        .iter()
        .zip(&trips)
        .map(|(cost, trips)| 1e3 * (cost.wall - trips.iter().sum::<Duration>()).as_secs_f64());
    println!("{name}: the last free address of 65,536, for a new process: {}", median_cost(&costs));
    println!(
        "  {:.1} ms of clock without the round trips (at most 10), which are {round_trips} (at most 4: of settings and own \
         affinities, two to find, the commit): {} ms; that of an empty read {:.2} ms",
        median(own.collect()),
        each.iter().map(|trip| format!("{trip:.2}")).collect::<Vec<_>>().join(", "),
        median(bare)
    );
}
