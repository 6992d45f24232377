//! What has to change, so that iptables and ipset hold what they should.

use std::collections::{BTreeMap, BTreeSet};

use super::actual::{ActualSet, ActualTable};
use super::program::{
    HookRule, IPSET_NAME, Ipset, IpsetKind, Program, Rule, Rules, Table, elements_of, fitted, ipset_name,
};
use super::words::{comment, is_spelling_of};
use super::{Actual, Insertion, Operation, SetOperation, Transaction};
use crate::delta::Delta;
use crate::ruleset::{ChainName, Elements, Hook, Ruleset, SetName};

/// A chain of fewer rules than this is written anew when one of them changes.
const WORTH_EDITING: usize = 16;

/// How the kernel writes rules that it holds as they should be, where that is not as we write them.
#[derive(Debug, Clone, Default)]
pub(super) struct Spelling(BTreeMap<String, String>);

impl Spelling {
    /// Learns from chains that were just written: what carries the digest of our words and reads otherwise is spelt otherwise.
    pub(super) fn learn(&mut self, program: &Program, actual: &Actual) {
        for (key, table) in &program.rules.tables {
            let Some(held) = actual.tables.get(key) else { continue };
            for (name, rules) in &table.chains {
                let lines = held.chains.get(name).map_or(&[][..], Vec::as_slice);
                for (rule, line) in rules.iter().zip(lines) {
                    let own = rule.line();
                    if comment(&own) == comment(line) && !is_spelling_of(&own, line) {
                        self.0.insert(own, line.clone());
                    }
                }
            }
        }
    }

    fn is(&self, rule: &Rule, line: &str) -> bool {
        let own = rule.line();
        own == line || is_spelling_of(&own, line) || self.0.get(&own).is_some_and(|known| known == line)
    }
}

/// Returns the changes that make `actual` hold `program` and nothing else of ours: none at all when it does already.
///
/// What is new comes before what refers to it, and what is no longer wanted goes last.
#[must_use]
pub fn plan(program: &Program, actual: &Actual) -> Transaction {
    plan_spelt(program, actual, &Spelling::default())
}

pub(super) fn plan_spelt(program: &Program, actual: &Actual, spelling: &Spelling) -> Transaction {
    let mut transaction = Transaction::default();
    for (name, set) in &program.sets {
        set_changes(&mut transaction, name, set, actual.sets.get(name));
    }
    let unwanted = actual.sets.keys().filter(|name| !program.sets.contains_key(*name));
    transaction.after.extend(unwanted.map(|name| SetOperation::Destroy(name.clone())));
    let keys: BTreeSet<_> = program.rules.tables.keys().chain(actual.tables.keys()).collect();
    let (no_table, nothing) = (Table::default(), ActualTable::default());
    for key in keys {
        let wanted = program.rules.tables.get(key).unwrap_or(&no_table);
        let held = actual.tables.get(key).unwrap_or(&nothing);
        let same = |rule: &Rule, line: &String| spelling.is(rule, line);
        let (mut operations, removals) = chain_changes(&wanted.chains, &held.chains, same);
        hook_changes(&mut operations, wanted, held, spelling);
        operations.extend(removals);
        if !operations.is_empty() {
            transaction.tables.insert(*key, operations);
        }
    }
    transaction
}

/// Returns the changes when the kernel holds what it held after the last change: `before` and `after` are the part of the rules that
/// changed, `looked_at` the sets that rules look at now.
pub(super) fn plan_change(
    (before, after): (&Rules, &Rules),
    looked_at: &BTreeMap<SetName, SetName>,
    delta: &Delta,
    ruleset: &Ruleset,
) -> Transaction {
    let mut transaction = Transaction::default();
    let is_new = |name: &SetName| after.sets.contains_key(name) && !before.sets.contains_key(name);
    for (name, of) in after.sets.iter().filter(|(name, _)| is_new(name)) {
        if let Some(set) = ruleset.sets.get(of).and_then(Ipset::of) {
            set_changes(&mut transaction, name, &set, None);
        }
    }
    let changed: BTreeSet<&SetName> = delta.before.sets.keys().chain(delta.after.sets.keys()).collect();
    for of in changed {
        let name = ipset_name(of);
        if looked_at.contains_key(&name) && !is_new(&name) {
            element_changes(&mut transaction, &name, of, delta);
        }
    }
    let unwanted = before.sets.keys().filter(|name| !after.sets.contains_key(*name));
    transaction.after.extend(unwanted.map(|name| SetOperation::Destroy(name.clone())));
    let keys: BTreeSet<_> = before.tables.keys().chain(after.tables.keys()).collect();
    let no_table = Table::default();
    for key in keys {
        let wanted = after.tables.get(key).unwrap_or(&no_table);
        let held = before.tables.get(key).unwrap_or(&no_table);
        let (mut operations, removals) = chain_changes(&wanted.chains, &held.chains, |a, b| a == b);
        for (hook, rule) in &held.hooks {
            if wanted.hooks.get(hook) != Some(rule) {
                operations.push(Operation::Unhook(*hook, rule.rule.line()));
            }
        }
        for (hook, HookRule { place, rule }) in &wanted.hooks {
            if held.hooks.get(hook).is_none_or(|was| was.rule != *rule || was.place != *place) {
                operations.push(Operation::Hook(*hook, *place, rule.clone()));
            }
        }
        operations.extend(removals);
        if !operations.is_empty() {
            transaction.tables.insert(*key, operations);
        }
    }
    transaction
}

