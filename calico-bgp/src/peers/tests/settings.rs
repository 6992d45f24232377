//! What single fields of BGPPeer and BGPConfiguration make of a session.

use std::time::Duration;

use calico_model::resource::NodeInterface;
use calico_model::resource::bgp::{BmpStation, FailureDetection, RestartMode};

use super::*;
use crate::bfd::BfdConfig;
use crate::speaker::{LongLived, Password};

/// The plan of node1, which has 172.16.6.9/24, with one BGPPeer and no mesh.
fn planned(peer: BgpPeer, secrets: &Secrets) -> Plan {
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| c.node_to_node_mesh_enabled = Some(false));
    snapshot.insert(Object::new("one".parse::<Name>().unwrap(), peer));
    plan(&snapshot, &named_node("node1"), secrets).unwrap()
}

fn peer_at(address: &str) -> BgpPeer {
    BgpPeer { peer_ip: Some(address.parse().unwrap()), as_number: AsNumber::new(65001), ..BgpPeer::new() }
}

/// The only session of node1 with one BGPPeer.
fn session(peer: BgpPeer) -> PeerConfig {
    let plan = planned(peer, &Secrets::default());
    let [session] = plan.peers.as_slice() else { panic!("one session: {:?}", plan.peers) };
    session.clone()
}

#[test]
fn times_are_those_of_the_resource_or_the_usual_ones() {
    let usual = session(peer_at("10.7.0.1"));
    assert_eq!((usual.keepalive, usual.hold_time.seconds()), (None, 240));
    for (text, seconds) in [("0s", 0), ("1m30s", 90)] {
        let peer = BgpPeer {
            keepalive_time: Some("7s".parse().unwrap()),
            hold_time: Some(text.parse().unwrap()),
            ..peer_at("10.7.0.1")
        };
        let session = session(peer);
        assert_eq!((session.keepalive, session.hold_time.seconds()), (Some(Duration::from_secs(7)), seconds));
    }
}

#[test]
fn a_restart_time_is_the_nearest_number_of_seconds() {
    for (text, seconds) in [("1600ms", 2), ("1s499ms", 1), ("0s", 0), ("4095s", 4095), ("90m", 4095)] {
        let time = text.parse().unwrap();
        let peer = BgpPeer { max_restart_time: Some(time), ..peer_at("10.7.0.1") };
        assert_eq!(session(peer).restart_time, seconds, "{text}");
    }
}

#[test]
fn routes_outlive_the_restart_time_where_the_restart_mode_says_so() {
    let long_lived = |mode, time: Option<&str>| {
        let time = time.map(|time| time.parse().unwrap());
        let peer = BgpPeer { restart_mode: mode, long_lived_stale_time: time, ..peer_at("10.7.0.1") };
        session(peer).long_lived
    };
    assert_eq!(long_lived(None, None), LongLived::Aware);
    assert_eq!(long_lived(Some(RestartMode::Graceful), None), LongLived::Aware);
    assert_eq!(long_lived(Some(RestartMode::LongLived), None), LongLived::For(3600));
    assert_eq!(long_lived(Some(RestartMode::LongLived), Some("2m")), LongLived::For(120));
}

#[test]
fn bfd_watches_peers_that_no_router_is_between() {
    let watched = |address: &str| {
        let peer = BgpPeer { failure_detection_mode: Some(FailureDetection::Bfd), ..peer_at(address) };
        session(peer).bfd
    };
    assert_eq!(watched("172.16.6.1"), Some(BfdConfig::default()));
    assert_eq!(watched("172.16.7.1"), None, "there is a router between");
    let peer = BgpPeer { failure_detection_mode: Some(FailureDetection::HoldTime), ..peer_at("172.16.6.1") };
    assert_eq!(session(peer).bfd, None);

    let mut snapshot = cluster();
    let mut node1 = node("node1", "172.16.6.9/24");
    let fabric = NodeInterface { name: "eth1".to_owned(), addresses: vec!["10.9.0.2/31".parse().unwrap()] };
    node1.spec.interfaces = vec![fabric];
    snapshot.insert(node1);
    let peer = BgpPeer {
        node: Some(named_node("node1")),
        failure_detection_mode: Some(FailureDetection::Bfd),
        ..peer_at("10.9.0.3")
    };
    snapshot.insert(Object::new("leaf".parse::<Name>().unwrap(), peer));
    let peers = peers(&snapshot, &named_node("node1"));
    let leaf = peers.iter().find(|peer| peer.name == "Node_10_9_0_3").unwrap();
    assert_eq!(leaf.bfd, Some(BfdConfig::default()), "an interface leads to it");
}

