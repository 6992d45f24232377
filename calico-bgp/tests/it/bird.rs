//! Against BIRD 2, in network namespaces.

mod upstream;

use std::collections::BTreeMap;
use std::time::Duration;

use calico_bgp::family::FamilySet;
use calico_bgp::net::{self, Handle};
use calico_bgp::peers::{self, Secrets};
use calico_bgp::session::{Initiation, State};
use calico_bgp::speaker::{Distance, Password, Reflection};
use calico_bgp::wire::open::AddPath;
use calico_bgp::{Origination, PeerConfig, SpeakerConfig, Start};
use calico_model::resource::bgp::SourceAddress;
use calico_model::resource::{BgpConfiguration, BgpPeer, IpPool, Node, NodeBgp, Object};
use calico_model::{AsNumber, Community, Snapshot};

use crate::lab::{Bird, Namespace, paths, wait_for_peer, wait_for_routes, wait_until_up};
use crate::world::{asn, ip, settings};

const US: &str = "10.99.0.1";
const BIRD: &str = "10.99.0.2";

/// Our namespace and BIRD's, joined by a wire.
fn two() -> (Namespace, Namespace) {
    let (ours, theirs) = (Namespace::new(), Namespace::new());
    ours.wire(&["10.99.0.1/24", "fd99::1/64"], &theirs, &["10.99.0.2/24", "fd99::2/64"]);
    (ours, theirs)
}

/// What BIRD is told: one peer, the routes it has, and more settings.
fn bird_config(local_as: u32, remote_as: u32, routes: &[&str], more: &str) -> String {
    let routes: String = routes.iter().map(|route| format!("  route {route} blackhole;\n")).collect();
    format!(
        "router id {BIRD};
protocol static {{ ipv4; \n{routes}}}
protocol bgp calico {{
  local {BIRD} as {local_as};
  neighbor {US} as {remote_as};
  connect delay time 1; connect retry time 1; error wait time 1,2;
  graceful restart on;
  ipv4 {{ import all; export all; next hop self; }};
  {more}
}}
"
    )
}

fn peer(remote_as: u32, local_as: u32) -> PeerConfig {
    let mut peer = PeerConfig::new(ip(BIRD), asn(remote_as), asn(local_as));
    peer.local_address = Some(ip(US));
    peer.connect_retry = Duration::from_secs(1);
    peer
}

fn origins(prefixes: &[&str]) -> BTreeMap<calico_model::Cidr, Origination> {
    prefixes.iter().map(|prefix| (prefix.parse().unwrap(), Origination::default())).collect()
}

async fn start(config: SpeakerConfig, peer: PeerConfig, prefixes: &[&str]) -> Handle {
    let handle = net::spawn(&["0.0.0.0:179".parse().unwrap(), "[::]:179".parse().unwrap()], config).unwrap();
    handle.set_originated(origins(prefixes)).await.unwrap();
    handle.set_peers(vec![peer]).await.unwrap();
    handle
}

#[test]
fn an_internal_session_carries_routes_both_ways_with_calicos_metric() {
    let (ours, theirs) = two();
    let bird = Bird::start(&theirs, &bird_config(64512, 64512, &["192.168.5.0/26", "192.168.6.0/26"], ""));
    ours.block_on(async {
        let handle = start(settings(US, 64512), peer(64512, 64512), &["192.168.1.0/26"]).await;
        wait_until_up(&handle, BIRD).await;
        let learned = wait_for_routes(&handle, |routes| routes.len() == 2).await;
        assert!(learned.values().all(|route| route.next_hops == [ip(BIRD)].into()));
        assert!(learned.values().all(|route| route.priority == Some(0x7fff_ffff - 100)));
        let seen = bird.wait_for("show route all 192.168.1.0/26", "local_pref").await;
        assert!(seen.contains("BGP.local_pref: 2147482623"), "{seen}");
        assert!(seen.contains(&format!("BGP.next_hop: {US}")), "{seen}");
        handle.set_originated(origins(&["192.168.2.0/26"])).await.unwrap();
        bird.wait_for("show route", "192.168.2.0/26").await;
        assert!(!bird.ask("show route").contains("192.168.1.0/26"));
    });
}

