use calico_model::resource::block::{StoredAttributes, StoredBlock};
use calico_model::resource::{BgpConfiguration, IpPool, NodeBgp, WorkloadEndpoint};

use super::*;
use crate::filter::{PrefixSet, Route, Teller, Verdict};
use crate::session::{Initiation, Peering};
use crate::speaker::{Distance, Exchange, Extent, MaxPrefixes, NextHopMode, Reflection};
use crate::wire::Attributes;
use calico_model::Community;
use calico_model::resource::bgp;

mod order;
mod services;
mod settings;
mod workloads;

fn peers(snapshot: &Snapshot, node: &NodeName) -> Vec<PeerConfig> {
    super::peers(snapshot, node, &Secrets::default()).peers
}

fn node(name: &str, address: &str) -> Object<Node> {
    let mut spec = Node::new();
    spec.bgp = Some(NodeBgp::at(address.parse().unwrap()));
    Object::new(name.parse().unwrap(), spec)
}

fn named_node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn cluster() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, address) in
        [("node1", "172.16.6.9/24"), ("node2", "172.16.6.10/24"), ("node3", "172.16.199.12/24")]
    {
        snapshot.insert(node(name, address));
    }
    snapshot
}

fn block(cidr: &str, owner: &str) -> StoredBlock {
    StoredBlock::on(cidr.parse().unwrap(), named_node(owner))
}

fn configure(snapshot: &mut Snapshot, change: impl FnOnce(&mut BgpConfiguration)) {
    let mut configuration = BgpConfiguration::new();
    change(&mut configuration);
    snapshot.insert(Object::new("default".parse().unwrap(), configuration));
}

fn addresses(peers: &[PeerConfig]) -> Vec<String> {
    peers.iter().map(|peer| peer.address.to_string()).collect()
}

#[test]
fn an_identifier_that_is_made_of_a_name_looks_like_the_address_of_a_host() {
    for number in 0..20_000 {
        let id = hashed_id(&named_node(&format!("node{number}"))).addr();
        let first = id.octets()[0];
        assert!((1..=223).contains(&first) && first != 127, "node{number}: {id}");
    }
}

#[test]
fn every_node_peers_with_every_other_one() {
    let peers = peers(&cluster(), &named_node("node1"));
    assert_eq!(addresses(&peers), ["172.16.6.10", "172.16.199.12"]);
    assert_eq!(peers[0].name, "Mesh_172_16_6_10");
    assert!(peers.iter().all(|p| p.peering() == Peering::Internal && p.local_as == AsNumber::DEFAULT));
    assert_eq!(peers[0].local_address, Some("172.16.6.9".parse().unwrap()));
}

#[test]
fn exactly_one_side_of_each_pair_dials_and_addresses_are_compared_as_text() {
    let snapshot = cluster();
    let initiation = |from: &str, to: &str| {
        let to: IpAddr = to.parse().unwrap();
        peers(&snapshot, &named_node(from)).into_iter().find(|p| p.address == to).unwrap().initiation
    };
    assert_eq!(initiation("node1", "172.16.6.10"), Initiation::Active, "\"172.16.6.10\" < \"172.16.6.9\"");
    assert_eq!(initiation("node2", "172.16.6.9"), Initiation::Passive);
    assert_eq!(initiation("node3", "172.16.6.9"), Initiation::Passive);
}

#[test]
fn a_node_does_not_peer_with_its_own_address_under_another_name() {
    let mut snapshot = cluster();
    snapshot.insert(node("old-name", "172.16.6.9/24"));
    assert_eq!(addresses(&peers(&snapshot, &named_node("node1"))), ["172.16.6.10", "172.16.199.12"]);
}

#[test]
fn as_numbers_come_from_the_node_then_from_the_configuration() {
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| c.as_number = AsNumber::new(65000));
    let mut own = node("node3", "172.16.199.12/24");
    own.spec.bgp.as_mut().unwrap().as_number = AsNumber::new(4_200_000_000);
    snapshot.insert(own);
    let peers = peers(&snapshot, &named_node("node1"));
    assert_eq!(peers[0].remote_as.get(), 65000);
    assert_eq!(peers[1].remote_as.get(), 4_200_000_000);
    assert_eq!(peers[1].peering(), Peering::External);
    assert_eq!(speaker(&snapshot, &named_node("node3")).unwrap().local_as.get(), 4_200_000_000);
}