#[test]
fn peers_may_come_from_a_network_with_the_settings_of_its_resource() {
    let secret = ("bgp".to_owned(), "rack".to_owned());
    let peer = BgpPeer {
        peer_cidr: Some("172.16.6.0/25".parse().unwrap()),
        max_peers: Some(7),
        as_number: AsNumber::new(65001),
        local_as_number: AsNumber::new(65002),
        failure_detection_mode: Some(FailureDetection::Bfd),
        password: Some(bgp::Password {
            secret_key_ref: Some(bgp::SecretKey {
                name: secret.0.clone(),
                key: secret.1.clone(),
                optional: None,
            }),
        }),
        ..BgpPeer::new()
    };
    let unknown = planned(peer.clone(), &Secrets::default());
    assert!(unknown.dynamic.is_empty(), "nobody comes in without the password");
    assert_eq!(
        unknown.problems[0].to_string(),
        "the session with Dynamic_172.16.6.0/25 is left out: the Secret bgp has no usable entry rack; a password has 1 \
         to 80 octets"
    );
    let key = Password::new("secret").unwrap();
    let plan = planned(peer, &[(secret, key.clone())].into_iter().collect());
    assert_eq!((plan.peers, plan.problems), (Vec::new(), Vec::new()), "nobody is dialed");
    let [range] = plan.dynamic.as_slice() else { panic!("one network: {:?}", plan.dynamic) };
    assert_eq!((range.prefix, range.limit), ("172.16.6.0/25".parse().unwrap(), 7));
    let settings = &range.settings;
    assert_eq!((settings.remote_as.get(), settings.local_as.get()), (65001, 65002));
    assert_eq!((&settings.password, settings.bfd), (&Some(key), Some(BfdConfig::default())));
    assert!(matches!(settings.export, Exchange::Filtered(_)), "resources decide what it is told");
}

/// They would be let in without a signature, and with the other resource's filters.
#[test]
fn who_is_left_out_for_a_password_does_not_come_in_by_a_wider_network() {
    let outside = |network: &str| BgpPeer {
        peer_cidr: Some(network.parse().unwrap()),
        as_number: AsNumber::new(65001),
        ..BgpPeer::new()
    };
    let key = bgp::SecretKey { name: "bgp".to_owned(), key: "rack".to_owned(), optional: None };
    let secret = Some(bgp::Password { secret_key_ref: Some(key) });
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| c.node_to_node_mesh_enabled = Some(false));
    for (name, spec) in [
        ("everyone", outside("10.7.0.0/16")),
        ("rack", BgpPeer { password: secret.clone(), ..outside("10.7.1.0/24") }),
        ("router", BgpPeer { password: secret.clone(), ..peer_at("10.7.0.1") }),
        ("elsewhere", BgpPeer { password: secret.clone(), ..peer_at("10.8.0.1") }),
        ("same", BgpPeer { password: secret, ..peer_at("10.9.0.1") }),
        ("alone", outside("10.9.0.1/32")),
    ] {
        snapshot.insert(Object::new(name.parse::<Name>().unwrap(), spec));
    }
    let ranges = |secrets: &Secrets| -> Vec<(String, u32)> {
        let plan = plan(&snapshot, &named_node("node1"), secrets).unwrap();
        plan.dynamic.iter().map(|range| (range.prefix.to_string(), range.limit)).collect()
    };
    let are = |expected: &[(&str, u32)]| -> Vec<(String, u32)> {
        expected.iter().map(|(network, limit)| ((*network).to_owned(), *limit)).collect()
    };
    let unknown = ranges(&Secrets::default());
    assert_eq!(unknown, are(&[("10.7.0.0/16", 100), ("10.7.0.1/32", 0), ("10.7.1.0/24", 0)]));
    let secret = (("bgp".to_owned(), "rack".to_owned()), Password::new("secret").unwrap());
    let known = ranges(&[secret].into_iter().collect());
    assert_eq!(known, are(&[("10.7.0.0/16", 100), ("10.7.1.0/24", 100), ("10.9.0.1/32", 100)]));
}

