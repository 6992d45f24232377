//! Between ASes: what passes without a word, roles, and routes that are about to go.

use calico_bgp::PeerConfig;
use calico_bgp::session::Roles;
use calico_bgp::speaker::Exchange;
use calico_bgp::wire::open::Role;
use calico_model::Community;

use crate::world::{World, asn};

const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";
const C: &str = "10.0.0.3";
const D: &str = "10.0.0.4";

/// Three ASes in a row.
fn row(change: impl Fn(&str, &mut PeerConfig)) -> World {
    let mut world = World::new();
    for (address, number) in [(A, 65001), (B, 65002), (C, 65003)] {
        world.add(address, number);
    }
    for (a, b) in [(A, B), (B, C)] {
        for (one, other) in [(a, b), (b, a)] {
            world.join_one(one, other, |peer| change(one, peer));
        }
    }
    world
}

/// Sets what `one` is to the peer it looks at.
fn role(roles: &'static [(&'static str, &'static str, Role)]) -> impl Fn(&str, &mut PeerConfig) {
    move |one, peer| {
        let other = peer.address.to_string();
        peer.role = roles.iter().find(|(a, b, _)| *a == one && *b == other).map(|(_, _, role)| *role);
    }
}

/// Changes the settings of all peers of one speaker.
fn change(world: &mut World, at: &str, change: impl Fn(&mut PeerConfig)) {
    let mut peers = world.peers_of(at);
    peers.iter_mut().for_each(change);
    world.set_peers(at, peers);
}

#[test]
fn without_a_word_nothing_passes_between_ases() {
    let mut world = row(|one, peer| {
        if one == B {
            peer.import = Exchange::Unsaid;
        }
    });
    world.originate(A, &["10.1.0.0/16"]);
    world.originate(C, &["10.3.0.0/16"]);
    world.originate(B, &["10.2.0.0/16"]);
    world.run_secs(2);
    assert!(world.learned(B).is_empty());
    assert_eq!(world.learned_text(C), ["10.2.0.0/16 via 10.0.0.2"]);
    change(&mut world, B, |peer| peer.import = Exchange::Everything);
    world.run_secs(2);
    assert_eq!(world.learned(B).len(), 2, "asked for again, without a new session");
    change(&mut world, B, |peer| peer.export = Exchange::Unsaid);
    world.run_secs(2);
    assert!(world.learned(A).is_empty() && world.learned(C).is_empty(), "taken back, without a new session");
    assert!(world.events.iter().all(|(_, event)| !matches!(event, calico_bgp::Event::Down(..))));
}

#[test]
fn a_route_from_a_provider_does_not_go_on_to_another_provider() {
    use Role::{Customer, Provider};
    let mut world = row(role(&[(A, B, Provider), (B, A, Customer), (B, C, Customer), (C, B, Provider)]));
    world.originate(A, &["10.1.0.0/16"]);
    world.originate(B, &["10.2.0.0/16"]);
    world.run_secs(2);
    let marked = world.speaker(B).routes().into_iter().find(|route| route.peer.is_some()).unwrap();
    assert_eq!(marked.attributes.extra().only_to_customer, Some(65001));
    assert_eq!(world.learned_text(C), ["10.2.0.0/16 via 10.0.0.2"]);
}

#[test]
fn a_leak_by_one_that_says_no_role_is_caught_by_its_provider() {
    use Role::Provider;
    let mut world = row(role(&[(A, B, Provider), (C, B, Provider)]));
    world.originate(A, &["10.1.0.0/16"]);
    world.run_secs(2);
    assert_eq!(world.learned(B).len(), 1);
    assert!(world.learned(C).is_empty());
}

#[test]
fn roles_that_do_not_face_each_other_make_no_session_and_silence_only_if_it_is_allowed() {
    use Role::{Customer, Provider};
    let mut world = row(role(&[(A, B, Provider), (B, A, Provider), (B, C, Customer)]));
    world.run_secs(5);
    assert!(!world.is_up(A, B));
    let why = world.speaker(A).status().remove(0).last_error.unwrap();
    assert!(why.contains("roles do not match (2/11)"), "{why}");
    assert!(world.is_up(B, C));
    change(&mut world, B, |peer| peer.roles = Roles::Strict);
    world.run_secs(60);
    assert!(!world.is_up(B, C));
}

