//! What a node's kernel should hold, what it holds, and the changes between.
//!
//! The kernel is one in memory, so no root is needed: `cargo run --example routes`.

use calico_model::learned::LearnedRoutes;
use calico_model::resource::block::StoredBlock;
use calico_model::resource::{EncapMode, IpPool, Node, NodeBgp, Object, WorkloadEndpoint};
use calico_model::{InterfaceName, Snapshot, Update};
use calico_route::fake::FakeKernel;
use calico_route::route::{Form, Installed, RouteKey};
use calico_route::{compute, plan};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let desired = compute(&cluster()?, &"node1".parse()?, &LearnedRoutes::new());
    println!("Desired on node1:");
    for (key, route) in &desired.routes {
        println!("  {key:<30} {:?}", route.class);
    }

    let mut kernel = machine()?;
    println!("\nActual, where another process left a route of ours astray:");
    for (key, routes) in &kernel.read(&desired.ownership).routes {
        println!("  {key:<30} {}", routes[0].form);
    }

    let plan = plan(&desired, &kernel.read(&desired.ownership));
    println!("\nChanges:");
    for change in &plan.changes {
        println!("  {change}");
    }
    for waiting in plan.waiting.iter() {
        println!("  (waiting: {waiting})");
    }

    kernel.apply(&plan.changes);
    let left = calico_route::diff(&desired, &kernel.read(&desired.ownership));
    println!("\nChanges once more: {}", left.len());
    Ok(())
}

/// Two nodes of one subnet and a third beyond a router, with VXLAN between subnets.
fn cluster() -> Result<Snapshot, Error> {
    let mut snapshot = Snapshot::default();
    let pool = IpPool { vxlan_mode: EncapMode::CrossSubnet, ..IpPool::new("192.168.0.0/16".parse()?) };
    snapshot.insert(Object::new("default-ipv4-ippool".parse()?, pool));
    for (name, addr, block) in [
        ("node1", "172.16.6.1/24", "192.168.0.0/26"),
        ("node2", "172.16.6.2/24", "192.168.1.0/26"),
        ("node3", "172.16.199.3/24", "192.168.2.0/26"),
    ] {
        let tunnel = block.trim_end_matches("/26").parse()?;
        let bgp = Some(NodeBgp::at(addr.parse()?));
        let node = Node { bgp, ipv4_vxlan_tunnel_addr: Some(tunnel), ..Node::new() };
        snapshot.insert(Object::new(name.parse()?, node));
        let stored: StoredBlock = serde_json::from_value(serde_json::json!({
            "cidr": block, "affinity": format!("host:{name}"),
            "allocations": [], "unallocated": [], "attributes": [],
        }))?;
        snapshot.apply(Update::PutBlock(Box::new(stored)));
    }
    let web = WorkloadEndpoint {
        interface_name: Some("cali0ef24b1c2d3".parse()?),
        ip_networks: vec!["192.168.0.7/32".parse()?],
        ..WorkloadEndpoint::on("node1".parse()?)
    };
    snapshot.insert(Object::new("node1-k8s-web-eth0".parse()?, web));
    Ok(snapshot)
}

/// Node1's machine: an uplink, a workload's interface, and a route that has gone astray.
fn machine() -> Result<FakeKernel, Error> {
    let mut kernel = FakeKernel::default();
    let device: InterfaceName = "cali0ef24b1c2d3".parse()?;
    kernel.add_link(&"eth0".parse()?, &["172.16.6.1/24".parse()?]);
    kernel.add_link(&device, &[]);
    let astray = Installed { protocol: 80, form: Form::Device(device) };
    kernel.routes.insert(RouteKey::main("192.168.1.0/26".parse()?, 1024), vec![astray]);
    Ok(kernel)
}
