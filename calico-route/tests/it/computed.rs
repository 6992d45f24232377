//! What is wanted, case by case.

use std::net::IpAddr;

use calico_model::learned::LearnedRoutes;
use calico_model::resource::{EncapMode, FelixConfiguration, Object, ProgramClusterRoutes};
use calico_model::{Cidr, Family, Snapshot};
use calico_route::actual::{Ipv6, LinkState};
use calico_route::device::{Mtu, ipip_device, vxlan_device};
use calico_route::fake::FakeKernel;
use calico_route::route::{Class, Form, Installed, NextHop, Reach, Route, RouteKey, Target};
use calico_route::{Change, Desired, Problem, Waits, compute, diff, plan};

use crate::cluster::{
    block, dual_stack, learn, lend, node, node_name, pool, three_dual_nodes, three_nodes, workload,
};

fn on_node1(snapshot: &Snapshot) -> Desired {
    compute(snapshot, &node_name("node1"), &LearnedRoutes::new())
}

fn key(prefix: &str) -> RouteKey {
    RouteKey::main(prefix.parse().unwrap(), 1024)
}

fn via(class: Class, gateway: &str, reach: Reach) -> Route {
    Route { class, target: Target::via(gateway.parse().unwrap(), reach) }
}

fn tunnel(gateway: &str) -> Route {
    via(Class::VxlanTunnel, gateway, Reach::Onlink(vxlan_device(Family::V4)))
}

fn problems(desired: &Desired) -> Vec<String> {
    desired.problems.iter().map(Problem::to_string).collect()
}

#[test]
fn what_a_workload_tells_its_node_of_is_reached_through_that_workload() {
    let mut snapshot = three_nodes();
    workload(&mut snapshot, "router", "node1", "cali1", "192.168.0.7/32");
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "10.77.0.0/24", &["192.168.0.7"]);
    let desired = compute(&snapshot, &node_name("node1"), &learned);
    let behind = via(Class::Learned, "192.168.0.7", Reach::Onlink("cali1".parse().unwrap()));
    assert_eq!(desired.routes[&key("10.77.0.0/24")], behind);
}

#[test]
fn cross_subnet_goes_straight_within_the_nodes_own_prefix_and_through_the_tunnel_beyond() {
    let desired = on_node1(&three_nodes());
    let straight = via(Class::VxlanSameSubnet, "172.16.6.2", Reach::NodeDevice);
    assert_eq!(desired.routes[&key("192.168.1.0/26")], straight);
    assert_eq!(desired.routes[&key("192.168.2.0/26")], tunnel("192.168.2.0"));
    assert_eq!(problems(&desired), Vec::<String>::new());
}

#[test]
fn the_same_subnet_is_judged_by_our_prefix_length_alone() {
    let mut snapshot = three_nodes();
    node(&mut snapshot, "node1", "172.16.6.1/32", "192.168.0.0");
    let desired = on_node1(&snapshot);
    assert_eq!(desired.routes[&key("192.168.1.0/26")], tunnel("192.168.1.0"));
    node(&mut snapshot, "node1", "172.16.6.1/16", "192.168.0.0");
    let desired = on_node1(&snapshot);
    assert_eq!(desired.routes[&key("192.168.2.0/26")].class, Class::VxlanSameSubnet);
}

#[test]
fn always_goes_through_the_tunnel_everywhere() {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, EncapMode::Always);
    let desired = on_node1(&snapshot);
    assert_eq!(desired.routes[&key("192.168.1.0/26")], tunnel("192.168.1.0"));
}

#[test]
fn every_peer_is_a_neighbour_and_a_forwarding_entry_of_the_tunnel() {
    let desired = on_node1(&three_nodes());
    let device = vxlan_device(Family::V4);
    let mac = calico_route::vxlan_mac(&node_name("node3"), Family::V4);
    let address: IpAddr = "192.168.2.0".parse().unwrap();
    assert_eq!(desired.neighbours[&(device.clone(), address)], mac);
    assert_eq!(desired.fdb[&(device, mac)], "172.16.199.3".parse::<IpAddr>().unwrap());
    assert_eq!(desired.fdb.len(), 2);
}

#[test]
fn a_published_mac_is_believed_over_the_one_that_follows_from_the_name() {
    let mut snapshot = three_nodes();
    let mac = "66:00:00:00:00:01".parse().unwrap();
    let id = snapshot.nodes.keys().find(|id| id.name.as_str() == "node3").unwrap().clone();
    let mut object = snapshot.nodes[&id].as_ref().clone();
    object.spec.vxlan_tunnel_mac = Some(mac);
    snapshot.insert(object);
    assert!(on_node1(&snapshot).fdb.contains_key(&(vxlan_device(Family::V4), mac)));
    let own = compute(&snapshot, &node_name("node3"), &LearnedRoutes::new());
    assert_eq!(own.vxlan[&Family::V4].mac, mac);
}

#[test]
fn without_encapsulation_the_routes_are_those_that_were_learned() {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, EncapMode::Never);
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "192.168.1.0/26", &["172.16.6.2"]);
    let desired = compute(&snapshot, &node_name("node1"), &learned);
    assert_eq!(desired.routes[&key("192.168.1.0/26")], via(Class::Learned, "172.16.6.2", Reach::Resolved));
    assert!(!desired.routes.contains_key(&key("192.168.2.0/26")));
    assert!(desired.vxlan.is_empty() && desired.fdb.is_empty());
}

