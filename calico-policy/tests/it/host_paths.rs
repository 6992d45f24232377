//! What a node sends and receives itself, as packets: its links, translated destinations, addresses that no resource names.

use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use calico_model::resource::FelixConfiguration;
use calico_model::resource::felix::DenyAction;
use calico_model::{Snapshot, Update, manifest};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

use crate::edge_cases::{host_endpoint, host_policy};
use crate::every_filter::configure;
use crate::golden;
use crate::lab::{Filter, Lab, connect, echoes, serve};
use crate::netns::Namespace;

/// Nobody waits longer than this for an answer.
const PATIENCE: Duration = Duration::from_millis(400);

/// A host without workloads and its neighbour by eth0, both with addresses of both families.
fn host_and_neighbour() -> (Lab, Namespace) {
    let lab = Lab::without_workloads();
    let neighbour = lab.neighbour();
    for (namespace, addr) in [(&lab.host, "fd00:7::1/64"), (&neighbour, "fd00:7::2/64")] {
        namespace.ip(&format!("addr add {addr} dev eth0 nodad"));
    }
    (lab, neighbour)
}

#[test]
fn pe72_pe73_neighbours_are_discovered_where_a_host_endpoint_denies_all_but_its_failsafe_ports() {
    let deny = |place: &str| host_policy(place, "ingress: [{action: Deny}]");
    let worlds = [
        host_endpoint(""),
        host_endpoint(&deny("types: [Ingress]")),
        host_endpoint(&deny("preDNAT: true, applyOnForward: true, types: [Ingress]")),
        host_endpoint(&host_policy(
            "doNotTrack: true, applyOnForward: true, types: [Ingress, Egress]",
            "ingress: [{action: Deny}], egress: [{action: Deny}]",
        )),
    ];
    for (number, world) in worlds.iter().enumerate() {
        for filter in Filter::ALL {
            let case = format!("{filter:?}, world {number}");
            let (lab, neighbour) = host_and_neighbour();
            lab.host.within(|| [22, 80].map(|port| serve(&format!("[::]:{port}"))));
            let server = neighbour.within(|| UdpSocket::bind("[::]:53").unwrap());
            server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            lab.apply_in(filter, world);
            let forget = || [&lab.host, &neighbour].map(|namespace| namespace.ip("-6 neigh flush dev eth0"));
            let reached = [22, 80].map(|port| {
                forget();
                let to = format!("[fd00:7::1]:{port}").parse().unwrap();
                neighbour.within(|| connect(to)).is_some()
            });
            assert_eq!(reached, [true, false], "{case}");
            forget();
            lab.host.within(|| UdpSocket::bind("[::]:0").unwrap().send_to(b"x", "[fd00:7::2]:53").unwrap());
            let (_, heard) = server.recv_from(&mut [0; 8]).expect("what a failsafe port lets out arrives");
            assert_eq!(heard.ip().to_string(), "fd00:7::1", "{case}");
        }
    }
}

/// Two addresses of services, which the node reaches by eth0 until they are translated: one to the database's, one to that of
/// a machine behind eth1.
const SERVICES: [&str; 2] = ["10.96.0.1:3306", "10.96.0.2:8080"];

/// The database, its clients and a host endpoint at some interface, which lets out nothing but its failsafe ports.
fn guarded(interface: &str) -> Snapshot {
    let mut world = golden::world("database");
    let endpoint = format!(
        "apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {{name: guarded}}
spec: {{node: node-1, interfaceName: '{interface}'}}
"
    );
    for document in manifest::parse(endpoint.as_bytes()) {
        world.apply(Update::Put(Box::new(document.unwrap().check_input().unwrap())));
    }
    world
}

