//! What it costs to bring a change into iptables, and to start.
//!
//! `cargo bench -p calico-policy --features iptables --bench iptables`, as root; it works in a network namespace of its own. Wall time
//! from the update to the end of the last program, median of some, beside the restore programs alone with the same input,
//! and beside reading everything back first, as is usual.

#[path = "common/mod.rs"]
mod common;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use calico_model::Snapshot;
use calico_model::Update;
use calico_model::resource::Resource;
use calico_policy::iptables::{Iptables, Leftover, Options, Transaction, Variant};
use calico_policy::{Changes, Compiler};
use common::{Size, node, resident};

const ROUNDS: usize = 11;

fn put(resource: impl Into<Resource>) -> Update {
    Update::Put(Box::new(resource.into()))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn clock() -> Instant {
    Instant::now()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn feed(program: &str, arguments: &[&str], input: &str) {
    let mut command = Command::new(program);
    let spawned = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut child = spawned.expect("the program starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads its input");
    assert!(child.wait().expect("it ends").success(), "{program} refuses what it took before");
}

/// Runs the restore programs alone. What they are told is what the kernel holds already, and told once more.
fn restore(variant: Variant, transaction: &Transaction) -> Duration {
    let began = clock();
    for ((family, table), operations) in &transaction.tables {
        let program = if family.version() == 4 { "iptables" } else { "ip6tables" };
        let lines: String = operations.iter().map(|operation| format!("{operation}\n")).collect();
        let input = format!("*{}\n{lines}COMMIT\n", table.as_str());
        feed(&format!("{program}-{variant}-restore"), &["--noflush", "-w", "10"], &input);
    }
    began.elapsed()
}

fn save(variant: Variant) -> Duration {
    let began = clock();
    for program in ["iptables", "ip6tables"] {
        feed(&format!("{program}-{variant}-save"), &[], "");
    }
    began.elapsed()
}

fn main() {
    // A namespace of this process alone, gone with it.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
    let size = Size { endpoints: 20_200, local: 200, policies: 2_000, rules: 5 };
    let mut world = Snapshot::default();
    (0..size.endpoints).for_each(|i| world.insert(size.endpoint(i, 0)));
    (0..size.policies).for_each(|i| world.insert(size.policy(i, 8000)));
    for variant in Variant::ALL {
        let mut compiler = Compiler::new(node());
        world.workloads.values().for_each(|object| compiler.apply(put(object.as_ref().clone())));
        world.policies.values().for_each(|object| compiler.apply(put(object.as_ref().clone())));
        let options = Options::default();
        let mut iptables = Iptables::new(variant);
        assert_eq!(compiler.changes(), Changes::Everything);
        let began = clock();
        let written = iptables.sync(compiler.ruleset(), &options).expect("the kernel takes it");
        println!("iptables ({variant}), {}:", compiler.ruleset().stats());
        println!(
            "  a start: {} changes       {:9.0} ms",
            written.transaction.len(),
            began.elapsed().as_secs_f64() * 1e3
        );
        let began = clock();
        let again = Iptables::new(variant).sync(compiler.ruleset(), &options).expect("the kernel answers");
        assert!(again.transaction.is_empty());
        println!("  another, nothing to do    {:9.0} ms", began.elapsed().as_secs_f64() * 1e3);
        let (mut ours, mut alone, mut read) = (Vec::new(), Vec::new(), Vec::new());
        let mut policies = world.policies.values();
        for _ in 0..ROUNDS {
            let mut policy = policies.next().expect("a policy").as_ref().clone();
            let rules = if policy.spec.0.ingress.is_empty() {
                &mut policy.spec.0.egress
            } else {
                &mut policy.spec.0.ingress
            };
            rules[0].destination.ports = vec!["9:10".parse().expect("a range")];
            let began = clock();
            compiler.apply(put(policy));
            let Changes::Only(delta) = compiler.changes() else { panic!("it was asked before") };
            let written = iptables.change(&delta, compiler.ruleset(), &options).expect("the kernel takes it");
            ours.push(began.elapsed());
            let tables = &written.transaction.tables;
            // What is made anew can be told twice; what is edited by place cannot.
            let idempotent = tables.values().flatten().all(|operation| {
                let line = operation.to_string();
                line.starts_with(':') || line.starts_with("-A ")
            });
            if idempotent && !tables.is_empty() {
                alone.push(restore(variant, &written.transaction));
                read.push(save(variant));
            }
        }
        let ours = median(ours);
        println!("  a policy changes one rule {ours:9.1} ms");
        if !alone.is_empty() {
            let (alone, read) = (median(alone), median(read));
            println!("    the restore programs alone {alone:6.1} ms: ours is {:.2} of that", ours / alone);
            println!(
                "    after reading all back     {:6.1} ms: ours is {:.2} of that",
                alone + read,
                ours / (alone + read)
            );
        }
        println!("  resident                  {:9} MB", resident());
        iptables.remove(Leftover::RulesAndSets).expect("the kernel takes it");
    }
}
