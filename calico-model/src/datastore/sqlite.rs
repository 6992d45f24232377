//! The embedded store: one SQLite file, shared by every process of a machine.
//!
//! Agent, command line and CNI plugin open the same file; SQLite's write-ahead log keeps them apart. A commit is one
//! `BEGIN IMMEDIATE` transaction with `synchronous=FULL`: once it is acknowledged neither `kill -9` nor a power cut
//! takes it back. Readers see the last committed state and are never blocked by a writer.
//!
//! ```text
//!            ┌─ writer thread ── connection ─┐
//! SqliteStore┤                               ├─ calico.db, calico.db-wal, calico.db-shm
//!            └─ reader thread ── connection ─┘
//!                     ▲ fetch changes after my revision
//! SqliteWatch ────────┘◀── newest revision ── bell thread ◀── inotify ── calico.db.bell ◀── every writer, after COMMIT
//! ```
//!
//! SQLite's calls block, so each connection lives on a thread of its own and the futures of this store work under any
//! runtime. Dropping the future of a commit does not stop the commit.
//!
//! A watch is a position in the table of changes. It reads on when the *doorbell* file is touched, which every writer
//! does after its commit; a look at the revision four times a second makes up for a bell that was lost. The table of
//! changes is pruned as it grows, and a watch from before its horizon is [`WatchError::TooOld`].
//!
//! The file must be on a local file system: write-ahead logs need shared memory, which NFS does not have.

mod bell;
mod connection;
mod error;
mod query;
mod schema;
mod watch;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;

use super::{
    Atomicity, CommitError, Datastore, Entry, Key, Listing, Prefix, StoreError, Watch, WatchError, Write,
    check_commit,
};
use crate::revision::Revision;
use bell::Bell;
use connection::{Worker, WorkerGone};
use error::{Place, Trouble};
use watch::{Newest, SqliteWatch};

/// How much history is kept for watches; whichever limit is reached first prunes.
#[derive(Debug, Clone, Copy)]
struct History {
    changes: u64,
    bytes: u64,
}

/// A datastore in one SQLite file. A clone is another handle on the same connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    place: Arc<Place>,
    reader: Worker,
    writer: Worker,
    newest: Arc<Newest>,
    history: History,
}

impl SqliteStore {
    /// Opens the store in the file `path`, and makes the file, and its directory, when they are missing.
    ///
    /// New files get mode 0600 and a new directory 0700. The call blocks for a few milliseconds, and for up to ten
    /// seconds when another process is busy making the same file.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the file is not a datastore, was made by a newer version, or may not be read and
    /// written by this user; [`StoreError::Unavailable`] when another process keeps it locked.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path.as_ref(), History { changes: 100_000, bytes: 64 * 1024 * 1024 })
    }

    fn open_with(path: &Path, history: History) -> Result<Self, StoreError> {
        let (place, connection) = schema::open(path)?;
        let place = Arc::new(place);
        let reader = schema::connect(&place)?;
        let shared = Shared {
            newest: Arc::new(Newest::default()),
            reader: Worker::start("calico-db-read", Arc::clone(&place), reader)?,
            writer: Worker::start("calico-db-write", Arc::clone(&place), connection)?,
            place,
            history,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Forgets all changes up to and including `revision`: a watch from before it is then too old.
    ///
    /// The store prunes its history by itself; this is for those who want it smaller, and for tests.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let outcome = self.shared.writer.run(move |connection| query::compact(connection, revision)).await;
        self.answer("pruning the history", outcome)
    }

    async fn read<T: Send + 'static>(
        &self,
        action: impl FnOnce() -> String,
        query: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let outcome = self.shared.reader.run(|connection| query(connection).map_err(Trouble::from)).await;
        self.answer(&action(), outcome)
    }

    fn answer<T>(
        &self,
        action: &str,
        outcome: Result<Result<T, Trouble>, WorkerGone>,
    ) -> Result<T, StoreError> {
        match outcome {
            Ok(result) => result.map_err(|trouble| self.shared.place.explain(action, trouble)),
            Err(gone) => Err(self.shared.place.unavailable(action, gone.into())),
        }
    }
}

#[async_trait]
impl Datastore for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let wanted = key.clone();
        self.read(|| format!("reading {key}"), move |connection| query::get(connection, wanted)).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        let folder = prefix.clone();
        self.read(|| format!("listing {prefix}"), move |connection| query::list(connection, &folder)).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        check_commit(&writes)?;
        let history = self.shared.history;
        let newest = Arc::clone(&self.shared.newest);
        let place = Arc::clone(&self.shared.place);
        let outcome = self
            .shared
            .writer
            .run(move |connection| {
                let committed = query::commit(connection, writes, history)?;
                // Rung on this thread, so that it happens even when nobody waits for the answer any more.
                if let query::Committed::At(revision) = committed {
                    newest.publish(revision);
                    Bell::of(&place).ring();
                }
                Ok(committed)
            })
            .await;
        match outcome {
            Ok(Ok(query::Committed::At(revision) | query::Committed::Nothing(revision))) => Ok(revision),
            Ok(Ok(query::Committed::Conflict { key, actual })) => Err(CommitError::Conflict { key, actual }),
            Ok(Err(Trouble::AtCommit(cause))) => {
                Err(CommitError::OutcomeUnknown { store: self.shared.place.name(), source: cause.into() })
            }
            Ok(Err(trouble)) => Err(self.shared.place.explain("committing", trouble).into()),
            Err(gone) => {
                Err(CommitError::OutcomeUnknown { store: self.shared.place.name(), source: gone.into() })
            }
        }
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        let begin = move |connection: &mut _| query::begin(connection, from);
        let (span, position) = self.read(|| format!("watching {prefix}"), begin).await?;
        if from < span.horizon || from > span.newest {
            return Err(WatchError::TooOld { from });
        }
        self.shared.newest.follow(&self.shared.place)?;
        self.shared.newest.publish(span.newest);
        Ok(Box::new(SqliteWatch::new(self.clone(), prefix.clone(), position, span.newest)))
    }

    fn atomicity(&self) -> Atomicity {
        Atomicity::Atomic
    }
}

#[cfg(test)]
mod tests;
