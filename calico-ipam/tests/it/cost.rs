//! How many questions one operation asks of its store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use calico_ipam::{Ipam, Release};
use calico_model::datastore::{
    Atomicity, Change, CommitError, Datastore, Entry, Key, Listing, Precondition, Prefix, StoreError, Watch,
    WatchError, Write,
};
use calico_model::resource::block::config_key;
use calico_model::{MemoryStore, Revision};

use crate::common::{at, pool, store_with, v4};

/// A store that counts: gets, listings, commits.
struct Counting {
    store: MemoryStore,
    asked: Arc<[AtomicU32; 3]>,
}

impl Counting {
    fn over(store: &MemoryStore) -> (Ipam, Arc<[AtomicU32; 3]>) {
        let asked = Arc::new([const { AtomicU32::new(0) }; 3]);
        (Ipam::new(Arc::new(Self { store: store.clone(), asked: asked.clone() })), asked)
    }
}

#[async_trait]
impl Datastore for Counting {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.asked[0].fetch_add(1, Ordering::Relaxed);
        self.store.get(key).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.asked[1].fetch_add(1, Ordering::Relaxed);
        self.store.list(prefix).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        self.asked[2].fetch_add(1, Ordering::Relaxed);
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

#[tokio::test]
async fn a_host_that_needs_a_block_lists_nobody_elses() {
    let store = store_with([pool("p", "10.0.0.0/16", 30)]);
    let (ipam, asked) = Counting::over(&store);
    ipam.auto_assign(v4("n1", "first", 4), at(0)).await.unwrap();
    taken(&asked);
    ipam.auto_assign(v4("n1", "second", 1), at(0)).await.unwrap();
    // Another process may have claimed in its name: its own affinities are listed, and nobody else's.
    assert_eq!(taken(&asked), [0, 1, 1], "a read and a commit");
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
    assert_eq!(taken(&asked), [2, 2, 1], "the settings are read anew; then the block is, and written");
    assert_eq!(ipam.free_cooled(at(90)).await.unwrap(), 0);
}
