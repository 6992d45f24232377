//! Edges of flows: those that nobody knows any more, that take another path, or that began before there was policy.

use std::net::UdpSocket;
use std::time::Duration;

use calico_model::{Snapshot, Update, manifest};
use calico_policy::packet::{ConnectionState, Destination, PortProtocol};
use calico_policy::{Flow, FlowJudge, Path, Transport, Verdict, compile, evaluate, simulate, way};

use crate::edge_cases::{allows, forward, packet, policy, world};
use crate::golden;
use crate::lab::{Filter, Lab, Workload};

fn sctp(source: u16, destination: u16) -> Transport {
    Transport::Ports { protocol: PortProtocol::Sctp, source, destination }
}

#[test]
fn pe37_what_sctp_sends_by_a_second_path_begins_a_flow_and_what_is_invalid_is_dropped_as_configured() {
    let asks = |source: &str, check: &str, state| {
        let world = world(&format!(
            "apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: two-paths, namespace: shop, labels: {{role: peer}}}}
spec: {{node: node-1, interfaceName: cali7, ipNetworks: [10.0.0.7, 10.0.0.8], profiles: [projectcalico-default-allow]}}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {{name: default}}
spec: {{{check}}}
---
{}",
            policy("types: [Ingress], ingress: [{action: Allow, protocol: SCTP, source: {selector: role == 'peer'}}]")
        ));
        allows(
            &world,
            &packet(forward("cali7", "cali1"), source, "10.0.0.1", sctp(3868, 3868)).in_state(state),
        )
    };
    let unchecked = "disableConntrackInvalidCheck: true";
    for own in ["10.0.0.7", "10.0.0.8"] {
        assert!(asks(own, "", ConnectionState::New), "a heartbeat of either address");
    }
    assert!(!asks("10.0.0.9", "", ConnectionState::New), "an address that is not its own");
    assert!(!asks("10.0.0.8", "", ConnectionState::Invalid));
    assert!(asks("10.0.0.8", unchecked, ConnectionState::Invalid));
    assert!(!asks("10.0.0.9", unchecked, ConnectionState::Invalid), "still not its own");
}

/// A cluster that asks about addresses in every way there is.
const ADDRESSED: &str = "apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: db, namespace: shop, labels: {role: db}}
spec: {node: node-1, interfaceName: cali1, ipNetworks: [10.0.0.1], profiles: [projectcalico-default-allow],
       ports: [{name: sql, protocol: TCP, port: 3306}]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: shop, labels: {role: web}}
spec: {node: node-1, interfaceName: cali2, ipNetworks: [10.0.0.2], profiles: [projectcalico-default-allow],
       allowSpoofedSourcePrefixes: [10.0.0.8/30]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: uplink, labels: {host: edge}}
spec: {node: node-1, interfaceName: eth0, expectedIPs: [10.0.0.14]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: partners, labels: {kind: partner}}
spec: {nets: [10.0.0.16/30, 10.0.0.21]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: role == 'db'
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: role == 'web'}, destination: {ports: [sql]}}
  - {action: Allow, protocol: TCP, source: {selector: kind == 'partner', namespaceSelector: global()}, destination: {ports: ['80:81']}}
  - {action: Allow, protocol: UDP, source: {nets: [10.0.0.8/29], notNets: [10.0.0.12/31]}}
  egress:
  - {action: Deny, destination: {nets: [10.0.0.16/31]}}
  - {action: Allow, protocol: TCP, destination: {notPorts: [443], notNets: [10.0.0.24/29]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: edge}
spec:
  selector: host == 'edge'
  types: [Ingress]
  ingress: [{action: Allow, protocol: TCP, source: {nets: [10.0.0.20/30]}, destination: {ports: [9000]}}]
";

/// Writes the same with an address of IPv6 for each of IPv4.
fn in_ipv6(text: &str) -> String {
    let mut parts = text.split("10.0.0.");
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (host, rest) = part.split_at(part.find(|c: char| !c.is_ascii_digit()).unwrap());
        let address = format!("fd00::{:x}", host.parse::<u8>().unwrap());
        written += &match rest.strip_prefix('/') {
            Some(rest) => format!("'{address}/{}'{}", 96 + rest[..2].parse::<u8>().unwrap(), &rest[2..]),
            None => format!("'{address}'{rest}"),
        };
    }
    written
}

