//! The two readers of policy agree.

use calico_policy::ruleset::SetKind;
use calico_policy::{Layout, Outcome, Ruleset, compile, compile_in, evaluate, simulate, strategies};
use proptest::prelude::*;

/// How many worlds are tried, unless `PROPTEST_CASES` says otherwise.
const WORLDS: u32 = 1_000;
const PACKETS: usize = 40;

fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(WORLDS),
        max_shrink_iters: 3_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_packet_of_every_world_has_one_verdict(
        (world, packets) in strategies::world()
            .prop_flat_map(|world| (strategies::packets(&world, PACKETS), Just(world)))
            .prop_map(|(packets, world)| (world, packets)),
    ) {
        let ruleset = compile(&world, &strategies::NODE.parse().unwrap());
        for packet in packets {
            let trace = evaluate(&world, &packet);
            prop_assert_eq!(simulate(&ruleset, &packet), trace.outcome, "{}\n{}\n{}", &packet, &trace, &ruleset);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases / 5, ..config() })]

    #[test]
    fn pe26_rules_that_are_merged_and_dispatched_decide_as_they_are_written(
        (world, packets) in prop_oneof![1 => strategies::world().boxed(), 4 => strategies::crowded_world().boxed()]
            .prop_flat_map(|world| (strategies::packets(&world, PACKETS), Just(world)))
            .prop_map(|(packets, world)| (world, packets)),
    ) {
        let node = strategies::NODE.parse().unwrap();
        let optimised = compile_in(Layout::Optimised, &world, &node);
        let written = compile_in(Layout::AsWritten, &world, &node);
        for packet in packets {
            let (optimised, meant) = (simulate(&optimised, &packet), simulate(&written, &packet));
            prop_assert_eq!(optimised, meant, "{}\n{}", &packet, &written);
            prop_assert_eq!(meant, evaluate(&world, &packet).outcome, "{}", &packet);
        }
    }
}

#[test]
fn crowded_worlds_are_merged_and_dispatched() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let node = strategies::NODE.parse().unwrap();
    let longest =
        |ruleset: &Ruleset| ruleset.chains.values().map(|chain| chain.rules.len()).max().unwrap_or(0);
    let (mut before, mut after, mut dispatches, mut flows) = (0, 0, 0, 0);
    for _ in 0..20 {
        let world = strategies::crowded_world().new_tree(&mut runner).unwrap().current();
        before += longest(&compile_in(Layout::AsWritten, &world, &node));
        let optimised = compile(&world, &node);
        after += longest(&optimised);
        let of_flows = |kind| matches!(kind, SetKind::Flow(_));
        flows += optimised.sets.values().filter(|set| of_flows(set.kind)).count();
        dispatches += optimised.maps.values().filter(|map| map.kind == SetKind::ProtocolPort).count();
    }
    assert!(
        after * 5 < before * 4 && dispatches > 5 && flows > 3,
        "chains of {before} rules became {after}, with {dispatches} dispatches and {flows} sets of flows"
    );
}

#[test]
fn worlds_are_worth_their_while() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let (mut allowed, mut dropped, mut rejected, mut masqueraded) = (0, 0, 0, 0);
    for _ in 0..200 {
        let world = strategies::world().new_tree(&mut runner).unwrap().current();
        let packets = strategies::packets(&world, 20).new_tree(&mut runner).unwrap().current();
        for packet in packets {
            match evaluate(&world, &packet).outcome {
                Outcome::ALLOWED => allowed += 1,
                Outcome::DROPPED => dropped += 1,
                Outcome::REJECTED => rejected += 1,
                _ => masqueraded += 1,
            }
        }
    }
    assert!(
        allowed > 800 && dropped > 800 && rejected > 100 && masqueraded > 30,
        "{allowed} {dropped} {rejected} {masqueraded}"
    );
}
