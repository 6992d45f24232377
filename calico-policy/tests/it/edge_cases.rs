//! Edges that others got wrong, each by the id under which it is known. Both readers are asked every question.

use calico_model::{NodeName, Snapshot, Update, manifest};
use calico_policy::packet::{ConnectionState, Destination};
use calico_policy::{
    Compiler, Enforcers, Packet, Path, Transport, Verdict, compile, compile_with, evaluate, evaluate_with,
    simulate, strategies,
};
use proptest::prelude::*;

/// Two databases and a frontend on node-1, each allowed everything by its profile.
const WORKLOADS: &str = "
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: db, namespace: shop, labels: {role: db}}
spec: {node: node-1, interfaceName: cali1, ipNetworks: [10.0.0.1, 'fd00::1'], profiles: [projectcalico-default-allow],
       ports: [{name: web, protocol: TCP, port: 9090}]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: db2, namespace: shop, labels: {role: db}}
spec: {node: node-1, interfaceName: cali2, ipNetworks: [10.0.0.2], profiles: [projectcalico-default-allow],
       ports: [{name: web, protocol: TCP, port: 8080}]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop, labels: {role: web}}
spec: {node: node-1, interfaceName: cali3, ipNetworks: [10.0.0.3, 'fd00::3'], profiles: [projectcalico-default-allow]}
";

pub(crate) fn world(resources: &str) -> Snapshot {
    let mut world = Snapshot::default();
    for document in manifest::parse(format!("{WORKLOADS}---\n{resources}").as_bytes()) {
        world.apply(Update::Put(Box::new(document.unwrap().check_input().unwrap())));
    }
    world
}

/// A policy for the databases.
pub(crate) fn policy(spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: p, namespace: shop}}
spec: {{selector: role == 'db', {spec}}}
"
    )
}

pub(crate) fn host_endpoint(policies: &str) -> Snapshot {
    world(&format!(
        "apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {{name: uplink, labels: {{host: edge}}}}
spec: {{node: node-1, interfaceName: eth0}}
---
{policies}"
    ))
}

pub(crate) fn packet(path: Path, source: &str, destination: &str, transport: Transport) -> Packet {
    let node = "node-1".parse().unwrap();
    Packet::new(node, path, source.parse().unwrap(), destination.parse().unwrap(), transport).unwrap()
}

pub(crate) fn forward(from: &str, to: &str) -> Path {
    Path::Forward { from: from.parse().unwrap(), to: to.parse().unwrap() }
}

fn from_web(destination: &str, transport: Transport) -> Packet {
    let (source, to) = match destination {
        "10.0.0.2" => ("10.0.0.3", "cali2"),
        "fd00::1" => ("fd00::3", "cali1"),
        _ => ("10.0.0.3", "cali1"),
    };
    packet(forward("cali3", to), source, destination, transport)
}

pub(crate) fn allows(world: &Snapshot, packet: &Packet) -> bool {
    let trace = evaluate(world, packet);
    assert_eq!(simulate(&compile(world, &packet.node), packet), trace.outcome, "{packet}\n{trace}");
    trace.outcome.verdict == Verdict::Allow
}

#[test]
fn pe01_pe02_types_decide_which_direction_is_isolated() {
    for (spec, ingress, egress) in [
        ("types: [Egress]", true, false),
        ("types: [Ingress]", false, true),
        ("egress: [{action: Deny}]", true, false),
        ("types: []", false, true),
    ] {
        let world = world(&policy(spec));
        assert_eq!(allows(&world, &from_web("10.0.0.1", Transport::tcp(80))), ingress, "{spec}");
        let out = packet(forward("cali1", "cali3"), "10.0.0.1", "10.0.0.3", Transport::tcp(80));
        assert_eq!(allows(&world, &out), egress, "{spec}");
    }
}

#[test]
fn pe05_a_selector_that_selects_nothing_matches_nothing() {
    let world = world(&policy("ingress: [{action: Allow, source: {selector: role == 'nobody'}}]"));
    assert!(!allows(&world, &from_web("10.0.0.1", Transport::tcp(80))));
    let empty = compile(&world, &"node-1".parse().unwrap());
    assert!(empty.sets.values().any(|set| set.elements.is_empty()), "and its set is still there");
}

#[test]
fn pe06_networks_of_the_other_family_match_nothing_and_their_negation_all() {
    let world_of =
        |entity: &str| world(&policy(&format!("ingress: [{{action: Allow, source: {{{entity}}}}}]")));
    for (entity, v4, v6) in [
        ("nets: [10.0.0.0/8]", true, false),
        ("notNets: [10.0.0.0/8]", false, true),
        ("notNets: ['fd01::/16']", true, true),
    ] {
        let world = world_of(entity);
        assert_eq!(allows(&world, &from_web("10.0.0.1", Transport::tcp(80))), v4, "{entity}");
        assert_eq!(allows(&world, &from_web("fd00::1", Transport::tcp(80))), v6, "{entity}");
    }
}

