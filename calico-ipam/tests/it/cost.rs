//! How many questions one operation asks of its store, and how many round trips they take.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use calico_ipam::{AssignAddress, Ipam, Release};
use calico_model::datastore::{
    Atomicity, Change, CommitError, Datastore, Entry, Key, Listing, Precondition, Prefix, StoreError, Watch,
    WatchError, Write,
};
use calico_model::resource::block::config_key;
use calico_model::{MemoryStore, Revision};

use crate::common::{at, pool, store_with, v4};

/// A store that counts: gets, listings, commits. It answers whatever it is asked at the next poll.
struct Counting {
    store: MemoryStore,
    asked: Arc<[AtomicU32; 3]>,
}

impl Counting {
    fn over(store: &MemoryStore) -> (Ipam, Arc<[AtomicU32; 3]>) {
        let asked = Arc::new([const { AtomicU32::new(0) }; 3]);
        (Ipam::new(Arc::new(Self { store: store.clone(), asked: asked.clone() })), asked)
    }

    async fn ask(&self, kind: usize) {
        self.asked[kind].fetch_add(1, Ordering::Relaxed);
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

#[async_trait]
impl Datastore for Counting {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.ask(0).await;
        self.store.get(key).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.ask(1).await;
        self.store.list(prefix).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        self.ask(2).await;
        self.store.commit(writes).await
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        self.store.watch(prefix, from).await
    }

    fn atomicity(&self) -> Atomicity {
        self.store.atomicity()
    }
}

/// Takes what was counted since the last time: gets, listings, commits.
fn taken(asked: &[AtomicU32; 3]) -> [u32; 3] {
    [0, 1, 2].map(|kind| asked[kind].swap(0, Ordering::Relaxed))
}

/// Counts the round trips of an operation: all that it asks in one poll is answered in the next one.
fn trips<T>(operation: impl Future<Output = T>) -> (T, u32) {
    let mut operation = pin!(operation);
    let mut trips = 0;
    loop {
        match operation.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => return (output, trips),
            Poll::Pending => trips += 1,
        }
    }
}

#[tokio::test]
async fn a_warm_host_assigns_and_releases_by_one_commit_each() {
    let store = store_with([pool("p", "10.0.0.0/24", 28)]);
    let (ipam, asked) = Counting::over(&store);
    ipam.auto_assign(v4("n1", "first", 1), at(0)).await.unwrap();
    taken(&asked);
    for round in 0..15 {
        let handle = format!("h{round}");
        let got = ipam.auto_assign(v4("n1", &handle, 1), at(0)).await.unwrap().v4;
        assert_eq!(taken(&asked), [0, 0, 1], "an assignment is a commit");
        let sequence = Some(got[0].sequence);
        let release = Release { addr: got[0].addr, handle: Some(handle), sequence };
        ipam.release(&[release], at(0)).await.unwrap();
        assert_eq!(taken(&asked), [0, 0, 1], "a release is a commit");
    }
    // Pools, reservations and configuration are not guarded by a revision: they are read anew after half a second, all at
    // once.
    ipam.auto_assign(v4("n1", "later", 1), at(0) + Duration::from_secs(1)).await.unwrap();
    assert_eq!(taken(&asked), [1, 2, 1]);
}

#[test]
fn a_process_that_knows_nothing_reads_the_settings_and_its_own_blocks_at_once() {
    let store = store_with([pool("p", "10.0.0.0/16", 30)]);
    let (ipam, asked) = Counting::over(&store);
    let (got, needed) = trips(ipam.auto_assign(v4("n1", "first", 2), at(0)));
    got.unwrap();
    assert_eq!((taken(&asked), needed), ([1 + 8, 3, 1], 3), "what there is, eight blocks, and the commit");
    let (ipam, asked) = Counting::over(&store);
    let (got, needed) = trips(ipam.auto_assign(v4("n1", "second", 2), at(0)));
    got.unwrap();
    assert_eq!((taken(&asked), needed), ([1 + 1, 3, 1], 3), "what there is, the own block, and the commit");
}

#[test]
fn a_host_that_needs_a_block_lists_nobody_elses() {
    let store = store_with([pool("p", "10.0.0.0/16", 30)]);
    let (ipam, asked) = Counting::over(&store);
    trips(ipam.auto_assign(v4("n1", "first", 4), at(0))).0.unwrap();
    taken(&asked);
    let (got, needed) = trips(ipam.auto_assign(v4("n1", "second", 1), at(0)));
    got.unwrap();
    // Another process may have claimed in its name: its own affinities are listed, and nobody else's.
    assert_eq!((taken(&asked), needed), ([8, 1, 1], 2), "one read, of nine things at once, and a commit");
    // Another host takes the next seven.
    let filler = crate::common::ipam(&store);
    let IpAddr::V4(last) = trips(ipam.addrs_by_handle("second", at(0))).0.unwrap()[0] else { unreachable!() };
    for number in 1..8 {
        let addr = Ipv4Addr::from_bits(last.to_bits() + 4 * number).into();
        let request = AssignAddress::new(addr, "n2".parse().unwrap(), format!("a{number}"));
        trips(filler.assign(request, at(0))).0.unwrap();
    }
    taken(&asked);
    let (got, needed) = trips(ipam.auto_assign(v4("n1", "third", 4), at(0)));
    assert_eq!(got.unwrap().v4.len(), 4);
    assert_eq!((taken(&asked), needed), ([8, 1, 1], 2), "one of eight that exists not is enough");
}

