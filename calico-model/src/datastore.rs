//! The datastore: a small, strict key/value contract that every store keeps in the same way.
//!
//! `commit` is the only way to write. It takes several writes, each with a [`Precondition`], and either all of them
//! happen at one new [`Revision`] or none does and the error names the key that stood in the way. A store that cannot
//! be atomic says so ([`Atomicity::InOrder`]), applies in order and stops at the first failure; every plan that the
//! Calico crates write is therefore ordered so that each of its prefixes is safe on its own.
//!
//! Reading is `get`, `list` (one consistent revision) and `watch` (each later change, once, in order). A watch that was
//! away too long fails with [`WatchError::TooOld`]; the answer is to list again, which
//! `datastore::syncer` does.
//!
//! The contract is executable: the suite in `datastore::contract` (feature `strategies`) is what a store must pass.

mod backoff;
pub mod client;
#[cfg(feature = "strategies")]
pub mod contract;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "strategies")]
pub mod faulty;
pub mod memory;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod syncer;

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;

pub use backoff::Backoff;
#[cfg(feature = "etcd")]
pub use etcd::{EtcdConfig, EtcdStore};
pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
pub use syncer::{Change, SyncState, Syncer};

use crate::net::ParseError;
use crate::revision::Revision;

/// A key: an absolute path such as `/calico/ipam/v2/config`.
///
/// It begins with `/`, has no empty segment, no NUL or other control character, and is at most 1,024 bytes long.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<str>);

impl Key {
    /// Returns the path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        // By bytes and without early exits, which the compiler turns into a few wide comparisons: listings make keys
        // by the hundred thousand. Only a byte of 0xc2 can begin one of the control characters from U+0080 on.
        let bytes = text.as_bytes();
        let suspect =
            bytes.iter().fold(false, |found, &byte| found | (byte < 0x20) | (byte == 0x7f) | (byte == 0xc2));
        let pairs = bytes.iter().zip(bytes.iter().skip(1));
        let empty_segment = pairs.fold(false, |found, (&a, &b)| found | ((a == b'/') & (b == b'/')));
        let sound = (2..=1024).contains(&bytes.len())
            && bytes.first() == Some(&b'/')
            && bytes.last() != Some(&b'/')
            && !empty_segment
            && !(suspect && text.chars().any(char::is_control));
        if sound {
            Ok(Self(text.into()))
        } else {
            Err(ParseError::new(
                text,
                "a datastore key: an absolute path of non-empty segments, at most 1024 bytes",
            ))
        }
    }
}

// `Ord` and `Hash` of a key are those of its text, as `Borrow` demands: maps of keys can be searched by path.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A folder of keys: a path that ends with `/`, so that `ns1` never matches `ns10`. `/` alone is the whole store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Box<str>);

impl Prefix {
    /// Makes the folder of a path; a `/` is put at the end when it is missing.
    ///
    /// # Errors
    /// When the path is not absolute or has an empty segment or a control character.
    pub fn new(path: &str) -> Result<Self, ParseError> {
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() {
            return Ok(Self("/".into()));
        }
        let key: Key = path.parse()?;
        Ok(Self(format!("{key}/").into()))
    }

    /// Returns the path, which ends with `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reports whether `key` is inside the folder.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        key.0.starts_with(&*self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key with its value, and the revision of the commit that wrote it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value, any bytes; Calico writes JSON.
    pub value: Vec<u8>,
    /// The revision at which this value was written.
    pub revision: Revision,
}

/// All entries of a folder at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries in key order.
    pub entries: Vec<Entry>,
    /// The revision of the whole store at that instant: a watch from here misses nothing and repeats nothing.
    pub revision: Revision,
}

/// What must be true of a key for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing: the write always happens.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    At(Revision),
}

/// One change to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key to change.
    pub key: Key,
    /// The new value, or `None` to delete the key. Deleting a key that is not there changes nothing.
    pub value: Option<Vec<u8>>,
    /// What must be true of the key beforehand.
    pub precondition: Precondition,
}

