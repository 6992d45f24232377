//! Rules of iptables: they mean what the ruleset means, and the kernel takes them in both variants.

use std::thread;
use std::time::Duration;

use calico_model::resource::{Object, Profile, WorkloadEndpoint};
use calico_model::{Family, NodeName, Snapshot, Update};
use calico_policy::iptables::{
    Actual, Iptables, Leftover, Match, Options, Program, Rule, TableName, Target, Variant, cleanup_ipsets,
    lower, plan, simulate_marked,
};
use calico_policy::nft::{Nft, Transaction};
use calico_policy::ruleset::Op;
use calico_policy::{Changes, Compiler, Delta, Ruleset, compile, simulate, strategies};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::golden;
use crate::netns::Namespace;

const PACKETS: usize = 40;

pub(crate) fn node() -> NodeName {
    strategies::NODE.parse().unwrap()
}

pub(crate) fn database() -> Ruleset {
    compile(&golden::world("database"), &"node-1".parse().unwrap())
}

/// How many worlds are tried, unless `PROPTEST_CASES` says otherwise.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(150),
        max_shrink_iters: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn world_and_packets() -> impl Strategy<Value = (Snapshot, Vec<calico_policy::Packet>)> {
    prop_oneof![4 => strategies::world().boxed(), 1 => strategies::crowded_world().boxed()]
        .prop_flat_map(|world| (strategies::packets(&world, PACKETS), Just(world)))
        .prop_map(|(packets, world)| (world, packets))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn pe28_rules_of_iptables_decide_as_the_ruleset_whatever_mark_a_packet_has((world, packets) in world_and_packets()) {
        let ruleset = compile(&world, &node());
        let program = lower(&ruleset, &Options::default());
        for packet in packets {
            let meant = simulate(&ruleset, &packet);
            for mark in [0, u32::MAX] {
                let outcome = simulate_marked(&program, &packet, mark);
                prop_assert_eq!(outcome, meant, "{}, mark {:#x}\n{}\n{}", &packet, mark, &ruleset, &program);
            }
        }
    }
}

fn rules(program: &Program) -> impl Iterator<Item = &Rule> {
    program.rules.tables.values().flat_map(|table| table.chains.values().flatten())
}

#[test]
fn pe95_names_and_rules_are_within_what_iptables_takes() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..30 {
        let world = strategies::crowded_world().new_tree(&mut runner).unwrap().current();
        let program = lower(&compile(&world, &node()), &Options::default());
        for table in program.rules.tables.values() {
            assert!(table.chains.keys().all(|chain| chain.as_str().len() <= 28));
        }
        assert!(program.sets.keys().all(|set| set.as_str().len() <= 31));
        for rule in rules(&program) {
            let places = rule.matches.iter().map(|m| {
                if let Match::Ports(_, _, ranges) = m {
                    ranges.iter().map(|(a, b)| 1 + usize::from(a != b)).sum()
                } else {
                    0
                }
            });
            assert!(places.max().unwrap_or(0) <= 15, "{}", rule.line());
            assert!(rule.matches.iter().filter(|m| matches!(m, Match::Protocol(..))).count() <= 1);
        }
    }
}

pub(crate) fn many_workloads(count: usize) -> Snapshot {
    let mut world = Snapshot::default();
    world.insert(Object::new("open".parse().unwrap(), Profile::allow_all()));
    for index in 0..count {
        let mut workload = Object::new(format!("w{index}").parse().unwrap(), WorkloadEndpoint::on(node()));
        workload.metadata.namespace = Some("ns".parse().unwrap());
        let name = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        workload.spec.interface_name = Some(format!("cali{name:011x}").parse().unwrap());
        workload.spec.ip_networks = vec![format!("10.0.{}.{}/32", index / 256, index % 256).parse().unwrap()];
        workload.spec.profiles = vec!["open".parse().unwrap()];
        world.insert(workload);
    }
    world
}

