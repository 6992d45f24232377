//! Sixteen hosts at once, against one.

use calico_ipam::Ipam;
use calico_model::datastore::etcd::local::LocalCluster;

use crate::measure::{Stopwatch, median};
use crate::{etcd, now, request, with_pool};

const HOSTS: u32 = 16;
const ROUNDS: u32 = 60;
const RUNS: u32 = 5;

/// Each host is a process of its own: with its own connection and its own memory.
pub(crate) async fn compare(cluster: &LocalCluster) {
    with_pool(&*etcd(cluster), "10.0.0.0/16", 26).await;
    let mut ipams = Vec::new();
    for host in 0..HOSTS {
        let ipam = Ipam::new(etcd(cluster));
        ipam.auto_assign(request(&format!("h{host}"), &format!("warm-{host}"), 1), now()).await.unwrap();
        ipams.push(ipam);
    }
    let (mut alone, mut together, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        let one = rate(&ipams[..1], run, "one").await;
        let all = rate(&ipams, run, "all").await;
        alone.push(one);
        together.push(all);
        ratios.push(all / one);
    }
    println!(
        "etcd: one host assigns {:.0} addresses per second, {HOSTS} at once {:.0}: {:.1} times (at least 3)",
        median(alone),
        median(together),
        median(ratios)
    );
}

async fn rate(ipams: &[Ipam], run: u32, name: &'static str) -> f64 {
    let watch = Stopwatch::start();
    let hosts = ipams.iter().cloned().zip(0u32..).map(|(ipam, host)| {
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let handle = format!("{name}-{run}-{host}-{round}");
                ipam.auto_assign(request(&format!("h{host}"), &handle, 1), now()).await.unwrap();
            }
        })
    });
    for host in hosts.collect::<Vec<_>>() {
        host.await.unwrap();
    }
    f64::from(ROUNDS) * ipams.len() as f64 / watch.cost().wall.as_secs_f64()
}
