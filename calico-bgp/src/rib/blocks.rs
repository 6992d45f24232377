//! A sorted map in blocks: short sorted arrays, one after the other, and a sorted array of where each begins.
//!
//! It is there for its memory: a route in a table of a million takes 27 octets, and 36 in the standard library's B-tree,
//! which leaves a third of itself empty; a hash map takes 53, has no order, and doubles when it grows. Its price is time:
//! putting in a million prefixes in random order takes 1.5 times as long as into the B-tree, and finding them about as
//! long or half as long again (`cargo bench --bench tables`, medians of three on a busy machine). Prefixes do not come in
//! random order: the next one of a message is looked for behind the last, and changes are looked up in ascending order.

use std::cmp::Ordering;

/// The most entries of a block. With 96 an insertion took 2.1 times as long as a B-tree's, and a route 29 octets; with 192
/// 1.6 times, and as many octets.
const MOST: usize = 64;
/// A block grows by so many entries, so that little of it is empty.
const STEP: usize = 16;

/// A sorted map.
#[derive(Debug)]
pub(crate) struct Blocks<K, V> {
    /// The first key of each block, in order.
    firsts: Vec<K>,
    /// Where in `blocks` each block is, in the same order: one that is split moves numbers, not blocks.
    order: Vec<u32>,
    blocks: Vec<Block<K, V>>,
    /// The empty ones among `blocks`.
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Block<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

/// Where a key is, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    block: usize,
    at: usize,
}

impl<K, V> Default for Blocks<K, V> {
    fn default() -> Self {
        Self { firsts: Vec::new(), order: Vec::new(), blocks: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<K: Copy + Ord, V> Blocks<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Finds a key: `Ok` where it is, `Err` where it would be.
    pub(crate) fn find(&self, key: K) -> Result<Place, Place> {
        let block = self.firsts.partition_point(|first| *first <= key).saturating_sub(1);
        self.find_in(block, key)
    }

    /// Finds a key that is likely to be just behind a place, which may be one of long ago.
    pub(crate) fn find_near(&self, place: Place, key: K) -> Result<Place, Place> {
        let Place { block, at } = place;
        let begins = self.firsts.get(block).is_some_and(|first| *first <= key);
        if !begins || self.firsts.get(block + 1).is_some_and(|first| *first <= key) {
            return self.find(key);
        }
        let next = self.blocks[self.order[block] as usize].keys.get(at + 1);
        if next == Some(&key) { Ok(Place { block, at: at + 1 }) } else { self.find_in(block, key) }
    }

    /// Finds a key that is not before those of an earlier place: near it, the search is short.
    fn find_after(&self, earlier: Place, key: K) -> Result<Place, Place> {
        let mut low = earlier.block;
        let mut step = 1;
        while self.firsts.get(low + step).is_some_and(|first| *first <= key) {
            low += step;
            step *= 2;
        }
        let end = self.firsts.len().min(low + step);
        let beyond = self.firsts.get(low..end).unwrap_or_default().partition_point(|first| *first <= key);
        self.find_in(low + beyond.saturating_sub(1), key)
    }

    fn find_in(&self, block: usize, key: K) -> Result<Place, Place> {
        let found =
            self.order.get(block).map_or(Err(0), |at| self.blocks[*at as usize].keys.binary_search(&key));
        found.map(|at| Place { block, at }).map_err(|at| Place { block, at })
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        self.find(key).ok().map(|place| self.at(place))
    }

    /// Finds keys that come in ascending order.
    pub(crate) fn get_ascending<I>(
        &self,
        keys: impl Iterator<Item = (K, I)>,
    ) -> impl Iterator<Item = (K, I, Option<&V>)> {
        let mut last = Place { block: 0, at: 0 };
        keys.map(move |(key, item)| {
            let found = self.find_after(last, key);
            last = found.unwrap_or_else(|place| place);
            (key, item, found.ok().map(|place| self.at(place)))
        })
    }

    fn block(&mut self, number: usize) -> &mut Block<K, V> {
        &mut self.blocks[self.order[number] as usize]
    }

    /// Returns the value at a place where [`Blocks::find`] found a key.
    pub(crate) fn at(&self, place: Place) -> &V {
        &self.blocks[self.order[place.block] as usize].values[place.at]
    }

    pub(crate) fn at_mut(&mut self, place: Place) -> &mut V {
        &mut self.block(place.block).values[place.at]
    }

    /// Puts a key where [`Blocks::find`] did not find it.
    pub(crate) fn insert(&mut self, place: Place, key: K, value: V) {
        self.len += 1;
        if place.block == self.order.len() {
            return self.add_block(place.block, Block { keys: vec![key], values: vec![value] });
        }
        // Keys that come in ascending order leave full blocks behind.
        let last = place.block + 1 == self.order.len() && place.at == MOST;
        let middle = if last { MOST } else { MOST / 2 };
        let block = self.block(place.block);
        let upper = if block.keys.len() < MOST {
            block.insert(place.at, key, value);
            None
        } else {
            let mut upper =
                Block { keys: block.keys.split_off(middle), values: block.values.split_off(middle) };
            match place.at.cmp(&middle) {
                Ordering::Less => block.insert(place.at, key, value),
                Ordering::Equal | Ordering::Greater => upper.insert(place.at - middle, key, value),
            }
            block.shrink();
            Some(upper)
        };
        self.firsts[place.block] = self.block(place.block).keys[0];
        if let Some(upper) = upper {
            self.add_block(place.block + 1, upper);
        }
    }

    /// Puts a block that is not empty before the one with a number.
    fn add_block(&mut self, number: usize, block: Block<K, V>) {
        self.firsts.insert(number, block.keys[0]);
        let at = match self.free.pop() {
            Some(at) => {
                self.blocks[at as usize] = block;
                at
            }
            None => {
                self.blocks.push(block);
                self.blocks.len() as u32 - 1
            }
        };
        self.order.insert(number, at);
    }

    /// Takes out the block with a number.
    fn remove_block(&mut self, number: usize) -> Block<K, V> {
        self.firsts.remove(number);
        let at = self.order.remove(number);
        self.free.push(at);
        let empty = Block { keys: Vec::new(), values: Vec::new() };
        std::mem::replace(&mut self.blocks[at as usize], empty)
    }

    /// Takes out what is at a place where [`Blocks::find`] found a key.
    pub(crate) fn remove(&mut self, place: Place) -> V {
        self.len -= 1;
        let block = self.block(place.block);
        block.keys.remove(place.at);
        let value = block.values.remove(place.at);
        let len = block.keys.len();
        let Some(first) = block.keys.first().copied() else {
            self.remove_block(place.block);
            return value;
        };
        self.firsts[place.block] = first;
        let next = self.order.get(place.block + 1).map(|at| self.blocks[*at as usize].keys.len());
        if next.is_some_and(|next| next + len <= MOST / 2) {
            let mut next = self.remove_block(place.block + 1);
            let block = self.block(place.block);
            block.keys.append(&mut next.keys);
            block.values.append(&mut next.values);
        }
        value
    }

    /// Returns everything, in the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let blocks = self.order.iter().map(|at| &self.blocks[*at as usize]);
        blocks.flat_map(|block| block.keys.iter().copied().zip(&block.values))
    }

    /// Returns everything behind a key, or all without one, in the order of the keys.
    pub(crate) fn iter_after(&self, key: Option<K>) -> impl Iterator<Item = (K, &V)> {
        let first = key.map_or(Place { block: 0, at: 0 }, |key| match self.find(key) {
            Ok(Place { block, at }) => Place { block, at: at + 1 },
            Err(place) => place,
        });
        let blocks = self.order.iter().skip(first.block).map(|at| &self.blocks[*at as usize]);
        let from = std::iter::once(first.at).chain(std::iter::repeat(0));
        blocks
            .zip(from)
            .flat_map(|(block, from)| block.keys[from..].iter().copied().zip(&block.values[from..]))
    }

    /// Returns all values to change them, in no order.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.blocks.iter_mut().flat_map(|block| &mut block.values)
    }
}