#[test]
fn rules_that_differ_in_network_and_port_are_one_set_and_a_flow_of_many_ports_is_a_rule() {
    use calico_model::resource::{NetworkPolicy, Policy, PolicyType};
    let mut world = many_workloads(1);
    let mut policy = Policy::selecting("all()".parse().unwrap(), vec![PolicyType::Ingress]);
    for index in 0..100 {
        let mut rule = calico_model::resource::Rule::allow();
        rule.protocol = Some("TCP".parse().unwrap());
        rule.source.nets = vec![format!("10.{index}.0.0/16").parse().unwrap()];
        let (first, last) = (1000 + index * 7, 1000 + index * 7 + if index == 50 { 500 } else { index % 3 });
        rule.destination.ports = vec![format!("{first}:{last}").parse().unwrap()];
        policy.ingress.push(rule);
    }
    let mut policy = Object::new("flows".parse().unwrap(), NetworkPolicy(policy));
    policy.metadata.namespace = Some("ns".parse().unwrap());
    world.insert(policy);
    let ruleset = compile(&world, &node());
    let program = lower(&ruleset, &Options::default());
    let lines: Vec<String> = rules(&program).map(Rule::line).collect();
    let of = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
    assert_eq!((of(" src,dst "), of("-s 10.50.0.0/16 ")), (1, 1), "{program}");
    assert_eq!(of("-s 10."), 1, "{program}");
    for variant in Variant::ALL {
        let namespace = Namespace::new("flows");
        namespace.within(|| {
            let sync = || Iptables::new(variant).sync(&ruleset, &Options::default()).unwrap();
            assert_eq!(sync().refused, [], "{variant}");
            assert!(sync().transaction.is_empty(), "{variant}");
        });
    }
}

/// How many rules are asked at most on the way through a chain and those it goes to.
fn deepest(program: &Program, family: Family, table: TableName, chain: &str) -> usize {
    let chains = &program.rules.tables[&(family, table)].chains;
    let rules = chains.iter().find(|(name, _)| name.as_str() == chain).unwrap().1;
    let below = rules.iter().filter_map(|rule| {
        if let Target::Goto(chain) = &rule.target {
            Some(deepest(program, family, table, chain.as_str()))
        } else {
            None
        }
    });
    rules.len() + below.max().unwrap_or(0)
}

#[test]
fn a_lookup_of_an_interface_asks_few_rules_however_many_there_are_and_a_new_one_changes_few_chains() {
    let programs: Vec<Program> = [1000, 1001]
        .map(|count| lower(&compile(&many_workloads(count), &node()), &Options::default()))
        .into();
    let asked = deepest(&programs[1], Family::V4, TableName::Filter, "cali-forward-to");
    assert!(asked < 80, "{asked} rules are asked");
    let (before, after) = (&programs[0].rules.tables, &programs[1].rules.tables);
    let changed: usize = after
        .iter()
        .map(|(key, table)| {
            table.chains.iter().filter(|(name, rules)| before[key].chains.get(*name) != Some(*rules)).count()
        })
        .sum();
    assert!(changed <= 40, "{changed} chains changed");
}

/// The kernel's tables without their dates, and the sets in the order of their names.
pub(crate) fn saved(namespace: &Namespace) -> String {
    let mut lines = Vec::new();
    for program in
        ["iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"]
    {
        lines
            .extend(namespace.exec(program).lines().filter(|line| !line.starts_with('#')).map(str::to_owned));
    }
    let sets = namespace.exec("ipset save");
    let mut sets: Vec<String> =
        sets.lines().map(|line| line.split(" hashsize").next().unwrap_or(line).to_owned()).collect();
    sets.sort();
    lines.append(&mut sets);
    lines.join("\n")
}

