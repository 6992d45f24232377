//! Words of resources that no edge is known of: each decides what it says.

use calico_policy::packet::{ConnectionState, PortProtocol};
use calico_policy::ruleset::{Match, Rule};
use calico_policy::{Layout, Path, Ruleset, Transport, compile, compile_in};

use crate::edge_cases::{allows, forward, host_policy, packet, policy, world};

fn to_host(interface: &str, addr: &str, port: u16) -> calico_policy::Packet {
    let path = Path::ToHost { from: interface.parse().unwrap() };
    packet(path, "192.0.2.1", addr, Transport::tcp(port))
}

#[test]
fn a_host_endpoint_guards_an_interface_addresses_or_all_that_no_other_does() {
    let endpoints = |specs: &[(&str, &str)]| {
        let of = |(name, spec): &(&str, &str)| {
            format!(
                "apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {{name: {name}, labels: {{host: {name}}}}}
spec: {{node: node-1, {spec}}}
---
"
            )
        };
        specs.iter().map(of).collect::<String>()
    };
    let open = "apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: open}
spec: {selector: host == 'open', types: [Ingress, Egress], ingress: [{action: Allow}], egress: [{action: Allow}]}
";
    let asked = [("eth0", "172.16.0.1"), ("eth0", "172.16.0.2"), ("eth1", "172.16.0.1"), ("lo", "127.0.0.1")];
    for (specs, expected) in [
        (&[("shut", "interfaceName: eth0")][..], [false, false, true, true]),
        (&[("shut", "expectedIPs: [172.16.0.1]")], [false, true, false, true]),
        (&[("shut", "interfaceName: '*'")], [false, false, false, true]),
        (&[("shut", "interfaceName: '*'"), ("open", "interfaceName: eth0")], [true, true, false, true]),
        (
            &[("shut", "interfaceName: '*'"), ("open", "expectedIPs: [172.16.0.2]")],
            [false, true, false, true],
        ),
    ] {
        let world = world(&(endpoints(specs) + open));
        let reached = asked.map(|(interface, addr)| allows(&world, &to_host(interface, addr, 80)));
        assert_eq!(reached, expected, "{specs:?}");
    }
}

#[test]
fn a_tier_with_staged_policies_alone_decides_nothing() {
    let staged = |kind: &str| {
        format!(
            "apiVersion: projectcalico.org/v3
kind: Tier
metadata: {{name: t}}
spec: {{order: 1, defaultAction: Deny}}
---
apiVersion: projectcalico.org/v3
kind: {kind}
metadata: {{name: t.p, namespace: shop}}
spec: {{tier: t, selector: role == 'db', types: [Ingress]}}
"
        )
    };
    let packet = packet(forward("cali3", "cali1"), "10.0.0.3", "10.0.0.1", Transport::tcp(80));
    assert!(allows(&world(&staged("StagedNetworkPolicy")), &packet));
    assert!(!allows(&world(&staged("NetworkPolicy")), &packet));
}

#[test]
fn labels_come_from_profiles_and_an_endpoints_own_come_first() {
    let of = |labels: &str, selector: &str| {
        let world = world(&format!(
            "apiVersion: projectcalico.org/v3
kind: Profile
metadata: {{name: team}}
spec: {{labelsToApply: {{team: a}}, ingress: [{{action: Allow}}], egress: [{{action: Allow}}]}}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: w, namespace: shop, labels: {{{labels}}}}}
spec: {{node: node-1, interfaceName: cali5, ipNetworks: [10.0.0.5], profiles: [team]}}
---
{}",
            policy(&format!("ingress: [{{action: Allow, source: {{selector: {selector}}}}}]"))
        ));
        allows(&world, &packet(forward("cali5", "cali1"), "10.0.0.5", "10.0.0.1", Transport::tcp(80)))
    };
    assert!(of("", "team == 'a'"));
    assert!(!of("team: b", "team == 'a'"));
    assert!(of("team: b", "team == 'b'"));
}

#[test]
fn profiles_are_asked_in_order_after_the_policies() {
    let of = |profiles: &str| {
        let profile = |name: &str, action: &str| {
            format!(
                "apiVersion: projectcalico.org/v3
kind: Profile
metadata: {{name: {name}}}
spec: {{ingress: [{{action: {action}, protocol: TCP}}]}}
---
"
            )
        };
        let world = world(&format!(
            "{}{}apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: w, namespace: shop}}
spec: {{node: node-1, interfaceName: cali5, ipNetworks: [10.0.0.5], profiles: [{profiles}]}}
",
            profile("open", "Allow"),
            profile("shut", "Deny")
        ));
        allows(&world, &packet(forward("cali3", "cali5"), "10.0.0.3", "10.0.0.5", Transport::tcp(80)))
    };
    assert_eq!(["open", "shut", "open, shut", "shut, open"].map(of), [true, false, true, false]);
}

#[test]
fn the_version_of_ip_that_a_rule_names_is_the_one_it_is_for() {
    for version in [4, 6] {
        let world = world(&policy(&format!("ingress: [{{action: Allow, ipVersion: {version}}}]")));
        for (source, destination, is) in [("10.0.0.3", "10.0.0.1", 4), ("fd00::3", "fd00::1", 6)] {
            let packet = packet(forward("cali3", "cali1"), source, destination, Transport::tcp(80));
            assert_eq!(allows(&world, &packet), version == is, "{version} {source}");
        }
    }
}

