//! The manifests of the articles that users of Calico learned from: each parses, and means what its article says.

use calico_model::manifest;
use calico_model::resource::{Action, Document, EncapMode, PolicyType, PortMatch, Resource};
use calico_model::{Family, Labels, Protocol, v1};

/// Reads the resources of a manifest, as `calicoctl create -f` does. What is of the v1 dialect must also be the same after
/// it was shown in it.
fn read(text: &str) -> Vec<Resource> {
    let all = read_once(text);
    for (resource, (_, value)) in all.iter().zip(manifest::values(text.as_bytes())) {
        if !v1::is_v1(&value.unwrap()) {
            continue;
        }
        let shown = v1::from_v3(resource).unwrap_or_else(|| panic!("v1 has no such kind: {resource:?}"));
        assert!(v1::is_v1(&shown), "{shown}");
        assert_eq!(read_once(&manifest::to_yaml(&shown)), std::slice::from_ref(resource), "{shown:#}");
    }
    all
}

fn read_once(text: &str) -> Vec<Resource> {
    let documents = manifest::parse(text.as_bytes());
    let checked = |document: Result<Document, manifest::ManifestError>| {
        document.unwrap_or_else(|e| panic!("{e}")).check_input().unwrap_or_else(|e| panic!("{e}"))
    };
    documents.into_iter().map(checked).collect()
}