#[test]
fn pe07_a_negated_selector_matches_the_whole_world_and_all_matches_only_the_known() {
    let outside = packet(forward("eth0", "cali1"), "192.0.2.1", "10.0.0.1", Transport::tcp(80));
    let rule = |entity: &str| {
        format!(
            "kind: GlobalNetworkPolicy\napiVersion: projectcalico.org/v3\nmetadata: {{name: p}}\nspec: {{selector: role == 'db', ingress: [{{action: Allow, source: {{{entity}}}}}]}}\n"
        )
    };
    assert!(allows(&world(&rule("notSelector: has(role)")), &outside));
    assert!(!allows(&world(&rule("selector: '!has(role)'")), &outside));
    assert!(!allows(&world(&rule("selector: all()")), &outside));
}

#[test]
fn pe10_labels_that_only_the_system_gives_are_not_believed() {
    let forged = "apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: evil, namespace: other, labels: {role: web, projectcalico.org/namespace: shop, pcns.team: red}}
spec: {node: node-1, interfaceName: cali4, ipNetworks: [10.0.0.4], profiles: [projectcalico-default-allow]}
---
";
    let from_evil = packet(forward("cali4", "cali1"), "10.0.0.4", "10.0.0.1", Transport::tcp(80));
    for rule in ["selector: role == 'web'", "namespaceSelector: team == 'red'"] {
        let world = world(&format!(
            "{forged}{}",
            policy(&format!("ingress: [{{action: Allow, source: {{{rule}}}}}]"))
        ));
        assert!(!allows(&world, &from_evil), "{rule}");
    }
}

#[test]
fn pe15_an_address_that_two_endpoints_have_stays_until_both_are_gone() {
    let twin = "apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: twin, namespace: shop, labels: {role: web}}
spec: {node: node-2, ipNetworks: [10.0.0.3]}
";
    let rule = policy("ingress: [{action: Allow, source: {selector: role == 'web'}}]");
    let mut world = world(&format!("{twin}---\n{rule}"));
    let web = from_web("10.0.0.1", Transport::tcp(80));
    assert!(allows(&world, &web));
    world.workloads.retain(|id, _| id.name.as_str() != "twin");
    assert!(allows(&world, &web));
}

#[test]
fn pe17_a_clause_that_nobody_can_ask_allows_nothing_and_denies_everything() {
    use calico_model::resource::Action;
    let rules =
        "ingress: [{action: Allow, protocol: TCP, http: {methods: [GET]}}, {action: Allow, protocol: TCP}]";
    for (action, allowed) in [(Action::Allow, true), (Action::Deny, false)] {
        let mut world = world(&policy(rules));
        for policy in world.policies.values_mut().map(std::sync::Arc::make_mut) {
            policy.spec.0.ingress[0].action = action;
        }
        let tcp = allows(&world, &from_web("10.0.0.1", Transport::tcp(80)));
        assert_eq!(tcp, allowed, "only the second rule can allow it");
        assert!(!allows(&world, &from_web("10.0.0.1", Transport::udp(80))));
    }
}

#[test]
fn a_service_is_its_endpoints_a_source_by_address_and_a_destination_by_port_too() {
    let slice = |service: &str| {
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s-1, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
endpoints: [{{addresses: [10.0.0.3], conditions: {{ready: false}}}}]
ports: [{{name: web, port: 80}}]
"
        )
    };
    let from = |service: &str| {
        let rules = "ingress: [{action: Allow, source: {services: {name: s}}}]";
        let world = world(&(policy(rules) + &slice(service)));
        allows(&world, &from_web("10.0.0.1", Transport::udp(5)))
    };
    assert_eq!([from("s"), from("t")], [true, false], "the port is not asked");
}

#[test]
fn a_service_as_destination_is_one_rule_of_each_family_whatever_its_protocols() {
    let world = world(&policy("egress: [{action: Allow, destination: {services: {name: s}}}]"));
    let ruleset = compile(&world, &"node-1".parse().unwrap());
    let looks = |rule: &&calico_policy::ruleset::Rule| {
        rule.matches.iter().any(|m| matches!(m, calico_policy::ruleset::Match::SocketInSet(..)))
    };
    let rules = ruleset.chains.values().flat_map(|chain| &chain.rules).filter(looks);
    assert_eq!(rules.count(), 2, "{ruleset}");
    let program = calico_policy::iptables::lower(&ruleset, &calico_policy::iptables::Options::default());
    let lines = program.to_string();
    assert_eq!(lines.lines().filter(|line| line.contains(" dst,dst ")).count(), 2, "{lines}");
}

