//! Workloads that peer with their node at an address of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_model::{Snapshot, Update};
use calico_route::fake::FakeKernel;
use calico_route::ownership::Ownership;
use calico_route::{Computer, diff};

use crate::cluster::{node_name, three_nodes, workload};

#[test]
fn the_address_is_on_the_interfaces_of_the_workloads_that_peer_and_on_no_other() {
    let mut snapshot = three_nodes();
    workload(&mut snapshot, "router", "node1", "cali1", "192.168.0.7/32");
    workload(&mut snapshot, "web", "node1", "cali2", "192.168.0.8/32");
    let mut computer = Computer::new(node_name("node1"));
    updates(&snapshot).for_each(|update| computer.apply(&update));
    let mut kernel = FakeKernel::default();
    for (device, address) in [("eth0", "172.16.6.1/24"), ("cali1", "fe80::1/64"), ("cali2", "fe80::2/64")] {
        kernel.add_link(&device.parse().unwrap(), &[address.parse().unwrap()]);
    }
    let mut settle = |peering: &[(&str, &str)]| {
        let read = |text: &&str| text.parse::<IpAddr>().unwrap();
        computer.peer(
            peering.iter().map(|(workload, ours)| (read(workload), read(ours))).collect::<BTreeMap<_, _>>(),
        );
        let changed = computer.settle();
        let changes = diff(computer.desired(), &kernel.read(&Ownership::default()));
        kernel.apply(&changes).into_iter().for_each(|refusal| refusal.unwrap());
        let of = |device: &str| {
            let addresses = kernel.links[&device.parse().unwrap()].addresses.keys();
            addresses.map(ToString::to_string).collect::<Vec<_>>()
        };
        (changed.everything, [of("cali1"), of("cali2")].concat())
    };
    let kernels = ["fe80::1/64", "fe80::2/64"];
    assert_eq!(settle(&[]).1, kernels);
    assert_eq!(settle(&[("192.168.0.7", "169.254.0.179")]).1, ["169.254.0.179/32", kernels[0], kernels[1]]);
    let (changed, addresses) = settle(&[("192.168.0.7", "169.254.0.179")]);
    assert_eq!((changed, addresses.len()), (false, 3));
    let both = [("192.168.0.7", "169.254.0.178"), ("192.168.0.8", "169.254.0.178")];
    let (changed, addresses) = settle(&both);
    assert_eq!(addresses, ["169.254.0.178/32", kernels[0], "169.254.0.178/32", kernels[1]]);
    assert!(changed);
    assert_eq!(settle(&[("192.168.0.8", "169.254.0.178")]).1, [kernels[0], "169.254.0.178/32", kernels[1]]);
    assert_eq!(settle(&[("192.168.3.3", "169.254.0.178")]).1, kernels, "nobody has that address");
}

fn updates(snapshot: &Snapshot) -> impl Iterator<Item = Update> {
    let nodes = snapshot.nodes.values().map(|node| Update::Put(Box::new(node.as_ref().clone().into())));
    let workloads = snapshot.workloads.values().map(|one| Update::Put(Box::new(one.as_ref().clone().into())));
    nodes.chain(workloads).collect::<Vec<_>>().into_iter()
}