impl Write {
    /// Makes a write that sets `key` to `value`.
    #[must_use]
    pub fn put(key: Key, value: Vec<u8>, precondition: Precondition) -> Self {
        Self { key, value: Some(value), precondition }
    }

    /// Makes a write that deletes `key`.
    #[must_use]
    pub fn delete(key: Key, precondition: Precondition) -> Self {
        Self { key, value: None, precondition }
    }
}

/// How a store carries out a commit of several writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomicity {
    /// All writes or none, at one revision.
    Atomic,
    /// One after the other, stopping at the first failure: earlier writes stay.
    InOrder,
}

/// A cause from below the store, kept whole for the chain of an error report.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A store that could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached, or did not answer in time. Worth retrying.
    #[error("the datastore {store} did not answer while {action}")]
    Unavailable {
        /// Which store: a file's path or a server's address, without secrets.
        store: String,
        /// What was attempted, as `reading /calico/...`.
        action: String,
        /// What went wrong below.
        #[source]
        source: Cause,
    },
    /// The store refused the credentials, or these credentials may not do this.
    #[error("the datastore {store} refused access while {action}: check the user, password and certificates")]
    Unauthorized {
        /// Which store.
        store: String,
        /// What was attempted.
        action: String,
    },
    /// The store cannot be used at all as it is: not a datastore, made by a newer version, unreadable.
    #[error("the datastore {store} cannot be used: {problem}")]
    Unusable {
        /// Which store.
        store: String,
        /// What is wrong with it and what to do about it.
        problem: String,
    },
}

/// A commit that did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A precondition did not hold; nothing was written (or, on an [`Atomicity::InOrder`] store, nothing from this
    /// write on). Read the key again, plan again.
    #[error("{key} was changed by another writer")]
    Conflict {
        /// The key whose precondition failed.
        key: Key,
        /// The revision the key has, or `None` when it does not exist.
        actual: Option<Revision>,
    },
    /// The commit cannot be carried out as it stands: empty, one key twice, too many or too large writes.
    #[error("the datastore cannot take this commit: {problem}")]
    Refused {
        /// What is wrong with it.
        problem: String,
    },
    /// The store went away before it answered: the commit may or may not have happened. Read before trying again.
    #[error("the datastore {store} went away during a commit, whose outcome is unknown")]
    OutcomeUnknown {
        /// Which store.
        store: String,
        /// What went wrong below.
        #[source]
        source: Cause,
    },
    /// The store could not be asked; nothing was written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One thing that a watch reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// A key was written.
    Put(Entry),
    /// A key was deleted.
    Deleted {
        /// The key.
        key: Key,
        /// The revision of the commit that deleted it.
        revision: Revision,
    },
    /// Everything up to this revision, which was the newest when the watch began, has been delivered. Comes once.
    InSync(Revision),
}

/// A watch that ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// Changes after the asked-for revision are no longer kept, or the store has not come that far (it was replaced
    /// by an older one): list again and watch from there.
    #[error("the datastore no longer keeps the changes since revision {from}: list again")]
    TooOld {
        /// The revision that was asked for.
        from: Revision,
    },
    /// The store went away and did not come back in time. Watch again from before the last revision seen: of
    /// the commit that had it, other changes may be still to come.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A running watch. Dropping it ends it.
#[async_trait]
pub trait Watch: Send {
    /// Waits for the next event. Cancel-safe: an event is delivered by exactly one call.
    ///
    /// # Errors
    /// After an error the watch is over and every further call fails alike.
    async fn next(&mut self) -> Result<WatchEvent, WatchError>;
}