#[test]
fn an_external_session_with_four_octet_as_numbers_carries_communities() {
    let (ours, theirs) = two();
    let config = bird_config(4_200_000_002, 4_200_000_001, &["10.5.0.0/16"], "").replace(
        "export all;",
        "export filter { bgp_community.add((65000,7)); bgp_large_community.add((1,2,3)); accept; };",
    );
    let bird = Bird::start(&theirs, &config);
    ours.block_on(async {
        let mut peer = peer(4_200_000_002, 4_200_000_001);
        peer.add_communities = vec![Community::Standard(64512, 9), Community::Large(4_200_000_001, 1, 2)];
        let handle = start(settings(US, 4_200_000_001), peer, &["10.1.0.0/16"]).await;
        wait_until_up(&handle, BIRD).await;
        let learned = wait_for_routes(&handle, |routes| routes.len() == 1).await;
        assert!(learned.values().all(|route| route.priority == Some(1024)), "of the usual preference");
        let path = paths(&handle, "10.5.0.0/16").await.remove(0);
        assert_eq!(path.attributes.as_path.to_string(), "4200000002");
        assert_eq!(path.attributes.communities(), [Community::Standard(65000, 7), Community::Large(1, 2, 3)]);
        let seen = bird.wait_for("show route all 10.1.0.0/16", "BGP.as_path: 4200000001").await;
        assert!(seen.contains("(64512,9)") && seen.contains("(4200000001, 1, 2)"), "{seen}");
    });
}

