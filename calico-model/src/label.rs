//! Labels: what selectors look at.

/// Up to this many labels are searched in order: comparing lengths first beats halving.
const LINEAR: usize = 16;

/// A set of labels, sorted by key.
///
/// Keys and values are any text here; which shapes a resource may carry is checked when the resource is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Vec<(Box<str>, Box<str>)>);

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
        let found = if self.0.len() <= LINEAR {
            self.0.iter().find(|(k, _)| **k == *key)
        } else {
            self.position(key).ok().map(|at| &self.0[at])
        };
        found.map(|(_, value)| &**value)
    }

    /// Sets a label and returns the value it had.
    pub fn insert(&mut self, key: impl Into<Box<str>>, value: impl Into<Box<str>>) -> Option<Box<str>> {
        let (key, value) = (key.into(), value.into());
        match self.position(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Removes a label and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<Box<str>> {
        let at = self.position(key).ok()?;
        Some(self.0.remove(at).1)
    }

    /// Returns how many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reports whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Walks the labels in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), v.as_ref()))
    }

    /// Finds where `key` is, or where it belongs.
    fn position(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(k, _)| (**k).cmp(key))
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    /// Of a key that comes twice, the last value stays.
    fn from_iter<T: IntoIterator<Item = (K, V)>>(iter: T) -> Self {
        let mut pairs: Vec<(Box<str>, Box<str>)> =
            iter.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(&mut later.1, &mut earlier.1);
            }
            same
        });
        pairs.shrink_to_fit();
        Self(pairs)
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>, const N: usize> From<[(K, V); N]> for Labels {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl IntoIterator for Labels {
    type Item = (Box<str>, Box<str>);
    type IntoIter = std::vec::IntoIter<(Box<str>, Box<str>)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
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
