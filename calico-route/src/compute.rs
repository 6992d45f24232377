//! From what is known to what the kernel is wanted to hold.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_model::resource::{FelixConfiguration, Node, ProgramClusterRoutes};
use calico_model::{Cidr, Family, LearnedRoutes, NodeName, Snapshot};

use crate::desired::{Desired, Problem};
use crate::encap::Pools;
use crate::ownership::Ownership;
use crate::sysctl::Sysctl;

mod learned;
mod local;
mod remote;
mod tunnel;

/// The metric of ordinary routes when the configuration names none.
const NORMAL_PRIORITY: u32 = 1024;

/// Computes everything that a node's kernel is wanted to hold.
///
/// The result depends on the arguments only: not on the machine, not on the order in which the snapshot came about.
/// Whatever cannot be served is in [`Desired::problems`], and everything else goes on.
#[must_use]
pub fn compute(snapshot: &Snapshot, node: &NodeName, learned: &LearnedRoutes) -> Desired {
    let view = View::new(snapshot, node);
    let mut desired = Desired::nothing(Ownership::of(&view.settings));
    match view.own {
        Some(own) => {
            desired.node_addresses = view.families().filter_map(|f| Some((f, own.addr(f)?))).collect()
        }
        None => {
            desired.problems.insert(Problem::NodeUnknown { node: node.clone() });
        }
    }
    for family in view.families().filter(|family| view.uses(*family)) {
        desired.sysctls.insert(Sysctl::forwarding(family), "1".to_owned());
    }
    local::workloads(&view, &mut desired);
    local::blackholes(&view, &mut desired);
    tunnel::devices(&view, &mut desired);
    if view.own.is_some() {
        remote::blocks(&view, &mut desired);
        learned::routes(&view, learned, &mut desired);
    }
    desired
}

/// The snapshot as one node looks at it, with the look-ups that every part needs.
struct View<'s> {
    snapshot: &'s Snapshot,
    node: &'s NodeName,
    own: Option<&'s Node>,
    settings: FelixConfiguration,
    pools: Pools<'s>,
    nodes: BTreeMap<&'s str, &'s Node>,
    node_addresses: BTreeMap<IpAddr, &'s str>,
}

impl<'s> View<'s> {
    fn new(snapshot: &'s Snapshot, node: &'s NodeName) -> Self {
        let nodes: BTreeMap<&str, &Node> =
            snapshot.nodes.iter().map(|(id, node)| (id.name.as_str(), &node.spec)).collect();
        let addresses = |(name, node): (&&'s str, &&'s Node)| {
            let name = *name;
            Family::ALL.map(|family| node.addr(family).map(|addr| (addr.addr(), name)))
        };
        let node_addresses = nodes.iter().flat_map(addresses).flatten().collect();
        Self {
            snapshot,
            node,
            own: nodes.get(node.as_str()).copied(),
            settings: snapshot.felix_configuration(node),
            pools: Pools::of(snapshot),
            nodes,
            node_addresses,
        }
    }

    /// Walks the families that are served.
    fn families(&self) -> impl Iterator<Item = Family> + use<> {
        let v6 = self.settings.ipv6_support.unwrap_or(true);
        Family::ALL.into_iter().filter(move |family| *family == Family::V4 || v6)
    }

    fn serves(&self, family: Family) -> bool {
        self.families().any(|served| served == family)
    }

    /// Reports whether anything here has addresses of the family. IPv6 forwarding is not switched on for nothing: a
    /// host that forwards stops listening to router advertisements.
    fn uses(&self, family: Family) -> bool {
        family == Family::V4
            || self.snapshot.pools.values().any(|pool| pool.spec.cidr.family() == family)
            || self.local_workloads().any(|(_, workload)| workload.addrs(family).next().is_some())
    }

    fn priority(&self, family: Family) -> u32 {
        let setting = match family {
            Family::V4 => self.settings.ipv4_normal_route_priority,
            Family::V6 => self.settings.ipv6_normal_route_priority,
        };
        setting.unwrap_or(NORMAL_PRIORITY)
    }

    fn cluster_routes(&self) -> ProgramClusterRoutes {
        self.settings.program_cluster_routes.unwrap_or(ProgramClusterRoutes::IpipOnly)
    }

    fn is_own(&self, addr: IpAddr) -> bool {
        self.own.is_some_and(|own| own.addr(Family::of(addr)).is_some_and(|own| own.addr() == addr))
    }

    /// Reports whether an address is in the subnet of the node's own address, by the node's own prefix length.
    fn is_same_subnet(&self, addr: IpAddr) -> bool {
        let own = self.own.and_then(|own| own.addr(Family::of(addr)));
        own.is_some_and(|own| own.subnet().contains(addr))
    }

    /// Returns a node that lives inside a network, other than this one.
    fn node_inside(&self, cidr: &Cidr) -> Option<(IpAddr, NodeName)> {
        let inside = self.node_addresses.range(cidr.addr()..=cidr.last());
        inside
            .filter(|(_, name)| **name != self.node.as_str())
            .find_map(|(addr, name)| Some((*addr, name.parse().ok()?)))
    }
}
