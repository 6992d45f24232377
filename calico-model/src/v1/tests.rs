use serde_json::{Value, json};

use super::*;
use crate::resource::policy::{Action, PolicyType};
use crate::resource::{EncapMode, Resource};

fn v1(kind: &str, metadata: Value, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})
}

fn checked(value: &Value) -> Resource {
    to_v3(value).unwrap().check_input().unwrap()
}

fn faults(value: &Value) -> Vec<String> {
    match to_v3(value) {
        Err(ReadError::Invalid { faults, .. }) => faults.0.into_iter().map(|fault| fault.path).collect(),
        other => panic!("expected faults, got {other:?}"),
    }
}

#[test]
fn a_pool_is_named_by_its_network_and_its_encapsulation_has_three_states() {
    let mode = |spec| {
        let Resource::IpPool(pool) = checked(&v1("ipPool", json!({"cidr": "192.168.0.0/16"}), spec)) else {
            panic!("another kind")
        };
        (pool.metadata.name.as_str().to_owned(), pool.spec.ipip_mode)
    };
    let name = || "192-168-0-0-16".to_owned();
    assert_eq!(mode(json!({"nat-outgoing": true})), (name(), EncapMode::Never));
    assert_eq!(mode(json!({"ipip": {"enabled": true}})), (name(), EncapMode::Always));
    assert_eq!(mode(json!({"ipip": {"enabled": true, "mode": "always"}})), (name(), EncapMode::Always));
    assert_eq!(
        mode(json!({"ipip": {"enabled": true, "mode": "cross-subnet"}})),
        (name(), EncapMode::CrossSubnet)
    );
    assert_eq!(mode(json!({"ipip": {"enabled": false, "mode": "cross-subnet"}})), (name(), EncapMode::Never));
    assert_eq!(
        faults(&v1("ipPool", json!({"cidr": "10.0.0.0/16"}), json!({"ipip": {"mode": "on"}}))),
        ["spec.ipip.mode"]
    );
}

#[test]
fn a_node_and_a_host_endpoint_keep_their_addresses_and_labels() {
    let bgp = json!({"bgp": {"asNumber": "1.10", "ipv4Address": "10.244.0.1/24",
                             "ipv6Address": "2001:db8:85a3::8a2e:370:7334/120"}});
    let Resource::Node(node) = checked(&v1("node", json!({"name": "node-hostname"}), bgp)) else { panic!() };
    assert_eq!(node.spec.addr(Family::V4).unwrap().to_string(), "10.244.0.1/24");
    assert_eq!(node.spec.bgp.unwrap().as_number.unwrap().get(), 65546);
    let host = v1(
        "hostEndpoint",
        json!({"name": "eth0", "node": "myhost", "labels": {"type": "production"}}),
        json!({"interfaceName": "eth0", "expectedIPs": ["192.168.0.1", "192.168.0.2"], "profiles": ["profile1", "k8s_ns.x"]}),
    );
    let Resource::HostEndpoint(host) = checked(&host) else { panic!() };
    assert_eq!(host.metadata.name.as_str(), "myhost.eth0");
    assert_eq!(host.metadata.labels.get("type"), Some("production"));
    assert_eq!(
        host.spec.profiles.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        ["profile1", "kns.x"]
    );
    assert_eq!(host.spec.expected_ips.len(), 2);
}

#[test]
fn a_policy_becomes_global_with_its_rules_in_todays_words() {
    let policy = v1(
        "policy",
        json!({"name": "allow.tcp-6379", "annotations": {"a": "b"}}),
        json!({
            "selector": "role == 'database' && calico/k8s_ns == 'x'",
            "order": 0,
            "ingress": [{"action": "allow", "protocol": "tcp", "source": {"selector": "role == 'frontend'", "tag": "t"},
                         "destination": {"ports": [6379, "1:2"]}},
                        {"action": "next-tier", "source": {"notSelector": "a == 'b'", "notTag": "t", "net": "10.0.0.0/8"}}],
            "egress": [{}],
        }),
    );
    let Resource::GlobalNetworkPolicy(made) = checked(&policy) else { panic!() };
    assert_eq!(made.metadata.name.as_str(), "allow-tcp-6379");
    assert_eq!(made.metadata.annotations["a"], "b");
    assert_eq!(
        made.spec.selector.to_string(),
        "(role == \"database\" && projectcalico.org/namespace == \"x\")"
    );
    assert_eq!(made.spec.types, [PolicyType::Ingress, PolicyType::Egress]);
    let rules = &made.spec.ingress;
    assert_eq!(rules[0].source.selector.as_ref().unwrap().to_string(), "(role == \"frontend\" && t == \"\")");
    assert_eq!(rules[0].destination.ports.len(), 2);
    assert_eq!(rules[1].action, Action::Pass);
    assert_eq!(rules[1].source.nets[0].to_string(), "10.0.0.0/8");
    assert_eq!(rules[1].source.not_selector.as_ref().unwrap().to_string(), "(a == \"b\" || t == \"\")");
    assert_eq!(made.spec.egress[0].action, Action::Allow);
}

#[test]
fn a_policy_before_tracking_or_translation_applies_to_forwarded_traffic() {
    let policy =
        v1("policy", json!({"name": "p"}), json!({"doNotTrack": true, "ingress": [{"action": "deny"}]}));
    let Resource::GlobalNetworkPolicy(made) = checked(&policy) else { panic!() };
    assert!(made.spec.global.do_not_track && made.spec.global.apply_on_forward);
    let bad = v1("policy", json!({"name": "p"}), json!({"preDNAT": true, "egress": [{}]}));
    assert_eq!(faults(&bad), ["spec.egress"]);
}

