//! What it costs to bring a change into iptables, and to start.
//!
//! `cargo bench -p calico-policy --all-features --bench iptables`, as root; it works in a network namespace of its own. From
//! the update to the end of the last program, the median of some, beside `ipset restore` and the restore programs of iptables
//! alone with the same input. At the end, what it costs everybody else that one policy of 500 is bad, in every packet filter.

#[path = "common/mod.rs"]
mod common;
#[path = "common/cost.rs"]
mod cost;

use std::io::Write;
use std::process::{Command, Stdio};

use calico_model::resource::{NetworkPolicy, Object, Resource};
use calico_model::{Family, Update};
use calico_policy::iptables::{
    Iptables, Leftover, Match, Options, Rule, SetOperation, TableName, Target, Transaction, Variant, lower,
};
use calico_policy::nft::{self, Nft};
use calico_policy::ruleset::Op;
use calico_policy::{Changes, Compiler};
use common::{Size, node, resident};
use cost::Cost;

const ROUNDS: usize = 9;
const SIZE: Size = Size { endpoints: 20_200, local: 200, policies: 2_000, rules: 5 };

fn put(resource: impl Into<Resource>) -> Update {
    Update::Put(Box::new(resource.into()))
}

fn feed(program: &str, arguments: &[&str], input: &str) {
    let mut command = Command::new(program);
    let spawned = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut child = spawned.expect("the program starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads its input");
    assert!(child.wait().expect("it ends").success(), "{program} refuses what it took before");
}

/// Runs the programs alone with what we told them.
fn restore(variant: Variant, transaction: &Transaction) {
    let sets = |operations: &[SetOperation]| {
        let lines: String = operations.iter().map(|operation| format!("{operation}\n")).collect();
        if !lines.is_empty() {
            feed("ipset", &["-exist", "restore"], &lines);
        }
    };
    sets(&transaction.before);
    for ((family, table), operations) in &transaction.tables {
        let program = if *family == Family::V4 { "iptables" } else { "ip6tables" };
        let lines: String = operations.iter().map(|operation| format!("{operation}\n")).collect();
        let input = format!("*{}\n{lines}COMMIT\n", table.as_str());
        feed(&format!("{program}-{variant}-restore"), &["--noflush", "-w", "10"], &input);
    }
    sets(&transaction.after);
}

fn beside(what: &str, ours: Cost, alone: Cost) {
    let ratio =
        |ours: std::time::Duration, alone: std::time::Duration| ours.as_secs_f64() / alone.as_secs_f64();
    println!("  {what:34} {ours}");
    println!(
        "    the programs alone               {alone}: ours is {:.2} of that, {:.2} by the clock",
        ratio(ours.busy, alone.busy),
        ratio(ours.wall, alone.wall)
    );
}

/// Measures updates and what takes them back, each beside the programs alone with the same input.
fn measure(
    what: &str,
    compiler: &mut Compiler,
    iptables: &mut Iptables,
    mut update: impl FnMut(usize) -> [Update; 2],
) {
    let (mut ours, mut alone) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut told = Vec::new();
        for update in update(round) {
            let (cost, written) = Cost::of(|| {
                compiler.apply(update);
                let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
                iptables.change(&delta, compiler.ruleset(), &Options::default()).expect("the kernel takes it")
            });
            assert!(!written.transaction.is_empty() && written.refused.is_empty(), "{what}");
            ours.push(cost);
            told.push(written.transaction);
        }
        // The kernel holds what it held before.
        for transaction in told {
            alone.push(Cost::of(|| restore(iptables.variant(), &transaction)).0);
        }
    }
    beside(what, Cost::median(ours), Cost::median(alone));
}

fn large(variant: Variant) {
    let mut compiler = Compiler::new(node());
    (0..SIZE.endpoints).for_each(|i| compiler.apply(put(SIZE.endpoint(i, 0))));
    (0..SIZE.policies).for_each(|i| compiler.apply(put(SIZE.policy(i, 8000))));
    assert_eq!(compiler.changes(), Changes::Everything);
    let (mut iptables, options) = (Iptables::new(variant), Options::default());
    println!("iptables ({variant}), {}:", compiler.ruleset().stats());
    let (start, written) =
        Cost::of(|| iptables.sync(compiler.ruleset(), &options).expect("the kernel takes it"));
    iptables.remove(Leftover::RulesAndSets).expect("the kernel takes it");
    let (alone, ()) = Cost::of(|| restore(variant, &written.transaction));
    beside("a start", start, alone);
    let (again, written) =
        Cost::of(|| iptables.sync(compiler.ruleset(), &options).expect("the kernel takes it"));
    assert!(written.transaction.is_empty());
    println!("  {:34} {again}", "another, nothing to do");
    measure("a set gets a member, or loses it", &mut compiler, &mut iptables, |round| {
        let endpoint = SIZE.endpoint(SIZE.endpoints + round, 0);
        let key = endpoint.key();
        [put(endpoint), Update::Removed(key)]
    });
    measure("a policy changes one rule", &mut compiler, &mut iptables, |round| {
        let mut policy = SIZE.policy(round, 8000);
        policy.spec.0.ingress[0].destination.ports = vec!["9:10".parse().expect("a range")];
        [put(policy), put(SIZE.policy(round, 8000))]
    });
    println!("  {:34} {:8} MB", "resident", resident());
    iptables.remove(Leftover::RulesAndSets).expect("the kernel takes it");
}