#[test]
fn our_restart_costs_bird_no_route() {
    let (ours, theirs) = two();
    let bird = Bird::start(&theirs, &bird_config(64512, 64512, &["192.168.5.0/26"], ""));
    let prefixes = ["192.168.1.0/26", "192.168.2.0/26"];
    ours.block_on(async {
        let handle = start(settings(US, 64512), peer(64512, 64512), &prefixes).await;
        wait_until_up(&handle, BIRD).await;
        bird.wait_for("show route", "192.168.2.0/26").await;
    });
    // The runtime is gone and with it the sockets, as if the agent had been killed.
    ours.block_on(async {
        bird.wait_for("show protocols all calico", "Neighbor graceful restart active").await;
        assert!(bird.ask("show route").contains("192.168.1.0/26"));
        let mut config = settings(US, 64512);
        config.start = Start::Recovering;
        let handle = start(config, peer(64512, 64512), &prefixes[1..]).await;
        assert_eq!(*handle.learned().await.unwrap().borrow(), None);
        while handle.learned().await.unwrap().borrow().is_none() {
            assert!(bird.ask("show route").contains("192.168.2.0/26"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(
            handle.learned().await.unwrap().borrow().as_ref().unwrap().len(),
            1,
            "chosen after BIRD's End-of-RIB"
        );
        for _ in 0..100 {
            let routes = bird.ask("show route");
            assert!(routes.contains("192.168.2.0/26"), "{routes}");
            if !routes.contains("192.168.1.0/26") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the route that is no longer told stays: {}", bird.ask("show route all"));
    });
}

#[test]
fn birds_restart_costs_us_no_route() {
    let (ours, theirs) = two();
    let mut bird = Bird::start(&theirs, &bird_config(64512, 64512, &["192.168.5.0/26"], ""));
    ours.block_on(async {
        let handle = start(settings(US, 64512), peer(64512, 64512), &["192.168.1.0/26"]).await;
        wait_until_up(&handle, BIRD).await;
        wait_for_routes(&handle, |routes| routes.len() == 1).await;
        let mut learned = handle.learned().await.unwrap();
        learned.mark_unchanged();
        bird.kill();
        wait_for_peer(&handle, BIRD, |status| status.state != State::Established).await;
        bird.start_again();
        wait_until_up(&handle, BIRD).await;
        wait_for_peer(&handle, BIRD, |status| status.retained_until.is_none()).await;
        assert_eq!(paths(&handle, "192.168.5.0/26").await.len(), 1);
        assert!(!learned.has_changed().unwrap(), "the routes were the same all the time");
    });
}

#[test]
fn a_session_with_a_password_needs_the_same_password() {
    let (ours, theirs) = two();
    let bird = Bird::start(&theirs, &bird_config(64512, 64512, &["192.168.5.0/26"], "password \"secret\";"));
    ours.block_on(async {
        let mut peer = peer(64512, 64512);
        peer.initiation = Initiation::Passive;
        let handle = start(settings(US, 64512), peer.clone(), &[]).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_ne!(handle.status().await.unwrap()[0].state, State::Established);
        for initiation in [Initiation::Passive, Initiation::Active] {
            peer.initiation = initiation;
            peer.password = Password::new("secret");
            handle.set_peers(vec![]).await.unwrap();
            handle.set_peers(vec![peer.clone()]).await.unwrap();
            wait_until_up(&handle, BIRD).await;
        }
        bird.wait_for("show protocols", "Established").await;
    });
}

#[test]
fn time_to_live_security_lets_the_neighbour_in() {
    let (ours, theirs) = two();
    let bird = Bird::start(&theirs, &bird_config(65002, 65001, &[], "ttl security on; direct;"));
    ours.block_on(async {
        let mut peer = peer(65002, 65001);
        peer.distance = Distance::Within(1);
        let handle = start(settings(US, 65001), peer, &["10.1.0.0/16"]).await;
        wait_until_up(&handle, BIRD).await;
        bird.wait_for("show route", "10.1.0.0/16").await;
    });
}

#[test]
fn a_session_over_ipv6_carries_ipv6_routes() {
    let (ours, theirs) = two();
    let config = format!(
        "router id {BIRD};
protocol static {{ ipv6; route fd05::/64 blackhole; }}
protocol bgp calico {{
  local fd99::2 as 64512; neighbor fd99::1 as 64512;
  connect delay time 1; graceful restart on;
  ipv6 {{ import all; export all; next hop self; }};
}}
"
    );
    let bird = Bird::start(&theirs, &config);
    ours.block_on(async {
        let mut peer = PeerConfig::new(ip("fd99::2"), asn(64512), asn(64512));
        peer.local_address = Some(ip("fd99::1"));
        peer.connect_retry = Duration::from_secs(1);
        let handle = start(settings(US, 64512), peer, &["fd01::/122"]).await;
        wait_until_up(&handle, "fd99::2").await;
        let learned = wait_for_routes(&handle, |routes| routes.len() == 1).await;
        assert_eq!(learned[&"fd05::/64".parse().unwrap()].next_hops, [ip("fd99::2")].into());
        let seen = bird.wait_for("show route all fd01::/122", "BGP.next_hop: fd99::1").await;
        assert!(seen.contains("BGP.local_pref: 2147482623"), "{seen}");
    });
}

#[test]
fn a_session_over_ipv6_carries_ipv4_routes_with_ipv6_next_hops() {
    let (ours, theirs) = two();
    let config = format!(
        "router id {BIRD};
protocol static {{ ipv4; route 10.5.0.0/16 blackhole; }}
protocol bgp calico {{
  local fd99::2 as 64512; neighbor fd99::1 as 64512;
  direct; connect delay time 1; graceful restart on;
  ipv4 {{ import all; export all; next hop self; extended next hop on; }};
}}
"
    );
    let bird = Bird::start(&theirs, &config);
    ours.block_on(async {
        let mut peer = PeerConfig::new(ip("fd99::2"), asn(64512), asn(64512));
        peer.local_address = Some(ip("fd99::1"));
        peer.connect_retry = Duration::from_secs(1);
        peer.families = FamilySet::V4;
        let handle = start(settings(US, 64512), peer, &["192.168.1.0/26"]).await;
        wait_until_up(&handle, "fd99::2").await;
        let learned = wait_for_routes(&handle, |routes| routes.len() == 1).await;
        assert_eq!(learned[&"10.5.0.0/16".parse().unwrap()].next_hops, [ip("fd99::2")].into());
        let seen = bird.wait_for("show route all 192.168.1.0/26", "BGP.next_hop: fd99::1").await;
        assert!(seen.contains("via fd99::1"), "{seen}");
    });
}

#[test]
fn a_resource_has_the_original_next_hop_told_to_another_as() {
    let (ours, one, two) = (Namespace::new(), Namespace::new(), Namespace::new());
    ours.wire(&["10.99.1.1/24"], &one, &["10.99.1.2/24"]);
    ours.wire(&["10.99.2.1/24"], &two, &["10.99.2.2/24"]);
    two.ip("route add default via 10.99.2.1");
    let bird = |number: u32, routes: &[&str]| {
        bird_config(65000 + number, 64512, routes, "multihop 2;")
            .replace(BIRD, &format!("10.99.{number}.2"))
            .replace(US, &format!("10.99.{number}.1"))
    };
    let _first = Bird::start(&one, &bird(1, &["10.5.0.0/16"]));
    let second = Bird::start(&two, &bird(2, &[]));
    let plan = |keep: Option<bool>| {
        let mut snapshot = Snapshot::default();
        let mut node = Node::new();
        node.bgp = Some(NodeBgp::at("10.99.1.1/24".parse().unwrap()));
        snapshot.insert(Object::new("node1".parse().unwrap(), node));
        snapshot.insert(Object::new("pool".parse().unwrap(), IpPool::new("10.5.0.0/16".parse().unwrap())));
        let mesh = BgpConfiguration { node_to_node_mesh_enabled: Some(false), ..BgpConfiguration::new() };
        snapshot.insert(Object::new("default".parse().unwrap(), mesh));
        for (name, number, address) in [("one", 65001, "10.99.1.2"), ("two", 65002, "10.99.2.2")] {
            let peer = BgpPeer {
                peer_ip: Some(address.parse().unwrap()),
                as_number: AsNumber::new(number),
                source_address: Some(SourceAddress::Any),
                keep_original_next_hop: keep,
                ..BgpPeer::new()
            };
            snapshot.insert(Object::new(name.parse().unwrap(), peer));
        }
        peers::plan(&snapshot, &"node1".parse().unwrap(), &Secrets::default()).unwrap()
    };
    ours.block_on(async {
        let own = plan(None);
        let handle = net::spawn(&own.listen, own.speaker).unwrap();
        handle.set_peers(own.peers).await.unwrap();
        second.wait_for("show route all 10.5.0.0/16", "BGP.next_hop: 10.99.2.1").await;
        handle.set_peers(plan(Some(true)).peers).await.unwrap();
        second.wait_for("show route all 10.5.0.0/16", "BGP.next_hop: 10.99.1.2").await;
        assert_eq!(wait_until_up(&handle, "10.99.2.2").await.counters.established, 1, "on the same session");
    });
}

#[test]
fn a_shutdown_text_comes_through_and_a_refresh_brings_everything_again() {
    let (ours, theirs) = two();
    let bird = Bird::start(&theirs, &bird_config(64512, 64512, &["192.168.5.0/26"], ""));
    ours.block_on(async {
        let handle = start(settings(US, 64512), peer(64512, 64512), &["192.168.1.0/26"]).await;
        let before = wait_until_up(&handle, BIRD).await;
        bird.wait_for("show route", "192.168.1.0/26").await;
        bird.ask("reload in calico");
        let sent = before.counters.updates_out;
        let status = wait_for_peer(&handle, BIRD, |status| status.counters.updates_out > sent).await;
        let heard = status.counters.updates_in;
        handle.refresh_peer(ip(BIRD)).await.unwrap();
        wait_for_peer(&handle, BIRD, |status| {
            status.counters.updates_in > heard && status.retained_until.is_none()
        })
        .await;
        assert_eq!(paths(&handle, "192.168.5.0/26").await.len(), 1);
        assert!(bird.ask("show route").contains("192.168.1.0/26"));
        bird.ask("disable calico \"kernel update\"");
        let text = "the peer closed the session: administrative shutdown (6/2): kernel update";
        wait_for_peer(&handle, BIRD, |status| status.last_error.as_deref() == Some(text)).await;
    });
}

#[test]
fn a_reflector_of_ours_joins_clients_that_do_not_know_each_other() {
    let (ours, one, two) = (Namespace::new(), Namespace::new(), Namespace::new());
    ours.wire(&["10.99.1.1/24"], &one, &["10.99.1.2/24"]);
    ours.wire(&["10.99.2.1/24"], &two, &["10.99.2.2/24"]);
    one.ip("route add default via 10.99.1.1");
    two.ip("route add default via 10.99.2.1");
    let client = |number: u32| {
        bird_config(64512, 64512, &[format!("192.168.{number}.0/26").as_str()], "")
            .replace(BIRD, &format!("10.99.{number}.2"))
            .replace(US, &format!("10.99.{number}.1"))
    };
    let first = Bird::start(&one, &client(1));
    let second = Bird::start(&two, &client(2));
    ours.block_on(async {
        let mut config = settings("10.99.1.1", 64512);
        config.cluster_id = Some("1.0.0.1".parse().unwrap());
        let peers = ["10.99.1.2", "10.99.2.2"].map(|address| {
            let mut peer = PeerConfig::new(ip(address), AsNumber::DEFAULT, AsNumber::DEFAULT);
            peer.reflection = Reflection::Client;
            peer.connect_retry = Duration::from_secs(1);
            peer
        });
        let handle = net::spawn(&["0.0.0.0:179".parse().unwrap()], config).unwrap();
        handle.set_peers(peers.to_vec()).await.unwrap();
        let seen = first.wait_for("show route all 192.168.2.0/26", "originator_id").await;
        assert!(seen.contains("BGP.originator_id: 10.99.2.2"), "{seen}");
        assert!(seen.contains("BGP.cluster_list: 1.0.0.1"), "{seen}");
        assert!(seen.contains("BGP.next_hop: 10.99.2.2"), "{seen}");
        second.wait_for("show route all 192.168.1.0/26", "BGP.originator_id: 10.99.1.2").await;
    });
}

#[test]
fn several_paths_for_one_prefix_come_from_one_bird_and_go_to_another() {
    let (ours, one, two) = (Namespace::new(), Namespace::new(), Namespace::new());
    ours.wire(&["10.99.1.1/24"], &one, &["10.99.1.2/24"]);
    ours.wire(&["10.99.2.1/24"], &two, &["10.99.2.2/24"]);
    let bird = |number: u32, more: &str| {
        let config = bird_config(65000 + number, 65100, &[], "")
            .replace(BIRD, &format!("10.99.{number}.2"))
            .replace(US, &format!("10.99.{number}.1"))
            .replace("next hop self;", "next hop self; add paths on;");
        format!("{more}\n{config}")
    };
    let twice = ["a", "b"].map(|name| {
        format!(
            "protocol static {name} {{ ipv4 {{ preference {}; }}; route 10.5.0.0/16 blackhole; }}",
            name.len() + 100
        )
    });
    let first = Bird::start(&one, &bird(1, &twice.join("\n")));
    let second = Bird::start(&two, &bird(2, ""));
    ours.block_on(async {
        let peers = [(1, "10.99.1.2"), (2, "10.99.2.2")].map(|(number, address)| {
            let mut peer = PeerConfig::new(ip(address), asn(65000 + number), asn(65100));
            peer.connect_retry = Duration::from_secs(1);
            peer.add_path = AddPath::Both;
            peer
        });
        let handle = net::spawn(&["0.0.0.0:179".parse().unwrap()], settings("10.99.1.1", 65100)).unwrap();
        handle.set_originated(origins(&["10.5.0.0/16"])).await.unwrap();
        handle.set_peers(peers.to_vec()).await.unwrap();
        second.wait_for("show route count", "3 of 3").await;
        assert_eq!(paths(&handle, "10.5.0.0/16").await.len(), 3);
        first.ask("disable a");
        second.wait_for("show route count", "2 of 2").await;
        first.ask("disable b");
        second.wait_for("show route count", "1 of 1").await;
        handle.set_originated(BTreeMap::new()).await.unwrap();
        second.wait_for("show route count", "0 of 0").await;
    });
}

#[test]
fn a_large_table_passes_from_one_bird_to_another() {
    let (ours, one, two) = (Namespace::new(), Namespace::new(), Namespace::new());
    ours.wire(&["10.99.1.1/24"], &one, &["10.99.1.2/24"]);
    ours.wire(&["10.99.2.1/24"], &two, &["10.99.2.2/24"]);
    let routes: Vec<String> =
        (0..20_000u32).map(|n| format!("100.{}.{}.0/24", 64 + n / 256, n % 256)).collect();
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    let bird = |number: u32, routes: &[&str]| {
        bird_config(65000 + number, 65100, routes, "enable extended messages on;")
            .replace(BIRD, &format!("10.99.{number}.2"))
            .replace(US, &format!("10.99.{number}.1"))
    };
    let _first = Bird::start(&one, &bird(1, &routes));
    let second = Bird::start(&two, &bird(2, &[]));
    ours.block_on(async {
        let peers = [(1, "10.99.1.2"), (2, "10.99.2.2")].map(|(number, address)| {
            let mut peer = PeerConfig::new(ip(address), asn(65000 + number), asn(65100));
            peer.connect_retry = Duration::from_secs(1);
            peer
        });
        let handle = net::spawn(&["0.0.0.0:179".parse().unwrap()], settings("10.99.1.1", 65100)).unwrap();
        handle.set_peers(peers.to_vec()).await.unwrap();
        second.wait_for("show route count", "20000 of 20000").await;
        let status = wait_until_up(&handle, "10.99.2.2").await;
        assert_eq!(status.prefixes_out.v4, 20_000);
        assert!(status.counters.updates_out < 200, "packed: {}", status.counters.updates_out);
    });
}

#[test]
fn a_peer_that_does_not_listen_is_said_in_words() {
    let (ours, _theirs) = two();
    ours.block_on(async {
        let handle = start(settings(US, 64512), peer(64512, 64512), &[]).await;
        let status = wait_for_peer(&handle, BIRD, |status| status.last_error.is_some()).await;
        let words = status.last_error.unwrap();
        assert!(words.contains("cannot connect to 10.99.0.2:179: Connection refused"), "{words}");
    });
}

#[test]
fn a_port_that_is_taken_is_said_in_one_sentence() {
    let ours = Namespace::new();
    ours.block_on(async {
        let _other = std::net::TcpListener::bind("127.0.0.1:179").unwrap();
        let error = net::spawn(&["127.0.0.1:179".parse().unwrap()], settings(US, 64512)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "port 179 on 127.0.0.1 is taken by another program: stop it or set listenPort"
        );
    });
}
