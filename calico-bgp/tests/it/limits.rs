//! How much a peer may tell, how many may come unannounced, and whose AS numbers may be in a path.

use std::time::Duration;

use calico_bgp::session::State;
use calico_bgp::speaker::{AsSets, DynamicPeers, MaxPrefixes, WhenExceeded};
use calico_bgp::{Event, PeerConfig, Speaker, Start};

use crate::hostile::{EVIL, Rig, update};
use crate::world::{World, asn, beginning, ip, settings};

const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";
const C: &str = "10.0.0.3";

/// B tells A, which takes so many prefixes.
fn limited(limit: u32, when_exceeded: WhenExceeded) -> World {
    let mut world = World::new();
    world.add(A, 65001);
    world.add(B, 65002);
    world.join_one(B, A, |_| {});
    world.join_one(A, B, |peer| {
        let mut max = MaxPrefixes::new(limit);
        max.when_exceeded = when_exceeded;
        peer.max_prefixes = Some(max);
    });
    world
}

fn warnings(world: &World) -> Vec<String> {
    let words = |(at, event): &(_, Event)| {
        let Event::Warning(_, words) = event else { return None };
        (*at == ip(A)).then(|| words.clone())
    };
    world.events.iter().filter_map(words).collect()
}

#[test]
fn a_peer_that_comes_near_its_limit_is_warned_of_once_until_it_falls_below() {
    let mut world = limited(4, WhenExceeded::Warn);
    let some = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16"];
    for count in [2, 3, 4, 3, 5, 1, 3] {
        world.originate(B, &some[..count]);
        world.run_secs(1);
    }
    assert_eq!(
        warnings(&world),
        [
            "tells 3 prefixes, 75 percent of the limit of 4",
            "tells 5 prefixes, more than the limit of 4",
            "tells 3 prefixes, 75 percent of the limit of 4",
        ]
    );
    assert_eq!(world.learned(A).len(), 3);
}

#[test]
fn a_peer_over_its_limit_stays_away_until_the_operator_or_a_higher_limit_lets_it_in() {
    let mut world = limited(1, WhenExceeded::Stop);
    world.originate(B, &["10.1.0.0/16", "10.2.0.0/16"]);
    world.run_secs(600);
    assert_eq!(world.state(A, B), State::Idle);
    assert_eq!(world.speaker(A).suspended(), [ip(B)]);
    assert!(world.learned(A).is_empty(), "nothing is kept, although both sides do graceful restart");
    let words = world.speaker(B).status().remove(0).last_received.unwrap();
    assert_eq!(words, "too many prefixes (6/1)");
    let now = world.now;
    world.speaker(A).reset_peer(ip(B), "", now);
    world.run_secs(60);
    assert_eq!(world.state(A, B), State::Idle, "it tells too much again");
    let mut peers = world.peers_of(A);
    peers[0].max_prefixes = Some(MaxPrefixes::new(2));
    world.set_peers(A, peers);
    world.run_secs(60);
    assert!(world.is_up(A, B));
    assert_eq!(world.learned(A).len(), 2);
}

#[test]
fn a_peer_over_its_limit_comes_back_after_the_rest_it_was_given() {
    let mut world = limited(1, WhenExceeded::RestartAfter(Duration::from_secs(300)));
    world.originate(B, &["10.1.0.0/16", "10.2.0.0/16"]);
    world.run_secs(290);
    assert_eq!(world.state(A, B), State::Idle);
    world.originate(B, &["10.1.0.0/16"]);
    world.run_secs(60);
    assert!(world.is_up(A, B));
    assert_eq!(world.learned(A).len(), 1);
}

#[test]
fn what_is_kept_of_a_peer_makes_room_for_what_it_tells_when_it_is_back() {
    let mut world = limited(2, WhenExceeded::Stop);
    world.originate(B, &["10.1.0.0/16", "10.2.0.0/16"]);
    world.run_secs(5);
    world.restart(B, Start::Recovering);
    world.originate(B, &["10.3.0.0/16", "10.4.0.0/16"]);
    for _ in 0..300 {
        world.run(Duration::from_millis(100));
        assert_eq!(world.learned(A).len(), 2);
        assert!(world.speaker(A).suspended().is_empty());
    }
    assert_eq!(world.learned_text(A), ["10.3.0.0/16 via 10.0.0.2", "10.4.0.0/16 via 10.0.0.2"]);
    world.originate(B, &["10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16"]);
    world.run_secs(5);
    assert_eq!(world.speaker(A).suspended(), [ip(B)]);
}