#[test]
fn a_network_of_peers_is_for_the_nodes_that_its_resource_names() {
    let peer = BgpPeer {
        node: Some(named_node("node2")),
        peer_cidr: Some("10.0.0.0/8".parse().unwrap()),
        as_number: AsNumber::new(65001),
        ..BgpPeer::new()
    };
    assert!(planned(peer.clone(), &Secrets::default()).dynamic.is_empty());
    let plan = planned(BgpPeer { node: Some(named_node("node1")), ..peer }, &Secrets::default());
    assert_eq!(plan.dynamic[0].limit, 100, "unless it says otherwise");
}

#[test]
fn a_nodes_own_monitoring_stations_count_before_those_of_the_cluster() {
    let stations = |texts: &[&str]| -> Vec<BmpStation> {
        texts.iter().map(|text| BmpStation { address: text.parse().unwrap() }).collect()
    };
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| c.bmp_stations = stations(&["10.9.0.1:11019", "[fd00::1]:11019"]));
    let mut own = BgpConfiguration::new();
    own.bmp_stations = stations(&["10.9.0.2:5000"]);
    snapshot.insert(Object::new("node.node2".parse().unwrap(), own));
    let of = |node: &str| plan(&snapshot, &named_node(node), &Secrets::default()).unwrap().stations;
    assert_eq!(of("node1"), ["10.9.0.1:11019".parse().unwrap(), "[fd00::1]:11019".parse().unwrap()]);
    assert_eq!(of("node2"), ["10.9.0.2:5000".parse().unwrap()]);
}

#[test]
fn the_workloads_that_a_resource_selects_are_peers_of_their_own_node() {
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| c.local_workload_peering_ipv4 = Some("169.254.1.2".parse().unwrap()));
    for (name, on, app, addr) in [
        ("router", "node1", "router", "192.168.0.7"),
        ("other", "node1", "web", "192.168.0.8"),
        ("far", "node2", "router", "192.168.1.7"),
    ] {
        let mut workload = WorkloadEndpoint::on(named_node(on));
        workload.ip_networks = vec![Cidr::host(addr.parse().unwrap())];
        let mut workload = Object::new(name.parse::<Name>().unwrap(), workload);
        workload.metadata.namespace = Some("default".parse().unwrap());
        workload.metadata.labels = [("app", app)].into_iter().collect();
        snapshot.insert(workload);
    }
    let spec = BgpPeer {
        local_workload_selector: Some("app == 'router'".parse().unwrap()),
        as_number: AsNumber::new(65001),
        ..BgpPeer::new()
    };
    snapshot.insert(Object::new("workloads".parse::<Name>().unwrap(), spec));
    let workloads = |node: &str| -> Vec<PeerConfig> {
        let peers = peers(&snapshot, &named_node(node)).into_iter();
        peers.filter(|peer| peer.name.starts_with("Local_Workload")).collect()
    };
    let [peer] = &workloads("node1")[..] else { panic!("one workload") };
    assert_eq!(peer.name, "Local_Workload_192_168_0_7");
    assert_eq!((peer.address.to_string().as_str(), peer.remote_as.get()), ("192.168.0.7", 65001));
    assert_eq!(peer.local_address, Some("169.254.1.2".parse().unwrap()));
    let at = |node: &str| plan(&snapshot, &named_node(node), &Secrets::default()).unwrap().workload_peering;
    assert_eq!(at("node1"), [("192.168.0.7".parse().unwrap(), "169.254.1.2".parse().unwrap())].into());
    assert_eq!(at("node3"), BTreeMap::new());
    assert_eq!(workloads("node2")[0].address.to_string(), "192.168.1.7");
    assert_eq!(workloads("node3"), []);
}

