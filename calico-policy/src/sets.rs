//! The sets that rules look things up in: one for each meaning, however many rules share it.
//!
//! A set is made when a chain that looks at it is put in place: of those that rules name while they are lowered and merged,
//! most are merged into others.
//!
//! What selectors select is kept as it changes: an endpoint that comes, goes or changes its labels adds and removes its own
//! addresses in the sets whose selectors it matches, and no other set is looked at.

mod addresses;
mod services;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use calico_model::resource::service::ServiceId;
use calico_model::resource::{EndpointPort, KubernetesEndpointSlice, Object, ResourceKey};
use calico_model::{Cidr, Family, Labels, Name, Selector};
use slab::Slab;

use crate::index::{Index, ItemId, SelectorId};
use crate::labels::Labelled;
use crate::output::{Output, Part, parts};
use crate::ruleset::{Chain, ChainName, Element, Elements, PortSet, Set, SetKind, SetName};
use addresses::Addresses;
use services::{Services, Slice};

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
    /// The sockets that have a port of one of some names, of what a selector selects.
    Sockets { family: Family, selector: Selector, ports: BTreeSet<Box<str>> },
    /// The endpoints of a service: their addresses, or their sockets.
    Service { family: Family, service: ServiceId, ends: Ends },
}

/// What of a service's endpoints is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ends {
    Addresses,
    Sockets,
}

/// A set whose elements follow what its selectors select.
#[derive(Debug)]
struct Live {
    meaning: Meaning,
    name: SetName,
    selectors: Vec<SelectorId>,
    holdings: Holdings,
}

/// What members hold of a family.
#[derive(Debug, Default)]
struct Held {
    /// How many hold something.
    members: usize,
    /// Those that hold a network which is no single address.
    wide: BTreeSet<ItemId>,
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
    held: BTreeMap<Family, Held>,
    /// The sets that rules of this pass name, and that no chain looks at yet.
    wanted: HashMap<SetName, Meaning>,
    /// The ids of the selectors that rules of this pass name: a digest each, which the names of several sets are made of.
    ids: HashMap<Selector, String>,
    live: Slab<Live>,
    by_meaning: HashMap<Meaning, usize>,
    by_name: HashMap<SetName, usize>,
    of_selector: HashMap<SelectorId, Vec<usize>>,
    services: Services,
    /// The names of sets that have become another kind of set since [`take_renamed`](Self::take_renamed) was called.
    renamed: BTreeSet<SetName>,
}

impl Sets {
    /// Adds a member, or replaces it.
    pub(crate) fn put(&mut self, key: &ResourceKey, labelled: Labelled, member: Member) {
        let (id, former) = self.members.put(key, labelled, member);
        count(&mut self.held, id, former.as_ref().map(|f| &f.payload), Some(self.members.payload(id)));
        if former.is_none() && self.members.matched(id).is_empty() {
            return;
        }
        let matched = self.members.matched(id).to_vec();
        let member = self.members.payload(id).clone();
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
        let Some(id) = self.members.id(key) else { return };
        if let Some(former) = self.members.remove(key) {
            count(&mut self.held, id, Some(&former.payload), None);
            self.change(&former.matched, &former.payload, Change::Removed);
        }
    }

    /// Puts some endpoints of a service in place, or takes them away.
    pub(crate) fn put_slice(&mut self, key: &ResourceKey, object: Option<&Object<KubernetesEndpointSlice>>) {
        let (former, slice) = self.services.put(key, object);
        let parts = |slice: &Slice| (slice.member.clone(), slice.service.clone());
        let (new, old) = (slice.map(parts), former.as_ref().map(parts));
        // What stays is added before it is removed, so that it never leaves.
        for (part, change) in [(new, Change::Added), (old, Change::Removed)] {
            let Some((member, service)) = part else { continue };
            for set in self.services.sets.get(&service).cloned().unwrap_or_default() {
                self.change_set(set, &member, change);
            }
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
        if let Meaning::Service { service, .. } = &live.meaning {
            self.services.forget(service, id);
        }
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
            let Some(sets) = self.of_selector.get_mut(selector) else { continue };
            let sets = std::mem::take(sets);
            sets.iter().for_each(|id| self.change_set(*id, member, change));
            self.of_selector.insert(*selector, sets);
        }
    }