#[test]
fn a_profiles_tags_become_labels_without_a_value() {
    let rules = json!({"ingress": [{"action": "deny", "source": {"net": "10.0.20.0/24"}},
                                   {"action": "allow", "source": {"selector": "profile == 'profile1'"}}],
                       "egress": [{"action": "allow"}]});
    let metadata = json!({"name": "profile1", "labels": {"profile": "profile1"}, "tags": ["t"]});
    let Resource::Profile(made) = checked(&v1("profile", metadata, rules)) else { panic!() };
    assert_eq!(made.spec.labels_to_apply, Labels::from([("profile", "profile1"), ("t", "")]));
    assert_eq!(made.spec.ingress[0].source.nets.len(), 1);
    let clash = json!({"name": "p", "labels": {"t": "x"}, "tags": ["t"]});
    assert_eq!(faults(&v1("profile", clash, json!({}))), ["metadata.tags[0]"]);
}

#[test]
fn a_peer_is_named_by_its_address_and_its_node() {
    let name = |metadata| {
        let Resource::BgpPeer(peer) = checked(&v1("bgpPeer", metadata, json!({"asNumber": 64512}))) else {
            panic!("another kind")
        };
        peer.metadata.name.as_str().to_owned()
    };
    assert_eq!(name(json!({"scope": "global", "peerIP": "192.20.30.40"})), "192-20-30-40");
    let node = json!({"scope": "node", "node": "rack1-host1", "peerIP": "2001:db8::1"});
    assert_eq!(name(node), "rack1-host1.2001-0db8-0000-0000-0000-0000-0000-0001");
    let bad = json!({"scope": "global", "node": "n", "peerIP": "1.2.3.4"});
    assert_eq!(faults(&v1("bgpPeer", bad, json!({"asNumber": 1}))), ["metadata.node"]);
}

#[test]
fn a_workload_of_kubernetes_is_in_its_namespace_and_others_in_the_default_one() {
    let make = |orchestrator: &str, workload: &str| {
        let metadata = json!({"node": "n-1", "orchestrator": orchestrator, "workload": workload, "name": "eth0",
                              "activeInstanceID": "abc", "labels": {"calico/k8s_ns": "ns"}});
        let spec =
            json!({"ipNetworks": ["10.0.0.1/32"], "mac": "ee:ee:ee:ee:ee:ee", "interfaceName": "cali1"});
        let Resource::WorkloadEndpoint(made) = checked(&v1("workloadEndpoint", metadata, spec)) else {
            panic!()
        };
        made
    };
    let pod = make("k8s", "ns.pod-1");
    assert_eq!((pod.metadata.name.as_str(), pod.spec.pod.as_str()), ("n--1-k8s-pod--1-eth0", "pod-1"));
    assert_eq!(pod.metadata.namespace.as_ref().map(|ns| ns.as_str()), Some("ns"));
    assert_eq!(pod.metadata.labels.get("projectcalico.org/namespace"), Some("ns"));
    assert_eq!(pod.spec.container_id, "abc");
    let docker = make("libnetwork", "libnetwork");
    assert_eq!(docker.metadata.name.as_str(), "n--1-libnetwork-libnetwork-eth0");
    assert_eq!(docker.metadata.namespace.as_ref().map(|ns| ns.as_str()), Some("default"));
}

#[test]
fn a_name_that_had_to_change_gets_a_suffix_of_its_own() {
    assert_eq!(normalized("plain.name-1"), "plain.name-1");
    // printf My_Policy | sha1sum
    assert_eq!(normalized("My_Policy"), "my-policy-25c5e100");
    assert!(normalized("a//b").starts_with("a.b-"));
}

#[test]
fn unknown_fields_and_kinds_are_refused() {
    let pool = v1("ipPool", json!({"cidr": "10.0.0.0/16", "name": "x"}), json!({"natOutgoing": true}));
    let Err(ReadError::UnknownFields { fields, .. }) = to_v3(&pool) else { panic!("accepted") };
    let told: Vec<String> = fields.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["metadata.name", "spec.natOutgoing (did you mean nat-outgoing?)"]);
    assert!(matches!(to_v3(&v1("banana", json!({}), json!({}))), Err(ReadError::UnknownKind(_))));
    assert!(!is_v1(&json!({"apiVersion": "v1", "kind": "Pod"})));
}

#[test]
fn what_was_converted_converts_back_to_what_it_was() {
    let pool = v1(
        "ipPool",
        json!({"cidr": "10.1.0.0/16"}),
        json!({"ipip": {"enabled": true, "mode": "cross-subnet"}, "nat-outgoing": true, "disabled": false}),
    );
    assert_eq!(from_v3(&checked(&pool)), Some(pool));
    let policy = v1(
        "policy",
        json!({"name": "p"}),
        json!({"selector": "a == \"b\"", "order": 10, "types": ["ingress"], "egress": [],
               "ingress": [{"action": "allow", "protocol": "tcp", "source": {"nets": ["10.0.0.0/8"]},
                            "destination": {"ports": [80]}}]}),
    );
    assert_eq!(from_v3(&checked(&policy)), Some(policy));
    let peer =
        v1("bgpPeer", json!({"scope": "node", "node": "n", "peerIP": "1.2.3.4"}), json!({"asNumber": 65000}));
    assert_eq!(from_v3(&checked(&peer)), Some(peer));
    let tier =
        crate::resource::Object::new("t".parse().unwrap(), crate::resource::Tier::reserved()[0].1.clone());
    assert_eq!(from_v3(&tier.into()), None);
}
