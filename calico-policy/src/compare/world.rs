//! One of the two worlds: what policy knows of each address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_model::resource::service::ServiceId;
use calico_model::resource::{
    EncapMode, FelixConfiguration, HostEndpoint, Kind, KubernetesEndpointSlice, Object, ObjectId, PortMatch,
    ProtoPort, ResourceKey, Rule, WorkloadEndpoint,
};
use calico_model::{Cidr, Family, InterfaceName, Name, Namespace, NodeName, Selector, Snapshot};

use super::traffic::Cuts;
use crate::active::selects;
use crate::compile::{inbound, outbound};
use crate::labels::{self, SystemLabels};
use crate::local::{is_workload_interface, prefixes, told_service_networks};
use crate::order::{PolicyRef, policy, tiers};
use crate::peer::peer;
use crate::way::{Home, Homes};

/// What decides about an address as an end of its own. Two addresses of one standing differ in who else's rules select them alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    site: Site,
    /// The address itself, where it is like no other.
    unique: Option<IpAddr>,
    /// Whether it is an address of services.
    service: bool,
    /// The policies that are asked, in order, and the profiles.
    pub(super) asked: Vec<ResourceKey>,
    profiles: Vec<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Site {
    /// On no node.
    Outside,
    /// A node itself, which is like no other.
    Node(NodeName, Option<usize>),
    /// A workload's on a node without host endpoints; such nodes with one configuration are alike.
    Plain { felix: usize },
    /// A workload's on a node with host endpoints, which is like no other.
    Guarded(NodeName, usize),
}

