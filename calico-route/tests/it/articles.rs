//! The route tables that users know, with the addresses they were published with.

use calico_model::learned::LearnedRoutes;
use calico_model::resource::{EncapMode, FelixConfiguration, Node, NodeBgp, Object, ProgramClusterRoutes};
use calico_model::{InterfaceName, NodeName, Snapshot};
use calico_route::fake::FakeKernel;
use calico_route::route::{Form, Gateway, Installed, RouteKey};
use calico_route::{compute, diff};

use crate::cluster::{block, learn, pool, workload};

/// A node without a tunnel address.
fn node(snapshot: &mut Snapshot, name: &str, addr: &str) {
    let spec = Node { bgp: Some(NodeBgp::at(addr.parse().unwrap())), ..Node::new() };
    snapshot.insert(Object::new(name.parse().unwrap(), spec));
}

/// The walker hosts and demi: two subnets, a pod each.
fn walkers(ipip: EncapMode) -> Snapshot {
    let mut snapshot = Snapshot::default();
    pool(&mut snapshot, "192.168.0.0/16", ipip, EncapMode::Never);
    node(&mut snapshot, "walker-1", "172.16.6.47/24");
    node(&mut snapshot, "walker-2", "172.16.6.249/24");
    node(&mut snapshot, "demi-1", "172.16.199.114/24");
    block(&mut snapshot, "192.168.187.192/26", "walker-1");
    block(&mut snapshot, "192.168.135.64/26", "walker-2");
    block(&mut snapshot, "192.168.121.0/26", "demi-1");
    workload(&mut snapshot, "busybox-0", "walker-1", "cali6611247c43", "192.168.187.209/32");
    workload(&mut snapshot, "busybox-1", "walker-1", "calie50081a277c", "192.168.187.211/32");
    snapshot
}

fn learned() -> LearnedRoutes {
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "192.168.135.64/26", &["172.16.6.249"]);
    learn(&mut learned, "192.168.121.0/26", &["172.16.199.114"]);
    learned
}

/// A machine with one uplink and a default gateway.
fn machine(addr: &str, gateway: Option<&str>, workloads: &[&str]) -> FakeKernel {
    let mut kernel = FakeKernel::default();
    let device: InterfaceName = "eth0".parse().unwrap();
    kernel.add_link(&device, &[addr.parse().unwrap()]);
    if let Some(gateway) = gateway {
        let hop = Gateway { address: gateway.parse().unwrap(), device, onlink: false };
        let default = Installed { protocol: 3, form: Form::Gateways([hop].into()) };
        kernel.routes.insert(RouteKey::main("0.0.0.0/0".parse().unwrap(), 0), vec![default]);
    }
    workloads.iter().for_each(|device| kernel.add_link(&device.parse().unwrap(), &[]));
    kernel
}

/// Our routes once they are laid, one a line, without the metric.
fn table(snapshot: &Snapshot, node: &str, learned: &LearnedRoutes, mut kernel: FakeKernel) -> String {
    let node: NodeName = node.parse().unwrap();
    let desired = compute(snapshot, &node, learned);
    kernel.apply(&diff(&desired, &kernel.read(&desired.ownership)));
    let routes = kernel.read(&desired.ownership).routes;
    let line = |(key, held): (&RouteKey, &Vec<Installed>)| format!("{} {}\n", key.prefix, held[0].form);
    routes.iter().map(line).collect()
}

fn walker_1(ipip: EncapMode) -> String {
    let kernel = machine("172.16.6.47/24", Some("172.16.6.254"), &["cali6611247c43", "calie50081a277c"]);
    table(&walkers(ipip), "walker-1", &learned(), kernel)
}

const OWN: &str = "192.168.187.192/26 blackhole
192.168.187.209/32 dev cali6611247c43 scope link
192.168.187.211/32 dev calie50081a277c scope link
";

#[test]
fn without_ipip_packets_to_the_other_subnet_go_to_the_physical_gateway() {
    let remote = "192.168.121.0/26 via 172.16.6.254 dev eth0\n192.168.135.64/26 via 172.16.6.249 dev eth0\n";
    assert_eq!(walker_1(EncapMode::Never), format!("{remote}{OWN}"));
}

