//! The ruleset as it is now, and what changed in it since somebody last asked.
//!
//! Every chain, set and map that something leads to stays; what nothing leads to any more goes when the pass is over
//! ([`Output::sweep`]), so that what is left by one rule and taken up by another in the same pass is not touched. Base chains
//! stay until they are removed by name.

use std::collections::{BTreeSet, HashMap};

use crate::delta::Delta;
use crate::ruleset::{
    Action, Chain, ChainName, Element, Interface, Match, PortSet, Rule, Ruleset, Set, SetName, VerdictMap,
};

/// A part of a ruleset that others lead to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    Chain(ChainName),
    Set(SetName),
    Map(SetName),
}

#[derive(Debug, Default)]
pub(crate) struct Output {
    ruleset: Ruleset,
    /// `None` until somebody has asked for the first time: then everything is new.
    delta: Option<Delta>,
    uses: HashMap<Part, usize>,
    /// What may have no use.
    loose: BTreeSet<Part>,
}

impl Output {
    pub(crate) fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    pub(crate) fn into_ruleset(self) -> Ruleset {
        self.ruleset
    }

    /// Returns what changed since this was last called; `None` the first time.
    pub(crate) fn take_delta(&mut self) -> Option<Delta> {
        let delta = self.delta.replace(Delta::default());
        delta.map(|mut delta| {
            delta.settle(&self.ruleset);
            delta
        })
    }

    pub(crate) fn set_warnings(&mut self, warnings: BTreeSet<crate::ruleset::Warning>) {
        self.ruleset.warnings = warnings;
    }

    pub(crate) fn has_chain(&self, name: &ChainName) -> bool {
        self.ruleset.chains.contains_key(name)
    }

    /// Reports whether a chain, or one that it leads to, looks at one of some sets.
    pub(crate) fn looks_at(&self, chain: &ChainName, sets: &BTreeSet<SetName>) -> bool {
        self.has_part(chain, &|part| matches!(part, Part::Set(set) if sets.contains(set)))
    }

    /// Reports whether a chain leads to another, by whichever others.
    pub(crate) fn leads_to(&self, chain: &ChainName, other: &ChainName) -> bool {
        self.has_part(chain, &|part| matches!(part, Part::Chain(chain) if chain == other))
    }

    /// Reports whether a chain, or one that it leads to, has such a part.
    fn has_part(&self, chain: &ChainName, wanted: &dyn Fn(&Part) -> bool) -> bool {
        let leads = |chain: &ChainName| wanted(&Part::Chain(chain.clone())) || self.has_part(chain, wanted);
        let rules = self.ruleset.chains.get(chain).map_or(&[][..], |chain| &chain.rules);
        parts(rules).any(|part| match &part {
            Part::Set(_) => wanted(&part),
            Part::Chain(chain) => leads(chain),
            Part::Map(map) => self.ruleset.maps.get(map).is_some_and(|map| map.elements.values().any(leads)),
        })
    }

    pub(crate) fn put_chain(&mut self, name: &ChainName, chain: Chain) {
        if self.ruleset.chains.get(name) == Some(&chain) {
            return;
        }
        parts(&chain.rules).for_each(|part| self.take_up(part));
        if let Some(delta) = &mut self.delta {
            delta.chain(name, self.ruleset.chains.get(name).cloned(), Some(&chain));
        }
        match self.ruleset.chains.insert(name.clone(), chain) {
            Some(was) => parts(&was.rules).for_each(|part| self.let_go(part)),
            None => self.loosen(Part::Chain(name.clone())),
        }
    }

    /// Removes a chain at once, whatever leads to it.
    pub(crate) fn remove_chain(&mut self, name: &ChainName) {
        let Some(was) = self.ruleset.chains.remove(name) else { return };
        parts(&was.rules).for_each(|part| self.let_go(part));
        if let Some(delta) = &mut self.delta {
            delta.chain(name, Some(was), None);
        }
    }

    pub(crate) fn set(&self, name: &SetName) -> Option<&Set> {
        self.ruleset.sets.get(name)
    }

    /// Makes a set, or makes the one of the name hold exactly this.
    pub(crate) fn put_set(&mut self, name: &SetName, set: Set) {
        let Some(held) = self.ruleset.sets.get_mut(name) else {
            if let Some(delta) = &mut self.delta {
                delta.set_made(name, &set);
            }
            self.ruleset.sets.insert(name.clone(), set);
            return self.loosen(Part::Set(name.clone()));
        };
        let Some(delta) = &mut self.delta else {
            *held = set;
            return;
        };
        held.elements.difference(&set.elements).for_each(|gone| delta.element(name, held, gone, false));
        set.elements.difference(&held.elements).for_each(|new| delta.element(name, held, new, true));
        *held = set;
    }

    pub(crate) fn insert_element(&mut self, name: &SetName, element: Element) {
        let Some(set) = self.ruleset.sets.get_mut(name) else { return };
        if let Some(delta) = &mut self.delta
            && !set.elements.contains(&element)
        {
            delta.element(name, set, &element, true);
        }
        set.elements.insert(element);
    }

