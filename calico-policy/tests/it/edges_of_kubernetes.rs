//! Edges of Kubernetes' own policies, of the objects as they stand in manifests.

use calico_model::{Snapshot, Update, manifest};
use calico_policy::{Packet, Path, Transport};

use crate::edge_cases::{allows, packet};

/// Two namespaces: pods `web` (in shop), `db` and `other`, all on node-1.
const CLUSTER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Namespace
metadata: {name: lab, labels: {team: b}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {role: db}}
spec: {nodeName: node-1, containers: [{ports: [{name: sql, containerPort: 3306}]}],
       initContainers: [{ports: [{name: metrics, containerPort: 9090}]}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {role: web}}
spec: {nodeName: node-1, containers: [{}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.2}, {ip: 'fd00::2'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: lab, labels: {role: web}}
spec: {nodeName: node-1, containers: [{}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.3}, {ip: 'fd00::3'}]}
---
";

fn cluster(objects: &str) -> Snapshot {
    let mut world = Snapshot::default();
    put(&mut world, &format!("{CLUSTER}{objects}"));
    world
}

fn put(world: &mut Snapshot, objects: &str) {
    for document in manifest::parse(objects.as_bytes()) {
        world.apply(Update::Put(Box::new(document.unwrap().check_input().unwrap())));
    }
}

/// A NetworkPolicy for the database.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: p, namespace: shop}}
spec: {{podSelector: {{matchLabels: {{role: db}}}}, {spec}}}
"
    )
}

fn interface(world: &Snapshot, addr: &str) -> String {
    let has = |spec: &calico_model::resource::WorkloadEndpoint| {
        spec.ip_networks.iter().any(|net| net.addr().to_string() == addr)
    };
    let mut workloads = world.workloads.values();
    let found = workloads.find(|workload| has(&workload.spec)).unwrap();
    found.spec.interface_name.clone().unwrap().to_string()
}

fn between(world: &Snapshot, from: &str, to: &str, transport: Transport) -> Packet {
    let path = Path::Forward {
        from: interface(world, from).parse().unwrap(),
        to: interface(world, to).parse().unwrap(),
    };
    packet(path, from, to, transport)
}

const DB: &str = "10.0.0.1";
const WEB: &str = "10.0.0.2";
const OTHER: &str = "10.0.0.3";

/// Whether web and other reach the database on a TCP port.
fn reach(world: &Snapshot, port: u16) -> [bool; 2] {
    [WEB, OTHER].map(|from| allows(world, &between(world, from, DB, Transport::tcp(port))))
}

#[test]
fn pe03_what_is_absent_or_empty_allows_nobody_and_an_empty_rule_everybody() {
    for (ingress, everybody) in [
        ("policyTypes: [Ingress]", false),
        ("ingress: []", false),
        ("ingress: [{}]", true),
        ("ingress: [{from: []}]", true),
        ("ingress: [{from: null}]", true),
        ("ingress: [{ports: []}]", true),
    ] {
        assert_eq!(reach(&cluster(&policy(ingress)), 80), [everybody; 2], "{ingress}");
    }
}

#[test]
fn pe04_selectors_of_one_peer_are_both_asked_and_peers_are_alternatives() {
    let pods = |label: &str| format!("podSelector: {{matchLabels: {{role: {label}}}}}");
    let namespaces = |team: &str| format!("namespaceSelector: {{matchLabels: {{team: {team}}}}}");
    for (peers, expected) in [
        (format!("{{{}}}", pods("web")), [true, false]),
        (format!("{{{}}}", namespaces("b")), [false, true]),
        (format!("{{{}, {}}}", pods("web"), namespaces("a")), [true, false]),
        (format!("{{{}, {}}}", pods("db"), namespaces("b")), [false, false]),
        (format!("{{{}}}, {{{}}}", pods("web"), namespaces("b")), [true, true]),
        ("{podSelector: {}}".to_owned(), [true, false]),
        ("{namespaceSelector: {}}".to_owned(), [true, true]),
        (format!("{{namespaceSelector: {{}}, {}}}", pods("db")), [false, false]),
    ] {
        let world = cluster(&policy(&format!("ingress: [{{from: [{peers}]}}]")));
        assert_eq!(reach(&world, 80), expected, "{peers}");
    }
}

#[test]
fn pe11_pe12_a_namespace_is_known_by_its_name_and_its_labels_count_as_they_are_now() {
    let by = |label: &str, value: &str| {
        policy(&format!(
            "ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{{label}: {value}}}}}}}]}}]"
        ))
    };
    assert_eq!(reach(&cluster(&by("kubernetes.io/metadata.name", "lab")), 80), [false, true]);
    // A name that is claimed by label is not believed.
    let mut world = cluster(&by("kubernetes.io/metadata.name", "lab"));
    put(
        &mut world,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {kubernetes.io/metadata.name: lab}}\n",
    );
    assert_eq!(reach(&world, 80), [false, true]);
    let mut world = cluster(&by("team", "b"));
    assert_eq!(reach(&world, 80), [false, true]);
    put(
        &mut world,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab, labels: {team: c}}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: b}}\n",
    );
    assert_eq!(reach(&world, 80), [true, false], "all of its pods at once");
}

#[test]
fn pe14_a_pod_that_has_finished_has_no_address_and_one_that_terminates_has() {
    let named = policy("ingress: [{from: [{podSelector: {matchLabels: {role: web}}}]}]");
    for (phase, held) in [("Running", true), ("Succeeded", false), ("Failed", false)] {
        let mut world = cluster(&named);
        let pod = format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: job, namespace: shop, labels: {{role: web}}, deletionTimestamp: '2026-01-01T00:00:00Z'}}
