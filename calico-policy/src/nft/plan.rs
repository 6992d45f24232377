//! What has to change, so that the kernel holds what it should.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::actual::{ActualChain, ActualSet, Table};
use super::{Actual, Digest, Operation, Transaction};
use crate::delta::Delta;
use crate::ruleset::{Chain, ChainName, Ruleset, Set, SetKind, SetName, VerdictMap};

/// Returns the changes that make `actual` hold `desired` and nothing else: none at all when it does already.
///
/// What is new comes before what refers to it, and what is no longer wanted goes last; where packets on their way could see a
/// part of it, in two parts. A table that cannot be mended in
/// place (it sleeps, or a set or hook of ours has become another kind of thing) is replaced in one part. Until the kernel is done
/// with that, its sets of ranges of several fields are empty.
#[must_use]
pub fn plan(desired: &Ruleset, actual: &Actual) -> Transaction {
    let empty = Table { sound: true, ..Table::default() };
    let (mut operations, table) = match &actual.table {
        None => (vec![Operation::AddTable], &empty),
        Some(table) if mendable(desired, table) => {
            let moved = table.sets.iter().filter_map(|(name, held)| {
                let set = desired.sets.get(name).filter(|_| held.elements.is_some())?;
                moved_bound(name, set, held.room, set.elements.len())
            });
            (settled(moved), table)
        }
        Some(_) => return plan_anew(desired),
    };
    operations.append(&mut changes(desired, table));
    Transaction { operations }
}

/// Returns the changes that replace the table, in one part.
pub(super) fn plan_anew(desired: &Ruleset) -> Transaction {
    let empty = Table { sound: true, ..Table::default() };
    let mut operations = vec![Operation::DeleteTable, Operation::AddTable];
    operations.append(&mut changes(desired, &empty));
    operations.retain(|operation| *operation != Operation::Settle);
    Transaction { operations }
}

/// Returns the changes that a change of the ruleset asks for, where the kernel holds what it held before. What did not change
/// is not looked at.
#[must_use]
pub fn plan_change(delta: &Delta) -> Transaction {
    let held = Actual::holding(&delta.before).table.unwrap_or_default();
    let moved = delta.after.sets.iter().filter_map(|(name, set)| {
        let was = delta.before.sets.get(name)?;
        let now = delta.sizes.get(name).copied().unwrap_or(set.elements.len());
        let before = room(set.kind, (now + was.elements.len()).saturating_sub(set.elements.len()));
        moved_bound(name, set, before, now)
    });
    let mut operations = settled(moved);
    operations.append(&mut changes(&delta.after, &held));
    Transaction { operations }
}

/// Returns the bound that a set is to have instead of the one that it has, if it has one and that is too low.
fn moved_bound(name: &SetName, set: &Set, bound: Option<u32>, elements: usize) -> Option<Operation> {
    let wanted = room(set.kind, elements);
    (bound.is_some() && wanted > bound).then(|| Operation::AddSet(name.clone(), set.kind, wanted))
}

/// Bounds that move, in a part of their own: until it is done the kernel counts against the old ones.
fn settled(moved: impl Iterator<Item = Operation>) -> Vec<Operation> {
    let mut operations: Vec<_> = moved.collect();
    if !operations.is_empty() {
        operations.push(Operation::Settle);
    }
    operations
}

/// From how many addresses on a set gets a bound: the kernel then makes its hash table as large as it has to be, where it else
/// makes larger ones as elements come, which takes it three times as long.
const WORTH_ROOM: usize = 1_000;

/// Returns how many elements a set of so many is to take: a quarter more at least, so that the bound seldom has to move, and it
/// moves long before it is reached. The kernel clears a table of four thirds of it, rounded up to a power of two.
fn room(kind: SetKind, elements: usize) -> Option<u32> {
    let bounded = matches!(kind, SetKind::Address(_)) && elements >= WORTH_ROOM;
    let table = |elements: usize| u32::try_from(elements / 3 * 5).ok()?.checked_next_power_of_two();
    bounded.then(|| table(elements).map(|table| table / 4 * 3)).flatten()
}

fn is_of_interfaces(kind: SetKind) -> bool {
    matches!(kind, SetKind::Interface | SetKind::InterfaceAddress(_))
}

fn mendable(desired: &Ruleset, table: &Table) -> bool {
    let sets = desired
        .sets
        .iter()
        .all(|(name, set)| table.sets.get(name).is_none_or(|actual| actual.kind == Some(set.kind)));
    let same =
        |map: &VerdictMap, held: &Option<VerdictMap>| held.as_ref().is_some_and(|held| held.kind == map.kind);
    let maps = desired.maps.iter().all(|(name, map)| table.maps.get(name).is_none_or(|held| same(map, held)));
    let mixed = desired.sets.keys().any(|name| table.maps.contains_key(name))
        || desired.maps.keys().any(|name| table.sets.contains_key(name));
    let chains = desired
        .chains
        .iter()
        .all(|(name, chain)| table.chains.get(name).is_none_or(|actual| actual.base == Ok(chain.base)));
    table.sound && sets && maps && !mixed && chains
}

