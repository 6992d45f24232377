//! Next hops that can be reached or not: what is chosen, what is told, and that each change is told once.

use calico_bgp::decision::{NextHop, NextHops, Reason};
use calico_bgp::speaker::Reflection;
use calico_bgp::wire::open::AddPath;

use crate::world::{World, ip};

const A: &str = "172.16.6.10";
const B: &str = "172.16.6.11";
const MIDDLE: &str = "172.16.6.1";
const C: &str = "172.16.6.12";
const D: &str = "172.16.6.13";

const SHARED: &str = "10.96.0.10/32";

/// A and B tell a reflector, which tells C, and with ADD-PATH D.
fn world() -> World {
    let mut world = World::new();
    let several = |client| if client == D { AddPath::Both } else { AddPath::Neither };
    [MIDDLE, A, B, C, D].into_iter().for_each(|address| world.add(address, 64512));
    for client in [A, B, C, D] {
        world.join_one(MIDDLE, client, |peer| {
            peer.reflection = Reflection::Client;
            peer.add_path = several(client);
        });
        world.join_one(client, MIDDLE, |peer| peer.add_path = several(client));
    }
    world.originate(A, &[SHARED, "192.168.0.0/26"]);
    world.originate(B, &[SHARED]);
    world.run_secs(2);
    world
}

fn know(world: &mut World, known: &[(&str, NextHop)]) {
    let next_hops: NextHops = known.iter().map(|(address, way)| (ip(address), *way)).collect();
    let now = world.now;
    world.speaker(MIDDLE).set_next_hops(next_hops, now);
    world.run_secs(1);
}

/// How many UPDATE messages each of these has had.
fn heard(world: &mut World) -> [u64; 4] {
    [A, B, C, D].map(|at| world.speaker(at).status()[0].counters.updates_in)
}

/// What C, who is told the best path, and D, who is told all, know of the shared prefix.
fn known(world: &mut World) -> [Vec<String>; 2] {
    [C, D].map(|at| world.learned_text(at).into_iter().filter(|text| text.starts_with(SHARED)).collect())
}

fn by(gateways: &str) -> Vec<String> {
    vec![format!("{SHARED} via {gateways}")]
}

#[test]
fn a_route_whose_next_hop_cannot_be_reached_is_neither_chosen_nor_told_until_it_can_be() {
    let mut world = world();
    assert_eq!(known(&mut world), [by(A), by(&format!("{A},{B}"))]);
    let all = world.learned_text(C);
    let before = heard(&mut world);
    know(&mut world, &[(A, NextHop::Unreachable)]);
    assert_eq!(known(&mut world), [by(B), by(B)]);
    assert_eq!(world.learned_text(MIDDLE), by(B));
    assert_eq!(world.learned_text(C), by(B), "a route without another path is withdrawn");
    // One message for the shared prefix (to B, whose path it is now, its withdrawal) and one that withdraws the other; to D both
    // of A's paths are withdrawn in one.
    let after = heard(&mut world);
    let told: Vec<u64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    assert_eq!(told, [2, 2, 2, 1]);
    let paths = world.speaker(MIDDLE).routes_to(SHARED.parse().unwrap());
    let lost: Vec<_> = paths.iter().map(|path| (path.peer, path.lost_to)).collect();
    assert_eq!(lost, [(Some(ip(B)), None), (Some(ip(A)), Some(Reason::Unreachable))]);
    assert_eq!(Reason::Unreachable.to_string(), "its next hop cannot be reached");

    know(&mut world, &[(A, NextHop::Unreachable), (D, NextHop::Unreachable)]);
    assert_eq!(heard(&mut world), after, "what is no next hop of a route is nothing to anybody");
    world.originate(A, &[SHARED, "192.168.0.0/26", "192.168.0.64/26"]);
    world.run_secs(1);
    assert_eq!(heard(&mut world), after, "nor what comes by way of one that cannot be reached");

    know(&mut world, &[]);
    assert_eq!(known(&mut world), [by(A), by(&format!("{A},{B}"))]);
    let back = world.learned_text(C);
    assert!(all.iter().all(|route| back.contains(route)) && back.len() == all.len() + 1, "{back:?}");
}

#[test]
fn of_routes_that_are_as_good_otherwise_that_by_the_nearer_next_hop_is_told() {
    let mut world = world();
    know(&mut world, &[(A, NextHop::Cost(20)), (B, NextHop::Cost(10))]);
    assert_eq!(known(&mut world), [by(B), by(&format!("{A},{B}"))], "who is told all chooses itself");
    assert!(world.learned_text(MIDDLE).contains(&by(B)[0]), "and packets take the nearest way only");
    let before = heard(&mut world);
    know(&mut world, &[(A, NextHop::Cost(30)), (B, NextHop::Cost(10))]);
    assert_eq!(heard(&mut world), before, "as long as the choice is the same nothing is told");
    let lost: Vec<_> = world.speaker(MIDDLE).routes_to(SHARED.parse().unwrap());
    assert_eq!(lost[1].lost_to, Some(Reason::InteriorCost));
    know(&mut world, &[(B, NextHop::Cost(10))]);
    assert_eq!(known(&mut world)[0], by(A));
}

#[test]
fn routes_that_are_kept_while_a_peer_restarts_go_with_their_next_hop_and_come_back_with_it() {
    let mut world = world();
    world.cut(A, MIDDLE);
    world.break_connections(A, MIDDLE);
    world.run_secs(2);
    assert!(!world.is_up(MIDDLE, A));
    assert_eq!(known(&mut world)[0], by(A), "kept");
    let before = heard(&mut world)[2];
    know(&mut world, &[(A, NextHop::Unreachable)]);
    assert_eq!(known(&mut world), [by(B), by(B)]);
    assert_eq!(heard(&mut world)[2] - before, 2);
    know(&mut world, &[]);
    assert_eq!(known(&mut world)[0], by(A));
    know(&mut world, &[(A, NextHop::Unreachable)]);
    let before = heard(&mut world)[2];
    world.run_secs(300);
    assert_eq!(known(&mut world), [by(B), by(B)]);
    assert_eq!(
        heard(&mut world)[2],
        before,
        "what was withdrawn is not withdrawn again when its time is over"
    );
}
