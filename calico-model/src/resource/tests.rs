use serde_json::{Value, json};

use super::*;
use crate::wire::UnknownField;

fn document(kind: &str, metadata: Value, spec: Value) -> Document {
    Document::from_value(json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}))
        .unwrap()
}

fn faults(document: &Document) -> Vec<String> {
    match document.check_input() {
        Err(ReadError::Invalid { faults, .. }) => faults.0.into_iter().map(|fault| fault.path).collect(),
        other => panic!("expected faults, got {other:?}"),
    }
}

#[test]
fn every_fault_of_a_policy_is_reported_with_its_path() {
    let policy = document(
        "NetworkPolicy",
        json!({"name": "Bad_Name", "namespace": "default"}),
        json!({
            "selector": "role = 'db'",
            "order": "first",
            "ingress": [
                {"action": "Allow", "protocol": "tcp"},
                {"action": "Permit"},
                {"action": "Allow", "protocol": "TCP", "source": {"ports": [70000, "http", "9:1"], "nets": ["10.0.0.1/8"]}},
            ],
        }),
    );
    let expected = [
        "metadata.name",
        "spec.order",
        "spec.selector",
        "spec.ingress[0].protocol",
        "spec.ingress[1].action",
        "spec.ingress[2].source.nets[0]",
        "spec.ingress[2].source.ports[0]",
        "spec.ingress[2].source.ports[2]",
    ];
    assert_eq!(faults(&policy), expected);
}

#[test]
fn unknown_fields_are_refused_from_users_and_kept_from_the_datastore() {
    let pool = document(
        "IPPool",
        json!({"name": "p"}),
        json!({"cidr": "10.0.0.0/16", "future": 1, "natOutgoing": true}),
    );
    let Err(ReadError::UnknownFields { fields, .. }) = pool.check_input() else { panic!("accepted") };
    assert_eq!(fields, [UnknownField { path: "spec.future".to_owned(), meant: None }]);
    let Resource::IpPool(mut checked) = pool.check().unwrap() else { panic!("another kind") };
    checked.spec.nat_outgoing = false;
    checked.spec.disabled = true;
    let merged = pool.merged_with(&checked.into());
    assert_eq!(merged.value()["spec"]["future"], 1);
    assert_eq!(merged.value()["spec"].get("natOutgoing"), None);
    assert_eq!(merged.value()["spec"]["disabled"], true);
}

#[test]
fn a_global_policy_knows_the_fields_of_both_its_parts_and_no_others() {
    let spec = json!({"selector": "all()", "applyOnForward": true, "doNotTrack": true, "nonsense": 1,
                      "ingress": [{"action": "Allow", "source": {"nonsense": 2}}]});
    let policy = document("GlobalNetworkPolicy", json!({"name": "g"}), spec);
    let Err(ReadError::UnknownFields { fields, .. }) = policy.check_input() else { panic!("accepted") };
    let paths: Vec<&str> = fields.iter().map(|field| field.path.as_str()).collect();
    assert_eq!(paths, ["spec.ingress[0].source.nonsense", "spec.nonsense"]);
    let Resource::GlobalNetworkPolicy(checked) = policy.check().unwrap() else { panic!("another kind") };
    assert!(checked.spec.global.do_not_track);
    assert_eq!(checked.spec.types, [PolicyType::Ingress]);
}

