//! The rules that were followed are those of a fresh lowering, whatever the way.

use calico_model::{Snapshot, Update};
use proptest::prelude::*;

use super::super::Options;
use super::super::program::Rules;
use super::Lowered;
use crate::{Changes, Compiler, strategies};

/// Makes in a copy of the rules what is said to have changed.
fn follow(copy: &mut Rules, before: &Rules, after: &Rules) {
    for (key, table) in &before.tables {
        let chains = &mut copy.tables.get_mut(key).expect("a table that was there").chains;
        for (name, rules) in &table.chains {
            assert_eq!(chains.remove(name).as_ref(), Some(rules), "{name} was another");
        }
    }
    for (key, table) in &after.tables {
        copy.tables.get_mut(key).expect("a table that was there").chains.extend(table.chains.clone());
    }
    before.sets.keys().for_each(|name| drop(copy.sets.remove(name)));
    copy.sets.extend(after.sets.clone());
}

/// How many ways are tried, unless `PROPTEST_CASES` says otherwise.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, max_shrink_iters: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn rules_that_follow_a_ruleset_are_those_of_a_fresh_lowering_after_every_step(
        worlds in proptest::collection::vec(prop_oneof![3 => strategies::world().boxed(), 1 => strategies::crowded_world().boxed()], 1..4),
        step in 1..6usize,
        backwards: bool,
    ) {
        let options = Options::default();
        let mut compiler = Compiler::new(strategies::NODE.parse().expect("a constant name"));
        let mut lowered = Lowered::of(compiler.ruleset(), &options);
        let _ = compiler.changes();
        let mut copy = lowered.rules.clone();
        let mut was = Snapshot::default();
        for world in worlds.iter().chain([&Snapshot::default()]) {
            let mut updates: Vec<Update> = strategies::updates(&was, world);
            if backwards {
                updates.reverse();
            }
            for piece in updates.chunks(step) {
                piece.iter().for_each(|update| compiler.apply(update.clone()));
                let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
                let (before, after) = lowered.change(&delta, compiler.ruleset(), &options);
                let whole = Lowered::of(compiler.ruleset(), &options);
                prop_assert_eq!(&lowered.rules, &whole.rules, "after {:?}", &delta);
                prop_assert_eq!(lowered.looked_at.len(), lowered.rules.sets.len());
                if before.tables.values().all(|table| table.hooks.is_empty()) {
                    follow(&mut copy, &before, &after);
                    prop_assert_eq!(&copy, &whole.rules, "what is told is not what changed");
                } else {
                    copy = after;
                }
            }
            was = world.clone();
        }
    }
}