/// As many policies, each for one endpoint of its own.
const POLICIES: usize = 500;
const MANY: Size = Size { endpoints: POLICIES, local: POLICIES, policies: POLICIES, rules: 5 };

fn own_policy(i: usize) -> Object<NetworkPolicy> {
    let mut policy = MANY.policy(i, 8000);
    policy.spec.0.selector =
        format!("app == 'app-{}' && group == 'group-{}'", i % 50, i % 200).parse().expect("a selector");
    policy
}

/// Brings 500 policies in force at once, of which the last is stored as what does not validate when `bad`.
fn updates(bad: bool) -> Vec<Update> {
    let policies = (0..POLICIES).map(|i| {
        let policy = own_policy(i);
        if bad && i + 1 == POLICIES {
            let problem = "spec.ingress[0].protocol: not a protocol".to_owned();
            Update::Invalid { key: policy.key(), problem, closed: None }
        } else {
            put(policy)
        }
    });
    policies.collect()
}

fn told(what: &str, good: Vec<Cost>, bad: Vec<Cost>) {
    let (good, bad) = (Cost::median(good), Cost::median(bad));
    println!("  {what:34} {good}");
    println!(
        "    one of them is bad               {bad}: {:.2} of that, {:.2} by the clock",
        bad.busy.as_secs_f64() / good.busy.as_secs_f64(),
        bad.wall.as_secs_f64() / good.wall.as_secs_f64()
    );
}

fn one_of_500_is_bad() {
    println!("500 policies come in force:");
    let mut compiled = Compiler::new(node());
    (0..MANY.endpoints).for_each(|i| compiled.apply(put(MANY.endpoint(i, 0))));
    updates(false).into_iter().for_each(|update| compiled.apply(update));
    let run = |bad: bool| {
        let mut compiler = Compiler::new(node());
        (0..MANY.endpoints).for_each(|i| compiler.apply(put(MANY.endpoint(i, 0))));
        assert_eq!(compiler.changes(), Changes::Everything);
        (compiler, updates(bad))
    };
    let of_nftables = |bad: bool| {
        let (mut compiler, updates) = run(bad);
        let mut nft = Nft::new();
        nft.sync(compiler.ruleset()).expect("the kernel takes it");
        let (cost, ()) = Cost::of(|| {
            updates.into_iter().for_each(|update| compiler.apply(update));
            let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
            nft.apply(&nft::plan_change(&delta)).expect("the kernel takes it");
        });
        nft.apply(&nft::Transaction::removal()).expect("the kernel takes it");
        cost
    };
    let (good, bad) = (0..ROUNDS).map(|_| (of_nftables(false), of_nftables(true))).unzip();
    told("nftables, bad as it is stored", good, bad);
    for variant in Variant::ALL {
        let program = lower(compiled.ruleset(), &Options::default());
        let mut refused = program.clone();
        let chains =
            &mut refused.rules.tables.get_mut(&(Family::V4, TableName::Filter)).expect("it is there").chains;
        let tier =
            chains.iter_mut().filter(|(name, _)| name.as_str().starts_with("cali-in-tier")).nth(POLICIES / 3);
        // A type of ICMP without the protocol.
        let icmp = Match::Icmp(Family::V4, Op::Is, Some(8), None);
        tier.expect("a chain").1.push(Rule { matches: vec![icmp], target: Target::Accept });
        let of_iptables = |program: &calico_policy::iptables::Program, bad: usize| {
            let mut iptables = Iptables::new(variant);
            let (cost, written) =
                Cost::of(|| iptables.sync_program(program.clone()).expect("the rest is taken"));
            assert_eq!(written.refused.len(), bad, "{:?}", written.refused);
            iptables.remove(Leftover::RulesAndSets).expect("the kernel takes it");
            cost
        };
        let (good, bad) = (0..3).map(|_| (of_iptables(&program, 0), of_iptables(&refused, 1))).unzip();
        told(&format!("iptables ({variant}), the kernel's no"), good, bad);
    }
}

fn main() {
    // A namespace of this process alone, gone with it.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
    let only = |part: &str| std::env::args().any(|argument| argument == part);
    if !only("bad") {
        Variant::ALL.into_iter().for_each(large);
    }
    if !only("large") {
        one_of_500_is_bad();
    }
}
