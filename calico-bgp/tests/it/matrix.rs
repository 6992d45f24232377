//! What works with whom: the same scenarios against every daemon, and the README's table of them.
//!
//! Each scenario asserts both ways: what the table says works must, and a capability that a daemon lacks must not have
//! been agreed on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use calico_bgp::family::FamilySet;
use calico_bgp::net::{self, Handle};
use calico_bgp::session::{Negotiated, State};
use calico_bgp::speaker::{Distance, MaxPrefixes, Password, Reflection};
use calico_bgp::wire::open::{AddPath, Feature as Agreed};
use calico_bgp::wire::{AsWidth, PathIds};
use calico_bgp::{Origination, PeerConfig, PeerStatus, SpeakerConfig, Start};
use calico_model::{Cidr, Community, Family};

use crate::daemons::{
    Bird2, DAEMONS, Daemon, Exabgp, Feature, Frr, Gobgp, Running, Setup, TOLD, table, works,
};
use crate::lab::{Namespace, Stream, paths, wait_for_paths, wait_for_peer, wait_for_routes, wait_until_up};
use crate::world::{asn, ip, settings};

/// Our namespace and the peer's, joined by a wire.
fn two() -> (Namespace, Namespace) {
    let (ours, theirs) = (Namespace::new(), Namespace::new());
    ours.wire(&["10.99.0.1/24", "fd99::1/64"], &theirs, &["10.99.0.2/24", "fd99::2/64"]);
    (ours, theirs)
}

fn setup(address: &str, asn: u32, neighbor: (&str, u32), routes: &[&str]) -> Setup {
    Setup {
        address: ip(address),
        router_id: "10.99.0.2".to_owned(),
        asn,
        neighbors: vec![(ip(neighbor.0), neighbor.1)],
        password: None,
        one_hop: false,
        other_address: None,
        routes: routes.iter().map(|route| (*route).to_owned()).collect(),
    }
}

fn peer(setup: &Setup) -> PeerConfig {
    let (us, our_as) = setup.neighbors[0];
    let mut peer = PeerConfig::new(setup.address, asn(setup.asn), asn(our_as));
    peer.local_address = Some(us);
    peer.connect_retry = Duration::from_secs(1);
    peer.add_path = AddPath::Both;
    peer.password = setup.password.and_then(Password::new);
    if setup.one_hop {
        peer.distance = Distance::Within(1);
    }
    peer
}

fn origins(prefixes: &[String]) -> BTreeMap<Cidr, Origination> {
    prefixes.iter().map(|prefix| (prefix.parse().unwrap(), Origination::default())).collect()
}

async fn start(config: SpeakerConfig, peer: PeerConfig, prefixes: &[String]) -> Handle {
    let handle = net::spawn(&["0.0.0.0:179".parse().unwrap(), "[::]:179".parse().unwrap()], config).unwrap();
    handle.set_originated(origins(prefixes)).await.unwrap();
    handle.set_peers(vec![peer]).await.unwrap();
    handle
}

fn assert_as_the_table_says(daemon: &dyn Daemon, feature: Feature, observed: bool) {
    assert_eq!(observed, works(daemon, feature), "{}: {feature:?}", daemon.name());
}

/// Checks what was agreed on in the OPEN messages against the table.
fn agreed_as_the_table_says(daemon: &dyn Daemon, negotiated: &Negotiated, family: Family) {
    let has = |feature| negotiated.features.contains(&feature);
    let ids = |ids: calico_bgp::family::PerFamily<PathIds>| ids[family] == PathIds::Present;
    let dialect = &negotiated.dialect;
    for (feature, observed) in [
        (Feature::ExtendedMessages, has(Agreed::ExtendedMessages)),
        (Feature::RouteRefresh, has(Agreed::RouteRefresh)),
        (Feature::EnhancedRefresh, has(Agreed::EnhancedRouteRefresh)),
        (Feature::AddPath, ids(dialect.path_ids_in) && ids(dialect.path_ids_out)),
        (Feature::WideAs, dialect.as_width == AsWidth::Four),
    ] {
        assert_as_the_table_says(daemon, feature, observed);
    }
}

