//! One host with workloads on veths, and the compiled policy in its kernel.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use calico_model::Snapshot;
use calico_policy::compile;
use calico_policy::iptables::{Iptables, Options, Variant};
use calico_policy::nft::Nft;

use crate::netns::Namespace;

/// The MAC of the host's side of every veth.
const HOST_MAC: &str = "ee:ee:ee:ee:ee:ee";
pub(crate) const PORTS: [u16; 2] = [3306, 80];

/// A packet filter of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    Nftables,
    Iptables(Variant),
}

impl Filter {
    pub(crate) const ALL: [Filter; 3] =
        [Filter::Nftables, Filter::Iptables(Variant::Legacy), Filter::Iptables(Variant::Nft)];
}

/// One host with its workloads.
pub(crate) struct Lab {
    pub(crate) host: Namespace,
    pub(crate) workloads: Vec<Workload>,
}

pub(crate) struct Workload {
    pub(crate) namespace: Namespace,
    pub(crate) interface: String,
    pub(crate) addr: String,
    pub(crate) addr6: String,
}

impl Workload {
    pub(crate) fn socket(&self, port: u16) -> SocketAddr {
        format!("{}:{port}", self.addr).parse().unwrap()
    }

    pub(crate) fn socket6(&self, port: u16) -> SocketAddr {
        format!("[{}]:{port}", self.addr6).parse().unwrap()
    }
}

impl Lab {
    /// Plugs in the workloads of node-1, each with servers that echo what they are sent.
    pub(crate) fn of(world: &Snapshot) -> Self {
        let mut lab = Lab::without_workloads();
        for endpoint in world.workloads.values().filter(|endpoint| endpoint.spec.node.as_str() == "node-1") {
            let interface = endpoint.spec.interface_name.clone().unwrap();
            let addrs: Vec<String> =
                endpoint.spec.ip_networks.iter().map(|net| net.addr().to_string()).collect();
            lab.plug(interface.as_str(), &addrs[0], &addrs[1]);
        }
        lab
    }

    pub(crate) fn without_workloads() -> Self {
        let host = Namespace::new("host");
        host.exec("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        Lab { host, workloads: Vec::new() }
    }

    pub(crate) fn plug(&mut self, interface: &str, addr: &str, addr6: &str) -> &Workload {
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

    /// Joins a machine that is no workload to the host, which is 172.16.7.1 for it; it is 172.16.7.2.
    pub(crate) fn neighbour(&self) -> Namespace {
        let neighbour = Namespace::new("neighbour");
        let guest = neighbour.name();
        self.host.ip(&format!("link add eth0 address {HOST_MAC} type veth peer name eth0 netns {guest}"));
        self.host.ip("addr add 172.16.7.1/24 dev eth0");
        self.host.ip("link set eth0 up");
        neighbour.ip("link set eth0 up");
        neighbour.ip("addr add 172.16.7.2/24 dev eth0");
        neighbour.ip("route add default via 172.16.7.1");
        neighbour
    }

    pub(crate) fn apply(&self, world: &Snapshot) {
        let ruleset = compile(world, &"node-1".parse().unwrap());
        self.host.within(|| Nft::new().sync(&ruleset)).unwrap();
    }

    /// Puts the world's policy in force in one of the kernel's packet filters.
    pub(crate) fn apply_in(&self, filter: Filter, world: &Snapshot) {
        let Filter::Iptables(variant) = filter else { return self.apply(world) };
        let ruleset = compile(world, &"node-1".parse().unwrap());
        let felix = world.felix_configuration(&"node-1".parse().unwrap());
        let written =
            self.host.within(|| Iptables::new(variant).sync(&ruleset, &Options::of(&felix))).unwrap();
        assert_eq!(written.refused, []);
    }

    pub(crate) fn workload(&self, interface: &str) -> &Workload {
        self.workloads.iter().find(|workload| workload.interface == interface).unwrap()
    }
}

/// Echoes to everybody, on a thread that ends with the process.
pub(crate) fn serve(addr: &str) {
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
pub(crate) fn connect(to: SocketAddr) -> Option<TcpStream> {
    match TcpStream::connect_timeout(&to, Duration::from_millis(400)) {
        Ok(stream) => Some(stream),
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => None,
        Err(error) => panic!("neither allowed nor dropped: {to}: {error}"),
    }
}

pub(crate) fn echoes(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let mut buffer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut buffer).is_ok() && &buffer == b"ping"
}
