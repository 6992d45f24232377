//! What it costs to bring a change into the kernel, and to start.
//!
//! `cargo bench -p calico-policy --features nft --bench kernel [-- changes|start]`, as root; it works in network namespaces of its own. Wall time from
//! the update to the kernel's answer, median of many, beside the part of it that is the kernel's own, and what the `nft` program
//! needs for the same transaction on the same table: 2,000 sets of 100 members, 2,000 policies of 10 rules. The least that
//! the kernel takes is measured by bare transactions: an element of a set costs the same in any table; a rule, or a map's
//! element that leads to a chain, has the kernel walk through all rules that packets can reach.

#[path = "common/mod.rs"]
mod common;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use calico_model::Update;
use calico_model::resource::{NetworkPolicy, Object, Policy, PolicyType, Resource, Rule, WorkloadEndpoint};
use calico_policy::nft::{Nft, Operation, Transaction, plan, plan_change};
use calico_policy::ruleset::{Element, Ruleset, SetKind};
use calico_policy::{Changes, Compiler};
use common::{Size, node, resident};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 101;
/// The `nft` program is slow: fewer rounds do.
const PROGRAM_ROUNDS: usize = 5;

/// The node's own endpoints, each with a policy for each direction of ten rules; each policy's selector has a hundred members.
const LOCAL: usize = 1_000;
const RULES: usize = 10;
const MEMBERS: usize = 100;

fn endpoint(i: usize, local: bool, set: usize) -> Object<WorkloadEndpoint> {
    let at = if local { node() } else { "node-1".parse().expect("a name") };
    let mut endpoint = WorkloadEndpoint::on(at);
    endpoint.interface_name = Some(format!("cali{i:011x}").parse().expect("an interface"));
    endpoint.ip_networks =
        vec![format!("10.{}.{}.{}", i >> 16, i >> 8 & 255, i & 255).parse().expect("an address")];
    let mut object = Object::new(format!("endpoint{i}").parse().expect("a name"), endpoint);
    object.metadata.namespace = Some("default".parse().expect("a namespace"));
    object.metadata.labels = [("own", format!("e{i}")), ("set", format!("s{set}"))]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v))
        .collect();
    object
}

/// Rules that no lookup can join: an `at` that is another in each makes each differ from the next in two things.
fn policy(i: usize, at: u16) -> Object<NetworkPolicy> {
    let direction = if i.is_multiple_of(2) { PolicyType::Ingress } else { PolicyType::Egress };
    let mut policy =
        Policy::selecting(format!("own == 'e{}'", i / 2).parse().expect("a selector"), vec![direction]);
    for r in 0..RULES as u16 {
        let mut rule = Rule::allow();
        rule.protocol = Some("TCP".parse().expect("a protocol"));
        rule.ip_version = Some(4);
        let ports = format!("{}:{}", at + 100 * r, at + 100 * r + 50);
        rule.destination.ports = vec![ports.parse().expect("a range")];
        if r == 0 {
            rule.source.selector = Some(format!("set == 's{i}'").parse().expect("a selector"));
        } else {
            rule.source.nets = vec![format!("172.16.{r}.0/24").parse().expect("a network")];
        }
        if direction == PolicyType::Ingress { policy.ingress.push(rule) } else { policy.egress.push(rule) }
    }
    let mut object = Object::new(format!("policy{i}").parse().expect("a name"), NetworkPolicy(policy));
    object.metadata.namespace = Some("default".parse().expect("a namespace"));
    object
}

fn put(resource: impl Into<Resource>) -> Update {
    Update::Put(Box::new(resource.into()))
}

fn nft_program(input: &str) -> Duration {
    let began = clock();
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads its input");
    assert!(child.wait().expect("it ends").success(), "nft refuses what the kernel took");
    began.elapsed()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn clock() -> Instant {
    Instant::now()
}

/// The CPU time of this thread, in which the kernel carries out what it is told: what others keep the machine busy with is no
/// part of it.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock that is there").into()
}

/// The CPU time of the programs that were started and have ended.
fn cpu_of_programs() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel tells it");
    let part = |time: TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), 1000 * u32::try_from(time.tv_usec()).unwrap_or_default())
    };
    part(usage.user_time()) + part(usage.system_time())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Measures updates from the update to the kernel's answer, then some of them again through the `nft` program.
