//! All five rooms, joined in memory: a program of its own that gives a workload an address, guards it, and says where it
//! lives.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use calico_bgp::{Speaker, peers};
use calico_ipam::{AutoAssign, Ipam};
use calico_model::datastore::client::{Client, Stamp};
use calico_model::datastore::{Datastore, Prefix};
use calico_model::resource::policy::Rule;
use calico_model::resource::{
    IpPool, NetworkPolicy, Node, NodeBgp, Object, Policy, PolicyType, WorkloadEndpoint,
};
use calico_model::{Cidr, LearnedRoutes, MemoryStore, NodeName, Snapshot, Update};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store: Arc<dyn Datastore> = Arc::new(MemoryStore::new());
    let stamps = || Stamp {
        uid: "11e8f2a4-0000-4000-8000-000000000000".to_owned(),
        created: "2026-01-01T00:00:00Z".to_owned(),
    };
    let client = Client::new(Arc::clone(&store), stamps);
    client.ensure_initialized("v0", "0123456789abcdef0123456789abcdef").await?;

    // What things are: a pool and two nodes.
    let mut pool = IpPool::new("192.168.0.0/16".parse()?);
    pool.nat_outgoing = true;
    client.of::<IpPool>().create(Object::new("pool".parse()?, pool)).await?;
    for (name, addr) in [("node1", "172.16.6.47/24"), ("node2", "172.16.6.249/24")] {
        let node = Node { bgp: Some(NodeBgp::at(addr.parse()?)), ..Node::new() };
        client.of::<Node>().create(Object::new(name.parse()?, node)).await?;
    }

    // Which address: one for a workload of node1.
    let node: NodeName = "node1".parse()?;
    let mut request = AutoAssign::new(node.clone(), "web");
    request.count.v4 = 1;
    let assigned = Ipam::new(Arc::clone(&store)).auto_assign(request, now()).await?;
    let addr = assigned.allocations().next().ok_or("the pool is empty")?.addr;
    println!("web has {addr}");
    let mut web = Object::new("node1-cni-web-eth0".parse()?, WorkloadEndpoint::on(node.clone()));
    web.metadata.namespace = Some("default".parse()?);
    web.metadata.labels.insert("app", "web");
    web.spec.orchestrator = "cni".to_owned();
    web.spec.container_id = "web".to_owned();
    web.spec.endpoint = "eth0".to_owned();
    web.spec.interface_name = Some("cali0123456789a".parse()?);
    web.spec.ip_networks = vec![Cidr::host(addr)];
    client.of::<WorkloadEndpoint>().create(web).await?;
    let mut policy =
        Policy::selecting("app == 'web'".parse()?, vec![PolicyType::Ingress, PolicyType::Egress]);
    policy.ingress.push(Rule::allow());
    let mut policy = Object::new("web".parse()?, NetworkPolicy(policy));
    policy.metadata.namespace = Some("default".parse()?);
    client.of::<NetworkPolicy>().create(policy).await?;

    // Everything that is known, at one instant.
    let mut snapshot = Snapshot::default();
    for entry in store.list(&Prefix::new("/calico")?).await?.entries {
        Update::from_entry(&entry).into_iter().for_each(|update| snapshot.apply(update));
    }

    // What may pass, where it goes, who else is told: all of it values.
    println!("\n{}", calico_policy::compile(&snapshot, &node));
    let routes = calico_route::compute(&snapshot, &node, &LearnedRoutes::new());
    for (key, route) in &routes.routes {
        println!("route {} {:?}", key.prefix, route.target);
    }
    let config = peers::speaker(&snapshot, &node).ok_or("node1 has no address")?;
    let mut speaker = Speaker::new(config, clock());
    speaker.set_peers(peers::peers(&snapshot, &node, &peers::Secrets::default()).peers, clock());
    speaker.set_originated(peers::originated(&snapshot, &node), clock());
    for peer in speaker.status() {
        println!("peer {} of AS {}: {}", peer.address, peer.remote_as, peer.state);
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a program is where the time comes in")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "a program is where the time comes in")]
fn clock() -> Instant {
    Instant::now()
}