spec: {{nodeName: node-2, containers: [{{}}]}}
status: {{phase: {phase}, podIPs: [{{ip: 10.0.0.9}}]}}
"
        );
        put(&mut world, &pod);
        let path =
            Path::Forward { from: "eth0".parse().unwrap(), to: interface(&world, DB).parse().unwrap() };
        assert_eq!(allows(&world, &packet(path, "10.0.0.9", DB, Transport::tcp(80))), held, "{phase}");
    }
}

#[test]
fn pe13_a_pod_with_its_nodes_network_is_neither_subject_nor_peer() {
    let pod = "apiVersion: v1
kind: Pod
metadata: {name: host, namespace: shop, labels: {role: web}}
spec: {nodeName: node-1, hostNetwork: true, containers: [{}]}
status: {phase: Running, podIPs: [{ip: 172.16.0.1}]}
";
    let refused = manifest::parse(pod.as_bytes()).pop().unwrap().unwrap_err();
    assert!(format!("{refused:?}").contains("hostNetwork"), "{refused}");
}

#[test]
fn pe23_administrators_policy_comes_first_and_the_baseline_last() {
    let of_cluster = |tier: &str, priority: u16, action: &str| {
        format!(
            "---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {{name: {}-{priority}}}
spec:
  tier: {tier}
  priority: {priority}
  subject: {{namespaces: {{}}}}
  ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]
",
            tier.to_lowercase()
        )
    };
    let open = policy("ingress: [{}]");
    let shut = policy("ingress: []");
    for (objects, expected) in [
        (open.clone() + &of_cluster("Admin", 5, "Deny"), false),
        (shut.clone() + &of_cluster("Admin", 5, "Accept"), true),
        (shut.clone() + &of_cluster("Admin", 5, "Pass") + &of_cluster("Admin", 6, "Accept"), false),
        (shut.clone() + &of_cluster("Admin", 6, "Deny") + &of_cluster("Admin", 5, "Accept"), true),
        (shut + &of_cluster("Baseline", 0, "Accept"), false),
        (open + &of_cluster("Baseline", 0, "Deny"), true),
        (of_cluster("Baseline", 0, "Deny"), false),
    ] {
        assert_eq!(reach(&cluster(&objects), 80), [expected; 2], "{objects}");
    }
}

#[test]
fn pe32_the_named_port_of_a_container_that_starts_first_counts() {
    let world = cluster(&policy("ingress: [{ports: [{port: metrics}]}]"));
    assert_eq!([9090, 3306].map(|port| reach(&world, port)[0]), [true, false]);
}

#[test]
fn pe35_a_port_without_a_protocol_is_tcps_and_no_port_is_every_protocol() {
    let udp = |world: &Snapshot| allows(world, &between(world, WEB, DB, Transport::udp(80)));
    let world = cluster(&policy("ingress: [{ports: [{port: 80}]}]"));
    assert_eq!((reach(&world, 80), reach(&world, 81)[0], udp(&world)), ([true; 2], false, false));
    let world = cluster(&policy("ingress: [{ports: [{}]}]"));
    assert_eq!((reach(&world, 80), udp(&world)), ([true; 2], false), "no protocol is TCP");
    assert!(udp(&cluster(&policy("ingress: [{}]"))));
}

#[test]
fn pe36_sctp_isolates_and_is_not_taken_for_tcp() {
    use calico_policy::packet::PortProtocol;
    let world = cluster(&policy("ingress: [{ports: [{protocol: SCTP, port: 80}]}]"));
    let sctp = Transport::Ports { protocol: PortProtocol::Sctp, source: 4_000, destination: 80 };
    assert!(allows(&world, &between(&world, WEB, DB, sctp)));
    assert_eq!(reach(&world, 80), [false; 2]);
}

#[test]
fn pe45_pe50_a_block_holds_pods_too_and_an_exception_takes_nothing_from_another_peer() {
    let block = |cidr: &str, except: &str| format!("{{ipBlock: {{cidr: {cidr}, except: [{except}]}}}}");
    for (peers, expected) in [
        (block("10.0.0.0/24", ""), [true, true]),
        (block("10.0.0.0/24", "10.0.0.3/32"), [true, false]),
        (block("10.0.0.0/24", "10.0.0.0/24"), [false, false]),
        (block("10.0.0.0/24", "10.0.0.0/24") + ", " + &block("10.0.0.3/32", ""), [false, true]),
        (block("10.0.0.0/24", "10.0.0.2/31") + ", {podSelector: {}}", [true, false]),
    ] {
        let world = cluster(&policy(&format!("ingress: [{{from: [{peers}]}}]")));
        assert_eq!(reach(&world, 80), expected, "{peers}");
    }
}

#[test]
fn pe38_an_isolated_pod_gets_no_icmp_that_belongs_to_nothing() {
    let world = cluster(&policy("ingress: [{ports: [{port: 80}]}]"));
    let ping = Transport::Icmp { icmp_type: 8, code: 0 };
    assert!(!allows(&world, &between(&world, WEB, DB, ping)));
}

#[test]
fn pe08_a_negation_holds_where_the_label_is_absent() {
    for (expression, expected) in [
        ("{key: team, operator: NotIn, values: [a]}", [false, true]),
        ("{key: absent, operator: NotIn, values: [a]}", [true, true]),
        ("{key: absent, operator: DoesNotExist}", [true, true]),
        ("{key: absent, operator: Exists}", [false, false]),
        ("{key: absent, operator: In, values: [a]}", [false, false]),
    ] {
        let rules =
            format!("ingress: [{{from: [{{namespaceSelector: {{matchExpressions: [{expression}]}}}}]}}]");
        assert_eq!(reach(&cluster(&policy(&rules)), 80), expected, "{expression}");
    }
}