    pub(crate) fn remove_element(&mut self, name: &SetName, element: &Element) {
        let Some(set) = self.ruleset.sets.get_mut(name) else { return };
        if set.elements.remove(element)
            && let Some(delta) = &mut self.delta
        {
            delta.element(name, set, element, false);
        }
    }

    /// Makes a map, or makes the one of the name lead exactly so.
    pub(crate) fn put_map(&mut self, name: &SetName, map: &VerdictMap) {
        if !self.ruleset.maps.contains_key(name) {
            let empty = VerdictMap { kind: map.kind, elements: [].into() };
            if let Some(delta) = &mut self.delta {
                delta.map_made(name, &empty);
            }
            self.ruleset.maps.insert(name.clone(), empty);
            self.loosen(Part::Map(name.clone()));
        }
        let held = &self.ruleset.maps[name].elements;
        let gone: Vec<Element> =
            held.keys().filter(|key| !map.elements.contains_key(*key)).cloned().collect();
        gone.iter().for_each(|key| self.lead(name, key, None));
        map.elements.iter().for_each(|(key, chain)| self.lead(name, key, Some(chain)));
    }

    /// Makes a map lead from a key to a chain, or nowhere.
    pub(crate) fn lead(&mut self, name: &SetName, key: &Element, chain: Option<&ChainName>) {
        let Some(map) = self.ruleset.maps.get_mut(name) else { return };
        let led = map.elements.get(key).cloned();
        if led.as_ref() == chain {
            return;
        }
        match chain {
            Some(chain) => map.elements.insert(key.clone(), chain.clone()),
            None => map.elements.remove(key),
        };
        if let Some(delta) = &mut self.delta {
            delta.entry(name, map, key, led.as_ref(), chain);
        }
        chain.into_iter().for_each(|chain| self.take_up(Part::Chain(chain.clone())));
        led.into_iter().for_each(|chain| self.let_go(Part::Chain(chain)));
    }

    /// Removes what nothing leads to, and returns it.
    pub(crate) fn sweep(&mut self) -> Vec<Part> {
        let mut swept = Vec::new();
        while let Some(part) = self.loose.pop_first() {
            if self.uses.contains_key(&part) {
                continue;
            }
            match &part {
                Part::Chain(name) => {
                    if self.ruleset.chains.get(name).is_none_or(|chain| chain.base.is_some()) {
                        continue;
                    }
                    self.remove_chain(name);
                }
                Part::Set(name) => {
                    let Some(was) = self.ruleset.sets.remove(name) else { continue };
                    if let Some(delta) = &mut self.delta {
                        delta.set_removed(name, was);
                    }
                }
                Part::Map(name) => {
                    let Some(was) = self.ruleset.maps.remove(name) else { continue };
                    was.elements.values().for_each(|chain| self.let_go(Part::Chain(chain.clone())));
                    if let Some(delta) = &mut self.delta {
                        delta.map_removed(name, was);
                    }
                }
            }
            swept.push(part);
        }
        swept
    }

    fn take_up(&mut self, part: Part) {
        *self.uses.entry(part).or_default() += 1;
    }

    fn let_go(&mut self, part: Part) {
        let Some(uses) = self.uses.get_mut(&part) else { return };
        *uses -= 1;
        if *uses == 0 {
            self.uses.remove(&part);
            self.loose.insert(part);
        }
    }

    fn loosen(&mut self, part: Part) {
        if !self.uses.contains_key(&part) {
            self.loose.insert(part);
        }
    }
}

/// Walks what rules lead to.
pub(crate) fn parts(rules: &[Rule]) -> impl Iterator<Item = Part> + '_ {
    rules.iter().flat_map(|rule| {
        let sets = rule.matches.iter().filter_map(|m| match m {
            Match::InSet(_, _, _, set)
            | Match::SocketInSet(_, _, _, set)
            | Match::FlowInSet(_, _, set)
            | Match::SourceAllowed(_, set)
            | Match::Port(_, _, PortSet::InSet(set))
            | Match::Interface(_, _, Interface::InSet(set)) => Some(Part::Set(set.clone())),
            Match::Family(_)
            | Match::Protocol(..)
            | Match::Network(..)
            | Match::Port(_, _, PortSet::Range(..))
            | Match::IcmpType(..)
            | Match::IcmpCode(..)
            | Match::Interface(_, _, Interface::Prefix(_) | Interface::Named(_))
            | Match::Established
            | Match::Withdrawn(_)
            | Match::TrackedOrInvalid
            | Match::Accepted
            | Match::Local
            | Match::FromLocal
            | Match::Translated
            | Match::Anycast => None,
        });
        let led = match &rule.action {
            Action::Jump(chain) | Action::Goto(chain) => Some(Part::Chain(chain.clone())),
            Action::Dispatch(_, map) | Action::DispatchPort(_, map) => Some(Part::Map(map.clone())),
            Action::Accept
            | Action::Drop
            | Action::Reject
            | Action::Return
            | Action::Log { .. }
            | Action::Notrack
            | Action::MarkAccepted
            | Action::ClearMark
            | Action::SourceNat(_) => None,
        };
        sets.chain(led)
    })
}