/// A takes whoever comes from 10.0.0.0/24, two at once.
fn open_to_all() -> World {
    let mut world = World::new();
    world.add(A, 65001);
    let settings = PeerConfig::new(ip(A), asn(65002), asn(65001));
    let range = DynamicPeers { prefix: "10.0.0.0/24".parse().unwrap(), limit: 2, settings };
    let now = world.now;
    world.speaker(A).set_dynamic_peers(vec![range], now);
    for other in [B, C, "10.0.0.4", "10.0.1.5"] {
        world.add(other, 65002);
        world.join_one(other, A, |peer| peer.restart_time = 0);
    }
    world
}

#[test]
fn whoever_comes_from_a_prefix_is_a_peer_up_to_a_bound_and_is_forgotten_when_it_goes() {
    let mut world = open_to_all();
    world.originate(B, &["10.9.0.0/16"]);
    world.run_secs(30);
    let here: Vec<String> = world.speaker(A).status().into_iter().map(|status| status.name).collect();
    assert_eq!(here, ["Dynamic_10_0_0_2", "Dynamic_10_0_0_3"]);
    assert_eq!(world.learned(A).len(), 1);
    let now = world.now;
    let full = world.speaker(A).accept(ip("10.0.0.4"), ip(A), now).unwrap_err();
    assert_eq!(full.to_string(), "10.0.0.4 would be one peer more than the 2 that may come from 10.0.0.0/24");
    assert!(world.speaker(A).accept(ip("10.0.1.5"), ip(A), now).is_err(), "another network");
    world.set_peers(B, Vec::new());
    world.run_secs(60);
    let here: Vec<String> = world.speaker(A).status().into_iter().map(|status| status.name).collect();
    assert_eq!(here, ["Dynamic_10_0_0_3", "Dynamic_10_0_0_4"], "the next one has its place");
    assert!(world.learned(A).is_empty());
}

#[test]
fn whoever_told_too_much_is_not_forgotten_and_stays_away() {
    let rests = Duration::from_secs(300);
    for when_exceeded in [WhenExceeded::Stop, WhenExceeded::RestartAfter(rests)] {
        let mut world = World::new();
        world.add(A, 65001);
        let mut settings = PeerConfig::new(ip(A), asn(65002), asn(65001));
        let mut max = MaxPrefixes::new(1);
        max.when_exceeded = when_exceeded;
        settings.max_prefixes = Some(max);
        let range = DynamicPeers { prefix: "10.0.0.0/24".parse().unwrap(), limit: 2, settings };
        let now = world.now;
        world.speaker(A).set_dynamic_peers(vec![range], now);
        world.add(B, 65002);
        world.join_one(B, A, |_| {});
        world.originate(B, &["10.1.0.0/16", "10.2.0.0/16"]);
        world.run_secs(290);
        assert_eq!(world.speaker(A).suspended(), [ip(B)]);
        assert_eq!(world.speaker(A).status()[0].counters.established, 1);
        world.originate(B, &["10.1.0.0/16"]);
        if when_exceeded == WhenExceeded::Stop {
            world.run_secs(600);
            assert_eq!(world.speaker(A).suspended(), [ip(B)]);
            let now = world.now;
            world.speaker(A).reset_peer(ip(B), "", now);
        }
        world.run_secs(60);
        assert!(world.is_up(A, B), "{when_exceeded:?}");
        assert_eq!(world.learned(A).len(), 1);
    }
}

#[test]
fn the_last_words_to_a_peer_are_nothing_to_the_one_that_comes_from_its_address_next() {
    let now = beginning();
    let mut speaker = Speaker::new(settings(A, 65001), now);
    let peer = PeerConfig::new(ip(A), asn(65002), asn(65001));
    let range = DynamicPeers { prefix: "10.0.0.0/24".parse().unwrap(), limit: 1, settings: peer };
    speaker.set_dynamic_peers(vec![range.clone()], now);
    let old = speaker.accept(ip(B), ip(A), now).unwrap();
    speaker.transmit(old, &mut Vec::new(), now);
    speaker.set_dynamic_peers(Vec::new(), now);
    speaker.set_dynamic_peers(vec![range], now);
    speaker.accept(ip(B), ip(A), now).unwrap();
    let mut words = Vec::new();
    speaker.transmit(old, &mut words, now);
    assert_eq!(words[18], 3, "a NOTIFICATION that says why");
    speaker.transmit(old, &mut Vec::new(), now);
    assert_eq!(speaker.status().len(), 1);
    assert_eq!(speaker.status()[0].state, State::OpenSent);
}

#[test]
fn a_changed_prefix_keeps_those_it_still_holds_and_a_named_peer_leaves_its_hands() {
    let mut world = open_to_all();
    world.run_secs(30);
    world.add_peer(A, PeerConfig::new(ip(B), asn(65002), asn(65001)));
    world.run_secs(30);
    assert!(world.is_up(A, B), "now it is named");
    let now = world.now;
    world.events.clear();
    world.speaker(A).set_dynamic_peers(Vec::new(), now);
    world.run_secs(30);
    let here: Vec<_> = world.speaker(A).status().into_iter().map(|status| status.address).collect();
    assert_eq!(here, [ip(B)]);
    assert!(world.is_up(A, B));
    assert!(!world.events.iter().any(|(at, _)| *at == ip(B)), "it noticed nothing: {:?}", world.events);
}

