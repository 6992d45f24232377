//! The reference store: everything in one process's memory, behind one lock, with no runtime and no clock.
//!
//! It is the contract in its plainest form, and what every test of the Calico crates runs on. The same calls in the
//! same order always give the same answers. Futures complete at once; only [`Watch::next`] ever waits.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;

use super::{
    Atomicity, CommitError, Datastore, Entry, Key, Listing, Precondition, Prefix, StoreError, Watch,
    WatchError, WatchEvent, Write, check_commit,
};
use crate::revision::Revision;

/// How many changes are kept for watchers unless [`MemoryStore::with_history`] says otherwise.
const DEFAULT_HISTORY: usize = 100_000;

/// A datastore in memory. A clone is another handle on the same store.
///
/// ```
/// use calico_model::datastore::{Key, MemoryStore, Precondition, Write};
///
/// let store = MemoryStore::new();
/// let key: Key = "/calico/ipam/v2/config".parse()?;
/// let revision = store.commit_now(vec![Write::put(key.clone(), b"{}".to_vec(), Precondition::Absent)])?;
/// assert_eq!(store.get_now(&key).map(|entry| entry.revision), Some(revision));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

impl MemoryStore {
    /// Makes an empty store, at revision 0, that keeps the last 100,000 changes for watchers.
    #[must_use]
    pub fn new() -> Self {
        Self::with_history(DEFAULT_HISTORY)
    }

    /// Makes an empty store that keeps the last `changes` changes for watchers.
    #[must_use]
    pub fn with_history(changes: usize) -> Self {
        let state = State {
            revision: Revision(0),
            entries: BTreeMap::new(),
            log: VecDeque::new(),
            forgotten: 0,
            horizon: Revision(0),
            history: changes,
            wakers: BTreeMap::new(),
            next_watch: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Forgets all changes up to and including `revision`: a watch from before it is then too old.
    ///
    /// A revision beyond the newest stands for the newest. The entries themselves stay.
    pub fn compact(&self, revision: Revision) {
        let mut state = self.lock();
        while state.log.front().is_some_and(|change| change.revision() <= revision) {
            state.forget_oldest();
        }
        state.horizon = state.horizon.max(revision.min(state.revision));
        wake(state);
    }

    /// Returns the revision of the newest commit, 0 before the first.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.lock().revision
    }

    /// Reads one key without waiting.
    #[must_use]
    pub fn get_now(&self, key: &Key) -> Option<Entry> {
        self.lock().entries.get(key).cloned()
    }

    /// Reads all keys of a folder without waiting, in key order.
    #[must_use]
    pub fn list_now(&self, prefix: &Prefix) -> Listing {
        let state = self.lock();
        Listing { entries: state.inside(prefix), revision: state.revision }
    }

    /// Carries out all writes, or none, without waiting.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when a precondition fails, [`CommitError::Refused`] as [`check_commit`] says.
    pub fn commit_now(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        check_commit(&writes)?;
        let mut state = self.lock();
        state.check_preconditions(&writes)?;
        state.write(writes);
        let revision = state.revision;
        wake(state);
        Ok(revision)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete before anything that could panic, so a poisoned lock is still sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Datastore for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.get_now(key))
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        Ok(self.list_now(prefix))
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        self.commit_now(writes)
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        let mut state = self.lock();
        if from < state.horizon || from > state.revision {
            return Err(WatchError::TooOld { from });
        }
        let id = state.next_watch;
        state.next_watch += 1;
        let skipped = state.log.partition_point(|change| change.revision() <= from);
        Ok(Box::new(MemoryWatch {
            store: self.clone(),
            id,
            prefix: prefix.clone(),
            position: state.forgotten + skipped as u64,
            seen: from,
            sync_point: Some(state.revision),
            too_old: false,
        }))
    }

    fn atomicity(&self) -> Atomicity {
        Atomicity::Atomic
    }
}

#[derive(Debug)]
struct State {
    revision: Revision,
    entries: BTreeMap<Key, Entry>,
    log: VecDeque<Change>,
    /// How many changes have left the front of the log, so that a watch's position never moves.
    forgotten: u64,
    /// Changes up to here may be gone from the log.
    horizon: Revision,
    history: usize,
    wakers: BTreeMap<u64, Waker>,
    next_watch: u64,
}

impl State {
    fn inside(&self, prefix: &Prefix) -> Vec<Entry> {
        // No key equals a prefix, because keys never end with `/`; the first one inside sorts right after it.
        let after = self
            .entries
            .range::<str, _>((std::ops::Bound::Excluded(prefix.as_str()), std::ops::Bound::Unbounded));
        after.take_while(|(key, _)| prefix.contains(key)).map(|(_, entry)| entry.clone()).collect()
    }

    fn check_preconditions(&self, writes: &[Write]) -> Result<(), CommitError> {
        for write in writes {
            let actual = self.entries.get(&write.key).map(|entry| entry.revision);
            let holds = match write.precondition {
                Precondition::Any => true,
                Precondition::Absent => actual.is_none(),
                Precondition::At(revision) => actual == Some(revision),
            };
            if !holds {
                return Err(CommitError::Conflict { key: write.key.clone(), actual });
            }
        }
        Ok(())
    }