/// Its sessions would begin nowhere: a socket is bound to such an address only together with an interface.
#[test]
fn a_link_local_address_for_local_workloads_is_named_with_what_to_set_instead() {
    let mut snapshot = cluster();
    let mut workload = WorkloadEndpoint::on(named_node("node1"));
    workload.ip_networks = ["192.168.0.7", "fd00:1::7"].map(|ip| Cidr::host(ip.parse().unwrap())).to_vec();
    let mut workload = Object::new("router".parse::<Name>().unwrap(), workload);
    workload.metadata.namespace = Some("default".parse().unwrap());
    snapshot.insert(workload);
    let spec = BgpPeer {
        local_workload_selector: Some("all()".parse().unwrap()),
        as_number: AsNumber::new(65001),
        ..BgpPeer::new()
    };
    snapshot.insert(Object::new("workloads".parse::<Name>().unwrap(), spec));
    let mut told = |own: &str| {
        let own = Some(own.parse().unwrap());
        configure(&mut snapshot, |c| c.local_workload_peering_ipv6 = own);
        let plan = plan(&snapshot, &named_node("node1"), &Secrets::default()).unwrap();
        let problems: Vec<_> = plan.problems.iter().map(ToString::to_string).collect();
        (problems, plan.workload_peering)
    };
    let (problems, at) = told("fe80::179");
    assert_eq!(
        problems,
        [
            "sessions with workloads are left out: fe80::179 is of one link only; set localWorkloadPeeringIPV6 of the \
          BGPConfiguration to one of fd00::/8"
        ]
    );
    assert_eq!(at, BTreeMap::new());
    let (problems, at) = told("fd00:179::1");
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(at, [("fd00:1::7".parse().unwrap(), "fd00:179::1".parse().unwrap())].into());
}

#[test]
fn a_link_local_address_of_a_node_is_named_once_for_all_its_sessions() {
    let mut snapshot = cluster();
    for (number, address) in [(1, "fe80::1/64"), (2, "2001:db8::2/64"), (3, "2001:db8::3/64")] {
        let mut node = node(&format!("node{number}"), &format!("172.16.6.{number}/24"));
        node.spec.bgp.as_mut().unwrap().ipv6_address = Some(address.parse().unwrap());
        snapshot.insert(node);
    }
    let plan = plan(&snapshot, &named_node("node1"), &Secrets::default()).unwrap();
    assert_eq!(addresses(&plan.peers), ["172.16.6.2", "172.16.6.3"]);
    assert_eq!(
        plan.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["sessions over IPv6 are left out: the node's own address fe80::1 is of one link only; set \
          spec.bgp.ipv6Address of the Node to one that other hosts reach"]
    );
}

#[test]
fn the_original_next_hop_is_kept_by_the_old_field_and_by_the_new_one() {
    let mode = |mode, keep| {
        let peer = BgpPeer { next_hop_mode: mode, keep_original_next_hop: keep, ..peer_at("10.7.0.1") };
        session(peer).next_hop
    };
    assert_eq!(mode(None, None), NextHopMode::Auto);
    assert_eq!(mode(None, Some(false)), NextHopMode::Auto);
    assert_eq!(mode(None, Some(true)), NextHopMode::Keep);
    assert_eq!(mode(Some(bgp::NextHopMode::Keep), None), NextHopMode::Keep);
}

/// As upstream's speaker gives it, so that in a mixed mesh no node's route from outside beats that of another.
#[test]
fn a_route_of_another_as_has_the_usual_preference_of_bgp_whatever_the_metric_of_ordinary_ones() {
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| c.ipv4_normal_route_priority = Some(2000));
    snapshot.insert(Object::new("router".parse::<Name>().unwrap(), peer_at("10.7.0.1")));
    let peers = peers(&snapshot, &named_node("node1"));
    assert!(peers.iter().all(|peer| peer.default_local_pref == Some(100)));
}

#[test]
fn a_nodes_own_configuration_says_where_it_listens_and_what_it_adds_and_the_clusters_the_rest() {
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| c.ignored_interfaces = vec!["docker*".to_owned()]);
    let mut own = BgpConfiguration::new();
    own.listen_port = Some(1791);
    own.bind_mode = Some(bgp::BindMode::NodeIp);
    own.ipv4_normal_route_priority = Some(7);
    own.local_workload_peering_ipv4 = Some("169.254.1.2".parse().unwrap());
    own.ignored_interfaces = vec!["eth1".to_owned()];
    own.prefix_advertisements = vec![bgp::PrefixAdvertisement {
        cidr: "192.168.0.0/16".parse().unwrap(),
        communities: vec!["64512:1".to_owned()],
    }];
    snapshot.insert(Object::new("node.node2".parse().unwrap(), own));
    let node2 = named_node("node2");
    let configuration = Configuration::of(&snapshot, &node2);
    assert_eq!(listen(&snapshot, &node2), ["0.0.0.0:1791".parse().unwrap()]);
    assert_eq!(configuration.advertised_communities().len(), 1);
    assert_eq!(configuration.normal_priority()[Family::V4], 1024);
    assert_eq!(configuration.local_workload_peering(Family::V4), None);
    assert_eq!(configuration.ignored_interfaces(), ["docker*"]);
}
