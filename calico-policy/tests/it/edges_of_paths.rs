//! Edges of a packet's way: where it comes from, how often it is translated, in how many pieces it comes.

use std::net::UdpSocket;
use std::time::Duration;

use calico_policy::packet::{ConnectionState, Destination, PortProtocol};
use calico_policy::{Path, Transport};

use crate::edge_cases::{allows, forward, host_endpoint, host_policy, packet, policy, world};
use crate::golden;
use crate::lab::{Filter, Lab, Workload};

/// Whether the frontend's packet passes to the database, which it means to reach at `service`.
fn through_service(world: &calico_model::Snapshot, port: u16, service: (&str, u16)) -> bool {
    let mut packet = packet(forward("cali3", "cali1"), "10.0.0.3", "10.0.0.1", Transport::tcp(port));
    packet.original_destination = Some(Destination { addr: service.0.parse().unwrap(), port: service.1 });
    allows(world, &packet)
}

#[test]
fn pe31_a_port_is_the_one_that_a_service_leads_to() {
    let world = world(
        "apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec: {selector: role == 'web', types: [Egress], egress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}
",
    );
    assert!(through_service(&world, 80, ("10.96.0.1", 8080)));
    assert!(
        !through_service(&world, 8080, ("10.96.0.1", 80)),
        "that it was asked for at 80 counts for nothing"
    );
}

#[test]
fn pe54_who_comes_back_to_itself_through_a_service_is_asked_about_in_both_directions() {
    let itself = |spec: &str| {
        let world = world(&policy(spec));
        let mut packet = packet(forward("cali1", "cali1"), "10.0.0.1", "10.0.0.1", Transport::tcp(80));
        packet.original_destination = Some(Destination { addr: "10.96.0.1".parse().unwrap(), port: 80 });
        allows(&world, &packet)
    };
    assert!(itself("types: [Ingress], ingress: [{action: Allow, source: {selector: role == 'db'}}]"));
    assert!(!itself("types: [Ingress], ingress: [{action: Allow, source: {selector: role == 'web'}}]"));
    assert!(!itself("types: [Egress]"));
}

#[test]
fn pe60_pe64_what_belongs_to_a_flow_passes_where_nothing_may_begin() {
    let world = world(&policy("types: [Ingress, Egress]"));
    let too_big = Transport::Icmp { icmp_type: 3, code: 4 };
    for transport in [Transport::tcp(80), too_big] {
        for (from, to, source, destination) in
            [("cali3", "cali1", "10.0.0.3", "10.0.0.1"), ("cali1", "cali3", "10.0.0.1", "10.0.0.3")]
        {
            let packet = packet(forward(from, to), source, destination, transport);
            assert!(!allows(&world, &packet));
            assert!(allows(&world, &packet.in_state(ConnectionState::Established)));
        }
    }
}

#[test]
fn pe73_a_link_works_whatever_policy_says_and_what_is_no_part_of_it_is_denied() {
    let world = world(&policy("types: [Ingress, Egress]"));
    let to_host = |icmp_type| {
        let path = Path::ToHost { from: "cali1".parse().unwrap() };
        allows(&world, &packet(path, "fe80::1", "ff02::2", Transport::Icmp { icmp_type, code: 0 }))
    };
    assert_eq!([130, 131, 132, 133, 135, 136].map(to_host), [true; 6]);
    // Echo, router advertisement, redirect.
    assert_eq!([128, 134, 137].map(to_host), [false; 3]);
}