#[test]
fn without_the_mesh_only_named_peers_are_left() {
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| {
        c.node_to_node_mesh_enabled = Some(false);
        c.listen_port = Some(1790);
    });
    assert!(peers(&snapshot, &named_node("node1")).is_empty());
    let peer = |name: &str, node: Option<&str>, ip: &str| {
        let spec = BgpPeer {
            node: node.map(named_node),
            peer_ip: Some(ip.parse().unwrap()),
            as_number: AsNumber::new(64999),
            ..BgpPeer::new()
        };
        Object::new(name.parse::<Name>().unwrap(), spec)
    };
    snapshot.insert(peer("tor", None, "172.16.6.1"));
    snapshot.insert(peer("rack", Some("node3"), "172.16.199.1:1179"));
    snapshot.insert(peer("hidden", Some("node3"), "172.16.6.1"));
    let names =
        |node: &str| peers(&snapshot, &named_node(node)).into_iter().map(|p| p.name).collect::<Vec<_>>();
    assert_eq!(names("node1"), ["Global_172_16_6_1"]);
    assert_eq!(names("node3"), ["Global_172_16_6_1", "Node_172_16_199_1_port_1179"]);
    assert_eq!(listen(&snapshot, &named_node("node1")), ["0.0.0.0:1790".parse().unwrap()]);
}

#[test]
fn reflectors_leave_the_mesh_and_their_clients_peer_back() {
    let mut snapshot = cluster();
    let mut reflector = node("node3", "172.16.199.12/24");
    reflector.metadata.labels = [("reflector", "yes")].into_iter().collect();
    reflector.spec.bgp.as_mut().unwrap().route_reflector_cluster_id = Some("1.0.0.1".parse().unwrap());
    snapshot.insert(reflector);
    let spec = BgpPeer {
        node_selector: Some("!has(reflector)".parse().unwrap()),
        peer_selector: Some("has(reflector)".parse().unwrap()),
        ..BgpPeer::new()
    };
    snapshot.insert(Object::new("to-reflectors".parse::<Name>().unwrap(), spec));
    let client = peers(&snapshot, &named_node("node1"));
    assert_eq!(addresses(&client), ["172.16.6.10", "172.16.199.12"]);
    assert!(client.iter().all(|p| p.reflection == Reflection::NonClient));
    let reflector = peers(&snapshot, &named_node("node3"));
    assert_eq!(addresses(&reflector), ["172.16.6.9", "172.16.6.10"]);
    assert!(reflector.iter().all(|p| p.reflection == Reflection::Client));
    assert_eq!(speaker(&snapshot, &named_node("node3")).unwrap().cluster_id, Some(Ipv4Addr::new(1, 0, 0, 1)));
}

#[test]
fn who_is_in_the_as_of_its_session_with_a_reflector_is_a_client() {
    let mut snapshot = cluster();
    let mut reflector = node("node3", "172.16.199.12/24");
    let bgp = reflector.spec.bgp.as_mut().unwrap();
    bgp.route_reflector_cluster_id = Some("1.0.0.1".parse().unwrap());
    bgp.as_number = AsNumber::new(64999);
    snapshot.insert(reflector);
    let outside = BgpPeer {
        peer_ip: Some("10.7.0.1".parse().unwrap()),
        as_number: AsNumber::new(65001),
        ..BgpPeer::new()
    };
    let apart = BgpPeer { peer_ip: Some("10.7.0.2".parse().unwrap()), ..outside.clone() };
    let joined = BgpPeer { local_as_number: AsNumber::new(65001), ..outside };
    let to_reflector = BgpPeer {
        node: Some(named_node("node1")),
        peer_ip: Some("172.16.199.12".parse().unwrap()),
        as_number: AsNumber::new(64999),
        local_as_number: AsNumber::new(64999),
        ..BgpPeer::new()
    };
    let mut router = WorkloadEndpoint::on(named_node("node3"));
    router.ip_networks = vec!["192.168.0.7/32".parse().unwrap()];
    let mut router = Object::new("router".parse::<Name>().unwrap(), router);
    router.metadata.namespace = Some("default".parse().unwrap());
    snapshot.insert(router);
    let workloads = BgpPeer {
        local_workload_selector: Some("all()".parse().unwrap()),
        as_number: AsNumber::new(64999),
        ..BgpPeer::new()
    };
    for (name, spec) in
        [("apart", apart), ("client", to_reflector), ("joined", joined), ("workloads", workloads)]
    {
        snapshot.insert(Object::new(name.parse::<Name>().unwrap(), spec));
    }
    let kinds: Vec<(String, Reflection)> = peers(&snapshot, &named_node("node3"))
        .into_iter()
        .map(|peer| (peer.address.to_string(), peer.reflection))
        .collect();
    let expected = [
        ("10.7.0.1", Reflection::Client),
        ("10.7.0.2", Reflection::NonClient),
        ("172.16.6.9", Reflection::Client),
        ("192.168.0.7", Reflection::Client),
    ];
    assert_eq!(kinds, expected.map(|(address, reflection)| (address.to_owned(), reflection)));
}

