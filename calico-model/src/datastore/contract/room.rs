//! A folder of the store that one check has to itself, and the few moves that all checks are made of.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use super::super::{CommitError, Datastore, Entry, Key, Precondition, Prefix, Watch, WatchEvent, Write};
use super::Broken;
use crate::revision::Revision;

pub(super) struct Room {
    path: String,
}

impl Room {
    /// Takes the folder `/contract/NAME` and empties it.
    pub(super) async fn clear<S: Datastore>(store: &S, name: &str) -> Result<Self, Broken> {
        let room = Self { path: format!("/contract/{name}") };
        let leftovers = store.list(&room.folder("")).await?.entries;
        for some in leftovers.chunks(100) {
            let deletes = some.iter().map(|entry| Write::delete(entry.key.clone(), Precondition::Any));
            store.commit(deletes.collect()).await?;
        }
        Ok(room)
    }

    /// Names a key of the room.
    pub(super) fn key(&self, name: &str) -> Key {
        let path = format!("{}/{name}", self.path);
        path.parse().expect("the suite names its keys itself, and names them soundly")
    }

    /// Names a folder of the room, or the room itself for an empty name.
    pub(super) fn folder(&self, name: &str) -> Prefix {
        let path = format!("{}/{name}", self.path);
        Prefix::new(&path).expect("the suite names its folders itself, and names them soundly")
    }

    /// Writes a key whatever it held before.
    pub(super) async fn put<S: Datastore>(
        &self,
        store: &S,
        name: &str,
        value: &str,
    ) -> Result<Revision, Broken> {
        Ok(store.commit(vec![self.write(name, value)]).await?)
    }

    pub(super) async fn delete<S: Datastore>(&self, store: &S, name: &str) -> Result<Revision, Broken> {
        Ok(store.commit(vec![Write::delete(self.key(name), Precondition::Any)]).await?)
    }

    pub(super) fn write(&self, name: &str, value: &str) -> Write {
        Write::put(self.key(name), value.into(), Precondition::Any)
    }

    /// Waits for the next event and tells it in one line: `put NAME=VALUE`, `deleted NAME` or `in-sync`.
    pub(super) async fn told(&self, watch: &mut Box<dyn Watch>) -> Result<(String, Revision), Broken> {
        Ok(match watch.next().await? {
            WatchEvent::Put(Entry { key, value, revision }) => {
                let value = String::from_utf8_lossy(&value).into_owned();
                (format!("put {}={value}", self.name_of(&key)), revision)
            }
            WatchEvent::Deleted { key, revision } => (format!("deleted {}", self.name_of(&key)), revision),
            WatchEvent::InSync(revision) => ("in-sync".to_owned(), revision),
        })
    }

    /// Reads as many events as are expected and compares.
    pub(super) async fn expect(
        &self,
        watch: &mut Box<dyn Watch>,
        expected: &[&str],
    ) -> Result<Vec<Revision>, Broken> {
        let mut told = Vec::new();
        let mut revisions = Vec::new();
        for _ in expected {
            let (event, revision) = self.told(watch).await?;
            told.push(event);
            revisions.push(revision);
        }
        super::ensure!(told == expected, "expected the events {expected:?}, got {told:?}");
        Ok(revisions)
    }

    fn name_of<'k>(&self, key: &'k Key) -> &'k str {
        let inside = key.as_str().strip_prefix(&self.path).and_then(|rest| rest.strip_prefix('/'));
        inside.unwrap_or(key.as_str())
    }
}

/// Takes the conflict out of a commit that had to fail with one.
pub(super) fn conflict(result: Result<Revision, CommitError>) -> Result<(Key, Option<Revision>), Broken> {
    match result {
        Err(CommitError::Conflict { key, actual }) => Ok((key, actual)),
        Err(other) => Err(other.into()),
        Ok(revision) => Err(Broken(format!("a commit that had to conflict happened at revision {revision}"))),
    }
}

/// Runs futures side by side in this task, whatever the runtime, and returns their results in order.
pub(super) async fn join<T>(futures: Vec<Pin<Box<dyn Future<Output = T> + '_>>>) -> Vec<T> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (Some(future), None)).collect();
    poll_fn(|cx| {
        for (slot, result) in &mut running {
            let done = slot.as_mut().map(|future| future.as_mut().poll(cx));
            if let Some(Poll::Ready(value)) = done {
                (*slot, *result) = (None, Some(value));
            }
        }
        if running.iter().all(|(slot, _)| slot.is_none()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, result)| result).collect()
}