/// A store of keys and values with compare-and-swap commits and watches.
#[async_trait]
pub trait Datastore: Send + Sync + 'static {
    /// Reads one key, or `None` when it does not exist.
    ///
    /// # Errors
    /// When the store cannot be asked.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// Reads all keys of a folder at one revision, in key order.
    ///
    /// # Errors
    /// When the store cannot be asked.
    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError>;

    /// Carries out all writes, or none, and returns the revision they got.
    ///
    /// A commit that changes nothing, because it only deletes what is not there, gets no revision of its own and
    /// returns the store's newest. Putting the value that a key already has is a change.
    ///
    /// # Errors
    /// When a precondition fails, the writes are refused, or the store cannot be asked; see [`CommitError`].
    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError>;

    /// Begins to watch a folder: every change with a revision greater than `from`, once and in order.
    ///
    /// # Errors
    /// When changes since `from` are no longer kept, or the store cannot be asked.
    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError>;

    /// Says whether a commit of several writes is atomic.
    fn atomicity(&self) -> Atomicity;
}

#[async_trait]
impl<S: Datastore + ?Sized> Datastore for Arc<S> {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        (**self).get(key).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        (**self).list(prefix).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        (**self).commit(writes).await
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        (**self).watch(prefix, from).await
    }

    fn atomicity(&self) -> Atomicity {
        (**self).atomicity()
    }
}

/// The most writes that one commit may have.
pub const MAX_WRITES: usize = 128;

/// The most bytes that the values of one commit may have together: 1 MiB.
pub const MAX_COMMIT_BYTES: usize = 1024 * 1024;

/// Checks what every store checks of a commit before it starts.
///
/// The limits are those of an etcd server as it is installed, so that what one store takes every store takes.
///
/// # Errors
/// [`CommitError::Refused`] when there is no write, when two writes name one key, when there are more than
/// [`MAX_WRITES`] writes, or when their values together are larger than [`MAX_COMMIT_BYTES`].
pub fn check_commit(writes: &[Write]) -> Result<(), CommitError> {
    let mut keys: Vec<&Key> = writes.iter().map(|write| &write.key).collect();
    keys.sort_unstable();
    if keys.is_empty() {
        return Err(CommitError::Refused { problem: "it has no writes".to_owned() });
    }
    if keys.len() > MAX_WRITES {
        return Err(CommitError::Refused {
            problem: format!("it has {} writes, and at most {MAX_WRITES} fit into one", keys.len()),
        });
    }
    let bytes: usize = writes.iter().filter_map(|write| write.value.as_ref()).map(Vec::len).sum();
    if bytes > MAX_COMMIT_BYTES {
        return Err(CommitError::Refused {
            problem: format!("its values are {bytes} bytes, and at most {MAX_COMMIT_BYTES} fit into one"),
        });
    }
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(CommitError::Refused { problem: format!("it writes {} twice", pair[0]) }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_an_absolute_path_of_non_empty_segments(text in "[/aé\u{7f}\u{85}\n]{0,8}") {
            let path = text.strip_prefix('/');
            let sound = path.is_some_and(|path| path.split('/').all(|segment| !segment.is_empty()))
                && !text.chars().any(char::is_control);
            prop_assert_eq!(text.parse::<Key>().is_ok(), sound);
        }
    }

    #[test]
    fn a_key_of_more_than_1024_bytes_is_refused() {
        assert!(format!("/{}", "k".repeat(1023)).parse::<Key>().is_ok());
        assert!(format!("/{}", "k".repeat(1024)).parse::<Key>().is_err());
    }

    #[test]
    fn a_folder_holds_what_is_below_its_path_and_nothing_else() {
        let folder = Prefix::new("/ns1").unwrap();
        assert_eq!(folder, Prefix::new("/ns1/").unwrap());
        for (key, inside) in [("/ns1/a", true), ("/ns1/a/b", true), ("/ns1", false), ("/ns10/a", false)] {
            assert_eq!(folder.contains(&key.parse().unwrap()), inside, "{key}");
        }
        assert!(Prefix::new("ns1").is_err());
        assert!(Prefix::new("/ns1//").is_err());
        assert_eq!(Prefix::new("").unwrap().as_str(), "/");
    }
}
