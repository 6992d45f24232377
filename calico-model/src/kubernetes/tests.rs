use serde_json::{Value, json};

use super::*;
use crate::net::Protocol;
use crate::resource::Document;
use crate::resource::policy::{Action, PolicyType};

fn policy(spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
           "metadata": {"name": "p", "namespace": "ns"}, "spec": spec})
}

#[test]
fn a_namespace_and_a_service_account_become_profiles() {
    let meta = json!({"metadata": {"name": "web", "namespace": "ns", "labels": {"team": "a"}}});
    let profile = namespace(&meta).unwrap();
    assert_eq!(profile.metadata.name.as_str(), "kns.web");
    assert_eq!(profile.spec.labels_to_apply.get("pcns.team"), Some("a"));
    assert_eq!(profile.spec.labels_to_apply.get("pcns.projectcalico.org/name"), Some("web"));
    assert_eq!((profile.spec.ingress.len(), profile.spec.egress.len()), (1, 1));
    let profile = service_account(&meta).unwrap();
    assert_eq!(profile.metadata.name.as_str(), "ksa.ns.web");
    assert!(profile.spec.ingress.is_empty());
    assert_eq!(profile.spec.labels_to_apply.get("pcsa.team"), Some("a"));
}

#[test]
fn names_and_labels_that_are_as_long_as_can_be_make_profiles_that_can_be_stored() {
    let name = "builder.".repeat(20) + "bot";
    let labels = json!({"k".repeat(63): "longest", format!("{}/k", "prefix.".repeat(36) + "p"): "all"});
    let meta = json!({"metadata": {"name": name, "namespace": "ns", "labels": labels}});
    for profile in [namespace(&meta).unwrap(), service_account(&meta).unwrap()] {
        let stored = Document::from(&crate::resource::Resource::from(profile.clone()));
        assert_eq!(stored.check().unwrap(), profile.into());
    }
}

#[test]
fn an_empty_pod_selector_means_every_pod_and_absent_types_follow_the_rules() {
    let converted = network_policy(&policy(json!({"podSelector": {}}))).unwrap();
    let spec = &converted.object.spec;
    assert_eq!(converted.object.metadata.name.as_str(), "knp.default.p");
    assert_eq!(spec.selector.to_string(), "projectcalico.org/orchestrator == \"k8s\"");
    assert_eq!(spec.types, [PolicyType::Ingress]);
    let both = network_policy(&policy(json!({"podSelector": {}, "egress": [{}]}))).unwrap().object.spec;
    assert_eq!(both.types, [PolicyType::Ingress, PolicyType::Egress]);
    assert_eq!(both.egress, [Rule::allow()]);
}

#[test]
fn every_operator_becomes_a_term() {
    let selector = json!({"matchLabels": {"b": "1", "a": "2"}, "matchExpressions": [
        {"key": "d", "operator": "NotIn", "values": ["y", "x"]}, {"key": "c", "operator": "In", "values": ["x"]},
        {"key": "e", "operator": "Exists"}, {"key": "f", "operator": "DoesNotExist"}]});
    let spec = network_policy(&policy(json!({"podSelector": selector}))).unwrap().object.spec;
    let expected = "(projectcalico.org/orchestrator == \"k8s\" && a == \"2\" && b == \"1\" && c in {\"x\"} && \
                    d not in {\"x\", \"y\"} && has(e) && !has(f))";
    assert_eq!(spec.selector.to_string(), expected);
}

