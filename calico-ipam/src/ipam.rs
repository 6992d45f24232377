//! The front of every operation: the store, what is remembered of it, and how both are kept together.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use calico_model::datastore::{Change, CommitError, Datastore, Entry, Key, Prefix, StoreError, Write};
use calico_model::resource::block::{
    Owner, StoredAffinity, StoredHandle, affinities_prefix, affinity_from_key, affinity_key, block_from_key,
    block_key, blocks_prefix, config_key, handle_from_key, handle_key,
};
use calico_model::resource::{Kind, ObjectId, ResourceKey};
use calico_model::{Cidr, Family, Labels, Name, NodeName, Revision};

use crate::block::Block;
use crate::cache::Cache;
use crate::error::AccessError;
use crate::index::Hint;
use crate::join::{join, join_all};
use crate::kept::Kept;
use crate::plan::Plan;
use crate::pool::{Settings, node_labels};
use crate::retry::Pauses;
use crate::versioned::{Versioned, affinity_from, from_entry};

/// IP address management over a datastore. A clone is another handle on the same store and the same memory.
///
/// Every method is async without naming a runtime, and takes the time as an argument. Dropping a method's future between
/// two of its writes is as safe as a crash there: whatever was begun is finished or undone by later operations.
#[derive(Clone)]
pub struct Ipam {
    pub(crate) store: Arc<dyn Datastore>,
    cache: Arc<Mutex<Cache>>,
    pub(crate) pauses: Option<Pauses>,
    pub(crate) kept: Kept,
}

impl std::fmt::Debug for Ipam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ipam").finish_non_exhaustive()
    }
}

/// How a commit ended, apart from errors.
pub(crate) enum Outcome {
    /// It is done, at this revision.
    Done(Revision),
    /// Another writer changed this key: plan again.
    Again(Key),
    /// The commit may have happened or not: look before planning again. One of its keys.
    Unknown(Key),
}

impl Ipam {
    /// Makes an IPAM over a store, with an empty memory.
    #[must_use]
    pub fn new(store: Arc<dyn Datastore>) -> Self {
        Self { store, cache: Arc::default(), pauses: None, kept: Kept::NONE }
    }

    /// Waits between attempts, when others change the same data, for times that differ from process to process: `seed`
    /// decides them, and `sleep` waits as `tokio::time::sleep` does. Without this, an operation is tried again at once.
    #[must_use]
    pub fn with_pauses<F>(mut self, seed: u64, sleep: impl Fn(Duration) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.pauses = Some(Pauses::new(seed, sleep));
        self
    }

    /// Keeps so many addresses of each block that is claimed from now on for its host: [`Kept::WINDOWS`] when this works
    /// for Windows hosts.
    #[must_use]
    pub fn keeping(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }

    /// Learns from what a [`Syncer`](calico_model::datastore::Syncer) over all blocks reports, so that finding a free block
    /// needs no listing.
    ///
    /// Optional: without it the same knowledge is read when it is needed. Changes may come late, and those of other keys
    /// are ignored. While the syncer is in trouble, what is not known of a block is read again.
    pub fn observe(&self, change: &Change, now: SystemTime) {
        self.cache().observe(change, now);
    }

    /// Locks the memory; never held across an await.
    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        // Every change of the cache is complete before anything that could panic.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns pools, reservations and configuration, read at most half a second ago.
    ///
    /// # Errors
    /// When the store cannot be asked, or the configuration or a reservation cannot be read.
    pub async fn settings(&self, now: SystemTime) -> Result<Arc<Settings>, AccessError> {
        if let Some(settings) = self.cache().settings(now) {
            return Ok(settings);
        }
        self.read_settings(now).await
    }

    /// Returns pools, reservations and configuration as they are now.
    pub(crate) async fn read_settings(&self, now: SystemTime) -> Result<Arc<Settings>, AccessError> {
        let key = config_key();
        let (pools, reservations) = (Kind::IpPool.datastore_prefix(), Kind::IpReservation.datastore_prefix());
        let listed = join_all(vec![
            Box::pin(async { self.store.get(&key).await.map(|entry| entry.into_iter().collect()) }) as _,
            Box::pin(async { self.store.list(&pools).await.map(|listing| listing.entries) }) as _,
            Box::pin(async { self.store.list(&reservations).await.map(|listing| listing.entries) }) as _,
        ]);
        let mut read: Vec<Vec<Entry>> = listed.await.into_iter().collect::<Result<_, _>>()?;
        let (reservations, pools, config) = (read.pop(), read.pop(), read.pop().and_then(|mut e| e.pop()));
        let (pools, reservations) = (pools.unwrap_or_default(), reservations.unwrap_or_default());
        let settings = Settings::read(config.as_ref(), &pools, &reservations)?;
        Ok(self.cache().note_settings(settings, now))
    }

