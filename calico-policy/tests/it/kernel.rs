//! The kernel takes what is compiled, gives it back, and is mended when somebody else changes it.

use calico_model::Snapshot;
use calico_policy::nft::{Actual, Nft, Transaction, plan, plan_change};
use calico_policy::{Changes, Compiler, Ruleset, compile, strategies};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::golden;
use crate::netns::Namespace;

/// Any worlds, always the same.
fn rulesets(count: usize) -> Vec<Ruleset> {
    let mut runner = TestRunner::deterministic();
    let node = strategies::NODE.parse().unwrap();
    let world = prop_oneof![3 => strategies::world().boxed(), 1 => strategies::crowded_world().boxed()];
    let mut world = || world.new_tree(&mut runner).unwrap().current();
    (0..count).map(|_| compile(&world(), &node)).collect()
}

#[test]
fn every_ruleset_is_taken_and_read_back_and_then_left_alone() {
    let namespace = Namespace::new("apply");
    namespace.within(|| {
        let mut nft = Nft::new();
        for ruleset in rulesets(60) {
            let transaction = plan(&ruleset, &nft.read().unwrap());
            nft.apply(&transaction).unwrap_or_else(|error| panic!("{error}\n{transaction}"));
            let again = plan(&ruleset, &nft.read().unwrap());
            assert!(again.is_empty(), "wrote\n{transaction}\nand would write\n{again}");
            assert_eq!(nft.read().unwrap(), Actual::holding(&ruleset));
        }
        nft.apply(&Transaction::removal()).unwrap();
        assert_eq!(nft.read().unwrap().table, None);
    });
}

#[test]
fn the_kernel_follows_the_compiler_change_by_change() {
    let namespace = Namespace::new("follow");
    namespace.within(|| {
        let mut runner = TestRunner::deterministic();
        let mut nft = Nft::new();
        let mut compiler = Compiler::new(strategies::NODE.parse().unwrap());
        assert_eq!(compiler.changes(), Changes::Everything);
        nft.sync(compiler.ruleset()).unwrap();
        let mut before = Snapshot::default();
        let worlds = prop_oneof![3 => strategies::world().boxed(), 1 => strategies::crowded_world().boxed()];
        for _ in 0..20 {
            let world = worlds.new_tree(&mut runner).unwrap().current();
            for updates in strategies::updates(&before, &world).chunks(4) {
                updates.iter().for_each(|update| compiler.apply(update.clone()));
                let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
                let change = plan_change(&delta);
                nft.apply(&change).unwrap_or_else(|error| panic!("{error}\n{change}"));
                assert_eq!(nft.read().unwrap(), Actual::holding(compiler.ruleset()), "{change}");
            }
            before = world;
        }
    });
}

#[test]
fn what_the_kernel_holds_is_what_the_text_says() {
    let (ours, theirs) = (Namespace::new("netlink"), Namespace::new("text"));
    let mut rulesets = rulesets(40);
    rulesets.push(compile(&golden::world("database"), &"node-1".parse().unwrap()));
    for ruleset in rulesets {
        let transaction = plan(&ruleset, &Actual::default());
        ours.within(|| Nft::new().apply(&transaction)).unwrap();
        theirs.exec_with("nft -f -", &transaction.to_string());
        let list = |namespace: &Namespace| namespace.exec("nft list table inet calico");
        let (ours_listed, theirs_listed) = (list(&ours), list(&theirs));
        for (ours, theirs) in ours_listed.lines().zip(theirs_listed.lines()) {
            assert_eq!(ours, theirs, "{transaction}");
        }
        assert_eq!(ours_listed.lines().count(), theirs_listed.lines().count());
        let read = |namespace: &Namespace| namespace.within(|| Nft::new().read()).unwrap();
        assert_eq!(read(&ours), read(&theirs));
        for namespace in [&ours, &theirs] {
            namespace.within(|| Nft::new().apply(&Transaction::removal())).unwrap();
        }
    }
}

#[test]
fn rel06_pe98_whatever_somebody_else_changes_is_found_and_mended() {
    let namespace = Namespace::new("drift");
    let ruleset = compile(&golden::world("database"), &"node-1".parse().unwrap());
    namespace.within(|| {
        let mut nft = Nft::new();
        nft.sync(&ruleset).unwrap();
        let before = namespace.exec("nft list table inet calico");
        let changes = [
            "nft delete table inet calico",
            "nft add table inet calico { flags dormant; }",
            "nft flush chain inet calico cali-source",
            "nft insert rule inet calico cali-forward-to accept",
            "nft add rule inet calico cali-workload-source accept",
            "nft add chain inet calico foreign",
            "nft add chain inet calico foreign { type filter hook input priority 5; policy drop; }",
            "nft add set inet calico foreign { type mark; }",
            "nft add map inet calico foreign { type mark : verdict; }",
            "nft add element inet calico cali-workloads { cali999 }",
            "nft add element inet calico cali-sources-v4 { cali999 . 1.2.3.4 }",
            "nft flush set inet calico cali-sources-v4",
            "nft flush map inet calico cali-from-workload",
            "nft add chain inet calico cali-input-host { policy drop; }",
            "nft add element inet calico cali-from-workload { cali999 : drop }",
        ];
        for change in changes {
            namespace.exec(change);
            let mended = nft.sync(&ruleset).unwrap();
            assert!(!mended.is_empty(), "not seen: {change}");
            assert_eq!(namespace.exec("nft list table inet calico"), before, "{change}\n{mended}");
        }
    });
}

#[test]
fn pe80_tables_of_others_are_neither_read_nor_touched() {
    let namespace = Namespace::new("foreign");
    namespace.within(|| {
        namespace.exec("nft add table inet other");
        namespace.exec("nft add chain inet other odd { type filter hook forward priority 0; policy drop; }");
        namespace.exec("nft add table ip calico");
        let before = namespace.exec("nft list ruleset");
        let mut nft = Nft::new();
        for ruleset in rulesets(3) {
            nft.sync(&ruleset).unwrap();
        }
        nft.apply(&Transaction::removal()).unwrap();
        assert_eq!(namespace.exec("nft list ruleset"), before);
    });
}