#[test]
fn what_connection_tracking_finds_invalid_is_denied_unless_nobody_wants_to_know() {
    let of = |setting: bool| {
        let world = world(&format!(
            "apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {{name: default}}
spec: {{disableConntrackInvalidCheck: {setting}}}
"
        ));
        let packet = packet(forward("cali3", "cali1"), "10.0.0.3", "10.0.0.1", Transport::tcp(80));
        [ConnectionState::New, ConnectionState::Invalid]
            .map(|state| allows(&world, &packet.clone().in_state(state)))
    };
    assert_eq!((of(false), of(true)), ([true, false], [true, true]));
}

#[test]
fn the_order_of_policies_is_a_number_and_those_without_come_last() {
    let of = |allow: &str, deny: &str| {
        let one = |name: &str, order: &str, action: &str| {
            format!(
                "apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: {name}, namespace: shop}}
spec: {{{order} selector: role == 'db', types: [Ingress], ingress: [{{action: {action}}}]}}
---
"
            )
        };
        let world = world(&(one("allow", allow, "Allow") + &one("deny", deny, "Deny")));
        allows(&world, &packet(forward("cali3", "cali1"), "10.0.0.3", "10.0.0.1", Transport::tcp(80)))
    };
    for (allow, deny, expected) in [
        ("order: 1.5,", "order: 1.25,", false),
        ("order: 1.25,", "order: 1.5,", true),
        ("order: 1000000,", "", true),
        ("", "order: 1000000,", false),
        ("order: -1,", "order: 0,", true),
        ("", "", true),
        ("order: 0,", "order: -0.0,", true),
    ] {
        assert_eq!(of(allow, deny), expected, "{allow} {deny}");
    }
}

#[test]
fn policy_for_forwarded_traffic_is_no_business_of_what_the_node_gets_itself() {
    let deny = "ingress: [{action: Deny, protocol: TCP, destination: {ports: [80]}}, {action: Allow}]";
    let of = |place: &str| {
        let host = "---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: uplink, labels: {host: edge}}
spec: {node: node-1, interfaceName: eth0}
";
        let world = world(&(host_policy(place, deny) + host));
        let through = packet(forward("eth0", "cali1"), "192.0.2.1", "10.0.0.1", Transport::tcp(80));
        [allows(&world, &through), allows(&world, &to_host("eth0", "172.16.0.1", 80))]
    };
    assert_eq!(of("applyOnForward: false, types: [Ingress]"), [true, false]);
    assert_eq!(of("applyOnForward: true, types: [Ingress]"), [false, false]);
}

#[test]
fn endpoints_under_the_same_policies_share_their_chains_and_cost_an_entry_each() {
    let of = |count: u8| {
        let endpoint = |number: u8| {
            format!(
                "apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: more{number}, namespace: shop, labels: {{role: db}}}}
spec: {{node: node-1, interfaceName: cali5{number}, ipNetworks: [10.0.5.{number}], profiles: [projectcalico-default-allow]}}
---
"
            )
        };
        let ingress =
            "types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]";
        compile(
            &world(&((0..count).map(endpoint).collect::<String>() + &policy(ingress))),
            &"node-1".parse().unwrap(),
        )
    };
    let (few, many) = (of(1), of(9));
    assert_eq!(few.chains, many.chains, "not a chain or rule more for eight endpoints more");
    let led =
        |ruleset: &Ruleset| -> Vec<usize> { ruleset.maps.values().map(|map| map.elements.len()).collect() };
    assert_eq!(few.maps.len(), many.maps.len());
    assert!(led(&few).iter().zip(led(&many)).all(|(few, many)| many == few + 8), "{few}");
}

#[test]
fn a_list_of_names_of_ports_is_one_set_however_long() {
    let names = |from: usize| (from..from + 49).map(|n| format!("p{n}")).collect::<Vec<_>>().join(", ");
    let entity =
        |from: usize| format!("{{ports: [9, {}], notPorts: [7, {}]}}", names(from), names(from + 100));
    let endpoint = |number: u8, ports: &str| {
        format!(
            "apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: n{number}, namespace: shop, labels: {{role: db}}}}
spec: {{node: node-1, interfaceName: cali5{number}, ipNetworks: [10.0.5.{number}], profiles: [projectcalico-default-allow],
       ports: [{ports}]}}
---
"
        )
    };
    let to = "{name: p1, protocol: TCP, port: 1001}, {name: p40, protocol: TCP, port: 1040}";
    let from = "{name: p240, protocol: TCP, port: 1240}, {name: p340, protocol: TCP, port: 1340}";
    // The names of the source's ports begin at 200, of those that it must not have at 300; the destination's at 0 and 100.
    let rule = policy(&format!(
        "types: [Ingress], ingress: [{{action: Allow, protocol: TCP, source: {}, destination: {}}}]",
        entity(200),
        entity(0)
    ));
    let world = world(&(endpoint(1, to) + &endpoint(2, from) + &rule));
    let ruleset = compile_in(Layout::AsWritten, &world, &"node-1".parse().unwrap());
    let is_of_rule = |rule: &&Rule| rule.matches.iter().any(|m| matches!(m, Match::SocketInSet(..)));
    let count = ruleset.chains.values().flat_map(|chain| &chain.rules).filter(is_of_rule).count();
    assert_eq!(count, 2 * 4, "numbers or names of each end, for each family");
    let passes = |source: u16, destination: u16| {
        let transport = Transport::Ports { protocol: PortProtocol::Tcp, source, destination };
        allows(&world, &packet(forward("cali52", "cali51"), "10.0.5.2", "10.0.5.1", transport))
    };
    for (source, destination) in [(1240, 1001), (1240, 1040), (9, 1040), (1240, 9)] {
        assert!(passes(source, destination), "from {source} to {destination}");
    }
    for (source, destination) in [(1340, 1001), (1240, 1002), (1241, 1001), (7, 9)] {
        assert!(!passes(source, destination), "from {source} to {destination}");
    }
}