#[test]
fn one_setting_says_that_the_datastore_is_the_source_and_then_learned_routes_are_not_asked() {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, EncapMode::Never);
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "192.168.1.0/26", &["172.16.6.77"]);
    learn(&mut learned, "10.99.0.0/16", &["172.16.6.77"]);
    for setting in [ProgramClusterRoutes::Enabled, ProgramClusterRoutes::NoEncapOnly] {
        let spec = FelixConfiguration { program_cluster_routes: Some(setting), ..FelixConfiguration::new() };
        snapshot.insert(Object::new("default".parse().unwrap(), spec));
        let desired = compute(&snapshot, &node_name("node1"), &learned);
        assert_eq!(
            desired.routes[&key("192.168.1.0/26")],
            via(Class::NoEncap, "172.16.6.2", Reach::Resolved)
        );
        assert_eq!(
            desired.routes[&key("192.168.2.0/26")],
            via(Class::NoEncap, "172.16.199.3", Reach::Resolved)
        );
        assert_eq!(desired.routes[&key("10.99.0.0/16")].class, Class::Learned);
    }
}

#[test]
fn learned_routes_inside_vxlan_pools_are_ignored_and_those_outside_all_pools_taken() {
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "192.168.1.0/26", &["172.16.6.77"]);
    learn(&mut learned, "192.168.77.0/26", &["172.16.6.77"]);
    learn(&mut learned, "0.0.0.0/0", &["172.16.6.2", "172.16.6.3"]);
    let desired = compute(&three_nodes(), &node_name("node1"), &learned);
    assert_eq!(desired.routes[&key("192.168.1.0/26")].class, Class::VxlanSameSubnet);
    assert!(!desired.routes.contains_key(&key("192.168.77.0/26")));
    let hop = |addr: &str| NextHop { gateway: addr.parse().unwrap(), reach: Reach::Resolved };
    let both = Target::Gateways([hop("172.16.6.2"), hop("172.16.6.3")].into());
    assert_eq!(desired.routes[&key("0.0.0.0/0")].target, both);
}

#[test]
fn a_learned_route_has_the_metric_it_asks_for() {
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "10.99.0.0/16", &["172.16.6.2"]);
    learned.values_mut().for_each(|route| route.priority = Some(2_147_483_547));
    let desired = compute(&three_nodes(), &node_name("node1"), &learned);
    let prefix: Cidr = "10.99.0.0/16".parse().unwrap();
    assert!(desired.routes.contains_key(&RouteKey::main(prefix, 2_147_483_547)));
}

#[test]
fn a_learned_route_that_leads_back_here_is_no_route() {
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "10.99.0.0/16", &["172.16.6.1"]);
    learn(&mut learned, "10.98.0.0/16", &["169.254.7.7"]);
    let desired = compute(&three_nodes(), &node_name("node1"), &learned);
    assert!(!desired.routes.contains_key(&key("10.99.0.0/16")));
    assert!(
        problems(&desired)[0].starts_with("the learned route to 10.98.0.0/16 has the link-local next hop")
    );
}

#[test]
fn a_borrowed_address_is_an_exception_in_every_node_but_its_own() {
    let mut snapshot = three_nodes();
    lend(&mut snapshot, "192.168.1.0/26", 5, "node3");
    lend(&mut snapshot, "192.168.0.0/26", 7, "node3");
    lend(&mut snapshot, "192.168.2.0/26", 9, "node1");
    let desired = on_node1(&snapshot);
    assert_eq!(desired.routes[&key("192.168.1.5/32")], tunnel("192.168.2.0"));
    assert_eq!(desired.routes[&key("192.168.0.7/32")], tunnel("192.168.2.0"));
    assert!(!desired.routes.contains_key(&key("192.168.2.9/32")), "ours is a workload's route or none");
    assert_eq!(desired.routes[&key("192.168.0.0/26")].class, Class::Blackhole);
}

