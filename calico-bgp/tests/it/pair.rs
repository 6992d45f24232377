//! Few speakers, one behaviour each.

use std::time::Duration;

use calico_bgp::session::{Initiation, State};
use calico_bgp::speaker::{NextHopMode, Reflection};
use calico_bgp::{Event, Start};

use crate::world::{World, asn, ip};

const A: &str = "172.16.6.10";
const B: &str = "172.16.6.11";
const C: &str = "172.16.199.12";

fn two() -> World {
    let mut world = World::new();
    world.add(A, 64512);
    world.add(B, 64512);
    world.join(A, B);
    world
}

fn three(local_as: [u32; 3]) -> World {
    let mut world = World::new();
    for (address, local_as) in [A, B, C].into_iter().zip(local_as) {
        world.add(address, local_as);
    }
    world
}

#[test]
fn two_nodes_tell_each_other_their_blocks_with_calicos_metric() {
    let mut world = two();
    world.originate(A, &["192.168.0.0/26"]);
    world.originate(B, &["192.168.0.64/26", "192.168.0.128/26"]);
    world.run_secs(2);
    assert!(world.is_up(A, B) && world.is_up(B, A));
    assert_eq!(world.learned_text(B), ["192.168.0.0/26 via 172.16.6.10"]);
    assert_eq!(
        world.learned_text(A),
        ["192.168.0.64/26 via 172.16.6.11", "192.168.0.128/26 via 172.16.6.11"]
    );
    assert!(world.learned(A).values().all(|route| route.priority == Some(1024)));
}

#[test]
fn a_withdrawn_block_is_gone_and_a_new_one_is_told_at_once() {
    let mut world = two();
    world.originate(A, &["192.168.0.0/26"]);
    world.run_secs(2);
    world.originate(A, &["192.168.5.0/26"]);
    world.run(Duration::from_millis(50));
    assert_eq!(world.learned_text(B), ["192.168.5.0/26 via 172.16.6.10"]);
}

#[test]
fn when_both_dial_at_once_one_session_is_left_and_it_stays() {
    let mut world = two();
    world.run_secs(30);
    assert!(world.is_up(A, B) && world.is_up(B, A));
    let ups = world.events.iter().filter(|(_, event)| matches!(event, Event::Up(_))).count();
    assert_eq!(ups, 2, "{:?}", world.events);
    world.run_secs(3600);
    assert!(!world.events.iter().any(|(_, event)| matches!(event, Event::Down(..))));
}

#[test]
fn a_passive_side_waits_and_a_dialer_that_comes_too_early_tries_again() {
    let mut world = World::new();
    world.add(A, 64512);
    world.add(B, 64512);
    let mut to_b = calico_bgp::PeerConfig::new(ip(B), asn(64512), asn(64512));
    to_b.local_address = Some(ip(A));
    world.add_peer(A, to_b);
    world.run_secs(60);
    assert_ne!(world.state(A, B), State::Established);
    let mut to_a = calico_bgp::PeerConfig::new(ip(A), asn(64512), asn(64512));
    to_a.initiation = Initiation::Passive;
    world.add_peer(B, to_a);
    world.run_secs(31);
    assert!(world.is_up(A, B) && world.is_up(B, A));
}

#[test]
fn silence_ends_a_session_after_the_hold_time_and_it_comes_back() {
    let mut world = two();
    world.run_secs(2);
    world.cut(A, B);
    world.run_secs(235);
    assert!(world.is_up(A, B));
    world.run_secs(90);
    assert!(!world.is_up(A, B));
    world.mend(A, B);
    world.run_secs(60);
    assert!(world.is_up(A, B));
}

#[test]
fn routes_of_one_internal_peer_are_not_told_to_another() {
    let mut world = three([64512; 3]);
    world.join(A, B);
    world.join(B, C);
    world.originate(A, &["192.168.0.0/26"]);
    world.run_secs(2);
    assert_eq!(world.learned_text(B).len(), 1);
    assert!(world.learned(C).is_empty());
}

