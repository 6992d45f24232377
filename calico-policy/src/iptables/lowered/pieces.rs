//! What a table consists of, and what has to be made anew of it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Options;
use super::super::lower::{Lowering, Piece, marks_packets};
use super::super::program::{IpsetKind, Rule};
use super::{Key, Touched};
use crate::delta::Delta;
use crate::ruleset::{ChainName, Hook, Ruleset, SetKind, SetName};

/// What a table of a family is made of.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// The stages of each hook, in order.
    pub(super) stages: BTreeMap<Hook, Vec<ChainName>>,
    /// Whether something in the table marks packets.
    marking: bool,
    pieces: BTreeMap<Origin, Made>,
    /// How many pieces make each chain.
    made_by: BTreeMap<ChainName, usize>,
    /// What leads to each chain of the ruleset, whether that is there or not.
    led_to: BTreeMap<ChainName, BTreeSet<Origin>>,
    /// What looks at each set or map of the ruleset, whether that is there or not.
    asked: BTreeMap<SetName, BTreeSet<Origin>>,
}

/// What a piece is made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Hook(Hook),
    Chain(ChainName),
}

/// What a piece consists of; its rules are in the table.
#[derive(Debug, Default)]
struct Made {
    chains: BTreeSet<ChainName>,
    sets: BTreeSet<SetName>,
    leads: BTreeSet<ChainName>,
    looks: BTreeSet<SetName>,
}

/// Where pieces are put, and what they are made from.
pub(super) struct Making<'m> {
    pub(super) key: Key,
    pub(super) ruleset: &'m Ruleset,
    pub(super) options: &'m Options,
    pub(super) chains: &'m mut BTreeMap<ChainName, Vec<Rule>>,
    pub(super) sets: &'m mut BTreeMap<SetName, SetName>,
    pub(super) looked_at: &'m mut BTreeMap<SetName, usize>,
    pub(super) touched: &'m mut Touched,
}

impl Pieces {
    pub(super) fn of(stages: BTreeMap<Hook, Vec<ChainName>>) -> Self {
        Self { stages, ..Self::default() }
    }

    /// The pieces from which everything begins.
    pub(super) fn hooks(&self) -> Vec<Origin> {
        self.stages.keys().copied().map(Origin::Hook).collect()
    }

    /// The pieces that a change of the ruleset touches.
    pub(super) fn due(&self, delta: &Delta) -> Vec<Origin> {
        let Delta { before, after, .. } = delta;
        let mut due = Vec::new();
        for name in before.chains.keys().chain(after.chains.keys()) {
            due.push(Origin::Chain(name.clone()));
            if before.chains.contains_key(name) != after.chains.contains_key(name) {
                // What leads to a chain that is not there drops packets.
                due.extend(self.led_to.get(name).into_iter().flatten().cloned());
            }
        }
        let looks = |name: &SetName| self.asked.get(name).into_iter().flatten().cloned();
        for (name, set) in before.sets.iter().chain(&after.sets) {
            let same = before.sets.get(name).map(|set| set.kind) == after.sets.get(name).map(|set| set.kind);
            if !same || becomes_rules(set.kind) {
                due.extend(looks(name));
            }
        }
        due.extend(before.maps.keys().chain(after.maps.keys()).flat_map(looks));
        due
    }

    /// Makes pieces, and those that they lead to and that are not there; what nothing leads to any more goes.
    pub(super) fn make(&mut self, due: Vec<Origin>, making: &mut Making<'_>) {
        self.settle(due, making);
        let marking = marks_packets(making.chains);
        if self.marking != marking {
            self.marking = marking;
            self.settle(self.hooks(), making);
        }
    }

    fn settle(&mut self, mut due: Vec<Origin>, making: &mut Making<'_>) {
        due.sort();
        due.dedup();
        while let Some(origin) = due.pop() {
            let lowering = Lowering::new(making.ruleset, making.options, making.key.0);
            let piece = match &origin {
                Origin::Hook(hook) => {
                    let stages = self.stages.get(hook).map_or(&[][..], Vec::as_slice);
                    lowering.of_hook((making.key.1, *hook), stages, self.marking)
                }
                Origin::Chain(name) => match making.ruleset.chains.get(name) {
                    Some(chain) if self.led_to.contains_key(name) => lowering.of_chain(name, chain),
                    Some(_) | None => Piece::default(),
                },
            };
            self.put(origin, piece, making, &mut due);
        }
    }

    /// Puts a piece in the place of the one that was, and notes what is due by that.
    fn put(&mut self, origin: Origin, piece: Piece, making: &mut Making<'_>, due: &mut Vec<Origin>) {
        let was = self.pieces.remove(&origin).unwrap_or_default();
        let Piece { chains, sets, leads, looks } = piece;
        let is = Made {
            chains: chains.keys().cloned().collect(),
            sets: sets.keys().cloned().collect(),
            leads,
            looks,
        };
        for (name, rules) in chains {
            if !was.chains.contains(&name) {
                *self.made_by.entry(name.clone()).or_default() += 1;
            }
            if making.chains.get(&name) != Some(&rules) {
                let held = making.chains.insert(name.clone(), rules);
                making.touched.chain((making.key, &name), held);
            }
        }
        for name in was.chains.difference(&is.chains) {
            if one_less(&mut self.made_by, name) {
                let held = making.chains.remove(name);
                making.touched.chain((making.key, name), held);
            }
        }
        for (name, of) in sets.into_iter().filter(|(name, _)| !was.sets.contains(name)) {
            let count = making.looked_at.entry(name.clone()).or_default();
            if *count == 0 {
                making.touched.set(&name, making.sets.insert(name.clone(), of));
            }
            *count += 1;
        }
        for name in was.sets.difference(&is.sets) {
            if one_less(making.looked_at, name) {
                making.touched.set(name, making.sets.remove(name));
            }
        }
        let changed = link(&mut self.led_to, &origin, &was.leads, &is.leads);
        due.extend(changed.into_iter().map(Origin::Chain));
        link(&mut self.asked, &origin, &was.looks, &is.looks);
        if !is.chains.is_empty() {
            self.pieces.insert(origin, is);
        }
    }
}

/// Reports whether what is in a set becomes rules, and not the elements of an ipset alone.
fn becomes_rules(kind: SetKind) -> bool {
    IpsetKind::of(kind).is_none_or(|kind| matches!(kind, IpsetKind::Flows(_)))
}

/// Counts one less; reports whether that was the last.
fn one_less<K: Ord>(counts: &mut BTreeMap<K, usize>, name: &K) -> bool {
    let Some(count) = counts.get_mut(name) else { return false };
    *count -= 1;
    let last = *count == 0;
    if last {
        counts.remove(name);
    }
    last
}

/// Notes what an origin uses now in place of what it used. Returns what was not used by any and is, or was and is not.
fn link<K: Ord + Clone>(
    used_by: &mut BTreeMap<K, BTreeSet<Origin>>,
    origin: &Origin,
    was: &BTreeSet<K>,
    is: &BTreeSet<K>,
) -> Vec<K> {
    let mut changed = Vec::new();
    for name in is.difference(was) {
        let users = used_by.entry(name.clone()).or_default();
        if users.is_empty() {
            changed.push(name.clone());
        }
        users.insert(origin.clone());
    }
    for name in was.difference(is) {
        let Some(users) = used_by.get_mut(name) else { continue };
        users.remove(origin);
        if users.is_empty() {
            used_by.remove(name);
            changed.push(name.clone());
        }
    }
    changed
}
