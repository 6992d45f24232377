//! Which selectors match which labelled things, kept right while both come and go.
//!
//! Two questions are asked all the time: what does a new selector match, and which selectors match what has just changed. Each
//! is pruned by labels. A selector's [restrictions](Selector::restrictions) say which labels something must carry for a match to
//! be possible: things are filed by the labels they carry, selectors by the label that the fewest others need, and only what is
//! filed under the same label is tried.
//!
//! Labels that are inherited are kept once, with the parent (a profile), which knows its children. A change of a parent's labels
//! asks only the selectors that look at the labels that changed.

mod buckets;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use calico_model::resource::ResourceKey;
use calico_model::selector::{Restriction, Restrictions};
use calico_model::{LabelSource, Labels, Name, Selector};
use slab::Slab;

use crate::labels::NOT_INHERITED;
use buckets::{Buckets, Place};

/// A label's key or value. Equal ones share their text.
type Word = Arc<str>;

/// Names something that is indexed, as long as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ItemId(usize);

/// Names a selector, as long as it is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SelectorId(usize);

/// What something carries: its own labels and the names of those it inherits from, in order.
#[derive(Debug, Clone)]
pub(crate) struct Carried<'l> {
    pub(crate) own: Vec<(&'l str, &'l str)>,
    pub(crate) parents: &'l [Name],
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
    /// What carries a label itself: by key, then by value.
    carriers: HashMap<Word, BTreeMap<Word, BTreeSet<ItemId>>>,
    parents: BTreeMap<Name, Parent>,
    selectors: Slab<Entry>,
    by_selector: HashMap<Selector, SelectorId>,
    /// The selectors that look at a label's key at all.
    looking_at: HashMap<Word, BTreeSet<SelectorId>>,
    buckets: Buckets,
}

#[derive(Debug)]
struct Item<P> {
    own: Box<[(Word, Word)]>,
    parents: Box<[Name]>,
    /// The selectors that match, sorted.
    matched: Vec<SelectorId>,
    payload: P,
}

#[derive(Debug, Default)]
struct Parent {
    labels: Labels,
    children: BTreeSet<ItemId>,
}

#[derive(Debug)]
struct Entry {
    selector: Selector,
    place: Place,
    users: usize,
}

/// Something that was replaced or removed.
#[derive(Debug)]
pub(crate) struct Former<P> {
    /// The selectors that matched it, sorted.
    pub(crate) matched: Vec<SelectorId>,
    pub(crate) payload: P,
}

impl<P> Default for Index<P> {
    fn default() -> Self {
        Self {
            items: Slab::new(),
            by_key: HashMap::new(),
            carriers: HashMap::new(),
            parents: BTreeMap::new(),
            selectors: Slab::new(),
            by_selector: HashMap::new(),
            looking_at: HashMap::new(),
            buckets: Buckets::default(),
        }
    }
}

impl<P> Index<P> {
    /// Adds something, or replaces what had its key. Returns what it was.
    pub(crate) fn put(
        &mut self,
        key: &ResourceKey,
        carried: &Carried<'_>,
        payload: P,
    ) -> (ItemId, Option<Former<P>>) {
        let (id, former) = match self.by_key.get(key).copied() {
            Some(id) => {
                self.carry(id, carried);
                let item = &mut self.items[id.0];
                let matched = std::mem::take(&mut item.matched);
                (id, Some(Former { matched, payload: std::mem::replace(&mut item.payload, payload) }))
            }
            None => {
                let item = Item { own: [].into(), parents: [].into(), matched: Vec::new(), payload };
                let id = ItemId(self.items.insert(item));
                self.by_key.insert(key.clone(), id);
                self.carry(id, carried);
                (id, None)
            }
        };
        let matched = self.find_selectors(id);
        self.items[id.0].matched = matched;
        (id, former)
    }

    /// Removes something; `None` when nothing has the key.
    pub(crate) fn remove(&mut self, key: &ResourceKey) -> Option<Former<P>> {
        let id = self.by_key.remove(key)?;
        self.carry(id, &Carried { own: Vec::new(), parents: &[] });
        let Item { matched, payload, .. } = self.items.remove(id.0);
        Some(Former { matched, payload })
    }

    pub(crate) fn id(&self, key: &ResourceKey) -> Option<ItemId> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn payload(&self, item: ItemId) -> &P {
        &self.items[item.0].payload
    }

    /// Returns the selectors that match something, sorted.
    pub(crate) fn matched(&self, item: ItemId) -> &[SelectorId] {
        &self.items[item.0].matched
    }

