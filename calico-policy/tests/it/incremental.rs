//! Whatever the way to a state, the compiler ends where a fresh compilation does, and its deltas tell the way.

use calico_model::{NodeName, Snapshot, Update};
use calico_policy::{Changes, Compiler, Delta, Ruleset, compile, simulate, strategies};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

fn node() -> NodeName {
    strategies::NODE.parse().unwrap()
}

/// A compiler, and a copy of its ruleset that knows nothing but what it was told.
struct Followed {
    compiler: Compiler,
    copy: Ruleset,
}

impl Followed {
    fn new() -> Self {
        let mut compiler = Compiler::new(node());
        assert_eq!(compiler.changes(), Changes::Everything);
        let copy = compiler.ruleset().clone();
        Self { compiler, copy }
    }

    /// Applies updates, then looks.
    fn apply(&mut self, updates: &[Update]) -> Result<(), TestCaseError> {
        updates.iter().for_each(|update| self.compiler.apply(update.clone()));
        let Changes::Only(delta) = self.compiler.changes() else { panic!("it was asked before") };
        let ruleset = self.compiler.ruleset().clone();
        prop_assert_eq!(&delta, &Delta::between(&self.copy, &ruleset), "not what two rulesets differ in");
        delta.apply_to(&mut self.copy);
        prop_assert_eq!(&self.copy, &ruleset, "the delta lies:\n{:?}", &delta);
        let whole = compile(self.compiler.snapshot(), &node());
        prop_assert_eq!(&ruleset, &whole, "after {:?}\n{}\nis not\n{}", updates, &ruleset, &whole);
        let Changes::Only(nothing) = self.compiler.changes() else { panic!("it was asked before") };
        prop_assert!(nothing.is_empty());
        Ok(())
    }
}

/// The ways through some worlds: by small steps or large ones, straight on or with detours.
fn worlds() -> impl Strategy<Value = (Vec<Snapshot>, usize, u64)> {
    let world = prop_oneof![3 => strategies::world().boxed(), 1 => strategies::crowded_world().boxed()];
    (proptest::collection::vec(world, 1..4), 1..8usize, any::<u64>())
}

/// How many ways are tried, unless `PROPTEST_CASES` says otherwise.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(25)
}

/// Puts a list into another order, always the same for one seed.
fn shuffled(mut updates: Vec<Update>, mut seed: u64) -> Vec<Update> {
    for i in (1..updates.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        updates.swap(i, (seed >> 33) as usize % (i + 1));
    }
    updates
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_the_same_updates_ends_where_a_fresh_compilation_does((worlds, step, seed) in worlds()) {
        let mut followed = Followed::new();
        let mut before = Snapshot::default();
        for world in &worlds {
            let updates = shuffled(strategies::updates(&before, world), seed);
            for piece in updates.chunks(step) {
                followed.apply(piece)?;
                followed.apply(&[])?;
            }
            before = world.clone();
        }
        let ends = |updates: Vec<Update>| {
            let mut compiler = Compiler::new(node());
            updates.into_iter().for_each(|update| compiler.apply(update));
            compiler.ruleset().clone()
        };
        let last = worlds.last().expect("there is one");
        let mut all = strategies::updates(&Snapshot::default(), last);
        prop_assert_eq!(&followed.copy, &ends(all.clone()), "squashed");
        all.reverse();
        prop_assert_eq!(&followed.copy, &ends(all), "reversed");
        followed.apply(&strategies::updates(&before, &Snapshot::default()))?;
        prop_assert_eq!(&followed.copy, &compile(&Snapshot::default(), &node()), "everything taken away");
    }
}

#[test]
fn an_update_of_nothing_that_rules_use_changes_nothing() {
    use proptest::strategy::ValueTree;

    let mut runner = TestRunner::deterministic();
    for _ in 0..50 {
        let world = strategies::world().new_tree(&mut runner).unwrap().current();
        let mut followed = Followed::new();
        followed.apply(&strategies::updates(&Snapshot::default(), &world)).unwrap();
        for update in strategies::updates(&Snapshot::default(), &world) {
            followed.compiler.apply(update);
            let Changes::Only(delta) = followed.compiler.changes() else { panic!("it was asked before") };
            assert!(delta.is_empty(), "the same again: {delta:?}");
        }
        let packets = strategies::packets(&world, 5).new_tree(&mut runner).unwrap().current();
        for packet in packets {
            let ruleset = compile(&world, &node());
            assert_eq!(simulate(followed.compiler.ruleset(), &packet), simulate(&ruleset, &packet));
        }
    }
}
