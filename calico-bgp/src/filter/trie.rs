//! Values by network, found by the networks that cover another.
//!
//! The trie is kept flat: its networks in order, each with the place of the nearest one that covers it. A look-up is one
//! binary search and a walk upwards.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_model::Cidr;

/// Values by network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PrefixMap<T> {
    entries: Vec<Entry<T>>,
}

/// Networks.
pub type PrefixSet = PrefixMap<()>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry<T> {
    cidr: Cidr,
    /// The nearest entry whose network covers this one.
    parent: Option<u32>,
    value: T,
}

/// The order in which a network comes after every one that covers it.
fn order(cidr: &Cidr) -> (IpAddr, u8) {
    (cidr.addr(), cidr.prefix_len())
}

impl<T> Default for PrefixMap<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> FromIterator<(Cidr, T)> for PrefixMap<T> {
    /// Of several values for one network the last counts.
    fn from_iter<I: IntoIterator<Item = (Cidr, T)>>(values: I) -> Self {
        let sorted: BTreeMap<(IpAddr, u8), (Cidr, T)> =
            values.into_iter().map(|(cidr, value)| (order(&cidr), (cidr, value))).collect();
        let mut entries: Vec<Entry<T>> = Vec::with_capacity(sorted.len());
        for (cidr, value) in sorted.into_values() {
            let mut parent = entries.len().checked_sub(1);
            while let Some(at) = parent.filter(|at| !entries[*at].cidr.covers(&cidr)) {
                parent = entries[at].parent.map(|at| at as usize);
            }
            entries.push(Entry { cidr, parent: parent.map(|at| at as u32), value });
        }
        Self { entries }
    }
}

impl FromIterator<Cidr> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = Cidr>>(networks: I) -> Self {
        networks.into_iter().map(|cidr| (cidr, ())).collect()
    }
}

impl PrefixSet {
    /// Drops the networks that others cover: what is covered stays the same.
    #[must_use]
    pub fn outermost(self) -> Self {
        self.entries.into_iter().filter(|entry| entry.parent.is_none()).map(|entry| entry.cidr).collect()
    }
}

impl<T> PrefixMap<T> {
    /// Returns what is filed under the networks that cover `cidr` or are the same, the longest first.
    pub fn covering(&self, cidr: Cidr) -> impl Iterator<Item = (Cidr, &T)> {
        let after = self.entries.partition_point(|entry| order(&entry.cidr) <= order(&cidr));
        let mut at = after.checked_sub(1);
        std::iter::from_fn(move || {
            loop {
                let entry = &self.entries[at?];
                at = entry.parent.map(|at| at as usize);
                if entry.cidr.covers(&cidr) {
                    return Some((entry.cidr, &entry.value));
                }
            }
        })
    }

    /// Reports whether a network is filed that covers `cidr` or is the same.
    #[must_use]
    pub fn covers(&self, cidr: Cidr) -> bool {
        self.covering(cidr).next().is_some()
    }

    /// Reports whether a network is filed that covers `cidr` and is larger.
    #[must_use]
    pub fn covers_strictly(&self, cidr: Cidr) -> bool {
        self.covering(cidr).any(|(network, _)| network != cidr)
    }

    /// Returns everything in order.
    pub fn iter(&self) -> impl Iterator<Item = (Cidr, &T)> {
        self.entries.iter().map(|entry| (entry.cidr, &entry.value))
    }

    /// Reports whether nothing is filed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Networks in a corner so small that they cover one another often.
    fn networks() -> impl Strategy<Value = Cidr> {
        let v4 =
            (0u8..16, 24u8..=32).prop_map(|(last, len)| Cidr::holding([10, 0, 0, last * 16].into(), len));
        let v6 = (0u16..8, 112u8..=128)
            .prop_map(|(last, len)| Cidr::holding([0xfd00, 0, 0, 0, 0, 0, 0, last << 12].into(), len));
        prop_oneof![v4, v6].prop_map(|cidr| cidr.unwrap())
    }

    proptest! {
        #[test]
        fn the_outermost_networks_cover_what_all_do_and_none_covers_another(
            filed in proptest::collection::btree_set(networks(), 0..24), asked in networks(),
        ) {
            let all: PrefixSet = filed.iter().copied().collect();
            let outermost = all.clone().outermost();
            prop_assert_eq!(outermost.covers(asked), all.covers(asked));
            prop_assert!(outermost.iter().all(|(network, ())| !outermost.covers_strictly(network)));
        }

        #[test]
        fn it_finds_what_looking_at_each_network_finds(
            filed in proptest::collection::btree_set(networks(), 0..24), asked in networks(),
        ) {
            let map: PrefixMap<Cidr> = filed.iter().map(|cidr| (*cidr, *cidr)).collect();
            let mut expected: Vec<Cidr> = filed.iter().filter(|cidr| cidr.covers(&asked)).copied().collect();
            expected.sort_by_key(|cidr| std::cmp::Reverse(cidr.prefix_len()));
            prop_assert_eq!(map.covering(asked).map(|(_, value)| *value).collect::<Vec<_>>(), expected);
        }
    }
}