#[test]
fn pe73_what_a_hosts_link_needs_passes_every_stage_and_is_forwarded_by_none() {
    for place in ["types: [Ingress]", "preDNAT: true, applyOnForward: true, types: [Ingress]", UNTRACKED] {
        let world = host_endpoint(&host_policy(place, "ingress: [{action: Deny}]"));
        let passes = |path: Path, destination: &str, icmp_type| {
            let discovery = packet(path, "fe80::1", destination, Transport::Icmp { icmp_type, code: 0 });
            allows(&world, &discovery.in_state(ConnectionState::Untracked))
        };
        let eth0 = || "eth0".parse().unwrap();
        for destination in ["ff02::1", "fe80::2", "2001:db8::1"] {
            let in_out = |icmp_type| {
                let outward = passes(Path::from_host(eth0()), destination, icmp_type);
                (passes(Path::ToHost { from: eth0() }, destination, icmp_type), outward)
            };
            assert_eq!([130, 131, 132, 133, 134, 135, 136, 143].map(in_out), [(true, true); 8], "{place}");
            let denied = [128, 129, 137, 142, 144].map(|icmp_type| in_out(icmp_type).0);
            assert_eq!(denied, [false; 5], "{place}: echo, redirect and others");
        }
        if place != "types: [Ingress]" {
            assert!(!passes(forward("eth0", "eth1"), "2001:db8::1", 135), "{place}");
            assert!(!passes(Path::ToHost { from: eth0() }, "ff05::1", 135), "{place}");
        }
    }
}

const UNTRACKED: &str = "doNotTrack: true, applyOnForward: true, types: [Ingress]";

#[test]
fn pe78_dhcp_is_a_spoofed_source_unless_it_is_named() {
    let asks = |more: &str| {
        let world = world(&format!(
            "apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: vm, namespace: shop}}
spec: {{node: node-1, interfaceName: cali9, ipNetworks: [10.0.0.9], profiles: [projectcalico-default-allow]{more}}}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {{name: default}}
spec: {{defaultEndpointToHostAction: Return}}
"
        ));
        let dhcp = Transport::Ports { protocol: PortProtocol::Udp, source: 68, destination: 67 };
        let path = Path::ToHost { from: "cali9".parse().unwrap() };
        allows(&world, &packet(path, "0.0.0.0", "255.255.255.255", dhcp))
    };
    assert!(!asks(""));
    assert!(asks(", allowSpoofedSourcePrefixes: [0.0.0.0/32]"));
}

#[test]
fn pe18_each_interface_of_a_workload_is_guarded_and_service_accounts_are_selected() {
    let of = |interface: u8, account: &str| {
        format!(
            "---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: node--1-k8s-two-net{interface}, namespace: shop, labels: {{role: two}}}}
spec: {{node: node-1, orchestrator: k8s, pod: two, endpoint: net{interface}, interfaceName: cali2{interface},
       ipNetworks: [10.0.1.{interface}], serviceAccountName: {account}, profiles: [projectcalico-default-allow]}}
"
        )
    };
    let rules = "selector: role == 'two', types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]";
    let policies = format!(
        "apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: two, namespace: shop}}
spec: {{{rules}}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: db, namespace: shop}}
spec: {{selector: role == 'db', types: [Ingress],
       ingress: [{{action: Allow, source: {{serviceAccounts: {{names: [teller]}}}}}}]}}
"
    );
    let world = world(&(policies + &of(1, "teller") + &of(2, "guest")));
    for (interface, teller) in [(1, true), (2, false)] {
        let (name, addr) = (format!("cali2{interface}"), format!("10.0.1.{interface}"));
        for (port, open) in [(80, true), (81, false)] {
            let to = packet(forward("cali3", &name), "10.0.0.3", &addr, Transport::tcp(port));
            assert_eq!(allows(&world, &to), open, "{name} {port}");
        }
        let from = packet(forward(&name, "cali1"), &addr, "10.0.0.1", Transport::tcp(5));
        assert_eq!(allows(&world, &from), teller, "{name}");
    }
}

