//! What one process remembers between operations, so that most of them need no read.
//!
//! Everything here may be out of date. That is sound because every write names the revision of what it replaces: a
//! decision made from an old memory fails as a conflict, the key is read again, and the decision is made anew. Only the
//! settings (pools, reservations, configuration, labels of nodes) are not guarded by a revision; they are read again
//! after [`SETTINGS_MAX_AGE`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use calico_model::datastore::{Change, Entry, Key};
use calico_model::resource::block::{Owner, StoredAffinity, StoredHandle, affinity_from_key, block_from_key};
use calico_model::{Cidr, Family, Labels, NodeName, Revision};

use crate::block::Block;
use crate::index::{Hint, Index};
use crate::pool::Settings;
use crate::request::PerFamily;
use crate::versioned::Versioned;

/// For how long settings are used that were read once: who has disabled a pool waits longer before it is taken for closed.
/// An assignment whose commit takes longer than that may still happen.
pub const SETTINGS_MAX_AGE: Duration = Duration::from_millis(500);

/// How many handles are remembered.
const MAX_HANDLES: usize = 4096;

/// How many blocks are remembered whole.
const MAX_BLOCKS: usize = 16_384;

/// Something that was read at a time.
#[derive(Debug)]
struct Aged<T> {
    value: Arc<T>,
    read: SystemTime,
}

impl<T> Aged<T> {
    fn young(&self, now: SystemTime) -> Option<Arc<T>> {
        // Also when the clock was set back, the value is read again.
        let young = now.duration_since(self.read).is_ok_and(|age| age <= SETTINGS_MAX_AGE);
        young.then(|| self.value.clone())
    }
}

/// The blocks of one owner in one family.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostBlocks {
    /// The owner's affinities, whatever their state.
    pub(crate) affinities: BTreeMap<Cidr, Versioned<StoredAffinity>>,
    /// Those of them whose block is not known to be full.
    pub(crate) open: BTreeSet<Cidr>,
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    settings: Option<Aged<Settings>>,
    /// Settings of which the reservations were not read.
    settings_for_release: Option<Aged<Settings>>,
    nodes: BTreeMap<NodeName, Aged<Labels>>,
    hosts: BTreeMap<(Owner, Family), HostBlocks>,
    blocks: BTreeMap<Cidr, (Revision, Arc<Block>)>,
    handles: BTreeMap<String, Versioned<StoredHandle>>,
    pub(crate) index: PerFamily<Index>,
    /// Where the search for a block goes on, by owner and pool.
    pub(crate) cursors: BTreeMap<(Owner, Cidr), u128>,
}

impl Cache {
    pub(crate) fn settings(&self, now: SystemTime) -> Option<Arc<Settings>> {
        self.settings.as_ref()?.young(now)
    }

    pub(crate) fn note_settings(&mut self, settings: Settings, now: SystemTime) -> Arc<Settings> {
        let value = Arc::new(settings);
        self.settings = Some(Aged { value: value.clone(), read: now });
        value
    }

    pub(crate) fn settings_for_release(&self, now: SystemTime) -> Option<Arc<Settings>> {
        self.settings_for_release.as_ref()?.young(now)
    }

    pub(crate) fn note_settings_for_release(&mut self, settings: Settings, now: SystemTime) -> Arc<Settings> {
        let value = Arc::new(settings);
        self.settings_for_release = Some(Aged { value: value.clone(), read: now });
        value
    }

    pub(crate) fn labels(&self, node: &NodeName, now: SystemTime) -> Option<Arc<Labels>> {
        self.nodes.get(node)?.young(now)
    }

    pub(crate) fn note_labels(&mut self, node: &NodeName, labels: Labels, now: SystemTime) -> Arc<Labels> {
        let value = Arc::new(labels);
        self.nodes.insert(node.clone(), Aged { value: value.clone(), read: now });
        value
    }

    pub(crate) fn host(&self, owner: &Owner, family: Family) -> Option<&HostBlocks> {
        self.hosts.get(&(owner.clone(), family))
    }

    pub(crate) fn forget_host(&mut self, owner: &Owner) {
        for family in Family::ALL {
            self.hosts.remove(&(owner.clone(), family));
        }
    }

    /// Replaces an owner's affinities by a listing.
    pub(crate) fn note_host(
        &mut self,
        owner: &Owner,
        family: Family,
        affinities: BTreeMap<Cidr, Versioned<StoredAffinity>>,
    ) {
        let open = affinities.keys().filter(|cidr| self.may_have_space(cidr)).copied().collect();
        self.hosts.insert((owner.clone(), family), HostBlocks { affinities, open });
    }

