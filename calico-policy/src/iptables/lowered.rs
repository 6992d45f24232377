//! The rules that a ruleset becomes, kept while it changes: what a change costs depends on what changed.
//!
//! Each chain of the ruleset becomes a *piece* in each table of each family that leads to it: a chain, and those beside it. A
//! piece is made anew when its chain changed, or a map that it looks up, or a set that becomes rules. It goes when nothing leads
//! to it any more.

mod pieces;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use calico_model::Family;

use super::hook::{hook_chain, places_of};
use super::program::{HookRule, Rule, Rules, Table, TableName, Target};
use super::{Insertion, Options};
use crate::delta::Delta;
use crate::ruleset::{Base, ChainName, Hook, Ruleset, SetName};
use pieces::{Making, Origin, Pieces};

type Key = (Family, TableName);

/// The rules of a ruleset, and what they are made of.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) rules: Rules,
    options: Options,
    pieces: BTreeMap<Key, Pieces>,
    /// How many pieces look at each ipset.
    looked_at: BTreeMap<SetName, usize>,
}

/// What was, of all that a change touched; `None` where nothing was.
#[derive(Debug, Default)]
struct Touched {
    chains: BTreeMap<(Key, ChainName), Option<Vec<Rule>>>,
    sets: BTreeMap<SetName, Option<SetName>>,
}

impl Lowered {
    /// Lowers a ruleset.
    pub(super) fn of(ruleset: &Ruleset, options: &Options) -> Self {
        let mut lowered = Self {
            rules: Rules::default(),
            options: options.clone(),
            pieces: pieces(ruleset),
            looked_at: BTreeMap::new(),
        };
        for (key, pieces) in &lowered.pieces {
            // The translation for Services is to come first.
            let place = if key.1 == TableName::Nat { Insertion::Last } else { options.insertion };
            let hook = |hook: &Hook| {
                (*hook, HookRule { place, rule: Rule::always(Target::Jump(hook_chain(*hook))) })
            };
            let hooks = pieces.stages.keys().map(hook).collect();
            lowered.rules.tables.insert(*key, Table { hooks, chains: BTreeMap::new() });
        }
        lowered.make(ruleset, Pieces::hooks);
        lowered
    }

    /// Follows a change of the ruleset to what it is now. Returns the part of the rules that the change touched, as it was and as it
    /// is.
    pub(super) fn change(&mut self, delta: &Delta, ruleset: &Ruleset, options: &Options) -> (Rules, Rules) {
        if *options != self.options || stages_change(delta) {
            let was = std::mem::replace(self, Self::of(ruleset, options));
            return (was.rules, self.rules.clone());
        }
        let touched = self.make(ruleset, |pieces| pieces.due(delta));
        let (mut before, mut after) = (Rules::default(), Rules::default());
        for ((key, name), was) in touched.chains {
            let is = self.rules.tables.get(&key).and_then(|table| table.chains.get(&name));
            before.tables.entry(key).or_default().chains.extend(was.map(|was| (name.clone(), was)));
            after.tables.entry(key).or_default().chains.extend(is.map(|is| (name.clone(), is.clone())));
        }
        for (name, was) in touched.sets {
            let is = self.rules.sets.get(&name);
            before.sets.extend(was.map(|was| (name.clone(), was)));
            after.sets.extend(is.map(|is| (name.clone(), is.clone())));
        }
        (before, after)
    }

    /// Makes what is due in each table, and whatever that leads to.
    fn make(&mut self, ruleset: &Ruleset, due: impl Fn(&Pieces) -> Vec<Origin>) -> Touched {
        let mut touched = Touched::default();
        let Self { rules, options, pieces, looked_at } = self;
        for (key, pieces) in pieces {
            let chains = &mut rules.tables.entry(*key).or_default().chains;
            let mut making = Making {
                key: *key,
                ruleset,
                options,
                chains,
                sets: &mut rules.sets,
                looked_at,
                touched: &mut touched,
            };
            let due = due(pieces);
            pieces.make(due, &mut making);
        }
        touched
    }
}

/// Returns what there is to be in each table of each family, of which nothing is made yet.
fn pieces(ruleset: &Ruleset) -> BTreeMap<Key, Pieces> {
    let mut stages: BTreeMap<TableName, BTreeMap<Hook, Vec<(i32, ChainName)>>> = BTreeMap::new();
    for (name, chain) in &ruleset.chains {
        if let Some(base) = chain.base {
            let (table, hooks) = places_of(base);
            for hook in hooks {
                let of_hook = stages.entry(table).or_default().entry(hook).or_default();
                of_hook.push((base.priority, name.clone()));
            }
        }
    }
    let mut pieces = BTreeMap::new();
    for (table, mut hooks) in stages {
        hooks.values_mut().for_each(|stages| stages.sort());
        let of_hook = |(hook, stages): (Hook, Vec<(i32, ChainName)>)| {
            (hook, stages.into_iter().map(|(_, name)| name).collect())
        };
        let stages: BTreeMap<Hook, Vec<ChainName>> = hooks.into_iter().map(of_hook).collect();
        pieces.extend(Family::ALL.map(|family| ((family, table), Pieces::of(stages.clone()))));
    }
    pieces
}

/// Reports whether other chains are run at the hooks, or elsewhere.
fn stages_change(delta: &Delta) -> bool {
    let base = |part: &Ruleset, name: &ChainName| -> Option<Base> { part.chains.get(name)?.base };
    let mut names = delta.before.chains.keys().chain(delta.after.chains.keys());
    names.any(|name| base(&delta.before, name) != base(&delta.after, name))
}

impl Touched {
    fn chain(&mut self, place: (Key, &ChainName), was: Option<Vec<Rule>>) {
        self.chains.entry((place.0, place.1.clone())).or_insert(was);
    }

    fn set(&mut self, name: &SetName, was: Option<SetName>) {
        self.sets.entry(name.clone()).or_insert(was);
    }
}
