//! The cluster store: an etcd server, or a cluster of them, spoken to with the v3 API.
//!
//! ```text
//! EtcdStore ── Servers ── one connection, to one endpoint, until it fails; then the next endpoint
//!     │            ▲
//!     └ EtcdWatch ─┘   a task per watch that resumes where it was when its stream broke
//! ```
//!
//! - **Every request has a deadline**, and a connection with a request or a watch on it is pinged every six seconds, so
//!   that a server which stopped answering is noticed within ten seconds. (An etcd server hangs up on those who ping more
//!   often than every five seconds.)
//! - **Reads are asked again** of the next endpoint when a server cannot be reached. A commit is sent only over a
//!   connection that has just proved itself, and is never sent twice: when its answer is lost, the caller is told that
//!   the outcome is unknown.
//! - **Listings are read in pages** of about 2 MiB, all at the revision of the first.
//! - **Watches resume** after a lost server, a lost leader or an expired token, and give up after ten seconds. A
//!   history that the server has compacted is [`WatchError::TooOld`].
//! - **Passwords and keys** appear in no error and no debug output.
//!
//! Futures of this store have to be polled within a tokio runtime with time and I/O.

mod config;
mod connection;
mod error;
#[cfg(feature = "strategies")]
pub mod local;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse,
};

pub use config::{EtcdConfig, Pem};

use super::{
    Atomicity, CommitError, Datastore, Entry, Key, Listing, Precondition, Prefix, StoreError, Watch,
    WatchError, Write, check_commit,
};
use crate::revision::Revision;
use connection::{Link, Servers};
use error::{Failure, Kind};

/// A datastore in etcd. A clone is another handle on the same connection.
#[derive(Debug, Clone)]
pub struct EtcdStore {
    servers: Arc<Servers>,
}

impl EtcdStore {
    /// Prepares a store; nothing is connected before the first request.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the configuration cannot work: no endpoint, one that is no URL, a certificate file
    /// that cannot be read.
    pub fn new(config: EtcdConfig) -> Result<Self, StoreError> {
        Ok(Self { servers: Arc::new(Servers::new(config)?) })
    }

    /// Makes the server forget all changes before `revision`: a watch from there is then too old.
    ///
    /// Compaction is the business of whoever runs the server, which does it by itself when told so; this is for
    /// maintenance programs and tests.
    ///
    /// # Errors
    /// When the server cannot be asked, or has forgotten more than that already.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let action = "compacting its history";
        let compact = |mut link: Link| async move { link.kv.compact(number(revision), None).await };
        match self.servers.ask(action, compact).await? {
            Ok(_) => Ok(()),
            Err(failure) => Err(self.servers.unavailable(action, failure)),
        }
    }

    /// Reads one page of a folder, from a key on, at a revision or the newest.
    async fn page(
        &self,
        action: &str,
        start: &[u8],
        end: &[u8],
        limit: i64,
        at: Option<Revision>,
    ) -> Result<Result<GetResponse, Failure>, StoreError> {
        let mut options = GetOptions::new().with_range(end).with_limit(limit);
        if let Some(revision) = at {
            options = options.with_revision(number(revision));
        }
        self.read(action, start, options).await
    }

    async fn read(
        &self,
        action: &str,
        key: &[u8],
        options: GetOptions,
    ) -> Result<Result<GetResponse, Failure>, StoreError> {
        let question = |mut link: Link| {
            let (key, options) = (key.to_vec(), options.clone());
            async move { link.kv.get(key, Some(options)).await }
        };
        self.servers.ask(action, question).await
    }

    /// Returns the newest revision, by asking for a count: the cheapest request that is never stale.
    async fn newest(&self, action: &str, prefix: &Prefix) -> Result<Revision, StoreError> {
        let options = GetOptions::new().with_range(end(prefix)).with_count_only();
        match self.read(action, prefix.as_str().as_bytes(), options).await? {
            Ok(response) => Ok(revision_of(&response)),
            Err(failure) => Err(self.servers.unavailable(action, failure)),
        }
    }

    /// Explains a refused commit: without the right to write, or because of what it is.
    async fn refused(&self, writes: &[Write], failure: Failure) -> CommitError {
        // The server answers "invalid argument" to a user without a name as well; a read tells the two apart.
        let Some(write) = writes.first() else {
            return CommitError::Refused { problem: failure.to_string() };
        };
        match self.get(&write.key).await {
            Err(error @ StoreError::Unauthorized { .. }) => error.into(),
            Ok(_) | Err(_) => CommitError::Refused { problem: failure.to_string() },
        }
    }
}

