use serde_json::{Value, json};

use super::*;
use crate::resource::PolicyType;
use crate::revision::Revision;

fn entry(key: &str, value: &Value) -> Entry {
    Entry { key: key.parse().unwrap(), value: value.to_string().into_bytes(), revision: Revision(1) }
}

fn policy_entry(spec: &Value) -> Entry {
    let value = json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
                       "metadata": {"name": "p", "namespace": "ns"}, "spec": spec});
    entry("/calico/resources/v3/projectcalico.org/networkpolicies/ns/p", &value)
}

fn only_policy(snapshot: &Snapshot) -> &NetworkPolicy {
    &snapshot.policies.values().next().expect("a policy").spec
}

#[test]
fn an_invalid_policy_that_was_never_good_selects_what_it_can_and_allows_nothing() {
    let bad = json!({"selector": "role == 'db'", "order": 3, "types": ["Ingress"],
                     "ingress": [{"action": "Allow", "protocol": "nonsense"}]});
    let mut snapshot = Snapshot::default();
    snapshot.apply(Update::from_entry(&policy_entry(&bad)).unwrap());
    let policy = only_policy(&snapshot);
    assert_eq!(policy.selector.to_string(), "role == \"db\"");
    assert_eq!(policy.types, [PolicyType::Ingress]);
    assert_eq!(policy.order, Some(3.0));
    assert!(policy.ingress.is_empty());
    assert_eq!(snapshot.invalid.len(), 1);
}

#[test]
fn a_policy_whose_selector_cannot_be_read_selects_everything_and_allows_nothing() {
    let bad = json!({"selector": "role = 'db'", "ingress": [{"action": "Allow"}]});
    let mut snapshot = Snapshot::default();
    snapshot.apply(Update::from_entry(&policy_entry(&bad)).unwrap());
    assert!(only_policy(&snapshot).selector.is_all());
    assert!(only_policy(&snapshot).ingress.is_empty());
    assert_eq!(only_policy(&snapshot).types, [PolicyType::Ingress, PolicyType::Egress]);
}

/// An agent that starts must not take the mesh for on, or its AS number for the default, because of another field.
#[test]
fn an_invalid_configuration_that_was_never_good_says_what_of_it_can_be_read() {
    let configuration = |spec: Value| {
        let value = json!({"apiVersion": "projectcalico.org/v3", "kind": "BGPConfiguration",
                           "metadata": {"name": "default", "labels": {"a": 1}}, "spec": spec});
        let mut snapshot = Snapshot::default();
        let key = "/calico/resources/v3/projectcalico.org/bgpconfigurations/default";
        snapshot.apply(Update::from_entry(&entry(key, &value)).unwrap());
        assert_eq!(snapshot.invalid.len(), 1);
        snapshot.bgp_configurations.values().next().expect("a configuration").spec.clone()
    };
    let sound = configuration(json!({"asNumber": 65100, "nodeToNodeMeshEnabled": false, "listenPort": 0}));
    assert_eq!(sound.as_number.unwrap().get(), 65100);
    assert_eq!((sound.node_to_node_mesh_enabled, sound.listen_port), (Some(false), None));
    let sound = configuration(json!({"asNumber": 65100, "listenPort": "none"}));
    assert_eq!((sound.as_number.unwrap().get(), sound.node_to_node_mesh_enabled), (65100, None));
    let password = json!({"secretKeyRef": {"name": "bgp", "key": "mesh"}});
    for unknown in [
        json!({"nodeToNodeMeshEnabled": "off"}),
        json!({"nodeMeshPassword": 7}),
        json!({"nodeToNodeMeshEnabled": false, "nodeMeshPassword": password}),
    ] {
        assert_eq!(configuration(unknown.clone()).node_to_node_mesh_enabled, Some(false), "{unknown}");
    }
    for unreadable in [json!([1]), json!("mesh off")] {
        assert_eq!(configuration(unreadable.clone()).node_to_node_mesh_enabled, Some(false), "{unreadable}");
    }
    // A fault that another one hides is no reason to let go of what has none.
    let sound = configuration(json!({
        "asNumber": 65100, "nodeToNodeMeshEnabled": true, "bindMode": "NodeIP",
        "communities": [{"name": "a", "value": "65000:1"}],
        "prefixAdvertisements": [{"cidr": "10.0.0.0/99", "communities": ["a"]}],
    }));
    assert_eq!((sound.as_number.unwrap().get(), sound.node_to_node_mesh_enabled), (65100, Some(true)));
    assert!(sound.bind_mode.is_some() && sound.prefix_advertisements.is_empty());
    let sound = configuration(json!({"nodeMeshPassword": password, "listenPort": 0}));
    assert!(sound.node_mesh_password.is_some() && sound.node_to_node_mesh_enabled.is_none());
}

