//! How fast, as ratios within one run: `cargo bench -p calico-ipam`, or `cargo bench -p calico-ipam -- blocks` for one part.
//!
//! Each figure is the median of several runs, what is compared runs in turns, and the time of the processor comes before
//! that of the clock, which other programs of a machine lengthen. etcd's own processes are in the clock's time only.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot go on has failed, and it reads the clock"
)]

mod blocks;
mod hosts;
mod measure;
mod memory;
mod sequential;
mod trips;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calico_ipam::AutoAssign;
use calico_model::datastore::etcd::local::LocalCluster;
use calico_model::datastore::etcd::{EtcdConfig, EtcdStore};
use calico_model::datastore::sqlite::SqliteStore;
use calico_model::datastore::{Datastore, Precondition, Write};
use calico_model::resource::{Document, IpPool, Object, Resource};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let parts: Vec<String> = std::env::args().skip(1).filter(|part| !part.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    if wanted("memory") {
        memory::algebra();
        memory::plans();
    }
    if wanted("blocks") {
        runtime.block_on(blocks::ten_thousandth(1));
        runtime.block_on(blocks::ten_thousandth(64));
        runtime.block_on(async {
            blocks::last_address("memory", Arc::new(blocks::full_but_for_one().await)).await
        });
    }
    if wanted("sqlite") {
        let directory = std::env::temp_dir().join(format!("calico-ipam-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let sqlite = Arc::new(SqliteStore::open(directory.join("calico.db")).unwrap());
        runtime.block_on(sequential::compare("SQLite", sqlite, 300));
        std::fs::remove_dir_all(directory).unwrap();
    }
    if wanted("etcd") {
        runtime.block_on(async {
            let cluster = LocalCluster::start(1, &[]).await.unwrap();
            sequential::compare("etcd", etcd(&cluster), 200).await;
            hosts::compare(&cluster).await;
        });
    }
    if wanted("last") {
        runtime.block_on(async {
            let cluster = LocalCluster::start(1, &[]).await.unwrap();
            let store = etcd(&cluster);
            blocks::copy(&blocks::full_but_for_one().await, &*store).await;
            blocks::last_address("etcd", store).await;
        });
    }
}

fn etcd(cluster: &LocalCluster) -> Arc<dyn Datastore> {
    Arc::new(EtcdStore::new(EtcdConfig::new(cluster.urls())).unwrap())
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

async fn with_pool(store: &dyn Datastore, cidr: &str, block_size: u8) {
    let spec = IpPool { block_size, ..IpPool::new(cidr.parse().unwrap()) };
    let pool: Resource = Object::new("p".parse().unwrap(), spec).into();
    let value = Document::from(&pool).stored_form();
    store.commit(vec![Write::put(pool.key().datastore_key(), value, Precondition::Any)]).await.unwrap();
}

fn request(node: &str, handle: &str, count: usize) -> AutoAssign {
    let mut request = AutoAssign::new(node.parse().unwrap(), handle);
    request.count.v4 = count;
    request
}