#[test]
fn pe09_whom_a_selector_means_depends_on_whose_it_is() {
    let others = "---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: far, namespace: lab, labels: {role: web}}
spec: {node: node-1, interfaceName: cali7, ipNetworks: [10.0.2.1], profiles: [kns.lab, projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.lab}
spec: {labelsToApply: {pcns.team: b}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: outside, labels: {role: web}}
spec: {nets: [192.0.2.0/24]}
";
    let own = |source: &str| policy(&format!("ingress: [{{action: Allow, source: {{{source}}}}}]"));
    let global = |source: &str| {
        let spec = format!("ingress: [{{action: Allow, source: {{{source}}}}}]");
        format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: g}}\nspec: {{selector: role == 'db', {spec}}}\n"
        )
    };
    // From the frontend of the same namespace, of another, and from outside.
    let from = [("cali3", "10.0.0.3"), ("cali7", "10.0.2.1"), ("eth0", "192.0.2.1")];
    for (source, of_own, of_global) in [
        ("selector: role == 'web'", [true, false, false], [true, true, true]),
        ("selector: role == 'web', namespaceSelector: all()", [true, true, false], [true, true, false]),
        ("selector: role == 'web', namespaceSelector: global()", [false, false, true], [false, false, true]),
        ("namespaceSelector: team == 'b'", [false, true, false], [false, true, false]),
    ] {
        for (text, expected) in [(own(source), of_own), (global(source), of_global)] {
            let world = world(&(text + others));
            let reached = from.map(|(interface, addr)| {
                allows(&world, &packet(forward(interface, "cali1"), addr, "10.0.0.1", Transport::tcp(5)))
            });
            assert_eq!(reached, expected, "{source} {expected:?}");
        }
    }
}

#[test]
fn pe48_a_network_is_the_same_however_it_is_written() {
    for (net, v4, v6) in [
        ("10.0.0.3/32", true, false),
        ("10.0.0.0/24", true, false),
        ("'FD00::0003/128'", false, true),
        ("'fd00:0:0::/64'", false, true),
    ] {
        let world = world(&policy(&format!("ingress: [{{action: Allow, source: {{nets: [{net}]}}}}]")));
        for (source, destination, expected) in [("10.0.0.3", "10.0.0.1", v4), ("fd00::3", "fd00::1", v6)] {
            let packet = packet(forward("cali3", "cali1"), source, destination, Transport::tcp(80));
            assert_eq!(allows(&world, &packet), expected, "{net} {source}");
        }
    }
    for wrong in ["10.0.0.99/24", "'::ffff:10.0.0.3/24'", "'fe80::1%eth0/128'"] {
        let text = policy(&format!("ingress: [{{action: Allow, source: {{nets: [{wrong}]}}}}]"));
        let read = calico_model::manifest::parse(text.as_bytes()).pop().unwrap();
        assert!(read.is_err() || read.unwrap().check_input().is_err(), "{wrong} says two things");
    }
}

/// Whether a datagram of many fragments arrives and is answered.
fn large_datagram(from: &Workload, to: std::net::SocketAddr) -> bool {
    from.namespace.within(|| {
        let socket = UdpSocket::bind((if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        let sent = vec![7; 20_000];
        let mut buffer = vec![0; 30_000];
        socket.send(&sent).is_ok() && socket.recv(&mut buffer).is_ok_and(|read| buffer[..read] == sent)
    })
}

#[test]
fn pe40_a_datagram_in_many_pieces_passes_or_not_as_a_whole() {
    use calico_model::resource::{NetworkPolicy, Object, Policy, PolicyType, Rule};
    for filter in Filter::ALL {
        let mut world = golden::world("database");
        let lab = Lab::of(&world);
        let (db, other) = (lab.workload("cali0000000db1"), lab.workload("cali0000other1"));
        db.namespace.within(|| {
            for port in [5_000, 5_001] {
                let socket = UdpSocket::bind(("::", port)).unwrap();
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 30_000];
                    while let Ok((read, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(&buffer[..read], from);
                    }
                });
            }
        });
        world.policies.clear();
        world.global_policies.clear();
        let mut rule = Rule::allow();
        rule.protocol = Some("UDP".parse().unwrap());
        rule.destination.ports = vec!["5000".parse().unwrap()];
        let mut policy = Policy::selecting("all()".parse().unwrap(), vec![PolicyType::Ingress]);
        policy.ingress.push(rule);
        let mut policy = Object::new("large".parse().unwrap(), NetworkPolicy(policy));
        policy.metadata.namespace = world.workloads.keys().next().unwrap().namespace.clone();
        world.insert(policy);
        lab.apply_in(filter, &world);
        for (socket, open) in [
            (db.socket(5_000), true),
            (db.socket6(5_000), true),
            (db.socket(5_001), false),
            (db.socket6(5_001), false),
        ] {
            assert_eq!(large_datagram(other, socket), open, "{filter:?} {socket}");
        }
    }
}
