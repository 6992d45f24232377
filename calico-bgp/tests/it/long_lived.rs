//! Routes that outlive the restart time (RFC 9494): kept as a last resort, marked, and told only to those who understand;
//! and what a NOTIFICATION does to routes that were kept (RFC 8538).

use std::time::Duration;

use calico_bgp::decision::Reason;
use calico_bgp::family::{FamilySet, PerFamily};
use calico_bgp::session::State;
use calico_bgp::speaker::LongLived;
use calico_bgp::wire::open::{
    Forwarding, GracefulRestart, LongLivedFamily, LongLivedRestart, OnNotification, RestartState,
};
use calico_bgp::wire::{self, Capabilities, HoldTime, Open};
use calico_model::Community;

use crate::hostile::{EVIL, Rig, good_attributes, message, update};
use crate::world::{World, asn, ip};

const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";
const C: &str = "10.0.0.3";
const D: &str = "10.0.0.4";
const STALE: Community = Community::Standard(0xffff, 6);

/// A asks B to keep its routes for an hour; C and D hear B's routes, and D does not understand last resorts.
fn four() -> World {
    let mut world = World::new();
    for (address, number) in [(A, 65001), (B, 65002), (C, 65003), (D, 65004)] {
        world.add(address, number);
    }
    world.join_one(A, B, |peer| peer.long_lived = LongLived::For(3600));
    world.join_one(B, A, |_| {});
    world.join(B, C);
    world.join_with(B, D, |peer| peer.long_lived = LongLived::Off);
    world.originate(A, &["10.1.0.0/16"]);
    world.run_secs(10);
    assert_eq!((world.learned(C).len(), world.learned(D).len()), (1, 1));
    world
}

fn lose(world: &mut World) {
    world.cut(A, B);
    world.break_connections(A, B);
}

fn marks(world: &mut World, at: &str) -> Vec<bool> {
    world.speaker(at).routes().iter().map(|route| route.attributes.communities().contains(&STALE)).collect()
}

#[test]
fn a_route_lives_on_after_the_restart_time_and_only_those_who_understand_are_told() {
    let mut world = four();
    lose(&mut world);
    world.run_secs(110);
    assert_eq!((marks(&mut world, B), marks(&mut world, C)), (vec![false], vec![false]));
    assert_eq!(world.learned(D).len(), 1);
    world.run_secs(20);
    assert_eq!((marks(&mut world, B), marks(&mut world, C)), (vec![true], vec![true]));
    assert!(world.learned(D).is_empty(), "D would not know that it is a last resort");
    world.run_secs(3500);
    assert_eq!(world.learned(B).len(), 1);
    world.run_secs(100);
    assert!(world.learned(B).is_empty() && world.learned(C).is_empty());
}

#[test]
fn any_other_route_is_better_and_the_reason_is_told() {
    let mut world = four();
    lose(&mut world);
    world.run_secs(130);
    // The path of C is longer by two, and fresh.
    world.add("10.0.0.5", 65005);
    world.add("10.0.0.6", 65006);
    world.join(C, "10.0.0.5");
    world.join("10.0.0.5", "10.0.0.6");
    world.originate("10.0.0.6", &["10.1.0.0/16"]);
    world.run_secs(10);
    assert_eq!(world.learned_text(B), ["10.1.0.0/16 via 10.0.0.3"]);
    let lost: Vec<_> = world.speaker(B).routes().into_iter().filter_map(|route| route.lost_to).collect();
    assert_eq!(lost, [Reason::LongLivedStale]);
}

#[test]
fn a_peer_that_comes_back_makes_its_routes_good_again_and_loses_those_it_does_not_tell() {
    let mut world = four();
    world.originate(A, &["10.1.0.0/16", "10.2.0.0/16"]);
    world.run_secs(2);
    lose(&mut world);
    world.run_secs(600);
    assert_eq!(marks(&mut world, B), [true, true]);
    world.originate(A, &["10.1.0.0/16"]);
    world.mend(A, B);
    world.run_secs(120);
    assert_eq!(marks(&mut world, B), [false]);
    assert_eq!(world.learned_text(D), ["10.1.0.0/16 via 10.0.0.2"]);
}

