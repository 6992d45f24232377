//! What it costs to read resources at the datastore's door, and to hold them.
//!
//! `cargo bench -p calico-model --bench resources`. Each figure is the median of several runs, in CPU time of this thread's
//! process, beside what the JSON parser alone needs for the same bytes in the same run.

use std::hint::black_box;
use std::time::Duration;

use calico_model::datastore::Entry;
use calico_model::resource::{Document, ResourceKey};
use calico_model::{Revision, Snapshot, Update};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

const COUNT: usize = 100_000;
const RUNS: usize = 5;

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the kernel tells a process its own usage");
    let part = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), 1000 * u32::try_from(time.tv_usec()).unwrap_or_default())
    };
    part(usage.user_time()) + part(usage.system_time())
}

fn median(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let before = cpu();
            run();
            cpu().saturating_sub(before)
        })
        .collect();
    times.sort();
    times[RUNS / 2]
}

fn document(kind: &str, namespace: Option<&str>, name: String, labels: Value, spec: Value) -> Value {
    let mut metadata = json!({"name": name, "labels": labels, "uid": "11e8f2a4-0000-4000-8000-000000000000",
                              "creationTimestamp": "2026-01-01T00:00:00Z"});
    if let Some(namespace) = namespace {
        metadata["namespace"] = Value::String(namespace.to_owned());
    }
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
}

fn workload(i: usize) -> Value {
    let labels = json!({"app": format!("app-{}", i % 500), "role": "web", "env": "production", "zone": format!("z{}", i % 3),
                        "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s"});
    let spec = json!({
        "orchestrator": "k8s", "node": format!("node-{}", i % 1000), "pod": format!("pod-{i}"), "endpoint": "eth0",
        "containerID": format!("{i:064x}"), "profiles": ["kns.default", "ksa.default.default"],
        "ipNetworks": [format!("10.{}.{}.{}/32", i >> 16, i >> 8 & 255, i & 255)], "mac": "ee:ee:ee:ee:ee:ee",
        "interfaceName": format!("cali{i:011x}"), "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    });
    document(
        "WorkloadEndpoint",
        Some("default"),
        format!("node--{}-k8s-pod--{i}-eth0", i % 1000),
        labels,
        spec,
    )
}

fn policy(i: usize) -> Value {
    let rule = json!({"action": "Allow", "protocol": "TCP", "source": {"selector": format!("app == 'app-{}'", i % 500)},
                      "destination": {"ports": [80, 443, "8000:8080"]}});
    let spec = json!({"order": i % 100, "selector": format!("role == 'web' && app == 'app-{}'", i % 400),
                      "types": ["Ingress"], "ingress": [rule.clone(), rule]});
    document("NetworkPolicy", Some("default"), format!("policy-{i}"), json!({}), spec)
}

fn set(i: usize) -> Value {
    let nets: Vec<String> = (0..8).map(|n| format!("172.{}.{}.0/24", n, i & 255)).collect();
    document("GlobalNetworkSet", None, format!("set-{i}"), json!({"kind": "outside"}), json!({"nets": nets}))
}

fn node(i: usize) -> Value {
    let spec =
        json!({"bgp": {"asNumber": 64512, "ipv4Address": format!("172.16.{}.{}/16", i >> 8 & 255, i & 255)}});
    document("Node", None, format!("node-{i}"), json!({"rack": format!("r{}", i % 40)}), spec)
}

/// Seven workloads in ten, two policies, and of the rest sets and nodes by turns.
fn mixed() -> Vec<Vec<u8>> {
    (0..COUNT)
        .map(|i| match i % 10 {
            0..7 => workload(i),
            7 | 8 => policy(i),
            _ if i % 20 < 10 => set(i),
            _ => node(i),
        })
        .map(|value| value.to_string().into_bytes())
        .collect()
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("two numbers");
    pages * 4096
}

fn main() {
    // First, since memory that was used before and given back would hide what a snapshot takes.
    hold();
    read();
}

fn hold() {
    let before = resident();
    let mut snapshot = Snapshot::default();
    for i in 0..COUNT {
        let value = workload(i);
        let document = Document::from_value(value.clone()).expect("written by us");
        let key: ResourceKey = document.key().expect("it has a name");
        let entry = Entry {
            key: key.datastore_key(),
            value: value.to_string().into_bytes(),
            revision: Revision(i as u64 + 1),
        };
        snapshot.apply(Update::from_entry(&entry).expect("a key that snapshots hold"));
    }
    assert_eq!(snapshot.workloads.len(), COUNT);
    let grown = resident().saturating_sub(before);
    println!("a snapshot of {COUNT} workload endpoints: {} bytes of resident memory each", grown / COUNT);
}

fn read() {
    let texts = mixed();
    let bytes: usize = texts.iter().map(Vec::len).sum();
    println!("{COUNT} mixed resources, {} bytes each on average", bytes / COUNT);
    let json = median(|| {
        for text in &texts {
            black_box(serde_json::from_slice::<Value>(text).expect("written by us"));
        }
    });
    let read = median(|| {
        for text in &texts {
            black_box(
                Document::from_json(text).and_then(|document| document.check()).expect("written by us"),
            );
        }
    });
    let rate = COUNT as f64 / read.as_secs_f64();
    println!("  JSON parser alone   {:7.2} µs each", json.as_secs_f64() * 1e6 / COUNT as f64);
    println!(
        "  parse and validate  {:7.2} µs each, {rate:.0} each second and core",
        read.as_secs_f64() * 1e6 / COUNT as f64
    );
    println!("  ratio               {:7.2}", read.as_secs_f64() / json.as_secs_f64());
}