#[test]
fn routes_pass_from_as_to_as_and_loops_are_cut() {
    let mut world = three([65001, 65002, 4_200_000_003]);
    world.join(A, B);
    world.join(B, C);
    world.join(A, C);
    world.originate(A, &["10.1.0.0/16"]);
    world.run_secs(2);
    assert_eq!(world.learned_text(C), ["10.1.0.0/16 via 172.16.6.10"]);
    assert!(world.learned(A).is_empty());
    let paths: Vec<String> =
        world.speaker(C).routes().iter().map(|route| route.attributes.as_path.to_string()).collect();
    assert_eq!(paths, ["65001", "65002 65001"]);
    world.cut(A, C);
    world.break_connections(A, C);
    world.run_secs(200);
    assert_eq!(world.learned_text(C), ["10.1.0.0/16 via 172.16.6.11"]);
}

#[test]
fn the_same_prefix_from_two_nodes_is_one_route_with_two_gateways() {
    let mut world = three([64512; 3]);
    world.join(A, C);
    world.join(B, C);
    world.originate(A, &["10.96.0.10/32"]);
    world.originate(B, &["10.96.0.10/32"]);
    world.run_secs(2);
    assert_eq!(world.learned_text(C), ["10.96.0.10/32 via 172.16.6.10,172.16.6.11"]);
}

#[test]
fn a_change_for_one_peer_leaves_the_session_of_another_alone() {
    let mut world = three([64512; 3]);
    world.join(A, B);
    world.join(A, C);
    world.run_secs(5);
    world.events.clear();
    let mut peers = world.peers_of(A);
    peers[0].hold_time = calico_bgp::wire::HoldTime::SUGGESTED;
    world.set_peers(A, peers.clone());
    world.run_secs(30);
    assert!(world.is_up(A, B) && world.is_up(A, C));
    assert!(!world.events.iter().any(|(at, _)| *at == ip(C)), "{:?}", world.events);
    peers.remove(0);
    world.events.clear();
    world.set_peers(A, peers);
    world.run_secs(30);
    assert!(!world.is_up(B, A));
    assert!(world.is_up(A, C));
    assert!(!world.events.iter().any(|(at, _)| *at == ip(C)), "{:?}", world.events);
    let status = world.speaker(B).status();
    assert!(status[0].last_error.is_some());
}

#[test]
fn a_killed_node_keeps_its_routes_with_its_peers_until_it_is_back() {
    let mut world = two();
    world.originate(A, &["192.168.0.0/26"]);
    world.originate(B, &["192.168.0.64/26"]);
    world.run_secs(5);
    world.restart(A, Start::Recovering);
    for step in 0..100 {
        world.run(Duration::from_millis(100));
        assert_eq!(world.learned_text(B), ["192.168.0.0/26 via 172.16.6.10"]);
        if step < 80 {
            assert_eq!(world.speaker(A).learned(), None, "it does not know yet what it wants to tell");
        } else {
            world.originate(A, &["192.168.0.0/26"]);
        }
    }
    assert_eq!(world.learned_text(A), ["192.168.0.64/26 via 172.16.6.11"]);
}

#[test]
fn what_a_restarted_node_no_longer_tells_goes_with_its_end_of_rib() {
    let mut world = two();
    world.originate(A, &["192.168.0.0/26", "192.168.1.0/26"]);
    world.run_secs(5);
    world.restart(A, Start::Recovering);
    world.originate(A, &["192.168.1.0/26"]);
    world.run_secs(20);
    assert_eq!(world.learned_text(B), ["192.168.1.0/26 via 172.16.6.10"]);
}

#[test]
fn a_node_that_restarts_again_and_again_loses_no_route_and_leaves_none_behind() {
    let mut world = two();
    world.originate(A, &["192.168.0.0/26", "192.168.1.0/26"]);
    world.run_secs(5);
    // Before it is back, just when it is, and before it has told anything.
    for steps in [2, 15, 40, 1] {
        world.restart(A, Start::Recovering);
        for _ in 0..steps {
            world.run(Duration::from_millis(100));
            assert_eq!(world.learned(B).len(), 2, "kept meanwhile");
        }
    }
    world.originate(A, &["192.168.1.0/26"]);
    world.run_secs(20);
    assert_eq!(world.learned_text(B), ["192.168.1.0/26 via 172.16.6.10"]);
}

#[test]
fn a_node_that_restarts_for_ever_and_never_tells_everything_loses_its_old_routes() {
    let mut world = two();
    world.originate(A, &["192.168.0.0/26"]);
    world.run_secs(5);
    // Its restart time and three minutes count from the first time on: when it goes again after that, it is not waited for.
    for restarts in 1..=9 {
        world.restart(A, Start::Recovering);
        world.run_secs(40);
        let went = (restarts - 1) * 40;
        assert_eq!(world.learned(B).len(), usize::from(went < 300), "{restarts} restarts");
    }
    world.restart(A, Start::Recovering);
    world.originate(A, &["192.168.0.0/26"]);
    world.run_secs(20);
    world.restart(A, Start::Recovering);
    world.run_secs(40);
    assert_eq!(world.learned(B).len(), 1, "who has told everything has all its time again");
}

