//! What is known of each folder, and what a listing or an event changes about it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use super::super::{Entry, Key, Listing, Prefix, WatchEvent};
use super::Change;
use crate::revision::Revision;

/// Names one folder of a [`SyncState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Folder(usize);

/// The pure half of a syncer: listings and watch events in, [`Change`]s out.
///
/// It keeps of each key only what tells whether it changed: its revision and a hash of its value.
#[derive(Debug)]
pub struct SyncState {
    folders: Vec<Known>,
    in_sync: bool,
}

#[derive(Debug)]
struct Known {
    prefix: Prefix,
    keys: BTreeMap<Key, Mark>,
    position: Position,
    listed_once: bool,
}

/// How far a folder has been followed.
#[derive(Debug, Clone, Copy)]
enum Position {
    /// Not at all, or the store has forgotten since: it has to be listed.
    Unknown,
    /// Every change up to this revision has been taken in.
    Complete(Revision),
    /// Changes of this revision have been taken in, perhaps not all of them.
    Within(Revision),
}

#[derive(Debug, PartialEq, Eq)]
struct Mark {
    revision: Revision,
    hash: u64,
}

impl Mark {
    fn of(entry: &Entry) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(&entry.value);
        Self { revision: entry.revision, hash: hasher.finish() }
    }
}

impl SyncState {
    /// Begins with nothing known. A folder that lies inside another one is left out.
    #[must_use]
    pub fn new(mut prefixes: Vec<Prefix>) -> Self {
        // A folder sorts right before everything inside it.
        prefixes.sort();
        prefixes.dedup_by(|inner, outer| inner.as_str().starts_with(outer.as_str()));
        let folders = prefixes.into_iter().map(|prefix| Known {
            prefix,
            keys: BTreeMap::new(),
            position: Position::Unknown,
            listed_once: false,
        });
        Self { folders: folders.collect(), in_sync: false }
    }

    /// Returns the folders to list and watch.
    pub fn folders(&self) -> impl Iterator<Item = (Folder, &Prefix)> {
        self.folders.iter().enumerate().map(|(nth, known)| (Folder(nth), &known.prefix))
    }

    /// Returns the revision to watch a folder from, or `None` when it has to be listed first.
    ///
    /// A commit of several writes is several events. Having seen one of them does not mean having seen all, so a
    /// watch resumes before that commit, and what comes twice is told apart by its revision.
    #[must_use]
    pub fn resume(&self, folder: Folder) -> Option<Revision> {
        match self.folders.get(folder.0)?.position {
            Position::Unknown => None,
            Position::Complete(revision) => Some(revision),
            Position::Within(revision) => Some(Revision(revision.0.saturating_sub(1))),
        }
    }

    /// Notes that the store has forgotten the history of a folder: it has to be listed again.
    pub fn too_old(&mut self, folder: Folder) {
        if let Some(known) = self.folders.get_mut(folder.0) {
            known.position = Position::Unknown;
        }
    }

    /// Takes in a listing, and returns how the folder differs from what was known of it.
    ///
    /// The listing that completes the first round is followed by [`Change::InSync`].
    pub fn listed(&mut self, folder: Folder, listing: Listing) -> Vec<Change> {
        let Some(known) = self.folders.get_mut(folder.0) else { return Vec::new() };
        let mut before = std::mem::take(&mut known.keys);
        let mut puts = Vec::new();
        for entry in listing.entries {
            let mark = Mark::of(&entry);
            let same = before.remove(&entry.key).is_some_and(|old| old == mark);
            known.keys.insert(entry.key.clone(), mark);
            if !same {
                puts.push(Change::Put(entry));
            }
        }
        known.position = Position::Complete(listing.revision);
        known.listed_once = true;
        // Deletions first: what takes the place of something that is gone comes after it.
        let mut changes: Vec<_> = before.into_keys().map(Change::Deleted).collect();
        changes.append(&mut puts);
        if !self.in_sync && self.folders.iter().all(|known| known.listed_once) {
            self.in_sync = true;
            changes.push(Change::InSync);
        }
        changes
    }

    /// Takes in an event of a folder's watch, and returns what it changes, if it was not known already.
    pub fn seen(&mut self, folder: Folder, event: WatchEvent) -> Option<Change> {
        let known = self.folders.get_mut(folder.0)?;
        let revision = match &event {
            WatchEvent::Put(entry) => entry.revision,
            WatchEvent::Deleted { revision, .. } => *revision,
            // Says when the store believes that it told all, which changes nothing here.
            WatchEvent::InSync(_) => return None,
        };
        let news = match known.position {
            Position::Unknown => false,
            Position::Complete(done) => revision > done,
            Position::Within(reached) => revision >= reached,
        };
        if !news {
            return None;
        }
        known.position = Position::Within(revision);
        match event {
            WatchEvent::Put(entry) => {
                let mark = Mark::of(&entry);
                let old = known.keys.insert(entry.key.clone(), mark);
                (old.as_ref() != known.keys.get(&entry.key)).then_some(Change::Put(entry))
            }
            WatchEvent::Deleted { key, .. } => known.keys.remove(&key).map(|_| Change::Deleted(key)),
            WatchEvent::InSync(_) => None,
        }
    }
}
