//! What a packet meets in each of the kernel's packet filters: nftables, and both variants of iptables.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use calico_model::resource::felix::{DenyAction, NftablesMode};
use calico_model::resource::policy::ServiceMatch;
use calico_model::resource::{
    FelixConfiguration, KubernetesEndpointSlice, NetworkPolicy, Object, Policy, PolicyType, Rule,
};
use calico_model::{Protocol, Snapshot};
use calico_policy::{Outcome, Packet, Path, Transport, evaluate};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, sockopt};

use crate::golden;
use crate::lab::{Filter, Lab, Workload, connect};

/// Nobody waits longer than this for an answer.
const PATIENCE: Duration = Duration::from_millis(400);
/// TCP asks a second time after a second. Where the answer to the first comes back while `connect` still holds the socket, as it
/// may between two namespaces, the kernel only notes it, and refuses with the second.
const SECOND_SYN: Duration = Duration::from_millis(1_600);

pub(crate) fn configure(world: &mut Snapshot, filter: Filter, spec: FelixConfiguration) {
    let mode = if filter == Filter::Nftables { NftablesMode::Enabled } else { NftablesMode::Disabled };
    let spec = FelixConfiguration { nftables_mode: Some(mode), ..spec };
    world.insert(Object::new("default".parse().unwrap(), spec));
}

/// What a client hears of a server that it may not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    Refused,
}

fn heard(error: &std::io::Error) -> Heard {
    let kind = error.kind();
    let nothing = matches!(kind, ErrorKind::TimedOut | ErrorKind::WouldBlock);
    assert!(nothing || kind == ErrorKind::ConnectionRefused, "{error}");
    if nothing { Heard::Nothing } else { Heard::Refused }
}

/// What TCP and UDP clients hear.
fn ask(from: &Workload, to: SocketAddr, patience: Duration) -> [Heard; 2] {
    from.namespace.within(|| {
        let tcp = TcpStream::connect_timeout(&to, patience).expect_err("it may not be reached");
        let socket = UdpSocket::bind((if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(b"x").unwrap();
        let udp = socket.recv(&mut [0; 8]).expect_err("it may not be reached");
        [heard(&tcp), heard(&udp)]
    })
}

#[test]
fn what_policy_denies_is_dropped_or_its_sender_told_at_once_as_configured() {
    for filter in Filter::ALL {
        let mut world = golden::world("database");
        let lab = Lab::of(&world);
        lab.host.ip("addr add 172.16.6.11/32 dev lo");
        let (db, other) = (lab.workload("cali0000000db1"), lab.workload("cali0000other1"));
        for wanted in [DenyAction::Reject, DenyAction::Drop] {
            // What the other packet filter is to do means nothing here.
            let otherwise = if wanted == DenyAction::Drop { DenyAction::Reject } else { DenyAction::Drop };
            let (nft, iptables) =
                if filter == Filter::Nftables { (wanted, otherwise) } else { (otherwise, wanted) };
            let spec = FelixConfiguration {
                nftables_filter_deny_action: Some(nft),
                iptables_filter_deny_action: Some(iptables),
                ..FelixConfiguration::new()
            };
            configure(&mut world, filter, spec);
            lab.apply_in(filter, &world);
            let (expected, outcome, patience) = match wanted {
                DenyAction::Reject => (Heard::Refused, Outcome::REJECTED, SECOND_SYN),
                DenyAction::Drop => (Heard::Nothing, Outcome::DROPPED, PATIENCE),
            };
            for to in [db.socket(3306), db.socket6(3306)] {
                assert_eq!(ask(other, to, patience), [expected, expected], "{filter:?}, {wanted:?}, {to}");
                let path = Path::Forward {
                    from: other.interface.parse().unwrap(),
                    to: db.interface.parse().unwrap(),
                };
                let source = if to.is_ipv4() { &other.addr } else { &other.addr6 };
                let node = "node-1".parse().unwrap();
                let packet =
                    Packet::new(node, path, source.parse().unwrap(), to.ip(), Transport::tcp(3306)).unwrap();
                assert_eq!(evaluate(&world, &packet).outcome, outcome, "{filter:?}, {wanted:?}");
            }
            // Workloads to their own node are dropped, and so is a source that is not theirs: nobody is told.
            let to_host = ask(other, "172.16.6.11:8080".parse().unwrap(), PATIENCE);
            assert_eq!(to_host, [Heard::Nothing; 2], "{filter:?}");
            other.namespace.ip("addr add 192.168.9.9/32 dev eth0");
            let spoofed = other.namespace.within(|| {
                let socket = UdpSocket::bind("192.168.9.9:0").unwrap();
                socket.connect(db.socket(3306)).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.send(b"x").unwrap();
                heard(&socket.recv(&mut [0; 8]).unwrap_err())
            });
            assert_eq!(spoofed, Heard::Nothing, "{filter:?}");
            other.namespace.ip("addr del 192.168.9.9/32 dev eth0");
        }
    }
}

/// A policy of everybody in the namespace of the workloads, in one direction.
fn only(world: &mut Snapshot, direction: PolicyType, rules: Vec<Rule>) {
    world.policies.clear();
    world.global_policies.clear();
    let mut policy = Policy::selecting("all()".parse().unwrap(), vec![direction]);
    match direction {
        PolicyType::Ingress => policy.ingress = rules,
        PolicyType::Egress => policy.egress = rules,
    }
    let mut policy = Object::new("only".parse().unwrap(), NetworkPolicy(policy));
    policy.metadata.namespace = world.workloads.keys().next().unwrap().namespace.clone();
    world.insert(policy);
}

fn slice(world: &mut Snapshot, of: &Workload) {
    let addrs = [&of.addr, &of.addr6].map(|addr| addr.parse().unwrap());
    let slice = KubernetesEndpointSlice::new(addrs, &[(Protocol::TCP, 3306)]);
    let mut slice = Object::new("db-1".parse().unwrap(), slice);
    slice.metadata.namespace = world.workloads.keys().next().unwrap().namespace.clone();
    slice.metadata.labels.insert("kubernetes.io/service-name", "db");
    world.insert(slice);
}

fn service() -> Option<ServiceMatch> {
    Some(ServiceMatch { name: "db".to_owned(), namespace: None })
}

#[test]
fn a_service_is_reached_at_the_sockets_of_its_endpoints_alone() {
    for filter in Filter::ALL {
        let mut world = golden::world("database");
        let lab = Lab::of(&world);
        let (db, other) = (lab.workload("cali0000000db1"), lab.workload("cali0000other1"));
        let mut rule = Rule::allow();
        rule.destination.services = service();
        only(&mut world, PolicyType::Egress, vec![rule]);
        lab.apply_in(filter, &world);
        let reached = || {
            let sockets = [db.socket(3306), db.socket6(3306), db.socket(80)];
            sockets.map(|socket| other.namespace.within(|| connect(socket)).is_some())
        };
        assert_eq!(reached(), [false; 3], "{filter:?}: a service without endpoints");
        slice(&mut world, db);
        lab.apply_in(filter, &world);
        assert_eq!(reached(), [true, true, false], "{filter:?}");
    }
}

#[test]
fn a_service_sends_from_the_addresses_of_its_endpoints_whatever_the_port() {
    for filter in Filter::ALL {
        let mut world = golden::world("database");
        let lab = Lab::of(&world);
        let (web, db) = (lab.workload("cali000000web1"), lab.workload("cali0000000db1"));
        let other = lab.workload("cali0000other1");
        let mut rule = Rule::allow();
        rule.source.services = service();
        only(&mut world, PolicyType::Ingress, vec![rule]);
        lab.apply_in(filter, &world);
        let reaches = |from: &Workload| {
            let sockets = [other.socket(3306), other.socket6(80)];
            sockets.map(|socket| from.namespace.within(|| connect(socket)).is_some())
        };
        assert_eq!(reaches(db), [false; 2], "{filter:?}: a service without endpoints");
        slice(&mut world, db);
        lab.apply_in(filter, &world);
        assert_eq!((reaches(db), reaches(web)), ([true; 2], [false; 2]), "{filter:?}");
    }
}

/// Answers each client with the address that it is seen to come from.
fn mirror(addr: &str) {
    let listener = TcpListener::bind(addr).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let Ok(peer) = stream.peer_addr() else { continue };
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    });
}