#[test]
fn what_stands_in_follows_what_is_stored_until_something_good_has_been_there() {
    let key = "/calico/resources/v3/projectcalico.org/felixconfigurations/default";
    let mut snapshot = Snapshot::default();
    let mut store = |spec: Value| {
        let value = json!({"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
                           "metadata": {"name": "default"}, "spec": spec});
        snapshot.apply(Update::from_entry(&entry(key, &value)).unwrap());
        snapshot.felix_configurations.values().next().unwrap().spec.interface_prefix.is_some()
    };
    assert!(store(json!({"interfacePrefix": "tap", "vxlanMTU": "large"})));
    assert!(!store(json!({"vxlanMTU": "large"})));
    assert!(store(json!({"interfacePrefix": "tap"})));
    assert!(store(json!({"vxlanMTU": "large"})), "the last good form");

    let key = "/calico/resources/v3/projectcalico.org/bgpconfigurations/default";
    let broken = Entry { key: key.parse().unwrap(), value: b"{,".to_vec(), revision: Revision(1) };
    let mut snapshot = Snapshot::default();
    snapshot.apply(Update::from_entry(&broken).unwrap());
    let spec = &snapshot.bgp_configurations.values().next().expect("something stands in").spec;
    assert_eq!(spec.node_to_node_mesh_enabled, Some(false));
}

#[test]
fn an_invalid_policy_keeps_its_last_good_form_until_it_is_mended_or_deleted() {
    let good = policy_entry(&json!({"selector": "a == 'b'", "ingress": [{"action": "Allow"}]}));
    let bad = policy_entry(&json!({"selector": "a =", "ingress": [{"action": "Allow"}]}));
    let mut snapshot = Snapshot::default();
    snapshot.apply(Update::from_entry(&good).unwrap());
    snapshot.apply(Update::from_entry(&bad).unwrap());
    assert_eq!(only_policy(&snapshot).ingress.len(), 1);
    assert_eq!(snapshot.invalid.len(), 1);
    snapshot.apply(Update::from_entry(&good).unwrap());
    assert!(snapshot.invalid.is_empty());
    snapshot.apply(Update::from_entry(&bad).unwrap());
    snapshot.apply(Update::from_deletion(&bad.key).unwrap());
    assert_eq!(snapshot, Snapshot::default());
}

#[test]
fn text_that_is_not_json_is_reported_under_its_key() {
    let key = "/calico/resources/v3/projectcalico.org/ippools/p";
    let broken = Entry { key: key.parse().unwrap(), value: b"{".to_vec(), revision: Revision(1) };
    let mut snapshot = Snapshot::default();
    snapshot.apply(Update::from_entry(&broken).unwrap());
    assert!(snapshot.pools.is_empty());
    assert_eq!(snapshot.invalid.keys().next().unwrap().as_str(), key);
}

#[test]
fn own_labels_win_over_inherited_ones_and_earlier_profiles_over_later() {
    let mut snapshot = Snapshot::default();
    for (name, labels) in [("p1", [("a", "1"), ("b", "1")]), ("p2", [("b", "2"), ("c", "2")])] {
        let mut profile = Profile::allow_all();
        profile.labels_to_apply = labels.into();
        snapshot.insert(Object::new(name.parse().unwrap(), profile));
    }
    let mut endpoint = Object::new("e".parse().unwrap(), WorkloadEndpoint::on("n".parse().unwrap()));
    endpoint.metadata.labels = Labels::from([("a", "own")]);
    endpoint.spec.profiles = vec!["p1".parse().unwrap(), "missing".parse().unwrap(), "p2".parse().unwrap()];
    let labels = snapshot.workload_labels(&endpoint);
    assert_eq!(
        (labels.label("a"), labels.label("b"), labels.label("c")),
        (Some("own"), Some("1"), Some("2"))
    );
    assert_eq!(labels.merged(), Labels::from([("a", "own"), ("b", "1"), ("c", "2")]));
}
