//! A network between a client and its store that delays, loses and repeats.
//!
//! What it does is what a store's contract allows: a commit whose answer is missing is reported as of unknown outcome,
//! and it, or a second copy of it, may reach the store at any later time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use calico_model::Revision;
use calico_model::datastore::{
    Atomicity, CommitError, Datastore, Entry, Key, Listing, Prefix, StoreError, Watch, WatchError, Write,
};

use crate::dice::Dice;

/// The longest delay, in milliseconds.
const LONGEST: u64 = 200;

/// A store at the other end of a bad network.
pub(crate) struct Network {
    store: Arc<dyn Datastore>,
    dice: Mutex<Dice>,
}

/// What becomes of one commit.
enum Fate {
    Delivered,
    /// Its answer takes a while.
    AnswerDelayed,
    /// It is carried out, and nobody learns of it.
    AnswerLost,
    /// It is given up on, and reaches the store later.
    RequestDelayed,
    /// It reaches the store, and a second time later.
    Repeated,
}

impl Network {
    pub(crate) fn new(store: Arc<dyn Datastore>, dice: Dice) -> Self {
        Self { store, dice: Mutex::new(dice) }
    }

    fn below(&self, limit: u64) -> u64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).below(limit)
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(self.below(LONGEST))
    }

    async fn perhaps_wait(&self) {
        if self.below(200) == 0 {
            tokio::time::sleep(self.delay()).await;
        }
    }

    fn fate(&self) -> Fate {
        match self.below(1000) {
            0..5 => Fate::AnswerDelayed,
            5..9 => Fate::AnswerLost,
            9..12 => Fate::RequestDelayed,
            12..17 => Fate::Repeated,
            _ => Fate::Delivered,
        }
    }

    fn deliver_later(&self, writes: Vec<Write>) {
        let (store, delay) = (self.store.clone(), self.delay());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // There is nobody to tell.
            let _ = store.commit(writes).await;
        });
    }
}

fn lost() -> CommitError {
    CommitError::OutcomeUnknown {
        store: "at the other end".to_owned(),
        source: "the answer was lost on purpose".into(),
    }
}

#[async_trait]
impl Datastore for Network {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let answer = self.store.get(key).await;
        self.perhaps_wait().await;
        answer
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        let answer = self.store.list(prefix).await;
        self.perhaps_wait().await;
        answer
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        match self.fate() {
            Fate::Delivered => self.store.commit(writes).await,
            Fate::AnswerDelayed => {
                let answer = self.store.commit(writes).await;
                tokio::time::sleep(self.delay()).await;
                answer
            }
            Fate::AnswerLost => {
                let _ = self.store.commit(writes).await;
                Err(lost())
            }
            Fate::RequestDelayed => {
                self.deliver_later(writes);
                Err(lost())
            }
            Fate::Repeated => {
                let answer = self.store.commit(writes.clone()).await;
                self.deliver_later(writes);
                answer
            }
        }
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        self.store.watch(prefix, from).await
    }

    fn atomicity(&self) -> Atomicity {
        self.store.atomicity()
    }
}