    /// Adds or removes what a member holds in a set.
    fn change_set(&mut self, id: usize, member: &Member, change: Change) {
        let live = &mut self.live[id];
        let family = live.meaning.family();
        match &mut live.holdings {
            Holdings::Addresses(addresses) => {
                for net in member.nets.iter().filter(|net| net.family() == family) {
                    let renamed = match change {
                        Change::Added => addresses.add(&live.name, *net, &mut self.out),
                        Change::Removed => addresses.remove(&live.name, *net, &mut self.out),
                    };
                    if renamed {
                        // Under its new name the set is another; under the old one it goes with the rules that look at it.
                        let set = addresses.set(&live.name, &self.out);
                        let ids: Vec<String> = live.meaning.selectors().map(Selector::id).collect();
                        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                        let name = live.meaning.name(set.kind, &ids);
                        self.out.put_set(&name, set);
                        self.by_name.remove(&live.name);
                        self.by_name.insert(name.clone(), id);
                        self.renamed.insert(std::mem::replace(&mut live.name, name));
                    }
                }
            }
            Holdings::Sockets(more) => {
                for socket in sockets(member, live.meaning.ports(), family) {
                    match change {
                        Change::Added => add_socket(more, &live.name, socket, &mut self.out),
                        Change::Removed => remove_socket(more, &live.name, &socket, &mut self.out),
                    }
                }
            }
        }
    }

    /// Returns the set of the addresses that belong to what a selector selects, empty or not.
    pub(crate) fn selected(&mut self, selector: &Selector, family: Family) -> SetName {
        let selectors = [selector.clone()].into();
        self.want(Meaning::Addresses { family, selectors, nets: BTreeSet::new() })
    }

    /// Returns the set of some networks of a family.
    pub(crate) fn networks(&mut self, cidrs: &[Cidr], family: Family) -> SetName {
        let nets = cidrs.iter().copied().filter(|net| net.family() == family).collect();
        self.want(Meaning::Addresses { family, selectors: BTreeSet::new(), nets })
    }

    /// Returns the set of the sockets that have a port of one of some names, of what a selector selects or of everything.
    pub(crate) fn sockets(
        &mut self,
        selector: Option<&Selector>,
        ports: BTreeSet<Box<str>>,
        family: Family,
    ) -> SetName {
        let selector = selector.cloned().unwrap_or_default();
        self.want(Meaning::Sockets { family, selector, ports })
    }

    /// Returns the set of the addresses of a service's endpoints.
    pub(crate) fn service_addresses(&mut self, service: ServiceId, family: Family) -> SetName {
        self.want(Meaning::Service { family, service, ends: Ends::Addresses })
    }

    /// Returns the set of the sockets of a service's endpoints.
    pub(crate) fn service_sockets(&mut self, service: ServiceId, family: Family) -> SetName {
        self.want(Meaning::Service { family, service, ends: Ends::Sockets })
    }

    /// Returns the set of some networks and of the addresses that belong to what any of some selectors selects.
    pub(crate) fn any_of(
        &mut self,
        family: Family,
        selectors: BTreeSet<Selector>,
        nets: BTreeSet<Cidr>,
    ) -> SetName {
        self.want(Meaning::Addresses { family, selectors, nets })
    }

