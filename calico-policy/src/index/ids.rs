//! Sets of numbers: a list as long as they are few among all that there are, else a bit for each.

use super::ItemId;

/// Up to this many are a list, whatever the numbers.
const FEW: usize = 512;
const WORD: u32 = u64::BITS;

/// A set of items, walked in order. It takes about four bytes for each, and less where most there are are in it.
#[derive(Debug, Clone)]
pub(crate) enum Ids {
    /// Sorted.
    List(Vec<u32>),
    /// A bit for each number.
    Bits(Bits),
}

/// A bit for each number, and how many are set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
    count: usize,
}

impl Default for Ids {
    fn default() -> Self {
        Ids::List(Vec::new())
    }
}

impl Ids {
    pub(crate) fn len(&self) -> usize {
        match self {
            Ids::List(list) => list.len(),
            Ids::Bits(bits) => bits.count,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn insert(&mut self, ItemId(id): ItemId) {
        match self {
            Ids::Bits(bits) => bits.insert(id),
            Ids::List(list) => {
                if list.last().is_none_or(|last| *last < id) {
                    list.push(id);
                } else if let Err(at) = list.binary_search(&id) {
                    list.insert(at, id);
                }
                // A bit for each takes no more than the list then.
                if list.len() > FEW && list[list.len() - 1] / WORD < list.len() as u32 / 2 {
                    *self = Ids::Bits(list.drain(..).fold(Bits::default(), |mut bits, id| {
                        bits.insert(id);
                        bits
                    }));
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, ItemId(id): ItemId) {
        match self {
            Ids::Bits(bits) => {
                bits.remove(id);
                if bits.count < (bits.words.len() / 4).max(FEW / 2) {
                    *self = Ids::List(bits.iter().collect());
                }
            }
            Ids::List(list) => {
                if let Ok(at) = list.binary_search(&id) {
                    list.remove(at);
                }
            }
        }
    }

    pub(crate) fn contains(&self, ItemId(id): ItemId) -> bool {
        match self {
            Ids::List(list) => list.binary_search(&id).is_ok(),
            Ids::Bits(bits) => bits.contains(id),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = ItemId> + '_ {
        let (list, bits) = match self {
            Ids::List(list) => (Some(list), None),
            Ids::Bits(bits) => (None, Some(bits)),
        };
        let bits = bits.into_iter().flat_map(Bits::iter);
        list.into_iter().flatten().copied().chain(bits).map(ItemId)
    }

    /// Returns those that are as asked.
    pub(super) fn filter(&self, keep: impl Fn(ItemId) -> bool) -> Self {
        self.iter().filter(|id| keep(*id)).collect()
    }

    /// Returns those that are in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        match (self, other) {
            (Ids::Bits(own), Ids::Bits(others)) => own.joined(others, |own, other| own & other),
            _ if self.len() < other.len() => self.filter(|id| other.contains(id)),
            _ => other.filter(|id| self.contains(id)),
        }
    }

    /// Returns those that are not in the other.
    pub(super) fn without(&self, other: &Self) -> Self {
        match (self, other) {
            (Ids::Bits(own), Ids::Bits(others)) => own.joined(others, |own, other| own & !other),
            _ => self.filter(|id| !other.contains(id)),
        }
    }

    /// Returns those that are in either.
    pub(super) fn union(self, other: &Self) -> Self {
        match (self, other) {
            (Ids::Bits(own), Ids::Bits(others)) => own.joined(others, |own, other| own | other),
            (own, other) if own.is_empty() => other.clone(),
            (own, other) => {
                let (few, mut all) =
                    if own.len() < other.len() { (own, other.clone()) } else { (other.clone(), own) };
                few.iter().for_each(|id| all.insert(id));
                all
            }
        }
    }
}

impl FromIterator<ItemId> for Ids {
    fn from_iter<T: IntoIterator<Item = ItemId>>(ids: T) -> Self {
        let mut all = Self::default();
        ids.into_iter().for_each(|id| all.insert(id));
        all
    }
}

impl Bits {
    fn insert(&mut self, id: u32) {
        let (word, bit) = ((id / WORD) as usize, 1 << (id % WORD));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.count += usize::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    fn remove(&mut self, id: u32) {
        let bit = 1 << (id % WORD);
        if let Some(word) = self.words.get_mut((id / WORD) as usize) {
            self.count -= usize::from(*word & bit != 0);
            *word &= !bit;
        }
    }

    fn contains(&self, id: u32) -> bool {
        self.words.get((id / WORD) as usize).is_some_and(|word| word & 1 << (id % WORD) != 0)
    }

    /// Joins word with word; what one of them does not reach is zero there.
    fn joined(&self, other: &Bits, join: impl Fn(u64, u64) -> u64) -> Ids {
        let length = self.words.len().max(other.words.len());
        let word = |bits: &Bits, place: usize| bits.words.get(place).copied().unwrap_or_default();
        let words: Vec<u64> = (0..length).map(|place| join(word(self, place), word(other, place))).collect();
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        let joined = Bits { words, count };
        if count <= FEW || length > count / 2 {
            Ids::List(joined.iter().collect())
        } else {
            Ids::Bits(joined)
        }
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.words).flat_map(|(place, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(place * WORD + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn ids_behave_as_a_set(
            steps in proptest::collection::vec((0u32..3_000, 1u32..700, any::<bool>()), 1..12),
            far in proptest::option::of(0u32..400_000),
        ) {
            let (mut ids, mut set) = (Ids::default(), BTreeSet::new());
            let mut before = (Ids::default(), BTreeSet::new());
            for (first, count, is_new) in steps {
                for id in (first..first + count).chain(far) {
                    if is_new {
                        ids.insert(ItemId(id));
                        set.insert(id);
                    } else {
                        ids.remove(ItemId(id));
                        set.remove(&id);
                    }
                }
                let same = |ids: &Ids, set: BTreeSet<u32>| ids.iter().map(|ItemId(id)| id).eq(set);
                prop_assert!(same(&ids.intersection(&before.0), &set & &before.1));
                prop_assert!(same(&ids.without(&before.0), &set - &before.1));
                prop_assert!(same(&ids.clone().union(&before.0), &set | &before.1));
                prop_assert!(same(&ids.filter(|ItemId(id)| id % 3 == 0), set.iter().copied().filter(|id| id % 3 == 0).collect()));
                prop_assert!((0..4_000).all(|id| ids.contains(ItemId(id)) == set.contains(&id)));
                before = (ids.clone(), set.clone());
                prop_assert_eq!(ids.len(), set.len());
                prop_assert!(ids.iter().map(|ItemId(id)| id).eq(set.iter().copied()));
            }
        }
    }
}
