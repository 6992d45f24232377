//! The way of a packet through the nodes of the cluster: what each of them sees of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_model::resource::{Object, WorkloadEndpoint};
use calico_model::{InterfaceName, Name, NodeName, Snapshot};

use crate::packet::{Packet, Path, Transport};

/// Where an address lives.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Home<'s> {
    /// A workload's interface.
    Workload(&'s Object<WorkloadEndpoint>, &'s InterfaceName),
    /// A node itself.
    Node(&'s Name),
    /// Outside the cluster.
    Outside,
}

/// Where every address of the cluster lives, for whoever asks for many ways.
#[derive(Debug, Clone)]
pub struct Homes<'s> {
    workloads: BTreeMap<IpAddr, &'s Object<WorkloadEndpoint>>,
    nodes: BTreeMap<IpAddr, &'s Name>,
    /// A node, and the addresses that it has.
    own: Option<(NodeName, BTreeSet<IpAddr>)>,
}

/// Returns the packet as each node on its way sees it, in order; none when no node does.
///
/// What goes to or comes from outside a node passes by its interface `uplink`. A packet between two workloads of one node passes
/// that node alone; one from a workload to itself passes none. From one outside address to another there is no way.
#[must_use]
pub fn way(
    snapshot: &Snapshot,
    source: IpAddr,
    destination: IpAddr,
    transport: Transport,
    uplink: &InterfaceName,
) -> Vec<Packet> {
    Homes::of(snapshot).way(source, destination, transport, uplink)
}

impl<'s> Homes<'s> {
    /// Finds where addresses live: of two that have one, the first by namespace and name counts.
    #[must_use]
    pub fn of(snapshot: &'s Snapshot) -> Self {
        let (mut workloads, mut nodes) = (BTreeMap::new(), BTreeMap::new());
        let plugged = snapshot.workloads.values().filter(|endpoint| endpoint.spec.interface_name.is_some());
        for endpoint in plugged {
            for net in endpoint.spec.ip_networks.iter().filter(|net| net.is_host()) {
                workloads.entry(net.addr()).or_insert(&**endpoint);
            }
        }
        for node in snapshot.nodes.values() {
            for addr in node.spec.own_addrs() {
                nodes.entry(addr).or_insert(&node.metadata.name);
            }
        }
        Self { workloads, nodes, own: None }
    }

    /// Adds what a node itself knows: the addresses that it has, whatever resources say of them. Loopback addresses are its own too.
    #[must_use]
    pub fn with_own(self, node: NodeName, addrs: BTreeSet<IpAddr>) -> Self {
        Self { own: Some((node, addrs)), ..self }
    }

    /// The node that an address is on, and its interface there if it is a workload's.
    fn end(&self, addr: IpAddr) -> (Option<NodeName>, Option<&'s InterfaceName>) {
        if let Some((node, addrs)) = &self.own
            && (addr.is_loopback() || addrs.contains(&addr))
        {
            return (Some(node.clone()), None);
        }
        let home = self.home(addr);
        (home.node(), home.interface())
    }

    pub(crate) fn home(&self, addr: IpAddr) -> Home<'s> {
        if let Some(endpoint) = self.workloads.get(&addr).copied()
            && let Some(interface) = &endpoint.spec.interface_name
        {
            return Home::Workload(endpoint, interface);
        }
        self.nodes.get(&addr).map_or(Home::Outside, |name| Home::Node(name))
    }

    /// Returns the packet as each node on its way sees it: see [`way`].
    #[must_use]
    pub fn way(
        &self,
        source: IpAddr,
        destination: IpAddr,
        transport: Transport,
        uplink: &InterfaceName,
    ) -> Vec<Packet> {
        if source == destination {
            return Vec::new();
        }
        let ((sender, from), (receiver, to)) = (self.end(source), self.end(destination));
        let hops = if sender.is_some() && sender == receiver {
            let path = match (from, to) {
                (Some(from), Some(to)) => Some(Path::Forward { from: from.clone(), to: to.clone() }),
                (Some(from), None) => Some(Path::ToHost { from: from.clone() }),
                (None, Some(to)) => Some(Path::from_host(to.clone())),
                (None, None) => None,
            };
            sender.zip(path).into_iter().collect::<Vec<_>>()
        } else {
            let (up, out) = (uplink.clone(), uplink.clone());
            let leaves = sender.map(|node| match from {
                Some(from) => (node, Path::Forward { from: from.clone(), to: out }),
                None => (node, Path::from_host(out)),
            });
            let arrives = receiver.map(|node| match to {
                Some(to) => (node, Path::Forward { from: up, to: to.clone() }),
                None => (node, Path::ToHost { from: up }),
            });
            leaves.into_iter().chain(arrives).collect()
        };
        hops.into_iter()
            .filter_map(|(node, path)| Packet::new(node, path, source, destination, transport))
            .collect()
    }
}

impl<'s> Home<'s> {
    /// The node that it is on.
    fn node(self) -> Option<NodeName> {
        match self {
            Home::Workload(endpoint, _) => Some(endpoint.spec.node.clone()),
            Home::Node(name) => Some(name.clone().into()),
            Home::Outside => None,
        }
    }

    fn interface(self) -> Option<&'s InterfaceName> {
        if let Home::Workload(_, interface) = self { Some(interface) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use calico_model::resource::{NodeBgp, Object, WorkloadEndpoint};

    use super::*;

    #[test]
    fn pe79_a_packet_passes_every_node_between_its_ends() {
        let mut world = Snapshot::default();
        for (node, interface, addr) in
            [("n1", "cali1", "10.0.0.1"), ("n1", "cali2", "10.0.0.2"), ("n2", "cali3", "10.0.0.3")]
        {
            let mut endpoint = WorkloadEndpoint::on(node.parse().unwrap());
            endpoint.interface_name = Some(interface.parse().unwrap());
            endpoint.ip_networks = vec![addr.parse().unwrap()];
            world.insert(Object::new(interface.parse().unwrap(), endpoint));
        }
        let bgp = Some(NodeBgp::at("172.16.0.1/24".parse().unwrap()));
        world.insert(Object::new(
            "n1".parse().unwrap(),
            calico_model::resource::Node { bgp, ..Default::default() },
        ));
        let uplink = "eth0".parse().unwrap();
        let seen = |source: &str, destination: &str| -> Vec<String> {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let hops = way(&world, source, destination, Transport::tcp(80), &uplink);
            hops.iter().map(|packet| format!("{} {:?}", packet.node, packet.path)).collect()
        };
        assert_eq!(seen("10.0.0.1", "10.0.0.1").len(), 0);
        assert_eq!(seen("10.0.0.1", "10.0.0.2"), ["n1 Forward { from: cali1, to: cali2 }"]);
        assert_eq!(
            seen("10.0.0.1", "10.0.0.3"),
            ["n1 Forward { from: cali1, to: eth0 }", "n2 Forward { from: eth0, to: cali3 }"]
        );
        assert_eq!(seen("10.0.0.1", "172.16.0.1"), ["n1 ToHost { from: cali1 }"]);
        assert_eq!(seen("172.16.0.1", "10.0.0.1"), ["n1 FromHost { first: cali1, to: cali1 }"]);
        assert_eq!(seen("8.8.8.8", "10.0.0.3"), ["n2 Forward { from: eth0, to: cali3 }"]);
    }
}
