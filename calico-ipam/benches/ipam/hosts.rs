//! Sixteen hosts at once, against one.

use std::sync::Arc;

use calico_ipam::Ipam;
use calico_model::datastore::etcd::local::LocalCluster;
use calico_model::datastore::{Datastore, Key, Precondition, Write};

use crate::measure::{Stopwatch, median};
use crate::{etcd, now, request, with_pool};

const HOSTS: u32 = 16;
const ROUNDS: u32 = 60;
const RUNS: u32 = 5;

/// Each host is a process of its own: with its own connection and its own memory. What the store itself makes of sixteen
/// writers is measured beside it.
pub(crate) async fn compare(cluster: &LocalCluster) {
    with_pool(&*etcd(cluster), "10.0.0.0/16", 26).await;
    let (mut ipams, mut stores) = (Vec::new(), Vec::new());
    for host in 0..HOSTS {
        let ipam = Ipam::new(etcd(cluster)).with_pauses(host.into(), tokio::time::sleep);
        ipam.auto_assign(request(&format!("h{host}"), &format!("warm-{host}"), 1), now()).await.unwrap();
        ipams.push(ipam);
        stores.push(etcd(cluster));
    }
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let one = rate(&ipams[..1], |ipam, host| assign(ipam, host, run, "one")).await;
        let all = rate(&ipams, |ipam, host| assign(ipam, host, run, "all")).await;
        alone.push(one);
        together.push(all);
        ours.push(all / one);
        let one = rate(&stores[..1], |store, host| commit(store, host, run, "one")).await;
        let all = rate(&stores, |store, host| commit(store, host, run, "all")).await;
        bare.push(all / one);
    }
    println!(
        "etcd: one host assigns {:.0} addresses per second, {HOSTS} at once {:.0}: {:.1} times (at least 3)",
        median(alone),
        median(together),
        median(ours)
    );
    println!("  {HOSTS} writers of bare commits against one: {:.1} times", median(bare));
}

async fn assign(ipam: Ipam, host: usize, run: u32, name: &'static str) {
    for round in 0..ROUNDS {
        let handle = format!("{name}-{run}-{host}-{round}");
        ipam.auto_assign(request(&format!("h{host}"), &handle, 1), now()).await.unwrap();
    }
}

/// Writes what an assignment writes: a new handle, and a block that was read at a revision.
async fn commit(store: Arc<dyn Datastore>, host: usize, run: u32, name: &'static str) {
    let block: Key = format!("/bench/blocks/{host}").parse().unwrap();
    let value = vec![b'x'; 700];
    let mut revision =
        store.commit(vec![Write::put(block.clone(), value.clone(), Precondition::Any)]).await.unwrap();
    for round in 0..ROUNDS {
        let handle: Key = format!("/bench/handles/{name}-{run}-{host}-{round}").parse().unwrap();
        let writes = vec![
            Write::put(handle, vec![b'x'; 50], Precondition::Absent),
            Write::put(block.clone(), value.clone(), Precondition::At(revision)),
        ];
        revision = store.commit(writes).await.unwrap();
    }
}

async fn rate<T: Clone, F: Future<Output = ()> + Send + 'static>(
    hosts: &[T],
    work: impl Fn(T, usize) -> F,
) -> f64 {
    let watch = Stopwatch::start();
    let running: Vec<_> =
        hosts.iter().cloned().enumerate().map(|(number, host)| tokio::spawn(work(host, number))).collect();
    for host in running {
        host.await.unwrap();
    }
    f64::from(ROUNDS) * hosts.len() as f64 / watch.cost().wall.as_secs_f64()
}
