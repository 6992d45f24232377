//! The kernel takes what is compiled, gives it back, and is mended when somebody else changes it.

use calico_model::datastore::Entry;
use calico_model::resource::policy::GlobalPart;
use calico_model::resource::{
    GlobalNetworkPolicy, GlobalNetworkSet, Kind, Object, ObjectId, Policy, PolicyType, ResourceKey, Rule,
    WorkloadEndpoint,
};
use calico_model::{NodeName, Revision, Snapshot, Update};
use calico_policy::nft::{Actual, Foreign, Nft, Operation, Transaction, Watch, plan, plan_change};
use calico_policy::ruleset::{ChainName, SetKind};
use calico_policy::{
    Changes, Compiler, Packet, Path, Ruleset, Transport, Verdict, compile, simulate, strategies,
};
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
fn rel06_what_somebody_else_changes_is_told_even_when_it_looks_like_ours() {
    let namespace = Namespace::new("watch");
    let ruleset = compile(&golden::world("database"), &"node-1".parse().unwrap());
    namespace.within(|| {
        let mut nft = Nft::new();
        let mut watch = Watch::open(&mut nft).unwrap();
        nft.sync(&ruleset).unwrap();
        namespace.exec("nft add table ip calico");
        namespace.exec("nft add table inet other");
        assert_eq!(watch.changes().unwrap(), None, "neither our own changes nor those of other tables");
        let before = namespace.exec("nft list table inet calico");
        let listed = namespace.exec("nft -a list chain inet calico cali-forward-to");
        let last = listed.lines().rev().find(|line| line.contains("handle")).unwrap().trim();
        let (rule, handle) = last.rsplit_once(" # handle ").unwrap();
        let (_, comment) = rule.split_once("comment \"").unwrap();
        let forged =
            format!("replace rule inet calico cali-forward-to handle {handle} accept comment \"{comment}\n");
        namespace.exec_with("nft -f -", &forged);
        assert_ne!(namespace.exec("nft list table inet calico"), before);
        let foreign = watch.changes().unwrap().unwrap();
        let Foreign::Chains(chains) = &foreign else { panic!("there was room") };
        assert!(chains.iter().map(ChainName::as_str).eq(["cali-forward-to"]), "{chains:?}");
        assert!(nft.sync(&ruleset).unwrap().is_empty(), "it looks like ours");
        assert!(!nft.sync_after(Some(&foreign), &ruleset).unwrap().is_empty());
        assert_eq!(namespace.exec("nft list table inet calico"), before);
        assert_eq!(watch.changes().unwrap(), None);
        namespace.exec("nft add element inet calico cali-workloads { cali999 }");
        assert_eq!(watch.changes().unwrap(), Some(Foreign::Chains([].into())));
    });
}