#[test]
fn a_route_that_forbids_it_does_not_live_on() {
    let mut world = four();
    let mut peers = world.peers_of(A);
    peers[0].add_communities = vec![Community::Standard(0xffff, 7)];
    world.set_peers(A, peers);
    world.run_secs(2);
    lose(&mut world);
    world.run_secs(110);
    assert_eq!(world.learned(B).len(), 1);
    world.run_secs(20);
    assert!(world.learned(B).is_empty());
}

#[test]
fn a_reset_of_either_side_keeps_the_routes_and_a_shutdown_or_a_hard_reset_does_not() {
    let reset = |world: &mut World, at: &str, other: &str| {
        let now = world.now;
        world.speaker(at).reset_peer(ip(other), "", now);
    };
    for (at, other) in [(A, B), (B, A)] {
        let mut world = four();
        world.cut(A, C);
        reset(&mut world, at, other);
        assert_ne!(world.state(at, other), State::Established);
        assert_eq!(world.learned(B).len(), 1, "{at}: at once");
        world.run_secs(60);
        assert!(world.is_up(at, other));
        assert_eq!(world.learned(B).len(), 1, "{at}: when it is back");
    }
    let mut world = four();
    let now = world.now;
    world.speaker(A).shut_down("", now);
    world.run_secs(1);
    assert!(world.learned(B).is_empty(), "a shutdown is for good");
}

#[test]
fn a_hard_reset_ends_the_long_lived_time_and_the_next_one_is_as_long() {
    let mut rig = Rig::new();
    let establish = |rig: &mut Rig| {
        let connection = rig.accept(EVIL);
        let forwarding = Forwarding::Preserved;
        let open = Open {
            asn: asn(65066),
            hold_time: HoldTime::CALICO,
            router_id: EVIL.parse().unwrap(),
            capabilities: Capabilities {
                families: Some(FamilySet::V4),
                four_octet_as: Some(asn(65066)),
                graceful_restart: Some(GracefulRestart {
                    restart_time: 10,
                    state: RestartState::Fresh,
                    on_notification: OnNotification::Keep,
                    families: PerFamily { v4: Some(forwarding), v6: None },
                }),
                long_lived: Some(LongLivedRestart {
                    families: PerFamily {
                        v4: Some(LongLivedFamily { forwarding, stale_time: 100 }),
                        v6: None,
                    },
                }),
                ..Capabilities::default()
            },
        };
        rig.receive(connection, &open.encode());
        rig.receive(connection, &wire::keepalive());
        assert_eq!(rig.state(EVIL), State::Established);
        connection
    };
    let pass = |rig: &mut Rig, seconds: u64| {
        rig.now += Duration::from_secs(seconds);
        rig.speaker.timeout(rig.now);
    };
    let close = |rig: &mut Rig, connection| rig.speaker.closed(connection, "gone".to_owned(), rig.now);
    let announcement = update(&good_attributes(65066), &[8, 20]);
    let held = |rig: &Rig| rig.speaker.learned().unwrap().len();

    let first = establish(&mut rig);
    rig.receive(first, &announcement);
    close(&mut rig, first);
    // A last resort until the 110th second.
    pass(&mut rig, 10);
    pass(&mut rig, 10);
    assert_eq!(held(&rig), 1);
    let second = establish(&mut rig);
    rig.receive(second, &message(3, &[6, 9, 6, 2]));
    close(&mut rig, second);
    assert_eq!(held(&rig), 0, "a hard reset");
    pass(&mut rig, 70);
    let third = establish(&mut rig);
    rig.receive(third, &announcement);
    close(&mut rig, third);
    // In the 100th second it is a last resort again, for as long.
    pass(&mut rig, 10);
    pass(&mut rig, 99);
    assert_eq!(held(&rig), 1);
    pass(&mut rig, 1);
    assert_eq!(held(&rig), 0);
}
