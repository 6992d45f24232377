//! Clusters to test with.

use calico_model::learned::{LearnedRoute, LearnedRoutes};
use calico_model::resource::block::{StoredAttributes, StoredBlock};
use calico_model::resource::{EncapMode, IpPool, Node, NodeBgp, Object, WorkloadEndpoint};
use calico_model::{Name, NodeName, Snapshot, Update};

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

/// Gives a node an IPv6 address and tunnel address as well.
pub(crate) fn dual_stack(snapshot: &mut Snapshot, name: &str, addr: &str, tunnel: &str) {
    let name: Name = name.parse().unwrap();
    let mut spec = snapshot.node(&name.clone().into()).cloned().unwrap();
    spec.ipv6_vxlan_tunnel_addr = Some(tunnel.parse().unwrap());
    spec.bgp.as_mut().unwrap().ipv6_address = Some(addr.parse().unwrap());
    snapshot.insert(Object::new(name, spec));
}

pub(crate) fn block(snapshot: &mut Snapshot, cidr: &str, node: &str) {
    let block = StoredBlock::on(cidr.parse().unwrap(), node_name(node));
    snapshot.apply(Update::PutBlock(Box::new(block)));
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

pub(crate) fn pool(snapshot: &mut Snapshot, cidr: &str, ipip_mode: EncapMode, vxlan_mode: EncapMode) {
    let spec = IpPool { ipip_mode, vxlan_mode, ..IpPool::new(cidr.parse().unwrap()) };
    let name = format!("pool-{}", cidr.replace(['.', ':', '/'], "-"));
    snapshot.insert(Object::new(name.parse().unwrap(), spec));
}

/// Three nodes, of which the first two share a subnet, and a CrossSubnet VXLAN pool.
pub(crate) fn three_nodes() -> Snapshot {
    let mut snapshot = Snapshot::default();
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, EncapMode::CrossSubnet);
    node(&mut snapshot, "node1", "172.16.6.1/24", "192.168.0.0");
    node(&mut snapshot, "node2", "172.16.6.2/24", "192.168.1.0");
    node(&mut snapshot, "node3", "172.16.199.3/24", "192.168.2.0");
    block(&mut snapshot, "192.168.0.0/26", "node1");
    block(&mut snapshot, "192.168.1.0/26", "node2");
    block(&mut snapshot, "192.168.2.0/26", "node3");
    workload(&mut snapshot, "one", "node1", "cali1", "192.168.0.1/32");
    snapshot
}

/// The same three nodes with IPv6 as well.
pub(crate) fn three_dual_nodes() -> Snapshot {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "fd00::/48", EncapMode::Never, EncapMode::CrossSubnet);
    for (name, addr, tunnel) in [
        ("node1", "2001:db8::1/64", "fd00::100"),
        ("node2", "2001:db8::2/64", "fd00::200"),
        ("node3", "2001:db8:1::3/64", "fd00::300"),
    ] {
        dual_stack(&mut snapshot, name, addr, tunnel);
    }
    block(&mut snapshot, "fd00::100/122", "node1");
    block(&mut snapshot, "fd00::200/122", "node2");
    block(&mut snapshot, "fd00::300/122", "node3");
    workload(&mut snapshot, "six", "node1", "cali1", "fd00::101/128");
    snapshot
}

/// Has an address of a block live on another node.
pub(crate) fn lend(snapshot: &mut Snapshot, cidr: &str, ordinal: usize, node: &str) {
    let cidr = cidr.parse().unwrap();
    let mut block = snapshot.blocks[&cidr].clone();
    block.allocations[ordinal] = Some(block.attributes.len());
    block.attributes.push(StoredAttributes {
        handle_id: None,
        secondary: [("node".to_owned(), node.to_owned())].into(),
        alternate: Default::default(),
        released_at: None,
        unknown: Default::default(),
    });
    snapshot.apply(Update::PutBlock(Box::new(block)));
}

/// Makes one learned route.
pub(crate) fn learn(learned: &mut LearnedRoutes, prefix: &str, next_hops: &[&str]) {
    let next_hops = next_hops.iter().map(|hop| hop.parse().unwrap()).collect();
    learned.insert(prefix.parse().unwrap(), LearnedRoute { next_hops, priority: None });
}
