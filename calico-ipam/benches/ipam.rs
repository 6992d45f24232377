//! How fast, as ratios within one run: `cargo bench -p calico-ipam`.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot go on has failed, and it reads the clock"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use calico_ipam::{AutoAssign, Block, Holder, Ipam, Release};
use calico_model::datastore::sqlite::SqliteStore;
use calico_model::datastore::{Datastore, Key, Precondition, Write};
use calico_model::resource::{Document, IpPool, Object, Resource};
use calico_model::{MemoryStore, Revision};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    algebra();
    runtime.block_on(async {
        sequential("memory", Arc::new(MemoryStore::new()), 5_000).await;
        let path = std::env::temp_dir().join(format!("calico-ipam-bench-{}.db", std::process::id()));
        sequential("sqlite", Arc::new(SqliteStore::open(&path).unwrap()), 500).await;
        let _ = std::fs::remove_file(path);
        ten_thousandth_block().await;
        last_address().await;
    });
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

/// Assignments of the algebra alone: 64 of them fill a block, then it starts anew.
fn algebra() {
    let empty = Block::new("10.0.0.0/26".parse().unwrap(), Some("host:n1".parse().unwrap()), now());
    let holder = Holder { handle: "h".to_owned(), attributes: std::collections::BTreeMap::new() };
    let (rounds, start) = (20_000u32, Instant::now());
    for _ in 0..rounds {
        let mut block = empty.clone();
        for _ in 0..64 {
            block = block.assign(1, &holder, &[], now(), Duration::ZERO).0;
        }
        black_box(&block);
    }
    let rate = f64::from(rounds * 64) / start.elapsed().as_secs_f64();
    println!("in memory, one at a time: {rate:.0} assignments per second and core (at least 1,000,000)");
}

/// Assign and release one address at a time, against the same two commits made directly.
async fn sequential(name: &str, store: Arc<dyn Datastore>, rounds: u32) {
    with_pool(&*store, "10.0.0.0/16", 26).await;
    let ipam = Ipam::new(store.clone());
    ipam.auto_assign(request("n1", "first", 1), now()).await.unwrap();
    let ours = time(rounds, async |round| {
        let handle = format!("h{round}");
        let got = ipam.auto_assign(request("n1", &handle, 1), now()).await.unwrap();
        let release =
            Release { addr: got.v4[0].addr, handle: Some(handle), sequence: Some(got.v4[0].sequence) };
        ipam.release(&[release], now()).await.unwrap();
    })
    .await;
    let block =
        store.get(&"/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26".parse().unwrap()).await.unwrap();
    let value = block.map_or_else(|| vec![b'x'; 600], |entry| entry.value);
    let key: Key = "/bench/block".parse().unwrap();
    let mut revision: Revision =
        store.commit(vec![Write::put(key.clone(), value.clone(), Precondition::Any)]).await.unwrap();
    let bare = time(rounds, async |round| {
        let handle: Key = format!("/bench/handle/{round}").parse().unwrap();
        let put = |precondition| Write::put(key.clone(), value.clone(), precondition);
        let counts = br#"{"block":{"10.0.0.0/26":1},"deleted":false}"#.to_vec();
        let assign =
            vec![Write::put(handle.clone(), counts, Precondition::Absent), put(Precondition::At(revision))];
        let assigned = store.commit(assign).await.unwrap();
        let release =
            vec![put(Precondition::At(assigned)), Write::delete(handle, Precondition::At(assigned))];
        revision = store.commit(release).await.unwrap();
    })
    .await;
    let share = bare.as_secs_f64() / ours.as_secs_f64() * 100.0;
    println!(
        "{name}: assign and release {ours:?}, the bare commits {bare:?}: {share:.0} % of their rate (at least 80 %)"
    );
}

/// Returns the time of one round.
async fn time(rounds: u32, mut round: impl AsyncFnMut(u32)) -> Duration {
    let start = Instant::now();
    for number in 0..rounds {
        round(number).await;
    }
    start.elapsed() / rounds
}

/// Claims blocks of a pool, each for another host: the last hundred of 10,000 against the first hundred.
async fn ten_thousandth_block() {
    let store = Arc::new(MemoryStore::with_history(100));
    with_pool(&*store, "10.0.0.0/12", 26).await;
    let ipam = Ipam::new(store);
    let (mut early, mut late) = (Duration::ZERO, Duration::ZERO);
    for number in 0..10_100u32 {
        let host = format!("n{number}");
        let start = Instant::now();
        ipam.auto_assign(request(&host, &format!("h{number}"), 64), now()).await.unwrap();
        match number {
            100..200 => early += start.elapsed(),
            10_000.. => late += start.elapsed(),
            _ => {}
        }
    }
    let ratio = late.as_secs_f64() / early.as_secs_f64();
    println!(
        "a block: {:?} for the 100th, {:?} for the 10,000th: {ratio:.2} times (at most 1.5)",
        early / 100,
        late / 100
    );
}

/// The last free address of a pool of 1,024 blocks, for a process that knows nothing yet.
async fn last_address() {
    let store = Arc::new(MemoryStore::with_history(100));
    with_pool(&*store, "10.0.0.0/16", 26).await;
    let filler = Ipam::new(store.clone());
    for number in 0..1024u32 {
        let host = format!("n{number}");
        let mut handles = Vec::new();
        for part in 0..8 {
            let handle = format!("h{number}-{part}");
            handles.extend(filler.auto_assign(request(&host, &handle, 8), now()).await.unwrap().v4);
        }
        if number == 700 {
            filler.release(&[Release::of(handles[13].addr)], now()).await.unwrap();
        }
    }
    let start = Instant::now();
    let got = Ipam::new(store).auto_assign(request("late", "last", 1), now()).await.unwrap();
    let took = start.elapsed();
    println!(
        "the last free address of 65,536 ({}): {took:?} for a new process (at most 10 ms)",
        got.v4[0].addr
    );
}
