//! Round trips: from when something is asked of a store that was not asked anything, until all is answered.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use calico_model::Revision;
use calico_model::datastore::{
    Atomicity, CommitError, Datastore, Entry, Key, Listing, Prefix, StoreError, Watch, WatchError, Write,
};

/// A store that notes how long each round trip took.
pub(crate) struct Trips {
    store: Arc<dyn Datastore>,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    open: u32,
    since: Option<Instant>,
    trips: Vec<Duration>,
}

impl Trips {
    pub(crate) fn new(store: Arc<dyn Datastore>) -> Self {
        Self { store, noted: Mutex::default() }
    }

    pub(crate) fn taken(&self) -> Vec<Duration> {
        std::mem::take(&mut self.noted.lock().unwrap().trips)
    }

    async fn ask<T>(&self, answer: impl Future<Output = T>) -> T {
        {
            let mut noted = self.noted.lock().unwrap();
            noted.open += 1;
            noted.since.get_or_insert_with(Instant::now);
        }
        // A store in memory answers at once: whoever asks beside this one shall have asked first.
        tokio::task::yield_now().await;
        let answer = answer.await;
        let mut noted = self.noted.lock().unwrap();
        noted.open -= 1;
        if noted.open == 0
            && let Some(since) = noted.since.take()
        {
            noted.trips.push(since.elapsed());
        }
        answer
    }
}

#[async_trait]
impl Datastore for Trips {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.ask(self.store.get(key)).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.ask(self.store.list(prefix)).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        self.ask(self.store.commit(writes)).await
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        self.store.watch(prefix, from).await
    }

    fn atomicity(&self) -> Atomicity {
        self.store.atomicity()
    }
}