    pub(crate) fn affinity(&self, owner: &Owner, cidr: &Cidr) -> Versioned<StoredAffinity> {
        let host = self.host(owner, cidr.family());
        host.and_then(|host| host.affinities.get(cidr)).cloned().unwrap_or_else(Versioned::absent)
    }

    pub(crate) fn note_affinity(&mut self, owner: &Owner, cidr: Cidr, affinity: Versioned<StoredAffinity>) {
        let open = self.may_have_space(&cidr);
        let Some(host) = self.hosts.get_mut(&(owner.clone(), cidr.family())) else { return };
        if affinity.revision.is_none() {
            host.affinities.remove(&cidr);
            host.open.remove(&cidr);
            return;
        }
        host.affinities.insert(cidr, affinity);
        if open {
            host.open.insert(cidr);
        }
    }

    fn may_have_space(&self, cidr: &Cidr) -> bool {
        self.blocks.get(cidr).is_none_or(|(_, block)| block.held() < block.size())
    }

    pub(crate) fn block(&self, cidr: &Cidr) -> Option<Versioned<Block>> {
        self.blocks.get(cidr).map(|(revision, block)| Versioned::at((**block).clone(), *revision))
    }

    pub(crate) fn note_block(&mut self, cidr: Cidr, block: &Versioned<Block>, now: SystemTime) {
        let index = self.index.of_mut(cidr.family());
        let (Some(value), Some(revision)) = (&block.value, block.revision) else {
            index.note(cidr, None);
            self.blocks.remove(&cidr);
            return;
        };
        if self.blocks.get(&cidr).is_some_and(|(known, _)| *known > revision) {
            return;
        }
        index.note(cidr, Some(Hint::of(value, revision, now)));
        if let Some(owner) = value.owner()
            && let Some(host) = self.hosts.get_mut(&(owner.clone(), cidr.family()))
        {
            let open = value.held() < value.size() && host.affinities.contains_key(&cidr);
            if open {
                host.open.insert(cidr)
            } else {
                host.open.remove(&cidr)
            };
        }
        self.blocks.insert(cidr, (revision, Arc::new(value.clone())));
        if self.blocks.len() > MAX_BLOCKS {
            self.blocks.pop_first();
        }
    }

    pub(crate) fn forget_block(&mut self, cidr: &Cidr) {
        self.blocks.remove(cidr);
    }

    pub(crate) fn handle(&self, handle: &str) -> Option<Versioned<StoredHandle>> {
        self.handles.get(handle).cloned()
    }

    pub(crate) fn note_handle(&mut self, handle: &str, value: Versioned<StoredHandle>) {
        if value.revision.is_none() {
            self.handles.remove(handle);
            return;
        }
        self.handles.insert(handle.to_owned(), value);
        if self.handles.len() > MAX_HANDLES {
            self.handles.pop_first();
        }
    }

    pub(crate) fn forget_handle(&mut self, handle: &str) {
        self.handles.remove(handle);
    }

    /// Learns from a syncer; what is no part of IPAM is ignored.
    pub(crate) fn observe(&mut self, change: &Change, now: SystemTime) {
        match change {
            Change::Put(entry) => self.observe_entry(entry, now),
            Change::Deleted(key) => self.observe_deletion(key),
            Change::InSync | Change::Recovered => self.set_watched(true),
            // An outage, and whatever else may come.
            Change::Trouble(_) | _ => self.set_watched(false),
        }
    }

    fn set_watched(&mut self, watched: bool) {
        Family::ALL.into_iter().for_each(|family| self.index.of_mut(family).set_watched(watched));
    }

    fn observe_entry(&mut self, entry: &Entry, now: SystemTime) {
        if let Some(cidr) = block_from_key(&entry.key) {
            if self.blocks.get(&cidr).is_some_and(|(known, _)| *known < entry.revision) {
                self.blocks.remove(&cidr);
            }
            let hint = Hint::glimpse(&entry.value, entry.revision, now);
            self.index.of_mut(cidr.family()).note(cidr, hint);
        } else if let Some((owner, cidr)) = affinity_from_key(&entry.key)
            && self.affinity(&owner, &cidr).revision.is_some_and(|known| known < entry.revision)
        {
            self.forget_host(&owner);
        }
    }

    /// Which revision the deletion had is not told. What is remembered may be younger; it is read again then.
    fn observe_deletion(&mut self, key: &Key) {
        if let Some(cidr) = block_from_key(key) {
            self.blocks.remove(&cidr);
            self.index.of_mut(cidr.family()).note(cidr, None);
        } else if let Some((owner, _)) = affinity_from_key(key) {
            self.forget_host(&owner);
        }
    }
}
