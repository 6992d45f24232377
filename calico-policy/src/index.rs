//! Which selectors match which labelled things, kept right while both come and go.
//!
//! Two questions are asked all the time: what does a new selector match, and which selectors match what has just changed. Each
//! is pruned by labels. A selector's [restrictions](Selector::restrictions) say which labels something must carry for a match to
//! be possible: things are filed by the labels they carry, as far as any selector looks at those, selectors by the label that the
//! fewest others need, and only what is filed under the same label is tried. What carries a label is a set, and what a new selector
//! matches is found by joining such sets, as its expression says: nothing that carries labels is asked one by one.
//!
//! Labels that are inherited are kept once, with the parent (a profile), which knows its children. A change of a parent's labels
//! asks only the selectors that look at the labels that changed.

mod buckets;
mod ids;
mod search;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use calico_model::resource::ResourceKey;
use calico_model::{LabelSource, Labels, Name, Selector};
use slab::Slab;

use crate::labels::{Labelled, NOT_INHERITED};
use buckets::{Buckets, Place};
pub(crate) use ids::Ids;

/// A label's key or value.
type Word = Arc<str>;

/// Names something that is indexed, as long as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ItemId(u32);

/// Names a selector, as long as it is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SelectorId(u32);

impl ItemId {
    fn at(self) -> usize {
        self.0 as usize
    }
}

impl SelectorId {
    fn at(self) -> usize {
        self.0 as usize
    }
}

/// Something that came to match a selector, or ceased to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) item: ItemId,
    pub(crate) selector: SelectorId,
    pub(crate) matches: bool,
}

/// Labelled things, each with a `P` of its user's, and selectors.
#[derive(Debug)]
pub(crate) struct Index<P> {
    items: Slab<Item<P>>,
    by_key: HashMap<ResourceKey, ItemId>,
    parents: BTreeMap<Name, Parent>,
    selectors: Slab<Entry>,
    by_selector: HashMap<Selector, SelectorId>,
    keys: HashMap<Word, Key>,
    buckets: Buckets,
}

/// A label's key that selectors look at.
#[derive(Debug, Default)]
struct Key {
    lookers: BTreeSet<SelectorId>,
    /// What carries a label of this key itself, by its value.
    values: HashMap<Word, Ids>,
    /// The parents that give one.
    givers: BTreeSet<Name>,
}

#[derive(Debug)]
struct Item<P> {
    labelled: Labelled,
    /// The selectors that match, sorted.
    matched: Vec<SelectorId>,
    payload: P,
}

#[derive(Debug, Default)]
struct Parent {
    labels: Labels,
    children: Ids,
}

#[derive(Debug)]
struct Entry {
    selector: Selector,
    place: Place,
    users: usize,
    matching: Ids,
}

/// Something that was replaced or removed.
#[derive(Debug)]
pub(crate) struct Former<P> {
    /// The selectors that matched it, sorted.
    pub(crate) matched: Vec<SelectorId>,
    pub(crate) payload: P,
}

/// Up to this many things it costs less to ask each than to look for candidates.
const FEW: usize = 8;

impl<P> Default for Index<P> {
    fn default() -> Self {
        Self {
            items: Slab::new(),
            by_key: HashMap::new(),
            parents: BTreeMap::new(),
            selectors: Slab::new(),
            by_selector: HashMap::new(),
            keys: HashMap::new(),
            buckets: Buckets::default(),
        }
    }
}