#[test]
fn what_leaves_all_pools_comes_from_the_address_and_ports_that_are_configured() {
    for filter in Filter::ALL {
        let mut world = golden::world("database");
        world.policies.clear();
        world.global_policies.clear();
        let lab = Lab::of(&world);
        let outside = lab.neighbour();
        outside.within(|| mirror("0.0.0.0:8080"));
        let (web, other) = (lab.workload("cali000000web1"), lab.workload("cali0000other1"));
        // Inside the pools everybody keeps its address.
        web.namespace.within(|| mirror("0.0.0.0:8080"));
        let seen = |to: &str| -> SocketAddr {
            other.namespace.within(|| {
                let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE).unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                text.parse().unwrap()
            })
        };
        for (addr, ports, from, between) in [
            (None, None, "172.16.7.1", (1, u16::MAX)),
            (None, Some("2000:2003"), "172.16.7.1", (2000, 2003)),
            (Some("203.0.113.7"), None, "203.0.113.7", (1, u16::MAX)),
            (Some("203.0.113.7"), Some("4000:4007"), "203.0.113.7", (4000, 4007)),
        ] {
            let spec = FelixConfiguration {
                nat_outgoing_address: addr.map(|addr: &str| addr.parse().unwrap()),
                nat_port_range: ports.map(|ports| ports.parse().unwrap()),
                ..FelixConfiguration::new()
            };
            configure(&mut world, filter, spec);
            lab.apply_in(filter, &world);
            for _ in 0..2 {
                let peer = seen("172.16.7.2:8080");
                assert_eq!(peer.ip().to_string(), from, "{filter:?}, {addr:?}, {ports:?}");
                assert!((between.0..=between.1).contains(&peer.port()), "{filter:?}, {ports:?}: {peer}");
            }
            let inside = seen(&web.socket(8080).to_string());
            assert_eq!(inside.ip().to_string(), other.addr, "{filter:?}");
        }
    }
}

