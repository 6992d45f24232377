//! The endpoints of one node.

use std::collections::BTreeMap;

use calico_model::resource::endpoint::HostInterface;
use calico_model::resource::felix::LoopPrevention;
use calico_model::resource::{FelixConfiguration, HostEndpoint, Object, ResourceKey, WorkloadEndpoint};
use calico_model::{Cidr, InterfaceName, NodeName, Snapshot};

/// A workload's endpoint with the interface it has on the node.
#[derive(Debug, Clone)]
pub(crate) struct LocalWorkload<'s> {
    pub(crate) interface: InterfaceName,
    pub(crate) endpoint: &'s Object<WorkloadEndpoint>,
}

/// Returns the workloads of a node that have an interface, in its order: of two that claim one, the first by namespace and name
/// has it. An interface is a workload's only when its name begins with one of `prefixes`.
pub(crate) fn local_workloads<'s>(
    snapshot: &'s Snapshot,
    node: &NodeName,
    prefixes: &[InterfaceName],
) -> Vec<LocalWorkload<'s>> {
    let mut by_interface = BTreeMap::new();
    for endpoint in snapshot.workloads.values().filter(|endpoint| endpoint.spec.node == *node) {
        let Some(interface) = &endpoint.spec.interface_name else { continue };
        if is_workload_interface(interface, prefixes) {
            by_interface.entry(interface.clone()).or_insert(endpoint);
        }
    }
    by_interface.into_iter().map(|(interface, endpoint)| LocalWorkload { interface, endpoint }).collect()
}

/// Reports whether an interface is named like a workload's.
pub(crate) fn is_workload_interface(interface: &InterfaceName, prefixes: &[InterfaceName]) -> bool {
    prefixes.iter().any(|prefix| interface.as_str().starts_with(prefix.as_str()))
}

/// Returns the networks of services, as they are told to BGP peers. What is still addressed to one of them when it is
/// forwarded belongs to no service: a router would send it back here.
pub(crate) fn service_networks(snapshot: &Snapshot, felix: &FelixConfiguration) -> Vec<Cidr> {
    if felix.service_loop_prevention == Some(LoopPrevention::Disabled) {
        return Vec::new();
    }
    told_service_networks(snapshot)
}

/// Returns the networks of services that are told to BGP peers, whatever a node makes of them.
pub(crate) fn told_service_networks(snapshot: &Snapshot) -> Vec<Cidr> {
    snapshot.bgp_configuration().service_networks().collect()
}

/// Returns the prefixes of workloads' interfaces; one that no interface can have is left out.
pub(crate) fn prefixes(felix: &FelixConfiguration) -> Vec<InterfaceName> {
    let mut prefixes: Vec<InterfaceName> =
        felix.interface_prefixes().into_iter().filter_map(|prefix| prefix.parse().ok()).collect();
    prefixes.sort();
    prefixes.dedup();
    prefixes
}

/// The host endpoints of a node.
#[derive(Debug, Clone)]
pub(crate) struct LocalHosts<'s> {
    /// Those that name an interface: of two that name one, the first by name has it.
    pub(crate) named: BTreeMap<InterfaceName, &'s Object<HostEndpoint>>,
    /// Those that name addresses alone, by name.
    pub(crate) addressed: Vec<&'s Object<HostEndpoint>>,
    /// The one for every other interface but loopback: of several, the first by name.
    pub(crate) all: Option<&'s Object<HostEndpoint>>,
    /// Those that are none of the above.
    pub(crate) shadowed: Vec<ResourceKey>,
}

/// Returns the host endpoints of a node, of those that are its own. Workloads' interfaces are not the host's.
pub(crate) fn local_hosts<'s>(
    own: impl Iterator<Item = &'s Object<HostEndpoint>>,
    prefixes: &[InterfaceName],
) -> LocalHosts<'s> {
    let mut hosts =
        LocalHosts { named: BTreeMap::new(), addressed: Vec::new(), all: None, shadowed: Vec::new() };
    for endpoint in own {
        match &endpoint.spec.interface_name {
            None => hosts.addressed.push(endpoint),
            Some(HostInterface::All) if hosts.all.is_none() => hosts.all = Some(endpoint),
            Some(HostInterface::Named(name))
                if !hosts.named.contains_key(name) && !is_workload_interface(name, prefixes) =>
            {
                hosts.named.insert(name.clone(), endpoint);
            }
            Some(HostInterface::All | HostInterface::Named(_)) => hosts.shadowed.push(endpoint.key()),
        }
    }
    hosts
}

impl<'s> LocalHosts<'s> {
    /// Returns the endpoint of an interface, whatever the addresses.
    pub(crate) fn of_interface(&self, interface: &InterfaceName) -> Option<&'s Object<HostEndpoint>> {
        let all = self.all.filter(|_| interface.as_str() != LOOPBACK);
        self.named.get(interface).copied().or(all)
    }

    /// Returns the endpoint that guards the node's own traffic at an interface and a local address.
    pub(crate) fn of_address(
        &self,
        interface: &InterfaceName,
        local: std::net::IpAddr,
    ) -> Option<&'s Object<HostEndpoint>> {
        let addressed = || self.addressed.iter().find(|endpoint| endpoint.spec.expected_ips.contains(&local));
        self.named.get(interface).or_else(addressed).copied().or_else(|| self.of_interface(interface))
    }
}

/// The interface of the node's traffic with itself, which no endpoint guards unless it names it.
pub(crate) const LOOPBACK: &str = "lo";