/// A host with workloads and two neighbours, that translates the services' addresses for itself and for others.
fn host_of_services(world: &Snapshot) -> (Lab, Namespace, Namespace) {
    let lab = Lab::of(world);
    let (near, far) = (lab.neighbour(), Namespace::new("far"));
    lab.host.ip(&format!("link add eth1 type veth peer name eth0 netns {}", far.name()));
    lab.host.ip("addr add 172.16.8.1/24 dev eth1");
    lab.host.ip("link set eth1 up");
    far.ip("link set eth0 up");
    far.ip("addr add 172.16.8.2/24 dev eth0");
    far.ip("route add default via 172.16.8.1");
    lab.host.ip("route add default via 172.16.7.2");
    far.within(|| serve("0.0.0.0:8080"));
    let database = lab.workload("cali0000000db1").socket(3306);
    let backends = [database, "172.16.8.2:8080".parse().unwrap()];
    let rules: String = SERVICES
        .iter()
        .zip(backends)
        .map(|(service, backend)| {
            let (addr, port) = service.split_once(':').unwrap();
            format!("ip daddr {addr} tcp dport {port} dnat to {backend}\n")
        })
        .collect();
    lab.host.exec_with(
        "nft -f -",
        &format!(
            "table ip services {{
chain own {{ type nat hook output priority -100; {rules} }}
chain others {{ type nat hook prerouting priority -100; {rules} }}
chain leaves {{ type nat hook postrouting priority 100; oifname \"eth1\" masquerade; }}
}}"
        ),
    );
    (lab, near, far)
}

/// In the hook `output` a packet has the interface of its first route also after the translation of its destination.
#[test]
fn pe53_what_a_node_sends_to_a_service_is_judged_by_the_interface_that_it_leaves_by() {
    for filter in Filter::ALL {
        // To its own workload the node may always; what leaves is asked about by who guards that interface alone.
        for (interface, expected) in [("eth0", [true, true]), ("eth1", [true, false]), ("*", [true, false])] {
            for deny in [DenyAction::Drop, DenyAction::Reject] {
                let mut world = guarded(interface);
                let spec = FelixConfiguration {
                    nftables_filter_deny_action: Some(deny),
                    iptables_filter_deny_action: Some(deny),
                    ..FelixConfiguration::new()
                };
                configure(&mut world, filter, spec);
                let case = format!("{filter:?}, {interface}, {deny:?}");
                let (lab, _near, _far) = host_of_services(&world);
                // Who leaves hears nothing where it is denied, whatever is configured: no filter tells anybody there.
                let reached =
                    || SERVICES.map(|to| lab.host.within(|| connect(to.parse().unwrap())).is_some());
                let mut began_before = lab
                    .host
                    .within(|| connect(SERVICES[1].parse().unwrap()))
                    .expect("nothing is guarded yet");
                lab.apply_in(filter, &world);
                assert_eq!(reached(), expected, "{case}");
                assert!(echoes(&mut began_before), "{case}: a flow that was let through goes on");
                let other = lab.workload("cali0000other1");
                let reaches = |to: &str| TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE).is_ok();
                let forwarded = other.namespace.within(|| SERVICES.map(reaches));
                assert_eq!(forwarded, [false, true], "{case}");
            }
        }
    }
}

/// So come packets of proxies of services that take them in at the hook `input` and send them again (IPVS): they never meet the
/// hook where ingress policy is asked.
#[test]
fn pe70_a_node_reaches_its_workloads_from_its_own_addresses_alone() {
    for filter in Filter::ALL {
        let mut world = golden::world("database");
        configure(&mut world, filter, FelixConfiguration::new());
        let lab = Lab::of(&world);
        let db = lab.workload("cali0000000db1");
        lab.host.ip("addr add 172.16.6.11/32 dev lo");
        let received = db.namespace.within(|| UdpSocket::bind("0.0.0.0:9").unwrap());
        received.set_read_timeout(Some(PATIENCE)).unwrap();
        let arrives_from = |addr: &str| {
            lab.host.within(|| {
                let sent = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::empty(), None).unwrap();
                setsockopt(&sent, sockopt::IpTransparent, &true).unwrap();
                let from: SockaddrIn = format!("{addr}:9").parse().unwrap();
                bind(std::os::fd::AsRawFd::as_raw_fd(&sent), &from).unwrap();
                // The kernel says so at once where it drops.
                let _ = UdpSocket::from(sent).send_to(b"x", db.socket(9));
            });
            received.recv_from(&mut [0; 8]).is_ok()
        };
        let (other, web) = (&lab.workload("cali0000other1").addr, &lab.workload("cali000000web1").addr);
        let sources = [other.as_str(), web, "203.0.113.9", "172.16.6.11"];
        assert_eq!(sources.map(arrives_from), [true; 4], "{filter:?}: without rules");
        lab.host.exec("conntrack -F");
        lab.apply_in(filter, &world);
        assert_eq!(sources.map(arrives_from), [false, false, false, true], "{filter:?}");
    }
}