/// Where BGP is the source, the node that has a borrowed address announces it, and nobody takes it from the datastore.
#[test]
fn a_borrowed_address_that_bgp_tells_of_is_an_exception_in_its_block_and_in_our_own() {
    let mut snapshot = three_dual_nodes();
    for cidr in ["192.168.0.0/16", "fd00::/48"] {
        pool(&mut snapshot, cidr, EncapMode::Never, EncapMode::Never);
    }
    node(&mut snapshot, "node3", "172.16.6.3/24", "192.168.2.0");
    dual_stack(&mut snapshot, "node3", "2001:db8::3/64", "fd00::300");
    let mut kernel = FakeKernel::default();
    let eth0 = ["172.16.6.1/24", "2001:db8::1/64"].map(|addr| addr.parse().unwrap());
    kernel.add_link(&"eth0".parse().unwrap(), &eth0);
    kernel.add_link(&"cali1".parse().unwrap(), &[]);
    let families = [
        ["192.168.0.0/26", "192.168.0.7/32", "192.168.1.0/26", "192.168.1.5/32", "172.16.6.2", "172.16.6.3"],
        ["fd00::100/122", "fd00::107/128", "fd00::200/122", "fd00::205/128", "2001:db8::2", "2001:db8::3"],
    ];
    let mut learned = LearnedRoutes::new();
    for [own, lent, other, borrowed, owner, borrower] in families {
        lend(&mut snapshot, own, 7, "node3");
        lend(&mut snapshot, other, 5, "node3");
        let desired = on_node1(&snapshot);
        assert!(!desired.routes.contains_key(&key(lent)), "the datastore is not the source");
        assert!(!desired.routes.contains_key(&key(borrowed)), "the datastore is not the source");
        learn(&mut learned, other, &[owner]);
        learn(&mut learned, borrowed, &[borrower]);
        learn(&mut learned, lent, &[borrower]);
    }
    let desired = compute(&snapshot, &node_name("node1"), &learned);
    assert_eq!(problems(&desired), Vec::<String>::new());
    let changes = diff(&desired, &kernel.read(&desired.ownership));
    assert!(kernel.apply(&changes).iter().all(Result::is_ok), "{changes:?}");
    let laid = |prefix: &str| match &kernel.routes[&key(prefix)][..] {
        [Installed { form: Form::Gateways(gateways), .. }] => {
            gateways.iter().map(|gateway| format!("{} over {}", gateway.address, gateway.device)).collect()
        }
        [Installed { form: Form::Blackhole, .. }] => "dropped".to_owned(),
        others => format!("{others:?}"),
    };
    for [own, lent, other, borrowed, owner, borrower] in families {
        assert_eq!(desired.routes[&key(borrowed)], via(Class::Learned, borrower, Reach::Resolved));
        assert_eq!(laid(borrowed), format!("{borrower} over eth0"));
        assert_eq!(laid(other), format!("{owner} over eth0"));
        assert_eq!(laid(lent), format!("{borrower} over eth0"), "it left our block");
        assert_eq!(laid(own), "dropped", "the rest of our block did not");
    }
}

#[test]
fn while_a_machine_migrates_the_route_to_where_it_is_active_wins_on_every_node() {
    let on = |snapshot: &Snapshot, node: &str| {
        let desired = compute(snapshot, &node_name(node), &LearnedRoutes::new());
        let to = desired.routes.range(RouteKey::all_to("192.168.0.1/32".parse().unwrap()));
        to.map(|(key, route)| (key.priority, route.class)).collect::<Vec<_>>()
    };
    // The machine is on node1, in node1's block, and about to arrive on node3.
    let mut snapshot = three_nodes();
    workload(&mut snapshot, "arriving", "node3", "cali7", "192.168.0.1/32");
    lend(&mut snapshot, "192.168.0.0/26", 1, "node1");
    let owners = |snapshot: &mut Snapshot, active: &str, other: Option<&str>| {
        let mut block = snapshot.blocks[&"192.168.0.0/26".parse().unwrap()].clone();
        let note = |node: &str| [("node".to_owned(), node.to_owned())].into();
        let attributes = block.attributes.last_mut().unwrap();
        (attributes.secondary, attributes.alternate) = (note(active), other.map(note).unwrap_or_default());
        snapshot.apply(calico_model::Update::PutBlock(Box::new(block)));
    };
    owners(&mut snapshot, "node1", Some("node3"));
    assert_eq!(on(&snapshot, "node1"), [(512, Class::LocalWorkload)]);
    assert_eq!(on(&snapshot, "node2"), [(512, Class::VxlanSameSubnet)]);
    assert_eq!(on(&snapshot, "node3"), [(512, Class::VxlanTunnel), (1024, Class::LocalWorkload)]);
    owners(&mut snapshot, "node3", Some("node1"));
    assert_eq!(on(&snapshot, "node1"), [(512, Class::VxlanTunnel), (1024, Class::LocalWorkload)]);
    assert_eq!(on(&snapshot, "node2"), [(512, Class::VxlanTunnel)]);
    assert_eq!(on(&snapshot, "node3"), [(512, Class::LocalWorkload)]);
    let spec = FelixConfiguration { ipv4_elevated_route_priority: Some(77), ..FelixConfiguration::new() };
    snapshot.insert(Object::new("default".parse().unwrap(), spec));
    assert_eq!(on(&snapshot, "node3"), [(77, Class::LocalWorkload)]);
    // It has arrived, and what it left is gone.
    owners(&mut snapshot, "node3", None);
    assert_eq!(on(&snapshot, "node2"), [(1024, Class::VxlanTunnel)]);
    assert_eq!(on(&snapshot, "node3"), [(1024, Class::LocalWorkload)]);
}

#[test]
fn a_block_that_nobody_owns_still_has_the_addresses_in_use() {
    let mut snapshot = three_nodes();
    lend(&mut snapshot, "192.168.1.0/26", 5, "node2");
    let mut orphan = snapshot.blocks[&"192.168.1.0/26".parse().unwrap()].clone();
    orphan.affinity = None;
    snapshot.apply(calico_model::Update::PutBlock(Box::new(orphan)));
    let desired = on_node1(&snapshot);
    assert!(!desired.routes.contains_key(&key("192.168.1.0/26")));
    assert_eq!(desired.routes[&key("192.168.1.5/32")].class, Class::VxlanSameSubnet);
}