    /// Returns pools and configuration, read at most half a second ago, for giving back: what is reserved does not matter
    /// there, and a reservation that cannot be read must not keep addresses from being released.
    pub(crate) async fn settings_for_release(&self, now: SystemTime) -> Result<Arc<Settings>, AccessError> {
        let known = {
            let cache = self.cache();
            cache.settings(now).or_else(|| cache.settings_for_release(now))
        };
        if let Some(settings) = known {
            return Ok(settings);
        }
        let key = config_key();
        let pools = Kind::IpPool.datastore_prefix();
        let (config, pools) = join(self.store.get(&key), self.store.list(&pools)).await;
        let settings = Settings::read(config?.as_ref(), &pools?.entries, &[])?;
        Ok(self.cache().note_settings_for_release(settings, now))
    }

    /// Returns the labels of a node, read at most half a second ago; none when the node does not exist.
    pub(crate) async fn labels(&self, node: &NodeName, now: SystemTime) -> Result<Arc<Labels>, StoreError> {
        if let Some(labels) = self.cache().labels(node, now) {
            return Ok(labels);
        }
        let id = ObjectId::from(Name::from(node.clone()));
        let entry = self.store.get(&ResourceKey { kind: Kind::Node, id }.datastore_key()).await?;
        Ok(self.cache().note_labels(node, node_labels(entry.as_ref()), now))
    }

    pub(crate) async fn read_block(
        &self,
        cidr: &Cidr,
        now: SystemTime,
    ) -> Result<Versioned<Block>, AccessError> {
        let entry = self.store.get(&block_key(cidr)).await?;
        self.note_block(cidr, entry.as_ref(), now)
    }

    /// Remembers a block as it was read.
    pub(crate) fn note_block(
        &self,
        cidr: &Cidr,
        entry: Option<&Entry>,
        now: SystemTime,
    ) -> Result<Versioned<Block>, AccessError> {
        let block = from_entry(entry)?;
        self.cache().note_block(*cidr, &block, now);
        Ok(block)
    }

    pub(crate) async fn block(&self, cidr: &Cidr, now: SystemTime) -> Result<Versioned<Block>, AccessError> {
        let known = self.cache().block(cidr);
        match known {
            Some(block) => Ok(block),
            None => self.read_block(cidr, now).await,
        }
    }

    pub(crate) async fn read_affinity(
        &self,
        owner: &Owner,
        cidr: &Cidr,
    ) -> Result<Versioned<StoredAffinity>, AccessError> {
        let entry = self.store.get(&affinity_key(owner, cidr)).await?;
        let affinity = entry.as_ref().map_or_else(Versioned::absent, affinity_from);
        self.cache().note_affinity(owner, *cidr, affinity.clone());
        Ok(affinity)
    }

    pub(crate) async fn read_handle(&self, handle: &str) -> Result<Versioned<StoredHandle>, AccessError> {
        let entry = self.store.get(&key_of_handle(handle)?).await?;
        let value: Versioned<StoredHandle> = from_entry(entry.as_ref())?;
        self.cache().note_handle(handle, value.clone());
        Ok(value)
    }

    /// Reads which blocks an owner has.
    pub(crate) async fn read_host(&self, owner: &Owner, family: Family) -> Result<(), AccessError> {
        let listing = self.store.list(&affinities_prefix(owner, family)).await?;
        let mut affinities = BTreeMap::new();
        for entry in &listing.entries {
            if let Some((_, cidr)) = affinity_from_key(&entry.key) {
                affinities.insert(cidr, affinity_from(entry));
            }
        }
        self.cache().note_host(owner, family, affinities);
        Ok(())
    }

    /// Reads which blocks an owner has in several families, all at once.
    pub(crate) async fn read_hosts(&self, owner: &Owner, families: &[Family]) -> Result<(), AccessError> {
        let reads = families.iter().map(|family| Box::pin(self.read_host(owner, *family)) as _);
        join_all(reads.collect()).await.into_iter().collect()
    }

