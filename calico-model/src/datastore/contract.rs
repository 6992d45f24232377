//! The contract as a program: what every store must do, so that the Calico crates can run on it.
//!
//! # Writing a store
//!
//! Implement [`Datastore`] and [`Watch`](super::Watch), and hand [`verify`] a function that opens a handle. A whole
//! store, which keeps all history in memory and passes:
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::future::poll_fn;
//! use std::sync::{Arc, Mutex};
//! use std::task::{Poll, Waker};
//!
//! use async_trait::async_trait;
//! use calico_model::datastore::{
//!     Atomicity, CommitError, Datastore, Entry, Key, Listing, Precondition, Prefix, StoreError, Watch, WatchError,
//!     WatchEvent, Write, check_commit, contract,
//! };
//! use calico_model::Revision;
//!
//! #[derive(Clone, Default)]
//! struct Notebook(Arc<Mutex<State>>);
//!
//! #[derive(Default)]
//! struct State {
//!     newest: Revision,
//!     entries: BTreeMap<Key, Entry>,
//!     changes: Vec<WatchEvent>,
//!     waiting: Vec<Waker>,
//! }
//!
//! #[async_trait]
//! impl Datastore for Notebook {
//!     async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
//!         Ok(self.0.lock().unwrap().entries.get(key).cloned())
//!     }
//!
//!     async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
//!         let state = self.0.lock().unwrap();
//!         let inside = state.entries.values().filter(|entry| prefix.contains(&entry.key));
//!         Ok(Listing { entries: inside.cloned().collect(), revision: state.newest })
//!     }
//!
//!     async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
//!         check_commit(&writes)?; // what every store refuses
//!         let mut state = self.0.lock().unwrap();
//!         for write in &writes {
//!             let actual = state.entries.get(&write.key).map(|entry| entry.revision);
//!             let holds = match write.precondition {
//!                 Precondition::Any => true,
//!                 Precondition::Absent => actual.is_none(),
//!                 Precondition::At(revision) => actual == Some(revision),
//!             };
//!             if !holds {
//!                 return Err(CommitError::Conflict { key: write.key.clone(), actual });
//!             }
//!         }
//!         if writes.iter().all(|write| write.value.is_none() && !state.entries.contains_key(&write.key)) {
//!             return Ok(state.newest); // deleting nothing is no change
//!         }
//!         state.newest.0 += 1;
//!         let revision = state.newest;
//!         for Write { key, value, .. } in writes {
//!             if let Some(value) = value {
//!                 let entry = Entry { key: key.clone(), value, revision };
//!                 state.changes.push(WatchEvent::Put(entry.clone()));
//!                 state.entries.insert(key, entry);
//!             } else if state.entries.remove(&key).is_some() {
//!                 state.changes.push(WatchEvent::Deleted { key, revision });
//!             }
//!         }
//!         state.waiting.drain(..).for_each(Waker::wake);
//!         Ok(revision)
//!     }
//!
//!     async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
//!         let newest = self.0.lock().unwrap().newest;
//!         if from > newest {
//!             return Err(WatchError::TooOld { from }); // not the store that was listed
//!         }
//!         let (store, prefix) = (self.clone(), prefix.clone());
//!         Ok(Box::new(Follower { store, prefix, from, position: 0, mark: Some(newest) }))
//!     }
//!
//!     fn atomicity(&self) -> Atomicity {
//!         Atomicity::Atomic
//!     }
//! }
//!
//! struct Follower {
//!     store: Notebook,
//!     prefix: Prefix,
//!     from: Revision,
//!     /// How many of the store's changes were looked at.
//!     position: usize,
//!     /// The in-sync mark, until it is given.
//!     mark: Option<Revision>,
//! }
//!
//! #[async_trait]
//! impl Watch for Follower {
//!     async fn next(&mut self) -> Result<WatchEvent, WatchError> {
//!         poll_fn(|cx| {
//!             let mut state = self.store.0.lock().unwrap();
//!             while let Some(change) = state.changes.get(self.position) {
//!                 let (key, revision) = match change {
//!                     WatchEvent::Put(entry) => (&entry.key, entry.revision),
//!                     WatchEvent::Deleted { key, revision } => (key, *revision),
//!                     WatchEvent::InSync(_) => unreachable!("never stored"),
//!                 };
//!                 if self.mark.is_some_and(|mark| revision > mark) {
//!                     break; // the mark comes first
//!                 }
//!                 self.position += 1;
//!                 if revision > self.from && self.prefix.contains(key) {
//!                     return Poll::Ready(Ok(change.clone()));
//!                 }
//!             }
//!             if let Some(mark) = self.mark.take() {
//!                 return Poll::Ready(Ok(WatchEvent::InSync(mark)));
//!             }
//!             state.waiting.push(cx.waker().clone());
//!             Poll::Pending // nothing was taken: dropping this call loses nothing
//!         })
//!         .await
//!     }
//! }
//!
//! # fn main() -> Result<(), contract::Violation> {
//! let notebook = Notebook::default();
//! # tokio::runtime::Builder::new_current_thread().build().expect("no special needs").block_on(async {
//! contract::verify(async || notebook.clone()).await
//! # })
//! # }
//! ```
//!
//! A store on a disk or behind a network has more to say, in errors that callers branch on:
//!
//! - [`StoreError::Unavailable`] is worth another attempt, [`StoreError::Unusable`] and [`StoreError::Unauthorized`] are
//!   not. Each names the store and what was attempted, and none repeats a password.
//! - [`CommitError::OutcomeUnknown`] when the answer to a commit was lost. A store must not send a commit twice.
//! - [`WatchError::TooOld`] when history was forgotten, also when that is only noticed while a watch runs.
//! - A watch that lost its server goes on by itself when it can, without a gap and without a repetition.
//! - A store that cannot write several keys at once says [`Atomicity::InOrder`](super::Atomicity), applies the writes in
//!   their order and stops at the first failure.
//!
//! # What the suite asks for
//!
//! Every call of the function returns another handle on the *same* store, opened as a second program would open it:
//! a new connection, not a clone, wherever the store can be shared by processes. The store need not be empty. The
//! suite works below `/contract/`, clears each folder before it uses it, and does not care what else the store holds
//! or who else writes elsewhere.
//!
//! Compaction has no place in the [`Datastore`] trait, so it has its own entrance, [`verify_compaction`], which is
//! handed the store's way to forget.
//!
//! The suite names no runtime, reads no clock and never sleeps: that nothing more arrives is shown by a later write
//! arriving next. A store that hangs therefore hangs the suite; run each [`Check`] of [`Check::ALL`] under a time limit
//! of your runtime to learn which one it is. Promises that need a second process, a crash or a power cut to be seen
//! (that an acknowledged commit survives, that a lost server is noticed) remain for the store's own tests.

