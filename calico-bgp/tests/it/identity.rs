//! A speaker whose own settings change while it runs: sessions that the change does not concern go on, and no route is
//! lost on those that it does.

use std::net::Ipv4Addr;

use calico_bgp::speaker::Reflection;
use calico_bgp::wire::AsPath;

use crate::world::{World, asn, ip, settings};

const REFLECTOR: &str = "10.0.0.1";
const A: &str = "10.0.0.2";
const B: &str = "10.0.0.3";
const ROUTER: &str = "10.0.0.4";

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
