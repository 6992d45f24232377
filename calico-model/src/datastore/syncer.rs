//! From a datastore to a stream of changes that never tells how it came about.
//!
//! A [`Syncer`] lists its folders, marks in-sync once all are listed, and then watches. Whatever happens to the watch,
//! the changes go on as if nothing had: a lost store is watched again from where it was lost, and a history that was
//! forgotten is listed again and compared, so that keys which vanished meanwhile are reported as deleted. What a
//! reader has put together at any moment depends on what the store holds and not on the path that led there.
//!
//! [`SyncState`] is that logic without a store, a clock or a runtime; the [`Syncer`] drives it. It is given the function
//! to sleep with, so that it runs under any runtime:
//!
//! ```
//! use calico_model::datastore::{Change, MemoryStore, Precondition, Prefix, Syncer, Write};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let store = MemoryStore::new();
//! store.commit_now(vec![Write::put("/calico/k".parse()?, b"{}".to_vec(), Precondition::Any)])?;
//! let mut syncer = Syncer::new(store, vec![Prefix::new("/calico")?], 1, tokio::time::sleep);
//! let changes = syncer.next().await;
//! assert!(matches!(changes.as_slice(), [Change::Put(entry), Change::InSync] if entry.value == b"{}"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod state;

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem::{Discriminant, discriminant};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use state::{Folder, SyncState};

use super::{Backoff, Datastore, Entry, Key, Listing, Prefix, StoreError, Watch, WatchError, WatchEvent};
use crate::revision::Revision;

/// After trouble the first pause is at most this long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// No pause is longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// One thing that a [`Syncer`] reports.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change {
    /// A key is new or was written again.
    Put(Entry),
    /// A key is gone.
    Deleted(Key),
    /// All folders have been listed: what was reported so far is the whole store. Comes once.
    InSync,
    /// The store cannot be asked, and is being asked again and again. Comes once per outage, and once more whenever
    /// the reason changes; what was reported so far stays the best that is known.
    Trouble(StoreError),
    /// The outage is over: every folder is up to date and watched again.
    Recovered,
}

type Step = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type Sleep = Box<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What came of the one step that each folder is always in the middle of.
enum Outcome {
    Listed(Result<Listing, StoreError>),
    Watching(Result<Box<dyn Watch>, WatchError>),
    Event(Box<dyn Watch>, WatchEvent),
    Ended(WatchError),
    Slept,
}

/// Keeps a reader up to date with some folders of a datastore.
pub struct Syncer {
    store: Arc<dyn Datastore>,
    state: SyncState,
    feeds: Vec<Feed>,
    sleep: Sleep,
    /// The kind of trouble that was reported last, until it is over.
    trouble: Option<Discriminant<StoreError>>,
}

struct Feed {
    folder: Folder,
    prefix: Prefix,
    step: Step,
    backoff: Backoff,
    healthy: bool,
}

impl Syncer {
    /// Makes a syncer for the folders, of which those inside another one are left out.
    ///
    /// `seed` decides the jitter of its retries, so that the nodes of a cluster do not come back all at once;
    /// `sleep` waits, as `tokio::time::sleep` does.
    pub fn new<F>(
        store: impl Datastore,
        prefixes: Vec<Prefix>,
        seed: u64,
        sleep: impl Fn(Duration) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let store: Arc<dyn Datastore> = Arc::new(store);
        let state = SyncState::new(prefixes);
        let feeds = (0..).zip(state.folders()).map(|(nth, (folder, prefix))| Feed {
            folder,
            prefix: prefix.clone(),
            step: list(Arc::clone(&store), prefix.clone()),
            backoff: Backoff::new(seed.wrapping_add(nth), FIRST_PAUSE, LONGEST_PAUSE),
            healthy: false,
        });
        let feeds = feeds.collect();
        Self { store, state, feeds, sleep: Box::new(move |time| Box::pin(sleep(time))), trouble: None }
    }

