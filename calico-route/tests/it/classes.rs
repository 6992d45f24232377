//! When two blocks lend the same address to different nodes, the class of their pools says which of the routes is laid.

use calico_model::learned::LearnedRoutes;
use calico_model::resource::{EncapMode, FelixConfiguration, Object, ProgramClusterRoutes};
use calico_model::{Cidr, Snapshot};
use calico_route::compute;
use calico_route::route::{Class, RouteKey};

use crate::cluster::{block, lend, node, node_name, pool};

/// A block of 64 addresses in one pool and one of 128 around it in a wider pool: each lends 10.0.0.9 to another node.
fn class_of(narrow: (EncapMode, EncapMode), wide: (EncapMode, EncapMode), far: &str) -> Class {
    let mut snapshot = Snapshot::default();
    let all = ProgramClusterRoutes::Enabled;
    let felix = FelixConfiguration { program_cluster_routes: Some(all), ..FelixConfiguration::new() };
    snapshot.insert(Object::new("default".parse().unwrap(), felix));
    node(&mut snapshot, "node1", "172.16.6.1/24", "10.9.1.0");
    node(&mut snapshot, "node2", far, "10.9.2.0");
    node(&mut snapshot, "node3", &far.replace("2/", "3/"), "10.9.3.0");
    pool(&mut snapshot, "10.0.0.0/26", narrow.0, narrow.1);
    pool(&mut snapshot, "10.0.0.0/25", wide.0, wide.1);
    for (cidr, holder) in [("10.0.0.0/26", "node2"), ("10.0.0.0/25", "node3")] {
        block(&mut snapshot, cidr, "node1");
        lend(&mut snapshot, cidr, 9, holder);
    }
    let desired = compute(&snapshot, &node_name("node1"), &LearnedRoutes::new());
    let to: Cidr = "10.0.0.9/32".parse().unwrap();
    desired.routes[&RouteKey::main(to, 1024)].class
}

#[test]
fn vxlan_comes_before_ipip_and_ipip_before_none() {
    use EncapMode::{Always, CrossSubnet, Never};
    let (vxlan, ipip, none) = ((Never, CrossSubnet), (CrossSubnet, Never), (Never, Never));
    let ([near, far], apart) = (["172.16.6.2/24", "172.16.9.2/24"], Class::VxlanTunnel);
    for (narrow, wide, at, expected) in [
        (vxlan, ipip, near, Class::VxlanSameSubnet),
        (vxlan, ipip, far, apart),
        ((Never, Always), ipip, near, apart),
        (vxlan, none, near, Class::VxlanSameSubnet),
        (vxlan, none, far, apart),
        (ipip, none, near, Class::IpipSameSubnet),
        (ipip, none, far, Class::IpipTunnel),
        ((Always, Never), none, near, Class::IpipTunnel),
        (none, none, near, Class::NoEncap),
    ] {
        assert_eq!(class_of(narrow, wide, at), expected, "{narrow:?} in {wide:?} at {at}");
    }
    // The wider pool's word is for its whole network, so the narrow one's counts only where it is the stronger.
    assert_eq!(class_of(none, ipip, far), Class::IpipTunnel);
    assert_eq!(class_of(ipip, vxlan, far), apart);
}
