use calico_ipam::AutoAssign;
use calico_model::MemoryStore;
use calico_model::datastore::Prefix;
use calico_model::resource::block::StoredIpamConfig;
use calico_model::resource::{IpPool, NodeBgp, Object};

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)
}

fn snapshot(mode: EncapMode) -> Snapshot {
    let mut pool = IpPool::new("192.168.0.0/16".parse().unwrap());
    pool.vxlan_mode = mode;
    let node = Node { bgp: Some(NodeBgp::at("10.0.0.1/24".parse().unwrap())), ..Node::new() };
    let mut snapshot = Snapshot::default();
    snapshot.apply(calico_model::Update::InSync);
    snapshot.insert(Object::new("pool".parse().unwrap(), pool));
    snapshot.insert(Object::new("n1".parse().unwrap(), node));
    snapshot
}

#[tokio::test]
async fn a_tunnel_gets_an_address_when_a_pool_asks_for_it_and_gives_it_back_when_none_does() {
    let store: Arc<dyn Datastore> = Arc::new(MemoryStore::new());
    let client = Client::new(Arc::clone(&store), crate::stamp::stamp);
    let node: NodeName = "n1".parse().unwrap();
    let id = ObjectId::from(Name::from(node.clone()));
    let mut known = snapshot(EncapMode::CrossSubnet);
    for pool in known.pools.values() {
        client.of::<IpPool>().create(pool.as_ref().clone()).await.unwrap();
    }
    client.of::<Node>().create(known.nodes[&id].as_ref().clone()).await.unwrap();
    let keeper = Keeper { node: node.clone(), client: client.clone(), ipam: ipam(store) };

    keeper.keep_tunnels(&Wanted::of(&known, &node), now()).await.unwrap();
    let told = client.of::<Node>().get(&id).await.unwrap();
    let addr = told.spec.ipv4_vxlan_tunnel_addr.unwrap();
    assert_eq!(told.spec.vxlan_tunnel_mac, Some(vxlan_mac(&node, Family::V4)));
    known.insert(told);
    keeper.keep_tunnels(&Wanted::of(&known, &node), now()).await.unwrap();
    assert_eq!(client.of::<Node>().get(&id).await.unwrap().spec.ipv4_vxlan_tunnel_addr, Some(addr));

    // The pool is disabled, or is for other nodes: its workloads live on.
    for retire in [
        |pool: &mut IpPool| pool.disabled = true,
        |pool: &mut IpPool| {
            pool.node_selector = "rack == '7'".parse().unwrap();
        },
    ] {
        let mut pool = known.pools.values().next().unwrap().as_ref().clone();
        retire(&mut pool.spec);
        let mut retired = known.clone();
        retired.insert(pool);
        keeper.tell(TunnelKind::Vxlan, None).await.unwrap();
        retired.insert(client.of::<Node>().get(&id).await.unwrap());
        keeper.keep_tunnels(&Wanted::of(&retired, &node), now()).await.unwrap();
        retired.insert(client.of::<Node>().get(&id).await.unwrap());
        keeper.keep_tunnels(&Wanted::of(&retired, &node), now()).await.unwrap();
        assert_eq!(client.of::<Node>().get(&id).await.unwrap().spec.ipv4_vxlan_tunnel_addr, Some(addr));
        let held = keeper.ipam.addrs_by_handle(&TunnelKind::Vxlan.handle(&node), now()).await.unwrap();
        assert_eq!(held, [addr]);
    }

    // Another tunnel that cannot have one is told of, and no hindrance.
    let full = IpPool { ipip_mode: EncapMode::Always, ..IpPool::new("172.31.0.0/32".parse().unwrap()) };
    known.insert(Object::new("full".parse().unwrap(), full));
    keeper.tell(TunnelKind::Vxlan, None).await.unwrap();
    known.insert(client.of::<Node>().get(&id).await.unwrap());
    let failed = keeper.keep_tunnels(&Wanted::of(&known, &node), now()).await.unwrap_err();
    assert!(matches!(failed, KeepError::Assign { kind: TunnelKind::Ipip, .. }), "{failed:?}");
    let told = client.of::<Node>().get(&id).await.unwrap();
    assert_eq!(told.spec.ipv4_vxlan_tunnel_addr, Some(addr));
    known.insert(told);

    let told = known.nodes[&id].as_ref().clone();
    let mut off = snapshot(EncapMode::Never);
    off.insert(told);
    keeper.keep_tunnels(&Wanted::of(&off, &node), now()).await.unwrap();
    assert_eq!(client.of::<Node>().get(&id).await.unwrap().spec.ipv4_vxlan_tunnel_addr, None);
    let handle = TunnelKind::Vxlan.handle(&node);
    assert!(keeper.ipam.addrs_by_handle(&handle, now()).await.unwrap().is_empty());

    // An agent that told that it has none, and ended before it had given it back.
    keeper.keep_tunnels(&Wanted::of(&known, &node), now()).await.unwrap_err();
    keeper.tell(TunnelKind::Vxlan, None).await.unwrap();
    off.insert(client.of::<Node>().get(&id).await.unwrap());
    assert!(!keeper.ipam.addrs_by_handle(&handle, now()).await.unwrap().is_empty());
    keeper.keep_tunnels(&Wanted::of(&off, &node), now()).await.unwrap();
    assert!(keeper.ipam.addrs_by_handle(&handle, now()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_pool_that_does_not_select_the_node_serves_no_tunnel_and_gets_its_empty_blocks_back() {
    let store: Arc<dyn Datastore> = Arc::new(MemoryStore::new());
    let client = Client::new(Arc::clone(&store), crate::stamp::stamp);
    let node: NodeName = "n1".parse().unwrap();
    let mut known = snapshot(EncapMode::Always);
    for pool in known.pools.values() {
        client.of::<IpPool>().create(pool.as_ref().clone()).await.unwrap();
    }
    let keeper = Keeper { node: node.clone(), client: client.clone(), ipam: ipam(store) };
    let block = keeper.ipam.ensure_block(&node, Family::V4, &[], now()).await.unwrap();
    let name = ObjectId::from("pool".parse::<Name>().unwrap());
    let elsewhere = |pool: &mut IpPool| pool.node_selector = "rack == '7'".parse().unwrap();
    known.insert(client.of::<IpPool>().modify(&name, |_, pool| elsewhere(pool)).await.unwrap());
    let wanted = Wanted::of(&known, &node);
    assert!(wanted.pools.is_empty(), "{wanted:?}");
    keeper.keep_blocks(&wanted, now()).await.unwrap();
    let key = calico_model::resource::block::block_key(&block);
    assert_eq!(client.store().get(&key).await.unwrap(), None);
}

#[test]
fn while_the_node_is_not_known_the_keeper_sleeps() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let slept = Arc::new(AtomicBool::new(false));
    let note = Arc::clone(&slept);
    // A thread that has anything to run never parks.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().on_thread_park(move || note.store(true, Ordering::Relaxed));
    runtime.build().unwrap().block_on(async {
        let client = Client::new(Arc::new(MemoryStore::new()), crate::stamp::stamp);
        let node: NodeName = "n1".parse().unwrap();
        let id = ObjectId::from(Name::from(node.clone()));
        let known = snapshot(EncapMode::Always);
        for pool in known.pools.values() {
            client.of::<IpPool>().create(pool.as_ref().clone()).await.unwrap();
        }
        client.of::<Node>().create(known.nodes[&id].as_ref().clone()).await.unwrap();
        let tunnels = spawn(node.clone(), client.clone(), Arc::clone(client.store()), 1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(slept.load(Ordering::Relaxed), "the keeper spins");
        tunnels.want(Wanted::of(&known, &node));
        let watch = crate::lab::Stopwatch::start();
        while client.of::<Node>().get(&id).await.unwrap().spec.ipv4_vxlan_tunnel_addr.is_none() {
            assert!(watch.elapsed() < Duration::from_secs(60), "what is wanted wakes it");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

fn paced(every: Duration) -> Backoff {
    Backoff::new(1, every, every)
}

#[test]
fn a_tunnel_that_gets_no_address_is_tried_less_and_less_often() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let tries = Arc::new(AtomicU32::new(0));
    let note = Arc::clone(&tries);
    // Between tries the thread parks, and nothing else wakes it.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().on_thread_park(move || {
        note.fetch_add(1, Ordering::Relaxed);
    });
    runtime.build().unwrap().block_on(async {
        let client = Client::new(Arc::new(MemoryStore::new()), crate::stamp::stamp);
        let store = Arc::clone(client.store());
        let retry = Backoff::new(1, Duration::from_millis(5), Duration::from_secs(10));
        let node: NodeName = "n1".parse().unwrap();
        let tunnels = spawn_with(node.clone(), client, store, paced(UPKEEP), retry);
        tunnels.want(Wanted::of(&snapshot(EncapMode::Always), &node));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(tunnels.problem().is_some(), "there is no pool in the datastore");
    });
    let tries = tries.load(Ordering::Relaxed);
    assert!((3..30).contains(&tries), "{tries} in a second");
}

#[tokio::test]
async fn while_the_datastore_is_locked_a_tunnel_gets_no_address() {
    use calico_model::resource::ClusterInformation;
    let client = Client::new(Arc::new(MemoryStore::new()), crate::stamp::stamp);
    let node: NodeName = "n1".parse().unwrap();
    let id = ObjectId::from(Name::from(node.clone()));
    client.ensure_initialized("v1", "0123456789abcdef0123456789abcdef").await.unwrap();
    let cluster = ObjectId::from(ClusterInformation::NAME.parse::<Name>().unwrap());
    let mut known = snapshot(EncapMode::Always);
    for pool in known.pools.values() {
        client.of::<IpPool>().create(pool.as_ref().clone()).await.unwrap();
    }
    client.of::<Node>().create(known.nodes[&id].as_ref().clone()).await.unwrap();
    let tunnels = spawn(node.clone(), client.clone(), Arc::clone(client.store()), 1);
    let informations = client.of::<ClusterInformation>();
    for locked in [true, false] {
        let lock = informations.modify(&cluster, |_, cluster| cluster.datastore_ready = Some(!locked));
        known.insert(lock.await.unwrap());
        let before = client.store().list(&Prefix::new("/calico/").unwrap()).await.unwrap().revision;
        tunnels.want(Wanted::of(&known, &node));
        if locked {
            assert_eq!(Wanted::of(&known, &node), Wanted::default());
            tokio::time::sleep(Duration::from_millis(50)).await;
            let after = client.store().list(&Prefix::new("/calico/").unwrap()).await.unwrap().revision;
            assert_eq!(after, before, "nothing is written");
            continue;
        }
        let watch = crate::lab::Stopwatch::start();
        while client.of::<Node>().get(&id).await.unwrap().spec.ipv4_vxlan_tunnel_addr.is_none() {
            assert!(watch.elapsed() < Duration::from_secs(60), "it goes on once it is unlocked");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn blocks_are_looked_after_though_nothing_that_is_wanted_changes() {
    let store: Arc<dyn Datastore> = Arc::new(MemoryStore::new());
    let client = Client::new(Arc::clone(&store), crate::stamp::stamp);
    let node: NodeName = "n1".parse().unwrap();
    let mut pool = IpPool::new("192.168.0.0/16".parse().unwrap());
    pool.node_selector = "rack == '7'".parse().unwrap();
    let pool = Object::new("pool".parse().unwrap(), pool);
    client.of::<IpPool>().create(pool.clone()).await.unwrap();
    let mut known = snapshot(EncapMode::Never);
    known.insert(pool.clone());

    let every = Duration::from_millis(20);
    let tunnels = spawn_with(node.clone(), client, Arc::clone(&store), paced(every), paced(every));
    tunnels.observe(&Change::InSync, clock::wall());
    tunnels.want(Wanted::of(&known, &node));
    // Only now, and by another process, there is something to do.
    let other = Ipam::new(Arc::clone(&store));
    let config = StoredIpamConfig { ip_cooldown_seconds: 60, ..StoredIpamConfig::default() };
    other.set_config(&config, clock::wall()).await.unwrap();
    let mut request = AutoAssign::new(node, "h");
    request.count.v4 = 2;
    request.pools.v4.push(PoolRef::Name(pool.metadata.name.clone()));
    let long_ago = clock::wall() - Duration::from_secs(3600);
    let held = other.auto_assign(request, long_ago).await.unwrap().v4;
    other.release_by_handle("h", long_ago).await.unwrap();
    let key = calico_model::resource::block::block_key(&held[0].block);
    if let Some(cooling) = store.get(&key).await.unwrap() {
        tunnels.observe(&Change::Put(cooling), clock::wall());
    }
    let watch = crate::lab::Stopwatch::start();
    while store.get(&key).await.unwrap().is_some() {
        assert!(watch.elapsed() < Duration::from_secs(60), "the block is given back");
        tokio::time::sleep(every).await;
    }
    assert_eq!(tunnels.problem(), None);
}
