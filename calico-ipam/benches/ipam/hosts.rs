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
/// writers is measured beside it, and how much of the machine etcd and its clients take: where both are at all cores, no
/// client makes more of it.
pub(crate) async fn compare(cluster: &LocalCluster) {
    with_pool(&*etcd(cluster), "10.0.0.0/16", 26).await;
    let (mut ipams, mut stores) = (Vec::new(), Vec::new());
    for host in 0..HOSTS {
        let ipam = Ipam::new(etcd(cluster)).with_pauses(host.into(), tokio::time::sleep);
        ipam.auto_assign(request(&format!("h{host}"), &format!("warm-{host}"), 1), now()).await.unwrap();
        ipams.push(ipam);
        stores.push(etcd(cluster));
    }
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let one = rate(cluster, &ipams[..1], |ipam, host| assign(ipam, host, run, "one")).await;
        let all = rate(cluster, &ipams, |ipam, host| assign(ipam, host, run, "all")).await;
        ours.push((one, all));
        let one = rate(cluster, &stores[..1], |store, host| commit(store, host, run, "one")).await;
        let all = rate(cluster, &stores, |store, host| commit(store, host, run, "all")).await;
        bare.push((one, all));
    }
    let gain = |runs: &[(Rate, Rate)]| median(runs.iter().map(|(one, all)| all.each / one.each).collect());
    println!(
        "etcd: {HOSTS} hosts assign {:.1} times as fast as one (at least 3); {HOSTS} writers of bare commits write {:.1} \
         times as fast as one: {:.0} % of that",
        gain(&ours),
        gain(&bare),
        100.0 * gain(&ours) / gain(&bare)
    );
    for (what, runs) in [("assignments", ours), ("bare commits", bare)] {
        for (writers, which) in [(1, 0), (HOSTS, 1)] {
            let of = |value: fn(&Rate) -> f64| {
                let rate = |(one, all)| if which == 0 { one } else { all };
                median(runs.iter().copied().map(rate).map(|rate: Rate| value(&rate)).collect())
            };
            println!(
                "  {what} by {writers}: {:.0} per second, {:.2} cores for etcd and {:.2} for its clients",
                of(|rate| rate.each),
                of(|rate| rate.server),
                of(|rate| rate.clients)
            );
        }
    }
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

/// How many operations there were in a second, and how many cores they took.
#[derive(Clone, Copy)]
struct Rate {
    each: f64,
    server: f64,
    clients: f64,
}

async fn rate<T: Clone, F: Future<Output = ()> + Send + 'static>(
    cluster: &LocalCluster,
    hosts: &[T],
    work: impl Fn(T, usize) -> F,
) -> Rate {
    let (watch, before) = (Stopwatch::start(), processor_time(cluster));
    let running: Vec<_> =
        hosts.iter().cloned().enumerate().map(|(number, host)| tokio::spawn(work(host, number))).collect();
    for host in running {
        host.await.unwrap();
    }
    let (cost, server) = (watch.cost(), processor_time(cluster) - before);
    let seconds = cost.wall.as_secs_f64();
    Rate {
        each: f64::from(ROUNDS) * hosts.len() as f64 / seconds,
        server: server / seconds,
        clients: cost.cpu.as_secs_f64() / seconds,
    }
}

/// The seconds of processor that the server has had: fields 14 and 15 of proc_pid_stat(5), in ticks of USER_HZ, which is
/// 100 everywhere.
fn processor_time(cluster: &LocalCluster) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", cluster.pid(0).unwrap())).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>()
        / 100.0
}