/// A full pool of 1,024 blocks but for one address. What every assignment needs is not finding: a new process reads the
/// settings and its own affinities, at once, one that goes on reads its affinities again; and the address is committed.
/// Between them a free block takes two round trips.
#[test]
fn the_last_free_address_of_1024_blocks_is_found_in_two_round_trips() {
    let store = store_with([pool("p", "10.0.0.0/21", 31)]);
    let filler = crate::common::ipam(&store);
    for host in 0..1024 {
        let request = v4(&format!("n{host}"), &format!("h{host}"), 2);
        trips(filler.auto_assign(request, at(0))).0.unwrap();
    }
    let release = |ipam: &Ipam, handle: &str| {
        let free = trips(ipam.addrs_by_handle(handle, at(0))).0.unwrap()[0];
        trips(ipam.release(&[Release::of(free)], at(0))).0.unwrap();
        free
    };
    let free = release(&filler, "h700");
    let (ipam, asked) = Counting::over(&store);
    let (got, needed) = trips(ipam.auto_assign(v4("late", "last", 1), at(0)));
    assert_eq!(got.unwrap().v4[0].addr, free);
    assert_eq!(
        (taken(&asked), needed),
        ([1 + 8, 3 + 1, 1], 1 + 2 + 1),
        "the first read, two to find, the commit"
    );
    let free = release(&filler, "h70");
    taken(&asked);
    let (got, needed) = trips(ipam.auto_assign(v4("late", "very last", 1), at(0)));
    assert_eq!(got.unwrap().v4[0].addr, free);
    // That all blocks exist is remembered.
    assert_eq!((taken(&asked), needed), ([0, 2, 1], 3), "the affinities again, one to find, and the commit");
}

/// A full pool but for one address: who has followed the watch lists nothing to find it.
#[tokio::test]
async fn the_last_free_address_is_found_by_what_a_watch_told() {
    let store = store_with([pool("p", "10.0.0.0/24", 28)]);
    let filler = crate::common::ipam(&store);
    for host in 0..16 {
        filler.auto_assign(v4(&format!("n{host}"), &format!("h{host}"), 16), at(0)).await.unwrap();
    }
    let free = filler.addrs_by_handle("h7", at(0)).await.unwrap()[3];
    filler.release(&[Release::of(free)], at(0)).await.unwrap();
    let (ipam, asked) = Counting::over(&store);
    let listing = store.list_now(&Prefix::new("/calico/ipam/v2").unwrap());
    for entry in listing.entries {
        ipam.observe(&Change::Put(entry), at(0));
    }
    ipam.observe(&Change::InSync, at(0));
    let got = ipam.auto_assign(v4("late", "last", 1), at(0)).await.unwrap();
    assert_eq!(got.v4[0].addr, free);
    // Two listings are the settings', one is of the host's own affinities; no other one.
    assert_eq!(taken(&asked), [2, 3, 1], "configuration and the block are read, then it is assigned");
}

/// Of sixteen blocks, addresses cool down in one: who has followed the watch reads that one.
#[tokio::test]
async fn what_has_cooled_down_is_freed_without_a_listing_by_who_follows_the_watch() {
    let store = store_with([pool("p", "10.0.0.0/24", 28)]);
    let cooldown = br#"{"auto_allocate_blocks": true, "ipCooldownSeconds": 60}"#.to_vec();
    store.commit_now(vec![Write::put(config_key(), cooldown, Precondition::Any)]).unwrap();
    let filler = crate::common::ipam(&store);
    for host in 0..16 {
        filler.auto_assign(v4(&format!("n{host}"), &format!("h{host}"), 16), at(0)).await.unwrap();
    }
    let (ipam, asked) = Counting::over(&store);
    let observe_all = || {
        for entry in store.list_now(&Prefix::new("/calico/ipam/v2").unwrap()).entries {
            ipam.observe(&Change::Put(entry), at(0));
        }
    };
    observe_all();
    ipam.observe(&Change::InSync, at(0));
    filler.release_by_handle("h7", at(0)).await.unwrap();
    observe_all();
    assert_eq!(ipam.free_cooled(at(30)).await.unwrap(), 0);
    taken(&asked);
    assert_eq!(ipam.free_cooled(at(90)).await.unwrap(), 16);
    assert_eq!(
        taken(&asked),
        [2, 1, 1],
        "configuration and pools are read anew; then the block is, and written"
    );
    assert_eq!(ipam.free_cooled(at(90)).await.unwrap(), 0);
}