impl<P> Index<P> {
    /// Adds something, or replaces what had its key. Returns what it was.
    pub(crate) fn put(
        &mut self,
        key: &ResourceKey,
        labelled: Labelled,
        payload: P,
    ) -> (ItemId, Option<Former<P>>) {
        let (id, former) = match self.by_key.get(key).copied() {
            Some(id) => {
                self.refile(id, &labelled);
                let item = &mut self.items[id.at()];
                item.labelled = labelled;
                (id, Some(std::mem::replace(&mut item.payload, payload)))
            }
            None => {
                let id = ItemId(place(self.items.vacant_key()));
                self.file(id, &labelled, None);
                for name in labelled.parents() {
                    self.parent(name).children.insert(id);
                }
                self.items.insert(Item { labelled, matched: Vec::new(), payload });
                self.by_key.insert(key.clone(), id);
                (id, None)
            }
        };
        let matched = self.find_selectors(id);
        let before = self.matches(id, matched);
        (id, former.map(|payload| Former { matched: before, payload }))
    }

    /// Removes something; `None` when nothing has the key.
    pub(crate) fn remove(&mut self, key: &ResourceKey) -> Option<Former<P>> {
        let id = self.by_key.remove(key)?;
        let matched = self.matches(id, Vec::new());
        let Item { labelled, payload, .. } = self.items.remove(id.at());
        self.unfile(id, &labelled, None);
        self.leave(id, labelled.parents());
        Some(Former { matched, payload })
    }

    /// Makes something match these selectors, sorted, and no others; returns those it matched before.
    fn matches(&mut self, id: ItemId, matched: Vec<SelectorId>) -> Vec<SelectorId> {
        let before = std::mem::take(&mut self.items[id.at()].matched);
        for lost in before.iter().filter(|selector| matched.binary_search(selector).is_err()) {
            self.selectors[lost.at()].matching.remove(id);
        }
        for won in matched.iter().filter(|selector| before.binary_search(selector).is_err()) {
            self.selectors[won.at()].matching.insert(id);
        }
        self.items[id.at()].matched = matched;
        before
    }

    pub(crate) fn id(&self, key: &ResourceKey) -> Option<ItemId> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn payload(&self, item: ItemId) -> &P {
        &self.items[item.at()].payload
    }

    /// Returns the selectors that match something, sorted.
    pub(crate) fn matched(&self, item: ItemId) -> &[SelectorId] {
        &self.items[item.at()].matched
    }

    fn is_matched(&self, item: ItemId, selector: &Selector) -> bool {
        selector.matches(&self.labels(item))
    }

    /// Reports whether a selector, known or not, matches any of these.
    pub(crate) fn matches_any(&mut self, selector: &Selector, of: &BTreeSet<ItemId>) -> bool {
        if of.len() <= FEW {
            return of.iter().any(|item| self.is_matched(*item, selector));
        }
        self.look_at(selector);
        self.candidates(selector).iter().any(|item| of.contains(&item) && self.is_matched(item, selector))
    }

    /// Returns what inherits from a parent.
    pub(crate) fn children(&self, parent: &Name) -> Vec<ItemId> {
        self.parents.get(parent).map(|parent| parent.children.iter().collect()).unwrap_or_default()
    }

    /// Adds a use of a selector. Its matches are found when it is new.
    pub(crate) fn use_selector(&mut self, selector: &Selector) -> SelectorId {
        if let Some(id) = self.by_selector.get(selector).copied() {
            self.selectors[id.at()].users += 1;
            return id;
        }
        self.look_at(selector);
        let filed = self.buckets.place(selector);
        let matching = self.find_items(selector);
        let id = SelectorId(place(self.selectors.vacant_key()));
        for item in matching.iter() {
            let matched = &mut self.items[item.at()].matched;
            let at = matched.partition_point(|other| *other < id);
            matched.insert(at, id);
        }
        self.buckets.file(id, &filed);
        self.selectors.insert(Entry { selector: selector.clone(), place: filed, users: 1, matching });
        self.by_selector.insert(selector.clone(), id);
        for key in selector.keys() {
            self.keys.get_mut(key).expect("it is looked at").lookers.insert(id);
        }
        id
    }

