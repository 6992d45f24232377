//! The sets that rules look things up in: one for each meaning, however many rules share it.

use std::collections::BTreeMap;

use calico_model::{Cidr, Family, Selector};

use crate::members::Members;
use crate::ruleset::{Element, Set, SetKind, SetName};

/// Sets being gathered while rules are made.
#[derive(Debug)]
pub(crate) struct SetTable<'m, 's> {
    members: &'m Members<'s>,
    of_selector: BTreeMap<(Selector, Family), SetName>,
    sets: BTreeMap<SetName, Set>,
}

impl<'m, 's> SetTable<'m, 's> {
    pub(crate) fn new(members: &'m Members<'s>) -> Self {
        Self { members, of_selector: BTreeMap::new(), sets: BTreeMap::new() }
    }

    pub(crate) fn finish(self) -> BTreeMap<SetName, Set> {
        self.sets
    }

    /// Returns the set of the addresses that belong to what a selector selects, empty or not.
    ///
    /// Single addresses make a hash set; as soon as one network is among them it is an interval set, of another name.
    pub(crate) fn selected(&mut self, selector: &Selector, family: Family) -> SetName {
        let key = (selector.clone(), family);
        if let Some(name) = self.of_selector.get(&key) {
            return name.clone();
        }
        let set = address_set(self.members.networks(selector, family).collect(), family);
        let name = SetName::digest(address_word(&set, family), [selector.id().as_str()]);
        self.of_selector.insert(key, name.clone());
        self.sets.insert(name.clone(), set);
        name
    }

    /// Returns the set of the sockets that have a named port, of what a selector selects or of everything.
    pub(crate) fn sockets(&mut self, selector: Option<&Selector>, port: &str, family: Family) -> SetName {
        let scope = selector.map_or_else(String::new, Selector::id);
        let word = match family {
            Family::V4 => "port4",
            Family::V6 => "port6",
        };
        let name = SetName::digest(word, [scope.as_str(), port]);
        let members = self.members;
        self.sets.entry(name.clone()).or_insert_with(|| {
            let sockets = members.sockets(selector, port, family);
            let elements =
                sockets.map(|(addr, port)| Element::Socket(addr, port.protocol, port.port)).collect();
            Set { kind: SetKind::Socket(family), elements }
        });
        name
    }

    /// Returns the set of some networks of a family, named by what they are.
    pub(crate) fn networks(&mut self, cidrs: &[Cidr], family: Family) -> SetName {
        let set = address_set(cidrs.iter().copied().filter(|net| net.family() == family).collect(), family);
        let mut texts: Vec<String> = cidrs.iter().map(Cidr::to_string).collect();
        texts.sort();
        texts.dedup();
        let word = format!("{}-nets", address_word(&set, family));
        let name = SetName::digest(&word, texts.iter().map(String::as_str));
        self.sets.insert(name.clone(), set);
        name
    }

    /// Returns the set of some ranges of ports, named by what they are.
    pub(crate) fn ports(&mut self, ranges: &[(u16, u16)]) -> SetName {
        let set = Set::ports(ranges.iter().copied());
        let texts: Vec<String> = set.elements.iter().map(|element| format!("{element:?}")).collect();
        let name = SetName::digest("ports", texts.iter().map(String::as_str));
        self.sets.insert(name.clone(), set);
        name
    }

    /// Adds a set of a fixed name.
    pub(crate) fn fixed(&mut self, words: &str, set: Set) -> SetName {
        let name = SetName::fixed(words);
        self.sets.insert(name.clone(), set);
        name
    }
}

/// Makes a hash set when all are single addresses, else an interval set.
pub(crate) fn address_set(cidrs: Vec<Cidr>, family: Family) -> Set {
    if cidrs.iter().all(Cidr::is_host) {
        let elements = cidrs.iter().map(|net| Element::Address(net.addr())).collect();
        return Set { kind: SetKind::Address(family), elements };
    }
    Set::networks(family, cidrs)
}

/// The word by which names tell hash sets from interval sets, and the families apart.
fn address_word(set: &Set, family: Family) -> &'static str {
    match (set.kind == SetKind::Network(family), family) {
        (false, Family::V4) => "addr4",
        (false, Family::V6) => "addr6",
        (true, Family::V4) => "net4",
        (true, Family::V6) => "net6",
    }
}
