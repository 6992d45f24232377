//! The sets that rules look things up in: one for each meaning, however many rules share it.
//!
//! What selectors select is kept as it changes: an endpoint that comes, goes or changes its labels adds and removes its own
//! addresses in the sets whose selectors it matches, and no other set is looked at.

mod addresses;

use std::collections::{BTreeSet, HashMap};

use calico_model::resource::{EndpointPort, ResourceKey};
use calico_model::{Cidr, Family, Labels, Name, Selector};
use slab::Slab;

use crate::index::{Carried, Index, SelectorId};
use crate::output::Output;
use crate::ruleset::{Element, Elements, PortSet, Set, SetKind, SetName};
use addresses::Addresses;

/// Something that selectors in rules select: a workload, a host endpoint or a network set.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Member {
    pub(crate) nets: Box<[Cidr]>,
    pub(crate) ports: Box<[EndpointPort]>,
}

/// What a set holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Meaning {
    /// Networks, and the addresses that belong to what any of some selectors selects.
    Addresses { family: Family, selectors: BTreeSet<Selector>, nets: BTreeSet<Cidr> },
    /// The sockets that have a named port, of what a selector selects.
    Sockets { family: Family, selector: Selector, port: Box<str> },
}

/// A set whose elements follow what its selectors select.
#[derive(Debug)]
struct Live {
    meaning: Meaning,
    name: SetName,
    selectors: Vec<SelectorId>,
    holdings: Holdings,
}

/// What several members may hold at once.
#[derive(Debug)]
enum Holdings {
    Addresses(Addresses),
    /// How often a socket is held beyond once.
    Sockets(HashMap<Element, u32>),
}

/// The sets of a ruleset, and everything that may be in them.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    pub(crate) out: Output,
    members: Index<Member>,
    live: Slab<Live>,
    by_meaning: HashMap<Meaning, usize>,
    by_name: HashMap<SetName, usize>,
    of_selector: HashMap<SelectorId, Vec<usize>>,
    /// The names of sets that have become another kind of set since [`take_renamed`](Self::take_renamed) was called.
    renamed: BTreeSet<SetName>,
}

impl Sets {
    /// Adds a member, or replaces it.
    pub(crate) fn put(&mut self, key: &ResourceKey, carried: &Carried<'_>, member: Member) {
        let (id, former) = self.members.put(key, carried, member.clone());
        let matched = self.members.matched(id).to_vec();
        let Some(former) = former else { return self.change(&matched, &member, Change::Added) };
        if former.payload == member {
            let lost: Vec<_> = former.matched.iter().copied().filter(|s| !matched.contains(s)).collect();
            let won: Vec<_> = matched.iter().copied().filter(|s| !former.matched.contains(s)).collect();
            self.change(&won, &member, Change::Added);
            self.change(&lost, &member, Change::Removed);
        } else {
            // What stays is added before it is removed, so that it never leaves.
            self.change(&matched, &member, Change::Added);
            self.change(&former.matched, &former.payload, Change::Removed);
        }
    }

    /// Removes a member, if there is one of that key.
    pub(crate) fn remove(&mut self, key: &ResourceKey) {
        if let Some(former) = self.members.remove(key) {
            self.change(&former.matched, &former.payload, Change::Removed);
        }
    }

    /// Sets the labels that a profile gives to its members.
    pub(crate) fn set_parent(&mut self, name: &Name, labels: Option<&Labels>) {
        for changed in self.members.set_parent(name, labels) {
            let member = self.members.payload(changed.item).clone();
            let change = if changed.matches { Change::Added } else { Change::Removed };
            self.change(&[changed.selector], &member, change);
        }
    }

    /// Returns the sets that have become another kind of set, and so have another name, since this was last called.
    pub(crate) fn take_renamed(&mut self) -> BTreeSet<SetName> {
        std::mem::take(&mut self.renamed)
    }

    /// Forgets a set that no rule looks at.
    pub(crate) fn forget(&mut self, name: &SetName) {
        let Some(id) = self.by_name.remove(name) else { return };
        let live = self.live.remove(id);
        self.by_meaning.remove(&live.meaning);
        for selector in live.selectors {
            if let Some(live) = self.of_selector.get_mut(&selector) {
                live.retain(|other| *other != id);
                if live.is_empty() {
                    self.of_selector.remove(&selector);
                }
            }
            self.members.release_selector(selector);
        }
    }

