//! One address after the other, against the bare commits that each needs.

use std::sync::Arc;

use calico_ipam::{Ipam, Release};
use calico_model::Revision;
use calico_model::datastore::{Datastore, Key, Precondition, Write};

use crate::measure::{Cost, Stopwatch, median_cost, ratios};
use crate::{now, request, with_pool};

const RUNS: u32 = 7;

/// Assigns and releases one address at a time, in turns with the same two commits made directly.
pub(crate) async fn compare(name: &str, store: Arc<dyn Datastore>, rounds: u32) {
    with_pool(&*store, "10.0.0.0/16", 26).await;
    let ipam = Ipam::new(store.clone());
    ipam.auto_assign(request("n1", "first", 1), now()).await.unwrap();
    let block = ipam.inventory().await.unwrap().blocks.into_keys().next().unwrap();
    let block = calico_model::resource::block::block_key(&block);
    let value = store.get(&block).await.unwrap().unwrap().value;
    let mut pairs = Vec::new();
    for run in 0..RUNS {
        let bare = bare(&*store, &value, run, rounds).await;
        pairs.push((bare, ours(&ipam, run, rounds).await));
    }
    let (cpu, wall) = ratios(&pairs);
    let (bare, ours): (Vec<Cost>, Vec<Cost>) = pairs.into_iter().unzip();
    println!("{name}: assign and release {}", median_cost(&ours));
    println!("  the bare commits {}", median_cost(&bare));
    println!(
        "  {:.0} % of their rate by the clock (at least 80 %), {:.0} % by processor",
        wall * 100.0,
        cpu * 100.0
    );
}

async fn ours(ipam: &Ipam, run: u32, rounds: u32) -> Cost {
    let watch = Stopwatch::start();
    for round in 0..rounds {
        let handle = format!("h{run}-{round}");
        let got = ipam.auto_assign(request("n1", &handle, 1), now()).await.unwrap();
        let release =
            Release { addr: got.v4[0].addr, handle: Some(handle), sequence: Some(got.v4[0].sequence) };
        ipam.release(&[release], now()).await.unwrap();
    }
    watch.cost().each(rounds)
}

async fn bare(store: &dyn Datastore, value: &[u8], run: u32, rounds: u32) -> Cost {
    let key: Key = "/bench/block".parse().unwrap();
    let counts = br#"{"block":{"10.0.0.0/26":1},"deleted":false}"#;
    let first = vec![Write::put(key.clone(), value.to_vec(), Precondition::Any)];
    let mut revision: Revision = store.commit(first).await.unwrap();
    let watch = Stopwatch::start();
    for round in 0..rounds {
        let handle: Key = format!("/bench/handle/{run}-{round}").parse().unwrap();
        let put = |precondition| Write::put(key.clone(), value.to_vec(), precondition);
        let assign = vec![
            Write::put(handle.clone(), counts.to_vec(), Precondition::Absent),
            put(Precondition::At(revision)),
        ];
        let assigned = store.commit(assign).await.unwrap();
        let release =
            vec![put(Precondition::At(assigned)), Write::delete(handle, Precondition::At(assigned))];
        revision = store.commit(release).await.unwrap();
    }
    watch.cost().each(rounds)
}
