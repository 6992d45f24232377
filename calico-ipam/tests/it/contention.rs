//! Many at once: threads on one store, each with an IPAM of its own or sharing one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use calico_ipam::{AssignError, Ipam};
use calico_model::MemoryStore;
use calico_model::datastore::faulty::{Fault, FaultyStore};
use calico_model::datastore::sqlite::SqliteStore;
use calico_model::datastore::{Atomicity, Datastore, Prefix};

use crate::common::{State, at, pool, put, store_with, v4};

/// Every worker assigns and releases; what they hold in the end must be theirs alone, and nothing else is held.
async fn struggle(store: Arc<dyn Datastore>, workers: usize, rounds: usize, shared: Option<Ipam>) {
    store.commit(vec![put(pool("p", "10.0.0.0/25", 29))]).await.unwrap();
    let tasks = (0..workers).map(|worker| {
        let ipam = shared.clone().unwrap_or_else(|| Ipam::new(store.clone()));
        tokio::spawn(async move {
            let mut held: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
            for round in 0..rounds {
                let handle = format!("h{worker}-{round}");
                let node = format!("n{}", worker % 3);
                match ipam.auto_assign(v4(&node, &handle, 1 + round % 3), at(0)).await {
                    Ok(got) => {
                        held.insert(handle, got.v4.iter().map(|allocation| allocation.addr).collect());
                    }
                    Err(AssignError::Exhausted(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                if held.len() > 3 {
                    let (handle, addrs) = held.pop_first().unwrap();
                    let released = ipam.release_by_handle(&handle, at(0)).await.unwrap();
                    assert_eq!(released.released.len(), addrs.len());
                }
            }
            held
        })
    });
    let mut holders: BTreeMap<IpAddr, String> = BTreeMap::new();
    for task in tasks.collect::<Vec<_>>() {
        for (handle, addrs) in task.await.unwrap() {
            for addr in addrs {
                assert_eq!(holders.insert(addr, handle.clone()), None, "{addr} is held twice");
            }
        }
    }
    let listing = store.list(&Prefix::new("/calico/ipam/v2").unwrap()).await.unwrap();
    let state = State::from_entries(listing.entries);
    state.check();
    assert_eq!(state.held(), holders.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_with_memories_of_their_own_never_share_an_address() {
    struggle(Arc::new(MemoryStore::new()), 8, 40, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_share_one_memory_never_share_an_address() {
    let store: Arc<dyn Datastore> = Arc::new(MemoryStore::new());
    struggle(store.clone(), 8, 40, Some(Ipam::new(store))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_on_one_sqlite_file_never_share_an_address() {
    let path = std::env::temp_dir().join(format!("calico-ipam-contention-{}.db", std::process::id()));
    struggle(Arc::new(SqliteStore::open(&path).unwrap()), 6, 20, None).await;
    for suffix in ["", "-wal", "-shm", ".bell"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
}

/// Lets so many commits fail, and returns the pauses that an assignment made, with its outcome.
async fn pauses_of(seed: u64, conflicts: usize) -> (Vec<Duration>, Result<(), AssignError>) {
    let store = FaultyStore::new(store_with([pool("p", "10.0.0.0/24", 28)]), Atomicity::Atomic);
    let mut left = conflicts;
    store.before_commit(move |_| {
        let fails = left > 0;
        left -= usize::from(fails);
        if fails { Fault::Conflict } else { Fault::None }
    });
    let pauses = Arc::new(Mutex::new(Vec::new()));
    let noted = pauses.clone();
    let ipam = Ipam::new(Arc::new(store)).with_pauses(seed, move |pause| {
        noted.lock().unwrap().push(pause);
        std::future::ready(())
    });
    let outcome = ipam.auto_assign(v4("n1", "h", 1), at(0)).await.map(drop);
    let pauses = pauses.lock().unwrap().clone();
    (pauses, outcome)
}

#[tokio::test]
async fn between_attempts_a_growing_time_passes_that_the_seed_decides() {
    let (pauses, outcome) = pauses_of(7, 12).await;
    outcome.unwrap();
    assert_eq!(pauses.len(), 12);
    let mut bound = Duration::from_millis(2);
    for pause in &pauses {
        assert!((bound / 2..=bound).contains(pause), "{pause:?} of {bound:?}");
        bound = (bound * 2).min(Duration::from_millis(100));
    }
    assert_eq!(pauses_of(7, 12).await.0, pauses, "the same seed waits alike");
    assert_ne!(pauses_of(8, 12).await.0, pauses, "another one does not");
    assert_eq!(pauses_of(7, 0).await.0, [], "who is alone does not wait");
}

#[tokio::test]
async fn an_operation_that_is_always_in_the_way_of_others_gives_up() {
    let (pauses, outcome) = pauses_of(7, usize::MAX).await;
    let error = outcome.unwrap_err();
    assert!(error.to_string().starts_with("gave up after 100 attempts"), "{error}");
    assert_eq!(pauses.len(), 100);
}