#[test]
fn a_node_of_the_same_subnet_and_a_block_of_a_pool_change_nothing_for_peers_outside() {
    let mut snapshot = cluster();
    let router = BgpPeer {
        peer_ip: Some("172.16.6.1".parse().unwrap()),
        as_number: AsNumber::new(65001),
        ..BgpPeer::new()
    };
    snapshot.insert(Object::new("router".parse::<Name>().unwrap(), router));
    snapshot
        .insert(Object::new("pool".parse::<Name>().unwrap(), IpPool::new("10.0.0.0/16".parse().unwrap())));
    let of_router = |snapshot: &Snapshot| {
        let peers = peers(snapshot, &named_node("node1"));
        peers.into_iter().find(|peer| peer.address == IpAddr::from([172, 16, 6, 1])).unwrap()
    };
    let before = of_router(&snapshot);
    snapshot.insert(node("node4", "172.16.6.13/24"));
    let mine = block("10.0.7.0/26", "node1");
    snapshot.blocks.insert(mine.cidr, mine);
    assert_eq!(of_router(&snapshot), before);
    snapshot.insert(node("node5", "172.16.200.13/24"));
    assert_ne!(of_router(&snapshot), before, "an address outside what is refused already");
}

/// What a peer is told of a route that begins here: its communities, or nothing.
fn told(peer: &PeerConfig, prefix: &str) -> Option<Vec<Community>> {
    let Exchange::Filtered(policy) = &peer.export else { panic!("resources decide") };
    let mut attributes = Attributes::originated("172.16.6.9".parse().unwrap());
    let route = Route {
        prefix: prefix.parse().unwrap(),
        attributes: (&attributes).into(),
        teller: Teller::Ourselves,
    };
    match policy.program().decide(&route, &PrefixSet::default()) {
        Verdict::LeaveOut => None,
        Verdict::Pass(change) => {
            policy.program().apply(change, &mut attributes);
            Some(attributes.communities())
        }
    }
}

#[test]
fn own_blocks_of_exported_pools_are_told_whole_with_their_communities() {
    let mut snapshot = cluster();
    let pool = |cidr: &str| IpPool::new(cidr.parse().unwrap());
    snapshot.insert(Object::new("open".parse::<Name>().unwrap(), pool("192.168.0.0/16")));
    let mut closed = pool("10.0.0.0/16");
    closed.disable_bgp_export = true;
    snapshot.insert(Object::new("closed".parse::<Name>().unwrap(), closed));
    configure(&mut snapshot, |c| {
        c.communities =
            vec![bgp::NamedCommunity { name: "racks".to_owned(), value: "64512:7".parse().unwrap() }];
        c.prefix_advertisements = vec![bgp::PrefixAdvertisement {
            cidr: "192.168.0.0/24".parse().unwrap(),
            communities: vec!["racks".to_owned(), "64512:1:2".to_owned()],
        }];
        c.service_external_ips = vec![bgp::ServiceNetwork { cidr: "10.7.0.0/16".parse().unwrap() }];
        c.ipv4_normal_route_priority = Some(2000);
    });
    for (cidr, owner) in [("192.168.0.0/26", "node1"), ("192.168.0.64/26", "node2"), ("10.0.0.0/26", "node1")]
    {
        let block = block(cidr, owner);
        snapshot.blocks.insert(block.cidr, block);
    }
    let begins = originated(&snapshot, &named_node("node1"));
    let cidrs: Vec<String> = begins.keys().map(ToString::to_string).collect();
    assert_eq!(cidrs, ["10.0.0.0/26", "10.7.0.0/16", "192.168.0.0/26"]);
    assert!(begins.values().all(|how| how.local_pref == METRIC_BASE - 2000));
    assert_eq!(begins[&"10.7.0.0/16".parse().unwrap()].extent, Extent::Itself);
    assert_eq!(begins[&"192.168.0.0/26".parse().unwrap()].extent, Extent::Block);
    let peer = &peers(&snapshot, &named_node("node1"))[0];
    assert_eq!(
        told(peer, "192.168.0.0/26"),
        Some(vec![Community::Standard(64512, 7), Community::Large(64512, 1, 2)])
    );
    assert_eq!(told(peer, "10.7.0.0/16"), Some(Vec::new()));
    assert_eq!(told(peer, "10.0.0.0/26"), None);
}

