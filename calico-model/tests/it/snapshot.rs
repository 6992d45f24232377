//! What a snapshot costs to hold.

use calico_model::datastore::Entry;
use calico_model::resource::Document;
use calico_model::{Revision, Snapshot, Update};
use serde_json::json;

use crate::allocations::used_by;

/// An endpoint as Kubernetes has them: six labels, two profiles, an address, a named port.
fn stored(n: usize) -> Entry {
    let value = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
        "metadata": {
            "name": format!("node--{}-k8s-pod--{n}-eth0", n % 1000), "namespace": "default",
            "uid": "11e8f2a4-0000-4000-8000-000000000000", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": format!("app-{}", n % 500), "role": "web", "env": "production", "zone": "z1",
                       "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s"},
        },
        "spec": {
            "orchestrator": "k8s", "node": format!("node-{}", n % 1000), "pod": format!("pod-{n}"),
            "endpoint": "eth0", "containerID": format!("{n:064x}"),
            "profiles": ["kns.default", "ksa.default.default"], "interfaceName": format!("cali{n:011x}"),
            "ipNetworks": [format!("10.0.{}.{}/32", n >> 8 & 255, n & 255)], "mac": "ee:ee:ee:ee:ee:ee",
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        },
    });
    let key = Document::from_value(value.clone())
        .expect("a sound document")
        .key()
        .expect("it has a name")
        .datastore_key();
    Entry { key, value: value.to_string().into_bytes(), revision: Revision(n as u64 + 1) }
}

#[test]
fn a_workload_endpoint_is_held_in_at_most_1200_bytes() {
    const COUNT: usize = 10_000;
    let (snapshot, used) = used_by(|| {
        let mut snapshot = Snapshot::default();
        for n in 0..COUNT {
            snapshot.apply(Update::from_entry(&stored(n)).unwrap());
        }
        snapshot
    });
    assert_eq!(snapshot.workloads.len(), COUNT);
    let each = used.bytes.unsigned_abs() / COUNT;
    assert!(each <= 1200, "{each} bytes each");
}
