//! The replay of known cases: that it passes what is right, and finds what is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use calico_node::lab::Interrupt;
use calico_node::lab::conformance::{Backend, Filter, Hosts, Method, Options, Report, Storm, run, storm};
use calico_policy::iptables::Variant;

const PROBES: usize = 45 + 30 + 18 + 18 + 30;

fn own_cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn replay(options: &Options) -> Report {
    let mut reports = run(options, &Interrupt::default()).unwrap();
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

/// The own cases with one mark of the first table turned round, in a file that is gone in the end.
struct Turned(PathBuf);

impl Turned {
    fn new(test: &str, from: &str, to: &str) -> Self {
        let text = fs::read_to_string(own_cases().join("truth-table.json")).unwrap();
        assert!(text.contains(from));
        let path = std::env::temp_dir().join(format!("calico-{test}-{}.json", std::process::id()));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        Self(path)
    }
}

impl Drop for Turned {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn resources_rules_and_kernel_agree_on_every_case_on_one_host_and_on_two() {
    let kernels = [Filter::Nftables, Filter::Iptables(Variant::Legacy), Filter::Iptables(Variant::Nft)];
    let backends = [Backend::Evaluate, Backend::Simulate].into_iter().chain(kernels.map(Backend::Kernel));
    for backend in backends {
        for hosts in [Hosts::One, Hosts::Two] {
            let report = replay(&Options::new(own_cases(), backend).hosts(hosts));
            assert!(report.failures.is_empty(), "{backend:?} {hosts:?}: {report}");
            assert_eq!(report.passed, PROBES, "{backend:?} {hosts:?}");
            let programmed = if matches!(backend, Backend::Kernel(_)) { 15 } else { 0 };
            assert_eq!(report.programming.len(), programmed);
        }
    }
}

#[test]
fn a_packet_that_is_dropped_and_one_that_leaks_are_both_found_and_explained() {
    // The database is expected to reach nobody by itself, and to be reached from the web.
    let turned = Turned::new("turned", r#"[".X..", "....""#, r#"["....", ".X..""#);
    for backend in [Backend::Evaluate, Backend::Simulate] {
        let report = replay(&Options::new(&turned.0, backend).only("closed-and-open-again"));
        let failures: Vec<_> = report.failures.iter().map(|f| (&*f.probe, &*f.observed)).collect();
        let expected = [
            ("TCP/3306 from shop/web to shop/db", "denied"),
            ("TCP/3306 from shop/db to shop/db", "allowed"),
        ];
        assert_eq!(failures, expected);
    }
    let report =
        replay(&Options::new(&turned.0, Backend::Kernel(Filter::Nftables)).only("closed-and-open-again"));
    let failures: Vec<_> = report.failures.iter().map(|f| (&*f.probe, &*f.observed)).collect();
    let expected =
        [("TCP/3306 from shop/web to shop/db", "dropped"), ("TCP/3306 from shop/db to shop/db", "answered")];
    assert_eq!(failures, expected);
    let explanation = &report.failures[0].explanation;
    assert!(explanation.contains("ingress of WorkloadEndpoint shop/"), "{explanation}");
    assert!(report.to_string().contains("2 failed"), "{report}");
}

#[test]
fn what_cannot_be_replayed_is_said_in_one_sentence() {
    let interrupt = Interrupt::default();
    let refused = |options: &Options| run(options, &interrupt).unwrap_err();
    let unknown = refused(&Options::new(own_cases(), Backend::Evaluate).only("nothing"));
    assert!(unknown.to_string().contains("the first ones are closed-and-open-again"), "{unknown}");
    let missing = refused(&Options::new("/nowhere", Backend::Evaluate));
    assert_eq!(missing.to_string(), "/nowhere cannot be read");
    let other = Turned::new("other", "policy-truth-table/v1", "policy-truth-table/v9");
    assert!(refused(&Options::new(&other.0, Backend::Evaluate)).to_string().contains("neither"));
    let short = Turned::new("short", r#"[".X..", "....""#, r#"[".X..""#);
    assert!(refused(&Options::new(&short.0, Backend::Evaluate)).to_string().contains("another size"));
}

#[test]
fn the_program_counts_and_ends_with_1_when_a_probe_failed() {
    let program = |cases: &Path| {
        let mut lab = Command::new(env!("CARGO_BIN_EXE_calico-lab"));
        lab.args(["conformance", "--backend", "simulate", "--cases"]).arg(cases);
        let output = lab.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = program(&own_cases());
    assert_eq!(code, Some(0));
    assert!(said.ends_with(&format!("{PROBES} passed, 0 failed\n")), "{said}");
    let turned = Turned::new("program", r#"[".X..", "....""#, r#"["....", "....""#);
    let (code, said) = program(&turned.0);
    assert_eq!(code, Some(1));
    assert!(said.contains("expected allowed, observed denied"), "{said}");
    assert!(said.ends_with(&format!("{} passed, 1 failed\n", PROBES - 1)), "{said}");
}

#[test]
fn pe92_rules_are_replaced_without_a_flow_lost_or_leaked_and_the_count_would_see_one() {
    let count = |filter, replacements, method| {
        storm(&Storm { filter, replacements, flows: 1000, method }, &Interrupt::default()).unwrap()
    };
    let iptables = Variant::ALL.map(|variant| (Filter::Iptables(variant), 9));
    for (filter, replacements) in [(Filter::Nftables, 60)].into_iter().chain(iptables) {
        let whole = count(filter, replacements, Method::Transaction);
        assert_eq!((whole.lost, whole.leaked), (0, 0), "{filter:?}: {whole}");
        assert!(whole.allowed > 100 && whole.denied > 100, "{filter:?}: {whole}");
        let torn = count(filter, replacements / 3, Method::RemoveThenWrite);
        assert!(torn.leaked > 0, "{filter:?}: {torn}");
    }
}