#[test]
fn pe49_a_cluster_of_ipv6_decides_as_the_same_one_of_ipv4() {
    let read = |text: &str| {
        let mut world = Snapshot::default();
        for document in manifest::parse(text.as_bytes()) {
            world.apply(Update::Put(Box::new(document.unwrap().check_input().unwrap())));
        }
        let ruleset = compile(&world, &"node-1".parse().unwrap());
        (world, ruleset)
    };
    let families = [(read(ADDRESSED), "10.0.0."), (read(&in_ipv6(ADDRESSED)), "fd00::")];
    let ports = |protocol, destination| Transport::Ports { protocol, source: 40_000, destination };
    let transports = [
        ports(PortProtocol::Tcp, 3306),
        ports(PortProtocol::Tcp, 81),
        ports(PortProtocol::Tcp, 443),
        ports(PortProtocol::Tcp, 9000),
        ports(PortProtocol::Udp, 53),
    ];
    let to_host = |from: &str| Path::ToHost { from: from.parse().unwrap() };
    let mut allowed = 0;
    for (path, source, destination) in (0..32)
        .flat_map(|other| {
            [
                (forward("eth0", "cali1"), other, 1),
                (forward("cali2", "cali1"), other, 1),
                (forward("cali1", "eth0"), 1, other),
                (forward("cali1", "cali2"), 1, other),
                (to_host("eth0"), other, 14),
            ]
        })
        .filter(|(_, source, destination)| source != destination)
    {
        for transport in transports {
            let [v4, v6] = families.each_ref().map(|((world, ruleset), net)| {
                let address = |host: u8| {
                    if *net == "fd00::" { format!("fd00::{host:x}") } else { format!("{net}{host}") }
                };
                let packet = packet(path.clone(), &address(source), &address(destination), transport);
                let outcome = evaluate(world, &packet).outcome;
                assert_eq!(simulate(ruleset, &packet), outcome, "{packet}");
                outcome
            });
            assert_eq!(v4, v6, "{path:?} from {source} to {destination}, {transport:?}");
            allowed += usize::from(v4.verdict == Verdict::Allow);
        }
    }
    assert!((50..400).contains(&allowed), "{allowed} of 795");
}

#[test]
fn pe51_a_node_that_calls_is_known_by_its_addresses_and_a_workload_keeps_its_own() {
    let source = |clause: &str| {
        world(&format!(
            "apiVersion: projectcalico.org/v3
kind: Node
metadata: {{name: node-2}}
spec: {{bgp: {{ipv4Address: 172.16.0.2/24}}, ipv4VXLANTunnelAddr: 10.0.2.0}}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {{name: far, labels: {{role: web}}}}
spec: {{node: node-2, interfaceName: eth0, expectedIPs: [172.16.0.2]}}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: far-web, namespace: shop, labels: {{role: web}}}}
spec: {{node: node-2, interfaceName: cali5, ipNetworks: [10.0.2.5], profiles: [projectcalico-default-allow]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: p}}
spec: {{selector: role == 'db', types: [Ingress], ingress: [{{action: Allow, source: {{{clause}}}}}]}}
"
        ))
    };
    // As it comes by a Service: its address is translated by the node that sends it.
    let asks = |clause: &str| {
        ["10.0.2.5", "172.16.0.2", "10.0.2.0"].map(|from| {
            let mut packet = packet(forward("eth0", "cali1"), from, "10.0.0.1", Transport::tcp(80));
            packet.original_destination =
                Some(Destination { addr: "10.96.0.1".parse().unwrap(), port: 8080 });
            allows(&source(clause), &packet)
        })
    };
    assert_eq!(asks("selector: role == 'web'"), [true, true, false], "a tunnel's address is nobody's label");
    assert_eq!(asks("selector: role == 'web', namespaceSelector: all()"), [true, false, false]);
    assert_eq!(asks("nets: [10.0.2.0/32]"), [false, false, true]);
    assert_eq!(asks("nets: [172.16.0.2/32]"), [false, true, false]);
    let world = source("selector: role == 'web'");
    let hops = way(
        &world,
        "10.0.2.5".parse().unwrap(),
        "10.0.0.1".parse().unwrap(),
        Transport::tcp(80),
        &"eth0".parse().unwrap(),
    );
    assert_eq!(hops.len(), 2);
    assert!(hops.iter().all(|hop| hop.source == "10.0.2.5".parse::<std::net::IpAddr>().unwrap()));
}

