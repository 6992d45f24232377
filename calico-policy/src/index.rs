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
pub(crate) struct ItemId(u32);

/// Names a selector, as long as it is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SelectorId(u32);

/// Names a label with a value, as long as something carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LabelId(u32);

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
    labels: Slab<Label>,
    by_label: HashMap<Word, HashMap<Word, LabelId>>,
    parents: BTreeMap<Name, Parent>,
    selectors: Slab<Entry>,
    by_selector: HashMap<Selector, SelectorId>,
    /// The selectors that look at a label's key at all.
    looking_at: HashMap<Word, BTreeSet<SelectorId>>,
    buckets: Buckets,
}

/// A label with a value, and what carries it itself.
#[derive(Debug)]
struct Label {
    key: Word,
    value: Word,
    carriers: BTreeSet<ItemId>,
}

#[derive(Debug)]
struct Item<P> {
    own: Box<[LabelId]>,
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
    matching: BTreeSet<ItemId>,
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
            labels: Slab::new(),
            by_label: HashMap::new(),
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
                (id, Some(std::mem::replace(&mut self.items[id.at()].payload, payload)))
            }
            None => {
                let item = Item { own: [].into(), parents: [].into(), matched: Vec::new(), payload };
                let id = ItemId(place(self.items.insert(item)));
                self.by_key.insert(key.clone(), id);
                self.carry(id, carried);
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
        self.carry(id, &Carried { own: Vec::new(), parents: &[] });
        let matched = self.matches(id, Vec::new());
        let Item { payload, .. } = self.items.remove(id.at());
        Some(Former { matched, payload })
    }

    /// Makes something match these selectors, sorted, and no others; returns those it matched before.
    fn matches(&mut self, id: ItemId, matched: Vec<SelectorId>) -> Vec<SelectorId> {
        let before = std::mem::take(&mut self.items[id.at()].matched);
        for lost in before.iter().filter(|selector| matched.binary_search(selector).is_err()) {
            self.selectors[lost.at()].matching.remove(&id);
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
    pub(crate) fn matches_any(&self, selector: &Selector, of: &BTreeSet<ItemId>) -> bool {
        if of.len() <= FEW {
            return of.iter().any(|item| self.is_matched(*item, selector));
        }
        self.candidates(selector).iter().any(|item| of.contains(item) && self.is_matched(*item, selector))
    }

    /// Returns what inherits from a parent.
    pub(crate) fn children(&self, parent: &Name) -> Vec<ItemId> {
        self.parents.get(parent).map(|parent| parent.children.iter().copied().collect()).unwrap_or_default()
    }

    /// Adds a use of a selector. Its matches are found when it is new.
    pub(crate) fn use_selector(&mut self, selector: &Selector) -> SelectorId {
        if let Some(id) = self.by_selector.get(selector).copied() {
            self.selectors[id.at()].users += 1;
            return id;
        }
        let filed = self.buckets.place(selector);
        let mut matching = self.candidates(selector);
        matching.retain(|item| self.is_matched(*item, selector));
        let id = SelectorId(place(self.selectors.vacant_key()));
        for item in &matching {
            let matched = &mut self.items[item.at()].matched;
            let at = matched.partition_point(|other| *other < id);
            matched.insert(at, id);
        }
        self.buckets.file(id, &filed);
        self.selectors.insert(Entry {
            selector: selector.clone(),
            place: filed,
            users: 1,
            matching: matching.into_iter().collect(),
        });
        self.by_selector.insert(selector.clone(), id);
        for key in selector.keys() {
            entry(&mut self.looking_at, key).insert(id);
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
        for item in matching {
            self.items[item.at()].matched.retain(|other| *other != id);
        }
        self.buckets.unfile(id, &place);
        self.by_selector.remove(&selector);
        for key in selector.keys() {
            buckets::take_out(&mut self.looking_at, key, id);
        }
    }

    /// Returns what a selector matches.
    pub(crate) fn matching(&self, id: SelectorId) -> &BTreeSet<ItemId> {
        &self.selectors[id.at()].matching
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
                let matches = self.is_matched(item, &self.selectors[selector.at()].selector);
                let matched = &mut self.items[item.at()].matched;
                match (matched.binary_search(selector), matches) {
                    (Ok(at), false) => {
                        matched.remove(at);
                        self.selectors[selector.at()].matching.remove(&item);
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

    /// Makes something carry these labels and no others.
    fn carry(&mut self, id: ItemId, carried: &Carried<'_>) {
        let before = std::mem::take(&mut self.items[id.at()].own);
        let same = |index: &Self, key: &str, value: &str| {
            before.iter().copied().find(|label| {
                let label = index.label(*label);
                *label.key == *key && *label.value == *value
            })
        };
        let labels = carried.own.iter();
        let own: Box<[LabelId]> = labels
            .map(|(key, value)| same(self, key, value).unwrap_or_else(|| self.file(id, key, value)))
            .collect();
        for gone in before.iter().filter(|label| !own.contains(label)) {
            let label = &mut self.labels[gone.0 as usize];
            label.carriers.remove(&id);
            if label.carriers.is_empty() {
                let Label { key, value, .. } = self.labels.remove(gone.0 as usize);
                let values = self.by_label.get_mut(&key).expect("what is carried is filed");
                values.remove(&value);
                if values.is_empty() {
                    self.by_label.remove(&key);
                }
            }
        }
        self.items[id.at()].own = own;
        if *self.items[id.at()].parents != *carried.parents {
            let before = std::mem::replace(&mut self.items[id.at()].parents, carried.parents.into());
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

    /// Files something under a label.
    fn file(&mut self, id: ItemId, key: &str, value: &str) -> LabelId {
        let known = self.by_label.get(key).and_then(|values| values.get(value)).copied();
        let label = known.unwrap_or_else(|| {
            let filed = self.by_label.get_key_value(key).map(|(word, _)| word.clone());
            let (key, value) = (filed.unwrap_or_else(|| key.into()), Word::from(value));
            let new = Label { key: key.clone(), value: value.clone(), carriers: BTreeSet::new() };
            let label = LabelId(place(self.labels.insert(new)));
            self.by_label.entry(key).or_default().insert(value, label);
            label
        });
        self.labels[label.0 as usize].carriers.insert(id);
        label
    }

    fn label(&self, label: LabelId) -> &Label {
        &self.labels[label.0 as usize]
    }

    /// Returns the selectors that match something, sorted.
    fn find_selectors(&self, id: ItemId) -> Vec<SelectorId> {
        if self.selectors.is_empty() {
            return Vec::new();
        }
        let item = &self.items[id.at()];
        let own = item.own.iter().map(|label| self.label(*label));
        let own = own.map(|Label { key, value, .. }| (&**key, &**value));
        let parents = item.parents.iter().filter_map(|name| self.parents.get(name));
        let inherited = parents.flat_map(|parent| parent.labels.iter());
        let mut found = Vec::new();
        let labels = self.labels(id);
        self.buckets.candidates(own.chain(inherited), |candidate| {
            if self.selectors[candidate.at()].selector.matches(&labels) {
                found.push(candidate);
            }
        });
        found.sort_unstable();
        found.dedup();
        found
    }

    fn labels(&self, id: ItemId) -> ItemLabels<'_, P> {
        ItemLabels { index: self, item: &self.items[id.at()] }
    }

    /// Returns everything that a selector may match, sorted: the fewest that any of its restrictions leaves.
    fn candidates(&self, selector: &Selector) -> Vec<ItemId> {
        let Restrictions::Labels(restrictions) = selector.restrictions() else { return Vec::new() };
        let positive = |restriction: &Restriction<'_>| *restriction != Restriction::Absent;
        let fewest = restrictions
            .iter()
            .filter(|(_, restriction)| positive(restriction))
            .min_by_key(|(key, restriction)| self.having(key, restriction).map(BTreeSet::len).sum::<usize>());
        let Some((key, restriction)) = fewest else {
            return self.items.iter().map(|(id, _)| ItemId(place(id))).collect();
        };
        let mut candidates: Vec<ItemId> = self.having(key, restriction).flatten().copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// Walks what carries or inherits a label that meets a restriction.
    fn having<'i>(
        &'i self,
        key: &'i str,
        restriction: &'i Restriction<'i>,
    ) -> impl Iterator<Item = &'i BTreeSet<ItemId>> {
        let values = self.by_label.get(key);
        let of_value = move |value: &&str| values.and_then(|values| values.get(*value));
        let (named, any): (&[&str], _) = match restriction {
            Restriction::OneOf(values) => (values, None),
            Restriction::Present | Restriction::Absent => (&[], values),
        };
        let labels = named.iter().filter_map(of_value).chain(any.into_iter().flat_map(HashMap::values));
        let carriers = labels.map(|label| &self.label(*label).carriers);
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
        let own = self.item.own.iter().map(|label| self.index.label(*label));
        let own = own.filter(|label| *label.key == *key).map(|label| &*label.value).next();
        let inherited = || {
            let parents = self.item.parents.iter().filter_map(|name| self.index.parents.get(name));
            parents.into_iter().find_map(|parent| parent.labels.get(key))
        };
        own.or_else(inherited)
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
