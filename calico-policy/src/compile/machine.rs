//! What is kept between passes, so that a pass follows what changed.
//!
//! ```text
//! change of            at once                                      in the next pass
//! endpoint, set, slice its addresses in the sets that select it     the chains of a local one that is selected otherwise
//! profile              the members that inherit from it             its chains, and those of local endpoints that name it
//! policy               what it selects of the local endpoints       the chains that hold it, and where those lead
//! pool, node, host, BGP                                           the base chains
//! tier, configuration                                               every chain
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use calico_model::resource::{Kind, ObjectId, ResourceKey};

use super::guard::{Guard, Shared};
use super::{
    ChainName, Cidr, Compilation, FelixConfiguration, InterfaceName, Name, NodeName, Ruleset, SetName, Sets,
    Snapshot, Warning,
};
use crate::active::whole_selector;
use crate::closed::Enforcers;
use crate::index::{Index, ItemId, SelectorId};
use crate::labels::Labelled;
use crate::local::{local_hosts, prefixes};
use crate::optimise::Layout;
use crate::order::{self, OrderedTier};
use crate::output::Part;
use crate::ruleset::Warning::{HostWithoutInterface, SharedInterface};
use crate::sets::Member;

/// The compiler's memory; whoever has it keeps the snapshot.
#[derive(Debug)]
pub(crate) struct Machine {
    node: NodeName,
    layout: Layout,
    pub(crate) enforcers: Enforcers,
    felix: FelixConfiguration,
    prefixes: Vec<InterfaceName>,
    pub(crate) sets: Sets,
    locals: Locals,
    guards: BTreeMap<InterfaceName, Guard>,
    warned: BTreeSet<InterfaceName>,
    bases: BTreeSet<ChainName>,
    chain_warnings: BTreeMap<ChainName, BTreeSet<Warning>>,
    origins: BTreeMap<ChainName, Vec<ResourceKey>>,
    host_warnings: Vec<Warning>,
    dirty: Dirty,
}

/// What the next pass has to look at.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) everything: bool,
    base: bool,
    interfaces: BTreeSet<InterfaceName>,
    pub(super) policies: BTreeSet<ResourceKey>,
    pub(super) profiles: BTreeSet<Name>,
}

/// The node's own endpoints, and the policies of all.
#[derive(Debug, Default)]
pub(super) struct Locals {
    endpoints: Index<ResourceKey>,
    /// The interface of each workload.
    workloads: HashMap<ObjectId, Option<InterfaceName>>,
    claims: BTreeMap<InterfaceName, BTreeSet<ObjectId>>,
    hosts: BTreeSet<ObjectId>,
    applied: BTreeMap<ResourceKey, Applied>,
    policies: BTreeMap<SelectorId, BTreeSet<ResourceKey>>,
}

/// Whom a policy applies to.
#[derive(Debug)]
struct Applied {
    selector: SelectorId,
    /// See [`PolicyRef::applies_to`](order::PolicyRef::applies_to).
    words: String,
}

impl Locals {
    /// Returns which policy that is and whom it applies to, in words.
    pub(super) fn applies_to(&self, policy: &ResourceKey) -> &str {
        self.applied.get(policy).map_or("", |applied| &applied.words)
    }

    /// Returns the workloads that claim an interface, the one that has it first.
    pub(super) fn claims(&self, interface: &InterfaceName) -> Vec<&ObjectId> {
        self.claims.get(interface).into_iter().flatten().collect()
    }

    /// Returns what selects an endpoint.
    pub(super) fn matched(&self, key: &ResourceKey) -> &[SelectorId] {
        self.endpoints.id(key).map_or(&[], |item| self.endpoints.matched(item))
    }

    /// Returns the tiers of the policies that select an endpoint, all in order.
    pub(super) fn tiers<'s>(&self, snapshot: &'s Snapshot, key: &ResourceKey) -> Vec<OrderedTier<'s>> {
        let keys = self.matched(key).iter().filter_map(|selector| self.policies.get(selector)).flatten();
        order::tiers_of(snapshot, keys.filter_map(|key| order::policy(snapshot, key)))
    }
}

impl Machine {
    pub(crate) fn new(node: NodeName, layout: Layout) -> Self {
        Self {
            node,
            layout,
            enforcers: Enforcers::default(),
            felix: FelixConfiguration::new(),
            prefixes: Vec::new(),
            sets: Sets::default(),
            locals: Locals::default(),
            guards: BTreeMap::new(),
            warned: BTreeSet::new(),
            bases: BTreeSet::new(),
            chain_warnings: BTreeMap::new(),
            origins: BTreeMap::new(),
            host_warnings: Vec::new(),
            dirty: Dirty { everything: true, ..Dirty::default() },
        }
    }

    pub(crate) fn node(&self) -> &NodeName {
        &self.node
    }

    /// Returns the policies and profiles that lead to a chain.
    pub(crate) fn origins(&self, chain: &ChainName) -> BTreeSet<&ResourceKey> {
        let leads = |of: &ChainName| of == chain || self.sets.out.leads_to(of, chain);
        self.origins.iter().filter(|(of, _)| leads(of)).flat_map(|(_, keys)| keys).collect()
    }

