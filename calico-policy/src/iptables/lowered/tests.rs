//! The rules that were followed are those of a fresh lowering, whatever the way.

use calico_model::resource::felix::AllowAction;
use calico_model::{Snapshot, Update};
use proptest::prelude::*;

use super::super::program::Rules;
use super::super::{Insertion, Marks, Options};
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

fn options() -> impl Strategy<Value = Options> {
    let marks = prop_oneof![Just(Marks::default()), any::<u32>().prop_filter_map("four bits", Marks::of)];
    let allow = || prop_oneof![2 => Just(AllowAction::Accept), 1 => Just(AllowAction::Return)];
    let prefixes = ["cali", "tap"].map(|prefix| prefix.parse().expect("a constant name")).to_vec();
    let by_others = proptest::sample::subsequence(prefixes, 0..=2);
    let insertion = prop_oneof![Just(Insertion::First), Just(Insertion::Last)];
    (marks, allow(), allow(), by_others, insertion).prop_map(
        |(marks, filter_allow, mangle_allow, to_host_by_others, insertion)| Options {
            marks,
            filter_allow,
            mangle_allow,
            to_host_by_others,
            insertion,
        },
    )
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
        // How many steps each is asked for.
        asked in proptest::collection::vec((options(), 1..8usize), 1..4),
    ) {
        let mut options = &asked[0].0;
        let mut asked = asked.iter().flat_map(|(options, steps)| std::iter::repeat_n(options, *steps)).cycle();
        let mut compiler = Compiler::new(strategies::NODE.parse().expect("a constant name"));
        let mut lowered = Lowered::of(compiler.ruleset(), options);
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
                options = asked.next().unwrap_or(options);
                let (before, after) = lowered.change(&delta, compiler.ruleset(), options);
                let whole = Lowered::of(compiler.ruleset(), options);
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
