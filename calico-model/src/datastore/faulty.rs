//! A store that fails on purpose: for tests of whoever has to survive it.
//!
//! [`FaultyStore`] stands before another store and can apply commits write by write as an [`Atomicity::InOrder`] store
//! does, stop at any write as a crash would, and answer commits with whatever a hook decides. Cutting a plan at every
//! point is a loop:
//!
//! ```
//! use calico_model::datastore::{Atomicity, Datastore, MemoryStore, Precondition, Write, faulty::FaultyStore};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! for cut in 0..=2 {
//!     let memory = MemoryStore::new();
//!     let store = FaultyStore::new(memory.clone(), Atomicity::InOrder);
//!     store.crash_after(cut);
//!     let plan = ["/first", "/second"].map(|path| path.parse().map(|key| Write::put(key, vec![], Precondition::Any)));
//!     let outcome = store.commit(plan.into_iter().collect::<Result<_, _>>()?).await;
//!     assert_eq!(outcome.is_ok(), cut == 2);
//!     // `memory` now holds what the crashed program left behind.
//!     assert_eq!(memory.revision().0, cut);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Atomicity, CommitError, Datastore, Entry, Key, Listing, Prefix, StoreError, Watch, WatchError, Write,
    check_commit,
};
use crate::revision::Revision;

/// What a hook does to a commit that is about to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the commit goes on.
    None,
    /// The first write fails its precondition; nothing is written.
    Conflict,
    /// The store cannot be asked; nothing is written.
    Unavailable,
    /// The commit is carried out, and its answer is lost: the caller learns that the outcome is unknown.
    LoseAnswer,
}

/// A store before another one, with faults to order. A clone shares the faults.
#[derive(Debug, Clone)]
pub struct FaultyStore<S> {
    inner: Arc<S>,
    atomicity: Atomicity,
    plan: Arc<Mutex<Plan>>,
}

type Hook = Box<dyn FnMut(&[Write]) -> Fault + Send>;

struct Plan {
    written: u64,
    crash: Crash,
    hook: Option<Hook>,
}

#[derive(Debug, Clone, Copy)]
enum Crash {
    Never,
    /// Once so many more writes took effect, the next one crashes.
    After(u64),
    Happened,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("written", &self.written)
            .field("crash", &self.crash)
            .finish_non_exhaustive()
    }
}

impl<S: Datastore> FaultyStore<S> {
    /// Stands before `inner` and carries out commits as `atomicity` says; no faults yet.
    ///
    /// [`Atomicity::Atomic`] is only as atomic as `inner` is.
    #[must_use]
    pub fn new(inner: S, atomicity: Atomicity) -> Self {
        let plan = Plan { written: 0, crash: Crash::Never, hook: None };
        Self { inner: Arc::new(inner), atomicity, plan: Arc::new(Mutex::new(plan)) }
    }

    /// Lets `writes` more writes take effect; the next one, and every call since, fails until [`Self::revive`].
    ///
    /// Where commits are atomic, the commit that does not fit whole does not happen at all.
    pub fn crash_after(&self, writes: u64) {
        self.lock().crash = Crash::After(writes);
    }

    /// Ends a crash, as starting the program again would.
    pub fn revive(&self) {
        self.lock().crash = Crash::Never;
    }

    /// Calls `hook` before each commit is carried out, to inject a [`Fault`] or to let a rival write first.
    pub fn before_commit(&self, hook: impl FnMut(&[Write]) -> Fault + Send + 'static) {
        self.lock().hook = Some(Box::new(hook));
    }

    /// Returns how many writes took effect so far: a plan of `n` writes is cut by `crash_after(0)` to `crash_after(n)`.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.lock().written
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, writes: &[Write]) -> Fault {
        // The hook is taken out while it runs, so that it may call this store itself.
        let hook = self.lock().hook.take();
        let Some(mut hook) = hook else { return Fault::None };
        let fault = hook(writes);
        self.lock().hook.get_or_insert(hook);
        fault
    }

    /// Carries out writes that stand or fall together, unless the crash comes first.
    async fn pass_on(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        let count = writes.len() as u64;
        self.spend(count)?;
        let result = self.inner.commit(writes).await;
        let mut plan = self.lock();
        match &result {
            Ok(_) => plan.written += count,
            Err(_) => {
                if let Crash::After(left) = &mut plan.crash {
                    *left += count;
                }
            }
        }
        drop(plan);
        result
    }

    fn spend(&self, count: u64) -> Result<(), CommitError> {
        let mut plan = self.lock();
        if let Crash::After(left) = plan.crash {
            plan.crash = left.checked_sub(count).map_or(Crash::Happened, Crash::After);
        }
        match plan.crash {
            Crash::Never | Crash::After(_) => Ok(()),
            Crash::Happened => Err(CommitError::OutcomeUnknown {
                store: NAME.to_owned(),
                source: "crashed on purpose".into(),
            }),
        }
    }

    fn alive(&self, action: impl fmt::Display) -> Result<(), StoreError> {
        match self.lock().crash {
            Crash::Never | Crash::After(_) => Ok(()),
            Crash::Happened => Err(unavailable(action)),
        }
    }
}