#[test]
fn every_field_of_a_bgppeer_has_its_effect() {
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| c.node_to_node_mesh_enabled = Some(false));
    let spec = BgpPeer {
        node: Some(named_node("node1")),
        peer_ip: Some("10.7.0.1:1790".parse().unwrap()),
        as_number: AsNumber::new(65001),
        local_as_number: AsNumber::new(65001),
        next_hop_mode: Some(bgp::NextHopMode::SelfHop),
        source_address: Some(bgp::SourceAddress::Any),
        max_restart_time: Some("30s".parse().unwrap()),
        num_allowed_local_as_numbers: Some(2),
        max_prefixes: Some(40),
        ttl_security: Some(3),
        reachable_by: Some("172.16.6.254".parse().unwrap()),
        ..BgpPeer::new()
    };
    snapshot.insert(Object::new("far".parse::<Name>().unwrap(), spec));
    let plan = plan(&snapshot, &named_node("node1"), &Secrets::default()).unwrap();
    let [peer] = plan.peers.as_slice() else { panic!("one session: {:?}", plan.peers) };
    assert_eq!((peer.port, peer.name.as_str()), (1790, "Node_10_7_0_1_port_1790"));
    assert_eq!(peer.peering(), Peering::Internal, "by the AS number of this session");
    assert_eq!(peer.next_hop, NextHopMode::Own);
    assert_eq!(peer.local_address, None);
    assert_eq!((peer.restart_time, peer.allow_own_as), (30, 2));
    assert_eq!(peer.max_prefixes, Some(MaxPrefixes::new(40)));
    assert_eq!(peer.distance, Distance::Within(3));
    assert_eq!(plan.gateways, [("10.7.0.1".parse().unwrap(), "172.16.6.254".parse().unwrap())].into());
    assert!(super::plan(&snapshot, &named_node("node2"), &Secrets::default()).unwrap().gateways.is_empty());
}

#[test]
fn a_nodes_own_configuration_counts_before_that_of_the_cluster() {
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| c.listen_port = Some(1790));
    let mut own = BgpConfiguration::new();
    own.listen_port = Some(1791);
    snapshot.insert(Object::new("node.node2".parse().unwrap(), own));
    assert_eq!(listen(&snapshot, &named_node("node1")), ["0.0.0.0:1790".parse().unwrap()]);
    assert_eq!(listen(&snapshot, &named_node("node2")), ["0.0.0.0:1791".parse().unwrap()]);
    configure(&mut snapshot, |c| c.bind_mode = Some(bgp::BindMode::NodeIp));
    assert_eq!(listen(&snapshot, &named_node("node2")), ["172.16.6.10:1791".parse().unwrap()]);
    configure(&mut snapshot, |c| c.listen_port = Some(1790));
    assert_eq!(
        peers(&snapshot, &named_node("node1")).iter().map(|p| p.port).collect::<Vec<_>>(),
        [1791, 1790]
    );
}

#[test]
fn a_peering_is_answered_by_itself_unless_it_is_manual() {
    for (reverse, answered) in [(None, 1), (Some(bgp::ReversePeering::Manual), 0)] {
        let mut snapshot = cluster();
        configure(&mut snapshot, |c| c.node_to_node_mesh_enabled = Some(false));
        let spec = BgpPeer {
            node: Some(named_node("node1")),
            peer_ip: Some("172.16.6.10".parse().unwrap()),
            as_number: AsNumber::new(64512),
            reverse_peering: reverse,
            ..BgpPeer::new()
        };
        snapshot.insert(Object::new("one".parse::<Name>().unwrap(), spec));
        assert_eq!(peers(&snapshot, &named_node("node1")).len(), 1);
        assert_eq!(peers(&snapshot, &named_node("node2")).len(), answered);
        assert_eq!(peers(&snapshot, &named_node("node3")).len(), 0);
    }
}