#[test]
fn a_node_that_does_not_come_back_loses_its_routes_after_its_restart_time() {
    let mut world = two();
    world.originate(A, &["192.168.0.0/26"]);
    world.run_secs(5);
    world.cut(A, B);
    world.break_connections(A, B);
    world.run_secs(115);
    assert_eq!(world.learned_text(B).len(), 1);
    world.run_secs(10);
    assert!(world.learned(B).is_empty());
}

#[test]
fn a_machine_that_lost_its_kernel_routes_says_so_and_its_old_routes_go() {
    let mut world = two();
    world.originate(A, &["192.168.0.0/26"]);
    world.run_secs(5);
    world.restart(A, Start::Fresh);
    world.run_secs(20);
    assert!(world.learned(B).is_empty());
}

#[test]
fn a_recovering_node_waits_only_briefly_for_a_peer_that_is_down() {
    let mut world = three([64512; 3]);
    world.join(A, B);
    world.join(A, C);
    world.originate(B, &["192.168.0.64/26"]);
    world.run_secs(5);
    world.cut(A, C);
    world.break_connections(A, C);
    world.restart(A, Start::Recovering);
    world.originate(A, &[]);
    world.run_secs(8);
    assert_eq!(world.speaker(A).learned(), None);
    world.run_secs(5);
    assert_eq!(world.learned_text(A), ["192.168.0.64/26 via 172.16.6.11"]);
}

#[test]
fn a_whole_mesh_that_restarts_at_once_does_not_wait_for_itself() {
    let mut world = three([64512; 3]);
    world.join(A, B);
    world.join(A, C);
    world.join(B, C);
    for node in [A, B, C] {
        world.restart(node, Start::Recovering);
    }
    for (node, block) in [(A, "192.168.0.0/26"), (B, "192.168.0.64/26"), (C, "192.168.0.128/26")] {
        world.originate(node, &[block]);
    }
    world.run_secs(8);
    for node in [A, B, C] {
        assert_eq!(world.learned_text(node).len(), 2, "{node}");
    }
}

#[test]
fn a_reflector_passes_routes_between_its_clients_and_two_reflectors_make_no_loop() {
    const R: &str = "172.16.6.1";
    const S: &str = "172.16.6.2";
    let mut world = World::new();
    for node in [A, B, C, R, S] {
        world.add(node, 64512);
    }
    for reflector in [R, S] {
        for node in [A, B, C] {
            world.join(reflector, node);
        }
        let mut peers = world.peers_of(reflector);
        peers.iter_mut().for_each(|peer| peer.reflection = Reflection::Client);
        world.set_peers(reflector, peers);
    }
    world.join(R, S);
    for (node, block) in [(A, "192.168.0.0/26"), (B, "192.168.0.64/26"), (C, "192.168.0.128/26")] {
        world.originate(node, &[block]);
    }
    world.run_secs(5);
    assert_eq!(
        world.learned_text(A),
        ["192.168.0.64/26 via 172.16.6.11", "192.168.0.128/26 via 172.16.199.12"]
    );
    let paths = world.speaker(A).routes();
    assert_eq!(paths.len(), 1 + 2 * 2, "each reflector tells each route once: {paths:#?}");
    let told = world.speaker(R).status().into_iter().find(|s| s.address == ip(A)).unwrap();
    assert_eq!(told.prefixes_out.v4, 2, "a client is not told its own route");
    let before = told.counters.updates_out;
    world.run_secs(600);
    let after = world.speaker(R).status().into_iter().find(|s| s.address == ip(A)).unwrap();
    assert_eq!(after.counters.updates_out, before, "nothing changes, nothing is told");
    world.restart(A, Start::Fresh);
    world.run_secs(20);
    assert_eq!(world.learned_text(B), ["192.168.0.128/26 via 172.16.199.12"]);
}

