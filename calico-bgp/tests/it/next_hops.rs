//! Next hops that can be reached or not: what is chosen, what is told, and that each change is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use calico_bgp::decision::{NextHop, NextHops, Reachability, Reason};
use calico_bgp::family::FamilySet;
use calico_bgp::speaker::Reflection;
use calico_bgp::wire::open::AddPath;
use calico_bgp::{Origination, Start};

use crate::world::{Dice, World, ip};

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
    world.speaker(MIDDLE).set_reachability(Some(next_hops.into()), now);
    world.run_secs(1);
}

/// How many UPDATE messages each of these has had.
fn heard(world: &mut World) -> [u64; 4] {
    [A, B, C, D].map(|at| heard_by(world, at))
}

fn heard_by(world: &mut World, at: &str) -> u64 {
    world.speaker(at).status()[0].counters.updates_in
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

/// Has the middle judge next hops by a machine that has these on its links, and no routes.
fn on_link(world: &mut World, addresses: &[&str]) {
    let addresses: BTreeSet<IpAddr> = addresses.iter().map(|address| ip(address)).collect();
    let way = move |hop| if addresses.contains(&hop) { NextHop::ON_LINK } else { NextHop::Unreachable };
    let now = world.now;
    world.speaker(MIDDLE).set_reachability(Some(Reachability::new(way)), now);
    world.run_secs(1);
}

/// Has a speaker tell of prefixes by way of next hops.
fn originate(world: &mut World, at: &str, routes: &[(&str, &str)]) {
    let by = |hop: &str| {
        let mut how = Origination::default();
        how.next_hop = Some(ip(hop));
        how
    };
    let routes = routes.iter().map(|(prefix, hop)| (prefix.parse().unwrap(), by(hop))).collect();
    let now = world.now;
    world.speaker(at).set_originated(routes, now);
    world.run_secs(1);
}

/// What C has heard of all but the shared prefix.
fn rest(world: &mut World) -> Vec<String> {
    world.learned_text(C).into_iter().filter(|text| !text.starts_with(SHARED)).collect()
}

const FAR: &str = "10.0.0.2";
const FARTHER: &str = "10.0.0.3";
const BLOCK: &str = "192.168.7.0/26";

#[test]
fn a_next_hop_can_be_reached_where_any_path_that_covers_it_leads_by_the_machines_own_routes() {
    let mut world = world();
    on_link(&mut world, &[A, B]);
    originate(&mut world, A, &[(BLOCK, FAR)]);
    originate(&mut world, B, &[]);
    assert_eq!(rest(&mut world), [] as [&str; 0]);
    let before = heard(&mut world);
    for cover in ["10.0.0.2/32", "10.0.0.0/24", "0.0.0.0/0"] {
        originate(&mut world, B, &[(cover, B)]);
        let mut both = [format!("{cover} via {B}"), format!("{BLOCK} via {FAR}")];
        both.sort();
        assert_eq!(rest(&mut world), both);
        originate(&mut world, B, &[]);
        assert_eq!(rest(&mut world), [] as [&str; 0], "{cover}");
    }
    // The route that comes and the one that it lets through, and the withdrawal of both, each three times.
    assert_eq!(heard(&mut world)[2] - before[2], 12);

    // One that is not chosen leads as well: the choice is A's, whose identifier is lower.
    originate(&mut world, B, &[("10.0.0.0/24", B)]);
    originate(&mut world, A, &[(BLOCK, FAR), ("10.0.0.0/24", A)]);
    assert!(rest(&mut world).contains(&format!("10.0.0.0/24 via {A}")));
    on_link(&mut world, &[B]);
    assert_eq!(rest(&mut world), [format!("10.0.0.0/24 via {B}"), format!("{BLOCK} via {FAR}")]);
    on_link(&mut world, &[A, B]);
    let known = rest(&mut world);
    originate(&mut world, B, &[]);
    assert_eq!(rest(&mut world), known);

    // Two steps are one too many, and round in a circle there is no way.
    originate(&mut world, A, &[(BLOCK, FAR), ("10.0.0.2/32", FARTHER), ("10.0.0.3/32", A)]);
    assert_eq!(rest(&mut world), [format!("10.0.0.2/32 via {FARTHER}"), format!("10.0.0.3/32 via {A}")]);
    originate(&mut world, A, &[(BLOCK, FAR), ("10.0.0.2/32", FARTHER), ("10.0.0.3/32", FAR)]);
    assert_eq!(rest(&mut world), [] as [&str; 0]);
}

#[test]
fn a_path_is_told_only_when_it_is_known_that_its_next_hop_can_be_reached() {
    let mut world = world();
    on_link(&mut world, &[A]);
    assert_eq!(known(&mut world), [by(A), by(A)]);
    let before = heard(&mut world);
    originate(&mut world, B, &[(SHARED, B), (BLOCK, B), ("192.168.9.0/26", FAR)]);
    assert_eq!(heard(&mut world), before);
    assert_eq!(world.learned_text(MIDDLE).len(), 2, "and nothing is chosen");
    let paths = world.speaker(MIDDLE).routes_to(BLOCK.parse().unwrap());
    assert_eq!((paths.len(), paths[0].lost_to), (1, Some(Reason::Unreachable)));
    // A nearer one, a farther one, and the same again.
    on_link(&mut world, &[A, B]);
    let near = heard(&mut world);
    on_link(&mut world, &[A, B]);
    assert_eq!(heard(&mut world), near);
    let now = world.now;
    world.speaker(MIDDLE).set_reachability(None, now);
    world.run_secs(1);
    assert!(rest(&mut world).contains(&format!("192.168.9.0/26 via {FAR}")), "nobody says anything");
}

#[test]
fn what_leads_to_next_hops_is_heard_out_before_a_speaker_that_recovers_chooses() {
    let mut world = world();
    originate(&mut world, A, &[(BLOCK, FAR)]);
    originate(&mut world, B, &[("10.0.0.0/24", B)]);
    on_link(&mut world, &[A, B]);
    let whole = world.learned_text(MIDDLE);
    assert_eq!(whole, [format!("10.0.0.0/24 via {B}"), format!("{BLOCK} via {FAR}")]);
    world.restart(MIDDLE, Start::Recovering);
    world.cut(MIDDLE, B);
    world.originate(MIDDLE, &[]);
    on_link(&mut world, &[A, B]);
    world.run_secs(5);
    assert_eq!(world.speaker(MIDDLE).learned(), None, "it waits for B");
    world.mend(MIDDLE, B);
    let before = heard(&mut world)[2];
    while world.speaker(MIDDLE).learned().is_none() {
        world.run(Duration::from_millis(1));
    }
    assert_eq!(world.learned_text(MIDDLE), whole);
    for _ in 0..2000 {
        // C drops what it was not told by the end of everything.
        assert_eq!(rest(&mut world), whole);
        world.run(Duration::from_millis(1));
    }
    assert_eq!(heard(&mut world)[2] - before, 3, "one for each, the end, and nothing is taken back");
}

#[test]
fn another_address_of_ours_for_routes_of_the_other_family_is_told_at_once_on_the_same_session() {
    const BLOCK: &str = "fd00:7::/64";
    let mut world = World::new();
    [(A, 64512), (B, 64513)].into_iter().for_each(|(address, local_as)| world.add(address, local_as));
    world.join_with(A, B, |peer| peer.families = FamilySet::BOTH);
    world.originate(A, &[BLOCK, "192.168.0.0/26"]);
    world.run_secs(2);
    let v4 = format!("192.168.0.0/26 via {A}");
    assert_eq!(world.learned_text(B), [&*v4]);
    for address in [Some("fd00::1"), Some("fd00::2"), None, Some("fd00::1")] {
        let mut peers = world.peers_of(A);
        peers[0].other_next_hop = address.map(ip);
        world.set_peers(A, peers);
        let before = heard_by(&mut world, B);
        world.run_secs(1);
        let v6 = address.map(|address| format!("{BLOCK} via {address}"));
        let known: Vec<String> = [v4.clone()].into_iter().chain(v6).collect();
        assert_eq!(world.learned_text(B), known);
        assert_eq!(heard_by(&mut world, B) - before, 1, "that and nothing else");
    }
    assert_eq!(world.speaker(B).status()[0].counters.established, 1);
}

/// The next hops of the destinations to which no path is chosen, by what is told of each path.
fn unreached(world: &mut World) -> BTreeSet<IpAddr> {
    let routes = world.speaker(MIDDLE).routes();
    let chosen: BTreeSet<_> =
        routes.iter().filter(|route| route.lost_to.is_none()).map(|route| route.prefix).collect();
    let without = routes.iter().filter(|route| !chosen.contains(&route.prefix));
    without.map(|route| route.attributes.next_hop).collect()
}

#[test]
fn which_next_hops_are_out_of_reach_is_found_again_only_after_a_change_that_may_matter() {
    let mut world = world();
    on_link(&mut world, &[A]);
    originate(&mut world, A, &[]);
    originate(&mut world, B, &[("10.7.0.0/16", FAR)]);
    let found = world.speaker(MIDDLE).unreached();
    assert_eq!(*found, [ip(FAR)].into());
    for routes in [&[("10.8.0.0/16", A)][..], &[("10.8.0.0/16", A), (BLOCK, A)], &[]] {
        originate(&mut world, A, routes);
        assert!(Arc::ptr_eq(&found, &world.speaker(MIDDLE).unreached()), "{routes:?}");
    }
    originate(&mut world, B, &[("10.7.0.0/16", FAR), ("10.8.0.0/16", FARTHER)]);
    assert_eq!(*world.speaker(MIDDLE).unreached(), [ip(FAR), ip(FARTHER)].into());
    originate(&mut world, A, &[("10.7.0.0/16", A)]);
    assert_eq!(*world.speaker(MIDDLE).unreached(), [ip(FARTHER)].into());
    originate(&mut world, B, &[]);
    assert_eq!(*world.speaker(MIDDLE).unreached(), BTreeSet::new());
}

/// Whatever comes and goes, what is known of next hops is what it would be if all were asked about now.
#[test]
fn asked_as_it_changes_is_the_same_as_asked_at_once() {
    let prefixes = [SHARED, BLOCK, "10.0.0.0/24", "10.0.0.2/32", "10.0.0.3/32", "0.0.0.0/0", "172.16.6.0/24"];
    let hops = [A, B, FAR, FARTHER, "169.254.0.1"];
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let mut world = world();
        let mut near = vec![A];
        for turn in 0..12 {
            match dice.roll(4) {
                0 => {
                    near = [A, B, FARTHER].into_iter().filter(|_| dice.roll(2) == 0).collect();
                    on_link(&mut world, &near);
                }
                _ => {
                    let count = dice.roll(5);
                    let routes: BTreeMap<&str, &str> =
                        (0..count).map(|_| (*dice.pick(&prefixes), *dice.pick(&hops))).collect();
                    let routes: Vec<(&str, &str)> = routes.into_iter().collect();
                    originate(&mut world, if dice.roll(2) == 0 { A } else { B }, &routes);
                }
            }
            if turn == 0 {
                on_link(&mut world, &near);
            }
            let state = |world: &mut World| {
                let learned = [MIDDLE, C, D].map(|at| world.learned_text(at));
                (learned, heard(world), world.speaker(MIDDLE).routes())
            };
            assert_eq!(*world.speaker(MIDDLE).unreached(), unreached(&mut world), "seed {seed}, turn {turn}");
            let before = state(&mut world);
            on_link(&mut world, &near);
            assert_eq!(state(&mut world), before, "seed {seed}, turn {turn}");
        }
    }
}