/// Rules of networks and ports become one set; the last names more ports than an ipset is given.
#[test]
fn networks_with_their_ports_are_told_apart_of_either_end() {
    for filter in Filter::ALL {
        let mut world = golden::world("database");
        let lab = Lab::of(&world);
        let (web, db) = (lab.workload("cali000000web1"), lab.workload("cali0000000db1"));
        let other = lab.workload("cali0000other1");
        for (direction, [one, another]) in
            [(PolicyType::Ingress, [web, other]), (PolicyType::Egress, [db, other])]
        {
            let rule = |net: String, ports: &str| {
                let mut rule = Rule::allow();
                rule.protocol = Some("TCP".parse().unwrap());
                let end =
                    if direction == PolicyType::Ingress { &mut rule.source } else { &mut rule.destination };
                end.nets = vec![net.parse().unwrap()];
                rule.destination.ports = vec![ports.parse().unwrap()];
                rule
            };
            let of =
                |addr: &str| if addr.contains(':') { format!("{addr}/128") } else { format!("{addr}/32") };
            let rules =
                [[&one.addr, &another.addr], [&one.addr6, &another.addr6]].into_iter().flat_map(|addrs| {
                    let far = if addrs[0].contains(':') { "fd00:9::/64" } else { "10.9.0.0/16" };
                    [
                        rule(of(addrs[0]), "3300:3306"),
                        rule(of(addrs[1]), "80"),
                        rule(far.to_owned(), "3306"),
                        rule(far.to_owned(), "4000:5000"),
                    ]
                });
            only(&mut world, direction, rules.collect());
            lab.apply_in(filter, &world);
            let reached = |far: &Workload| {
                // Who sends in one case is who receives in the other.
                let (from, to) = if direction == PolicyType::Ingress { (far, db) } else { (web, far) };
                [to.socket(3306), to.socket(80), to.socket6(3306), to.socket6(80)]
                    .map(|socket| from.namespace.within(|| connect(socket)).is_some())
            };
            assert_eq!(reached(one), [true, false, true, false], "{filter:?}, {direction:?}");
            assert_eq!(reached(another), [false, true, false, true], "{filter:?}, {direction:?}");
        }
    }
}

/// A socket for ICMPv6, as neighbour discovery wants it.
fn discovery() -> UdpSocket {
    let socket = nix::sys::socket::socket(
        AddressFamily::Inet6,
        SockType::Raw,
        SockFlag::empty(),
        SockProtocol::IcmpV6,
    );
    let socket = socket.expect("root may");
    setsockopt(&socket, sockopt::Ipv6Ttl, &255).unwrap();
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Reports whether a message of a type comes from an address.
fn hears(socket: &UdpSocket, wanted: u8, source: Ipv6Addr) -> bool {
    let mut bytes = [0; 128];
    while let Ok((_, from)) = socket.recv_from(&mut bytes) {
        if bytes[0] == wanted && from.ip() == IpAddr::V6(source) {
            return true;
        }
    }
    false
}

/// RFC 4861 section 4.3 and 4.4.
#[test]
fn neighbours_are_discovered_on_the_link_whatever_policy_says_and_beyond_it_if_that_allows() {
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    for filter in Filter::ALL {
        let mut world = golden::world("database");
        let lab = Lab::of(&world);
        let (db, other) = (lab.workload("cali0000000db1"), lab.workload("cali0000other1"));
        let own: Ipv6Addr = other.addr6.parse().unwrap();
        let gateway: Ipv6Addr = "fe80::ecee:eeff:feee:eeee".parse().unwrap();
        for (rules, allowed, by_rule) in
            [(vec![Rule::allow()], true, false), (vec![], false, false), (vec![], false, true)]
        {
            only(&mut world, PolicyType::Egress, rules);
            lab.apply_in(filter, &world);
            if by_rule {
                // Only who asks with the interface finds the way.
                for command in [
                    format!("ip -6 route add {} dev {} table 100", db.addr6, db.interface),
                    format!("ip -6 route del {} dev {}", db.addr6, db.interface),
                    format!("ip -6 rule add iif {} lookup 100", other.interface),
                ] {
                    lab.host.exec(&command);
                }
            }
            let remote = db.namespace.within(discovery);
            let answered = other.namespace.within(|| {
                let socket = discovery();
                let solicit = |target: Ipv6Addr| {
                    let link = nix::net::if_::if_nametoindex("eth0").unwrap();
                    let message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0], target.octets().as_slice()].concat();
                    socket.send_to(&message, SocketAddrV6::new(target, 0, 0, link)).unwrap();
                };
                solicit(db.addr6.parse().unwrap());
                solicit(gateway);
                hears(&socket, ADVERTISEMENT, gateway)
            });
            assert!(answered, "{filter:?}: the node tells its address");
            assert_eq!(hears(&remote, SOLICITATION, own), allowed, "{filter:?} {by_rule}");
        }
    }
}