#[test]
fn pe16_a_profile_that_is_missing_denies_and_so_does_having_none() {
    for profiles in ["[]", "[missing]", "[missing, projectcalico-default-allow]"] {
        let world = world(&format!(
            "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{name: w, namespace: shop}}\nspec: {{node: node-1, interfaceName: cali5, ipNetworks: [10.0.0.5], profiles: {profiles}}}\n"
        ));
        assert!(!allows(
            &world,
            &packet(forward("cali3", "cali5"), "10.0.0.3", "10.0.0.5", Transport::tcp(80))
        ));
    }
}

#[test]
fn pe21_pe22_a_tier_counts_only_where_one_of_its_policies_applies() {
    let tier = |action: &str| {
        format!(
            "apiVersion: projectcalico.org/v3
kind: Tier
metadata: {{name: t}}
spec: {{order: 1, defaultAction: {action}}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: t.p, namespace: shop}}
spec: {{tier: t, selector: role == 'db', types: [Ingress]}}
"
        )
    };
    let out = packet(forward("cali1", "cali3"), "10.0.0.1", "10.0.0.3", Transport::tcp(80));
    let web = from_web("10.0.0.1", Transport::tcp(80));
    assert!(!allows(&world(&tier("Deny")), &web));
    assert!(allows(&world(&tier("Pass")), &web), "the profile allows");
    assert!(allows(&world(&tier("Deny")), &out), "no policy of the tier has the other direction");
}

#[test]
fn pe25_a_broad_deny_beats_a_narrow_allow_that_comes_later() {
    let rules = "ingress: [{action: Deny, source: {nets: [10.0.0.0/8]}}, {action: Allow, source: {nets: [10.0.0.3/32]}}]";
    assert!(!allows(&world(&policy(rules)), &from_web("10.0.0.1", Transport::tcp(80))));
}

#[test]
fn pe27_a_log_rule_changes_no_verdict() {
    for (after, allowed) in [("Allow", true), ("Deny", false)] {
        let world = world(&policy(&format!("ingress: [{{action: Log}}, {{action: {after}}}]")));
        assert_eq!(allows(&world, &from_web("10.0.0.1", Transport::tcp(80))), allowed);
    }
}

#[test]
fn pe30_a_named_port_is_what_the_destination_itself_calls_so() {
    let world = world(&policy("ingress: [{action: Allow, protocol: TCP, destination: {ports: [web]}}]"));
    for (destination, port, allowed) in [
        ("10.0.0.1", 9090, true),
        ("10.0.0.1", 8080, false),
        ("10.0.0.2", 8080, true),
        ("10.0.0.2", 9090, false),
    ] {
        assert_eq!(
            allows(&world, &from_web(destination, Transport::tcp(port))),
            allowed,
            "{destination} {port}"
        );
        assert!(!allows(&world, &from_web(destination, Transport::udp(port))), "another protocol");
    }
}

#[test]
fn pe33_pe34_ranges_hold_their_ends_and_lists_may_be_long() {
    let single: Vec<String> = (0..20).map(|i| (100 + 10 * i).to_string()).collect();
    let ports = format!("[1, 65535, '1000:1010', {}]", single.join(", "));
    let world = world(&policy(&format!(
        "ingress: [{{action: Allow, protocol: TCP, destination: {{ports: {ports}}}}}]"
    )));
    for (port, allowed) in [
        (0, false),
        (1, true),
        (2, false),
        (999, false),
        (1000, true),
        (1010, true),
        (1011, false),
        (290, true),
        (65_534, false),
        (65_535, true),
    ] {
        assert_eq!(allows(&world, &from_web("10.0.0.1", Transport::tcp(port))), allowed, "{port}");
    }
}

#[test]
fn pe38_pe39_icmp_by_type_and_code_and_in_its_own_family() {
    let world = world(&policy("ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}}]"));
    let ping = |destination, icmp_type, code| from_web(destination, Transport::Icmp { icmp_type, code });
    assert!(allows(&world, &ping("10.0.0.1", 8, 0)));
    assert!(!allows(&world, &ping("10.0.0.1", 8, 1)));
    assert!(!allows(&world, &ping("10.0.0.1", 0, 0)));
    assert!(!allows(&world, &ping("fd00::1", 8, 0)));
}