fn measure(what: &str, compiler: &mut Compiler, nft: &mut Nft, mut update: impl FnMut(usize) -> Update) {
    let (mut ours, mut kernel, mut theirs, mut busy) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS + PROGRAM_ROUNDS {
        let update = update(round);
        let (began, spent) = (clock(), cpu());
        compiler.apply(update);
        let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
        let change = plan_change(&delta);
        assert!(!change.is_empty(), "{what}: nothing to do");
        if round < ROUNDS {
            let planned = clock();
            nft.apply(&change).unwrap_or_else(|error| panic!("{error}"));
            kernel.push(planned.elapsed());
            ours.push(began.elapsed());
            busy.push(cpu() - spent);
        } else {
            theirs.push(nft_program(&change.to_string()));
        }
    }
    let (ours, kernel, theirs, busy) = (median(ours), median(kernel), median(theirs), median(busy));
    println!(
        "  {what:34} {:7.0} us   of it CPU time: {:7.0} us   the kernel: {:7.0} us   nft: {:7.0} us   1 / {:.0}",
        ours.as_secs_f64() * 1e6,
        busy.as_secs_f64() * 1e6,
        kernel.as_secs_f64() * 1e6,
        theirs.as_secs_f64() * 1e6,
        theirs.as_secs_f64() / ours.as_secs_f64()
    );
}

/// Measures the least that the kernel takes for a change of this table, with nothing of ours but the netlink messages.
fn bare(ruleset: &Ruleset, nft: &mut Nft) {
    let of_addresses = |kind| matches!(kind, SetKind::Address(calico_model::Family::V4));
    let (set, _) = ruleset.sets.iter().find(|(_, set)| of_addresses(set.kind)).expect("a set of addresses");
    let own = ruleset.chains.iter().filter(|(_, chain)| chain.base.is_none() && !chain.rules.is_empty());
    let (chain, held) = own.min_by_key(|(_, chain)| chain.rules.len()).expect("a chain");
    let element = |round: usize| {
        let element = Element::Address([203, 0, 113, round as u8].into());
        Transaction { operations: vec![Operation::AddElements(set.clone(), [element].into())] }
    };
    let rules = |_| {
        let again = held.rules.iter().map(|rule| Operation::AddRule(chain.clone(), rule.clone()));
        Transaction {
            operations: std::iter::once(Operation::FlushChain(chain.clone())).chain(again).collect(),
        }
    };
    let mut least = |what: &str, transaction: &dyn Fn(usize) -> Transaction| {
        let once = |round| {
            let transaction = transaction(round);
            let began = clock();
            nft.apply(&transaction).expect("the kernel takes it");
            began.elapsed()
        };
        let time = median((0..ROUNDS).map(once).collect());
        println!("  bare transaction: one {what:10} {:7.0} us", time.as_secs_f64() * 1e6);
    };
    least("element", &element);
    least("rule", &rules);
}

fn changes(nft: &mut Nft) {
    let mut compiler = Compiler::new(node());
    (0..LOCAL).for_each(|i| compiler.apply(put(endpoint(i, true, 2 * LOCAL))));
    let remote = 2 * LOCAL * MEMBERS;
    (0..remote).for_each(|i| compiler.apply(put(endpoint(LOCAL + i, false, i % (2 * LOCAL)))));
    (0..2 * LOCAL).for_each(|i| compiler.apply(put(policy(i, 1_000))));
    assert_eq!(compiler.changes(), Changes::Everything);
    nft.sync(compiler.ruleset()).expect("the kernel takes it");
    println!("One change, with {}:", compiler.ruleset().stats());
    bare(compiler.ruleset(), nft);
    let next = LOCAL + remote;
    measure("a member is added to a set", &mut compiler, nft, |round| {
        put(endpoint(next + round, false, round))
    });
    measure("a policy changes one rule", &mut compiler, nft, |round| {
        let mut changed = policy(2 * (round / 2), 1_000);
        if round.is_multiple_of(2) {
            changed.spec.0.ingress[4].destination.ports = vec!["9:10".parse().expect("a range")];
        }
        put(changed)
    });
    measure("a policy gets one rule more", &mut compiler, nft, |round| {
        let mut changed = policy(1_000 + 2 * (round / 2), 1_000);
        if round.is_multiple_of(2) {
            let mut more = changed.spec.0.ingress[4].clone();
            more.source.nets = vec!["172.17.0.0/16".parse().expect("a network")];
            changed.spec.0.ingress.push(more);
        }
        put(changed)
    });
    let turned = |i: usize, also: bool| {
        let mut changed = policy(1_500 + 2 * i, 1_000);
        let rules = &mut changed.spec.0.ingress;
        rules[6].action = calico_model::resource::Action::Deny;
        if also {
            rules[4].action = calico_model::resource::Action::Deny;
        }
        put(changed)
    };
    (0..=(ROUNDS + PROGRAM_ROUNDS) / 2).for_each(|i| compiler.apply(turned(i, false)));
    let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
    nft.apply(&plan_change(&delta)).expect("the kernel takes it");
    measure("a rule turns to deny as another", &mut compiler, nft, |round| {
        turned(round / 2, round.is_multiple_of(2))
    });
    measure("a policy denies for the first time", &mut compiler, nft, |round| {
        let mut changed = policy(500 + 2 * (round / 2), 1_000);
        if round.is_multiple_of(2) {
            let mut deny = changed.spec.0.ingress[4].clone();
            deny.action = calico_model::resource::Action::Deny;
            changed.spec.0.ingress.insert(0, deny);
        }
        put(changed)
    });
    let next = next + ROUNDS + PROGRAM_ROUNDS;
    measure("an endpoint is added", &mut compiler, nft, |round| put(endpoint(next + round, true, round)));
}