/// iBGP over IPv4 with a key: routes both ways, what was agreed on, refreshing, and why the peer ended it.
fn inside_an_as(daemon: &'static dyn Daemon) {
    let (ours, theirs) = two();
    let mut setup = setup("10.99.0.2", 64512, ("10.99.0.1", 64512), &["192.168.5.0/26", "192.168.6.0/26"]);
    setup.password = Some("secret");
    let running = Running::start(daemon, &theirs, setup.clone());
    ours.block_on(async {
        let handle = start(settings("10.99.0.1", 64512), peer(&setup), &["192.168.1.0/26".to_owned()]).await;
        let status = wait_until_up(&handle, "10.99.0.2").await;
        agreed_as_the_table_says(daemon, &status.negotiated.expect("it is up"), Family::V4);
        let learned = wait_for_routes(&handle, |routes| routes.len() == 2).await;
        assert!(learned.values().all(|route| route.next_hops == [ip("10.99.0.2")].into()));
        running.wait_for("192.168.1.0/26", true).await;

        let before = wait_until_up(&handle, "10.99.0.2").await.counters.updates_in;
        handle.refresh_peer(ip("10.99.0.2")).await.unwrap();
        wait_for_peer(&handle, "10.99.0.2", |status| status.counters.updates_in > before).await;
        handle.set_originated(origins(&[])).await.unwrap();
        running.wait_for("192.168.1.0/26", false).await;

        if works(daemon, Feature::ShutdownText) {
            daemon.shut_down(&running, "kernel update");
            let ended =
                wait_for_peer(&handle, "10.99.0.2", |status| status.state != State::Established).await;
            let words = ended.last_error.unwrap_or_default();
            assert!(words.ends_with("administrative shutdown (6/2): kernel update"), "{words}");
        }
    });
}

/// eBGP between 4-octet AS numbers, one hop apart: communities both ways, many routes, and too many.
fn between_ases(daemon: &'static dyn Daemon) {
    let (ours, theirs) = two();
    let mut setup = setup(
        "10.99.0.2",
        4_200_000_002,
        ("10.99.0.1", 4_200_000_001),
        &["10.5.0.0/16", "10.6.0.0/16", "10.7.0.0/16"],
    );
    setup.one_hop = true;
    let running = Running::start(daemon, &theirs, setup.clone());
    let many: Vec<String> = (0..3000u32).map(|n| format!("100.{}.{}.0/24", 64 + n / 256, n % 256)).collect();
    let ours_too = [Community::Standard(64512, 9), Community::Large(4_200_000_001, 1, 2)];
    ours.block_on(async {
        let mut us = peer(&setup);
        us.add_communities = ours_too.to_vec();
        let handle = start(settings("10.99.0.1", 4_200_000_001), us.clone(), &many).await;
        wait_until_up(&handle, "10.99.0.2").await;
        wait_for_routes(&handle, |routes| routes.len() == 3).await;
        let path = paths(&handle, "10.5.0.0/16").await.remove(0);
        assert_eq!(path.attributes.as_path.to_string(), "4200000002");
        assert_eq!(path.attributes.communities(), TOLD);
        let heard = running.wait_for(&many[0], true).await;
        running.wait_for(many.last().unwrap(), true).await;
        for community in ours_too {
            assert!(heard.contains(&daemon.community(community)), "{community} in {heard}");
        }
        let status = wait_until_up(&handle, "10.99.0.2").await;
        assert_eq!(status.prefixes_out.v4, 3000);
        assert!(status.counters.updates_out < 40, "packed: {}", status.counters.updates_out);

        // What fits long messages only, and something after it.
        let mut told = origins(&many);
        let mut long = Origination::default();
        long.communities = (0..1100).map(|n| Community::Standard(64512, n)).collect();
        told.insert("100.127.0.0/24".parse().unwrap(), long);
        told.insert("100.127.1.0/24".parse().unwrap(), Origination::default());
        handle.set_originated(told).await.unwrap();
        running.wait_for("100.127.1.0/24", true).await;
        running.wait_for("100.127.0.0/24", works(daemon, Feature::ExtendedMessages)).await;

        us.max_prefixes = Some(MaxPrefixes::new(2));
        handle.set_peers(vec![us]).await.unwrap();
        handle.refresh_peer(ip("10.99.0.2")).await.unwrap();
        let too_many = |status: &PeerStatus| status.last_error.as_ref().is_some_and(|w| w.contains("(6/1)"));
        wait_for_peer(&handle, "10.99.0.2", too_many).await;
    });
}