#[test]
fn pe65_an_answer_whose_flow_nobody_knows_is_asked_about_as_a_flow_of_its_own() {
    let answer = Transport::Ports { protocol: PortProtocol::Tcp, source: 3306, destination: 40_000 };
    let of = |client: &str| {
        let world = world(&format!(
            "{}---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: client, namespace: shop}}
spec: {{selector: role == 'web', {client}}}
",
            policy(
                "types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [3306]}}]"
            )
        ));
        let asked = packet(forward("cali3", "cali1"), "10.0.0.3", "10.0.0.1", Transport::tcp(3306));
        let answer = packet(forward("cali1", "cali3"), "10.0.0.1", "10.0.0.3", answer);
        let known = answer.clone().in_state(ConnectionState::Established);
        [asked, answer, known].map(|packet| allows(&world, &packet))
    };
    assert_eq!(
        of("types: [Ingress, Egress], egress: [{action: Allow}]"),
        [true, false, true],
        "never turned around"
    );
    assert_eq!(of("types: [Egress], egress: [{action: Allow}]"), [true, true, true]);
}

#[test]
fn pe68_what_was_sent_before_there_was_policy_is_not_held_against_the_flow_later() {
    for filter in Filter::ALL {
        let world = golden::world("database");
        let mut before = world.clone();
        let key = before
            .workloads
            .values()
            .find(|workload| {
                workload.spec.interface_name.as_ref().is_some_and(|name| name.as_str() == "cali000000web1")
            })
            .unwrap()
            .key();
        before.apply(Update::Removed(key));
        let lab = Lab::of(&world);
        lab.apply_in(filter, &before);
        let (web, db) = (lab.workload("cali000000web1"), lab.workload("cali0000000db1"));
        let answerer = udp(db, "0.0.0.0:3306");
        let sender = udp(web, "0.0.0.0:40000");
        let ask = || {
            sender.send_to(b"ping", db.socket(3306)).unwrap();
            let mut buffer = [0; 8];
            let Ok((length, from)) = answerer.recv_from(&mut buffer) else { return false };
            answerer.send_to(&buffer[..length], from).unwrap();
            sender.recv_from(&mut buffer).is_ok()
        };
        assert!(!ask(), "{filter:?}: nobody knows the sender");
        let mut open = world.clone();
        for policy in open.policies.values_mut().map(std::sync::Arc::make_mut) {
            policy.spec.0.ingress.iter_mut().for_each(|rule| *rule = calico_model::resource::Rule::allow());
            policy.spec.0.egress.iter_mut().for_each(|rule| *rule = calico_model::resource::Rule::allow());
        }
        lab.apply_in(filter, &open);
        assert!(ask(), "{filter:?}: the same addresses and ports");
    }
}

/// A socket of a workload that waits for a moment only.
fn udp(workload: &Workload, at: &str) -> UdpSocket {
    let socket = workload.namespace.within(|| UdpSocket::bind(at)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    socket
}

#[test]
fn pe61_pe70_what_a_node_sends_to_its_workloads_is_its_own_whichever_of_its_addresses_it_comes_from() {
    let node = "apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-1}
spec:
  bgp: {ipv4Address: 172.16.0.1/24, ipv4IPIPTunnelAddr: 10.9.0.1}
  ipv4VXLANTunnelAddr: 10.9.0.2
  ipv6VXLANTunnelAddr: 'fd00:9::2'
  wireguard: {interfaceIPv4Address: 10.9.0.3}
";
    let world = world(&format!("{node}---\n{}", policy("types: [Ingress]")));
    let ruleset = compile(&world, &"node-1".parse().unwrap());
    let judge = || FlowJudge::new(&world, "node-1".parse().unwrap(), &ruleset);
    let verdict = |judge: &FlowJudge<'_>, source: &str| {
        let source: std::net::IpAddr = source.parse().unwrap();
        let destination = if source.is_ipv4() { "10.0.0.1" } else { "fd00::1" }.parse().unwrap();
        let transport = Transport::tcp(80);
        judge.verdict(&Flow { source, destination, original_destination: None, transport }).unwrap()
    };
    let named = ["172.16.0.1", "10.9.0.1", "10.9.0.2", "10.9.0.3", "fd00:9::2"];
    assert_eq!(named.map(|source| verdict(&judge(), source)), [Verdict::Allow; 5]);
    let unnamed = ["172.16.9.1", "fd00:8::1", "127.0.0.1"];
    assert_eq!(unnamed.map(|source| verdict(&judge(), source)), [Verdict::Deny; 3], "as far as is known");
    let told = judge().with_addresses(["172.16.9.1", "fd00:8::1"].map(|addr| addr.parse().unwrap()).into());
    assert_eq!(unnamed.map(|source| verdict(&told, source)), [Verdict::Allow; 3]);
    assert_eq!(verdict(&told, "192.0.2.1"), Verdict::Deny);
}