mod compaction;
mod list;
mod room;
mod watch;
mod write;

use std::fmt;

pub use compaction::verify_compaction;

use super::{CommitError, Datastore, StoreError, WatchError};

/// A promise of the contract that a store did not keep.
#[derive(Debug, thiserror::Error)]
#[error("{promise}: {detail}")]
pub struct Violation {
    promise: &'static str,
    detail: String,
}

impl Violation {
    /// Returns the promise that was broken, as a sentence.
    #[must_use]
    pub fn promise(&self) -> &'static str {
        self.promise
    }
}

/// One promise of the contract, with the program that checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Check {
    /// A later commit has a greater revision, whatever its key and whichever handle wrote it.
    RevisionsOrderAllWrites,
    /// What was put is what is read, for any bytes, for no bytes and for 1 MiB, under any key.
    ValuesAreAnyBytes,
    /// The writes of a commit happen together, at one revision where the store is atomic.
    CommitIsOneChange,
    /// A precondition that does not hold stops the commit, is named with the revision found, and nothing is written.
    FailedPreconditionWritesNothing,
    /// A deleted key is gone, deleting nothing changes nothing, and a key made anew is not its former self.
    DeletedKeysAreGone,
    /// Commits that are empty, contradict themselves or are too large are refused before anything is written.
    UnsoundCommitsAreRefused,
    /// Of writers that compare-and-swap the same key at once exactly one wins.
    ConcurrentWritersNeverBothWin,
    /// A listing holds the whole folder, nothing of its siblings, in key order.
    ListIsOneFolderInOrder,
    /// A listing shows one instant, however large it is and whoever writes meanwhile.
    ListIsOneInstant,
    /// A watch from a listing delivers each later change of the folder once and in order.
    WatchDeliversEachChangeOnce,
    /// A watch from an old revision replays every change since, then marks in-sync once.
    WatchReplaysHistory,
    /// A call of `next` that is dropped while it waits takes no event with it, and watches do not disturb each other.
    WatchIsCancelSafe,
    /// A watch from a revision that the store has not reached is too old: the store is not the one that was listed.
    WatchFromTheFutureIsTooOld,
    /// A watch amid concurrent writers ends with what a listing shows.
    WatchAgreesWithList,
}

