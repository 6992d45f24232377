//! What matching costs: a three-term selector on eight labels, beside the same lookups written by hand.

use std::hint::black_box;
use std::time::{Duration, Instant};

use calico_model::{Labels, Selector};
use criterion::Criterion;

const SELECTOR: &str = r#"app == "web" && tier in {"backend", "frontend"} && !has(quarantine)"#;

fn labels() -> Labels {
    Labels::from([
        ("app", "web"),
        ("app.kubernetes.io/managed-by", "helm"),
        ("pod-template-hash", "5d59d67564"),
        ("projectcalico.org/namespace", "shop"),
        ("projectcalico.org/orchestrator", "k8s"),
        ("projectcalico.org/serviceaccount", "default"),
        ("tier", "frontend"),
        ("version", "v1"),
    ])
}

fn by_hand(labels: &Labels) -> bool {
    labels.get("app").is_some_and(|v| v == "web")
        && labels.get("tier").is_some_and(|v| v == "backend" || v == "frontend")
        && labels.get("quarantine").is_none()
}

fn main() {
    let labels = labels();
    let selector: Selector = SELECTOR.parse().expect("the selector above is well formed");
    assert!(selector.matches(&labels) && by_hand(&labels));

    let mut criterion = Criterion::default().configure_from_args();
    criterion
        .bench_function("selector/matches", |b| b.iter(|| black_box(&selector).matches(black_box(&labels))));
    criterion.bench_function("selector/by hand", |b| b.iter(|| by_hand(black_box(&labels))));
    criterion.bench_function("selector/parse", |b| b.iter(|| black_box(SELECTOR).parse::<Selector>()));
    criterion.bench_function("selector/id", |b| b.iter(|| black_box(&selector).id()));
    criterion.final_summary();

    let matching = best(|| black_box(&selector).matches(black_box(&labels)));
    let hand = best(|| by_hand(black_box(&labels)));
    let ratio = matching.as_secs_f64() / hand.as_secs_f64();
    println!(
        "selector/matches: {:.1} ns, by hand {:.1} ns, ratio {ratio:.2}",
        per_call(matching),
        per_call(hand)
    );
}

const CALLS: u32 = 1_000_000;

/// The shortest of several runs, which other work on the machine disturbed least.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn best(mut call: impl FnMut() -> bool) -> Duration {
    let runs = (0..10).map(|_| {
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(call());
        }
        start.elapsed()
    });
    runs.min().unwrap_or_default()
}

fn per_call(run: Duration) -> f64 {
    run.as_secs_f64() * 1e9 / f64::from(CALLS)
}