#[test]
fn of_routes_with_one_key_the_better_class_stays() {
    let class = |snapshot: &Snapshot, learned: &LearnedRoutes, prefix: &str| {
        compute(snapshot, &node_name("node1"), learned).routes[&key(prefix)].class
    };
    let mut snapshot = three_nodes();
    let mut learned = LearnedRoutes::new();
    lend(&mut snapshot, "192.168.1.0/26", 5, "node3");
    lend(&mut snapshot, "192.168.1.0/26", 6, "node2");
    assert_eq!(class(&snapshot, &learned, "192.168.1.5/32"), Class::VxlanTunnel);
    workload(&mut snapshot, "here", "node1", "cali5", "192.168.1.5/32");
    assert_eq!(class(&snapshot, &learned, "192.168.1.5/32"), Class::LocalWorkload);
    // A block of one address inside another: within the subnet is better than through the tunnel.
    block(&mut snapshot, "192.168.1.7/32", "node2");
    lend(&mut snapshot, "192.168.1.0/26", 7, "node3");
    assert_eq!(class(&snapshot, &learned, "192.168.1.7/32"), Class::VxlanSameSubnet);
    // What the datastore says is better than what was learned.
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, EncapMode::Never);
    learn(&mut learned, "192.168.0.0/26", &["172.16.6.2"]);
    learn(&mut learned, "192.168.1.5/32", &["172.16.6.2"]);
    learn(&mut learned, "192.168.1.0/26", &["172.16.6.2"]);
    assert_eq!(class(&snapshot, &learned, "192.168.0.0/26"), Class::Blackhole);
    assert_eq!(class(&snapshot, &learned, "192.168.1.5/32"), Class::LocalWorkload);
    assert_eq!(class(&snapshot, &learned, "192.168.1.0/26"), Class::Learned);
}

#[test]
fn a_block_of_one_address_has_no_drop() {
    let mut snapshot = three_nodes();
    block(&mut snapshot, "192.168.7.7/32", "node1");
    assert!(!on_node1(&snapshot).routes.contains_key(&key("192.168.7.7/32")));
    block(&mut snapshot, "192.168.8.8/32", "node2");
    assert_eq!(on_node1(&snapshot).routes[&key("192.168.8.8/32")].class, Class::VxlanSameSubnet);
}

#[test]
fn pe55_the_network_address_of_a_block_may_be_a_workloads() {
    let mut snapshot = three_nodes();
    workload(&mut snapshot, "zero", "node1", "cali9", "192.168.0.0/32");
    let desired = on_node1(&snapshot);
    assert_eq!(desired.routes[&key("192.168.0.0/32")].target, Target::Device("cali9".parse().unwrap()));
    assert_eq!(desired.routes[&key("192.168.0.0/26")].class, Class::Blackhole);
}

#[test]
fn pe55_the_address_of_a_node_is_never_a_workloads_and_no_block_cuts_a_node_off() {
    let mut snapshot = three_nodes();
    workload(&mut snapshot, "thief", "node1", "cali9", "172.16.6.2/32");
    pool(&mut snapshot, "172.16.6.0/24", EncapMode::Never, EncapMode::Always);
    block(&mut snapshot, "172.16.6.0/26", "node3");
    let desired = on_node1(&snapshot);
    assert!(!desired.routes.contains_key(&key("172.16.6.2/32")));
    assert!(!desired.routes.contains_key(&key("172.16.6.0/26")));
    assert_eq!(
        problems(&desired),
        [
            "workload endpoint default/thief has the address 172.16.6.2 of node node2 and gets no route; give it \
             another address",
            "block 172.16.6.0/26 holds the address 172.16.6.2 of node node2 and gets no route; move the pool out of \
             the nodes' network",
        ]
    );
}

#[test]
fn pe55_neither_the_owner_of_a_block_nor_who_learns_it_cuts_off_a_node_inside() {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "172.16.6.0/24", EncapMode::Never, EncapMode::Never);
    block(&mut snapshot, "172.16.6.0/26", "node1");
    let cut_off = "block 172.16.6.0/26 holds the address 172.16.6.2 of node node2 and gets no route; move the pool out of \
                   the nodes' network";
    let owner = on_node1(&snapshot);
    assert!(!owner.routes.contains_key(&key("172.16.6.0/26")));
    assert_eq!(problems(&owner), [cut_off]);
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "172.16.6.0/26", &["172.16.6.1"]);
    learn(&mut learned, "172.16.6.128/26", &["172.16.6.1"]);
    // What the fabric tells of its racks and of a node's loopback is no block, whichever pool it is in.
    pool(&mut snapshot, "172.16.0.0/12", EncapMode::Never, EncapMode::Never);
    learn(&mut learned, "172.16.0.0/16", &["172.16.199.254"]);
    learn(&mut learned, "172.16.6.2/32", &["172.16.199.254"]);
    let other = compute(&snapshot, &node_name("node3"), &learned);
    assert!(
        !other.routes.contains_key(&key("172.16.6.0/26"))
            && problems(&other).iter().any(|said| said.starts_with("block 172.16.6.0/26 holds"))
    );
    for kept in ["172.16.6.128/26", "172.16.0.0/16", "172.16.6.2/32"] {
        assert!(other.routes.contains_key(&key(kept)), "{kept}");
    }
}

