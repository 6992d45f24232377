//! Stored objects together with the revision that proves, at the next write, that nobody changed them meanwhile.

use calico_model::Revision;
use calico_model::datastore::{Entry, Key, Precondition, Write};
use calico_model::resource::block::{StoredAffinity, StoredBlock, StoredHandle};
use serde::Serialize;

use crate::block::Block;
use crate::error::AccessError;

/// What a key holds, and since which revision.
///
/// An object that is marked as deleted counts as absent, but a write must still name the revision of what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The object; `None` when there is none or it is marked as deleted.
    pub value: Option<T>,
    /// The revision of the key; `None` when the key does not exist.
    pub revision: Option<Revision>,
}

impl<T> Versioned<T> {
    /// What a key holds that does not exist.
    #[must_use]
    pub fn absent() -> Self {
        Self { value: None, revision: None }
    }

    /// Makes an object read or written at a revision.
    #[must_use]
    pub fn at(value: T, revision: Revision) -> Self {
        Self { value: Some(value), revision: Some(revision) }
    }

    pub(crate) fn precondition(&self) -> Precondition {
        self.revision.map_or(Precondition::Absent, Precondition::At)
    }

    /// Makes the write that replaces what was read.
    pub(crate) fn put(&self, key: Key, value: Vec<u8>) -> Write {
        Write::put(key, value, self.precondition())
    }

    /// Makes the write that deletes what was read; `None` when there is nothing to delete.
    pub(crate) fn delete(&self, key: Key) -> Option<Write> {
        self.revision.map(|revision| Write::delete(key, Precondition::At(revision)))
    }
}

/// An object of IPAM's that is kept under a key of its own.
pub(crate) trait Stored: Sized {
    /// Reads the stored form; `None` when it is marked as deleted.
    fn read(key: &Key, bytes: &[u8]) -> Result<Option<Self>, String>;
}

impl Stored for Block {
    fn read(_: &Key, bytes: &[u8]) -> Result<Option<Self>, String> {
        let stored: StoredBlock = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if stored.deleted {
            return Ok(None);
        }
        Block::try_from(stored).map(Some).map_err(|damaged| damaged.problem)
    }
}

impl Stored for StoredAffinity {
    fn read(_: &Key, bytes: &[u8]) -> Result<Option<Self>, String> {
        let stored: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let deleted =
            stored.unknown.get("deleted").is_some_and(|deleted| deleted == "true" || deleted == true);
        Ok((!deleted).then_some(stored))
    }
}

impl Stored for StoredHandle {
    fn read(key: &Key, bytes: &[u8]) -> Result<Option<Self>, String> {
        let stored = Self::read(key, bytes).ok_or("it is not where handles are")?;
        let stored = stored.map_err(|error| error.to_string())?;
        Ok((!stored.deleted).then_some(stored))
    }
}

pub(crate) fn from_entry<T: Stored>(entry: Option<&Entry>) -> Result<Versioned<T>, AccessError> {
    let Some(entry) = entry else { return Ok(Versioned::absent()) };
    let value = T::read(&entry.key, &entry.value)
        .map_err(|problem| AccessError::Unreadable { key: entry.key.clone(), problem })?;
    Ok(Versioned { value, revision: Some(entry.revision) })
}

/// Reads an affinity. One that cannot be read counts as marked as deleted: whose a block is, the block itself says, and the
/// next claim writes the affinity anew.
pub(crate) fn affinity_from(entry: &Entry) -> Versioned<StoredAffinity> {
    let marked_deleted = Versioned { value: None, revision: Some(entry.revision) };
    from_entry(Some(entry)).unwrap_or(marked_deleted)
}

pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("IPAM's stored forms have text keys and no value that can fail")
}