#[test]
fn with_ipip_always_both_remote_blocks_are_behind_the_tunnel() {
    let remote = "192.168.121.0/26 via 172.16.199.114 dev tunl0 onlink\n192.168.135.64/26 via 172.16.6.249 dev tunl0 onlink\n";
    assert_eq!(walker_1(EncapMode::Always), format!("{remote}{OWN}"));
}

#[test]
fn with_ipip_cross_subnet_only_the_other_subnet_is_behind_the_tunnel() {
    let remote =
        "192.168.121.0/26 via 172.16.199.114 dev tunl0 onlink\n192.168.135.64/26 via 172.16.6.249 dev eth0\n";
    assert_eq!(walker_1(EncapMode::CrossSubnet), format!("{remote}{OWN}"));
}

#[test]
fn the_tables_are_the_same_when_bgp_is_the_source_of_ipip_routes() {
    for mode in [EncapMode::Always, EncapMode::CrossSubnet] {
        let mut snapshot = walkers(mode);
        let setting = Some(ProgramClusterRoutes::Disabled);
        let spec = FelixConfiguration { program_cluster_routes: setting, ..FelixConfiguration::new() };
        snapshot.insert(Object::new("default".parse().unwrap(), spec));
        let kernel = machine("172.16.6.47/24", Some("172.16.6.254"), &["cali6611247c43", "calie50081a277c"]);
        assert_eq!(table(&snapshot, "walker-1", &learned(), kernel), walker_1(mode));
    }
}

/// The cluster with a route reflector: one subnet, no encapsulation.
fn kubes() -> Snapshot {
    let mut snapshot = Snapshot::default();
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, EncapMode::Never);
    node(&mut snapshot, "kube-master", "172.17.42.30/24");
    node(&mut snapshot, "kube-node1", "172.17.42.31/24");
    node(&mut snapshot, "kube-node2", "172.17.42.32/24");
    block(&mut snapshot, "192.168.0.0/26", "kube-node1");
    block(&mut snapshot, "192.168.0.64/26", "kube-node2");
    workload(&mut snapshot, "a", "kube-node1", "cali1f3c9fa633a", "192.168.0.2/32");
    workload(&mut snapshot, "b", "kube-node2", "cali03adc9f233a", "192.168.0.64/32");
    workload(&mut snapshot, "c", "kube-node2", "calicb1a3b2633b", "192.168.0.65/32");
    snapshot
}

#[test]
fn behind_a_route_reflector_the_next_hop_is_the_node_that_has_the_block() {
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "192.168.0.0/26", &["172.17.42.31"]);
    let kernel = machine("172.17.42.32/24", None, &["cali03adc9f233a", "calicb1a3b2633b"]);
    assert_eq!(
        table(&kubes(), "kube-node2", &learned, kernel),
        "192.168.0.0/26 via 172.17.42.31 dev eth0
192.168.0.64/26 blackhole
192.168.0.64/32 dev cali03adc9f233a scope link
192.168.0.65/32 dev calicb1a3b2633b scope link
"
    );
}

#[test]
fn a_node_without_blocks_of_its_own_has_all_the_others() {
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "192.168.0.0/26", &["172.17.42.31"]);
    learn(&mut learned, "192.168.0.64/26", &["172.17.42.32"]);
    let kernel = machine("172.17.42.30/24", None, &[]);
    assert_eq!(
        table(&kubes(), "kube-master", &learned, kernel),
        "192.168.0.0/26 via 172.17.42.31 dev eth0\n192.168.0.64/26 via 172.17.42.32 dev eth0\n"
    );
}

#[test]
fn without_a_mesh_only_what_is_on_the_node_is_left() {
    let kernel = machine("172.17.42.31/24", None, &["cali1f3c9fa633a"]);
    assert_eq!(
        table(&kubes(), "kube-node1", &LearnedRoutes::new(), kernel),
        "192.168.0.0/26 blackhole\n192.168.0.2/32 dev cali1f3c9fa633a scope link\n"
    );
}