    /// Waits for changes, and returns all that are there; never an empty list.
    ///
    /// A watch contributes at most some thousand changes to one list, a listing all it has. Cancel-safe: whatever was
    /// going on goes on in the next call. Every trouble is reported and retried, so that there is no error to return.
    pub async fn next(&mut self) -> Vec<Change> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Change>> {
        // More than that are handed over first, so that a busy store cannot keep its reader waiting.
        const PORTION: usize = 4096;
        let mut changes = Vec::new();
        let mut progress = true;
        while progress && changes.len() < PORTION {
            progress = false;
            for nth in 0..self.feeds.len() {
                if let Poll::Ready(outcome) = self.feeds[nth].step.as_mut().poll(cx) {
                    progress = true;
                    self.advance(nth, outcome, &mut changes);
                }
            }
        }
        if changes.is_empty() { Poll::Pending } else { Poll::Ready(changes) }
    }

    fn advance(&mut self, nth: usize, outcome: Outcome, changes: &mut Vec<Change>) {
        let feed = &mut self.feeds[nth];
        let lost = match outcome {
            Outcome::Listed(Ok(listing)) => {
                changes.extend(self.state.listed(feed.folder, listing));
                None
            }
            Outcome::Watching(Ok(watch)) => {
                feed.step = wait(watch);
                return;
            }
            Outcome::Event(watch, event) => {
                // Only now has the store shown that it works; a watch that merely began proves little.
                feed.backoff.reset();
                feed.healthy = true;
                changes.extend(self.state.seen(feed.folder, event));
                feed.step = wait(watch);
                return self.notice_recovery(changes);
            }
            Outcome::Slept => None,
            Outcome::Watching(Err(WatchError::TooOld { .. })) | Outcome::Ended(WatchError::TooOld { .. }) => {
                self.state.too_old(feed.folder);
                feed.step = Self::rest(&self.sleep, &mut feed.backoff);
                return;
            }
            Outcome::Listed(Err(error))
            | Outcome::Watching(Err(WatchError::Store(error)))
            | Outcome::Ended(WatchError::Store(error)) => Some(error),
        };
        match lost {
            Some(error) => {
                feed.healthy = false;
                feed.step = Self::rest(&self.sleep, &mut feed.backoff);
                self.report(error, changes);
            }
            None => {
                feed.step = Self::proceed(&self.store, feed.prefix.clone(), self.state.resume(feed.folder))
            }
        }
    }

    fn rest(sleep: &Sleep, backoff: &mut Backoff) -> Step {
        let pause = sleep(backoff.pause());
        Box::pin(async {
            pause.await;
            Outcome::Slept
        })
    }

    fn proceed(store: &Arc<dyn Datastore>, prefix: Prefix, resume: Option<Revision>) -> Step {
        let store = Arc::clone(store);
        match resume {
            None => list(store, prefix),
            Some(from) => Box::pin(async move { Outcome::Watching(store.watch(&prefix, from).await) }),
        }
    }

    fn report(&mut self, error: StoreError, changes: &mut Vec<Change>) {
        // Every folder meets the same outage; what kind of trouble it is tells outages apart.
        let kind = discriminant(&error);
        if self.trouble != Some(kind) {
            self.trouble = Some(kind);
            changes.push(Change::Trouble(error));
        }
    }

    fn notice_recovery(&mut self, changes: &mut Vec<Change>) {
        if self.trouble.is_some() && self.feeds.iter().all(|feed| feed.healthy) {
            self.trouble = None;
            changes.push(Change::Recovered);
        }
    }
}

fn list(store: Arc<dyn Datastore>, prefix: Prefix) -> Step {
    Box::pin(async move { Outcome::Listed(store.list(&prefix).await) })
}

fn wait(mut watch: Box<dyn Watch>) -> Step {
    Box::pin(async move {
        match watch.next().await {
            Ok(event) => Outcome::Event(watch, event),
            Err(error) => Outcome::Ended(error),
        }
    })
}

impl fmt::Debug for Syncer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Syncer")
            .field("state", &self.state)
            .field("trouble", &self.trouble)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