#[test]
fn an_overrun_leads_to_a_new_reading_of_everything() {
    let namespace = Namespace::new("overrun");
    let ruleset = compile(&golden::world("database"), &"node-1".parse().unwrap());
    namespace.within(|| {
        let mut nft = Nft::new();
        let mut watch = Watch::open(&mut nft).unwrap();
        nft.sync(&ruleset).unwrap();
        namespace.exec("nft add set inet calico foreign { type ipv4_addr; }");
        let addresses = |i: u32| (0..20_000).map(move |j| format!("10.{i}.{}.{}", j / 256, j % 256));
        for i in 0..6 {
            let elements = addresses(i).collect::<Vec<_>>().join(", ");
            namespace.exec_with("nft -f -", &format!("add element inet calico foreign {{ {elements} }}\n"));
        }
        assert_eq!(watch.changes().unwrap(), Some(Foreign::Anything));
        nft.sync_after(Some(&Foreign::Anything), &ruleset).unwrap();
        assert!(nft.sync(&ruleset).unwrap().is_empty());
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

/// A stored policy for what is labelled `own`, as the datastore holds it: `port` is written as it is.
fn stored(i: usize, port: &str) -> Update {
    let key = ResourceKey {
        kind: Kind::NetworkPolicy,
        id: ObjectId {
            namespace: Some("default".parse().unwrap()),
            name: format!("default.p{i}").parse().unwrap(),
        },
    };
    let value = format!(
        r#"{{"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
        "metadata": {{"name": "default.p{i}", "namespace": "default"}},
        "spec": {{"selector": "own == '{i}'", "types": ["Ingress"], "ingress": [
            {{"action": "Allow", "protocol": "TCP", "destination": {{"ports": [{port}]}}}}]}}}}"#
    );
    let entry = Entry { key: key.datastore_key(), value: value.into_bytes(), revision: Revision(1) };
    Update::from_entry(&entry).unwrap()
}

#[test]
fn pe96_one_bad_object_of_five_hundred_stops_none_of_the_others() {
    const COUNT: usize = 500;
    let namespace = Namespace::new("poison");
    let node: NodeName = "node-1".parse().unwrap();
    let mut compiler = Compiler::new(node.clone());
    for i in 0..COUNT {
        let mut endpoint = WorkloadEndpoint::on(node.clone());
        // None of these devices exists.
        endpoint.interface_name = Some(format!("cali{i}").parse().unwrap());
        endpoint.ip_networks = vec![format!("10.0.{}.{}", i / 250, i % 250).parse().unwrap()];
        let mut object = Object::new(format!("w{i}").parse().unwrap(), endpoint);
        object.metadata.namespace = Some("default".parse().unwrap());
        object.metadata.labels = [("own".to_owned(), i.to_string())].into_iter().collect();
        compiler.apply(Update::Put(Box::new(object.into())));
    }
    let allows = |ruleset: &Ruleset, i: usize, port: u16| {
        let path = Path::Forward { from: "eth0".parse().unwrap(), to: format!("cali{i}").parse().unwrap() };
        let destination = format!("10.0.{}.{}", i / 250, i % 250).parse().unwrap();
        let source = "192.0.2.1".parse().unwrap();
        let packet = Packet::new(node.clone(), path, source, destination, Transport::tcp(port)).unwrap();
        simulate(ruleset, &packet).verdict == Verdict::Allow
    };
    namespace.within(|| {
        let mut nft = Nft::new();
        assert_eq!(compiler.changes(), Changes::Everything);
        nft.sync(compiler.ruleset()).unwrap();
        // The first is bad from the beginning, another becomes so.
        for (change, bad, port) in [("come", 0, 80), ("change", 7, 81)] {
            for i in 0..COUNT {
                let text = if i == bad { "\"no port: 1-\"".to_owned() } else { port.to_string() };
                compiler.apply(stored(i, &text));
            }
            let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
            nft.apply(&plan_change(&delta)).unwrap_or_else(|error| panic!("{change}: {error}"));
            assert_eq!(nft.read().unwrap(), Actual::holding(compiler.ruleset()), "{change}");
            let in_force = (0..COUNT).filter(|i| allows(compiler.ruleset(), *i, port)).count();
            assert_eq!(in_force, COUNT - 1, "{change}");
            assert_eq!(compiler.snapshot().invalid.len(), 1, "{change}: it is reported");
        }
        assert!(
            !allows(compiler.ruleset(), 7, 81) && allows(compiler.ruleset(), 7, 80),
            "its last good form"
        );
    });
}

#[test]
fn pe96_what_the_kernel_refuses_leaves_what_was_in_force() {
    let namespace = Namespace::new("refused");
    let ruleset = compile(&golden::world("database"), &"node-1".parse().unwrap());
    namespace.within(|| {
        let mut nft = Nft::new();
        nft.sync(&ruleset).unwrap();
        let before = nft.read().unwrap();
        let name = ruleset.chains.keys().next().unwrap().clone();
        let twice =
            Operation::AddSet(ruleset.sets.keys().next().unwrap().clone(), SetKind::ProtocolPort, None);
        let transaction = Transaction { operations: vec![Operation::FlushChain(name), twice] };
        let refused = nft.apply(&transaction).unwrap_err();
        assert!(refused.to_string().contains("the kernel refuses `add set inet calico"), "{refused}");
        assert_eq!(nft.read().unwrap(), before);
    });
}

/// A set of `count` addresses, which a policy of the golden world's database lets in.
fn crowd(count: u16) -> Update {
    let nets = (0..count).map(|i| format!("10.9.{}.{}/32", i >> 8, i & 255).parse().unwrap()).collect();
    let mut crowd = Object::new("crowd".parse().unwrap(), GlobalNetworkSet { nets });
    crowd.metadata.labels = [("crowd".to_owned(), "yes".to_owned())].into_iter().collect();
    Update::Put(Box::new(crowd.into()))
}

#[test]
fn a_large_set_has_a_bound_that_moves_before_it_is_reached() {
    let mut world = golden::world("database");
    let mut policy = Policy::selecting("all()".parse().unwrap(), vec![PolicyType::Ingress]);
    let mut rule = Rule::allow();
    rule.source.selector = Some("crowd == 'yes'".parse().unwrap());
    policy.ingress.push(rule);
    let policy = GlobalNetworkPolicy { policy, global: GlobalPart::plain() };
    world.insert(Object::new("crowd".parse().unwrap(), policy));
    world.apply(crowd(1_200));
    let mut compiler = Compiler::new("node-1".parse().unwrap());
    strategies::updates(&Snapshot::default(), &world).into_iter().for_each(|update| compiler.apply(update));
    let namespace = Namespace::new("bound");
    namespace.within(|| {
        let mut nft = Nft::new();
        assert_eq!(compiler.changes(), Changes::Everything);
        nft.sync(compiler.ruleset()).unwrap();
        let held = |nft: &mut Nft| {
            let sets = nft.read().unwrap().table.unwrap().sets;
            let bounded = sets.into_values().find(|set| set.room.is_some()).unwrap();
            (bounded.room.unwrap(), bounded.elements.unwrap().len())
        };
        assert_eq!(held(&mut nft), (1_536, 1_200));
        for (count, room) in [(1_220, 1_536), (1_500, 3_072), (3_000, 6_144), (1_100, 6_144)] {
            compiler.apply(crowd(count));
            let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
            nft.apply(&plan_change(&delta)).unwrap_or_else(|error| panic!("{count}: {error}"));
            assert_eq!(held(&mut nft), (room, usize::from(count)));
            assert!(nft.sync(compiler.ruleset()).unwrap().is_empty(), "{count}: a fresh process is content");
        }
        // More at once than there is room for: the kernel refuses it, and who reads again has the table replaced.
        compiler.apply(crowd(20_000));
        let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
        let refused = nft.apply(&plan_change(&delta));
        if refused.is_err() {
            nft.sync(compiler.ruleset()).unwrap();
        }
        assert_eq!(held(&mut nft), (49_152, 20_000), "{refused:?}");
        assert!(nft.sync(compiler.ruleset()).unwrap().is_empty());
    });
}
