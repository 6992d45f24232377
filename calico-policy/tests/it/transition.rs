//! Between the old rules and the new there is nothing else.

use std::collections::BTreeMap;

use calico_model::Snapshot;
use calico_policy::nft::{Actual, Operation, plan, plan_change};
use calico_policy::ruleset::{Chain, Elements, Set, VerdictMap};
use calico_policy::{Changes, Compiler, Ruleset, compile, simulate, strategies};
use proptest::prelude::*;

use crate::golden;

/// Makes in a ruleset what an operation makes in the kernel.
fn make(operation: &Operation, ruleset: &mut Ruleset) {
    let Ruleset { sets, maps, chains, .. } = ruleset;
    match operation {
        Operation::AddTable | Operation::Settle => {}
        Operation::AddSet(name, kind, _) => {
            sets.entry(name.clone()).or_insert_with(|| Set { kind: *kind, elements: Elements::new() });
        }
        Operation::AddElements(name, new) => {
            sets.get_mut(name).unwrap().elements.extend(new.iter().cloned());
        }
        Operation::DeleteElements(name, gone) => {
            sets.get_mut(name).unwrap().elements.retain(|element| !gone.contains(element));
        }
        Operation::DeleteSet(name) => drop(sets.remove(name).unwrap()),
        Operation::AddMap(name, kind) => {
            let was = maps.insert(name.clone(), VerdictMap { kind: *kind, elements: BTreeMap::new() });
            assert!(was.is_none(), "{name} is there");
        }
        Operation::AddMapElements(name, new) => {
            maps.get_mut(name).unwrap().elements.extend(new.elements.clone());
        }
        Operation::DeleteMapElements(name, gone) => {
            maps.get_mut(name).unwrap().elements.retain(|key, _| !gone.contains(key));
        }
        Operation::DeleteMap(name) => drop(maps.remove(name).unwrap()),
        Operation::AddChain(name, base) => {
            chains.insert(name.clone(), Chain { base: *base, rules: Vec::new() });
        }
        Operation::FlushChain(name) => chains.get_mut(name).unwrap().rules.clear(),
        Operation::AddRule(name, rule) => chains.get_mut(name).unwrap().rules.push(rule.clone()),
        Operation::DeleteChain(name) => drop(chains.remove(name).unwrap()),
        Operation::DeleteTable | Operation::FlushSet(_) => panic!("no change needs this: {operation}"),
    }
}

#[test]
fn what_asks_at_another_hook_is_there_before_what_it_replaces_goes() {
    let whole = compile(&golden::world("database"), &"node-1".parse().unwrap());
    let without = |name: &str| {
        let mut ruleset = whole.clone();
        ruleset.chains.retain(|chain, _| chain.as_str() != name);
        ruleset
    };
    let (old, new) = ("cali-forward-to", "cali-egress");
    let transaction = plan(&without(old), &Actual::holding(&without(new)));
    let parts: Vec<&[Operation]> = transaction.parts().collect();
    let part_with =
        |wanted: &dyn Fn(&Operation) -> bool| parts.iter().position(|part| part.iter().any(wanted)).unwrap();
    let made =
        part_with(&|operation| matches!(operation, Operation::AddChain(chain, _) if chain.as_str() == new));
    let gone =
        part_with(&|operation| matches!(operation, Operation::DeleteChain(chain) if chain.as_str() == old));
    assert!(made < gone, "{transaction}");
}

/// How many ways are tried, unless `PROPTEST_CASES` says otherwise.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn pe93_whatever_changes_at_once_a_packet_meets_the_old_rules_or_the_new(
        step in 1..4usize,
        (worlds, packets) in prop_oneof![3 => strategies::world().boxed(), 1 => strategies::crowded_world().boxed()]
            .prop_flat_map(|world| {
                let other = prop_oneof![strategies::world().boxed(), strategies::crowded_world().boxed()];
                (other, strategies::packets(&world, 60), Just(world))
            })
            .prop_map(|(other, packets, world)| ([world, other], packets)),
    ) {
        let mut compiler = Compiler::new(strategies::NODE.parse().unwrap());
        let mut ruleset = compiler.ruleset().clone();
        assert_eq!(compiler.changes(), Changes::Everything);
        let mut was = Snapshot::default();
        for world in worlds {
            for updates in strategies::updates(&was, &world).chunks(step) {
                updates.iter().for_each(|update| compiler.apply(update.clone()));
                let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
                let before = ruleset.clone();
                let transaction = plan_change(&delta);
                let parts: Vec<&[Operation]> = transaction.operations.split(|o| *o == Operation::Settle).collect();
                for part in &parts {
                    part.iter().for_each(|operation| make(operation, &mut ruleset));
                    if parts.len() == 1 {
                        continue;
                    }
                    for packet in &packets {
                        let met = simulate(&ruleset, packet);
                        let allowed = [simulate(&before, packet), simulate(compiler.ruleset(), packet)];
                        prop_assert!(allowed.contains(&met), "{updates:?}\n{packet}: {met} is neither of {allowed:?}\n{transaction}");
                    }
                }
                ruleset.warnings.clone_from(&compiler.ruleset().warnings);
                prop_assert_eq!(&ruleset, compiler.ruleset());
            }
            was = world;
        }
    }
}