impl Check {
    /// Every check, simple ones first.
    pub const ALL: [Check; 14] = [
        Check::RevisionsOrderAllWrites,
        Check::ValuesAreAnyBytes,
        Check::CommitIsOneChange,
        Check::FailedPreconditionWritesNothing,
        Check::DeletedKeysAreGone,
        Check::UnsoundCommitsAreRefused,
        Check::ConcurrentWritersNeverBothWin,
        Check::ListIsOneFolderInOrder,
        Check::ListIsOneInstant,
        Check::WatchDeliversEachChangeOnce,
        Check::WatchReplaysHistory,
        Check::WatchIsCancelSafe,
        Check::WatchFromTheFutureIsTooOld,
        Check::WatchAgreesWithList,
    ];

    /// Runs this check on the store that `open` opens.
    ///
    /// # Errors
    /// When the store breaks the promise, or fails where it should not.
    pub async fn run<S: Datastore>(self, open: impl AsyncFn() -> S) -> Result<(), Violation> {
        let result = match self {
            Check::RevisionsOrderAllWrites => write::revisions_order_all_writes(&open).await,
            Check::ValuesAreAnyBytes => write::values_are_any_bytes(&open).await,
            Check::CommitIsOneChange => write::commit_is_one_change(&open).await,
            Check::FailedPreconditionWritesNothing => write::failed_precondition_writes_nothing(&open).await,
            Check::DeletedKeysAreGone => write::deleted_keys_are_gone(&open).await,
            Check::UnsoundCommitsAreRefused => write::unsound_commits_are_refused(&open).await,
            Check::ConcurrentWritersNeverBothWin => write::concurrent_writers_never_both_win(&open).await,
            Check::ListIsOneFolderInOrder => list::list_is_one_folder_in_order(&open).await,
            Check::ListIsOneInstant => list::list_is_one_instant(&open).await,
            Check::WatchDeliversEachChangeOnce => watch::delivers_each_change_once(&open).await,
            Check::WatchReplaysHistory => watch::replays_history(&open).await,
            Check::WatchIsCancelSafe => watch::is_cancel_safe(&open).await,
            Check::WatchFromTheFutureIsTooOld => watch::from_the_future_is_too_old(&open).await,
            Check::WatchAgreesWithList => watch::agrees_with_list(&open).await,
        };
        result.map_err(|Broken(detail)| Violation { promise: self.promise(), detail })
    }

    /// Returns the promise as a sentence.
    #[must_use]
    pub fn promise(self) -> &'static str {
        match self {
            Check::RevisionsOrderAllWrites => "revisions grow and order all writes",
            Check::ValuesAreAnyBytes => "values are any bytes",
            Check::CommitIsOneChange => "the writes of a commit happen together",
            Check::FailedPreconditionWritesNothing => "a failed precondition is named and writes nothing",
            Check::DeletedKeysAreGone => "deleted keys are gone",
            Check::UnsoundCommitsAreRefused => "unsound commits are refused whole",
            Check::ConcurrentWritersNeverBothWin => "concurrent writers never both win",
            Check::ListIsOneFolderInOrder => "a listing is one folder in key order",
            Check::ListIsOneInstant => "a listing is one instant",
            Check::WatchDeliversEachChangeOnce => "a watch delivers each later change once and in order",
            Check::WatchReplaysHistory => {
                "a watch from an old revision replays history, then marks in-sync once"
            }
            Check::WatchIsCancelSafe => "dropping a waiting call of `next` loses nothing",
            Check::WatchFromTheFutureIsTooOld => "a watch from a revision not yet reached is too old",
            Check::WatchAgreesWithList => "a watch amid writers ends with what a listing shows",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.promise())
    }
}

/// Runs every [`Check`] on the store that `open` opens, and stops at the first that fails.
///
/// # Errors
/// The first promise that the store breaks.
pub async fn verify<S: Datastore>(open: impl AsyncFn() -> S) -> Result<(), Violation> {
    for check in Check::ALL {
        check.run(&open).await?;
    }
    Ok(())
}

/// What went wrong inside a check, before it is joined with the promise.
struct Broken(String);

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self(chain(&error))
    }
}

impl From<CommitError> for Broken {
    fn from(error: CommitError) -> Self {
        Self(chain(&error))
    }
}

impl From<WatchError> for Broken {
    fn from(error: WatchError) -> Self {
        Self(chain(&error))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Leaves the check with the formatted detail unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($detail:tt)+) => {
        if !$condition {
            return Err($crate::datastore::contract::Broken(format!($($detail)+)));
        }
    };
}
use ensure;
