//! The endpoints of one node.

use std::collections::BTreeMap;

use calico_model::resource::{FelixConfiguration, Object, ResourceKey, WorkloadEndpoint};
use calico_model::{InterfaceName, NodeName, Snapshot};

/// A workload's endpoint with the interface it has on the node.
#[derive(Debug, Clone)]
pub(crate) struct LocalWorkload<'s> {
    pub(crate) interface: InterfaceName,
    pub(crate) endpoint: &'s Object<WorkloadEndpoint>,
}

/// The workloads of a node, and those that cannot be guarded.
#[derive(Debug, Clone)]
pub(crate) struct LocalWorkloads<'s> {
    /// Those that have an interface, in its order.
    pub(crate) guarded: Vec<LocalWorkload<'s>>,
    /// Those whose interface another one has: of two that claim one, the first by namespace and name has it.
    pub(crate) shadowed: Vec<ResourceKey>,
    /// Those whose interface is not named like a workload's.
    pub(crate) misnamed: Vec<ResourceKey>,
}

/// Returns the workloads of a node. An interface is a workload's only when its name begins with one of `prefixes`.
pub(crate) fn local_workloads<'s>(
    snapshot: &'s Snapshot,
    node: &NodeName,
    prefixes: &[InterfaceName],
) -> LocalWorkloads<'s> {
    let mut by_interface = BTreeMap::new();
    let (mut shadowed, mut misnamed) = (Vec::new(), Vec::new());
    for endpoint in snapshot.workloads.values().filter(|endpoint| endpoint.spec.node == *node) {
        let Some(interface) = &endpoint.spec.interface_name else { continue };
        if !prefixes.iter().any(|prefix| interface.as_str().starts_with(prefix.as_str())) {
            misnamed.push(endpoint.key());
        } else if by_interface.contains_key(interface) {
            shadowed.push(endpoint.key());
        } else {
            by_interface.insert(interface.clone(), endpoint);
        }
    }
    let held = by_interface.into_iter().map(|(interface, endpoint)| LocalWorkload { interface, endpoint });
    LocalWorkloads { guarded: held.collect(), shadowed, misnamed }
}

/// Returns the prefixes of workloads' interfaces; one that no interface can have is left out.
pub(crate) fn prefixes(felix: &FelixConfiguration) -> Vec<InterfaceName> {
    let mut prefixes: Vec<InterfaceName> =
        felix.interface_prefixes().into_iter().filter_map(|prefix| prefix.parse().ok()).collect();
    prefixes.sort();
    prefixes.dedup();
    prefixes
}
