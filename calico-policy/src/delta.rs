//! What changed in a ruleset, as a value.

use std::collections::{BTreeMap, BTreeSet};

use crate::ruleset::{ChainName, Element, Elements, Ruleset, Set, SetName, VerdictMap};

/// What changed in a ruleset: only that, before and after.
///
/// A chain is in [`before`](Self::before), [`after`](Self::after) or both, whole. A set or map that was made or removed is in
/// one of them; one that changed is in both, with the elements that are gone in `before` and those that are new in `after`.
/// Nothing is in here that is the same again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// What was, of what changed.
    pub before: Ruleset,
    /// What is, of what changed.
    pub after: Ruleset,
    /// How many elements each set of `after` holds in all.
    pub sizes: BTreeMap<SetName, usize>,
}

impl Delta {
    /// Reports whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let nothing = |r: &Ruleset| r.sets.is_empty() && r.maps.is_empty() && r.chains.is_empty();
        nothing(&self.before) && nothing(&self.after)
    }

    /// Returns what is different between two rulesets.
    #[must_use]
    pub fn between(before: &Ruleset, after: &Ruleset) -> Self {
        let mut delta = Delta::default();
        for (name, set) in &before.sets {
            match after.sets.get(name) {
                Some(is) if is.kind == set.kind => {
                    set.elements
                        .difference(&is.elements)
                        .for_each(|gone| delta.element(name, is, gone, false));
                    is.elements.difference(&set.elements).for_each(|new| delta.element(name, is, new, true));
                }
                Some(_) | None => delta.set_removed(name, set.clone()),
            }
        }
        let new = |name: &SetName, set: &Set| before.sets.get(name).is_none_or(|was| was.kind != set.kind);
        after
            .sets
            .iter()
            .filter(|(name, set)| new(name, set))
            .for_each(|(name, set)| delta.set_made(name, set));
        for (name, map) in &before.maps {
            if !after.maps.contains_key(name) {
                delta.map_removed(name, map.clone());
            }
        }
        for (name, map) in &after.maps {
            let was = before.maps.get(name);
            if was.is_none() {
                delta.map_made(name, map);
            }
            let keys = map.elements.keys().chain(was.iter().flat_map(|was| was.elements.keys()));
            for key in keys.collect::<BTreeSet<_>>() {
                let (led, leads) = (was.and_then(|was| was.elements.get(key)), map.elements.get(key));
                if led != leads {
                    delta.entry(name, map, key, led, leads);
                }
            }
        }
        for name in before.chains.keys().chain(after.chains.keys()).collect::<BTreeSet<_>>() {
            let (was, is) = (before.chains.get(name), after.chains.get(name));
            if was != is {
                delta.chain(name, was.cloned(), is);
            }
        }
        delta.settle(after);
        delta
    }

    /// Makes the change in a copy of what it was taken from.
    pub fn apply_to(&self, ruleset: &mut Ruleset) {
        let Delta { before, after, .. } = self;
        for (name, gone) in &before.sets {
            match (after.sets.get(name), ruleset.sets.get_mut(name)) {
                (Some(_), Some(set)) => set.elements.retain(|element| !gone.elements.contains(element)),
                _ => drop(ruleset.sets.remove(name)),
            }
        }
        for (name, new) in &after.sets {
            match ruleset.sets.get_mut(name) {
                Some(set) => set.elements.extend(new.elements.iter().cloned()),
                None => drop(ruleset.sets.insert(name.clone(), new.clone())),
            }
        }
        for (name, gone) in &before.maps {
            match (after.maps.get(name), ruleset.maps.get_mut(name)) {
                (Some(_), Some(map)) => map.elements.retain(|key, _| !gone.elements.contains_key(key)),
                _ => drop(ruleset.maps.remove(name)),
            }
        }
        for (name, new) in &after.maps {
            let map = ruleset
                .maps
                .entry(name.clone())
                .or_insert_with(|| VerdictMap { kind: new.kind, elements: [].into() });
            map.elements.extend(new.elements.clone());
        }
        ruleset.chains.retain(|name, _| !before.chains.contains_key(name));
        ruleset.chains.extend(after.chains.clone());
        ruleset.warnings.clone_from(&after.warnings);
    }

    /// Notes a chain that is now another, none if it is gone.
    pub(crate) fn chain(
        &mut self,
        name: &ChainName,
        was: Option<crate::ruleset::Chain>,
        is: Option<&crate::ruleset::Chain>,
    ) {
        let touched = self.before.chains.contains_key(name) || self.after.chains.contains_key(name);
        if let Some(was) = was.filter(|_| !touched) {
            self.before.chains.insert(name.clone(), was);
        }
        match is {
            Some(is) => self.after.chains.insert(name.clone(), is.clone()),
            None => self.after.chains.remove(name),
        };
    }

    /// Notes that an element came to be in a set, or ceased to.
    pub(crate) fn element(&mut self, name: &SetName, set: &Set, element: &Element, is_in: bool) {
        let known = self.after.sets.contains_key(name);
        let is_new = known && !self.before.sets.contains_key(name);
        let nothing = || Set { kind: set.kind, elements: Elements::new() };
        let after = self.after.sets.entry(name.clone()).or_insert_with(nothing);
        if is_new {
            note(&mut after.elements, element, is_in);
            return;
        }
        let before = self.before.sets.entry(name.clone()).or_insert_with(nothing);
        let (own, other) = if is_in { (after, before) } else { (before, after) };
        if !other.elements.remove(element) {
            own.elements.insert(element.clone());
        }
    }

    /// Notes a set that was made.
    pub(crate) fn set_made(&mut self, name: &SetName, set: &Set) {
        let mut is = set.clone();
        if let Some(was) = self.before.sets.get_mut(name) {
            // It was removed and is back: only the difference counts.
            is.elements = set.elements.difference(&was.elements).cloned().collect();
            was.elements.retain(|element| !set.elements.contains(element));
        }
        self.after.sets.insert(name.clone(), is);
    }

    /// Notes a set that was removed.
    pub(crate) fn set_removed(&mut self, name: &SetName, set: Set) {
        let mut was = set;
        match (self.before.sets.remove(name), self.after.sets.remove(name)) {
            (None, Some(_)) => return,
            (Some(gone), Some(new)) => {
                was.elements.retain(|element| !new.elements.contains(element));
                was.elements.extend(gone.elements);
            }
            (Some(_) | None, None) => {}
        }
        self.before.sets.insert(name.clone(), was);
    }

    /// Notes that a map was made, with nothing in it yet.
    pub(crate) fn map_made(&mut self, name: &SetName, map: &VerdictMap) {
        self.after.maps.insert(name.clone(), VerdictMap { kind: map.kind, elements: [].into() });
    }

    /// Notes where a map leads now, and where it led.
    pub(crate) fn entry(
        &mut self,
        name: &SetName,
        map: &VerdictMap,
        key: &Element,
        led: Option<&ChainName>,
        leads: Option<&ChainName>,
    ) {
        let known = self.after.maps.contains_key(name);
        let is_new = known && !self.before.maps.contains_key(name);
        let nothing = || VerdictMap { kind: map.kind, elements: [].into() };
        let after = &mut self.after.maps.entry(name.clone()).or_insert_with(nothing).elements;
        let touched_after = after.contains_key(key);
        match leads {
            Some(chain) => after.insert(key.clone(), chain.clone()),
            None => after.remove(key),
        };
        if is_new {
            return;
        }
        let before = &mut self.before.maps.entry(name.clone()).or_insert_with(nothing).elements;
        if let Some(chain) = led.filter(|_| !touched_after && !before.contains_key(key)) {
            before.insert(key.clone(), chain.clone());
        }
        if before.get(key).is_some_and(|was| Some(was) == after.get(key)) {
            before.remove(key);
            after.remove(key);
        }
    }

    /// Notes that a map was removed, with all that is in it.
    pub(crate) fn map_removed(&mut self, name: &SetName, map: VerdictMap) {
        let mut was = map;
        match (self.before.maps.remove(name), self.after.maps.remove(name)) {
            (None, Some(_)) => return,
            (Some(gone), Some(new)) => {
                was.elements.retain(|key, _| !new.elements.contains_key(key));
                was.elements.extend(gone.elements);
            }
            (Some(_) | None, None) => {}
        }
        self.before.maps.insert(name.clone(), was);
    }

    /// Leaves out what is the same again, and tells what holds of all that is now.
    pub(crate) fn settle(&mut self, all: &Ruleset) {
        let Delta { before, after, sizes } = self;
        after.warnings.clone_from(&all.warnings);
        before.chains.retain(|name, was| {
            let same = after.chains.get(name) == Some(was);
            if same {
                after.chains.remove(name);
            }
            !same
        });
        before.sets.retain(|name, was| {
            let same =
                was.elements.is_empty() && after.sets.get(name).is_some_and(|set| set.elements.is_empty());
            if same {
                after.sets.remove(name);
            }
            !same
        });
        before.maps.retain(|name, was| {
            let same =
                was.elements.is_empty() && after.maps.get(name).is_some_and(|map| map.elements.is_empty());
            if same {
                after.maps.remove(name);
            }
            !same
        });
        let size = |name: &SetName| all.sets.get(name).map(|set| (name.clone(), set.elements.len()));
        *sizes = after.sets.keys().filter_map(size).collect();
    }
}

fn note(elements: &mut Elements, element: &Element, is_in: bool) {
    if is_in {
        elements.insert(element.clone());
    } else {
        elements.remove(element);
    }
}