#[test]
fn of_two_workloads_with_one_address_the_newer_has_the_route() {
    let mut snapshot = three_nodes();
    for (name, device, born) in
        [("old", "cali7", "2026-01-01T00:00:00Z"), ("new", "cali6", "2026-01-02T00:00:00Z")]
    {
        workload(&mut snapshot, name, "node1", device, "192.168.0.9/32");
        let id = snapshot.workloads.keys().find(|id| id.name.as_str() == name).unwrap().clone();
        let mut object = snapshot.workloads[&id].as_ref().clone();
        object.metadata.creation_timestamp = Some(born.to_owned());
        snapshot.insert(object);
    }
    let desired = on_node1(&snapshot);
    assert_eq!(desired.routes[&key("192.168.0.9/32")].target, Target::Device("cali6".parse().unwrap()));
    assert_eq!(
        problems(&desired),
        [
            "address 192.168.0.9 is that of both workload endpoints default/new and default/old; the route leads to \
          default/new until default/old is deleted or given another address"
        ]
    );
}

#[test]
fn a_peer_without_a_tunnel_address_is_reached_within_the_subnet_only() {
    let mut snapshot = three_nodes();
    for name in ["node2", "node3"] {
        let id = snapshot.nodes.keys().find(|id| id.name.as_str() == name).unwrap().clone();
        let mut object = snapshot.nodes[&id].as_ref().clone();
        object.spec.ipv4_vxlan_tunnel_addr = None;
        snapshot.insert(object);
    }
    let desired = on_node1(&snapshot);
    assert!(desired.routes.contains_key(&key("192.168.1.0/26")));
    assert!(!desired.routes.contains_key(&key("192.168.2.0/26")));
    assert_eq!(problems(&desired).len(), 1);
    assert!(problems(&desired)[0].starts_with("node node3 has no IPv4 VXLAN tunnel address yet"));
}

#[test]
fn two_nodes_with_one_tunnel_address_are_told_apart_by_name() {
    let mut snapshot = three_nodes();
    node(&mut snapshot, "node3", "172.16.199.3/24", "192.168.1.0");
    let desired = on_node1(&snapshot);
    assert_eq!(desired.fdb.len(), 1);
    assert!(!desired.routes.contains_key(&key("192.168.2.0/26")), "it would lead to the other node");
    assert!(
        problems(&desired)[0].starts_with("nodes node2 and node3 both have the tunnel's address 192.168.1.0")
    );
}

#[test]
fn a_node_that_is_not_in_the_datastore_still_has_its_workloads_routes() {
    let mut snapshot = three_nodes();
    snapshot.nodes.retain(|id, _| id.name.as_str() != "node1");
    let desired = on_node1(&snapshot);
    assert!(desired.routes.contains_key(&key("192.168.0.1/32")));
    assert!(desired.routes.contains_key(&key("192.168.0.0/26")));
    assert_eq!(desired.routes.len(), 2);
    assert!(problems(&desired)[0].starts_with("node node1 is not in the datastore"));
}

#[test]
fn a_pool_of_the_other_family_has_a_device_and_routes_of_its_own() {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "fd00::/48", EncapMode::Never, EncapMode::Always);
    block(&mut snapshot, "fd00::40/122", "node2");
    block(&mut snapshot, "fd00::80/122", "node1");
    let desired = on_node1(&snapshot);
    assert!(problems(&desired)[0].starts_with("node node1 has no IPv6 address"), "{:?}", problems(&desired));
    for (name, addr, tunnel) in
        [("node1", "2001:db8::1/64", "fd00::80"), ("node2", "2001:db8::2/64", "fd00::40")]
    {
        dual_stack(&mut snapshot, name, addr, tunnel);
    }
    let desired = on_node1(&snapshot);
    let device = desired.vxlan[&Family::V6].clone();
    assert_eq!(device.local, "2001:db8::1".parse::<IpAddr>().unwrap());
    assert_eq!(device.mac, calico_route::vxlan_mac(&node_name("node1"), Family::V6));
    let through = via(Class::VxlanTunnel, "fd00::40", Reach::Onlink(vxlan_device(Family::V6)));
    assert_eq!(desired.routes[&key("fd00::40/122")], through);
    assert_eq!(desired.routes[&key("fd00::80/122")].class, Class::Blackhole);
}

#[test]
fn ipv6_that_is_switched_off_is_left_alone() {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "fd00::/48", EncapMode::Never, EncapMode::Always);
    block(&mut snapshot, "fd00::40/122", "node2");
    let spec = FelixConfiguration { ipv6_support: Some(false), ..FelixConfiguration::new() };
    snapshot.insert(Object::new("default".parse().unwrap(), spec));
    let desired = on_node1(&snapshot);
    assert!(desired.routes.keys().all(|key| key.prefix.family() == Family::V4));
    assert!(desired.sysctls.keys().all(|sysctl| sysctl.path() != "net/ipv6/conf/all/forwarding"));
    assert_eq!(problems(&desired), Vec::<String>::new());

    // A workload without a route of its own is no way to what is behind it either.
    workload(&mut snapshot, "router", "node1", "cali1", "2001:db8::2/128");
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "10.77.0.0/24", &["2001:db8::2"]);
    let desired = compute(&snapshot, &node_name("node1"), &learned);
    let resolved = via(Class::Learned, "2001:db8::2", Reach::Resolved);
    assert_eq!(desired.routes[&key("10.77.0.0/24")], resolved);
}