#[test]
fn a_route_that_is_about_to_go_is_used_only_when_there_is_no_other() {
    let mut world = World::new();
    for (address, number) in [(A, 65001), (B, 65001), (C, 65003)] {
        world.add(address, number);
    }
    for other in [A, B] {
        world.join_with(other, C, |peer| {
            if other == A {
                peer.add_communities = vec![Community::Standard(0xffff, 0)];
            }
        });
    }
    world.originate(A, &["10.1.0.0/16"]);
    world.originate(B, &["10.1.0.0/16"]);
    world.run_secs(2);
    assert_eq!(world.learned_text(C), ["10.1.0.0/16 via 10.0.0.2"]);
    world.originate(B, &[]);
    world.run_secs(2);
    assert_eq!(world.learned_text(C), ["10.1.0.0/16 via 10.0.0.1"]);
}

#[test]
fn communities_pass_between_ases_and_those_that_are_not_transitive_stay_behind() {
    use calico_bgp::session::Peering;
    use calico_bgp::wire::{Dialect, MessageType, Update};

    use crate::hostile::{EVIL, GOOD, Rig, good_attributes, update};
    let mut rig = Rig::new();
    let (good, evil) = (rig.establish(GOOD, 65002), rig.establish(EVIL, 65066));
    rig.sent(good);
    let mut attributes = good_attributes(65066);
    attributes.extend([0xc0, 8, 4, 0xfd, 0xe8, 0, 7]);
    attributes.extend([0xc0, 16, 16, 0x00, 2, 0, 1, 0, 0, 0, 5, 0x40, 4, 0, 1, 0, 0, 0, 6]);
    attributes.extend([0xe0, 25, 20, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    attributes.extend([0xc0, 32, 24, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
    rig.receive(evil, &update(&attributes, &[8, 20]));
    rig.now += std::time::Duration::from_secs(1);
    let now = rig.now;
    rig.speaker.timeout(now);
    let told = rig.sent(good).into_iter().filter(|(kind, _)| *kind == MessageType::Update);
    let told: Vec<Vec<u8>> = told.map(|(_, body)| body).filter(|body| body.len() > 4).collect();
    assert_eq!(told.len(), 1);
    let update = Update::decode(&told[0], &Dialect::plain(Peering::External)).unwrap();
    let attributes = update.attributes.unwrap();
    assert_eq!(attributes.communities(), [Community::Standard(65000, 7), Community::Large(1, 2, 3)]);
    let extra = attributes.extra();
    assert_eq!(*extra.extended_communities, [0x0002_0001_0000_0005], "the other one is for one AS only");
    assert_eq!(extra.unknown.len(), 1, "IPv6 extended communities are passed on as they came");
    assert_eq!((extra.unknown[0].kind, extra.unknown[0].flags), (25, 0xe0));
}

/// Two clusters with the same AS number and a router between: one of them goes by another number there.
#[test]
fn what_has_been_here_is_known_by_the_as_number_of_the_session() {
    let mut world = World::new();
    for (address, number) in [(A, 64512), (B, 65002), (C, 64512), (D, 65100)] {
        world.add(address, number);
    }
    world.join(A, B);
    world.join(D, B);
    world.join_one(C, B, |peer| peer.local_as = asn(65100));
    world.join_one(B, C, |peer| peer.remote_as = asn(65100));
    world.originate(A, &["10.1.0.0/16"]);
    world.originate(D, &["10.4.0.0/16"]);
    world.run_secs(5);
    assert_eq!(world.learned_text(C), ["10.1.0.0/16 via 10.0.0.2"]);
    let status = world.speaker(C).status().remove(0);
    assert_eq!(status.counters.as_loops_in, 1);
    assert_eq!(status.last_refusal.as_deref(), Some("our own AS 65100 is in the path 65002 65100"));
}