#[test]
fn pe46_all_addresses_of_a_family_may_be_named() {
    let world = world(&policy("ingress: [{action: Allow, source: {nets: [0.0.0.0/0, 10.0.0.0/8]}}]"));
    assert!(allows(&world, &from_web("10.0.0.1", Transport::tcp(80))));
    assert!(!allows(&world, &from_web("fd00::1", Transport::tcp(80))));
}

#[test]
fn an_http_rule_never_becomes_a_plain_allow() {
    let world = world(&policy("ingress: [{action: Allow, http: {methods: [GET]}}]"));
    assert!(!allows(&world, &from_web("10.0.0.1", Transport::tcp(80))));
    let node = "node-1".parse().unwrap();
    assert_eq!(compile(&world, &node).warnings.len(), 1);
}

#[test]
fn an_http_rule_lets_its_packets_through_to_an_enforcer_that_is_registered() {
    let world = world(&policy("ingress: [{action: Allow, protocol: TCP, http: {methods: [GET]}}]"));
    let node: NodeName = "node-1".parse().unwrap();
    let enforcers = Enforcers { http: true };
    let ruleset = compile_with(enforcers, &world, &node);
    assert!(ruleset.warnings.is_empty());
    let mut compiler = Compiler::new(node).with_enforcers(enforcers);
    strategies::updates(&Snapshot::default(), &world).into_iter().for_each(|update| compiler.apply(update));
    assert_eq!(*compiler.ruleset(), ruleset);
    for (transport, verdict) in [(Transport::tcp(80), Verdict::Allow), (Transport::udp(80), Verdict::Deny)] {
        let packet = from_web("10.0.0.1", transport);
        assert_eq!(simulate(&ruleset, &packet).verdict, verdict);
        assert_eq!(evaluate_with(enforcers, &world, &packet).outcome.verdict, verdict);
    }
}

#[test]
fn what_is_forwarded_to_an_address_of_services_that_no_service_has_is_dropped() {
    let configured = |prevention: &str| {
        world(&format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{name: default}}\n\
             spec: {{serviceClusterIPs: [{{cidr: 10.96.0.0/12}}]}}\n---\napiVersion: projectcalico.org/v3\n\
             kind: FelixConfiguration\nmetadata: {{name: default}}\nspec: {{serviceLoopPrevention: {prevention}}}\n"
        ))
    };
    let to_service = packet(forward("eth0", "eth1"), "192.0.2.1", "10.96.0.1", Transport::tcp(80));
    let past_it = packet(forward("eth0", "eth1"), "192.0.2.1", "10.112.0.1", Transport::tcp(80));
    for prevention in ["Drop", "Reject"] {
        assert!(!allows(&configured(prevention), &to_service), "{prevention}");
        assert!(allows(&configured(prevention), &past_it), "{prevention}");
    }
    assert!(allows(&configured("Disabled"), &to_service));
}

#[test]
fn pe72_a_host_endpoint_without_policy_leaves_only_the_failsafe_ports_open() {
    let world = host_endpoint("");
    let to_host = |transport| {
        packet(Path::ToHost { from: "eth0".parse().unwrap() }, "192.0.2.1", "172.16.0.1", transport)
    };
    let from_host =
        |transport| packet(Path::from_host("eth0".parse().unwrap()), "172.16.0.1", "192.0.2.1", transport);
    for port in [22, 179, 2379, 2380, 5473, 6443, 6666, 6667] {
        assert!(allows(&world, &to_host(Transport::tcp(port))), "{port}");
    }
    assert!(allows(&world, &to_host(Transport::udp(68))));
    assert!(allows(&world, &from_host(Transport::udp(53))));
    for denied in [to_host(Transport::tcp(80)), to_host(Transport::udp(22)), from_host(Transport::tcp(22))] {
        assert!(!allows(&world, &denied), "{denied}");
    }
    assert!(allows(&world, &packet(forward("eth0", "cali1"), "192.0.2.1", "10.0.0.1", Transport::tcp(80))));
}

/// A policy for the host endpoint, at one of its places.
pub(crate) fn host_policy(place: &str, rules: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: p}}
spec: {{selector: has(host), {place}, {rules}}}
"
    )
}

#[test]
fn pe52_pe53_pre_dnat_policy_sees_the_destination_before_its_translation() {
    let deny = "ingress: [{action: Deny, protocol: TCP, destination: {ports: [30080]}}]";
    let world = host_endpoint(&host_policy("preDNAT: true, applyOnForward: true, types: [Ingress]", deny));
    let mut packet = packet(forward("eth0", "cali1"), "192.0.2.1", "10.0.0.1", Transport::tcp(80));
    assert!(allows(&world, &packet));
    packet.original_destination = Some(Destination { addr: "172.16.0.1".parse().unwrap(), port: 30_080 });
    assert!(!allows(&world, &packet));
    assert!(allows(&world, &packet.in_state(ConnectionState::Established)));
}