    pub(crate) fn into_ruleset(self) -> Ruleset {
        self.sets.out.into_ruleset()
    }

    /// Learns all of a snapshot.
    pub(crate) fn learn(&mut self, snapshot: &Snapshot) {
        snapshot.profiles.values().for_each(|object| self.note(snapshot, &object.key()));
        snapshot.workloads.values().for_each(|object| self.note(snapshot, &object.key()));
        snapshot.hosts.values().for_each(|object| self.note(snapshot, &object.key()));
        snapshot.network_sets.values().for_each(|object| self.note(snapshot, &object.key()));
        snapshot.global_network_sets.values().for_each(|object| self.note(snapshot, &object.key()));
        snapshot.endpoint_slices.values().for_each(|object| self.note(snapshot, &object.key()));
        snapshot.policies.values().for_each(|object| self.note(snapshot, &object.key()));
        snapshot.global_policies.values().for_each(|object| self.note(snapshot, &object.key()));
    }

    /// Learns that a resource is now as the snapshot has it.
    pub(crate) fn note(&mut self, snapshot: &Snapshot, key: &ResourceKey) {
        match key.kind {
            Kind::WorkloadEndpoint => self.workload(snapshot, key),
            Kind::HostEndpoint => self.host(snapshot, key),
            Kind::NetworkSet => {
                let object = snapshot.network_sets.get(&key.id);
                self.network_set(
                    key,
                    object.map(|object| (Labelled::Set(object.clone()), &*object.spec.nets)),
                );
            }
            Kind::GlobalNetworkSet => {
                let object = snapshot.global_network_sets.get(&key.id);
                let set = object.map(|object| (Labelled::GlobalSet(object.clone()), &*object.spec.nets));
                self.network_set(key, set);
            }
            Kind::KubernetesEndpointSlice => {
                self.sets.put_slice(key, snapshot.endpoint_slices.get(&key.id).map(Arc::as_ref));
            }
            Kind::Profile => self.profile(snapshot, key),
            Kind::NetworkPolicy | Kind::GlobalNetworkPolicy => self.policy(snapshot, key),
            Kind::IpPool | Kind::Node | Kind::BgpConfiguration => self.dirty.base = true,
            Kind::Tier | Kind::FelixConfiguration => self.dirty.everything = true,
            // No rule is made of anything else.
            Kind::IpReservation
            | Kind::IpamConfiguration
            | Kind::BlockAffinity
            | Kind::IpamBlock
            | Kind::IpamHandle
            | Kind::StagedNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
            | Kind::StagedKubernetesNetworkPolicy
            | Kind::KubernetesService
            | Kind::BgpPeer
            | Kind::BgpFilter
            | Kind::CalicoNodeStatus
            | Kind::KubeControllersConfiguration
            | Kind::ClusterInformation
            | _ => {}
        }
    }

    fn workload(&mut self, snapshot: &Snapshot, key: &ResourceKey) {
        let object = snapshot.workloads.get(&key.id);
        if let Some(former) = self.locals.workloads.remove(&key.id).flatten() {
            if let Some(claims) = self.locals.claims.get_mut(&former) {
                claims.remove(&key.id);
                if claims.is_empty() {
                    self.locals.claims.remove(&former);
                }
            }
            self.dirty.interfaces.insert(former);
        }
        let Some(object) = object else {
            self.sets.remove(key);
            self.locals.endpoints.remove(key);
            return;
        };
        let labelled = Labelled::Workload(object.clone());
        let member = Member { nets: (*object.spec.ip_networks).into(), ports: (*object.spec.ports).into() };
        self.sets.put(key, labelled.clone(), member);
        if object.spec.node != self.node {
            self.locals.endpoints.remove(key);
            return;
        }
        self.locals.endpoints.put(key, labelled, key.clone());
        self.locals.workloads.insert(key.id.clone(), object.spec.interface_name.clone());
        if let Some(interface) = &object.spec.interface_name {
            self.locals.claims.entry(interface.clone()).or_default().insert(key.id.clone());
            self.dirty.interfaces.insert(interface.clone());
        }
    }

    fn host(&mut self, snapshot: &Snapshot, key: &ResourceKey) {
        self.dirty.base |= self.locals.hosts.remove(&key.id);
        let Some(object) = snapshot.hosts.get(&key.id) else {
            self.sets.remove(key);
            self.locals.endpoints.remove(key);
            return;
        };
        let labelled = Labelled::Host(object.clone());
        let nets: Box<[Cidr]> = object.spec.expected_ips.iter().copied().map(Cidr::host).collect();
        self.sets.put(key, labelled.clone(), Member { nets, ports: (*object.spec.ports).into() });
        if object.spec.node == self.node {
            self.locals.endpoints.put(key, labelled, key.clone());
            self.locals.hosts.insert(key.id.clone());
            self.dirty.base = true;
        } else {
            self.locals.endpoints.remove(key);
        }
    }

