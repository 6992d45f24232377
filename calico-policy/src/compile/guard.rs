//! One workload's interface: who has it, and which chains decide about its packets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use calico_model::resource::{Kind, Object, PolicyType, ResourceKey, WorkloadEndpoint};

use super::{
    ChainName, Cidr, Compilation, Element, Family, InterfaceName, Name, Set, SetKind, SetName, VerdictMap,
    Warning, family_word,
};
use crate::active::{Stage, active_of_selecting};
use crate::index::SelectorId;
use crate::local::is_workload_interface;

/// What is in force for an interface.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// The networks that it may send from beside its own addresses.
    pub(super) spoofed: Vec<Cidr>,
    /// The elements of the sets of sources.
    sources: BTreeSet<(Family, Element)>,
    /// What cannot be guarded as it was meant.
    pub(super) warnings: Vec<Warning>,
    guarded: bool,
}

/// The chains of endpoints that have the same policies and profiles: for what comes from them, and for what goes to them.
pub(super) type Shared = HashMap<(Vec<SelectorId>, Vec<Name>), (ChainName, ChainName)>;

pub(super) fn known() -> SetName {
    SetName::fixed("workloads")
}

pub(super) fn sources(family: Family) -> SetName {
    SetName::fixed(family_word(family, "sources-v4", "sources-v6"))
}

pub(super) fn from_workload() -> SetName {
    SetName::fixed("from-workload")
}

pub(super) fn to_workload() -> SetName {
    SetName::fixed("to-workload")
}

impl Compilation<'_> {
    /// Makes the sets and maps of workloads' interfaces, with nothing in them.
    pub(super) fn found(&mut self) {
        let set = |kind| Set { kind, elements: BTreeSet::new() };
        self.sets.out.put_set(&known(), set(SetKind::Interface));
        for family in Family::ALL {
            self.sets.out.put_set(&sources(family), set(SetKind::InterfaceAddress(family)));
        }
        let map = VerdictMap { kind: SetKind::Interface, elements: BTreeMap::new() };
        self.sets.out.put_map(&from_workload(), &map);
        self.sets.out.put_map(&to_workload(), &map);
    }

    /// Makes an interface guarded as its workload is meant to be, or by nobody. Reports whether its sources changed in a way
    /// that rules tell.
    pub(super) fn guard(&mut self, interface: &InterfaceName, shared: &mut Shared) -> bool {
        let claims = self.locals.claims(interface);
        let mut keys =
            claims.into_iter().map(|id| ResourceKey { kind: Kind::WorkloadEndpoint, id: id.clone() });
        let mut new = Guard::default();
        if is_workload_interface(interface, self.prefixes) {
            let key = keys.next();
            let endpoint = key.as_ref().and_then(|key| self.snapshot.workloads.get(&key.id));
            new.warnings.extend(keys.map(|endpoint| Warning::SharedInterface { endpoint }));
            if let Some((key, endpoint)) = key.zip(endpoint) {
                self.lead(interface, &key, endpoint, shared);
                self.allow(interface, endpoint, &mut new);
            }
        } else {
            new.warnings.extend(keys.map(|endpoint| Warning::MisnamedInterface { endpoint }));
        }
        let old = self.guards.remove(interface).unwrap_or_default();
        for (family, element) in old.sources.difference(&new.sources) {
            self.sets.out.remove_element(&sources(*family), element);
        }
        if old.guarded && !new.guarded {
            let element = Element::Interface(interface.clone());
            self.sets.out.remove_element(&known(), &element);
            self.sets.out.lead(&from_workload(), &element, None);
            self.sets.out.lead(&to_workload(), &element, None);
        }
        let told_otherwise = old.spoofed != new.spoofed;
        if new.warnings.is_empty() {
            self.warned.remove(interface);
        } else {
            self.warned.insert(interface.clone());
        }
        if new.guarded || !new.warnings.is_empty() {
            self.guards.insert(interface.clone(), new);
        }
        told_otherwise
    }

    /// Leads the interface's packets to the chains of its policies and profiles.
    fn lead(
        &mut self,
        interface: &InterfaceName,
        key: &ResourceKey,
        endpoint: &Object<WorkloadEndpoint>,
        shared: &mut Shared,
    ) {
        let profiles = &endpoint.spec.profiles;
        let same = (self.locals.matched(key).to_vec(), profiles.clone());
        if !shared.contains_key(&same) {
            let tiers = self.locals.tiers(self.snapshot, key);
            let mut chain = |direction| {
                let tiers = active_of_selecting(&tiers, direction, Stage::Normal);
                self.workload_chain(direction, &tiers, profiles)
            };
            let chains = (chain(PolicyType::Egress), chain(PolicyType::Ingress));
            shared.insert(same.clone(), chains);
        }
        let (from, to) = &shared[&same];
        let element = Element::Interface(interface.clone());
        self.sets.out.lead(&from_workload(), &element, Some(from));
        self.sets.out.lead(&to_workload(), &element, Some(to));
        self.sets.out.insert_element(&known(), element);
    }

    /// A workload sends from its own addresses only.
    fn allow(&mut self, interface: &InterfaceName, endpoint: &Object<WorkloadEndpoint>, new: &mut Guard) {
        new.guarded = true;
        new.spoofed.clone_from(&endpoint.spec.allow_spoofed_source_prefixes);
        for family in Family::ALL {
            for addr in endpoint.spec.addrs(family) {
                let element = Element::interface_address(interface.clone(), addr);
                self.sets.out.insert_element(&sources(family), element.clone());
                new.sources.insert((family, element));
            }
        }
    }
}
