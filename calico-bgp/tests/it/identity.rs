//! A speaker whose own settings change while it runs: sessions that the change does not concern go on, and no route is
//! lost on those that it does.

use std::net::Ipv4Addr;
use std::time::Duration;

use calico_bgp::speaker::Reflection;
use calico_bgp::wire::AsPath;
use calico_model::Cidr;

use crate::world::{World, asn, ip, settings};

const REFLECTOR: &str = "10.0.0.1";
const A: &str = "10.0.0.2";
const B: &str = "10.0.0.3";
const ROUTER: &str = "10.0.0.4";
const OTHER: &str = "10.0.0.5";

/// A reflector with two clients, and a router of another AS that knows it by an AS number of its own.
fn world() -> World {
    let mut world = World::new();
    for address in [REFLECTOR, A, B] {
        world.add(address, 64512);
    }
    world.add(ROUTER, 65001);
    for client in [A, B] {
        world.join_one(REFLECTOR, client, |peer| peer.reflection = Reflection::Client);
        world.join_one(client, REFLECTOR, |_| {});
    }
    world.join_one(REFLECTOR, ROUTER, |peer| peer.local_as = asn(65100));
    world.join_one(ROUTER, REFLECTOR, |peer| peer.remote_as = asn(65100));
    world.originate(A, &["192.168.0.0/26"]);
    world.originate(ROUTER, &["10.9.0.0/16"]);
    world.run_secs(10);
    world
}

/// How often the reflector's session with a peer came up.
fn ups(world: &mut World, peer: &str) -> u64 {
    let status = world.speaker(REFLECTOR).status();
    status.into_iter().find(|status| status.address == ip(peer)).unwrap().counters.established
}

fn clusters(world: &mut World) -> Vec<Ipv4Addr> {
    let routes = world.speaker(B).routes_to("192.168.0.0/26".parse().unwrap());
    routes[0].attributes.extra().cluster_list.to_vec()
}

#[test]
fn another_cluster_id_is_told_on_the_sessions_that_are_there() {
    let mut world = world();
    assert_eq!(clusters(&mut world), [Ipv4Addr::new(10, 0, 0, 1)]);
    let mut config = settings(REFLECTOR, 64512);
    config.cluster_id = Some(Ipv4Addr::new(1, 0, 0, 1));
    let now = world.now;
    world.speaker(REFLECTOR).set_config(config.clone(), now);
    assert_eq!(world.speaker(REFLECTOR).config(), &config);
    world.run_secs(5);
    assert_eq!(clusters(&mut world), [Ipv4Addr::new(1, 0, 0, 1)]);
    assert_eq!([A, B, ROUTER].map(|peer| ups(&mut world, peer)), [1, 1, 1]);

    // What was refused because it had been reflected in the own cluster is taken once it no longer is.
    let mut client = settings(B, 64512);
    client.cluster_id = Some(Ipv4Addr::new(1, 0, 0, 1));
    let now = world.now;
    world.speaker(B).set_config(client, now);
    world.run_secs(5);
    assert_eq!(world.learned_text(B), ["10.9.0.0/16 via 10.0.0.4"], "what was not reflected is left");
    let now = world.now;
    world.speaker(B).set_config(settings(B, 64512), now);
    world.run_secs(5);
    assert_eq!(world.learned_text(B).len(), 2);
    assert_eq!([A, B, ROUTER].map(|peer| ups(&mut world, peer)), [1, 1, 1]);
}

#[test]
fn another_router_id_resets_the_sessions_and_costs_no_route() {
    let mut world = world();
    let mut config = settings(REFLECTOR, 64512);
    config.router_id = "10.0.0.99".parse().unwrap();
    let now = world.now;
    world.speaker(REFLECTOR).set_config(config, now);
    for _ in 0..60 {
        world.run_secs(1);
        assert_eq!(world.learned_text(B).len(), 2, "kept as after any graceful restart");
        assert_eq!(world.learned_text(REFLECTOR).len(), 2);
    }
    assert_eq!([A, B, ROUTER].map(|peer| ups(&mut world, peer)), [2, 2, 2]);
    assert_eq!(clusters(&mut world), [Ipv4Addr::new(10, 0, 0, 99)]);
    let known = world.speaker(B).status()[0].remote_id.unwrap();
    assert_eq!(known.addr(), Ipv4Addr::new(10, 0, 0, 99));
}

#[test]
fn another_as_number_resets_the_sessions_that_show_it_and_no_others() {
    let mut world = world();
    let now = world.now;
    world.speaker(REFLECTOR).set_config(settings(REFLECTOR, 64999), now);
    world.run_secs(5);
    assert_eq!(
        [A, B, ROUTER].map(|peer| ups(&mut world, peer)),
        [1, 1, 1],
        "each has an AS number of its own"
    );

    let mut peers = world.peers_of(REFLECTOR);
    for peer in peers.iter_mut().filter(|peer| peer.address != ip(ROUTER)) {
        peer.local_as = asn(64999);
        peer.reflection = Reflection::NonClient;
    }
    world.set_peers(REFLECTOR, peers);
    for client in [A, B] {
        let mut peers = world.peers_of(client);
        peers[0].remote_as = asn(64999);
        world.set_peers(client, peers);
    }
    world.run_secs(60);
    assert_eq!([A, B, ROUTER].map(|peer| ups(&mut world, peer)), [2, 2, 1]);
    let path =
        world.speaker(ROUTER).routes_to("192.168.0.0/26".parse().unwrap())[0].attributes.as_path.clone();
    assert_eq!(path, AsPath::sequence(&[asn(65100), asn(64512)]), "{path}");
}

#[test]
fn a_client_with_another_router_id_is_told_of_by_it_and_ranked_by_it() {
    let both: Cidr = "10.50.0.0/16".parse().unwrap();
    let mut world = world();
    world.add(OTHER, 64512);
    world.join_one(REFLECTOR, OTHER, |peer| peer.reflection = Reflection::Client);
    world.join_one(OTHER, REFLECTOR, |_| {});
    world.originate(A, &["192.168.0.0/26", "10.50.0.0/16"]);
    world.originate(B, &["10.50.0.0/16"]);
    world.run_secs(10);
    let originators = |world: &mut World| {
        let routes = world.speaker(OTHER).routes();
        let said = |prefix: Cidr| routes.iter().find(|route| route.prefix == prefix);
        ["192.168.0.0/26".parse().unwrap(), both]
            .map(|prefix| said(prefix).and_then(|route| route.attributes.extra().originator_id).unwrap())
    };
    assert_eq!(originators(&mut world), [Ipv4Addr::new(10, 0, 0, 2); 2]);
    let mut config = settings(A, 64512);
    config.router_id = "10.0.0.99".parse().unwrap();
    let now = world.now;
    world.speaker(A).set_config(config, now);
    for _ in 0..600 {
        world.run(Duration::from_millis(100));
        assert_eq!(world.learned(OTHER).len(), 3, "no route is lost");
    }
    assert_eq!(originators(&mut world), [Ipv4Addr::new(10, 0, 0, 99), Ipv4Addr::new(10, 0, 0, 3)]);
    let best = world.speaker(REFLECTOR).routes_to(both).remove(0);
    assert_eq!((best.peer, best.lost_to), (Some(ip(B)), None));
}