/// iBGP over IPv6 with a key: routes of both families on one session.
fn over_ipv6(daemon: &'static dyn Daemon) {
    let (ours, theirs) = two();
    let mut setup = setup("fd99::2", 64512, ("fd99::1", 64512), &["fd00:5::/64", "192.168.5.0/26"]);
    setup.password = Some("secret");
    setup.other_address = Some(ip("10.99.0.2"));
    let running = Running::start(daemon, &theirs, setup.clone());
    let prefixes = ["fd00:1::/64", "192.168.1.0/26"].map(str::to_owned);
    ours.block_on(async {
        let mut us = peer(&setup);
        us.families = FamilySet::BOTH;
        us.other_next_hop = Some(ip("10.99.0.1"));
        us.password = Password::new("another");
        let handle = start(settings("10.99.0.1", 64512), us.clone(), &prefixes).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_ne!(handle.status().await.unwrap()[0].state, State::Established, "with another key");
        us.password = Password::new("secret");
        handle.set_peers(vec![us]).await.unwrap();
        let status = wait_until_up(&handle, "fd99::2").await;
        let negotiated = status.negotiated.expect("it is up");
        Family::ALL.iter().for_each(|family| agreed_as_the_table_says(daemon, &negotiated, *family));
        let learned = wait_for_routes(&handle, |routes| routes.len() == 2).await;
        let hops = |prefix: &str| learned[&prefix.parse().unwrap()].next_hops.clone();
        assert_eq!(hops("fd00:5::/64"), [ip("fd99::2")].into());
        assert_eq!(hops("192.168.5.0/26"), [ip("10.99.0.2")].into());
        for (prefix, next_hop) in prefixes.iter().zip(["fd99::1", "10.99.0.1"]) {
            let heard = running.wait_for(prefix, true).await;
            assert!(heard.contains(next_hop), "{next_hop} in {heard}");
        }
    });
}

/// Two paths of one prefix, both ways: we have one of our own and one of a third speaker's, tell the daemon both, and it tells
/// both to a fourth. What keeps no table tells two of its own.
fn two_paths(daemon: &'static dyn Daemon) {
    const SHARED: &str = "10.5.0.0/16";
    let (ours, theirs) = two();
    ours.ip("addr add 10.99.0.3/32 dev lo");
    ours.ip("addr add 10.99.0.4/32 dev lo");
    let passes_on = daemon.name() != Exabgp.name();
    let own: &[&str] = if passes_on { &[] } else { &[SHARED; 2] };
    let mut setup = setup("10.99.0.2", 65002, ("10.99.0.1", 65001), own);
    setup.neighbors.push((ip("10.99.0.4"), 65004));
    let running = Running::start(daemon, &theirs, setup.clone());
    let speaker = |address: &str, number: u32, peers: &[(&str, u32)]| {
        let listen = [format!("{address}:179").parse().unwrap()];
        let handle = net::spawn(&listen, settings(address, number)).unwrap();
        let peers = peers.iter().map(|(peer, remote)| {
            let mut peer = PeerConfig::new(ip(peer), asn(*remote), asn(number));
            peer.local_address = Some(ip(address));
            peer.connect_retry = Duration::from_secs(1);
            peer.add_path = AddPath::Both;
            peer
        });
        (handle, peers.collect::<Vec<_>>())
    };
    ours.block_on(async {
        let (us, peers) = speaker("10.99.0.1", 65001, &[("10.99.0.2", 65002), ("10.99.0.3", 65003)]);
        let (third, thirds_peers) = speaker("10.99.0.3", 65003, &[("10.99.0.1", 65001)]);
        let (fourth, fourths_peers) = speaker("10.99.0.4", 65004, &[("10.99.0.2", 65002)]);
        for (handle, peers) in [(&us, peers), (&third, thirds_peers), (&fourth, fourths_peers)] {
            handle.set_peers(peers).await.unwrap();
        }
        for handle in [&us, &third] {
            handle.set_originated(origins(&[SHARED.to_owned()])).await.unwrap();
        }
        running.wait_for_paths(SHARED, 2).await;
        wait_for_paths(&fourth, SHARED, 2).await;

        us.set_originated(origins(&[])).await.unwrap();
        running.wait_for_paths(SHARED, 1).await;
        wait_for_paths(&fourth, SHARED, if passes_on { 1 } else { 2 }).await;
    });
}