#[test]
fn one_rule_is_made_for_each_protocol_and_peer_with_ports_merged() {
    let rule = json!({"from": [{"podSelector": {}}, {"namespaceSelector": {}}],
                      "ports": [{"port": 80}, {"port": 81}, {"port": 90, "endPort": 95}, {"port": "dns", "protocol": "UDP"},
                                {"port": 53, "protocol": "UDP"}]});
    let spec = network_policy(&policy(json!({"podSelector": {}, "ingress": [rule]}))).unwrap().object.spec;
    assert_eq!(spec.ingress.len(), 4);
    let ports =
        |i: usize| spec.ingress[i].destination.ports.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ports(0), ["80:81", "90:95"]);
    assert_eq!(ports(2), ["53", "dns"]);
    assert_eq!(spec.ingress[1].source.selector, None);
    assert_eq!(
        spec.ingress[1].source.namespace_selector.as_ref().map(ToString::to_string).as_deref(),
        Some("all()")
    );
}

#[test]
fn a_rule_that_cannot_be_converted_is_left_out_and_reported() {
    let bad = json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}]});
    let worse = json!({"from": [{"ipBlock": {"cidr": "nonsense"}}]});
    let good = json!({"from": [{"ipBlock": {"cidr": "10.0.0.1/8", "except": ["10.1.0.0/16"]}}]});
    let converted =
        network_policy(&policy(json!({"podSelector": {}, "ingress": [bad, worse, good]}))).unwrap();
    assert_eq!(converted.object.spec.ingress.len(), 1);
    assert_eq!(converted.object.spec.ingress[0].source.nets[0].to_string(), "10.0.0.0/8");
    let paths: Vec<&str> = converted.faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["spec.ingress[0].from[0].except[0]", "spec.ingress[1].from[0].ipBlock.cidr"]);
}