#[test]
fn pe67_untracked_policy_is_asked_about_every_packet_and_beats_later_policy() {
    let allow = "ingress: [{action: Allow, protocol: UDP, destination: {ports: [9]}}]";
    let world =
        host_endpoint(&host_policy("doNotTrack: true, applyOnForward: true, types: [Ingress]", allow));
    let to_host = |transport| {
        packet(Path::ToHost { from: "eth0".parse().unwrap() }, "192.0.2.1", "172.16.0.1", transport)
    };
    assert!(allows(&world, &to_host(Transport::udp(9))), "no later policy allows it, and none is asked");
    assert!(!allows(&world, &to_host(Transport::udp(10))));
}

#[test]
fn forwarded_traffic_is_asked_about_only_where_policy_applies_to_it() {
    let deny = "types: [Ingress], ingress: [{action: Deny, protocol: TCP, destination: {ports: [80]}}, {action: Pass}]";
    let through = |port| packet(forward("eth0", "cali1"), "192.0.2.1", "10.0.0.1", Transport::tcp(port));
    let applied = host_endpoint(&host_policy("applyOnForward: true", deny));
    assert!(!allows(&applied, &through(80)));
    assert!(allows(&applied, &through(81)), "passed out of the last tier");
    assert!(allows(&host_endpoint(&host_policy("applyOnForward: false", deny)), &through(80)));
}

#[test]
fn pe76_nobody_but_the_node_sends_to_its_loopback_addresses() {
    let world = world(
        "apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {defaultEndpointToHostAction: Return}
",
    );
    let to_host = |from: &str, source, destination| {
        packet(Path::ToHost { from: from.parse().unwrap() }, source, destination, Transport::tcp(80))
    };
    for (from, source) in [("eth0", "192.0.2.1"), ("cali3", "10.0.0.3")] {
        assert!(allows(&world, &to_host(from, source, "172.16.0.1")));
        assert!(!allows(&world, &to_host(from, source, "127.0.0.1")));
        assert!(!allows(&world, &to_host(from, source, "127.255.0.9")));
    }
    assert!(allows(&world, &to_host("lo", "127.0.0.1", "127.0.0.1")));
}

#[test]
fn pe77_workloads_make_no_tunnel_packets_and_strangers_neither() {
    let world = world(
        "apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.0.0.0/16, vxlanMode: Always}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-2}
spec: {bgp: {ipv4Address: 172.16.0.2/24}}
",
    );
    let vxlan = |from: &str, source| {
        packet(Path::ToHost { from: from.parse().unwrap() }, source, "172.16.0.1", Transport::udp(4789))
    };
    assert!(allows(&world, &vxlan("eth0", "172.16.0.2")));
    assert!(!allows(&world, &vxlan("eth0", "172.16.0.3")));
    assert!(!allows(&world, &vxlan("cali3", "10.0.0.3")));
    let out = packet(forward("cali3", "eth0"), "10.0.0.3", "172.16.0.2", Transport::udp(4789));
    assert!(!allows(&world, &out));
}

proptest! {
    #[test]
    fn pe20_pe24_policies_go_by_order_then_name(
        orders in proptest::collection::vec(
            proptest::option::of(prop_oneof![Just(-1e308), Just(-0.0), Just(0.0), Just(1e-320), Just(1.5)]), 1..12),
    ) {
        // Each policy allows one port and passes the rest on to nobody: the first to name the port decides.
        let mut resources = String::new();
        for (i, order) in orders.iter().enumerate() {
            let order = order.map_or(String::new(), |order| format!("order: {order:e}, "));
            let action = if i.is_multiple_of(2) { "Allow" } else { "Deny" };
            resources += &format!(
                "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: p{i:02}, namespace: shop}}\nspec: {{{order}selector: role == 'db', ingress: [{{action: {action}}}]}}\n"
            );
        }
        let mut sorted: Vec<usize> = (0..orders.len()).collect();
        sorted.sort_by(|a, b| {
            let order = |i: usize| orders[i].unwrap_or(f64::INFINITY);
            order(*a).partial_cmp(&order(*b)).unwrap().then(a.cmp(b))
        });
        let world = world(resources.trim_start_matches("---\n"));
        prop_assert_eq!(allows(&world, &from_web("10.0.0.1", Transport::tcp(80))), sorted[0].is_multiple_of(2));
    }
}