/// Adds to a set what is new in it before rules change, and removes what is gone after. A range that grows or shrinks has
/// ports, and the network of all addresses has halves, that are of both.
fn element_changes(transaction: &mut Transaction, name: &SetName, of: &SetName, delta: &Delta) {
    let elements = |part: &Ruleset| -> Elements {
        part.sets.get(of).map(|set| set.elements.iter().flat_map(elements_of).collect()).unwrap_or_default()
    };
    let (was, is) = (elements(&delta.before), elements(&delta.after));
    let new = is.difference(&was).map(|element| SetOperation::Add(name.clone(), element.clone()));
    transaction.before.extend(new);
    let gone = was.difference(&is).map(|element| SetOperation::Delete(name.clone(), element.clone()));
    transaction.after.extend(gone);
}

/// Elements that are missing are added before rules change, and those too many removed after. A set of which most is to be
/// another is made beside it and takes its place.
fn set_changes(transaction: &mut Transaction, name: &SetName, set: &Ipset, actual: Option<&ActualSet>) {
    match actual {
        Some(ActualSet { kind: Some(kind), elements: Some(held) }) if *kind == set.kind => {
            let new: Vec<_> = set.elements.difference(held).collect();
            let gone: Vec<_> = held.difference(&set.elements).collect();
            if new.len() + gone.len() > set.elements.len() + 8 {
                replace(transaction, name, set);
                return;
            }
            let new = new.into_iter().map(|element| SetOperation::Add(name.clone(), element.clone()));
            transaction.before.extend(new);
            let gone = gone.into_iter().map(|element| SetOperation::Delete(name.clone(), element.clone()));
            transaction.after.extend(gone);
        }
        Some(ActualSet { kind: Some(kind), elements: _ }) if *kind == set.kind => {
            replace(transaction, name, set)
        }
        Some(ActualSet { kind: _, elements: _ }) => {
            // No rule can look at a set of another kind in this way, so nothing keeps it.
            transaction.before.push(SetOperation::Destroy(name.clone()));
            create(transaction, name, set.kind, &set.elements);
        }
        None => create(transaction, name, set.kind, &set.elements),
    }
}

/// One of that name may be left that was destroyed in vain: what is in it goes.
fn create(transaction: &mut Transaction, name: &SetName, kind: IpsetKind, elements: &Elements) {
    transaction.before.push(SetOperation::Create(name.clone(), kind));
    transaction.before.push(SetOperation::Flush(name.clone()));
    let adds = elements.iter().map(|element| SetOperation::Add(name.clone(), element.clone()));
    transaction.before.extend(adds);
}

fn replace(transaction: &mut Transaction, name: &SetName, set: &Ipset) {
    let beside =
        SetName::read(&fitted(&format!("cali-new-{}", crate::ruleset::digest([name.as_str()])), IPSET_NAME));
    create(transaction, &beside, set.kind, &set.elements);
    transaction.before.push(SetOperation::Swap(name.clone(), beside.clone()));
    transaction.before.push(SetOperation::Destroy(beside));
}

/// Returns the changes of chains, and the removals, which come last.
fn chain_changes<Held>(
    wanted: &BTreeMap<ChainName, Vec<Rule>>,
    held: &BTreeMap<ChainName, Vec<Held>>,
    same: impl Fn(&Rule, &Held) -> bool,
) -> (Vec<Operation>, Vec<Operation>) {
    let (mut made, mut filled) = (Vec::new(), Vec::new());
    for (name, rules) in wanted {
        let append = |rule: &Rule| Operation::Append(name.clone(), rule.clone());
        let Some(lines) = held.get(name) else {
            made.push(Operation::Make(name.clone()));
            filled.extend(rules.iter().map(append));
            continue;
        };
        let first = rules.iter().zip(lines).take_while(|(rule, line)| same(rule, line)).count();
        if first == rules.len() && first == lines.len() {
            continue;
        }
        let last = rules[first..]
            .iter()
            .rev()
            .zip(lines[first..].iter().rev())
            .take_while(|(rule, line)| same(rule, line))
            .count();
        let (gone, new) = (first..lines.len() - last, first..rules.len() - last);
        if rules.len() < WORTH_EDITING || gone.len() + new.len() > rules.len() / 2 {
            made.push(Operation::Empty(name.clone()));
            filled.extend(rules.iter().map(append));
        } else {
            filled.extend(gone.rev().map(|place| Operation::Delete(name.clone(), place + 1)));
            filled.extend(new.map(|place| Operation::Insert(name.clone(), place + 1, rules[place].clone())));
        }
    }
    let unwanted: Vec<&ChainName> = held.keys().filter(|name| !wanted.contains_key(*name)).collect();
    let mut removals: Vec<_> = unwanted.iter().map(|name| Operation::Empty((*name).clone())).collect();
    removals.extend(unwanted.iter().map(|name| Operation::Remove((*name).clone())));
    made.extend(filled);
    (made, removals)
}

/// Each of the kernel's own chains holds our rule once and in its place, and no other rule that leads to our chains.
fn hook_changes(operations: &mut Vec<Operation>, wanted: &Table, held: &ActualTable, spelling: &Spelling) {
    let hooks: BTreeSet<&Hook> = wanted.hooks.keys().chain(held.hooks.keys()).collect();
    for hook in hooks {
        let lines = held.hooks.get(hook).map_or(&[][..], Vec::as_slice);
        let rule = wanted.hooks.get(hook);
        let in_place = |(place, line): &(usize, String)| {
            rule.is_some_and(|HookRule { place: wanted, rule }| {
                spelling.is(rule, line) && (*wanted == Insertion::Last || *place == 0)
            })
        };
        if lines.len() == 1 && in_place(&lines[0]) {
            continue;
        }
        operations.extend(lines.iter().map(|(_, line)| Operation::Unhook(*hook, line.clone())));
        operations.extend(rule.map(|HookRule { place, rule }| Operation::Hook(*hook, *place, rule.clone())));
    }
}