/// Who has an address, or a network that it is in.
#[derive(Clone, Copy)]
pub(super) enum Holder<'s> {
    Workload(&'s Object<WorkloadEndpoint>),
    Host(&'s Object<HostEndpoint>),
    Set(&'s calico_model::resource::Metadata, Kind),
    Slice(&'s Object<KubernetesEndpointSlice>),
}

/// What the labels of an endpoint are made of.
type Labelled<'s> = (Vec<(&'s str, &'s str)>, &'s [Name]);

pub(super) struct World<'s> {
    pub(super) snapshot: &'s Snapshot,
    homes: Homes<'s>,
    policies: Vec<PolicyRef<'s>>,
    owners: BTreeMap<(NodeName, &'s InterfaceName), &'s Object<WorkloadEndpoint>>,
    hosts: BTreeMap<NodeName, Vec<&'s Object<HostEndpoint>>>,
    felix: BTreeMap<NodeName, usize>,
    holders: BTreeMap<Cidr, Vec<Holder<'s>>>,
    lengths: BTreeSet<(Family, u8)>,
    selecting: BTreeMap<Labelled<'s>, Vec<ResourceKey>>,
    services: Vec<Cidr>,
}

impl<'s> World<'s> {
    /// `configurations` are shared by both worlds, so that equal ones have one number.
    pub(super) fn of(snapshot: &'s Snapshot, configurations: &mut Vec<FelixConfiguration>) -> Self {
        let mut world = Self {
            snapshot,
            homes: Homes::of(snapshot),
            policies: tiers(snapshot).into_iter().flat_map(|tier| tier.policies).collect(),
            owners: BTreeMap::new(),
            hosts: BTreeMap::new(),
            felix: BTreeMap::new(),
            holders: BTreeMap::new(),
            lengths: BTreeSet::new(),
            selecting: BTreeMap::new(),
            services: told_service_networks(snapshot),
        };
        for host in snapshot.hosts.values() {
            world.hosts.entry(host.spec.node.clone()).or_default().push(host);
            let nets = host.spec.expected_ips.iter().copied().map(Cidr::host);
            nets.for_each(|net| world.hold(net, Holder::Host(host)));
        }
        for workload in snapshot.workloads.values() {
            let node = &workload.spec.node;
            if let Some(interface) = &workload.spec.interface_name {
                world.owners.entry((node.clone(), interface)).or_insert(workload);
            }
            workload.spec.ip_networks.iter().for_each(|net| world.hold(*net, Holder::Workload(workload)));
        }
        for set in snapshot.network_sets.values() {
            set.spec
                .nets
                .iter()
                .for_each(|net| world.hold(*net, Holder::Set(&set.metadata, Kind::NetworkSet)));
        }
        for set in snapshot.global_network_sets.values() {
            let holder = Holder::Set(&set.metadata, Kind::GlobalNetworkSet);
            set.spec.nets.iter().for_each(|net| world.hold(*net, holder));
        }
        for slice in snapshot.endpoint_slices.values() {
            slice.spec.addresses().for_each(|addr| world.hold(Cidr::host(addr), Holder::Slice(slice)));
        }
        let of_workloads = snapshot.workloads.values().map(|workload| workload.spec.node.clone());
        let named = snapshot.nodes.values().map(|node| NodeName::from(node.metadata.name.clone()));
        let nodes: BTreeSet<NodeName> =
            of_workloads.chain(named).chain(world.hosts.keys().cloned()).collect();
        for node in nodes {
            let felix = snapshot.felix_configuration(&node);
            let known = configurations.iter().position(|known| *known == felix);
            let number = known.unwrap_or_else(|| {
                configurations.push(felix);
                configurations.len() - 1
            });
            world.felix.insert(node, number);
        }
        world
    }

    fn hold(&mut self, net: Cidr, holder: Holder<'s>) {
        self.lengths.insert((net.family(), net.prefix_len()));
        self.holders.entry(net).or_default().push(holder);
    }

    /// Every network that something tells apart.
    pub(super) fn networks(&self) -> BTreeSet<Cidr> {
        let mut nets: BTreeSet<Cidr> = self.holders.keys().copied().collect();
        nets.extend(&self.services);
        let nodes = self.snapshot.nodes.values();
        nets.extend(nodes.flat_map(|node| node.spec.own_addrs()).map(Cidr::host));
        let of_policies =
            self.policies.iter().flat_map(|found| found.policy.ingress.iter().chain(&found.policy.egress));
        let profiles = self.snapshot.profiles.values();
        let of_profiles = profiles.flat_map(|found| found.spec.ingress.iter().chain(&found.spec.egress));
        for rule in of_policies.chain(of_profiles) {
            for end in [&rule.source, &rule.destination] {
                nets.extend(end.nets.iter().chain(&end.not_nets));
            }
        }
        nets
    }

    /// Reports which tunnels the cluster's pools use.
    pub(super) fn tunnels(&self) -> [bool; 2] {
        let any = |is: fn(&calico_model::resource::IpPool) -> bool| {
            self.snapshot.pools.values().any(|pool| is(&pool.spec))
        };
        [any(|pool| pool.vxlan_mode != EncapMode::Never), any(|pool| pool.ipip_mode != EncapMode::Never)]
    }

    pub(super) fn home(&self, addr: IpAddr) -> Home<'s> {
        self.homes.home(addr)
    }

    pub(super) fn holders(&self, addr: IpAddr) -> Vec<Holder<'s>> {
        let family = Family::of(addr);
        let lengths = self.lengths.iter().filter(|(of, _)| *of == family);
        let nets = lengths.filter_map(|(_, length)| Cidr::holding(addr, *length));
        nets.filter_map(|net| self.holders.get(&net)).flatten().copied().collect()
    }

    pub(super) fn standing(&mut self, addr: IpAddr) -> Standing {
        let alone =
            |site| Standing { site, unique: None, service: false, asked: Vec::new(), profiles: Vec::new() };
        let several = self
            .holders(addr)
            .iter()
            .filter(|holder| !matches!(holder, Holder::Set(..) | Holder::Slice(_)))
            .count()
            > 1;
        let mut standing = match self.home(addr) {
            Home::Outside => alone(Site::Outside),
            Home::Node(name) => {
                let node = NodeName::from(name.clone());
                let mut standing = alone(Site::Node(node.clone(), self.felix.get(&node).copied()));
                standing.unique = Some(addr);
                self.ask_hosts(&node, &mut standing);
                standing
            }
            Home::Workload(endpoint, interface) => self.of_workload(addr, endpoint, interface),
        };
        if several {
            standing.unique = Some(addr);
        }
        standing.service = self.services.iter().any(|network| network.contains(addr));
        standing
    }

    fn of_workload(
        &mut self,
        addr: IpAddr,
        endpoint: &'s Object<WorkloadEndpoint>,
        interface: &'s InterfaceName,
    ) -> Standing {
        let node = &endpoint.spec.node;
        let felix = self.felix[node];
        let guarded = self.hosts.contains_key(node);
        let site = if guarded { Site::Guarded(node.clone(), felix) } else { Site::Plain { felix } };
        let owner = self.owners[&(node.clone(), interface)];
        let prefixes = prefixes(&self.snapshot.felix_configuration(node));
        let is_its_own = is_workload_interface(interface, &prefixes) && owner.key() == endpoint.key();
        let profiles: &[Name] = &owner.spec.profiles;
        let asked = self.selecting((labels::of_workload(owner), profiles), |snapshot, policy| {
            selects(policy, &SystemLabels::of_workload(snapshot, owner))
        });
        let unique = (!is_its_own).then_some(addr);
        let mut standing = Standing { site, unique, service: false, asked, profiles: profiles.to_vec() };
        if guarded {
            self.ask_hosts(&node.clone(), &mut standing);
        }
        standing
    }

    /// Whatever the node's host endpoints are asked may decide, too.
    fn ask_hosts(&mut self, node: &NodeName, standing: &mut Standing) {
        for host in self.hosts.get(node).cloned().unwrap_or_default() {
            let profiles: &[Name] = &host.spec.profiles;
            let asked = self.selecting((labels::of_others(&host.metadata), profiles), |snapshot, policy| {
                selects(policy, &SystemLabels::of_host(snapshot, host))
            });
            standing.asked.push(host.key());
            standing.asked.extend(asked);
            standing.profiles.extend(profiles.iter().cloned());
        }
    }

    fn selecting(
        &mut self,
        labelled: Labelled<'s>,
        selects: impl Fn(&'s Snapshot, &PolicyRef<'s>) -> bool,
    ) -> Vec<ResourceKey> {
        if let Some(known) = self.selecting.get(&labelled) {
            return known.clone();
        }
        let found = self.policies.iter().filter(|policy| selects(self.snapshot, policy));
        let keys: Vec<ResourceKey> = found.map(|policy| policy.key.clone()).collect();
        self.selecting.insert(labelled, keys.clone());
        keys
    }

    /// Whose change means that an address's own policy may have changed.
    pub(super) fn depends_on(&self, addr: IpAddr, standing: &Standing) -> Vec<ResourceKey> {
        let profile = |name: &Name| ResourceKey { kind: Kind::Profile, id: name.clone().into() };
        let mut keys: Vec<ResourceKey> =
            standing.asked.iter().cloned().chain(standing.profiles.iter().map(profile)).collect();
        if let Home::Workload(endpoint, interface) = self.home(addr) {
            keys.push(endpoint.key());
            keys.extend(self.owners.get(&(endpoint.spec.node.clone(), interface)).map(|owner| owner.key()));
        }
        keys
    }

    /// Reports whether an address is guarded by host endpoints, or a node's own.
    pub(super) fn is_host(standing: &Standing) -> bool {
        matches!(standing.site, Site::Node(..) | Site::Guarded(..))
    }

    /// Reports whether nothing but policies and profiles decides about an address, wherever the other end is.
    pub(super) fn is_plain(standing: &Standing) -> bool {
        matches!(standing.site, Site::Outside | Site::Plain { .. })
            && standing.unique.is_none()
            && !standing.service
    }

    /// Hands over the rules that may be asked about an address, each with the namespace of its policy.
    pub(super) fn rules(&self, standing: &Standing, mut each: impl FnMut(&Rule, Option<&Namespace>)) {
        let is_policy =
            |key: &&ResourceKey| [Kind::NetworkPolicy, Kind::GlobalNetworkPolicy].contains(&key.kind);
        for key in standing.asked.iter().filter(is_policy) {
            let Some(found) = policy(self.snapshot, key) else { continue };
            let rules = found.policy.ingress.iter().chain(&found.policy.egress);
            rules.for_each(|rule| each(rule, found.namespace()));
        }
        for name in &standing.profiles {
            let Some(profile) = self.snapshot.profile(name) else { continue };
            profile.ingress.iter().chain(&profile.egress).for_each(|rule| each(rule, None));
        }
    }

    /// Adds what tells traffic apart for an address.
    pub(super) fn cut(&self, standing: &Standing, configurations: &[FelixConfiguration], cuts: &mut Cuts) {
        self.rules(standing, |rule, _| cuts.of_rule(rule));
        if let Some(felix) = self.felix_of(standing) {
            cuts.of_felix(&configurations[felix], Self::is_host(standing));
        }
    }

    fn felix_of(&self, standing: &Standing) -> Option<usize> {
        match &standing.site {
            Site::Outside => None,
            Site::Node(_, felix) => *felix,
            Site::Plain { felix } | Site::Guarded(_, felix) => Some(*felix),
        }
    }

    /// Adds what tells the other ends apart for an address's rules.
    pub(super) fn match_by(
        &self,
        standing: &Standing,
        configurations: &[FelixConfiguration],
        matchers: &mut Matchers,
    ) {
        self.rules(standing, |rule, namespace| {
            for end in [&rule.source, &rule.destination] {
                let peer = peer(end, namespace);
                matchers.selectors.extend(peer.selector);
                matchers.selectors.extend(peer.not_selector);
                matchers.named |= peer.service.is_some();
                matchers.services.extend(peer.service);
                matchers.nets.extend(end.nets.iter().chain(&end.not_nets));
                let ports = end.ports.iter().chain(&end.not_ports);
                matchers.named |= ports.into_iter().any(|port| matches!(port, PortMatch::Named(_)));
            }
        });
        if let Some(felix) = self.felix_of(standing).filter(|_| Self::is_host(standing)) {
            let open = [inbound(&configurations[felix]), outbound(&configurations[felix])].concat();
            matchers.nets.extend(open.iter().filter_map(|port: &ProtoPort| port.net));
        }
    }

    pub(super) fn membership(&self, addr: IpAddr, matchers: &Matchers) -> Membership {
        let holders = self.holders(addr);
        let is_selected = |selector: &Selector| {
            holders.iter().any(|holder| match holder {
                Holder::Workload(found) => selector.matches(&SystemLabels::of_workload(self.snapshot, found)),
                Holder::Host(found) => selector.matches(&SystemLabels::of_host(self.snapshot, found)),
                Holder::Set(metadata, _) => selector.matches(&SystemLabels::of_set(metadata)),
                Holder::Slice(_) => false,
            })
        };
        let serves = |service: &ServiceId| {
            let of_it = |holder: &Holder<'_>| matches!(holder, Holder::Slice(slice) if slice.service().as_ref() == Some(service));
            holders.iter().any(of_it)
        };
        let services = matchers.services.iter().enumerate().filter(|(_, service)| serves(service));
        let selectors = matchers.selectors.iter().enumerate().filter(|(_, selector)| is_selected(selector));
        let nets = matchers.nets.iter().enumerate().filter(|(_, net)| net.contains(addr));
        Membership {
            services: services.map(|(index, _)| index as u32).collect(),
            selectors: selectors.map(|(index, _)| index as u32).collect(),
            nets: nets.map(|(index, _)| index as u32).collect(),
            ports: if matchers.named { named_ports(&holders) } else { Vec::new() },
        }
    }
}