fn start(nft: &mut Nft) {
    let size = Size { endpoints: 100_200, local: 200, policies: 2_000, rules: 5 };
    let endpoints = (0..size.endpoints).map(|i| put(size.endpoint(i, 0)));
    let policies = (0..size.policies).map(|i| put(size.policy(i, 8000)));
    let mut updates = endpoints.chain(policies).peekable();
    let mut compiler = Compiler::new(node());
    let (mut learned, mut busy) = (Duration::ZERO, Duration::ZERO);
    // As they come from a datastore: some, and then more. To make them is not what is measured.
    while updates.peek().is_some() {
        let some: Vec<Update> = updates.by_ref().take(1_000).collect();
        let (began, spent) = (clock(), cpu());
        some.into_iter().for_each(|update| compiler.apply(update));
        learned += began.elapsed();
        busy += cpu() - spent;
    }
    let (began, spent) = (clock(), cpu());
    let mut parts = vec![("learned", busy)];
    let part = |parts: &mut Vec<(&'static str, Duration)>, what| {
        let before: Duration = parts.iter().skip(1).map(|(_, time)| *time).sum();
        parts.push((what, cpu() - spent - before));
    };
    assert_eq!(compiler.changes(), Changes::Everything);
    part(&mut parts, "compiled");
    let compiled = learned + began.elapsed();
    let transaction = plan(compiler.ruleset(), &nft.read().expect("the kernel answers"));
    part(&mut parts, "planned");
    nft.apply(&transaction).expect("the kernel takes it");
    part(&mut parts, "programmed");
    let all = learned + began.elapsed();
    busy += cpu() - spent;
    println!(
        "A start with 200 local and 100,000 remote endpoints, 2,000 policies: {}",
        compiler.ruleset().stats()
    );
    println!("  compiled                     {:9.0} ms", compiled.as_secs_f64() * 1e3);
    println!(
        "  compiled and programmed      {:9.0} ms, of it CPU time {:9.0} ms",
        all.as_secs_f64() * 1e3,
        busy.as_secs_f64() * 1e3
    );
    let parts = parts.iter().map(|(what, time)| format!("{what} {:.0} ms", time.as_secs_f64() * 1e3));
    println!("  of the CPU time: {}", parts.collect::<Vec<_>>().join(", "));
    println!("  resident                     {:9} MB", resident());
    nft.apply(&Transaction::removal()).expect("the kernel takes it");
    // The text of the ruleset has no bounds on the size of sets, that of the transaction has the ones that our batch has.
    let texts =
        [("the ruleset", compiler.ruleset().to_string()), ("the transaction", transaction.to_string())];
    drop(transaction);
    for (what, text) in texts {
        let spent = cpu_of_programs();
        let theirs = nft_program(&text);
        let spent = cpu_of_programs() - spent;
        nft.apply(&Transaction::removal()).expect("the kernel takes it");
        println!(
            "  `nft -f` of {what:16} {:9.0} ms, of it CPU time {:9.0} ms: ours is {:.2} of that, {:.2} by CPU time",
            theirs.as_secs_f64() * 1e3,
            spent.as_secs_f64() * 1e3,
            all.as_secs_f64() / theirs.as_secs_f64(),
            busy.as_secs_f64() / spent.as_secs_f64()
        );
    }
}

fn main() {
    // A namespace of this process alone, gone with it.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
    let mut nft = Nft::new();
    let only = |part: &str| std::env::args().any(|argument| argument == part);
    if !only("start") {
        changes(&mut nft);
        nft.apply(&Transaction::removal()).expect("the kernel takes it");
    }
    if !only("changes") {
        start(&mut nft);
    }
}