    /// Adds or removes what a member holds in every set of some selectors.
    fn change(&mut self, selectors: &[SelectorId], member: &Member, change: Change) {
        for selector in selectors {
            let Some(sets) = self.of_selector.get(selector) else { continue };
            for id in sets {
                let live = &mut self.live[*id];
                match (&live.meaning, &mut live.holdings) {
                    (Meaning::Addresses { family, .. }, Holdings::Addresses(addresses)) => {
                        for net in member.nets.iter().filter(|net| net.family() == *family) {
                            let renamed = match change {
                                Change::Added => addresses.add(&live.name, *net, &mut self.out),
                                Change::Removed => addresses.remove(&live.name, *net, &mut self.out),
                            };
                            if renamed {
                                // Under its new name the set is another; under the old one it goes with the rules that look at it.
                                let set = addresses.set(&live.name, &self.out);
                                let name = live.meaning.name(set.kind);
                                self.out.put_set(&name, set);
                                self.by_name.remove(&live.name);
                                self.by_name.insert(name.clone(), *id);
                                self.renamed.insert(std::mem::replace(&mut live.name, name));
                            }
                        }
                    }
                    (Meaning::Sockets { family, port, .. }, Holdings::Sockets(more)) => {
                        for socket in sockets(member, port, *family) {
                            match change {
                                Change::Added => add_socket(more, &live.name, socket, &mut self.out),
                                Change::Removed => remove_socket(more, &live.name, &socket, &mut self.out),
                            }
                        }
                    }
                    (Meaning::Addresses { .. }, Holdings::Sockets(_))
                    | (Meaning::Sockets { .. }, Holdings::Addresses(_)) => {}
                }
            }
        }
    }

    /// Returns the set of the addresses that belong to what a selector selects, empty or not.
    pub(crate) fn selected(&mut self, selector: &Selector, family: Family) -> SetName {
        let selectors = [selector.clone()].into();
        self.live(Meaning::Addresses { family, selectors, nets: BTreeSet::new() })
    }

    /// Returns the set of some networks of a family.
    pub(crate) fn networks(&mut self, cidrs: &[Cidr], family: Family) -> SetName {
        let nets = cidrs.iter().copied().filter(|net| net.family() == family).collect();
        self.live(Meaning::Addresses { family, selectors: BTreeSet::new(), nets })
    }

    /// Returns the set of the sockets that have a named port, of what a selector selects or of everything.
    pub(crate) fn sockets(&mut self, selector: Option<&Selector>, port: &str, family: Family) -> SetName {
        let selector = selector.cloned().unwrap_or_default();
        self.live(Meaning::Sockets { family, selector, port: port.into() })
    }

    /// Returns the set of some networks and of the addresses that belong to what any of some selectors selects.
    pub(crate) fn any_of(
        &mut self,
        family: Family,
        selectors: BTreeSet<Selector>,
        nets: BTreeSet<Cidr>,
    ) -> SetName {
        self.live(Meaning::Addresses { family, selectors, nets })
    }

    /// Returns what is in a set of addresses; `None` for any other set.
    pub(crate) fn addresses(&self, name: &SetName) -> Option<(&BTreeSet<Selector>, &BTreeSet<Cidr>)> {
        match &self.live[*self.by_name.get(name)?].meaning {
            Meaning::Addresses { selectors, nets, .. } => Some((selectors, nets)),
            Meaning::Sockets { .. } => None,
        }
    }

    /// Returns some ranges of ports as a match names them: one as it is, several as a set.
    pub(crate) fn port_set(&mut self, ranges: &[(u16, u16)]) -> PortSet {
        let set = Set::ports(ranges.iter().copied());
        match set.elements.iter().collect::<Vec<_>>().as_slice() {
            [Element::Ports(first, last)] => PortSet::Range(*first, *last),
            _ => PortSet::InSet(self.ports(set)),
        }
    }

    fn ports(&mut self, set: Set) -> SetName {
        let texts: Vec<String> = set.elements.iter().map(|element| format!("{element:?}")).collect();
        let name = SetName::digest("ports", texts.iter().map(String::as_str));
        if self.out.set(&name).is_none() {
            self.out.put_set(&name, set);
        }
        name
    }

    /// Returns the set of a fixed name, which now holds this.
    pub(crate) fn fixed(&mut self, words: &str, set: Set) -> SetName {
        let name = SetName::fixed(words);
        self.out.put_set(&name, set);
        name
    }