/// Returns the named ports of whoever has an address; those of a service are named as it is.
pub(super) fn named_ports(holders: &[Holder<'_>]) -> Vec<(String, u8, u16)> {
    let mut ports = Vec::new();
    for holder in holders {
        let named = match holder {
            Holder::Workload(found) => &found.spec.ports,
            Holder::Host(found) => &found.spec.ports,
            Holder::Set(..) => continue,
            Holder::Slice(slice) => {
                let service = slice.service().map(|service| service.to_string()).unwrap_or_default();
                let numbers = slice.spec.numbered_ports();
                ports.extend(numbers.map(|(protocol, port)| (service.clone(), protocol.number(), port)));
                continue;
            }
        };
        ports.extend(named.iter().map(|port| (port.name.clone(), port.protocol.number(), port.port)));
    }
    ports.sort();
    ports
}

impl Holder<'_> {
    pub(super) fn key(self) -> ResourceKey {
        match self {
            Holder::Workload(found) => found.key(),
            Holder::Host(found) => found.key(),
            Holder::Slice(found) => found.key(),
            Holder::Set(metadata, kind) => ResourceKey {
                kind,
                id: ObjectId { namespace: metadata.namespace.clone(), name: metadata.name.clone() },
            },
        }
    }

    pub(super) fn profiles(&self) -> &[Name] {
        match self {
            Holder::Workload(found) => &found.spec.profiles,
            Holder::Host(found) => &found.spec.profiles,
            Holder::Set(..) | Holder::Slice(_) => &[],
        }
    }
}

/// By what rules tell addresses apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Matchers {
    selectors: BTreeSet<Selector>,
    services: BTreeSet<ServiceId>,
    nets: BTreeSet<Cidr>,
    pub(super) named: bool,
}

/// Of whom an address is, as far as some rules tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Membership {
    selectors: Vec<u32>,
    services: Vec<u32>,
    nets: Vec<u32>,
    ports: Vec<(String, u8, u16)>,
}