#[test]
fn the_kernel_holds_what_was_written_and_a_restart_writes_nothing() {
    for variant in Variant::ALL {
        let namespace = Namespace::new("ipt");
        namespace.within(|| {
            let mut runner = TestRunner::deterministic();
            let mut compiler = Compiler::new(node());
            assert_eq!(compiler.changes(), Changes::Everything);
            let options = Options::default();
            let mut iptables = Iptables::new(variant);
            iptables.sync(compiler.ruleset(), &options).unwrap();
            let mut before = Snapshot::default();
            let worlds =
                prop_oneof![3 => strategies::world().boxed(), 1 => strategies::crowded_world().boxed()];
            for _ in 0..6 {
                let world = worlds.new_tree(&mut runner).unwrap().current();
                for updates in strategies::updates(&before, &world).chunks(12) {
                    updates.iter().for_each(|update| compiler.apply(update.clone()));
                    let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
                    let written = iptables.change(&delta, compiler.ruleset(), &options).unwrap();
                    assert_eq!(written.refused, [], "{variant}\n{}", written.transaction);
                    let missing = iptables.missing(&lower(compiler.ruleset(), &options)).unwrap();
                    assert!(
                        missing.is_empty(),
                        "{variant}, missing:\n{missing}\nafter\n{}",
                        written.transaction
                    );
                }
                before = world;
                let again = Iptables::new(variant).sync(compiler.ruleset(), &options).unwrap();
                assert!(again.transaction.is_empty(), "{variant}: a restart writes\n{}", again.transaction);
            }
            iptables.remove(Leftover::RulesAndSets).unwrap();
            assert!(iptables.read().unwrap().is_empty(), "{variant}");
        });
    }
}

#[test]
fn a_member_comes_into_a_set_and_goes_without_a_look_at_the_rules() {
    let member = |number: u8| {
        let mut endpoint = WorkloadEndpoint::on("node-9".parse().unwrap());
        endpoint.ip_networks = vec![format!("10.9.0.{number}/32").parse().unwrap()];
        let mut object = Object::new(format!("m{number}").parse().unwrap(), endpoint);
        object.metadata.namespace = Some("shop".parse().unwrap());
        object.metadata.labels.insert("role", "frontend");
        object
    };
    for variant in Variant::ALL {
        let namespace = Namespace::new("member");
        let mut compiler = Compiler::new("node-1".parse().unwrap());
        strategies::updates(&Snapshot::default(), &golden::world("database"))
            .into_iter()
            .for_each(|update| compiler.apply(update));
        assert_eq!(compiler.changes(), Changes::Everything);
        let options = Options::default();
        namespace.within(|| {
            let mut iptables = Iptables::new(variant);
            iptables.sync(compiler.ruleset(), &options).unwrap();
            let (one, other) = (member(1), member(2));
            let (gone, stays) = (one.key(), other.key());
            for (update, expected) in [
                (Update::Put(Box::new(one.into())), "add"),
                (Update::Put(Box::new(other.into())), "add"),
                (Update::Removed(gone), "del"),
                (Update::Removed(stays), "del"),
            ] {
                compiler.apply(update);
                let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
                let written = iptables.change(&delta, compiler.ruleset(), &options).unwrap().transaction;
                assert!(written.tables.is_empty() && written.to_string().contains(expected), "{written}");
                let missing = iptables.missing(&lower(compiler.ruleset(), &options)).unwrap();
                assert!(missing.is_empty(), "{variant}: {missing}");
            }
        });
    }
}