#[async_trait]
impl Datastore for EtcdStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let action = format!("reading {key}");
        let answer =
            self.servers.ask(&action, async |mut link| link.kv.get(key.as_str(), None).await).await?;
        match answer {
            Ok(mut response) => Ok(response.take_kvs().pop().and_then(entry)),
            Err(failure) => Err(self.servers.unavailable(&action, failure)),
        }
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        const FIRST_PAGE: i64 = 64;
        const LARGEST_PAGE: usize = 10_000;
        const PAGE_BYTES: usize = 2 * 1024 * 1024;
        /// How often a listing begins anew because it was slower than the compaction of the history behind it.
        const ATTEMPTS: usize = 5;
        let action = format!("listing {prefix}");
        let mut last = None;
        'attempt: for _ in 0..ATTEMPTS {
            let mut entries = Vec::new();
            let mut start = prefix.as_str().as_bytes().to_vec();
            let mut limit = FIRST_PAGE;
            let mut at = None;
            loop {
                let mut response = match self.page(&action, &start, &end(prefix), limit, at).await? {
                    Ok(response) => response,
                    Err(failure) if failure.kind() == Kind::Compacted => {
                        last = Some(failure);
                        continue 'attempt;
                    }
                    Err(failure) => return Err(self.servers.unavailable(&action, failure)),
                };
                let revision = *at.get_or_insert(revision_of(&response));
                let more = response.more();
                let kvs = response.take_kvs();
                let (count, mut bytes) = (kvs.len(), 0);
                for kv in kvs {
                    bytes += kv.key().len() + kv.value().len();
                    start = kv.key().to_vec();
                    entries.extend(entry(kv));
                }
                if !more || count == 0 {
                    return Ok(Listing { entries, revision });
                }
                // The least key after the last one.
                start.push(0);
                let fitting = PAGE_BYTES / (bytes / count).max(1);
                limit = fitting.clamp(1, LARGEST_PAGE) as i64;
            }
        }
        let failure = last.unwrap_or_else(Failure::timed_out);
        Err(self.servers.unavailable(&action, failure))
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        check_commit(&writes)?;
        let txn = transaction(&writes);
        let answer =
            self.servers.ask_once("committing", async |mut link| link.kv.txn(txn.clone()).await).await?;
        let response = match answer {
            Ok(response) => response,
            Err(failure) => {
                return Err(match failure.kind() {
                    Kind::Invalid => self.refused(&writes, failure).await,
                    Kind::Unauthorized => self.servers.unauthorized("committing").into(),
                    Kind::NotSent | Kind::Outdated | Kind::Busy | Kind::Compacted => {
                        self.servers.unavailable("committing", failure).into()
                    }
                    Kind::Lost => {
                        CommitError::OutcomeUnknown { store: self.servers.name(), source: failure.into() }
                    }
                });
            }
        };
        if response.succeeded() {
            return Ok(Revision(positive(response.header().map_or(0, |header| header.revision()))));
        }
        conflict(&writes, &response).map_or_else(
            || Err(CommitError::Refused { problem: "the server named no reason".to_owned() }),
            |(key, actual)| Err(CommitError::Conflict { key, actual }),
        )
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        let newest = self.newest(&format!("watching {prefix}"), prefix).await?;
        if from > newest {
            return Err(WatchError::TooOld { from });
        }
        Ok(Box::new(watch::begin(Arc::clone(&self.servers), prefix.clone(), from, newest)))
    }

    fn atomicity(&self) -> Atomicity {
        Atomicity::Atomic
    }
}

/// Writes if all preconditions hold, and otherwise reads the revisions of all keys that have one.
fn transaction(writes: &[Write]) -> Txn {
    let compares: Vec<_> = writes
        .iter()
        .filter_map(|write| {
            let key = write.key.as_str();
            match write.precondition {
                Precondition::Any => None,
                Precondition::Absent => Some(Compare::version(key, CompareOp::Equal, 0)),
                // A key that does not exist compares as revision 0, and nothing is ever below it.
                Precondition::At(Revision(0)) => Some(Compare::mod_revision(key, CompareOp::Less, 0)),
                Precondition::At(revision) => {
                    Some(Compare::mod_revision(key, CompareOp::Equal, number(revision)))
                }
            }
        })
        .collect();
    let changes: Vec<_> = writes
        .iter()
        .map(|write| match &write.value {
            Some(value) => TxnOp::put(write.key.as_str(), value.clone(), None),
            None => TxnOp::delete(write.key.as_str(), None),
        })
        .collect();
    let reads: Vec<_> = conditional(writes)
        .map(|write| TxnOp::get(write.key.as_str(), Some(GetOptions::new().with_keys_only())))
        .collect();
    Txn::new().when(compares).and_then(changes).or_else(reads)
}

fn conditional(writes: &[Write]) -> impl Iterator<Item = &Write> {
    writes.iter().filter(|write| write.precondition != Precondition::Any)
}

/// Finds the first write whose precondition did not hold.
fn conflict(writes: &[Write], response: &TxnResponse) -> Option<(Key, Option<Revision>)> {
    conditional(writes).zip(response.op_responses()).find_map(|(write, read)| {
        let TxnOpResponse::Get(read) = read else { return None };
        let actual = read.kvs().first().map(|kv| Revision(positive(kv.mod_revision())));
        let holds = match write.precondition {
            Precondition::Any => true,
            Precondition::Absent => actual.is_none(),
            Precondition::At(revision) => actual == Some(revision),
        };
        (!holds).then(|| (write.key.clone(), actual))
    })
}

/// The least text greater than every key of a folder: `/` is followed by `0`.
fn end(prefix: &Prefix) -> Vec<u8> {
    let mut end = prefix.as_str().as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Makes an entry of what the server sent; a key that is none was put there by others and is not ours to report.
fn entry(kv: KeyValue) -> Option<Entry> {
    let revision = Revision(positive(kv.mod_revision()));
    let (key, value) = kv.into_key_value();
    let key = str::from_utf8(&key).ok()?.parse().ok()?;
    Some(Entry { key, value, revision })
}

fn revision_of(response: &GetResponse) -> Revision {
    Revision(positive(response.header().map_or(0, |header| header.revision())))
}

/// etcd counts in signed integers, and never below zero.
fn positive(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