    fn write(&mut self, writes: Vec<Write>) {
        let changes = |write: &Write| write.value.is_some() || self.entries.contains_key(&write.key);
        if !writes.iter().any(changes) {
            return;
        }
        let revision = Revision(self.revision.0 + 1);
        self.revision = revision;
        for Write { key, value, precondition: _ } in writes {
            match value {
                Some(value) => {
                    let entry = Entry { key: key.clone(), value, revision };
                    self.entries.insert(key, entry.clone());
                    self.log.push_back(Change::Put(entry));
                }
                None => {
                    if self.entries.remove(&key).is_some() {
                        self.log.push_back(Change::Deleted { key, revision });
                    }
                }
            }
        }
        while self.log.len() > self.history {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(change) = self.log.pop_front() {
            self.forgotten += 1;
            self.horizon = change.revision();
        }
    }
}

/// Wakes every waiting watch, after the lock is given back: a waker may run the watch at once.
fn wake(mut state: MutexGuard<'_, State>) {
    let wakers = std::mem::take(&mut state.wakers);
    drop(state);
    for waker in wakers.into_values() {
        waker.wake();
    }
}

#[derive(Debug, Clone)]
enum Change {
    Put(Entry),
    Deleted { key: Key, revision: Revision },
}

impl Change {
    fn revision(&self) -> Revision {
        match self {
            Change::Put(entry) => entry.revision,
            Change::Deleted { revision, .. } => *revision,
        }
    }

    fn key(&self) -> &Key {
        match self {
            Change::Put(entry) => &entry.key,
            Change::Deleted { key, .. } => key,
        }
    }
}

struct MemoryWatch {
    store: MemoryStore,
    id: u64,
    prefix: Prefix,
    /// The position in the log, counted since the store was made, of the next change to look at.
    position: u64,
    /// Every change up to this revision has been looked at.
    seen: Revision,
    /// The revision to report as in sync, until that is done.
    sync_point: Option<Revision>,
    too_old: bool,
}

impl MemoryWatch {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<WatchEvent, WatchError>> {
        let store = self.store.clone();
        let mut state = store.lock();
        if self.too_old || self.position < state.forgotten {
            self.too_old = true;
            return Poll::Ready(Err(WatchError::TooOld { from: self.seen }));
        }
        let unread = usize::try_from(self.position - state.forgotten).unwrap_or(usize::MAX);
        for change in state.log.iter().skip(unread) {
            if self.sync_point.is_some_and(|point| change.revision() > point) {
                break;
            }
            self.position += 1;
            self.seen = change.revision();
            if self.prefix.contains(change.key()) {
                return Poll::Ready(Ok(match change.clone() {
                    Change::Put(entry) => WatchEvent::Put(entry),
                    Change::Deleted { key, revision } => WatchEvent::Deleted { key, revision },
                }));
            }
        }
        if let Some(point) = self.sync_point.take() {
            return Poll::Ready(Ok(WatchEvent::InSync(point)));
        }
        state.wakers.insert(self.id, cx.waker().clone());
        Poll::Pending
    }
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<WatchEvent, WatchError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.store.lock().wakers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_COMMIT_BYTES;
    use super::*;

    fn put(path: &str, value: &str) -> Write {
        Write::put(path.parse().unwrap(), value.as_bytes().to_vec(), Precondition::Any)
    }

    #[tokio::test]
    async fn a_watch_behind_a_compaction_is_too_old_and_stays_so() {
        let store = MemoryStore::new();
        let mut watch = store.watch(&Prefix::new("/a").unwrap(), Revision(0)).await.unwrap();
        store.commit_now(vec![put("/a/x", "1")]).unwrap();
        store.compact(Revision(1));
        for _ in 0..2 {
            let error = watch.next().await.unwrap_err();
            assert!(matches!(error, WatchError::TooOld { from: Revision(0) }), "{error}");
        }
        assert!(store.watch(&Prefix::new("/a").unwrap(), Revision(1)).await.is_ok());
    }

    #[tokio::test]
    async fn a_full_history_forgets_the_oldest_change() {
        let store = MemoryStore::with_history(2);
        for value in ["1", "2", "3"] {
            store.commit_now(vec![put("/a/x", value)]).unwrap();
        }
        let all = Prefix::new("/").unwrap();
        assert!(matches!(store.watch(&all, Revision(0)).await, Err(WatchError::TooOld { .. })));
        let mut watch = store.watch(&all, Revision(1)).await.unwrap();
        assert!(matches!(watch.next().await, Ok(WatchEvent::Put(entry)) if entry.value == b"2"));
    }

    #[tokio::test]
    async fn a_waiting_watch_is_woken_by_a_commit() {
        let store = MemoryStore::new();
        let mut watch = store.watch(&Prefix::new("/a").unwrap(), Revision(0)).await.unwrap();
        assert_eq!(watch.next().await.unwrap(), WatchEvent::InSync(Revision(0)));
        let waiting = tokio::spawn(async move { watch.next().await });
        tokio::task::yield_now().await;
        store.commit_now(vec![put("/a/x", "1")]).unwrap();
        assert!(matches!(waiting.await.unwrap(), Ok(WatchEvent::Put(_))));
    }

    #[test]
    fn a_folder_does_not_hold_its_longer_named_sibling() {
        let store = MemoryStore::new();
        store.commit_now(vec![put("/ns1/x", "1"), put("/ns10/x", "2"), put("/ns1-a", "3")]).unwrap();
        let listing = store.list_now(&Prefix::new("/ns1").unwrap());
        assert_eq!(listing.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["/ns1/x"]);
    }

    #[test]
    fn a_commit_larger_than_etcd_takes_is_refused() {
        let store = MemoryStore::new();
        let many = (0..129).map(|n| put(&format!("/a/{n}"), "")).collect();
        assert!(matches!(store.commit_now(many), Err(CommitError::Refused { .. })));
        let large = vec![put("/a/x", &"v".repeat(MAX_COMMIT_BYTES + 1))];
        assert!(matches!(store.commit_now(large), Err(CommitError::Refused { .. })));
        assert_eq!(store.revision(), Revision(0));
    }
}
