//! What the tests share: pools, times, and looking at everything that is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calico_ipam::{AutoAssign, Block, Ipam};
use calico_model::datastore::{Entry, Precondition, Prefix, Write};
use calico_model::resource::block::{
    AffinityState, Owner, StoredAffinity, StoredBlock, StoredHandle, affinity_from_key, block_from_key,
    handles_prefix,
};
use calico_model::resource::{Document, IpPool, Object, Resource};
use calico_model::{Cidr, MemoryStore};

/// A time well after 1970, so that clocks can be set back.
pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

pub(crate) fn pool(name: &str, cidr: &str, block_size: u8) -> Object<IpPool> {
    let spec = IpPool { block_size, ..IpPool::new(cidr.parse().unwrap()) };
    Object::new(name.parse().unwrap(), spec)
}

pub(crate) fn put(resource: impl Into<Resource>) -> Write {
    let resource = resource.into();
    let value = Document::from(&resource).stored_form();
    Write::put(resource.key().datastore_key(), value, Precondition::Any)
}

pub(crate) fn store_with(resources: impl IntoIterator<Item = Object<IpPool>>) -> MemoryStore {
    let store = MemoryStore::new();
    for resource in resources {
        store.commit_now(vec![put(resource)]).unwrap();
    }
    store
}

pub(crate) fn ipam(store: &MemoryStore) -> Ipam {
    Ipam::new(Arc::new(store.clone()))
}

pub(crate) fn v4(node: &str, handle: &str, count: usize) -> AutoAssign {
    let mut request = AutoAssign::new(node.parse().unwrap(), handle);
    request.count.v4 = count;
    request
}

pub(crate) fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Everything that IPAM stored, checked against the invariants that hold when no operation is under way.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) blocks: BTreeMap<Cidr, Block>,
    pub(crate) affinities: BTreeMap<(Owner, Cidr), AffinityState>,
    pub(crate) handles: BTreeMap<String, BTreeMap<Cidr, u64>>,
    /// Blocks that are marked as deleted.
    pub(crate) tombstones: BTreeSet<Cidr>,
}

impl State {
    pub(crate) fn read(store: &MemoryStore) -> Self {
        let state = Self::from_entries(store.list_now(&Prefix::new("/calico/ipam/v2").unwrap()).entries);
        assert!(state.tombstones.is_empty(), "blocks marked as deleted are left: {:?}", state.tombstones);
        state
    }

    pub(crate) fn from_entries(entries: Vec<Entry>) -> Self {
        let mut state = Self::default();
        for entry in entries {
            if let Some(cidr) = block_from_key(&entry.key) {
                let stored: StoredBlock = serde_json::from_slice(&entry.value).unwrap();
                if stored.deleted {
                    state.tombstones.insert(cidr);
                } else {
                    state.blocks.insert(cidr, Block::try_from(stored).unwrap());
                }
            } else if let Some(key) = affinity_from_key(&entry.key) {
                let stored: StoredAffinity = serde_json::from_slice(&entry.value).unwrap();
                state.affinities.insert(key, stored.state);
            } else if handles_prefix().contains(&entry.key) {
                let stored = StoredHandle::read(&entry.key, &entry.value).unwrap().unwrap();
                state.handles.insert(stored.handle_id, stored.block);
            }
        }
        state
    }

    /// Checks that handles count what blocks hold, and that affinities and blocks agree.
    pub(crate) fn check(&self) {
        let mut held: BTreeMap<String, BTreeMap<Cidr, u64>> = BTreeMap::new();
        for block in self.blocks.values() {
            for (_, attributes) in block.holders() {
                let handle = attributes.handle_id.clone().unwrap();
                *held.entry(handle).or_default().entry(block.cidr()).or_default() += 1;
            }
            if let Some(owner) = block.owner() {
                let state = self.affinities.get(&(owner.clone(), block.cidr()));
                assert_eq!(state, Some(&AffinityState::Confirmed), "{} of {owner}", block.cidr());
            }
        }
        assert_eq!(self.handles, held, "handles count what blocks hold");
        for ((owner, cidr), state) in &self.affinities {
            let block = self.blocks.get(cidr);
            assert_eq!(block.and_then(Block::owner), Some(owner), "{owner} has {state:?} affinity to {cidr}");
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.blocks.values().map(Block::held).sum()
    }
}