#[test]
fn our_own_number_in_a_path_is_a_loop_unless_it_is_allowed_so_often() {
    let mut world = World::new();
    for (address, number) in [(A, 65001), (B, 65002), (C, 65001)] {
        world.add(address, number);
    }
    world.join(A, B);
    world.join(B, C);
    world.originate(A, &["10.1.0.0/16"]);
    world.run_secs(5);
    assert!(world.learned(C).is_empty());
    let refused = world.speaker(C).status().remove(0);
    assert_eq!(refused.counters.refused_in, 1);
    assert_eq!(refused.last_refusal.as_deref(), Some("our own AS 65001 is in the path 65002 65001"));
    let mut peers = world.peers_of(C);
    peers[0].allow_own_as = 1;
    world.set_peers(C, peers);
    world.run_secs(30);
    assert_eq!(world.learned_text(C), ["10.1.0.0/16 via 10.0.0.2"]);
}

#[test]
fn what_we_brought_into_the_as_or_reflected_ourselves_is_a_loop() {
    // ORIGINATOR_ID, and a CLUSTER_LIST of two (RFC 4456 section 8).
    let marks = |originator: u8, cluster: u8| {
        let inside = [0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 10, 0, 0, 66, 0x40, 5, 4, 0, 0, 0, 100];
        let ids = [0x80, 9, 4, 10, 0, 0, originator, 0x80, 10, 8, 10, 0, 0, 70, 10, 0, 0, cluster];
        [&inside[..], &ids].concat()
    };
    for (originator, cluster, refusal) in [
        (77, 78, None),
        (1, 78, Some("we brought the route into the AS ourselves")),
        (77, 1, Some("it was reflected through our own cluster 10.0.0.1")),
    ] {
        let mut rig = Rig::new();
        rig.change(EVIL, |peer| peer.remote_as = asn(65001));
        let peer = rig.establish(EVIL, 65001);
        rig.receive(peer, &update(&marks(77, 78), &[8, 20]));
        assert_eq!(rig.speaker.learned().unwrap().len(), 1);
        rig.receive(peer, &update(&marks(originator, cluster), &[8, 20]));
        let status = rig.speaker.status().into_iter().find(|status| status.address == ip(EVIL)).unwrap();
        assert_eq!(status.last_refusal.as_deref(), refusal);
        let left = rig.speaker.learned().unwrap().len();
        assert_eq!(left, usize::from(refusal.is_none()), "the one before went with it");
        assert_eq!(status.state, State::Established);
    }
}

#[test]
fn towards_a_peer_we_may_be_another_as_and_the_own_one_does_not_show() {
    let mut world = World::new();
    for (address, number) in [(A, 65001), (B, 65002)] {
        world.add(address, number);
    }
    world.join_one(A, B, |peer| peer.local_as = asn(65100));
    world.join_one(B, A, |peer| peer.remote_as = asn(65100));
    world.originate(A, &["10.1.0.0/16"]);
    world.run_secs(5);
    let route = world.speaker(B).routes().remove(0);
    assert_eq!(route.attributes.as_path.to_string(), "65100");
    // That a route has been in an AS with the number that does not show makes no loop.
    world.add(C, 65001);
    world.join(C, B);
    world.originate(C, &["10.3.0.0/16"]);
    world.run_secs(5);
    assert_eq!(world.speaker(B).routes().len(), 2);
    assert_eq!(world.learned_text(A), ["10.3.0.0/16 via 10.0.0.2"]);
}

#[test]
fn a_route_with_an_as_set_is_refused_unless_the_switch_says_otherwise() {
    let set =
        [0x40, 1, 1, 0, 0x40, 2, 12, 2, 1, 0, 0, 0xfe, 0x2a, 1, 1, 0, 0, 0, 7, 0x40, 3, 4, 10, 0, 0, 66];
    let mut rig = Rig::new();
    let evil = rig.establish(EVIL, 65066);
    rig.receive(evil, &update(&set, &[8, 20]));
    assert!(rig.speaker.learned().unwrap().is_empty());
    assert_eq!(rig.state(EVIL), State::Established);

    let mut rig = Rig::new();
    rig.change(EVIL, |peer| peer.as_sets = AsSets::Accept);
    let evil = rig.establish(EVIL, 65066);
    rig.receive(evil, &update(&set, &[8, 20]));
    assert_eq!(rig.speaker.learned().unwrap().len(), 1);
}