#[test]
fn a_pool_gets_the_block_size_of_its_family_and_obeys_its_limits() {
    let read = |spec| document("IPPool", json!({"name": "p"}), spec).check();
    let Resource::IpPool(six) = read(json!({"cidr": "fd00::/64"})).unwrap() else { panic!("another kind") };
    assert_eq!(six.spec.block_size, 122);
    for bad in [
        json!({"cidr": "10.0.0.0/27"}),
        json!({"cidr": "10.0.0.0/16", "blockSize": 19}),
        json!({"cidr": "169.254.0.0/17"}),
        json!({"cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "Always"}),
        json!({"cidr": "fd00::/64", "ipipMode": "Always"}),
        json!({"cidr": "10.0.0.0/16", "nodeSelector": "global()"}),
        json!({}),
    ] {
        assert!(read(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn types_follow_the_rules_when_they_are_absent() {
    let types = |spec: Value| {
        let metadata = json!({"name": "p", "namespace": "default"});
        let read = document("NetworkPolicy", metadata, spec).check().unwrap();
        let Resource::NetworkPolicy(policy) = read else { panic!("another kind") };
        policy.spec.types.clone()
    };
    let rule = json!([{"action": "Allow"}]);
    assert_eq!(types(json!({})), [PolicyType::Ingress]);
    assert_eq!(types(json!({"egress": rule})), [PolicyType::Egress]);
    assert_eq!(types(json!({"ingress": rule, "egress": rule})), [PolicyType::Ingress, PolicyType::Egress]);
}

#[test]
fn a_namespaced_kind_needs_a_namespace_and_others_refuse_one() {
    let metadata = json!({"name": "x", "namespace": "default"});
    assert_eq!(faults(&document("Tier", metadata, json!({}))), ["metadata.namespace"]);
    assert_eq!(faults(&document("NetworkSet", json!({"name": "x"}), json!({}))), ["metadata.namespace"]);
}

#[test]
fn keys_are_those_of_calico_and_read_back() {
    let policy = document("NetworkPolicy", json!({"name": "p", "namespace": "ns1"}), json!({}));
    let key = policy.key().unwrap();
    let path = key.datastore_key();
    assert_eq!(path.as_str(), "/calico/resources/v3/projectcalico.org/networkpolicies/ns1/p");
    assert_eq!(ResourceKey::from_datastore_key(&path), Some(key));
}

#[test]
fn a_resource_written_and_read_again_is_the_same() {
    let spec = json!({
        "tier": "default", "order": 10.5, "selector": "has(a)", "types": ["Ingress"],
        "ingress": [{
            "action": "Deny", "ipVersion": 4, "protocol": 132, "notProtocol": "UDP",
            "source": {"nets": ["10.0.0.0/8"], "selector": "a == 'b'", "ports": [80, "1:2", "http"]},
            "destination": {"notNets": ["10.1.0.0/16"], "notPorts": [22]},
        }],
    });
    let resource =
        document("NetworkPolicy", json!({"name": "p", "namespace": "n", "labels": {"x": "y"}}), spec);
    let resource = resource.check_input().unwrap();
    assert_eq!(Document::from(&resource).check_input().unwrap(), resource);
}

#[test]
fn a_staged_policy_is_a_policy_that_is_not_in_force() {
    let metadata = || json!({"name": "s", "namespace": "default"});
    let spec = json!({"stagedAction": "Set", "selector": "a == 'b'", "ingress": [{"action": "Allow"}]});
    let read = document("StagedNetworkPolicy", metadata(), spec).check_input().unwrap();
    let Resource::StagedNetworkPolicy(staged) = &read else { panic!("another kind") };
    assert_eq!(staged.spec.ingress.len(), 1);
    assert_eq!(Document::from(&read).check_input().unwrap(), read);
    let deletion = document("StagedNetworkPolicy", metadata(), json!({"stagedAction": "Delete", "order": 1}));
    assert_eq!(faults(&deletion), ["spec.order"]);
    let global = json!({"stagedAction": "Set", "applyOnForward": true, "tier": "x"});
    let global = document("StagedGlobalNetworkPolicy", json!({"name": "g"}), global).check_input().unwrap();
    assert_eq!(Document::from(&global).check_input().unwrap(), global);
}

#[test]
fn a_filter_says_what_is_wrong_with_each_of_its_rules() {
    let filter = document(
        "BGPFilter",
        json!({"name": "f"}),
        json!({
            "exportV4": [
                {"action": "Accept", "cidr": "fd00::/64", "matchOperator": "In"},
                {"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"max": 33}},
            ],
            "importV6": [{"action": "Reject", "cidr": "fd00::/64", "matchOperator": "Equal",
                          "prefixLength": {"min": 64, "max": 128}}],
        }),
    );
    assert_eq!(faults(&filter), ["spec.exportV4[0].cidr", "spec.exportV4[1].prefixLength.max"]);
    let rule =
        |rule: Value| faults(&document("BGPFilter", json!({"name": "f"}), json!({"importV4": [rule]})));
    let operation = json!([{"addCommunity": {"value": "1:2"}}]);
    assert_eq!(rule(json!({"action": "Reject", "operations": operation})), ["spec.importV4[0].operations"]);
    assert_eq!(rule(json!({"action": "Accept", "operations": [{}]})), ["spec.importV4[0].operations[0]"]);
    assert_eq!(rule(json!({"action": "Accept", "cidr": "10.0.0.0/8"})), ["spec.importV4[0].matchOperator"]);
}

#[test]
fn an_ipam_configuration_that_contradicts_itself_is_refused() {
    let read = |spec| document("IPAMConfiguration", json!({"name": "default"}), spec).check();
    assert!(read(json!({})).is_ok());
    assert!(read(json!({"strictAffinity": true, "maxBlocksPerHost": 4})).is_ok());
    assert!(read(json!({"maxBlocksPerHost": 4})).is_err());
    assert!(read(json!({"autoAllocateBlocks": false})).is_err());
    assert!(read(json!({"ipCooldownSeconds": 1201})).is_err());
}

#[test]
fn a_field_in_another_case_is_refused_with_the_one_that_is_meant() {
    let told = |kind: &str, spec: Value| {
        document(kind, json!({"name": "default"}), spec).check_input().unwrap_err().to_string()
    };
    for (kind, spec, expected) in [
        (
            "KubeControllersConfiguration",
            json!({"controllers": {"loadbalancer": {}}}),
            "spec.controllers.loadbalancer (did you mean loadBalancer?)",
        ),
        (
            "IPPool",
            json!({"cidr": "10.0.0.0/16", "nat-outgoing": true}),
            "spec.nat-outgoing (did you mean natOutgoing?)",
        ),
        ("GlobalNetworkPolicy", json!({"prednat": true}), "spec.prednat (did you mean preDNAT?)"),
        ("GlobalNetworkPolicy", json!({"Selector": "all()"}), "spec.Selector (did you mean selector?)"),
    ] {
        let said = told(kind, spec);
        assert!(said.ends_with(&format!("{kind} does not know: {expected}")), "{said}");
    }
    let mut pool = document("IPPool", json!({"name": "p"}), json!({"cidr": "10.0.0.0/16"}));
    pool.value_mut()["Spec"] = json!({});
    assert!(pool.check_input().unwrap_err().to_string().ends_with("Spec (did you mean spec?)"));
}

#[test]
fn a_status_is_checked_when_it_is_written_and_let_be_when_it_is_stored() {
    let with = |kind: &str, spec: Value, status: Value| {
        let mut document = document(kind, json!({"name": "default"}), spec);
        document.value_mut()["status"] = status;
        document
    };
    let sound = json!({
        "agent": {"birdV4": {"state": "Ready", "version": "2", "routerID": "10.0.0.1", "lastBootTime": "t", "lastReconfigurationTime": "t"}},
        "bgp": {"numberEstablishedV4": 1, "peersV4": [{"peerIP": "10.0.0.2", "type": "NodeMesh", "state": "Established", "since": "t"}]},
        "routes": {"routesV4": [{"type": "FIB", "destination": "10.1.0.0/26", "gateway": "10.0.0.2", "interface": "eth0",
                                 "learnedFrom": {"sourceType": "BGPPeer", "peerIP": "10.0.0.2"}}]},
        "lastUpdated": "2026-01-02T03:04:05Z",
    });
    with("CalicoNodeStatus", json!({"node": "n"}), sound).check_input().unwrap();
    for (kind, spec, status, expected) in [
        (
            "CalicoNodeStatus",
            json!({"node": "n"}),
            json!({"bgp": {"numberEstablishedV4": "1", "peersV4": [{"type": "Friend", "state": "Up"}]}, "routes": []}),
            vec![
                "status.bgp.numberEstablishedV4",
                "status.bgp.peersV4[0].type",
                "status.bgp.peersV4[0].state",
                "status.routes",
            ],
        ),
        (
            "IPPool",
            json!({"cidr": "10.0.0.0/16"}),
            json!({"conditions": [{"type": "Allocatable", "status": "Yes"}]}),
            vec!["status.conditions[0].status"],
        ),
        (
            "Node",
            json!({}),
            json!({"podCIDRs": ["10.0.0.0"], "wireguardPublicKey": 1}),
            vec!["status.wireguardPublicKey"],
        ),
        (
            "KubeControllersConfiguration",
            json!({}),
            json!({"environmentVars": {"A": 1}}),
            vec!["status.environmentVars.A"],
        ),
        ("Tier", json!({}), json!("ready"), vec!["status"]),
    ] {
        let document = with(kind, spec, status);
        let Err(ReadError::Invalid { faults, .. }) = document.check_input() else {
            panic!("{kind} accepted")
        };
        let paths: Vec<&str> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
        assert!(expected.iter().all(|path| paths.contains(path)), "{paths:?}");
        document.check().unwrap();
    }
}