#[test]
fn ipip_has_its_device_and_its_routes_from_the_datastore_by_default() {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::CrossSubnet, EncapMode::Never);
    let desired = on_node1(&snapshot);
    assert_eq!(desired.ipip.as_ref().map(|device| device.mtu), Some(Mtu::Detected));
    let through = via(Class::IpipTunnel, "172.16.199.3", Reach::Onlink(ipip_device()));
    assert_eq!(desired.routes[&key("192.168.2.0/26")], through);
    let straight = via(Class::IpipSameSubnet, "172.16.6.2", Reach::NodeDevice);
    assert_eq!(desired.routes[&key("192.168.1.0/26")], straight);
}

#[test]
fn learned_routes_into_ipip_pools_use_the_tunnel_when_bgp_is_the_source() {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::CrossSubnet, EncapMode::Never);
    let setting = Some(ProgramClusterRoutes::Disabled);
    let spec = FelixConfiguration { program_cluster_routes: setting, ..FelixConfiguration::new() };
    snapshot.insert(Object::new("default".parse().unwrap(), spec));
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "192.168.1.0/26", &["172.16.6.2"]);
    learn(&mut learned, "192.168.2.0/26", &["172.16.199.3"]);
    let desired = compute(&snapshot, &node_name("node1"), &learned);
    let hop = |prefix: &str| desired.routes[&key(prefix)].target.clone();
    assert_eq!(hop("192.168.1.0/26"), Target::via("172.16.6.2".parse().unwrap(), Reach::NodeDevice));
    let onlink = Reach::Onlink(ipip_device());
    assert_eq!(hop("192.168.2.0/26"), Target::via("172.16.199.3".parse().unwrap(), onlink));
}

#[test]
fn the_metric_of_ordinary_routes_is_a_setting() {
    let mut snapshot = three_nodes();
    let spec = FelixConfiguration { ipv4_normal_route_priority: Some(77), ..FelixConfiguration::new() };
    snapshot.insert(Object::new("default".parse().unwrap(), spec));
    assert!(on_node1(&snapshot).routes.keys().all(|key| key.priority == 77));
}

#[test]
fn workloads_packets_fit_through_every_tunnel_that_a_pool_asks_for() {
    let mut kernel = FakeKernel::default();
    let mut snapshot = three_nodes();
    let mtu = |snapshot: &Snapshot, kernel: &FakeKernel| {
        let desired = on_node1(snapshot);
        desired.workload_mtu(&kernel.read(&desired.ownership).host)
    };
    assert_eq!(mtu(&snapshot, &kernel), 1410, "the fallback");
    kernel.add_link(&"eth0".parse().unwrap(), &["172.16.6.1/24".parse().unwrap()]);
    assert_eq!(mtu(&snapshot, &kernel), 1450);
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::CrossSubnet, EncapMode::Never);
    assert_eq!(mtu(&snapshot, &kernel), 1480);
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, EncapMode::Never);
    assert_eq!(mtu(&snapshot, &kernel), 1500);
    pool(&mut snapshot, "fd00::/48", EncapMode::Never, EncapMode::Always);
    assert_eq!(mtu(&snapshot, &kernel), 1390, "also before the tunnel can be made");
    let mut configure = |spec: FelixConfiguration| {
        snapshot.insert(Object::new("default".parse().unwrap(), spec));
        mtu(&snapshot, &kernel)
    };
    assert_eq!(configure(FelixConfiguration { vxlan_mtu: Some(1300), ..FelixConfiguration::new() }), 1390);
    assert_eq!(configure(FelixConfiguration { vxlan_mtu_v6: Some(1300), ..FelixConfiguration::new() }), 1300);
}

#[test]
fn a_pattern_says_which_links_tell_the_mtu() {
    let mut kernel = machine();
    for (name, mtu) in [("eth0", 9000), ("storage0", 1400), ("storage1", 1350), ("storage2", 800)] {
        if name != "eth0" {
            kernel.add_link(&name.parse().unwrap(), &[]);
        }
        kernel.links.get_mut(&name.parse().unwrap()).unwrap().mtu = mtu;
    }
    kernel.set_link(&"storage2".parse().unwrap(), LinkState::Down);
    for (pattern, mtu) in [(None, 9000), (Some("^storage"), 1350), (Some("^absent"), 9000), (Some("("), 9000)]
    {
        let mut snapshot = three_nodes();
        let spec =
            FelixConfiguration { mtu_iface_pattern: pattern.map(str::to_owned), ..FelixConfiguration::new() };
        snapshot.insert(Object::new("default".parse().unwrap(), spec));
        let desired = on_node1(&snapshot);
        let actual = kernel.read(&desired.ownership);
        assert_eq!(desired.workload_mtu(&actual.host), mtu - 50, "{pattern:?}");
        let device = diff(&desired, &actual)
            .into_iter()
            .find_map(|change| if let Change::AddVxlan { mtu, .. } = change { Some(mtu) } else { None });
        assert_eq!(device, Some(mtu - 50), "{pattern:?}");
        let expected: &[&str] = if pattern == Some("(") {
            &[
                "mtuIfacePattern \"(\" of the FelixConfiguration is no regular expression, so the links that hold the \
                 node's addresses tell the MTU; mend it or leave it out",
            ]
        } else {
            &[]
        };
        assert_eq!(problems(&desired), expected);
    }
}