fn changes(desired: &Ruleset, table: &Table) -> Vec<Operation> {
    let (made, mut changed) = (new_things(desired, table), met(desired, table));
    // Each hook takes its generation by itself: a packet on its way from one to another meets the first of before and the second of
    // after. What asks at another hook from now on is asked beside what it replaces, before that goes.
    let mut gone = gone_bases(desired, table);
    let is_new_base = |operation: &Operation| matches!(operation, Operation::AddChain(_, Some(_)));
    let is_moved = !gone.is_empty() && changed.iter().any(is_new_base);
    if is_moved {
        gone.insert(0, Operation::Settle);
    }
    changed.append(&mut gone);
    let is_new = |chain| desired.chains.contains_key(chain) && !table.chains.contains_key(chain);
    let leads_to_new = changed.iter().any(|operation| {
        matches!(operation, Operation::AddMapElements(_, map) if map.elements.values().any(is_new))
    });
    // The kernel puts the elements of ranges of several fields in place last of all (`nft_set_commit_update`), when packets
    // have met the new rules for a while: a rule may only look at those that were there before it.
    let has_late =
        made.iter().any(|operation| matches!(operation, Operation::AddSet(_, SetKind::Flow(_), _)));
    let drops_a_map = table.maps.keys().any(|name| !desired.maps.contains_key(name));
    let settled = |needed: bool| needed.then_some(Operation::Settle);
    let before_changed = settled((leads_to_new || has_late) && !(made.is_empty() || changed.is_empty()));
    let before_gone = settled(drops_a_map && !(made.is_empty() && changed.is_empty()));
    let all = made.into_iter().chain(before_changed).chain(changed);
    all.chain(before_gone).chain(removals(desired, table)).collect()
}

/// What is made, which no packet meets until something leads to it.
fn new_things(desired: &Ruleset, table: &Table) -> Vec<Operation> {
    let mut operations = Vec::new();
    let maps: Vec<_> = desired.maps.iter().filter(|(name, _)| !table.maps.contains_key(*name)).collect();
    let sets = desired.sets.iter().filter(|(name, _)| !table.sets.contains_key(*name));
    let (of_interfaces, others): (Vec<_>, Vec<_>) = sets.partition(|(_, set)| is_of_interfaces(set.kind));
    let (mut of_flows, mut others): (VecDeque<_>, VecDeque<_>) =
        others.into_iter().partition(|(_, set)| matches!(set.kind, SetKind::Flow(_)));
    // The kernel finds a set by going through all that were made before it: what every endpoint changes is made first. Then those
    // that policies change and those that labels do take turns: none are all behind the others.
    let in_turns = std::iter::from_fn(|| {
        std::mem::swap(&mut of_flows, &mut others);
        of_flows.pop_front().or_else(|| others.pop_front())
    });
    let add_maps = |operations: &mut Vec<Operation>, of_interfaces: bool| {
        let maps = maps.iter().filter(|(_, map)| is_of_interfaces(map.kind) == of_interfaces);
        operations.extend(maps.map(|(name, map)| Operation::AddMap((*name).clone(), map.kind)));
    };
    add_maps(&mut operations, true);
    of_interfaces.into_iter().for_each(|(name, set)| set_changes(&mut operations, name, set, None));
    add_maps(&mut operations, false);
    in_turns.for_each(|(name, set)| set_changes(&mut operations, name, set, None));
    new_chains(&mut operations, desired, table, |chain| chain.base.is_none());
    maps.into_iter().for_each(|(name, map)| map_changes(&mut operations, name, map, table));
    operations
}

fn new_chains(operations: &mut Vec<Operation>, desired: &Ruleset, table: &Table, of: fn(&Chain) -> bool) {
    let new = desired.chains.iter().filter(|(name, chain)| !table.chains.contains_key(*name) && of(chain));
    let new: Vec<_> = new.collect();
    operations.extend(new.iter().map(|(name, chain)| Operation::AddChain((*name).clone(), chain.base)));
    new.into_iter().for_each(|(name, chain)| chain_changes(operations, name, chain, None));
}

/// What packets meet: what becomes another where it is, and new chains at hooks. A change of rules and of what leads to them is
/// one, so that nobody meets a mixture of both; chains at hooks that go are part of it too, unless new ones come.
fn met(desired: &Ruleset, table: &Table) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (name, set) in &desired.sets {
        if let Some(actual) = table.sets.get(name) {
            set_changes(&mut operations, name, set, Some(actual));
        }
    }
    new_chains(&mut operations, desired, table, |chain| chain.base.is_some());
    for (name, chain) in &desired.chains {
        if let Some(actual) = table.chains.get(name) {
            chain_changes(&mut operations, name, chain, Some(actual));
        }
    }
    for (name, map) in desired.maps.iter().filter(|(name, _)| table.maps.contains_key(*name)) {
        map_changes(&mut operations, name, map, table);
    }
    operations
}