fn one(text: &str) -> Resource {
    let mut all = read(text);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

macro_rules! as_kind {
    ($kind:ident, $resource:expr) => {
        match $resource {
            Resource::$kind(object) => object,
            other => panic!("another kind: {other:?}"),
        }
    };
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_pool_for_each_host_is_routed_inside_a_subnet_and_tunnelled_across() {
    for (number, name) in [(10, "172-169-10-0-24"), (20, "172-169-20-0-24"), (30, "172-169-30-0-24")] {
        let pool = as_kind!(
            IpPool,
            one(&format!(
                "apiVersion: v1\nkind: ipPool\nmetadata:\n  cidr: 172.169.{number}.0/24\nspec:\n  ipip:\n    enabled: true\n    mode: cross-subnet\n  nat-outgoing: true\n  disabled: false\n"
            ))
        );
        assert_eq!(pool.metadata.name.as_str(), name);
        assert_eq!(pool.spec.cidr.to_string(), format!("172.169.{number}.0/24"));
        assert_eq!(pool.spec.ipip_mode, EncapMode::CrossSubnet);
        assert_eq!(pool.spec.vxlan_mode, EncapMode::Never);
        assert_eq!((pool.spec.nat_outgoing, pool.spec.disabled, pool.spec.block_size), (true, false, 26));
    }
}

#[test]
fn three_states_of_one_pool_differ_in_encapsulation_alone() {
    let state = |ipip: &str| {
        let text = format!(
            "apiVersion: v1\nkind: ipPool\nmetadata:\n  cidr: 192.168.0.0/16\nspec:\n{ipip}  nat-outgoing: true\n"
        );
        as_kind!(IpPool, one(&text))
    };
    let off = state("");
    let always = state("  ipip:\n    enabled: true\n    mode: always\n");
    let cross = state("  ipip:\n    enabled: true\n    mode: cross-subnet\n");
    let modes = [&off, &always, &cross].map(|pool| pool.spec.ipip_mode);
    assert_eq!(modes, [EncapMode::Never, EncapMode::Always, EncapMode::CrossSubnet]);
    for pool in [&off, &always, &cross] {
        // The same name: applying one replaces the other.
        assert_eq!(pool.metadata.name.as_str(), "192-168-0-0-16");
        assert!(pool.spec.nat_outgoing);
    }
}

#[test]
fn a_list_may_leave_the_mode_out_which_means_always() {
    let text = "\
- apiVersion: v1
  kind: ipPool
  metadata:
    cidr: 10.20.0.0/24
  spec:
    ipip:
      enabled: true
    nat-outgoing: true
";
    let pool = as_kind!(IpPool, one(text));
    assert_eq!(pool.spec.ipip_mode, EncapMode::Always);
}

#[test]
fn a_host_endpoint_of_a_node_has_its_interface_addresses_and_profiles() {
    let text = "\
apiVersion: v1
kind: hostEndpoint
metadata:
  name: eth0
  node: myhost
  labels:
    type: production
spec:
  interfaceName: eth0
  expectedIPs:
  - 192.168.0.1
  - 192.168.0.2
  profiles:
  - profile1
  - profile2
";
    let host = as_kind!(HostEndpoint, one(text));
    assert_eq!(host.metadata.name.as_str(), "myhost.eth0");
    assert_eq!(host.metadata.labels, labels(&[("type", "production")]));
    assert_eq!(host.spec.node.as_str(), "myhost");
    assert_eq!(host.spec.interface_name.unwrap().to_string(), "eth0");
    assert_eq!(
        host.spec.expected_ips,
        ["192.168.0.1".parse::<std::net::IpAddr>().unwrap(), "192.168.0.2".parse().unwrap()]
    );
    let profiles: Vec<&str> = host.spec.profiles.iter().map(|profile| profile.as_str()).collect();
    assert_eq!(profiles, ["profile1", "profile2"]);
}

#[test]
fn a_node_has_an_as_number_and_addresses_with_their_subnets() {
    let text = "\
apiVersion: v1
kind: node
metadata:
  name: node-hostname
spec:
  bgp:
    asNumber: 64512
    ipv4Address: 10.244.0.1/24
    ipv6Address: 2001:db8:85a3::8a2e:370:7334/120
";
    let node = as_kind!(Node, one(text));
    assert_eq!(node.metadata.name.as_str(), "node-hostname");
    assert_eq!(node.spec.bgp.as_ref().unwrap().as_number.unwrap().get(), 64512);
    assert_eq!(node.spec.addr(Family::V4).unwrap().to_string(), "10.244.0.1/24");
    assert_eq!(node.spec.addr(Family::V6).unwrap().to_string(), "2001:db8:85a3::8a2e:370:7334/120");
}

#[test]
fn a_policy_opens_one_port_to_those_it_selects() {
    let text = "\
apiVersion: v1
kind: policy
metadata:
  name: allow-tcp-6379
spec:
  selector: role == 'database'
  ingress:
  - action: allow
    protocol: tcp
    source:
      selector: role == 'frontend'
    destination:
      ports:
      - 6379
  egress:
  - action: allow
";
    let policy = as_kind!(GlobalNetworkPolicy, one(text));
    assert_eq!(policy.metadata.name.as_str(), "allow-tcp-6379");
    assert!(policy.spec.selector.matches(&labels(&[("role", "database")])));
    assert_eq!(policy.spec.order, None);
    assert_eq!(policy.spec.types, [PolicyType::Ingress, PolicyType::Egress]);
    let [rule] = policy.spec.ingress.as_slice() else { panic!("one rule") };
    assert_eq!((rule.action, rule.protocol), (Action::Allow, Some(Protocol::TCP)));
    assert!(rule.source.selector.as_ref().unwrap().matches(&labels(&[("role", "frontend")])));
    assert_eq!(rule.destination.ports, [PortMatch::Range(6379, 6379)]);
    assert_eq!(policy.spec.egress[0].action, Action::Allow);
}

#[test]
fn a_profile_labels_its_endpoints_and_denies_a_network() {
    let text = "\
apiVersion: v1
kind: profile
metadata:
  name: profile1
  labels:
    profile: profile1
spec:
  ingress:
  - action: deny
    source:
      net: 10.0.20.0/24
  - action: allow
    source:
      selector: profile == 'profile1'
  egress:
  - action: allow
";
    let profile = as_kind!(Profile, one(text));
    assert_eq!(profile.spec.labels_to_apply, labels(&[("profile", "profile1")]));
    let [deny, allow] = profile.spec.ingress.as_slice() else { panic!("two rules") };
    assert_eq!((deny.action, deny.source.nets[0].to_string()), (Action::Deny, "10.0.20.0/24".to_owned()));
    assert_eq!(allow.action, Action::Allow);
    assert!(allow.source.selector.as_ref().unwrap().matches(&profile.spec.labels_to_apply));
    assert_eq!(profile.spec.egress.len(), 1);
}

#[test]
fn profiles_of_labels_alone_allow_nothing_by_themselves() {
    let text = "\
- apiVersion: v1
  kind: profile
  metadata:
    name: database
    labels:
      role: database
- apiVersion: v1
  kind: profile
  metadata:
    name: frontend
    labels:
      role: frontend
";
    for (resource, role) in read(text).into_iter().zip(["database", "frontend"]) {
        let profile = as_kind!(Profile, resource);
        assert_eq!(profile.metadata.name.as_str(), role);
        assert_eq!(profile.spec.labels_to_apply, labels(&[("role", role)]));
        assert!(profile.spec.ingress.is_empty() && profile.spec.egress.is_empty());
    }
}

#[test]
fn the_frontend_reaches_the_database_on_one_port() {
    let text = "\
- apiVersion: v1
  kind: policy
  metadata:
    name: database
  spec:
    order: 0
    selector: role == 'database'
    ingress:
    - action: allow
      protocol: tcp
      source:
        selector: role == 'frontend'
      destination:
        ports:
        - 3306
    - action: allow
      source:
        selector: role == 'database'
    egress:
    - action: allow
      destination:
        selector: role == 'database'
- apiVersion: v1
  kind: policy
  metadata:
    name: frontend
  spec:
    order: 0
    selector: role == 'frontend'
    egress:
    - action: allow
      protocol: tcp
      destination:
        selector: role == 'database'
        ports:
        - 3306
";
    let mut both = read(text).into_iter().map(|resource| as_kind!(GlobalNetworkPolicy, resource));
    let (database, frontend) = (both.next().unwrap(), both.next().unwrap());
    assert_eq!((database.spec.order, frontend.spec.order), (Some(0.0), Some(0.0)));
    assert_eq!(database.spec.types, [PolicyType::Ingress, PolicyType::Egress]);
    assert_eq!(database.spec.ingress.len(), 2);
    // Only egress rules: what reaches the frontend is not this policy's affair.
    assert_eq!(frontend.spec.types, [PolicyType::Egress]);
    let [rule] = frontend.spec.egress.as_slice() else { panic!("one rule") };
    assert!(rule.destination.selector.as_ref().unwrap().matches(&labels(&[("role", "database")])));
    assert_eq!(rule.destination.ports, [PortMatch::Range(3306, 3306)]);
}

#[test]
fn an_old_policy_of_kubernetes_lets_the_access_pods_in() {
    let text = "\
kind: NetworkPolicy
apiVersion: extensions/v1beta1
metadata:
  name: access-nginx
  namespace: policy-demo
spec:
  podSelector:
    matchLabels:
      run: nginx
  ingress:
  - from:
    - podSelector:
        matchLabels:
          run: access
";
    let policy = as_kind!(NetworkPolicy, one(text));
    assert_eq!(policy.metadata.name.as_str(), "knp.default.access-nginx");
    assert_eq!(policy.metadata.namespace.as_ref().unwrap().as_str(), "policy-demo");
    assert_eq!(policy.spec.types, [PolicyType::Ingress]);
    let pod = |run: &str| labels(&[("run", run), ("projectcalico.org/orchestrator", "k8s")]);
    assert!(policy.spec.selector.matches(&pod("nginx")) && !policy.spec.selector.matches(&pod("access")));
    let [rule] = policy.spec.ingress.as_slice() else { panic!("one rule") };
    let source = rule.source.selector.as_ref().unwrap();
    assert!(source.matches(&pod("access")) && !source.matches(&pod("cant-access")));
}

#[test]
fn a_pod_and_its_service_account_are_an_endpoint_and_a_profile() {
    let text = "\
apiVersion: v1
kind: ServiceAccount
metadata:
  name: web
  namespace: shop
  labels: {team: a}
---
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  namespace: shop
  labels: {run: nginx}
spec:
  nodeName: node-1
  serviceAccountName: web
  containers:
  - name: nginx
    image: nginx
    ports:
    - {name: http, containerPort: 80}
    - {containerPort: 443, hostPort: 8443, hostIP: 10.1.4.57}
    - {containerPort: 9000}
status:
  phase: Running
  podIPs:
  - ip: 10.20.0.4
  - ip: fd00::4
---
apiVersion: v1
kind: Pod
metadata: {name: pending, namespace: shop}
spec: {containers: []}
";
    let mut documents = manifest::parse(text.as_bytes());
    let waiting = documents.pop().unwrap().unwrap_err().to_string();
    assert!(waiting.contains("document 3 ") && waiting.contains("spec.nodeName: is required"), "{waiting}");
    let mut checked = documents.into_iter().map(|document| document.unwrap().check_input().unwrap());
    let profile = as_kind!(Profile, checked.next().unwrap());
    assert_eq!(profile.metadata.name.as_str(), "ksa.shop.web");
    let expected = labels(&[("pcsa.projectcalico.org/name", "web"), ("pcsa.team", "a")]);
    assert_eq!(profile.spec.labels_to_apply, expected);
    assert!(profile.spec.ingress.is_empty() && profile.spec.egress.is_empty());
    let pod = as_kind!(WorkloadEndpoint, checked.next().unwrap());
    assert_eq!(pod.metadata.name.as_str(), "node--1-k8s-web--1-eth0");
    assert_eq!(pod.metadata.namespace.as_ref().unwrap().as_str(), "shop");
    for (key, value) in [
        ("run", "nginx"),
        ("projectcalico.org/namespace", "shop"),
        ("projectcalico.org/orchestrator", "k8s"),
        ("projectcalico.org/serviceaccount", "web"),
    ] {
        assert_eq!(pod.metadata.labels.get(key), Some(value), "{key}");
    }
    let networks: Vec<String> = pod.spec.ip_networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.20.0.4/32", "fd00::4/128"]);
    let profiles: Vec<&str> = pod.spec.profiles.iter().map(|profile| profile.as_str()).collect();
    assert_eq!(profiles, ["kns.shop", "ksa.shop.web"]);
    let ports: Vec<_> = pod
        .spec
        .ports
        .iter()
        .map(|port| (port.name.as_str(), port.port, port.host_port, port.host_ip))
        .collect();
    let node = "10.1.4.57".parse().ok();
    assert_eq!(ports, [("http", 80, None, None), ("", 443, Some(8443), node)]);
    // printf shop.web-1 | sha1sum
    assert_eq!(pod.spec.interface_name.unwrap().as_str(), "cali751425ce827");
}

#[test]
fn an_object_of_kubernetes_that_means_nothing_to_calico_is_told_in_one_sentence() {
    let text = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: redis}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: redis}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: nginx}
---
apiVersion: v1
kind: Namespace
metadata: {name: policy-demo}
";
    let told: Vec<String> = manifest::parse(text.as_bytes())
        .into_iter()
        .map(|read| {
            read.map_or_else(
                |error| error.to_string(),
                |document| format!("{} {}", document.kind(), document.metadata("name").unwrap()),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "document 1 (line 1): ConfigMap of v1 is a kind of Kubernetes' own and none of Calico's: give it to kubectl",
            "document 2 (line 5): ReplicationController of v1 is a kind of Kubernetes' own and none of Calico's: give it to kubectl",
            "document 3 (line 9): Deployment of apps/v1 is a kind of Kubernetes' own and none of Calico's: give it to kubectl",
            "Profile kns.policy-demo",
        ]
    );
}