    /// Reads which blocks a family has, and returns those that have an address to spare.
    pub(crate) async fn read_index(
        &self,
        family: Family,
        now: SystemTime,
    ) -> Result<BTreeMap<Cidr, Entry>, AccessError> {
        let listing = self.store.list(&blocks_prefix(family)).await?;
        let (mut hints, mut spare) = (BTreeMap::new(), BTreeMap::new());
        for entry in listing.entries {
            if let Some(cidr) = block_from_key(&entry.key)
                && let Some(hint) = Hint::glimpse(&entry.value, entry.revision, now)
            {
                if hint.is_spare() {
                    spare.insert(cidr, entry);
                }
                hints.insert(cidr, hint);
            }
        }
        self.cache().index.of_mut(family).replace(hints);
        Ok(spare)
    }

    /// Commits, and reads again whatever stood in the way.
    pub(crate) async fn commit(&self, writes: Vec<Write>, now: SystemTime) -> Result<Outcome, AccessError> {
        let keys: Vec<Key> = writes.iter().map(|write| write.key.clone()).collect();
        match self.store.commit(writes).await {
            Ok(revision) => Ok(Outcome::Done(revision)),
            Err(CommitError::Conflict { key, .. }) => {
                // Whatever came before it in an in-order store may have changed too.
                for earlier in keys.iter().take_while(|earlier| **earlier != key) {
                    self.forget(earlier);
                }
                self.refresh(&key, now).await?;
                Ok(Outcome::Again(key))
            }
            Err(CommitError::OutcomeUnknown { .. }) => {
                for key in &keys {
                    self.refresh(key, now).await?;
                }
                let key = keys.into_iter().next_back();
                Ok(Outcome::Unknown(key.expect("a commit with no writes is refused and never unknown")))
            }
            Err(CommitError::Refused { problem }) => Err(AccessError::Refused { problem }),
            Err(CommitError::Store(error)) => Err(error.into()),
            Err(other) => Err(AccessError::Refused { problem: other.to_string() }),
        }
    }

    fn forget(&self, key: &Key) {
        let mut cache = self.cache();
        if let Some(cidr) = block_from_key(key) {
            cache.forget_block(&cidr);
        } else if let Some((owner, _)) = affinity_from_key(key) {
            cache.forget_host(&owner);
        } else if let Some(handle) = handle_from_key(key) {
            cache.forget_handle(handle);
        }
    }

    async fn refresh(&self, key: &Key, now: SystemTime) -> Result<(), AccessError> {
        if let Some(cidr) = block_from_key(key) {
            self.read_block(&cidr, now).await?;
        } else if let Some((owner, cidr)) = affinity_from_key(key) {
            self.read_affinity(&owner, &cidr).await?;
        } else if let Some(handle) = handle_from_key(key) {
            self.read_handle(handle).await?;
        }
        Ok(())
    }

    /// Reads several blocks at once, in their order.
    pub(crate) async fn read_blocks(
        &self,
        cidrs: &[Cidr],
        now: SystemTime,
    ) -> Vec<Result<Versioned<Block>, AccessError>> {
        let reads = cidrs.iter().map(|cidr| self.read_block(cidr, now));
        join_all(reads.map(|read| Box::pin(read) as _).collect()).await
    }

    /// Forgets what a commit of unknown revisions changed.
    pub(crate) fn forget_all(&self, owner: &Owner, plan: &Plan, handle: &str) {
        let mut cache = self.cache();
        for cidr in plan.cidrs() {
            cache.forget_block(&cidr);
        }
        cache.forget_host(owner);
        cache.forget_handle(handle);
    }

    pub(crate) async fn list(&self, prefix: &Prefix) -> Result<calico_model::datastore::Listing, StoreError> {
        self.store.list(prefix).await
    }
}

/// Returns a handle as it is stored: up to a carriage return, which some runtimes put at the end.
pub(crate) fn clean_handle(handle: &str) -> String {
    handle.split('\r').next().unwrap_or_default().to_owned()
}

pub(crate) fn key_of_handle(handle: &str) -> Result<Key, AccessError> {
    handle_key(handle).ok_or_else(|| AccessError::InvalidHandle { handle: handle.chars().take(80).collect() })
}