    /// Returns what inherits from a parent.
    pub(crate) fn children(&self, parent: &Name) -> Vec<ItemId> {
        self.parents.get(parent).map(|parent| parent.children.iter().copied().collect()).unwrap_or_default()
    }

    /// Adds a use of a selector. Its matches are found when it is new.
    pub(crate) fn use_selector(&mut self, selector: &Selector) -> SelectorId {
        if let Some(id) = self.by_selector.get(selector).copied() {
            self.selectors[id.0].users += 1;
            return id;
        }
        let place = self.buckets.place(selector);
        let id = SelectorId(self.selectors.insert(Entry {
            selector: selector.clone(),
            place: place.clone(),
            users: 1,
        }));
        self.buckets.file(id, &place);
        self.by_selector.insert(selector.clone(), id);
        for key in selector.keys() {
            entry(&mut self.looking_at, key).insert(id);
        }
        for item in self.candidates(selector) {
            if selector.matches(&self.labels(item)) {
                let matched = &mut self.items[item.0].matched;
                let at = matched.partition_point(|other| *other < id);
                matched.insert(at, id);
            }
        }
        id
    }

    /// Takes back a use of a selector, which is forgotten with its last.
    pub(crate) fn release_selector(&mut self, id: SelectorId) {
        let entry = &mut self.selectors[id.0];
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        for item in self.matching(id) {
            self.items[item.0].matched.retain(|other| *other != id);
        }
        let Entry { selector, place, .. } = self.selectors.remove(id.0);
        self.buckets.unfile(id, &place);
        self.by_selector.remove(&selector);
        for key in selector.keys() {
            buckets::take_out(&mut self.looking_at, key, id);
        }
    }

    /// Returns what a selector matches, sorted.
    pub(crate) fn matching(&self, id: SelectorId) -> Vec<ItemId> {
        let matches = |item: &ItemId| self.items[item.0].matched.binary_search(&id).is_ok();
        self.candidates(&self.selectors[id.0].selector).into_iter().filter(matches).collect()
    }

    /// Sets the labels that a parent gives to its children, `None` when it is gone. Returns whose matches changed.
    pub(crate) fn set_parent(&mut self, name: &Name, labels: Option<&Labels>) -> Vec<Changed> {
        let mut labels: Labels = labels.cloned().unwrap_or_default();
        for key in NOT_INHERITED {
            labels.remove(key);
        }
        let parent = self.parents.entry(name.clone()).or_default();
        let before = std::mem::replace(&mut parent.labels, labels);
        let after = parent.labels.clone();
        let children: Vec<ItemId> = parent.children.iter().copied().collect();
        self.drop_parent_if_idle(name);
        let differing = before.iter().filter(|(key, value)| after.get(key) != Some(value));
        let new = after.iter().filter(|(key, _)| before.get(key).is_none());
        let looking: BTreeSet<SelectorId> = differing
            .chain(new)
            .filter_map(|(key, _)| self.looking_at.get(key))
            .flat_map(|looking| looking.iter().copied())
            .collect();
        let mut changed = Vec::new();
        for item in children {
            for selector in &looking {
                let matches = self.selectors[selector.0].selector.matches(&self.labels(item));
                let matched = &mut self.items[item.0].matched;
                match (matched.binary_search(selector), matches) {
                    (Ok(at), false) => {
                        matched.remove(at);
                    }
                    (Err(at), true) => matched.insert(at, *selector),
                    (Ok(_), true) | (Err(_), false) => continue,
                }
                changed.push(Changed { item, selector: *selector, matches });
            }
        }
        changed
    }

    /// Makes something carry these labels and no others.
    fn carry(&mut self, id: ItemId, carried: &Carried<'_>) {
        let own: Box<[(Word, Word)]> =
            carried.own.iter().map(|(key, value)| (self.word(key), self.value(key, value))).collect();
        let before = std::mem::replace(&mut self.items[id.0].own, own.clone());
        for (key, value) in before.iter().filter(|label| !own.contains(label)) {
            let values = self.carriers.get_mut(key).expect("what was carried is filed");
            let carriers = values.get_mut(value).expect("what was carried is filed");
            carriers.remove(&id);
            if carriers.is_empty() {
                values.remove(value);
            }
            if values.is_empty() {
                self.carriers.remove(key);
            }
        }
        for (key, value) in own.iter().filter(|label| !before.contains(label)) {
            self.carriers.entry(key.clone()).or_default().entry(value.clone()).or_default().insert(id);
        }
        if *self.items[id.0].parents != *carried.parents {
            let before = std::mem::replace(&mut self.items[id.0].parents, carried.parents.into());
            for name in &before {
                if let Some(parent) = self.parents.get_mut(name) {
                    parent.children.remove(&id);
                }
                self.drop_parent_if_idle(name);
            }
            for name in carried.parents {
                self.parents.entry(name.clone()).or_default().children.insert(id);
            }
        }
    }