/// The daemon asks for everything again and is told it; then we end the session, and it says why.
fn asks_and_is_told(daemon: &'static dyn Daemon) {
    let (ours, theirs) = two();
    let setup = setup("10.99.0.2", 64512, ("10.99.0.1", 64512), &[]);
    let running = Running::start(daemon, &theirs, setup.clone());
    ours.block_on(async {
        let handle = start(settings("10.99.0.1", 64512), peer(&setup), &[]).await;
        // Two prefixes that cannot be told in one message.
        let mut told = origins(&["192.168.1.0/26", "192.168.2.0/26"].map(str::to_owned));
        told.first_entry().unwrap().get_mut().communities = vec![Community::Standard(64512, 9)];
        handle.set_originated(told).await.unwrap();
        running.wait_for("192.168.1.0/26", true).await;
        running.wait_for("192.168.2.0/26", true).await;
        let before = wait_until_up(&handle, "10.99.0.2").await.counters;
        if works(daemon, Feature::TheirRefresh) {
            daemon.refresh(&running);
            let again = |status: &PeerStatus| status.counters.updates_out >= before.updates_out + 2;
            let status = wait_for_peer(&handle, "10.99.0.2", again).await;
            assert_eq!(status.counters.established, before.established, "on the same session");
        }

        handle.shut_down("moving racks").await.unwrap();
        if works(daemon, Feature::OurShutdownText) {
            running.wait_for_words("moving racks").await;
        }
    });
}