    /// Returns what is in a set of addresses; `None` for any other set.
    pub(crate) fn addresses(&self, name: &SetName) -> Option<(&BTreeSet<Selector>, &BTreeSet<Cidr>)> {
        let live = || self.by_name.get(name).map(|id| &self.live[*id].meaning);
        match self.wanted.get(name).or_else(live)? {
            Meaning::Addresses { selectors, nets, .. } => Some((selectors, nets)),
            Meaning::Sockets { .. } | Meaning::Service { .. } => None,
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

    /// Puts a chain in place, and makes the sets that it looks at.
    pub(crate) fn put_chain(&mut self, name: &ChainName, chain: Chain) {
        for part in parts(&chain.rules) {
            if let Part::Set(set) = part
                && let Some(meaning) = self.wanted.remove(&set)
            {
                self.make(meaning);
            }
        }
        self.out.put_chain(name, chain);
    }

    /// Forgets the sets that were named and that no chain came to look at.
    pub(crate) fn forget_wanted(&mut self) {
        self.wanted.clear();
        self.ids.clear();
        self.members.forget_idle_keys();
    }

    /// Returns the name of the set of a meaning, which is made once a chain looks at it.
    fn want(&mut self, meaning: Meaning) -> SetName {
        if let Some(id) = self.by_meaning.get(&meaning) {
            return self.live[*id].name.clone();
        }
        let kind = self.kind(&meaning);
        let name = self.name(&meaning, kind);
        self.wanted.insert(name.clone(), meaning);
        name
    }

    fn name(&mut self, meaning: &Meaning, kind: SetKind) -> SetName {
        for selector in meaning.selectors() {
            if !self.ids.contains_key(selector) {
                self.ids.insert(selector.clone(), selector.id());
            }
        }
        let ids: Vec<&str> = meaning.selectors().map(|selector| &*self.ids[selector]).collect();
        meaning.name(kind, &ids)
    }

    /// Returns which kind of set a meaning takes now.
    fn kind(&mut self, meaning: &Meaning) -> SetKind {
        match meaning {
            Meaning::Sockets { family, .. } | Meaning::Service { family, ends: Ends::Sockets, .. } => {
                SetKind::Socket(*family)
            }
            Meaning::Service { family, ends: Ends::Addresses, .. } => SetKind::Address(*family),
            Meaning::Addresses { family, selectors, nets } => {
                let is_wide = |net: &Cidr| net.family() == *family && !net.is_host();
                let (members, held) = (&mut self.members, self.held.get(family));
                let mut selects_wide =
                    |held: &Held| selectors.iter().any(|selector| members.matches_any(selector, &held.wide));
                if nets.iter().any(is_wide) || held.is_some_and(&mut selects_wide) {
                    SetKind::Network(*family)
                } else {
                    SetKind::Address(*family)
                }
            }
        }
    }

    /// Makes the set of a meaning.
    fn make(&mut self, meaning: Meaning) {
        let family = meaning.family();
        let selectors: Vec<SelectorId> =
            meaning.selectors().map(|selector| self.members.use_selector(selector)).collect();
        let members: Vec<&Member> = match &meaning {
            Meaning::Service { service, .. } => self.services.members(service),
            Meaning::Addresses { .. } | Meaning::Sockets { .. } => {
                let is_held = self.held.get(&family).is_some_and(|held| held.members > 0);
                let selecting = selectors.iter().filter(|_| is_held);
                let matching = selecting.flat_map(|selector| self.members.matching(*selector).iter());
                matching.map(|item| self.members.payload(item)).collect()
            }
        };
        let (holdings, set) = if meaning.holds_sockets() {
            let (mut more, mut elements) = (HashMap::new(), Elements::new());
            for socket in members.iter().flat_map(|member| sockets(member, meaning.ports(), family)) {
                if elements.contains(&socket) {
                    *more.entry(socket).or_default() += 1;
                } else {
                    elements.insert(socket);
                }
            }
            (Holdings::Sockets(more), Set { kind: SetKind::Socket(family), elements })
        } else {
            let held = members.iter().flat_map(|member| member.nets.iter());
            let all = held.chain(meaning.nets()).copied().filter(|net| net.family() == family);
            let (addresses, set) = Addresses::of(all.collect(), family);
            (Holdings::Addresses(addresses), set)
        };
        let name = self.name(&meaning, set.kind);
        self.out.put_set(&name, set);
        let id = self.live.insert(Live { meaning: meaning.clone(), name: name.clone(), selectors, holdings });
        for selector in &self.live[id].selectors {
            self.of_selector.entry(*selector).or_default().push(id);
        }
        if let Meaning::Service { service, .. } = &meaning {
            self.services.sets.entry(service.clone()).or_default().push(id);
        }
        self.by_meaning.insert(meaning, id);
        self.by_name.insert(name, id);
    }
}

/// Counts what a member holds now, and no more what it held.
fn count(held: &mut BTreeMap<Family, Held>, id: ItemId, was: Option<&Member>, is: Option<&Member>) {
    for family in Family::ALL {
        let of_family = |member: Option<&Member>| {
            let mut nets = member.into_iter().flat_map(|m| m.nets.iter()).filter(|n| n.family() == family);
            (nets.clone().next().is_some(), nets.any(|net| !net.is_host()))
        };
        let ((was_held, was_wide), (is_held, is_wide)) = (of_family(was), of_family(is));
        let held = held.entry(family).or_default();
        held.members = held.members + usize::from(is_held) - usize::from(was_held);
        if is_wide {
            held.wide.insert(id);
        } else if was_wide {
            held.wide.remove(&id);
        }
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
    fn family(&self) -> Family {
        match self {
            Meaning::Addresses { family, .. }
            | Meaning::Sockets { family, .. }
            | Meaning::Service { family, .. } => *family,
        }
    }

    fn holds_sockets(&self) -> bool {
        match self {
            Meaning::Addresses { .. } | Meaning::Service { ends: Ends::Addresses, .. } => false,
            Meaning::Sockets { .. } | Meaning::Service { ends: Ends::Sockets, .. } => true,
        }
    }

    /// The names of the ports whose sockets it holds; `None` when it holds those of all.
    fn ports(&self) -> Option<&BTreeSet<Box<str>>> {
        match self {
            Meaning::Sockets { ports, .. } => Some(ports),
            Meaning::Addresses { .. } | Meaning::Service { .. } => None,
        }
    }

    /// The networks that it holds whoever is selected.
    fn nets(&self) -> impl Iterator<Item = &Cidr> {
        let nets = if let Meaning::Addresses { nets, .. } = self { Some(nets) } else { None };
        nets.into_iter().flatten()
    }

    fn selectors(&self) -> impl Iterator<Item = &Selector> {
        let (many, one) = match self {
            Meaning::Addresses { selectors, .. } => (Some(selectors), None),
            Meaning::Sockets { selector, .. } => (None, Some(selector)),
            Meaning::Service { .. } => (None, None),
        };
        many.into_iter().flatten().chain(one)
    }

    /// Names tell hash sets from interval sets, and the families apart. The ids of selectors are given.
    fn name(&self, kind: SetKind, ids: &[&str]) -> SetName {
        let family = |family: &Family, v4, v6| if *family == Family::V4 { v4 } else { v6 };
        match self {
            Meaning::Addresses { family: of, nets, .. } => {
                let word = if kind == SetKind::Network(*of) {
                    family(of, "net4", "net6")
                } else {
                    family(of, "addr4", "addr6")
                };
                let nets: Vec<String> = nets.iter().map(Cidr::to_string).collect();
                SetName::digest(word, ids.iter().copied().chain(nets.iter().map(String::as_str)))
            }
            Meaning::Sockets { family: of, ports, .. } => {
                let ports = ports.iter().map(|port| &**port);
                SetName::digest(family(of, "port4", "port6"), ids.iter().copied().chain(ports))
            }
            Meaning::Service { family: of, service, ends } => {
                let word = match ends {
                    Ends::Addresses => family(of, "svcip4", "svcip6"),
                    Ends::Sockets => family(of, "svc4", "svc6"),
                };
                SetName::digest(word, [&*service.to_string()])
            }
        }
    }
}

/// Walks the sockets that have a port of one of these names, or of any.
fn sockets<'m>(
    member: &'m Member,
    names: Option<&'m BTreeSet<Box<str>>>,
    family: Family,
) -> impl Iterator<Item = Element> + 'm {
    let is_named = move |own: &EndpointPort| names.is_none_or(|names| names.contains(&*own.name));
    let named = member.ports.iter().filter(move |own| is_named(own) && own.protocol.has_ports());
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