#[test]
fn a_block_of_which_everything_is_excepted_matches_nothing() {
    let rule = json!({"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["0.0.0.0/0"]}}]});
    let converted = network_policy(&policy(json!({"podSelector": {}, "ingress": [rule]}))).unwrap();
    let selector = converted.object.spec.ingress[0].source.selector.clone().unwrap();
    assert!(!selector.matches(&Labels::new()));
    assert!(converted.faults.is_empty());
}

fn cluster_policy(rules: Value) -> Value {
    json!({"metadata": {"name": "c"}, "spec": {"tier": "Admin", "priority": 7, "ingress": rules,
           "subject": {"namespaces": {"matchLabels": {"house": "g"}}}}})
}

#[test]
fn a_cluster_policy_lands_in_its_tier_with_its_priority_and_rule_names() {
    let rules = json!([{"name": "r", "action": "Accept", "from": [{"pods": {"podSelector": {"matchLabels": {"a": "b"}}}}],
                        "protocols": [{"tcp": {"destinationPort": {"range": {"start": 1, "end": 9}}}}, {"udp": {}}]}]);
    let converted = cluster_network_policy(&cluster_policy(rules)).unwrap();
    assert_eq!(converted.faults, []);
    let spec = &converted.object.spec;
    assert_eq!((spec.tier.as_str(), spec.order), ("kube-admin", Some(7.0)));
    assert_eq!(spec.global.namespace_selector.as_ref().unwrap().to_string(), "house == \"g\"");
    assert_eq!(spec.types, [PolicyType::Ingress]);
    assert_eq!(spec.ingress.len(), 2);
    assert_eq!(spec.ingress[0].destination.ports[0].to_string(), "1:9");
    assert_eq!(spec.ingress[0].metadata.as_ref().unwrap().annotations["name"], "r");
}

#[test]
fn a_cluster_rule_that_cannot_be_converted_closes_unless_it_accepts() {
    let peer = json!([{"nodes": {}}]);
    for (action, expected) in [("Accept", vec![]), ("Deny", vec![Action::Deny]), ("Pass", vec![Action::Deny])]
    {
        let rules = json!([{"action": action, "from": peer}]);
        let converted = cluster_network_policy(&cluster_policy(rules)).unwrap();
        let actions: Vec<Action> = converted.object.spec.ingress.iter().map(|rule| rule.action).collect();
        assert_eq!(actions, expected, "{action}");
        assert_eq!(converted.faults.len(), 1);
        assert_eq!(converted.object.spec.types, [PolicyType::Ingress]);
    }
}

#[test]
fn a_port_that_no_rule_can_have_closes() {
    let backwards = json!({"tcp": {"destinationPort": {"range": {"start": 9, "end": 1}}}});
    for port in [json!({"destinationNamedPort": "?"}), json!({"destinationNamedPort": "80"}), backwards] {
        let rules = json!([{"action": "Deny", "from": [{"namespaces": {}}], "protocols": [port]}]);
        let converted = cluster_network_policy(&cluster_policy(rules)).unwrap();
        assert_eq!(converted.object.spec.ingress, [Rule::new(Action::Deny)]);
        let path = &converted.faults[0].path;
        assert!(path.starts_with("spec.ingress[0].protocols[0]"), "{path}");
    }
}

#[test]
fn nodes_are_destinations_by_their_automatic_host_endpoints_and_denying_them_denies_everything() {
    let nodes = json!([{"nodes": {"matchLabels": {"kubernetes.io/os": "linux"}}}]);
    let converted = |action: &str| {
        let mut policy = cluster_policy(json!([]));
        policy["spec"]["egress"] = json!([{"action": action, "to": nodes}]);
        cluster_network_policy(&policy).unwrap()
    };
    for (action, expected) in [("Accept", Action::Allow), ("Pass", Action::Pass)] {
        let made = converted(action);
        assert_eq!(made.faults, []);
        let [rule] = made.object.spec.egress.as_slice() else { panic!("one rule") };
        assert_eq!(rule.action, expected);
        let end = &rule.destination;
        assert_eq!(end.namespace_selector.as_ref().unwrap().to_string(), "global()");
        let selector = end.selector.as_ref().unwrap().to_string();
        assert!(selector.contains("kubernetes.io/os == \"linux\""), "{selector}");
        assert!(
            selector.contains("projectcalico.org/created-by == \"calico-kube-controllers\""),
            "{selector}"
        );
    }
    let denied = converted("Deny");
    assert_eq!(denied.faults.len(), 1);
    assert_eq!(denied.object.spec.egress, [Rule::new(Action::Deny)]);
}

#[test]
fn a_pod_becomes_an_endpoint_unless_it_has_none() {
    let make = |spec: Value, status: Value| {
        json!({"metadata": {"name": "nginx", "namespace": "default", "labels": {"app": "web"},
                            "uid": "00112233-4455-6677-8899-aabbccddeeff"}, "spec": spec, "status": status})
    };
    let spec = json!({"nodeName": "node-1", "serviceAccountName": "sa",
                      "containers": [{"ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}]}]});
    let endpoint = pod(&make(spec.clone(), json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]})))
        .unwrap()
        .unwrap();
    assert_eq!(endpoint.metadata.name.as_str(), "node--1-k8s-nginx-eth0");
    assert_eq!(endpoint.metadata.uid.as_deref(), Some("008844cc-22aa-66ee-8899-55dd33bb77ff"));
    assert_eq!(endpoint.metadata.labels.get(SERVICE_ACCOUNT_LABEL), Some("sa"));
    assert_eq!(
        endpoint.spec.profiles.iter().map(Name::as_str).collect::<Vec<_>>(),
        ["kns.default", "ksa.default.sa"]
    );
    assert_eq!(endpoint.spec.ip_networks.len(), 2);
    assert_eq!(endpoint.spec.ports.len(), 1);
    assert_eq!(endpoint.spec.interface_name.as_ref().unwrap().as_str(), "calic440f455693");
    let finished =
        pod(&make(spec.clone(), json!({"phase": "Succeeded", "podIP": "10.0.0.1"}))).unwrap().unwrap();
    assert!(finished.spec.ip_networks.is_empty());
    // One that is being deleted keeps its address until the CNI plugin says that the sandbox is gone.
    for (annotation, addresses) in [("10.0.0.1/32", 1), ("", 0)] {
        let mut terminating = make(spec.clone(), json!({"phase": "Running", "podIP": "10.0.0.1"}));
        terminating["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        terminating["metadata"]["annotations"] = json!({"cni.projectcalico.org/podIP": annotation});
        assert_eq!(pod(&terminating).unwrap().unwrap().spec.ip_networks.len(), addresses, "{annotation:?}");
    }
    assert_eq!(pod(&make(json!({"hostNetwork": true, "nodeName": "n"}), json!({}))).unwrap(), None);
    assert_eq!(pod(&make(json!({}), json!({}))).unwrap(), None);
}

#[test]
fn what_a_pod_calls_its_container_and_ports_is_taken_only_when_an_endpoint_can_say_it() {
    let annotated = |id: &str| {
        let pod_of = json!({"metadata": {"name": "p", "namespace": "ns", "annotations": {"cni.projectcalico.org/containerID": id}},
                            "spec": {"nodeName": "n1"}});
        pod(&pod_of).unwrap().unwrap().spec.container_id
    };
    assert_eq!(annotated("1f0a-b_c.d"), "1f0a-b_c.d");
    assert_eq!(annotated("]"), "");
    let ports = json!([{"name": "a,b", "containerPort": 80}, {"name": "http", "containerPort": 81}]);
    let named = json!({"metadata": {"name": "p", "namespace": "ns"},
                       "spec": {"nodeName": "n1", "containers": [{"ports": ports}]}});
    assert_eq!(pod(&named).unwrap().unwrap().spec.ports.len(), 1);
}

#[test]
fn a_service_and_its_slices_keep_their_addresses_and_what_else_they_say_is_left_out() {
    let meta = json!({"name": "web", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}});
    let value = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta,
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd96::1"], "externalIPs": ["192.0.2.1"],
                 "externalTrafficPolicy": "Local", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}, {"hostname": "lb.example.org"}]}},
    });
    let made = service(&value).unwrap();
    assert_eq!(
        made.key().datastore_key().as_str(),
        "/calico/resources/v3/projectcalico.org/kubernetesservices/shop/web"
    );
    assert_eq!(made.spec.cluster_ip, Some("10.96.0.1".parse().unwrap()));
    assert_eq!(made.spec.load_balancer_ips, ["192.0.2.9".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(
        made.spec.cluster_ips,
        ["10.96.0.1", "fd96::1"].map(|a| a.parse::<std::net::IpAddr>().unwrap())
    );
    let headless = json!({"metadata": meta, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
    let headless = service(&headless).unwrap().spec;
    assert_eq!((headless.cluster_ip, headless.cluster_ips), (None, Vec::new()));

    let mut value = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false, "serving": true}, "nodeName": "n", "zone": "z"},
                      {"addresses": ["10.0.0.2"], "targetRef": {"kind": "Pod"}}],
        "ports": [{"name": "http", "port": 8080}, {"protocol": "UDP"}, {"protocol": "SCTP", "port": 5}],
    });
    let slice = endpoint_slice(&value).unwrap();
    assert_eq!(slice.service().unwrap().to_string(), "shop/web");
    assert_eq!(
        slice.spec.addresses().map(|addr| addr.to_string()).collect::<Vec<_>>(),
        ["10.0.0.1", "10.0.0.2"]
    );
    assert_eq!(
        slice.spec.numbered_ports().collect::<Vec<_>>(),
        [(Protocol::TCP, 8_080), (Protocol::SCTP, 5)]
    );
    let stored = to_v3(&value).unwrap();
    assert_eq!(stored.check_input().unwrap(), slice.into());
    value["endpoints"] = json!([{"addresses": ["db.example.org"]}]);
    assert!(endpoint_slice(&value).unwrap_err().to_string().contains("endpoints[0].addresses[0]"));
    value["addressType"] = json!("FQDN");
    assert_eq!(endpoint_slice(&value).unwrap().spec.endpoints, []);
}