#[test]
fn forty_peers_that_are_told_the_same_have_it_and_late_comers_get_everything() {
    let mut world = World::new();
    world.add(A, 64512);
    let nodes: Vec<String> = (1..=40).map(|n| format!("10.1.0.{n}")).collect();
    world.originate(A, &["192.168.0.0/26", "192.168.0.64/26"]);
    for node in &nodes {
        world.add(node, 64512);
    }
    let mut peers = Vec::new();
    for node in &nodes {
        world.join(node, A);
        peers = world.peers_of(A);
        if peers.len() == 20 {
            world.run_secs(3);
            world.originate(A, &["192.168.0.64/26", "192.168.0.128/26"]);
        }
    }
    assert_eq!(peers.len(), 40);
    world.run_secs(40);
    for node in &nodes {
        assert_eq!(
            world.learned_text(node),
            ["192.168.0.64/26 via 172.16.6.10", "192.168.0.128/26 via 172.16.6.10"],
            "{node}"
        );
    }
}

#[test]
fn why_a_path_is_the_best_one_or_is_not_can_be_asked_for_one_destination() {
    use calico_bgp::decision::Reason;
    let mut world = three([65001, 65002, 65003]);
    world.join(A, B);
    world.join(B, C);
    world.join(A, C);
    world.originate(A, &["10.1.0.0/16", "10.2.0.0/16"]);
    world.run_secs(2);
    let paths = world.speaker(C).routes_to("10.1.0.0/16".parse().unwrap());
    let why: Vec<_> = paths.iter().map(|path| (path.peer, path.lost_to, path.won_by)).collect();
    let longer = Some(Reason::AsPathLength);
    assert_eq!(why, [(Some(ip(A)), None, longer), (Some(ip(B)), longer, None)]);
    let words: Vec<_> = paths.iter().filter_map(calico_bgp::RouteStatus::why).collect();
    assert_eq!(words, ["it has a shorter AS path", "another path has a shorter AS path"]);
    assert!(world.speaker(C).routes_to("10.3.0.0/16".parse().unwrap()).is_empty());
}

#[test]
fn a_soft_change_of_a_peer_takes_effect_without_a_new_session() {
    let mut world = three([64512, 64512, 65003]);
    world.join(A, B);
    world.join(A, C);
    world.originate(C, &["10.3.0.0/16"]);
    world.run_secs(5);
    assert_eq!(world.learned_text(B), ["10.3.0.0/16 via 172.16.199.12"]);
    world.events.clear();
    let mut peers = world.peers_of(A);
    peers[0].next_hop = NextHopMode::Own;
    world.set_peers(A, peers);
    world.run_secs(5);
    assert_eq!(world.learned_text(B), ["10.3.0.0/16 via 172.16.6.10"]);
    assert!(!world.events.iter().any(|(_, event)| matches!(event, Event::Down(..))), "{:?}", world.events);
}

#[test]
fn a_reflector_stands_in_as_next_hop_only_where_it_is_told_to() {
    for (mode, gateway) in [(NextHopMode::Auto, C), (NextHopMode::Keep, C), (NextHopMode::Own, A)] {
        let mut world = three([64512; 3]);
        for client in [B, C] {
            world.join_one(A, client, |peer| {
                peer.reflection = Reflection::Client;
                peer.next_hop = mode;
            });
            world.join_one(client, A, |_| {});
        }
        world.originate(C, &["192.168.0.0/26"]);
        world.run_secs(5);
        assert_eq!(world.learned_text(B), [format!("192.168.0.0/26 via {gateway}")], "{mode:?}");
    }
}

#[test]
fn a_shutdown_takes_the_routes_away_at_once_and_tells_why() {
    let mut world = two();
    world.originate(A, &["192.168.0.0/26"]);
    world.run_secs(5);
    assert_eq!(world.learned(B).len(), 1);
    let now = world.now;
    world.speaker(A).shut_down("moving racks", now);
    world.run_secs(1);
    assert!(world.learned(B).is_empty());
    let status = world.speaker(B).status().remove(0);
    assert_eq!(
        status.last_error.as_deref(),
        Some("the peer closed the session: administrative shutdown (6/2): moving racks")
    );
}

#[test]
fn a_peer_that_is_removed_takes_its_routes_with_it_on_both_sides() {
    let mut world = two();
    world.originate(A, &["192.168.0.0/26"]);
    world.originate(B, &["192.168.0.64/26"]);
    world.run_secs(5);
    world.set_peers(A, Vec::new());
    world.run_secs(1);
    assert!(world.learned(A).is_empty());
    assert!(world.learned(B).is_empty());
    assert!(world.speaker(A).status().is_empty());
}