fn gone_bases(desired: &Ruleset, table: &Table) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (name, chain) in unwanted(desired, table).filter(|(_, chain)| chain.base != Ok(None)) {
        operations.extend((!chain.rules.is_empty()).then(|| Operation::FlushChain(name.clone())));
        operations.push(Operation::DeleteChain(name.clone()));
    }
    operations
}

/// The chains that are there and should not be.
fn unwanted<'t>(
    desired: &Ruleset,
    table: &'t Table,
) -> impl Iterator<Item = (&'t ChainName, &'t ActualChain)> {
    table.chains.iter().filter(|(name, _)| !desired.chains.contains_key(*name))
}

fn set_changes(operations: &mut Vec<Operation>, name: &SetName, set: &Set, actual: Option<&ActualSet>) {
    let held = match actual {
        None => {
            operations.push(Operation::AddSet(name.clone(), set.kind, room(set.kind, set.elements.len())));
            None
        }
        Some(ActualSet { elements: Some(held), .. }) => Some(held),
        Some(ActualSet { elements: None, .. }) => {
            operations.push(Operation::FlushSet(name.clone()));
            None
        }
    };
    let Some(held) = held.filter(|held| !held.is_empty()) else {
        if !set.elements.is_empty() {
            operations.push(Operation::AddElements(name.clone(), set.elements.clone()));
        }
        return;
    };
    let gone: BTreeSet<_> = held.difference(&set.elements).cloned().collect();
    let new: BTreeSet<_> = set.elements.difference(held).cloned().collect();
    if !gone.is_empty() {
        operations.push(Operation::DeleteElements(name.clone(), gone));
    }
    if !new.is_empty() {
        operations.push(Operation::AddElements(name.clone(), new));
    }
}

/// A chain whose rules differ anywhere is written anew. Packets see the old rules or the new ones, never a part.
fn chain_changes(
    operations: &mut Vec<Operation>,
    name: &ChainName,
    chain: &Chain,
    actual: Option<&ActualChain>,
) {
    let held: Vec<_> = actual.iter().flat_map(|chain| &chain.rules).map(|rule| rule.digest.clone()).collect();
    let same = held.len() == chain.rules.len()
        && chain.rules.iter().zip(&held).all(|(rule, held)| *held == Some(Digest::of(rule)));
    if same {
        return;
    }
    if !held.is_empty() {
        operations.push(Operation::FlushChain(name.clone()));
    }
    operations.extend(chain.rules.iter().map(|rule| Operation::AddRule(name.clone(), rule.clone())));
}

fn map_changes(operations: &mut Vec<Operation>, name: &SetName, map: &VerdictMap, table: &Table) {
    let nothing = BTreeMap::new();
    let held = table.maps.get(name).and_then(Option::as_ref).map_or(&nothing, |held| &held.elements);
    let gone = held.iter().filter(|(key, chain)| map.elements.get(*key) != Some(*chain));
    let gone: BTreeSet<_> = gone.map(|(key, _)| key.clone()).collect();
    let new = map.elements.iter().filter(|(key, chain)| held.get(*key) != Some(*chain));
    let new: BTreeMap<_, _> = new.map(|(key, chain)| (key.clone(), chain.clone())).collect();
    if !gone.is_empty() {
        operations.push(Operation::DeleteMapElements(name.clone(), gone));
    }
    if !new.is_empty() {
        operations
            .push(Operation::AddMapElements(name.clone(), VerdictMap { kind: map.kind, elements: new }));
    }
}

/// First what refers to others is emptied, then everything goes.
fn removals(desired: &Ruleset, table: &Table) -> Vec<Operation> {
    let chains: Vec<_> = unwanted(desired, table).filter(|(_, chain)| chain.base == Ok(None)).collect();
    let maps: Vec<_> = table.maps.keys().filter(|name| !desired.maps.contains_key(*name)).collect();
    let sets = table.sets.keys().filter(|name| !desired.sets.contains_key(*name));
    let mut operations = Vec::new();
    let full = chains.iter().filter(|(_, chain)| !chain.rules.is_empty());
    operations.extend(full.map(|(name, _)| Operation::FlushChain((*name).clone())));
    operations.extend(maps.into_iter().map(|name| Operation::DeleteMap(name.clone())));
    operations.extend(chains.iter().map(|(name, _)| Operation::DeleteChain((*name).clone())));
    operations.extend(sets.map(|name| Operation::DeleteSet(name.clone())));
    operations
}