    fn network_set(&mut self, key: &ResourceKey, set: Option<(Labelled, &[Cidr])>) {
        match set {
            Some((labelled, nets)) => {
                self.sets.put(key, labelled, Member { nets: nets.into(), ports: [].into() });
            }
            None => self.sets.remove(key),
        }
    }

    fn profile(&mut self, snapshot: &Snapshot, key: &ResourceKey) {
        let name = &key.id.name;
        let labels = snapshot.profiles.get(&key.id).map(|object| &object.spec.labels_to_apply);
        self.sets.set_parent(name, labels);
        self.locals.endpoints.set_parent(name, labels);
        self.touch(&self.locals.endpoints.children(name));
        self.dirty.profiles.insert(name.clone());
    }

    fn policy(&mut self, snapshot: &Snapshot, key: &ResourceKey) {
        let new = order::policy(snapshot, key).map(|policy| {
            let selector = self.locals.endpoints.use_selector(&whole_selector(&policy));
            self.locals.policies.entry(selector).or_default().insert(key.clone());
            Applied { selector, words: policy.applies_to() }
        });
        let selector = |applied: &Applied| applied.selector;
        let (new, old) = (
            new.as_ref().map(selector),
            match new {
                Some(new) => self.locals.applied.insert(key.clone(), new),
                None => self.locals.applied.remove(key),
            }
            .as_ref()
            .map(selector),
        );
        for selector in [old, new].into_iter().flatten() {
            let touched: Vec<ItemId> = self.locals.endpoints.matching(selector).iter().collect();
            self.touch(&touched);
        }
        if let Some(old) = old {
            if new != Some(old)
                && let Some(policies) = self.locals.policies.get_mut(&old)
            {
                policies.remove(key);
                if policies.is_empty() {
                    self.locals.policies.remove(&old);
                }
            }
            self.locals.endpoints.release_selector(old);
        }
        self.dirty.policies.insert(key.clone());
    }

    /// Has the next pass look at some endpoints.
    fn touch(&mut self, endpoints: &[ItemId]) {
        for item in endpoints {
            let key = self.locals.endpoints.payload(*item);
            match self.locals.workloads.get(&key.id).filter(|_| key.kind == Kind::WorkloadEndpoint) {
                Some(interface) => self.dirty.interfaces.extend(interface.clone()),
                None => self.dirty.base = true,
            }
        }
    }

    /// Makes the ruleset what everything that was learned makes it.
    pub(crate) fn settle(&mut self, snapshot: &Snapshot) {
        let renamed: BTreeSet<SetName> = self.sets.take_renamed();
        let mut dirty = std::mem::take(&mut self.dirty);
        let first = self.bases.is_empty();
        if dirty.everything {
            self.felix = snapshot.felix_configuration(&self.node);
            self.prefixes = prefixes(&self.felix);
        }
        if dirty.everything || !renamed.is_empty() {
            dirty.base = true;
            dirty.interfaces.extend(self.guards.keys().chain(self.locals.claims.keys()).cloned());
        }
        let mut compilation = Compilation {
            snapshot,
            layout: self.layout,
            enforcers: self.enforcers,
            felix: &self.felix,
            prefixes: &self.prefixes,
            locals: &self.locals,
            dirty: &dirty,
            renamed: &renamed,
            sets: &mut self.sets,
            guards: &mut self.guards,
            warned: &mut self.warned,
            warnings: &mut self.chain_warnings,
            origins: &mut self.origins,
            made: BTreeSet::new(),
            bases: BTreeSet::new(),
        };
        if first {
            compilation.found();
        }
        let mut shared = Shared::new();
        let mut base = dirty.base;
        for interface in &dirty.interfaces {
            base |= compilation.guard(interface, &mut shared);
        }
        if base {
            let own = self.locals.hosts.iter().filter_map(|id| snapshot.hosts.get(id)).map(Arc::as_ref);
            let hosts = local_hosts(own, compilation.prefixes);
            let shadowed =
                hosts.shadowed.iter().map(|endpoint| SharedInterface { endpoint: endpoint.clone() });
            let addressed = hosts.addressed.iter().map(|host| HostWithoutInterface { endpoint: host.key() });
            self.host_warnings = shadowed.chain(addressed).collect();
            compilation.workloads();
            compilation.host(&hosts);
            compilation.source_nat();
            compilation.service_loops();
            let bases = std::mem::take(&mut compilation.bases);
            for gone in self.bases.difference(&bases) {
                self.sets.out.remove_chain(gone);
            }
            self.bases = bases;
        }
        self.sets.forget_wanted();
        self.locals.endpoints.forget_idle_keys();
        for part in self.sets.out.sweep() {
            match part {
                Part::Chain(name) => {
                    self.chain_warnings.remove(&name);
                    self.origins.remove(&name);
                }
                Part::Set(name) => self.sets.forget(&name),
                Part::Map(_) => {}
            }
        }
        let of_chains = self.chain_warnings.values().flatten();
        let warned = self.warned.iter().filter_map(|interface| self.guards.get(interface));
        let of_guards = warned.flat_map(|guard| &guard.warnings);
        let warnings = of_chains.chain(of_guards).chain(&self.host_warnings).cloned().collect();
        self.sets.out.set_warnings(warnings);
    }
}