    fn drop_parent_if_idle(&mut self, name: &Name) {
        if self.parents.get(name).is_some_and(|p| p.children.is_empty() && p.labels.is_empty()) {
            self.parents.remove(name);
        }
    }

    fn word(&self, key: &str) -> Word {
        self.carriers.get_key_value(key).map_or_else(|| key.into(), |(word, _)| word.clone())
    }

    fn value(&self, key: &str, value: &str) -> Word {
        let values = self.carriers.get(key);
        let shared = values.and_then(|values| values.get_key_value(value)).map(|(word, _)| word.clone());
        shared.unwrap_or_else(|| value.into())
    }

    /// Returns the selectors that match something, sorted.
    fn find_selectors(&self, id: ItemId) -> Vec<SelectorId> {
        let item = &self.items[id.0];
        let own = item.own.iter().map(|(key, value)| (&**key, &**value));
        let parents = item.parents.iter().filter_map(|name| self.parents.get(name));
        let inherited = parents.flat_map(|parent| parent.labels.iter());
        let mut found = Vec::new();
        let labels = self.labels(id);
        self.buckets.candidates(own.chain(inherited), |candidate| {
            if self.selectors[candidate.0].selector.matches(&labels) {
                found.push(candidate);
            }
        });
        found.sort_unstable();
        found.dedup();
        found
    }

    fn labels(&self, id: ItemId) -> ItemLabels<'_, P> {
        ItemLabels { index: self, item: &self.items[id.0] }
    }

    /// Returns everything that a selector may match: the fewest that any of its restrictions leaves.
    fn candidates(&self, selector: &Selector) -> BTreeSet<ItemId> {
        let Restrictions::Labels(restrictions) = selector.restrictions() else { return BTreeSet::new() };
        let positive = |restriction: &Restriction<'_>| *restriction != Restriction::Absent;
        let fewest = restrictions
            .iter()
            .filter(|(_, restriction)| positive(restriction))
            .min_by_key(|(key, restriction)| self.having(key, restriction).map(BTreeSet::len).sum::<usize>());
        match fewest {
            Some((key, restriction)) => self.having(key, restriction).flatten().copied().collect(),
            None => self.items.iter().map(|(id, _)| ItemId(id)).collect(),
        }
    }

    /// Walks what carries or inherits a label that meets a restriction.
    fn having<'i>(
        &'i self,
        key: &'i str,
        restriction: &'i Restriction<'i>,
    ) -> impl Iterator<Item = &'i BTreeSet<ItemId>> {
        let values = self.carriers.get(key);
        let of_value = move |value: &&str| values.and_then(|values| values.get(*value));
        let (named, any): (&[&str], _) = match restriction {
            Restriction::OneOf(values) => (values, None),
            Restriction::Present | Restriction::Absent => (&[], values),
        };
        let carriers = named.iter().filter_map(of_value).chain(any.into_iter().flat_map(BTreeMap::values));
        let parents = self.parents.values().filter(move |parent| {
            parent.labels.get(key).is_some_and(|value| restriction.allows(Some(value)))
        });
        carriers.chain(parents.map(|parent| &parent.children))
    }
}

/// The labels of something indexed: its own, then its parents' in order.
struct ItemLabels<'i, P> {
    index: &'i Index<P>,
    item: &'i Item<P>,
}

impl<P> LabelSource for ItemLabels<'_, P> {
    fn label(&self, key: &str) -> Option<&str> {
        let own = self.item.own.iter().find(|(own, _)| **own == *key).map(|(_, value)| &**value);
        let inherited = || {
            let parents = self.item.parents.iter().filter_map(|name| self.index.parents.get(name));
            parents.into_iter().find_map(|parent| parent.labels.get(key))
        };
        own.or_else(inherited)
    }
}

fn entry<'m, V: Default>(map: &'m mut HashMap<Word, V>, key: &str) -> &'m mut V {
    if !map.contains_key(key) {
        map.insert(key.into(), V::default());
    }
    map.get_mut(key).expect("it was just made sure of")
}
