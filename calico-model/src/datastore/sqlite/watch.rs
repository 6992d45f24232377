//! Watches: each is a position in the log, moved on when the store's newest revision passes it.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread;

use async_trait::async_trait;

use super::super::{Prefix, StoreError, Watch, WatchError, WatchEvent};
use super::bell::Bell;
use super::error::Place;
use super::query::{self, Changes};
use super::{SqliteStore, schema};
use crate::revision::Revision;

/// The newest revision that this process knows of, and who waits for a newer one.
#[derive(Debug, Default)]
pub(super) struct Newest {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    /// How often the bell's thread found the store in trouble; each time all watches look for themselves.
    alarms: u64,
    following: bool,
    wakers: BTreeMap<u64, Waker>,
    next_watch: u64,
}

impl Newest {
    /// Tells all watches that there is a commit at `revision`.
    pub(super) fn publish(&self, revision: Revision) {
        let mut state = self.lock();
        if revision > state.revision {
            state.revision = revision;
            wake(state);
        }
    }

    fn alarm(&self) {
        let mut state = self.lock();
        state.alarms += 1;
        wake(state);
    }

    /// Starts the thread that listens to the doorbell, unless it already runs. It ends with the store.
    pub(super) fn follow(self: &Arc<Self>, place: &Arc<Place>) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.following {
            return Ok(());
        }
        let mut connection = schema::connect(place)?;
        let newest = Arc::downgrade(self);
        let of = Arc::clone(place);
        let listen = move || {
            let mut listener = Bell::of(&of).listen();
            // Looks before it waits: commits made while the ear was being put to the door did not ring for it.
            while let Some(newest) = Weak::upgrade(&newest) {
                match of.check().and_then(|()| Ok(query::span(&mut connection)?)) {
                    Ok(span) => newest.publish(span.newest),
                    Err(_) => newest.alarm(),
                }
                drop(newest);
                listener.wait();
            }
        };
        match thread::Builder::new().name("calico-db-bell".to_owned()).spawn(listen) {
            Ok(_) => state.following = true,
            Err(error) => return Err(place.unavailable("starting its watch thread", error.into())),
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

pub(super) struct SqliteWatch {
    store: SqliteStore,
    id: u64,
    prefix: Prefix,
    /// Events that were read and not yet handed out.
    ready: VecDeque<WatchEvent>,
    /// Every change up to here is in `ready` or was handed out.
    position: u64,
    alarms: u64,
    /// The revision to report as in sync, until that is done.
    sync_point: Option<Revision>,
    too_old: bool,
}

impl SqliteWatch {
    pub(super) fn new(store: SqliteStore, prefix: Prefix, position: Revision, newest: Revision) -> Self {
        let mut state = store.shared.newest.lock();
        let (id, alarms) = (state.next_watch, state.alarms);
        state.next_watch += 1;
        drop(state);
        let sync_point = Some(newest);
        let ready = VecDeque::new();
        Self { store, id, prefix, ready, position: position.0, alarms, sync_point, too_old: false }
    }

    fn take_ready(&mut self) -> Option<WatchEvent> {
        let reached = match self.ready.front() {
            Some(event) => revision_of(event).0.saturating_sub(1),
            None => self.position,
        };
        match self.sync_point.take_if(|point| reached >= point.0) {
            Some(point) => Some(WatchEvent::InSync(point)),
            None => self.ready.pop_front(),
        }
    }

    /// Waits until there may be something to read after the position.
    fn poll_newer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.store.shared.newest.lock();
        if state.revision.0 > self.position || state.alarms > self.alarms {
            self.alarms = state.alarms;
            return Poll::Ready(());
        }
        state.wakers.insert(self.id, cx.waker().clone());
        Poll::Pending
    }
}

fn revision_of(event: &WatchEvent) -> Revision {
    match event {
        WatchEvent::Put(entry) => entry.revision,
        WatchEvent::Deleted { revision, .. } | WatchEvent::InSync(revision) => *revision,
    }
}

#[async_trait]
impl Watch for SqliteWatch {
    // Cancel-safe: what is read is stored before anything is handed out, and the position moves with it.
    async fn next(&mut self) -> Result<WatchEvent, WatchError> {
        loop {
            if let Some(event) = self.take_ready() {
                return Ok(event);
            }
            if self.too_old {
                return Err(WatchError::TooOld { from: Revision(self.position) });
            }
            poll_fn(|cx| self.poll_newer(cx)).await;
            let (prefix, position) = (self.prefix.clone(), self.position);
            let read = move |connection: &mut _| query::changes(connection, &prefix, position);
            match self.store.read(|| format!("watching {}", self.prefix), read).await? {
                Changes::Read { events, position } => {
                    self.ready.extend(events);
                    self.position = position;
                }
                Changes::Forgotten => self.too_old = true,
            }
        }
    }
}

impl Drop for SqliteWatch {
    fn drop(&mut self) {
        self.store.shared.newest.lock().wakers.remove(&self.id);
    }
}
