//! What is said to change is what changes.

use std::net::IpAddr;

use calico_model::{Snapshot, Update};
use calico_policy::compare::Who;
use calico_policy::{Comparison, Packet, Transport, Verdict, compare, evaluate, strategies, way};
use proptest::prelude::*;

/// How many pairs of worlds are tried, unless `PROPTEST_CASES` says otherwise.
const PAIRS: u32 = 40;

fn verdict(world: &Snapshot, source: IpAddr, destination: IpAddr, transport: Transport) -> Verdict {
    let way = way(world, source, destination, transport, &"eth0".parse().unwrap());
    let denied = way.iter().any(|packet| evaluate(world, packet).outcome.verdict == Verdict::Deny);
    if denied { Verdict::Deny } else { Verdict::Allow }
}

/// A world, the same after some of the changes towards another one, and packets of both.
fn changed() -> impl Strategy<Value = (Snapshot, Snapshot, Vec<Packet>)> {
    (strategies::world(), strategies::world(), 1..12usize).prop_flat_map(|(before, other, many)| {
        let updates = strategies::updates(&before, &other);
        let some = proptest::sample::subsequence(updates.clone(), 0..=many.min(updates.len()));
        some.prop_flat_map(move |updates: Vec<Update>| {
            let mut after = before.clone();
            updates.into_iter().for_each(|update| after.apply(update));
            let packets = (strategies::packets(&before, 25), strategies::packets(&after, 25));
            (Just(before.clone()), Just(after), packets.prop_map(|(a, b)| [a, b].concat()))
        })
    })
}

/// Both ends of all packets, each with each, so that those of different packets are tried together too.
fn ends(packets: &[Packet]) -> Vec<(IpAddr, IpAddr, Transport)> {
    let mut ends = Vec::new();
    for (i, packet) in packets.iter().enumerate() {
        let other = &packets[(i + 1) % packets.len()];
        for (source, destination) in [
            (packet.source, packet.destination),
            (packet.destination, packet.source),
            (packet.source, other.destination),
            (other.source, packet.source),
        ] {
            if source.is_ipv4() == destination.is_ipv4() {
                ends.push((source, destination, packet.transport));
            }
        }
    }
    ends
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(PAIRS),
        max_shrink_iters: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_change_is_told_for_every_packet_whose_verdict_differs_and_for_no_other((before, after, packets) in changed()) {
        let comparison = compare(&before, &after, &"eth0".parse().unwrap());
        for (source, destination, transport) in ends(&packets) {
            let was = verdict(&before, source, destination, transport);
            let is = verdict(&after, source, destination, transport);
            let told = comparison.verdict(source, destination, transport);
            prop_assert_eq!(
                told, (was != is).then_some(is), "{} to {} {:?}: {:?} then {:?}", source, destination, transport, was, is
            );
        }
        for change in &comparison.changes {
            let example = &change.example;
            let ask = |world| verdict(world, example.source, example.destination, example.transport);
            prop_assert_eq!(ask(&after), change.verdict);
            prop_assert_ne!(ask(&before), change.verdict);
        }
    }
}

#[test]
fn changes_are_frequent_enough_to_be_worth_comparing() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut changes, mut none) = (0, 0);
    for _ in 0..120 {
        let (before, after, packets) = changed().new_tree(&mut runner).unwrap().current();
        for (source, destination, transport) in ends(&packets) {
            let is = |world| verdict(world, source, destination, transport);
            if is(&before) == is(&after) { none += 1 } else { changes += 1 }
        }
    }
    assert!(changes > 300 && none > 300, "{changes} {none}");
}

#[test]
fn nothing_changes_between_a_world_and_itself() {
    let world = crate::golden::world("database");
    assert_eq!(compare(&world, &world.clone(), &"eth0".parse().unwrap()).changes, []);
}

#[test]
fn a_rule_for_one_more_port_opens_just_that_to_just_those() {
    let before = crate::golden::world("database");
    let mut after = before.clone();
    let id = before.policies.keys().find(|id| id.name.as_str() == "database").unwrap().clone();
    let mut policy = before.policies[&id].as_ref().clone();
    let mut rule = policy.spec.0.ingress[0].clone();
    rule.source = calico_model::resource::EntityRule::default();
    rule.destination.ports = vec!["8080:8090".parse().unwrap()];
    policy.spec.0.ingress.push(rule);
    after.insert(policy);
    let told: Comparison = compare(&before, &after, &"eth0".parse().unwrap());
    assert!(!told.changes.is_empty());
    for change in &told.changes {
        assert_eq!(change.verdict, Verdict::Allow);
        assert_eq!(change.traffic.iter().map(ToString::to_string).collect::<Vec<_>>(), ["tcp 8080-8090"]);
        let is_db = |who: &Who| matches!(who, Who::Workload(key) if key.id.name.as_str().contains("db"));
        assert!(change.destinations.iter().all(|place| is_db(&place.who)), "{change:?}");
    }
    assert_eq!(told.pairs(Verdict::Deny), 0);
}