    /// Takes back a use of a selector, which is forgotten with its last.
    pub(crate) fn release_selector(&mut self, id: SelectorId) {
        let entry = &mut self.selectors[id.at()];
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        let Entry { selector, place, matching, .. } = self.selectors.remove(id.at());
        for item in matching.iter() {
            self.items[item.at()].matched.retain(|other| *other != id);
        }
        self.buckets.unfile(id, &place);
        self.by_selector.remove(&selector);
        for key in selector.keys() {
            self.keys.get_mut(key).expect("it was looked at").lookers.remove(&id);
        }
    }

    /// Forgets what carries labels at which no selector looks any more.
    pub(crate) fn forget_idle_keys(&mut self) {
        self.keys.retain(|_, key| !key.lookers.is_empty());
    }

    /// Returns what a selector matches.
    pub(crate) fn matching(&self, id: SelectorId) -> &Ids {
        &self.selectors[id.at()].matching
    }

    /// Sets the labels that a parent gives to its children, `None` when it is gone. Returns whose matches changed.
    pub(crate) fn set_parent(&mut self, name: &Name, labels: Option<&Labels>) -> Vec<Changed> {
        let mut labels: Labels = labels.cloned().unwrap_or_default();
        for key in NOT_INHERITED {
            labels.remove(key);
        }
        let parent = self.parent(name);
        let before = std::mem::replace(&mut parent.labels, labels);
        let after = parent.labels.clone();
        let children: Vec<ItemId> = parent.children.iter().collect();
        self.drop_parent_if_idle(name);
        for (gone, _) in before.iter().filter(|(key, _)| after.get(key).is_none()) {
            if let Some(key) = self.keys.get_mut(gone) {
                key.givers.remove(name);
            }
        }
        for (new, _) in after.iter().filter(|(key, _)| before.get(key).is_none()) {
            if let Some(key) = self.keys.get_mut(new) {
                key.givers.insert(name.clone());
            }
        }
        let differing = before.iter().filter(|(key, value)| after.get(key) != Some(value));
        let new = after.iter().filter(|(key, _)| before.get(key).is_none());
        let looking: BTreeSet<SelectorId> = differing
            .chain(new)
            .filter_map(|(key, _)| self.keys.get(key))
            .flat_map(|key| key.lookers.iter().copied())
            .collect();
        let mut changed = Vec::new();
        for item in children {
            for selector in &looking {
                let matches = self.is_matched(item, &self.selectors[selector.at()].selector);
                let matched = &mut self.items[item.at()].matched;
                match (matched.binary_search(selector), matches) {
                    (Ok(at), false) => {
                        matched.remove(at);
                        self.selectors[selector.at()].matching.remove(item);
                    }
                    (Err(at), true) => {
                        matched.insert(at, *selector);
                        self.selectors[selector.at()].matching.insert(item);
                    }
                    (Ok(_), true) | (Err(_), false) => continue,
                }
                changed.push(Changed { item, selector: *selector, matches });
            }
        }
        changed
    }

    /// Files something anew that is about to carry other labels, or to have other parents.
    fn refile(&mut self, id: ItemId, new: &Labelled) {
        let was = self.items[id.at()].labelled.clone();
        self.unfile(id, &was, Some(new));
        self.file(id, new, Some(&was));
        if was.parents() != new.parents() {
            self.leave(id, was.parents());
            for name in new.parents() {
                self.parent(name).children.insert(id);
            }
        }
    }

    /// Files something under the labels that selectors look at, but for those that it has been filed under.
    fn file(&mut self, id: ItemId, labelled: &Labelled, filed: Option<&Labelled>) {
        if self.keys.is_empty() {
            return;
        }
        for (key, value) in labelled.own() {
            if filed.and_then(|filed| filed.label(key)) != Some(value)
                && let Some(key) = self.keys.get_mut(key)
            {
                entry(&mut key.values, value).insert(id);
            }
        }
    }