impl<K, V> Block<K, V> {
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
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    impl<K: Copy + Ord, V> Blocks<K, V> {
        fn check(&self) {
            assert_eq!(self.firsts.len(), self.order.len());
            let used: BTreeSet<u32> = self.order.iter().chain(&self.free).copied().collect();
            assert_eq!(
                (used.len(), self.order.len() + self.free.len()),
                (self.blocks.len(), self.blocks.len())
            );
            assert_eq!(self.len, self.blocks.iter().map(|block| block.keys.len()).sum::<usize>());
            for (first, at) in self.firsts.iter().zip(&self.order) {
                let block = &self.blocks[*at as usize];
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
            let (mut blocks, mut near) = (Blocks::default(), Place::default());
            let grow = (0..ascending).map(|key| (true, key));
            for (number, (keep, key)) in grow.chain(changes).enumerate() {
                prop_assert_eq!(blocks.find_near(near, key), blocks.find(key));
                near = blocks.find(key).unwrap_or_else(|place| place);
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
            let after = map.range(ascending + 1..).map(|(key, value)| (*key, value));
            prop_assert!(blocks.iter_after(Some(ascending)).eq(after));
            prop_assert!(blocks.iter_after(None).eq(blocks.iter()));
            let asked = (0..1600u16).step_by(usize::from(1 + ascending % 7)).map(|key| (key, ()));
            for (key, (), found) in blocks.get_ascending(asked) {
                prop_assert_eq!(found, map.get(&key));
            }
        }
    }
}