/// A Node that is written anew goes for a moment without what its agent told in it.
#[test]
fn a_tunnel_address_that_is_missing_for_a_moment_takes_nothing_along() {
    let mut kernel = FakeKernel::default();
    let eth0 = ["172.16.6.1/24", "2001:db8::1/64"].map(|addr| addr.parse().unwrap());
    kernel.add_link(&"eth0".parse().unwrap(), &eth0);
    kernel.add_link(&"cali1".parse().unwrap(), &[]);
    let mut snapshot = three_dual_nodes();
    let desired = on_node1(&snapshot);
    kernel.apply(&diff(&desired, &kernel.read(&desired.ownership)));
    let node1 = calico_model::Name::from(node_name("node1"));
    let whole = snapshot.node(&node1.clone().into()).cloned().unwrap();
    let mut without = whole.clone();
    (without.ipv4_vxlan_tunnel_addr, without.ipv6_vxlan_tunnel_addr) = (None, None);
    snapshot.insert(Object::new(node1, without));
    let desired = on_node1(&snapshot);
    assert_eq!(problems(&desired).len(), 2);
    let plan = plan(&desired, &kernel.read(&desired.ownership));
    assert_eq!((plan.changes, plan.waiting), (vec![], Waits::default()));

    // The pools themselves give the tunnel up.
    for cidr in ["192.168.0.0/16", "fd00::/48"] {
        pool(&mut snapshot, cidr, EncapMode::Never, EncapMode::Never);
    }
    let desired = on_node1(&snapshot);
    kernel.apply(&diff(&desired, &kernel.read(&desired.ownership)));
    assert!(!kernel.links.keys().any(|device| desired.ownership.is_tunnel(device)));
}

/// A pattern that fits everything fits the devices whose MTU follows from what it finds.
#[test]
fn no_tunnel_gets_narrower_with_each_look() {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "10.77.0.0/16", EncapMode::Always, EncapMode::Never);
    let spec = FelixConfiguration { mtu_iface_pattern: Some(".*".to_owned()), ..FelixConfiguration::new() };
    snapshot.insert(Object::new("default".parse().unwrap(), spec));
    let desired = on_node1(&snapshot);
    let mut kernel = machine();
    kernel.links.get_mut(&"cali1".parse().unwrap()).unwrap().mtu = 1450;
    kernel.apply(&diff(&desired, &kernel.read(&desired.ownership)));
    let actual = kernel.read(&desired.ownership);
    assert_eq!(diff(&desired, &actual), []);
    assert_eq!(desired.workload_mtu(&actual.host), 1450);
}

/// What has to wait on a machine, each in a sentence.
fn waiting(snapshot: &Snapshot, kernel: &FakeKernel) -> Vec<String> {
    let desired = on_node1(snapshot);
    let plan = plan(&desired, &kernel.read(&desired.ownership));
    plan.waiting.iter().map(ToString::to_string).collect()
}

fn machine() -> FakeKernel {
    let mut kernel = FakeKernel::default();
    kernel.add_link(&"eth0".parse().unwrap(), &["172.16.6.1/24".parse().unwrap()]);
    kernel.add_link(&"cali1".parse().unwrap(), &[]);
    kernel
}

#[test]
fn a_next_hop_that_the_machine_cannot_reach_is_one_line_and_the_rest_is_laid() {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, EncapMode::Never);
    let setting = Some(ProgramClusterRoutes::Enabled);
    let spec = FelixConfiguration { program_cluster_routes: setting, ..FelixConfiguration::new() };
    snapshot.insert(Object::new("default".parse().unwrap(), spec));
    block(&mut snapshot, "192.168.3.0/26", "node3");
    let mut kernel = machine();
    assert_eq!(
        waiting(&snapshot, &kernel),
        [
            "the machine has no route to the next hop 172.16.199.3; add one, or let the pool use VXLAN between subnets"
        ]
    );
    let desired = on_node1(&snapshot);
    kernel.apply(&diff(&desired, &kernel.read(&desired.ownership)));
    assert!(kernel.routes.contains_key(&key("192.168.1.0/26")));
}

#[test]
fn a_network_too_small_for_a_tunnel_is_named_with_what_it_would_take() {
    let mut kernel = machine();
    kernel.links.get_mut(&"eth0".parse().unwrap()).unwrap().mtu = 600;
    let told = waiting(&three_nodes(), &kernel);
    assert_eq!(told, ["interface eth0 has an MTU of 600, too small for a tunnel; give it at least 626"]);
    kernel.links.get_mut(&"eth0".parse().unwrap()).unwrap().mtu = 626;
    assert_eq!(waiting(&three_nodes(), &kernel), Vec::<String>::new());
}