    /// Takes something out from under the labels that it was filed under, but for those that it keeps.
    fn unfile(&mut self, id: ItemId, labelled: &Labelled, kept: Option<&Labelled>) {
        for (key, value) in labelled.own() {
            if kept.and_then(|kept| kept.label(key)) != Some(value)
                && let Some(key) = self.keys.get_mut(key)
                && let Some(carriers) = key.values.get_mut(value)
            {
                carriers.remove(id);
                if carriers.is_empty() {
                    key.values.remove(value);
                }
            }
        }
    }

    /// Makes sure that it is known what carries the labels that a selector looks at.
    fn look_at(&mut self, selector: &Selector) {
        let new: Vec<&str> =
            selector.keys().into_iter().filter(|word| !self.keys.contains_key(*word)).collect();
        if new.is_empty() {
            return;
        }
        let mut keys: Vec<Key> = new.iter().map(|_| Key::default()).collect();
        for (id, Item { labelled, .. }) in &self.items {
            for (word, key) in new.iter().zip(&mut keys) {
                if let Some(value) = labelled.label(word) {
                    entry(&mut key.values, value).insert(ItemId(place(id)));
                }
            }
        }
        for (word, mut key) in new.into_iter().zip(keys) {
            let givers = self.parents.iter().filter(|(_, parent)| parent.labels.get(word).is_some());
            key.givers = givers.map(|(name, _)| name.clone()).collect();
            self.keys.insert(word.into(), key);
        }
    }

    fn parent(&mut self, name: &Name) -> &mut Parent {
        if !self.parents.contains_key(name) {
            self.parents.insert(name.clone(), Parent::default());
        }
        self.parents.get_mut(name).expect("it was just made sure of")
    }

    fn leave(&mut self, id: ItemId, parents: &[Name]) {
        for name in parents {
            if let Some(parent) = self.parents.get_mut(name) {
                parent.children.remove(id);
            }
            self.drop_parent_if_idle(name);
        }
    }

    fn drop_parent_if_idle(&mut self, name: &Name) {
        if self.parents.get(name).is_some_and(|p| p.children.is_empty() && p.labels.is_empty()) {
            self.parents.remove(name);
        }
    }

    /// Returns the selectors that match something, sorted.
    fn find_selectors(&self, id: ItemId) -> Vec<SelectorId> {
        if self.selectors.is_empty() {
            return Vec::new();
        }
        let item = &self.items[id.at()];
        let parents = item.labelled.parents().iter().filter_map(|name| self.parents.get(name));
        let inherited = parents.flat_map(|parent| parent.labels.iter());
        let mut found = Vec::new();
        let labels = self.labels(id);
        self.buckets.candidates(item.labelled.own().into_iter().chain(inherited), |candidate| {
            if self.selectors[candidate.at()].selector.matches(&labels) {
                found.push(candidate);
            }
        });
        found.sort_unstable();
        found.dedup();
        found
    }

    fn labels(&self, id: ItemId) -> AllLabels<'_, P> {
        AllLabels { index: self, labelled: &self.items[id.at()].labelled }
    }
}

/// The labels of something indexed: its own, then its parents' in order.
struct AllLabels<'i, P> {
    index: &'i Index<P>,
    labelled: &'i Labelled,
}

impl<P> LabelSource for AllLabels<'_, P> {
    fn label(&self, key: &str) -> Option<&str> {
        let inherited = || {
            let parents = self.labelled.parents().iter().filter_map(|name| self.index.parents.get(name));
            parents.into_iter().find_map(|parent| parent.labels.get(key))
        };
        self.labelled.label(key).or_else(inherited)
    }
}

/// Slabs number from zero on, and hold fewer than fit into memory four bytes at a time.
fn place(key: usize) -> u32 {
    u32::try_from(key).expect("fewer than four billion")
}

fn entry<'m, V: Default>(map: &'m mut HashMap<Word, V>, key: &str) -> &'m mut V {
    if !map.contains_key(key) {
        map.insert(key.into(), V::default());
    }
    map.get_mut(key).expect("it was just made sure of")
}
