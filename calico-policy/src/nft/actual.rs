//! What a kernel holds, as far as policy has to know.

use std::collections::BTreeMap;
use std::fmt;

use super::Foreign;
use crate::ruleset::{Base, ChainName, Elements, Rule, Ruleset, SetKind, SetName, VerdictMap};

/// What the kernel holds; nothing when the table does not exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    /// The table.
    pub table: Option<Table>,
}

impl Actual {
    /// Returns what the kernel holds once a ruleset is applied, so that whoever applied it can plan the next change without
    /// reading it back. Somebody else's changes are only seen by [`Nft::read`](super::Nft::read).
    #[must_use]
    pub fn holding(ruleset: &Ruleset) -> Self {
        let sets = ruleset.sets.iter().map(|(name, set)| {
            let elements = Some(set.elements.clone());
            (name.clone(), ActualSet { kind: Some(set.kind), room: None, elements })
        });
        let maps = ruleset.maps.iter().map(|(name, map)| (name.clone(), Some(map.clone())));
        let chains = ruleset.chains.iter().map(|(name, chain)| {
            let rules = chain.rules.iter().map(|rule| ActualRule { digest: Some(Digest::of(rule)) });
            (name.clone(), ActualChain { base: Ok(chain.base), rules: rules.collect() })
        });
        let table =
            Table { sound: true, sets: sets.collect(), maps: maps.collect(), chains: chains.collect() };
        Self { table: Some(table) }
    }

    /// Has rules that somebody else wrote looked at as foreign, whatever digest they carry.
    pub fn distrust(&mut self, foreign: &Foreign) {
        for (name, chain) in self.table.iter_mut().flat_map(|table| &mut table.chains) {
            let changed = match foreign {
                Foreign::Chains(chains) => chains.contains(name),
                Foreign::Anything => true,
            };
            if changed {
                chain.rules.iter_mut().for_each(|rule| rule.digest = None);
            }
        }
    }
}

/// What the table holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Whether the table is as we make tables: awake.
    pub sound: bool,
    /// The sets, by name.
    pub sets: BTreeMap<SetName, ActualSet>,
    /// The maps, by name: `None` for one that is not as we make maps.
    pub maps: BTreeMap<SetName, Option<VerdictMap>>,
    /// The chains, by name.
    pub chains: BTreeMap<ChainName, ActualChain>,
}

/// A set in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActualSet {
    /// What its elements are; `None` when we never make such sets.
    pub kind: Option<SetKind>,
    /// How many elements it takes; `None` when there is no bound, or it is not known.
    pub room: Option<u32>,
    /// The elements; `None` when one of them is nothing that we write.
    pub elements: Option<Elements>,
}

/// A chain in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActualChain {
    /// Where packets enter it: `Err` when that is no place of ours.
    pub base: Result<Option<Base>, ForeignBase>,
    /// The rules, in order.
    pub rules: Vec<ActualRule>,
}

/// A base chain of a kind that we never make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignBase;

/// A rule in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActualRule {
    /// The digest it carries; `None` when it is not of our making.
    pub digest: Option<Digest>,
}

/// The digest of a rule's words, by which a fresh process knows a rule that is as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Box<str>);

impl Digest {
    /// Returns the digest of a rule.
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        Self(crate::ruleset::digest([rule.to_string().as_str()]).into())
    }

    pub(super) fn read(comment: &str) -> Self {
        Self(comment.into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
