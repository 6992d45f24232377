//! A sorted map in blocks: short sorted arrays, one after the other, and a sorted array of where each begins.
//!
//! Against a map of a million random keys, a search touches the short list of beginnings, which stays in the cache,
//! and one block. A B-tree of the standard library's node size touches a node on each of six levels and leaves a third
//! of its memory empty; a hash map has no order, and doubles what it takes when it grows. `cargo bench --bench tables`
//! measures all three.

use std::cmp::Ordering;

/// The most entries of a block: what an insertion moves is a few cache lines.
const MOST: usize = 96;
/// A block grows by so many entries, so that little of it is empty.
const STEP: usize = 16;

/// A sorted map.
#[derive(Debug)]
pub(crate) struct Blocks<K, V> {
    /// The first key of each block.
    firsts: Vec<K>,
    blocks: Vec<Block<K, V>>,
    len: usize,
}

#[derive(Debug)]
struct Block<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

/// Where a key is, or would be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    block: usize,
    at: usize,
}

impl<K, V> Default for Blocks<K, V> {
    fn default() -> Self {
        Self { firsts: Vec::new(), blocks: Vec::new(), len: 0 }
    }
}

impl<K: Copy + Ord, V> Blocks<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Finds a key: `Ok` where it is, `Err` where it would be.
    pub(crate) fn find(&self, key: K) -> Result<Place, Place> {
        let block = self.firsts.partition_point(|first| *first <= key).saturating_sub(1);
        let found = self.blocks.get(block).map_or(Err(0), |block| block.keys.binary_search(&key));
        found.map(|at| Place { block, at }).map_err(|at| Place { block, at })
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        self.find(key).ok().map(|place| self.at(place))
    }

    /// Returns the value at a place where [`Blocks::find`] found a key.
    pub(crate) fn at(&self, place: Place) -> &V {
        &self.blocks[place.block].values[place.at]
    }

    pub(crate) fn at_mut(&mut self, place: Place) -> &mut V {
        &mut self.blocks[place.block].values[place.at]
    }

    /// Puts a key where [`Blocks::find`] did not find it.
    pub(crate) fn insert(&mut self, place: Place, key: K, value: V) {
        self.len += 1;
        let Some(block) = self.blocks.get_mut(place.block) else {
            self.firsts.push(key);
            self.blocks.push(Block::of(vec![key], vec![value]));
            return;
        };
        if block.keys.len() < MOST {
            block.insert(place.at, key, value);
            self.firsts[place.block] = block.keys[0];
            return;
        }
        // Keys that come in ascending order leave full blocks behind.
        let last = place.block + 1 == self.blocks.len() && place.at == MOST;
        let middle = if last { MOST } else { MOST / 2 };
        let block = &mut self.blocks[place.block];
        let mut upper = Block::of(block.keys.split_off(middle), block.values.split_off(middle));
        match place.at.cmp(&middle) {
            Ordering::Less => block.insert(place.at, key, value),
            Ordering::Equal | Ordering::Greater => upper.insert(place.at - middle, key, value),
        }
        block.shrink();
        self.firsts[place.block] = block.keys[0];
        self.firsts.insert(place.block + 1, upper.keys[0]);
        self.blocks.insert(place.block + 1, upper);
    }

    /// Takes out what is at a place where [`Blocks::find`] found a key.
    pub(crate) fn remove(&mut self, place: Place) -> V {
        self.len -= 1;
        let block = &mut self.blocks[place.block];
        block.keys.remove(place.at);
        let value = block.values.remove(place.at);
        let Some(first) = block.keys.first() else {
            self.blocks.remove(place.block);
            self.firsts.remove(place.block);
            return value;
        };
        self.firsts[place.block] = *first;
        let fits = |next: &Block<K, V>| next.keys.len() + self.blocks[place.block].keys.len() <= MOST / 2;
        if self.blocks.get(place.block + 1).is_some_and(fits) {
            let mut next = self.blocks.remove(place.block + 1);
            self.firsts.remove(place.block + 1);
            let block = &mut self.blocks[place.block];
            block.keys.append(&mut next.keys);
            block.values.append(&mut next.values);
        }
        value
    }

    /// Returns everything, in the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.blocks.iter().flat_map(|block| block.keys.iter().copied().zip(&block.values))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.blocks.iter_mut().flat_map(|block| &mut block.values)
    }
}

impl<K, V> Block<K, V> {
    fn of(keys: Vec<K>, values: Vec<V>) -> Self {
        Self { keys, values }
    }

    fn insert(&mut self, at: usize, key: K, value: V) {
        if self.keys.len() == self.keys.capacity() {
            self.keys.reserve_exact(STEP);
            self.values.reserve_exact(STEP);
        }
        self.keys.insert(at, key);
        self.values.insert(at, value);
    }

    fn shrink(&mut self) {
        let enough = self.keys.len() + STEP;
        self.keys.shrink_to(enough);
        self.values.shrink_to(enough);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl<K: Copy + Ord, V> Blocks<K, V> {
        fn check(&self) {
            assert_eq!(self.firsts.len(), self.blocks.len());
            assert_eq!(self.len, self.blocks.iter().map(|block| block.keys.len()).sum::<usize>());
            for (first, block) in self.firsts.iter().zip(&self.blocks) {
                assert!(block.keys.first() == Some(first));
                assert_eq!(block.keys.len(), block.values.len());
                assert!(block.keys.len() <= MOST);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn it_is_the_standard_library_s_map(
            changes in proptest::collection::vec((any::<bool>(), 0..1500u16), 0..4000),
            ascending in 0..500u16,
        ) {
            let mut map = BTreeMap::new();
            let mut blocks = Blocks::default();
            let grow = (0..ascending).map(|key| (true, key));
            for (number, (keep, key)) in grow.chain(changes).enumerate() {
                match (blocks.find(key), keep) {
                    (Ok(place), true) => {
                        *blocks.at_mut(place) = number;
                        prop_assert!(map.insert(key, number).is_some());
                    }
                    (Err(place), true) => {
                        blocks.insert(place, key, number);
                        prop_assert!(map.insert(key, number).is_none());
                    }
                    (Ok(place), false) => prop_assert_eq!(Some(blocks.remove(place)), map.remove(&key)),
                    (Err(_), false) => prop_assert!(map.remove(&key).is_none()),
                }
                prop_assert_eq!(blocks.get(key), map.get(&key));
            }
            blocks.check();
            prop_assert!(blocks.iter().eq(map.iter().map(|(key, value)| (*key, value))));
            prop_assert_eq!(blocks.len(), map.len());
        }
    }
}