/// Both sides are killed in turn. While one is away, the other keeps its routes.
fn restarts(daemon: &'static dyn Daemon) {
    let (ours, theirs) = two();
    let setup = setup("10.99.0.2", 64512, ("10.99.0.1", 64512), &["192.168.5.0/26"]);
    let mut running = Running::start(daemon, &theirs, setup.clone());
    let prefixes = ["192.168.1.0/26".to_owned()];
    ours.ip("addr add 192.168.1.1/26 dev lo");
    ours.block_on(async {
        let handle = start(settings("10.99.0.1", 64512), peer(&setup), &prefixes).await;
        wait_until_up(&handle, "10.99.0.2").await;
        running.wait_for("192.168.1.0/26", true).await;
        wait_for_routes(&handle, |routes| routes.len() == 1).await;

        let stream = forwards(daemon).then(|| {
            theirs.await_route("192.168.1.0/26");
            theirs.ping("192.168.1.1")
        });
        let mut learned = handle.learned().await.unwrap();
        running.kill();
        wait_for_peer(&handle, "10.99.0.2", |status| status.retained_until.is_some()).await;
        assert_eq!(handle.routes().await.unwrap().len(), 2, "kept while it is away");
        learned.mark_unchanged();
        let lost = tokio::spawn(async move {
            let mut fewest = usize::MAX;
            while learned.changed().await.is_ok() {
                let held = learned.borrow_and_update().as_ref().map_or(0, |routes| routes.len());
                fewest = fewest.min(held);
            }
            fewest
        });
        running.start_again();
        wait_until_up(&handle, "10.99.0.2").await;
        running.wait_for("192.168.1.0/26", true).await;
        wait_for_routes(&handle, |routes| routes.len() == 1).await;
        drop(handle);
        let kept = lost.await.unwrap() > 0;
        assert!(kept || !works(daemon, Feature::TheirRestart), "{}: its routes were lost", daemon.name());
        assert_no_loss(stream);
    });
    // The runtime is gone and with it the sockets, as if the agent had been killed.
    if !works(daemon, Feature::OurRestart) {
        return;
    }
    let stream = forwards(daemon).then(|| theirs.ping("192.168.1.1"));
    ours.block_on(async {
        for _ in 0..10 {
            assert!(running.heard("192.168.1.0/26").is_some(), "{}: kept while we are away", daemon.name());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut config = settings("10.99.0.1", 64512);
        config.start = Start::Recovering;
        let handle = start(config, peer(&setup), &prefixes).await;
        wait_until_up(&handle, "10.99.0.2").await;
        wait_for_routes(&handle, |routes| routes.len() == 1).await;
        assert!(running.heard("192.168.1.0/26").is_some(), "{}", running.log());
    });
    assert_no_loss(stream);
}

fn assert_no_loss(stream: Option<Stream<'_>>) {
    let (sent, lost) = stream.map_or((100, 0), Stream::end);
    assert!(sent >= 10 && lost == 0, "{sent} sent, {lost} lost");
}

/// Whether the daemon writes routes into its kernel in these tests.
fn forwards(daemon: &dyn Daemon) -> bool {
    [Bird2.name(), Frr.name()].contains(&daemon.name())
}

macro_rules! against {
    ($($daemon:ident: $module:ident),*) => {
        $(mod $module {
            use super::*;

            #[test]
            fn inside_an_as() {
                super::inside_an_as(&$daemon);
            }

            #[test]
            fn between_ases() {
                super::between_ases(&$daemon);
            }

            #[test]
            fn over_ipv6() {
                super::over_ipv6(&$daemon);
            }

            #[test]
            fn two_paths() {
                super::two_paths(&$daemon);
            }

            #[test]
            fn asks_and_is_told() {
                super::asks_and_is_told(&$daemon);
            }

            #[test]
            fn restarts() {
                super::restarts(&$daemon);
            }
        })*
    };
}

against!(Bird2: bird, Frr: frr, Gobgp: gobgp, Exabgp: exabgp);

/// Three racks of three nodes, each with two reflectors and a cluster id: the nodes are other people's daemons, the
/// reflectors ours, and all reflectors peer with one another.
#[test]
fn racks_with_a_pair_of_our_reflectors_each_carry_the_routes_of_nine_nodes_of_others() {
    let hub = Namespace::new();
    hub.ip("link add hub type bridge");
    hub.ip("link set hub up");
    let namespaces: Vec<Namespace> = (0..15).map(|_| Namespace::new()).collect();
    let address = |at: usize| format!("10.99.0.{}", at + 1);
    for (at, namespace) in namespaces.iter().enumerate() {
        hub.plug(namespace, &format!("{}/24", address(at)));
    }
    let reflectors = |rack: usize| [9 + 2 * rack, 10 + 2 * rack];
    let block = |node: usize| format!("192.168.{node}.0/26");
    let nodes: Vec<Running<'_>> = (0..9)
        .map(|node| {
            let neighbors = reflectors(node / 3).map(|at| (ip(&address(at)), 64512)).to_vec();
            let setup = Setup {
                address: ip(&address(node)),
                router_id: address(node),
                asn: 64512,
                neighbors,
                password: None,
                one_hop: false,
                other_address: None,
                routes: vec![block(node)],
            };
            Running::start(DAEMONS[node % 4], &namespaces[node], setup)
        })
        .collect();
    std::thread::scope(|scope| {
        let (done, end) = tokio::sync::watch::channel(false);
        let reflecting: Vec<_> = (9..15)
            .map(|at| {
                let mut end = end.clone();
                let (namespace, address) = (&namespaces[at], &address);
                scope.spawn(move || {
                    namespace.block_on(async {
                        let rack = (at - 9) / 2;
                        let mut config = settings(&address(at), 64512);
                        config.cluster_id = Some([1, 0, 0, rack as u8 + 1].into());
                        let clients = (3 * rack..3 * rack + 3).map(|node| (node, Reflection::Client));
                        let others = (9..15).filter(|other| *other != at).map(|o| (o, Reflection::NonClient));
                        let peers = clients.chain(others).map(|(other, reflection)| {
                            let mut peer = PeerConfig::new(ip(&address(other)), asn(64512), asn(64512));
                            peer.connect_retry = Duration::from_secs(1);
                            peer.add_path = AddPath::Both;
                            peer.reflection = reflection;
                            peer
                        });
                        let handle = net::spawn(&["0.0.0.0:179".parse().unwrap()], config).unwrap();
                        handle.set_peers(peers.collect()).await.unwrap();
                        let learned = wait_for_routes(&handle, |routes| routes.len() == 9).await;
                        for (node, route) in learned.values().enumerate() {
                            let hop: IpAddr = ip(&address(node));
                            assert_eq!(route.next_hops, [hop].into(), "the node itself, not a reflector");
                        }
                        end.wait_for(|end| *end).await.unwrap();
                    });
                })
            })
            .collect();
        let heard_all = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        heard_all.block_on(async {
            for (node, running) in nodes.iter().enumerate() {
                for other in (0..9).filter(|other| *other != node) {
                    let heard = running.wait_for(&block(other), true).await;
                    assert!(heard.contains(&address(other)), "{other}'s next hop in {heard}");
                    let standard_and_large = TOLD.map(|community| running.daemon.community(community));
                    for community in
                        standard_and_large.iter().map(String::as_str).chain([running.daemon.target()])
                    {
                        assert!(heard.contains(community), "{other}'s {community} in {heard}");
                    }
                }
            }
        });
        done.send_replace(true);
        reflecting.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn the_readme_says_what_works_with_whom() {
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(&table()), "the README's table is to be:\n{}", table());
}
