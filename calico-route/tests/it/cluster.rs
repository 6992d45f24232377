//! Clusters to test with.

use calico_model::resource::block::{Owner, StoredBlock};
use calico_model::resource::{EncapMode, IpPool, Node, NodeBgp, Object, WorkloadEndpoint};
use calico_model::{NodeName, SequenceNumber, Snapshot, Update};

pub(crate) fn node_name(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub(crate) fn node(snapshot: &mut Snapshot, name: &str, addr: &str, tunnel: &str) {
    let spec = Node {
        bgp: Some(NodeBgp::at(addr.parse().unwrap())),
        ipv4_vxlan_tunnel_addr: Some(tunnel.parse().unwrap()),
        ..Node::new()
    };
    snapshot.insert(Object::new(name.parse().unwrap(), spec));
}

pub(crate) fn block(snapshot: &mut Snapshot, cidr: &str, node: &str) {
    snapshot.apply(Update::PutBlock(Box::new(StoredBlock {
        cidr: cidr.parse().unwrap(),
        affinity: Some(Owner::Host(node_name(node))),
        affinity_claim_time: None,
        allocations: vec![None; 64],
        unallocated: (0..64).collect(),
        attributes: vec![],
        sequence_number: SequenceNumber::default(),
        sequence_number_for_allocation: Default::default(),
        deleted: false,
        unknown: Default::default(),
    })));
}

pub(crate) fn workload(snapshot: &mut Snapshot, name: &str, node: &str, device: &str, addr: &str) {
    let spec = WorkloadEndpoint {
        interface_name: Some(device.parse().unwrap()),
        ip_networks: vec![addr.parse().unwrap()],
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        ..WorkloadEndpoint::on(node_name(node))
    };
    let mut object = Object::new(name.parse().unwrap(), spec);
    object.metadata.namespace = Some("default".parse().unwrap());
    snapshot.insert(object);
}

/// Three nodes, of which the first two share a subnet, and a CrossSubnet VXLAN pool.
pub(crate) fn three_nodes() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let pool =
        IpPool { vxlan_mode: EncapMode::CrossSubnet, ..IpPool::new("192.168.0.0/16".parse().unwrap()) };
    snapshot.insert(Object::new("pool".parse().unwrap(), pool));
    node(&mut snapshot, "node1", "172.16.6.1/24", "192.168.0.0");
    node(&mut snapshot, "node2", "172.16.6.2/24", "192.168.1.0");
    node(&mut snapshot, "node3", "172.16.199.3/24", "192.168.2.0");
    block(&mut snapshot, "192.168.0.0/26", "node1");
    block(&mut snapshot, "192.168.1.0/26", "node2");
    block(&mut snapshot, "192.168.2.0/26", "node3");
    workload(&mut snapshot, "one", "node1", "cali1", "192.168.0.1/32");
    snapshot
}
