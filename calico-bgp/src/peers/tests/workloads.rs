//! Sessions with workloads of the node.

use super::*;

/// A cluster in which a workload of node1 has these addresses, and peers with it by this resource.
fn with_workload(addresses: &[&str], asks: BgpPeer) -> Snapshot {
    let mut snapshot = cluster();
    let mut workload = WorkloadEndpoint::on(named_node("node1"));
    workload.ip_networks = addresses.iter().map(|ip| Cidr::host(ip.parse().unwrap())).collect();
    let mut workload = Object::new("router".parse::<Name>().unwrap(), workload);
    workload.metadata.namespace = Some("default".parse().unwrap());
    snapshot.insert(workload);
    let spec = BgpPeer {
        local_workload_selector: Some("all()".parse().unwrap()),
        as_number: asks.as_number.or(AsNumber::new(65001)),
        ..asks
    };
    snapshot.insert(Object::new("workloads".parse::<Name>().unwrap(), spec));
    snapshot
}

/// The sessions of node1 with workloads.
fn sessions(snapshot: &Snapshot) -> Vec<PeerConfig> {
    let peers = peers(snapshot, &named_node("node1")).into_iter();
    peers.filter(|peer| peer.name.starts_with("Local_Workload")).collect()
}

fn takes(peer: &PeerConfig, prefix: &str) -> bool {
    let Exchange::Filtered(import) = &peer.import else { panic!("resources decide") };
    let attributes = Attributes::originated("192.168.0.7".parse().unwrap());
    let route =
        Route { prefix: prefix.parse().unwrap(), attributes: (&attributes).into(), teller: Teller::Peer };
    import.program().decide(&route, &PrefixSet::default()) != Verdict::LeaveOut
}

#[test]
fn a_workload_does_not_draw_what_is_for_nodes_or_for_its_neighbours_to_itself() {
    for as_number in [AsNumber::new(65001), Some(AsNumber::DEFAULT)] {
        let mut snapshot = with_workload(&["192.168.0.7"], BgpPeer { as_number, ..BgpPeer::new() });
        let pool = IpPool::new("192.168.0.0/16".parse().unwrap());
        snapshot.insert(Object::new("pool".parse::<Name>().unwrap(), pool));
        let mine = block("192.168.0.0/26", "node1");
        snapshot.blocks.insert(mine.cidr, mine);
        let [peer] = &sessions(&snapshot)[..] else { panic!("one workload") };
        let own_subnet = ["172.16.6.0/24", "172.16.6.9/32", "172.16.6.128/25"];
        for refused in own_subnet.iter().chain(&["172.16.199.12/32", "192.168.0.0/26", "192.168.0.8/32"]) {
            assert!(!takes(peer, refused), "{refused} in AS {}", peer.remote_as);
        }
        for taken in ["0.0.0.0/0", "10.77.0.0/24", "192.168.99.0/24", "172.16.199.0/24"] {
            assert!(takes(peer, taken), "{taken} in AS {}", peer.remote_as);
        }
    }
}

#[test]
fn a_workload_dials_from_the_first_of_its_addresses_of_each_family() {
    let addresses = ["192.168.0.7", "192.168.0.8", "fd00:1::7", "fd00:1::8"];
    let mut snapshot = with_workload(&addresses, BgpPeer::new());
    let mut dual = node("node1", "172.16.6.9/24");
    dual.spec.bgp.as_mut().unwrap().ipv6_address = Some("fd00:6::9/64".parse().unwrap());
    snapshot.insert(dual);
    let found = |snapshot: &Snapshot| -> Vec<(String, Initiation)> {
        let sessions = sessions(snapshot).into_iter();
        sessions.map(|peer| (peer.address.to_string(), peer.initiation)).collect()
    };
    let both = |v4| [("192.168.0.7".to_owned(), v4), ("fd00:1::7".to_owned(), Initiation::Passive)];
    assert_eq!(found(&snapshot), both(Initiation::Passive));
    configure(&mut snapshot, |c| {
        c.local_workload_peering_ipv4 = Some("169.254.0.179".parse().unwrap());
        c.bind_mode = Some(bgp::BindMode::NodeIp);
    });
    assert_eq!(found(&snapshot), both(Initiation::Active), "nobody listens at 169.254.0.179");
}

#[test]
fn a_workload_of_a_family_that_the_node_does_not_listen_in_is_dialed() {
    let mut snapshot = with_workload(&["fd00:1::7"], BgpPeer::new());
    configure(&mut snapshot, |c| c.local_workload_peering_ipv6 = Some("fd12::1".parse().unwrap()));
    let [peer] = &sessions(&snapshot)[..] else { panic!("one session") };
    assert_eq!(peer.initiation, Initiation::Active);
    let listens = listen(&snapshot, &named_node("node1"));
    assert!(listens.iter().all(|place| place.is_ipv4()), "{listens:?}");
}