#[test]
fn standalone_reflectors_peer_with_one_another_and_reflect_for_the_nodes_that_name_them() {
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| c.node_to_node_mesh_enabled = Some(false));
    for (name, address, cluster) in
        [("rr1", "172.16.6.40/32", "1.0.0.1"), ("rr2", "172.16.6.41/32", "1.0.0.2")]
    {
        let mut reflector = node(name, address);
        reflector.metadata.labels = [(STANDALONE_REFLECTOR, "")].into_iter().collect();
        reflector.spec.bgp.as_mut().unwrap().route_reflector_cluster_id = Some(cluster.parse().unwrap());
        snapshot.insert(reflector);
    }
    let spec = BgpPeer {
        peer_ip: Some("172.16.6.40".parse().unwrap()),
        as_number: AsNumber::new(64512),
        ..BgpPeer::new()
    };
    snapshot.insert(Object::new("rr1".parse::<Name>().unwrap(), spec));
    let reflector = peers(&snapshot, &named_node("rr1"));
    let kinds: Vec<(String, Reflection)> =
        reflector.iter().map(|peer| (peer.name.clone(), peer.reflection)).collect();
    let expected = [
        ("Global_172_16_6_9", Reflection::Client),
        ("Global_172_16_6_10", Reflection::Client),
        ("Mesh_172_16_6_41", Reflection::NonClient),
        ("Global_172_16_199_12", Reflection::Client),
    ];
    assert_eq!(kinds, expected.map(|(name, reflection)| (name.to_owned(), reflection)));
    assert_eq!(addresses(&peers(&snapshot, &named_node("node1"))), ["172.16.6.40"]);
}

#[test]
fn a_block_of_one_address_is_told_while_a_workload_or_a_tunnel_has_it() {
    let mut snapshot = cluster();
    let mut pool = IpPool::new("192.168.0.0/16".parse().unwrap());
    pool.block_size = 32;
    snapshot.insert(Object::new("pool".parse::<Name>().unwrap(), pool));
    for cidr in ["192.168.0.1/32", "192.168.0.2/32", "192.168.0.3/32"] {
        let block = block(cidr, "node1");
        snapshot.blocks.insert(block.cidr, block);
    }
    let told = |snapshot: &Snapshot| -> Vec<String> {
        originated(snapshot, &named_node("node1")).keys().map(ToString::to_string).collect()
    };
    assert_eq!(told(&snapshot), Vec::<String>::new());
    let mut workload = WorkloadEndpoint::on(named_node("node1"));
    workload.ip_networks = vec!["192.168.0.1/32".parse().unwrap()];
    let mut workload = Object::new("web".parse::<Name>().unwrap(), workload);
    workload.metadata.namespace = Some("default".parse().unwrap());
    snapshot.insert(workload);
    let mut own = node("node1", "172.16.6.9/24");
    own.spec.bgp.as_mut().unwrap().ipv4_ipip_tunnel_addr = "192.168.0.2".parse().ok();
    snapshot.insert(own);
    assert_eq!(told(&snapshot), ["192.168.0.1/32", "192.168.0.2/32"]);
}

#[test]
fn an_address_outside_the_nodes_blocks_is_told_by_itself_and_first_where_a_migrating_machine_is_active() {
    let mut snapshot = cluster();
    snapshot
        .insert(Object::new("pool".parse::<Name>().unwrap(), IpPool::new("192.168.0.0/16".parse().unwrap())));
    let mut lender = block("192.168.0.0/26", "node1");
    let owners = |active: &str, other: Option<&str>| StoredAttributes {
        handle_id: None,
        secondary: [("node".to_owned(), active.to_owned())].into(),
        alternate: other.map(|node| ("node".to_owned(), node.to_owned())).into_iter().collect(),
        released_at: None,
        unknown: Default::default(),
    };
    (1..4).for_each(|at| lender.allocations[at] = Some(at - 1));
    lender.attributes = vec![owners("node1", None), owners("node2", None), owners("node2", Some("node1"))];
    snapshot.blocks.insert(lender.cidr, lender);
    for (name, on, addr) in [
        ("at-home", "node1", "192.168.0.1"),
        ("borrower", "node2", "192.168.0.2"),
        ("source", "node1", "192.168.0.3"),
        ("target", "node2", "192.168.0.3"),
        ("stray", "node2", "172.30.0.1"),
    ] {
        let mut workload = WorkloadEndpoint::on(named_node(on));
        workload.ip_networks = vec![Cidr::host(addr.parse().unwrap())];
        let mut workload = Object::new(name.parse::<Name>().unwrap(), workload);
        workload.metadata.namespace = Some("default".parse().unwrap());
        snapshot.insert(workload);
    }
    let told = |node: &str| -> Vec<(String, u32)> {
        let told = originated(&snapshot, &named_node(node)).into_iter();
        told.map(|(cidr, how)| (cidr.to_string(), METRIC_BASE - how.local_pref)).collect()
    };
    assert_eq!(told("node1"), [("192.168.0.0/26".to_owned(), 1024)]);
    assert_eq!(told("node2"), [("192.168.0.2/32".to_owned(), 1024), ("192.168.0.3/32".to_owned(), 512)]);
}
