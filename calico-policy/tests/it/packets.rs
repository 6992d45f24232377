//! Allowed and denied as packets, not as rules: workloads on veths of one host, with the compiled policy in its kernel.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use calico_model::Snapshot;
use calico_model::resource::{EndpointToHostAction, FelixConfiguration, Object};
use calico_policy::nft::Nft;
use calico_policy::{Packet, Path, Transport, Verdict, compile, evaluate};

use crate::golden;
use crate::netns::Namespace;

/// The MAC of the host's side of every veth.
const HOST_MAC: &str = "ee:ee:ee:ee:ee:ee";
const PORTS: [u16; 2] = [3306, 80];

/// One host with its workloads.
struct Lab {
    host: Namespace,
    workloads: Vec<Workload>,
}

struct Workload {
    namespace: Namespace,
    interface: String,
    addr: String,
    addr6: String,
}

impl Workload {
    fn socket(&self, port: u16) -> SocketAddr {
        format!("{}:{port}", self.addr).parse().unwrap()
    }

    fn socket6(&self, port: u16) -> SocketAddr {
        format!("[{}]:{port}", self.addr6).parse().unwrap()
    }
}

impl Lab {
    /// Plugs in the workloads of node-1, each with servers that echo what they are sent.
    fn of(world: &Snapshot) -> Self {
        let host = Namespace::new("host");
        host.exec("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let mut lab = Lab { host, workloads: Vec::new() };
        for endpoint in world.workloads.values().filter(|endpoint| endpoint.spec.node.as_str() == "node-1") {
            let interface = endpoint.spec.interface_name.clone().unwrap();
            let addrs: Vec<String> =
                endpoint.spec.ip_networks.iter().map(|net| net.addr().to_string()).collect();
            lab.plug(interface.as_str(), &addrs[0], &addrs[1]);
        }
        lab
    }

    fn plug(&mut self, interface: &str, addr: &str, addr6: &str) -> &Workload {
        let namespace = Namespace::new("workload");
        let guest = namespace.name();
        let host = &self.host;
        host.ip(&format!("link add {interface} address {HOST_MAC} type veth peer name eth0 netns {guest}"));
        // IPv6 duplicate address detection would take a second.
        namespace.exec("sysctl -qw net.ipv6.conf.eth0.accept_dad=0");
        host.exec(&format!("sysctl -qw net.ipv6.conf.{interface}.accept_dad=0"));
        host.ip(&format!("link set {interface} up"));
        namespace.ip("link set eth0 up");
        namespace.ip(&format!("addr add {addr}/32 dev eth0"));
        namespace.ip(&format!("addr add {addr6}/128 dev eth0 nodad"));
        for (gateway, family) in [("169.254.1.1", "-4"), ("fe80::ecee:eeff:feee:eeee", "-6")] {
            namespace.ip(&format!("neigh add {gateway} lladdr {HOST_MAC} dev eth0 nud permanent"));
            namespace.ip(&format!("{family} route add {gateway} dev eth0"));
            namespace.ip(&format!("{family} route add default via {gateway} dev eth0"));
        }
        host.ip(&format!("route add {addr}/32 dev {interface}"));
        host.ip(&format!("-6 route add {addr6}/128 dev {interface}"));
        namespace.within(|| {
            for port in PORTS {
                serve(&format!("[::]:{port}"));
            }
        });
        let workload =
            Workload { namespace, interface: interface.into(), addr: addr.into(), addr6: addr6.into() };
        self.workloads.push(workload);
        self.workloads.last().unwrap()
    }

    fn apply(&self, world: &Snapshot) {
        let ruleset = compile(world, &"node-1".parse().unwrap());
        self.host.within(|| Nft::new().sync(&ruleset)).unwrap();
    }

    fn workload(&self, interface: &str) -> &Workload {
        self.workloads.iter().find(|workload| workload.interface == interface).unwrap()
    }
}

/// Echoes to everybody, on a thread that ends with the process.
fn serve(addr: &str) {
    let listener = TcpListener::bind(addr).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Opens a connection; `None` when nothing answers.
fn connect(to: SocketAddr) -> Option<TcpStream> {
    match TcpStream::connect_timeout(&to, Duration::from_millis(400)) {
        Ok(stream) => Some(stream),
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => None,
        Err(error) => panic!("neither allowed nor dropped: {to}: {error}"),
    }
}

fn echoes(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let mut buffer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut buffer).is_ok() && &buffer == b"ping"
}

#[test]
fn the_kernel_agrees_with_the_resources_about_every_pair() {
    let world = golden::world("database");
    let lab = Lab::of(&world);
    lab.apply(&world);
    let mut allowed = 0;
    for from in &lab.workloads {
        for to in lab.workloads.iter().filter(|to| to.interface != from.interface) {
            for port in PORTS {
                for (source, target) in [(&from.addr, to.socket(port)), (&from.addr6, to.socket6(port))] {
                    let path = Path::Forward {
                        from: from.interface.parse().unwrap(),
                        to: to.interface.parse().unwrap(),
                    };
                    let node = "node-1".parse().unwrap();
                    let packet =
                        Packet::new(node, path, source.parse().unwrap(), target.ip(), Transport::tcp(port))
                            .unwrap();
                    let expected = evaluate(&world, &packet);
                    let observed = from.namespace.within(|| connect(target)).is_some();
                    assert_eq!(observed, expected.outcome.verdict == Verdict::Allow, "{packet}: {expected}");
                    allowed += usize::from(observed);
                }
            }
        }
    }
    // Frontend to database on 3306, and between frontend and other where no policy applies but the frontend's own.
    assert_eq!(allowed, 2 + 4, "in both families");
}

#[test]
fn pe75_a_workload_sends_from_no_address_but_its_own() {
    let world = golden::world("database");
    let lab = Lab::of(&world);
    lab.apply(&world);
    let other = lab.workload("cali0000other1");
    let (web, db) = (lab.workload("cali000000web1"), lab.workload("cali0000000db1"));
    other.namespace.ip(&format!("addr add {}/32 dev eth0", web.addr));
    let before = received(db);
    for address in [&web.addr, "1.2.3.4"] {
        let _ = other.namespace.within(|| {
            std::process::Command::new("ping").args(["-c1", "-W1", "-I", address, &db.addr]).output()
        });
    }
    let spoofed = other.namespace.within(|| {
        let socket = std::net::UdpSocket::bind((web.addr.as_str(), 0)).unwrap();
        socket.send_to(b"x", db.socket(3306)).is_ok()
    });
    assert!(spoofed, "the packet left the workload");
    assert_eq!(received(db), before, "and did not arrive");
}

/// How many IPv4 packets reached a workload, as its kernel counts them.
fn received(workload: &Workload) -> u64 {
    let counters = workload.namespace.exec("cat /proc/net/snmp");
    let values = counters.lines().filter(|line| line.starts_with("Ip: ")).nth(1).unwrap();
    values.split(' ').nth(3).unwrap().parse().unwrap()
}

#[test]
fn pe90_an_interface_without_policy_neither_sends_nor_receives() {
    let world = golden::world("database");
    let mut lab = Lab::of(&world);
    lab.apply(&world);
    lab.plug("cali00000stray", "192.168.1.99", "fd00:168::99");
    let (stray, other) = (lab.workload("cali00000stray"), lab.workload("cali0000other1"));
    for (from, to) in [(stray, other), (other, stray)] {
        assert!(from.namespace.within(|| connect(to.socket(80))).is_none());
        assert!(from.namespace.within(|| connect(to.socket6(80))).is_none());
    }
    // Not even the host, whose kernel says so at once.
    let from_host =
        lab.host.within(|| TcpStream::connect_timeout(&stray.socket(80), Duration::from_millis(400)));
    assert!(from_host.is_err());
    lab.host.within(|| serve("0.0.0.0:8080"));
    lab.host.ip("addr add 172.16.6.11/32 dev lo");
    assert!(stray.namespace.within(|| connect("172.16.6.11:8080".parse().unwrap())).is_none());
}

#[test]
fn pe70_pe71_a_host_reaches_its_workloads_and_they_do_not_reach_it() {
    let world = golden::world("database");
    let lab = Lab::of(&world);
    lab.apply(&world);
    lab.host.ip("addr add 172.16.6.11/32 dev lo");
    lab.host.within(|| serve("0.0.0.0:8080"));
    let (db, other) = (lab.workload("cali0000000db1"), lab.workload("cali0000other1"));
    assert!(lab.host.within(|| connect(db.socket(80))).is_some());
    assert!(other.namespace.within(|| connect("172.16.6.11:8080".parse().unwrap())).is_none());
}

/// CVE-2020-8558: with `route_localnet`, which workloads' interfaces have and Service proxies set for all.
#[test]
fn pe76_loopback_addresses_are_reached_from_the_node_alone() {
    let mut world = golden::world("database");
    let open = FelixConfiguration {
        default_endpoint_to_host_action: Some(EndpointToHostAction::Return),
        ..FelixConfiguration::new()
    };
    world.insert(Object::new("default".parse().unwrap(), open));
    let lab = Lab::of(&world);
    lab.host.exec("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    lab.host.ip("link set lo up");
    lab.host.ip("addr add 172.16.6.11/32 dev lo");
    lab.host.within(|| serve("0.0.0.0:8080"));
    let neighbour = Namespace::new("neighbour");
    let guest = neighbour.name();
    lab.host.ip(&format!("link add eth0 address {HOST_MAC} type veth peer name eth0 netns {guest}"));
    lab.host.ip("addr add 172.16.7.1/24 dev eth0");
    lab.host.ip("link set eth0 up");
    neighbour.ip("link set eth0 up");
    neighbour.ip("addr add 172.16.7.2/24 dev eth0");
    neighbour.ip("route add default via 172.16.7.1");
    let other = &lab.workload("cali0000other1").namespace;
    for (sender, gateway) in [(&neighbour, "172.16.7.1"), (other, "169.254.1.1")] {
        sender.exec("sysctl -qw net.ipv4.conf.all.route_localnet=1");
        sender.ip("addr flush dev lo");
        sender.ip(&format!("route add 127.0.0.1 via {gateway} dev eth0"));
    }
    let reaches = |sender: &Namespace, to: &str| sender.within(|| connect(to.parse().unwrap())).is_some();
    for sender in [&neighbour, other] {
        assert!(reaches(sender, "127.0.0.1:8080"), "without rules");
    }
    lab.apply(&world);
    for sender in [&neighbour, other] {
        assert!(reaches(sender, "172.16.6.11:8080"), "the node itself is open");
        assert!(!reaches(sender, "127.0.0.1:8080"));
    }
    assert!(reaches(&lab.host, "127.0.0.1:8080"));
}

#[test]
fn pe92_connections_outlive_a_policy_written_anew_and_an_agent_that_starts_again() {
    let world = golden::world("database");
    let lab = Lab::of(&world);
    lab.apply(&world);
    let (web, db) = (lab.workload("cali000000web1"), lab.workload("cali0000000db1"));
    let mut stream = web.namespace.within(|| connect(db.socket(3306))).unwrap();
    assert!(echoes(&mut stream));

    let before = lab.host.exec("nft -a list table inet calico");
    lab.apply(&world);
    assert_eq!(lab.host.exec("nft -a list table inet calico"), before, "not a handle has changed");

    let mut closed = world.clone();
    for policy in closed.policies.values_mut().map(std::sync::Arc::make_mut) {
        policy.spec.0.ingress.clear();
        policy.spec.0.egress.clear();
    }
    lab.apply(&closed);
    assert!(echoes(&mut stream), "what was let through goes on");
    assert!(web.namespace.within(|| connect(db.socket(3306))).is_none(), "nothing new begins");
    lab.apply(&world);
    assert!(web.namespace.within(|| connect(db.socket(3306))).is_some());
}

#[test]
fn a_service_is_reached_at_the_sockets_of_its_endpoints_alone() {
    use calico_model::resource::policy::ServiceMatch;
    use calico_model::resource::{KubernetesEndpointSlice, NetworkPolicy, Policy, PolicyType, Rule};
    let mut world = golden::world("database");
    let lab = Lab::of(&world);
    let (db, other) = (lab.workload("cali0000000db1"), lab.workload("cali0000other1"));
    let namespace = world.workloads.keys().next().unwrap().namespace.clone();
    world.policies.clear();
    world.global_policies.clear();
    let mut rule = Rule::allow();
    rule.destination.services = Some(ServiceMatch { name: "db".to_owned(), namespace: None });
    let mut policy = Policy::selecting("all()".parse().unwrap(), vec![PolicyType::Egress]);
    policy.egress.push(rule);
    let mut policy = Object::new("to-db".parse().unwrap(), NetworkPolicy(policy));
    policy.metadata.namespace.clone_from(&namespace);
    world.insert(policy);
    lab.apply(&world);
    let reached = || {
        let sockets = [db.socket(3306), db.socket6(3306), db.socket(80)];
        sockets.map(|socket| other.namespace.within(|| connect(socket)).is_some())
    };
    assert_eq!(reached(), [false; 3], "a service without endpoints");
    let addrs = [&db.addr, &db.addr6].map(|addr| addr.parse().unwrap());
    let slice = KubernetesEndpointSlice::new(addrs, &[(calico_model::Protocol::TCP, 3306)]);
    let mut slice = Object::new("db-1".parse().unwrap(), slice);
    slice.metadata.namespace = namespace;
    slice.metadata.labels.insert("kubernetes.io/service-name", "db");
    world.insert(slice);
    lab.apply(&world);
    assert_eq!(reached(), [true, true, false]);
}
