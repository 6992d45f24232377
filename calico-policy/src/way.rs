//! The way of a packet through the nodes of the cluster: what each of them sees of it.

use std::net::IpAddr;

use calico_model::{Cidr, InterfaceName, NodeName, Snapshot};

use crate::packet::{Packet, Path, Transport};

/// Where an address lives.
enum Home {
    /// A workload's interface.
    Workload(NodeName, InterfaceName),
    /// A node itself.
    Node(NodeName),
    /// Outside the cluster.
    Outside,
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
    let up = || uplink.clone();
    let hops = match (home(snapshot, source), home(snapshot, destination)) {
        _ if source == destination => Vec::new(),
        (Home::Workload(a, from), Home::Workload(b, to)) if a == b => vec![(a, Path::Forward { from, to })],
        (Home::Workload(a, from), Home::Workload(b, to)) => {
            vec![(a, Path::Forward { from, to: up() }), (b, Path::Forward { from: up(), to })]
        }
        (Home::Workload(a, from), Home::Node(b)) if a == b => vec![(a, Path::ToHost { from })],
        (Home::Workload(a, from), Home::Node(b)) => {
            vec![(a, Path::Forward { from, to: up() }), (b, Path::ToHost { from: up() })]
        }
        (Home::Workload(a, from), Home::Outside) => vec![(a, Path::Forward { from, to: up() })],
        (Home::Node(a), Home::Workload(b, to)) if a == b => vec![(a, Path::FromHost { to })],
        (Home::Node(a), Home::Workload(b, to)) => {
            vec![(a, Path::FromHost { to: up() }), (b, Path::Forward { from: up(), to })]
        }
        (Home::Node(a), Home::Node(b)) if a == b => Vec::new(),
        (Home::Node(a), Home::Node(b)) => {
            vec![(a, Path::FromHost { to: up() }), (b, Path::ToHost { from: up() })]
        }
        (Home::Node(a), Home::Outside) => vec![(a, Path::FromHost { to: up() })],
        (Home::Outside, Home::Workload(b, to)) => vec![(b, Path::Forward { from: up(), to })],
        (Home::Outside, Home::Node(b)) => vec![(b, Path::ToHost { from: up() })],
        (Home::Outside, Home::Outside) => Vec::new(),
    };
    hops.into_iter()
        .filter_map(|(node, path)| Packet::new(node, path, source, destination, transport))
        .collect()
}

fn home(snapshot: &Snapshot, addr: IpAddr) -> Home {
    let workload = snapshot.workloads.values().find(|endpoint| {
        endpoint.spec.interface_name.is_some() && endpoint.spec.ip_networks.contains(&Cidr::host(addr))
    });
    if let Some(endpoint) = workload
        && let Some(interface) = &endpoint.spec.interface_name
    {
        return Home::Workload(endpoint.spec.node.clone(), interface.clone());
    }
    let owns = |node: &calico_model::resource::Node| {
        let own = calico_model::Family::ALL.into_iter().filter_map(|family| node.addr(family));
        own.map(|own| own.addr())
            .chain(node.addresses.iter().map(|own| own.address.addr()))
            .any(|own| own == addr)
    };
    let node = snapshot.nodes.values().find(|node| owns(&node.spec));
    node.map_or(Home::Outside, |node| Home::Node(node.metadata.name.clone().into()))
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
        assert_eq!(seen("172.16.0.1", "10.0.0.1"), ["n1 FromHost { to: cali1 }"]);
        assert_eq!(seen("8.8.8.8", "10.0.0.3"), ["n2 Forward { from: eth0, to: cali3 }"]);
    }
}