    /// Returns the set of a meaning, which is made when it is new.
    fn live(&mut self, meaning: Meaning) -> SetName {
        if let Some(id) = self.by_meaning.get(&meaning) {
            return self.live[*id].name.clone();
        }
        let wanted: Vec<&Selector> = match &meaning {
            Meaning::Addresses { selectors, .. } => selectors.iter().collect(),
            Meaning::Sockets { selector, .. } => vec![selector],
        };
        let selectors: Vec<SelectorId> =
            wanted.into_iter().map(|selector| self.members.use_selector(selector)).collect();
        let matching = selectors.iter().flat_map(|selector| self.members.matching(*selector));
        let members: Vec<&Member> = matching.map(|item| self.members.payload(item)).collect();
        let (holdings, set) = match &meaning {
            Meaning::Addresses { family, nets, .. } => {
                let held = members.iter().flat_map(|member| member.nets.iter());
                let all = held.chain(nets).copied().filter(|net| net.family() == *family);
                let (addresses, set) = Addresses::of(all.collect(), *family);
                (Holdings::Addresses(addresses), set)
            }
            Meaning::Sockets { family, port, .. } => {
                let (mut more, mut elements) = (HashMap::new(), Elements::new());
                for socket in members.iter().flat_map(|member| sockets(member, port, *family)) {
                    if elements.contains(&socket) {
                        *more.entry(socket).or_default() += 1;
                    } else {
                        elements.insert(socket);
                    }
                }
                (Holdings::Sockets(more), Set { kind: SetKind::Socket(*family), elements })
            }
        };
        let name = meaning.name(set.kind);
        self.out.put_set(&name, set);
        let id = self.live.insert(Live { meaning: meaning.clone(), name: name.clone(), selectors, holdings });
        for selector in &self.live[id].selectors {
            self.of_selector.entry(*selector).or_default().push(id);
        }
        self.by_meaning.insert(meaning, id);
        self.by_name.insert(name.clone(), id);
        name
    }
}

/// Makes a hash set when all are single addresses, else an interval set.
pub(crate) fn address_set(nets: Vec<Cidr>, family: Family) -> Set {
    Addresses::of(nets, family).1
}

#[derive(Clone, Copy)]
enum Change {
    Added,
    Removed,
}

impl Meaning {
    /// Names tell hash sets from interval sets, and the families apart.
    fn name(&self, kind: SetKind) -> SetName {
        let family = |family: &Family, v4, v6| if *family == Family::V4 { v4 } else { v6 };
        match self {
            Meaning::Addresses { family: of, selectors, nets } => {
                let word = if kind == SetKind::Network(*of) {
                    family(of, "net4", "net6")
                } else {
                    family(of, "addr4", "addr6")
                };
                let selectors: Vec<String> = selectors.iter().map(Selector::id).collect();
                let nets: Vec<String> = nets.iter().map(Cidr::to_string).collect();
                SetName::digest(word, selectors.iter().chain(&nets).map(String::as_str))
            }
            Meaning::Sockets { family: of, selector, port } => {
                SetName::digest(family(of, "port4", "port6"), [selector.id().as_str(), port])
            }
        }
    }
}

/// Walks the sockets that have a named port.
fn sockets<'m>(member: &'m Member, port: &'m str, family: Family) -> impl Iterator<Item = Element> + 'm {
    let named = member.ports.iter().filter(move |own| own.name == *port && own.protocol.has_ports());
    named.flat_map(move |port| {
        let addrs = member.nets.iter().filter(move |net| net.family() == family && net.is_host());
        addrs.map(move |net| Element::Socket(net.addr(), port.protocol, port.port))
    })
}

fn add_socket(more: &mut HashMap<Element, u32>, name: &SetName, socket: Element, out: &mut Output) {
    if out.set(name).is_some_and(|set| set.elements.contains(&socket)) {
        *more.entry(socket).or_default() += 1;
    } else {
        out.insert_element(name, socket);
    }
}

fn remove_socket(more: &mut HashMap<Element, u32>, name: &SetName, socket: &Element, out: &mut Output) {
    match more.get_mut(socket) {
        Some(1) => drop(more.remove(socket)),
        Some(count) => *count -= 1,
        None => out.remove_element(name, socket),
    }
}