#[test]
fn a_set_that_was_destroyed_in_vain_keeps_nothing_of_what_was_in_it() {
    let mut world = golden::world("database");
    let with = compile(&world, &node());
    let policies: Vec<_> = world.policies.values().map(|policy| policy.key()).collect();
    policies.into_iter().for_each(|key| world.apply(Update::Removed(key)));
    let without = compile(&world, &node());
    let options = Options::default();
    for variant in Variant::ALL {
        let namespace = Namespace::new("vain");
        namespace.within(|| {
            let sets = || {
                let mut lines: Vec<String> =
                    namespace.exec("ipset save").lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            let mut iptables = Iptables::new(variant);
            iptables.sync(&with, &options).unwrap();
            let held = sets();
            iptables.change(&Delta::between(&with, &without), &without, &options).unwrap();
            let kept = sets();
            let gone: Vec<_> = held.iter().filter(|line| !kept.contains(line)).collect();
            let made =
                gone.iter().find(|line| line.starts_with("create cali-addr4")).expect("a set of addresses");
            let name = made.split(' ').nth(1).unwrap();
            namespace.exec_with("ipset restore", &format!("{made}\nadd {name} 192.0.2.99\n"));
            iptables.change(&Delta::between(&without, &with), &with, &options).unwrap();
            assert!(sets().iter().all(|line| !line.contains("192.0.2.99")), "{variant}: {:?}", sets());
            let missing = iptables.missing(&lower(&with, &options)).unwrap();
            assert!(missing.is_empty(), "{variant}: {missing}");
        });
    }
}

#[test]
fn a_range_of_ports_grows_and_shrinks_in_its_set() {
    let version = |ports: &str| {
        let rule = |(net, ports): (u8, &str)| {
            format!(
                "{{action: Deny, protocol: TCP, ipVersion: 4, destination: {{nets: [10.{net}.0.0/16], ports: ['{ports}']}}}}"
            )
        };
        let rules: Vec<String> = [(0, ports), (1, "81"), (2, "82"), (3, "83")].map(rule).to_vec();
        let world = format!(
            "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: eth0, labels: {{host: a}}}}\n\
             spec: {{node: node-1, interfaceName: eth0}}\n---\napiVersion: projectcalico.org/v3\n\
             kind: GlobalNetworkPolicy\nmetadata: {{name: default.own}}\n\
             spec: {{selector: \"host == 'a'\", types: [Egress], egress: [{}]}}\n",
            rules.join(", ")
        );
        compile(&golden::parsed(world.as_bytes()), &"node-1".parse().unwrap())
    };
    let versions = ["80:82", "80:84", "80", "79:81"].map(version);
    assert!(versions.windows(2).all(|two| two[0].chains == two[1].chains), "only the set changes");
    let options = Options::default();
    for variant in Variant::ALL {
        Namespace::new("range").within(|| {
            let mut iptables = Iptables::new(variant);
            iptables.sync(&versions[0], &options).unwrap();
            for two in versions.windows(2) {
                let written = iptables.change(&Delta::between(&two[0], &two[1]), &two[1], &options).unwrap();
                let missing = iptables.missing(&lower(&two[1], &options)).unwrap();
                assert!(missing.is_empty(), "{variant}, missing:\n{missing}\nafter\n{}", written.transaction);
            }
        });
    }
}

#[test]
fn a_change_is_planned_without_the_kernel_as_with_it() {
    let mut runner = TestRunner::deterministic();
    let mut programs = (0..8).map(|_| {
        let world = strategies::crowded_world().new_tree(&mut runner).unwrap().current();
        lower(&compile(&world, &node()), &Options::default())
    });
    for variant in Variant::ALL {
        let namespace = Namespace::new("planned");
        namespace.within(|| {
            let mut iptables = Iptables::new(variant);
            for (was, is) in programs.next().into_iter().zip(programs.next()) {
                assert_eq!(iptables.sync_program(was.clone()).unwrap().refused, []);
                let foreseen = plan(&is, &Actual::holding(&was));
                assert_eq!(iptables.missing(&is).unwrap(), foreseen, "{variant}");
                assert!(plan(&was, &Actual::holding(&was)).is_empty());
            }
        });
    }
}

#[test]
fn rel06_pe80_what_was_changed_by_hand_is_mended_and_what_is_not_ours_is_not_touched() {
    for variant in Variant::ALL {
        let namespace = Namespace::new("hand");
        let iptables = |arguments: &str| namespace.exec(&format!("iptables-{variant} -w 10 {arguments}"));
        iptables("-N FOREIGN");
        iptables("-A FOREIGN -m comment --comment calico-not -j DROP");
        iptables("-A FORWARD -i docker0 -j FOREIGN");
        iptables("-t nat -A POSTROUTING -o docker0 -j MASQUERADE");
        namespace.exec("ipset create FOREIGN bitmap:port range 0-99");
        namespace.exec("ipset create caliente hash:net");
        let foreign = saved(&namespace);
        let ruleset = database();
        namespace.within(|| {
            let mut ours = Iptables::new(variant);
            ours.sync(&ruleset, &Options::default()).unwrap();
            let before = saved(&namespace);
            let set = before.lines().find(|line| line.starts_with("add cali-addr4-")).unwrap();
            let set = set.split(' ').nth(1).unwrap().to_owned();
            let changes = [
                "-F cali-FORWARD",
                "-I FORWARD -j ACCEPT",
                "-D FORWARD 1",
                "-F FORWARD",
                "-A cali-forward-to -j ACCEPT",
                "-I cali-forward-to -j ACCEPT",
                "-D cali-forward-to 1",
                "-R cali-forward-to 1 -j ACCEPT",
                "-N cali-stray",
                "-A INPUT -p tcp -j cali-INPUT",
                "-t raw -F",
            ];
            for change in changes {
                iptables(change);
                let mended = ours.sync(&ruleset, &Options::default()).unwrap();
                assert!(
                    !mended.transaction.is_empty() && mended.refused.is_empty(),
                    "{variant}, not seen: {change}"
                );
                // What was done to the rules of others is theirs to mend.
                match change {
                    "-I FORWARD -j ACCEPT" => drop(iptables("-D FORWARD -j ACCEPT")),
                    "-F FORWARD" => drop(iptables("-A FORWARD -i docker0 -j FOREIGN")),
                    _ => {}
                }
                ours.sync(&ruleset, &Options::default()).unwrap();
                assert_eq!(saved(&namespace), before, "{variant}: {change}\n{}", mended.transaction);
            }
            for change in [
                format!("ipset flush {set}"),
                format!("ipset add {set} 1.2.3.4"),
                "ipset create cali-stray hash:net".into(),
            ] {
                namespace.exec(&change);
                let mended = ours.sync(&ruleset, &Options::default()).unwrap();
                assert!(!mended.transaction.is_empty(), "{variant}, not seen: {change}");
                assert_eq!(saved(&namespace), before, "{variant}: {change}\n{}", mended.transaction);
            }
            // A set that has become another is made anew beside it, and takes its place at once.
            let many: String = (0..40).map(|i| format!("add {set} 172.20.0.{i}\n")).collect();
            namespace.exec_with("ipset restore", &many);
            let mended = ours.sync(&ruleset, &Options::default()).unwrap().transaction;
            assert!(mended.to_string().contains(&format!("swap {set} ")), "{variant}: {mended}");
            assert_eq!(saved(&namespace), before, "{variant}: {mended}");
            ours.remove(Leftover::RulesAndSets).unwrap();
        });
        let left = saved(&namespace);
        let gone = |text: &str| text.lines().filter(|line| line.contains("cali-")).count();
        assert_eq!(gone(&left), 0, "{left}");
        let own = |text: &str| -> Vec<String> {
            text.lines()
                .filter(|line| {
                    line.contains("FOREIGN") || line.contains("docker0") || line.contains("caliente")
                })
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(own(&left), own(&foreign));
    }
}

#[test]
fn pe96_one_bad_rule_is_closed_and_the_rest_is_in_force() {
    for variant in Variant::ALL {
        let namespace = Namespace::new("bad");
        let ruleset = many_policies(500);
        let mut program = lower(&ruleset, &Options::default());
        let table = program.rules.tables.get_mut(&(Family::V4, TableName::Filter)).unwrap();
        let tiers: Vec<_> =
            table.chains.keys().filter(|name| name.as_str().starts_with("cali-in-tier")).cloned().collect();
        assert!(tiers.len() >= 500, "{}", tiers.len());
        let bad = &tiers[123];
        let icmp = Match::Icmp(Family::V4, Op::Is, Some(8), None);
        table.chains.get_mut(bad).unwrap().push(Rule { matches: vec![icmp], target: Target::Accept });
        namespace.within(|| {
            let mut iptables = Iptables::new(variant);
            let written = iptables.sync_program(program.clone()).unwrap();
            assert_eq!(written.refused.len(), 1, "{variant}: {:?}", written.refused);
            assert!(written.refused[0].what.contains(bad.as_str()), "{:?}", written.refused);
            let held = namespace.exec(&format!("iptables-{variant}-save -t filter"));
            let rules: Vec<_> = held.lines().filter(|line| line.starts_with(&format!("-A {bad} "))).collect();
            assert!(rules.len() == 1 && rules[0].ends_with("-j DROP"), "{rules:?}");
            for chain in tiers.iter().filter(|chain| *chain != bad) {
                let wanted = program.rules.tables[&(Family::V4, TableName::Filter)].chains[chain].len();
                let held = held.lines().filter(|line| line.starts_with(&format!("-A {chain} "))).count();
                assert_eq!(held, wanted, "{variant}: {chain}");
            }
            // Without the bad rule, the chain opens again.
            let mended = iptables.sync(&ruleset, &Options::default()).unwrap();
            assert_eq!(mended.refused, []);
            assert!(iptables.missing(&lower(&ruleset, &Options::default())).unwrap().is_empty());
        });
    }
}

/// The rules of a node with many workloads, each selected by a policy of its own.
fn many_policies(count: usize) -> Ruleset {
    use calico_model::resource::{NetworkPolicy, Policy, PolicyType};
    let mut world = many_workloads(count);
    for index in 0..count {
        let id = format!("w{index}");
        let workload =
            world.workloads.values_mut().find(|workload| workload.metadata.name.as_str() == id).unwrap();
        std::sync::Arc::make_mut(workload).metadata.labels.insert("id", &id);
        let mut policy =
            Policy::selecting(format!("id == '{id}'").parse().unwrap(), vec![PolicyType::Ingress]);
        let mut rule = calico_model::resource::Rule::allow();
        rule.protocol = Some("TCP".parse().unwrap());
        rule.destination.ports = vec![format!("{}", 1000 + index).parse().unwrap()];
        policy.ingress.push(rule);
        let mut policy = Object::new(format!("p{index}").parse().unwrap(), NetworkPolicy(policy));
        policy.metadata.namespace = Some("ns".parse().unwrap());
        world.insert(policy);
    }
    compile(&world, &node())
}

#[test]
fn pe96_a_set_that_cannot_be_made_closes_what_looks_at_it() {
    for variant in Variant::ALL {
        let namespace = Namespace::new("set");
        let ruleset = database();
        let program = lower(&ruleset, &Options::default());
        let name = program.sets.keys().find(|name| name.as_str().starts_with("cali-addr4")).unwrap();
        // Somebody holds the name with another kind of set.
        namespace.exec(&format!("ipset create {name} bitmap:port range 0-99"));
        namespace.exec(&format!("iptables-{variant} -w 10 -N HOLDER"));
        namespace.exec(&format!("iptables-{variant} -w 10 -A HOLDER -m set --match-set {name} src -j DROP"));
        namespace.within(|| {
            let mut iptables = Iptables::new(variant);
            let written = iptables.sync(&ruleset, &Options::default()).unwrap();
            assert!(
                written.refused.iter().any(|refused| refused.what.contains(name.as_str())),
                "{:?}",
                written.refused
            );
            assert!(
                written.refused.iter().any(|refused| refused.what.contains("drops everything")),
                "{:?}",
                written.refused
            );
            let held = namespace.exec(&format!("iptables-{variant}-save -t filter"));
            assert!(held.contains("-A FORWARD -m comment") && held.contains("cali-forward-to"), "{held}");
            namespace.exec(&format!("iptables-{variant} -w 10 -F HOLDER"));
            thread::sleep(Duration::from_millis(100));
            let mended = iptables.sync(&ruleset, &Options::default()).unwrap();
            assert_eq!(mended.refused, []);
            assert!(iptables.missing(&program).unwrap().is_empty());
        });
    }
}

#[test]
fn rel18_what_another_mode_left_behind_is_removed_and_what_is_in_force_stays() {
    let namespace = Namespace::new("modes");
    let (ruleset, options) = (database(), Options::default());
    let program = lower(&ruleset, &options);
    namespace.within(|| {
        for variant in [Variant::Legacy, Variant::Nft, Variant::Legacy] {
            let mut ours = Iptables::new(variant);
            ours.sync(&ruleset, &options).unwrap();
            Iptables::remove_leftover(variant.other(), Leftover::Rules).unwrap();
            assert!(Iptables::new(variant.other()).read().unwrap().has_no_rules());
            assert!(ours.missing(&program).unwrap().is_empty(), "{variant}");
            assert!(!Iptables::remove_leftover(variant.other(), Leftover::Rules).unwrap(), "nothing is left");
        }
        let mut nft = Nft::new();
        nft.sync(&ruleset).unwrap();
        assert!(Iptables::remove_leftover(Variant::Legacy, Leftover::RulesAndSets).unwrap());
        assert!(!cleanup_ipsets().unwrap(), "they went with the rules");
        assert!(nft.sync(&ruleset).unwrap().is_empty());
        nft.apply(&Transaction::removal()).unwrap();
        let left = saved(&namespace);
        assert!(!left.contains("cali-"), "{left}");
    });
}