/// IPv6 asks for 1280 bytes, also inside a tunnel: where the wire is too narrow for that, nothing that could be set would do, and
/// the kernel would refuse the device again and again.
#[test]
fn a_network_too_small_for_a_tunnel_is_named_whatever_mtu_is_set() {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "fd00::/48", EncapMode::Never, EncapMode::Always);
    dual_stack(&mut snapshot, "node1", "2001:db8::1/64", "fd00::80");
    let mut kernel = machine();
    let eth0 = kernel.links.get_mut(&"eth0".parse().unwrap()).unwrap();
    eth0.addresses.insert("2001:db8::1/64".parse().unwrap(), None);
    for vxlan_mtu_v6 in [None, Some(1400), Some(1280)] {
        let spec = FelixConfiguration { vxlan_mtu_v6, ..FelixConfiguration::new() };
        snapshot.insert(Object::new("default".parse().unwrap(), spec));
        for (mtu, told) in [
            (1300, vec!["interface eth0 has an MTU of 1300, too small for a tunnel; give it at least 1350"]),
            (1500, vec![]),
        ] {
            kernel.links.get_mut(&"eth0".parse().unwrap()).unwrap().mtu = mtu;
            let desired = on_node1(&snapshot);
            let actual = kernel.read(&desired.ownership);
            let plan = plan(&desired, &actual);
            assert_eq!(plan.waiting.iter().map(ToString::to_string).collect::<Vec<_>>(), told);
            let device = vxlan_device(Family::V6);
            let made = plan.changes.iter().any(|change| change.device() == Some(&device));
            assert_eq!(made, told.is_empty(), "{vxlan_mtu_v6:?} {mtu}");
            let workload = desired.workload_mtu(&actual.host);
            assert!(workload <= mtu - 70, "{vxlan_mtu_v6:?} {mtu}: {workload}");
        }
    }
}

#[test]
fn a_node_address_that_the_machine_does_not_have_is_named() {
    let mut kernel = FakeKernel::default();
    kernel.add_link(&"cali1".parse().unwrap(), &[]);
    for encapsulation in [EncapMode::Always, EncapMode::CrossSubnet, EncapMode::Never] {
        let mut snapshot = three_nodes();
        pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, encapsulation);
        let setting = Some(ProgramClusterRoutes::Enabled);
        let spec = FelixConfiguration { program_cluster_routes: setting, ..FelixConfiguration::new() };
        snapshot.insert(Object::new("default".parse().unwrap(), spec));
        assert_eq!(
            waiting(&snapshot, &kernel),
            [
                "no interface has the node's address 172.16.6.1; add the address, or set spec.bgp of the Node to one that \
                 the machine has"
            ]
        );
    }
}

#[test]
fn a_kernel_without_ipv6_is_one_line_and_ipv4_is_laid() {
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "fd00::/48", EncapMode::Never, EncapMode::Always);
    for (name, addr, tunnel) in
        [("node1", "2001:db8::1/64", "fd00::80"), ("node2", "2001:db8::2/64", "fd00::40")]
    {
        dual_stack(&mut snapshot, name, addr, tunnel);
    }
    (0..4).for_each(|at| block(&mut snapshot, &format!("fd00::{at}00/122"), "node2"));
    workload(&mut snapshot, "six", "node1", "cali1", "fd00::81/128");
    let mut kernel = machine();
    kernel.ipv6 = Ipv6::Absent;
    assert_eq!(
        waiting(&snapshot, &kernel),
        [
            "this kernel has no IPv6 (ipv6.disable=1, or built without); its routes wait until the machine is started \
          with it, or set ipv6Support to false in the FelixConfiguration"
        ]
    );
    let desired = on_node1(&snapshot);
    let changes = diff(&desired, &kernel.read(&desired.ownership));
    assert!(changes.iter().all(|change| !change.to_string().contains("fd00")), "{changes:?}");
    assert!(kernel.apply(&changes).iter().all(Result::is_ok));
    assert!(kernel.routes.contains_key(&key("192.168.2.0/26")));
}

#[test]
fn a_pool_that_gives_up_its_tunnel_has_its_routes_led_elsewhere_before_the_device_goes() {
    let mut kernel = FakeKernel::default();
    kernel.add_link(&"eth0".parse().unwrap(), &["172.16.6.1/24".parse().unwrap()]);
    kernel.add_link(&"cali1".parse().unwrap(), &[]);
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, EncapMode::Always);
    let setting = Some(ProgramClusterRoutes::Enabled);
    let spec = FelixConfiguration { program_cluster_routes: setting, ..FelixConfiguration::new() };
    snapshot.insert(Object::new("default".parse().unwrap(), spec));
    let mut settle = |snapshot: &Snapshot| {
        let desired = on_node1(snapshot);
        let changes = diff(&desired, &kernel.read(&desired.ownership));
        assert!(kernel.apply(&changes).iter().all(Result::is_ok), "{changes:?}");
        changes.iter().map(ToString::to_string).filter(|text| !text.starts_with("sysctl")).collect::<Vec<_>>()
    };
    settle(&snapshot);
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, EncapMode::Never);
    assert_eq!(
        settle(&snapshot),
        [
            "route replace 192.168.1.0/26 metric 1024 via 172.16.6.2 dev eth0",
            "route del 192.168.2.0/26 metric 1024 via 192.168.2.0 dev vxlan.calico onlink",
            "link del vxlan.calico"
        ],
        "the third node is in no subnet that the machine knows a way to"
    );
}
