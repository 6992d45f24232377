//! Selectors filed by a label that whatever they match must have.

use std::collections::{BTreeSet, HashMap};

use calico_model::Selector;
use calico_model::selector::{Restriction, Restrictions};

use super::{SelectorId, Word, entry};

/// Where a selector is filed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Under a key and each of some values, one of which it needs.
    Values(Word, Vec<Word>),
    /// Under a key that must be present.
    Key(Word),
    /// Among those that may match whatever the labels.
    Rest,
    /// Nowhere: it matches nothing.
    Nowhere,
}

#[derive(Debug, Default)]
pub(super) struct Buckets {
    values: HashMap<Word, HashMap<Word, BTreeSet<SelectorId>>>,
    keys: HashMap<Word, BTreeSet<SelectorId>>,
    rest: BTreeSet<SelectorId>,
}

impl Buckets {
    /// Chooses the place with the fewest others: what many selectors need tells them apart least.
    pub(super) fn place(&self, selector: &Selector) -> Place {
        let Restrictions::Labels(restrictions) = selector.restrictions() else { return Place::Nowhere };
        let values = restrictions.iter().filter_map(|(key, restriction)| match restriction {
            Restriction::OneOf(values) => Some((*key, values)),
            Restriction::Present | Restriction::Absent => None,
        });
        let filed = |key: &str, value: &str| {
            self.values.get(key).and_then(|values| values.get(value)).map_or(0, BTreeSet::len)
        };
        let most = |key: &str, values: &[&str]| values.iter().map(|value| filed(key, value)).max();
        if let Some((key, values)) = values.min_by_key(|(key, values)| (most(key, values), values.len())) {
            return Place::Values(key.into(), values.iter().map(|value| (*value).into()).collect());
        }
        let present = restrictions.iter().filter(|(_, restriction)| **restriction == Restriction::Present);
        let key = present.map(|(key, _)| *key).min_by_key(|key| self.keys.get(*key).map_or(0, BTreeSet::len));
        key.map_or(Place::Rest, |key| Place::Key(key.into()))
    }

    pub(super) fn file(&mut self, id: SelectorId, place: &Place) {
        match place {
            Place::Values(key, values) => {
                let by_value = entry(&mut self.values, key);
                for value in values {
                    entry(by_value, value).insert(id);
                }
            }
            Place::Key(key) => {
                entry(&mut self.keys, key).insert(id);
            }
            Place::Rest => {
                self.rest.insert(id);
            }
            Place::Nowhere => {}
        }
    }

    pub(super) fn unfile(&mut self, id: SelectorId, place: &Place) {
        match place {
            Place::Values(key, values) => {
                let Some(by_value) = self.values.get_mut(key) else { return };
                for value in values {
                    take_out(by_value, value, id);
                }
                if by_value.is_empty() {
                    self.values.remove(key);
                }
            }
            Place::Key(key) => take_out(&mut self.keys, key, id),
            Place::Rest => {
                self.rest.remove(&id);
            }
            Place::Nowhere => {}
        }
    }

    /// Walks the selectors that may match something with these labels; one may come twice.
    pub(super) fn candidates<'l>(
        &self,
        labels: impl Iterator<Item = (&'l str, &'l str)>,
        mut found: impl FnMut(SelectorId),
    ) {
        for (key, value) in labels {
            let valued = self.values.get(key).and_then(|values| values.get(value));
            valued.into_iter().chain(self.keys.get(key)).flatten().copied().for_each(&mut found);
        }
        self.rest.iter().copied().for_each(found);
    }
}

pub(super) fn take_out(map: &mut HashMap<Word, BTreeSet<SelectorId>>, key: &str, id: SelectorId) {
    let Some(filed) = map.get_mut(key) else { return };
    filed.remove(&id);
    if filed.is_empty() {
        map.remove(key);
    }
}
