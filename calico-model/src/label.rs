//! Labels: what selectors look at.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Up to this many labels are searched in order: comparing lengths first beats halving.
const LINEAR: usize = 16;

/// A set of labels, sorted by key.
///
/// Keys and values are any text here; which shapes a resource may carry is checked when the resource is read.
///
/// Sets are many, small and seldom changed, so a set is two allocations whatever its size, clones share them, and a
/// change makes them anew.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Each key and its value, one after the other.
    text: Arc<str>,
    /// Where in the text each key and each value ends, by turns.
    ends: Arc<[u32]>,
}

impl Labels {
    /// Makes an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the value of `key`, when the label is present.
    #[must_use]
    #[inline]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = if self.len() <= LINEAR { self.search(key)? } else { self.position(key).ok()? };
        Some(self.part(2 * at + 1))
    }

    /// Sets a label and returns the value it had.
    pub fn insert(&mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Option<Box<str>> {
        let pair = (key.as_ref(), value.as_ref());
        let mut pairs: Vec<_> = self.iter().collect();
        let old = match self.position(pair.0) {
            Ok(at) => Some(std::mem::replace(&mut pairs[at], pair).1.into()),
            Err(at) => {
                pairs.insert(at, pair);
                None
            }
        };
        *self = Self::of_sorted(&pairs);
        old
    }

    /// Removes a label and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<Box<str>> {
        let at = self.position(key).ok()?;
        let mut pairs: Vec<_> = self.iter().collect();
        let old = pairs.remove(at).1.into();
        *self = Self::of_sorted(&pairs);
        Some(old)
    }

    /// Returns how many labels there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Reports whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Walks the labels in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        (0..self.len()).map(|at| (self.part(2 * at), self.part(2 * at + 1)))
    }

    /// Reports whether another clone of this set exists.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.text) > 1
    }

    fn of_sorted(pairs: &[(&str, &str)]) -> Self {
        let parts = || pairs.iter().flat_map(|(key, value)| [*key, *value]);
        let mut end = 0;
        let ends = parts().map(|part| {
            end += u32::try_from(part.len()).expect("labels are far below 4 GiB");
            end
        });
        Self { ends: ends.collect(), text: parts().collect::<String>().into() }
    }

    /// Returns a key, when the index is even, or a value.
    #[inline]
    fn part(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[index] as usize]
    }

    /// Finds a key by comparing it with one after the other.
    #[inline]
    fn search(&self, key: &str) -> Option<usize> {
        let mut start = 0;
        self.ends.chunks_exact(2).position(|ends| {
            let candidate = &self.text.as_bytes()[start as usize..ends[0] as usize];
            start = ends[1];
            candidate == key.as_bytes()
        })
    }

    /// Finds where `key` is, or where it belongs, by halving.
    fn position(&self, key: &str) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.part(2 * middle).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    /// Of a key that comes twice, the last value stays.
    fn from_iter<T: IntoIterator<Item = (K, V)>>(iter: T) -> Self {
        let given: Vec<(K, V)> = iter.into_iter().collect();
        let mut pairs: Vec<(&str, &str)> =
            given.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
        pairs.sort_by_key(|(key, _)| *key);
        pairs.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = later.1;
            }
            same
        });
        Self::of_sorted(&pairs)
    }
}

impl<K: AsRef<str>, V: AsRef<str>, const N: usize> From<[(K, V); N]> for Labels {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn labels_behave_as_a_map(
            first in vec(("[a-e]{1,2}", "[xy]?"), 0..30),
            then in vec(("[a-e]{1,2}", proptest::option::of("[xy]?")), 0..30),
        ) {
            let mut labels: Labels = first.clone().into_iter().collect();
            let mut map: BTreeMap<String, String> = first.into_iter().collect();
            for (key, value) in then {
                let (old, expected) = match value {
                    Some(value) => (labels.insert(key.as_str(), value.as_str()), map.insert(key, value)),
                    None => (labels.remove(&key), map.remove(&key)),
                };
                prop_assert_eq!(old.as_deref(), expected.as_deref());
            }
            prop_assert_eq!(labels.len(), map.len());
            prop_assert!(labels.iter().eq(map.iter().map(|(k, v)| (k.as_str(), v.as_str()))));
            for key in ["a", "aa", "b", "cd", "ee", "zz", ""] {
                prop_assert_eq!(labels.get(key), map.get(key).map(String::as_str));
            }
        }
    }
}