const NAME: &str = "with faults";

fn unavailable(action: impl fmt::Display) -> StoreError {
    StoreError::Unavailable {
        store: NAME.to_owned(),
        action: action.to_string(),
        source: "failed on purpose".into(),
    }
}

#[async_trait]
impl<S: Datastore> Datastore for FaultyStore<S> {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.alive(format_args!("reading {key}"))?;
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.alive(format_args!("listing {prefix}"))?;
        self.inner.list(prefix).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        check_commit(&writes)?;
        self.alive("committing")?;
        let fault = self.fault(&writes);
        match fault {
            Fault::None | Fault::LoseAnswer => {}
            Fault::Conflict => {
                let actual = self.inner.get(&writes[0].key).await?.map(|entry| entry.revision);
                return Err(CommitError::Conflict { key: writes[0].key.clone(), actual });
            }
            Fault::Unavailable => return Err(unavailable("committing").into()),
        }
        let revision = match self.atomicity {
            Atomicity::Atomic => self.pass_on(writes).await?,
            Atomicity::InOrder => {
                let mut last = Revision(0);
                for write in writes {
                    last = self.pass_on(vec![write]).await?;
                }
                last
            }
        };
        if fault == Fault::LoseAnswer {
            return Err(CommitError::OutcomeUnknown {
                store: NAME.to_owned(),
                source: "the answer was lost on purpose".into(),
            });
        }
        Ok(revision)
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        self.alive(format_args!("watching {prefix}"))?;
        self.inner.watch(prefix, from).await
    }

    fn atomicity(&self) -> Atomicity {
        self.atomicity
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryStore, Precondition};
    use super::*;

    fn put(path: &str, precondition: Precondition) -> Write {
        Write::put(path.parse().unwrap(), b"v".to_vec(), precondition)
    }

    #[tokio::test]
    async fn an_atomic_commit_that_crosses_the_crash_does_not_happen() {
        let memory = MemoryStore::new();
        let store = FaultyStore::new(memory.clone(), Atomicity::Atomic);
        store.crash_after(1);
        let pair = vec![put("/a", Precondition::Any), put("/b", Precondition::Any)];
        assert!(matches!(store.commit(pair.clone()).await, Err(CommitError::OutcomeUnknown { .. })));
        assert_eq!(memory.revision(), Revision(0));
        assert!(store.get(&"/a".parse().unwrap()).await.is_err());
        store.revive();
        assert_eq!(store.commit(pair).await.unwrap(), Revision(1));
        assert_eq!(store.written(), 2);
    }

    #[tokio::test]
    async fn an_in_order_commit_keeps_what_came_before_the_conflict() {
        let memory = MemoryStore::new();
        let store = FaultyStore::new(memory.clone(), Atomicity::InOrder);
        let commit = vec![put("/a", Precondition::Any), put("/b", Precondition::At(Revision(9)))];
        assert!(
            matches!(store.commit(commit).await, Err(CommitError::Conflict { key, .. }) if key.as_str() == "/b")
        );
        assert!(memory.get_now(&"/a".parse().unwrap()).is_some());
    }

    #[tokio::test]
    async fn a_hook_lets_a_rival_write_first() {
        let memory = MemoryStore::new();
        let store = FaultyStore::new(memory.clone(), Atomicity::Atomic);
        let rival = memory.clone();
        store.before_commit(move |writes| {
            let _ = rival.commit_now(writes.to_vec());
            Fault::None
        });
        let result = store.commit(vec![put("/a", Precondition::Absent)]).await;
        assert!(matches!(result, Err(CommitError::Conflict { actual: Some(Revision(1)), .. })));
    }

    #[tokio::test]
    async fn a_lost_answer_is_a_commit_that_happened() {
        let memory = MemoryStore::new();
        let store = FaultyStore::new(memory.clone(), Atomicity::Atomic);
        store.before_commit(|_| Fault::LoseAnswer);
        let result = store.commit(vec![put("/a", Precondition::Absent)]).await;
        assert!(matches!(result, Err(CommitError::OutcomeUnknown { .. })));
        assert_eq!(memory.revision(), Revision(1));
    }
}
