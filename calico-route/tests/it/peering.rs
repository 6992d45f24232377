//! What BGP sessions need of the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use calico_model::{LearnedRoutes, Snapshot, Update};
use calico_route::fake::FakeKernel;
use calico_route::ownership::Ownership;
use calico_route::route::Target;
use calico_route::{Computer, Peering, diff};

use crate::cluster::{learn, node_name, three_nodes, workload};
use crate::namespace::machine;

fn addresses(pairs: &[(&str, &str)]) -> BTreeMap<IpAddr, IpAddr> {
    pairs.iter().map(|(one, other)| (one.parse().unwrap(), other.parse().unwrap())).collect()
}

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
        computer.peer(Peering { workloads: addresses(peering), ..Peering::default() });
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

/// Where another program attaches workloads it may give their interfaces addresses that are gateways for them.
#[tokio::test]
async fn of_the_addresses_of_a_workloads_interface_only_ours_are_removed() {
    let machine = machine();
    let mut netlink = machine.connect();
    machine.ip("link add cali2 type veth peer name far2");
    machine.ip("link set cali2 up");
    let mut snapshot = three_nodes();
    workload(&mut snapshot, "router", "node1", "cali1", "192.168.0.7/32");
    workload(&mut snapshot, "router6", "node1", "cali2", "fd00::7/128");
    let mut computer = Computer::new(node_name("node1"));
    updates(&snapshot).for_each(|update| computer.apply(&update));
    let foreign = [("cali1", "10.88.0.1/32"), ("cali1", "169.254.1.1/32"), ("cali2", "fd00:88::1/128")];
    for (device, address) in foreign {
        machine.ip(&format!("address add {address} dev {device}"));
    }
    let set = [("192.168.0.7", "169.254.0.179"), ("fd00::7", "fd00:179::1")];
    let ours = [("cali1", "169.254.0.179/32"), ("cali2", "fd00:179::1/128")];
    for (peering, ours) in [(&[][..], &[][..]), (&set, &ours), (&[], &[])] {
        computer.peer(Peering { workloads: addresses(peering), ..Peering::default() });
        computer.settle();
        let desired = computer.desired();
        let changes = diff(desired, &netlink.read(&desired.ownership).await.unwrap());
        for outcome in netlink.apply(&changes).await {
            assert!(outcome.result.is_ok(), "{}: {:?}", outcome.change, outcome.result);
        }
        assert_eq!(diff(desired, &netlink.read(&desired.ownership).await.unwrap()), []);
        let lines = machine.ip("-o address show scope global");
        let words = lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let held: BTreeSet<_> = words
            .map(|words| (words[1], words[3]))
            .filter(|(device, _)| device.starts_with("cali"))
            .collect();
        assert_eq!(held, foreign.iter().chain(ours).copied().collect());
    }
}

#[test]
fn a_peer_with_a_gateway_of_its_own_is_reached_by_it_and_so_is_what_it_tells() {
    let mut snapshot = three_nodes();
    workload(&mut snapshot, "router", "node1", "cali1", "192.168.0.7/32");
    let mut computer = Computer::new(node_name("node1"));
    updates(&snapshot).for_each(|update| computer.apply(&update));
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "10.77.0.0/24", &["10.99.0.1"]);
    learn(&mut learned, "10.78.0.0/24", &["172.16.6.9"]);
    computer.learn(Arc::new(learned));
    let mut gateway_of = |gateways: &[(&str, &str)], prefix: &str| {
        computer.peer(Peering { gateways: addresses(gateways), ..Peering::default() });
        computer.settle();
        let routes = computer.desired().routes.iter();
        let route =
            routes.filter(|(key, _)| key.prefix == prefix.parse().unwrap()).map(|(_, route)| route).next()?;
        let Target::Gateways(hops) = &route.target else { panic!("{route:?}") };
        Some(hops.iter().map(|hop| hop.gateway.to_string()).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(gateway_of(&[], "10.77.0.0/24").unwrap(), "10.99.0.1");
    let led = [("10.99.0.1", "172.16.6.254")];
    for (prefix, by) in
        [("10.77.0.0/24", "172.16.6.254"), ("10.99.0.1/32", "172.16.6.254"), ("10.78.0.0/24", "172.16.6.9")]
    {
        assert_eq!(gateway_of(&led, prefix).unwrap(), by, "{prefix}");
    }
    assert_eq!(gateway_of(&[("10.99.0.1", "192.168.0.7")], "10.77.0.0/24").unwrap(), "192.168.0.7");
    assert_eq!(gateway_of(&[], "10.77.0.0/24").unwrap(), "10.99.0.1");
    assert_eq!(gateway_of(&[], "10.99.0.1/32"), None);
}

fn updates(snapshot: &Snapshot) -> impl Iterator<Item = Update> {
    let nodes = snapshot.nodes.values().map(|node| Update::Put(Box::new(node.as_ref().clone().into())));
    let workloads = snapshot.workloads.values().map(|one| Update::Put(Box::new(one.as_ref().clone().into())));
    nodes.chain(workloads).collect::<Vec<_>>().into_iter()
}
