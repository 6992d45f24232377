//! Two hosts with a workload each, a router between them that knows no workload's address, and packets.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use calico_model::learned::LearnedRoutes;
use calico_model::resource::{EncapMode, FelixConfiguration, Node, NodeBgp, Object, ProgramClusterRoutes};
use calico_model::{InterfaceAddr, Name, NodeName, Snapshot, Update};
use calico_route::departed::Departures;
use calico_route::{Computer, Waits, compute, diff, plan_delta};

use crate::cluster::{block, lend, node_name, pool, workload};
use crate::namespace::TestNamespace;

/// Where the two hosts and the two workloads are.
struct Plan {
    hosts: [&'static str; 2],
    gateways: [&'static str; 2],
    workloads: [&'static str; 2],
    blocks: [&'static str; 2],
    pool: &'static str,
}

const V4: Plan = Plan {
    hosts: ["172.16.6.1/24", "172.16.199.2/24"],
    gateways: ["172.16.6.254/24", "172.16.199.254/24"],
    workloads: ["192.168.0.7", "192.168.1.7"],
    blocks: ["192.168.0.0/26", "192.168.1.0/26"],
    pool: "192.168.0.0/16",
};

const V6: Plan = Plan {
    hosts: ["2001:db8:1::1/64", "2001:db8:2::2/64"],
    gateways: ["2001:db8:1::ff/64", "2001:db8:2::ff/64"],
    workloads: ["fd00::7", "fd00::47"],
    blocks: ["fd00::/122", "fd00::40/122"],
    pool: "fd00::/64",
};

/// The same, but with both hosts in the first one's subnet.
fn neighbours() -> Plan {
    Plan { hosts: ["172.16.6.1/24", "172.16.6.2/24"], ..V4 }
}

fn neighbours_v6() -> Plan {
    Plan { hosts: ["2001:db8:1::1/64", "2001:db8:1::2/64"], ..V6 }
}

struct Lab {
    hosts: [TestNamespace; 2],
    pods: [TestNamespace; 2],
    _router: TestNamespace,
    plan: Plan,
}

impl Lab {
    fn up(plan: Plan) -> Self {
        let router = TestNamespace::new();
        router.ip("link add br0 type bridge");
        router.ip("link set br0 up");
        for gateway in plan.gateways {
            router.ip(&format!("address add {gateway} dev br0{}", nodad(gateway)));
        }
        router.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let hosts = [0, 1].map(|at| {
            let host = TestNamespace::new();
            let port = format!("port{at}");
            router.join(&port, &host, "eth0");
            router.ip(&format!("link set {port} master br0"));
            host.ip(&format!("address add {} dev eth0{}", plan.hosts[at], nodad(plan.hosts[at])));
            let own: InterfaceAddr = plan.hosts[at].parse().unwrap();
            let mut gateways = plan.gateways.iter().map(|gateway| gateway.parse::<InterfaceAddr>().unwrap());
            let via = gateways.find(|gateway| gateway.subnet() == own.subnet()).unwrap();
            host.ip(&format!("route add default via {} dev eth0", via.addr()));
            host
        });
        let pods = [0, 1].map(|at| {
            let pod = TestNamespace::new();
            hosts[at].join("cali1", &pod, "eth0");
            hosts[at].ip("link set cali1 address ee:ee:ee:ee:ee:ee");
            pod.ip("link set eth0 address 02:00:00:00:00:01");
            let addr = plan.workloads[at];
            pod.ip(&format!("address add {addr} dev eth0{}", nodad(addr)));
            let gateway = if addr.contains(':') { "fe80::ecee:eeff:feee:eeee" } else { "169.254.1.1" };
            pod.ip(&format!("route add {gateway} dev eth0"));
            pod.ip(&format!("route add default via {gateway} dev eth0"));
            pod.ip(&format!("neigh replace {gateway} lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent"));
            pod
        });
        Self { hosts, pods, _router: router, plan }
    }

    fn snapshot(&self, vxlan: EncapMode, setting: ProgramClusterRoutes) -> Snapshot {
        let mut snapshot = Snapshot::default();
        pool(&mut snapshot, self.plan.pool, EncapMode::Never, vxlan);
        let felix = FelixConfiguration { program_cluster_routes: Some(setting), ..FelixConfiguration::new() };
        snapshot.insert(Object::new("default".parse().unwrap(), felix));
        for at in [0, 1] {
            let name = format!("node{at}");
            let (block_of, addr) = (self.plan.blocks[at], self.plan.workloads[at]);
            block(&mut snapshot, block_of, &name);
            let tunnel = block_of.split('/').next().unwrap();
            let spec = Node {
                bgp: Some(NodeBgp::at(self.plan.hosts[at].parse().unwrap())),
                ipv4_vxlan_tunnel_addr: tunnel.parse().ok(),
                ipv6_vxlan_tunnel_addr: tunnel.parse().ok(),
                ..Node::new()
            };
            snapshot.insert(Object::new(name.parse().unwrap(), spec));
            workload(&mut snapshot, &format!("pod{at}"), &name, "cali1", addr);
        }
        snapshot
    }

    async fn lay(&self, snapshot: &Snapshot) {
        for at in [0, 1] {
            let name: NodeName = node_name(&format!("node{at}"));
            let desired = compute(snapshot, &name, &LearnedRoutes::new());
            assert!(desired.problems.is_empty(), "{:?}", desired.problems);
            let mut netlink = self.hosts[at].connect();
            let changes = diff(&desired, &netlink.read(&desired.ownership).await.unwrap());
            for outcome in netlink.apply(&changes).await {
                assert!(outcome.result.is_ok(), "{}: {:?}", outcome.change, outcome.result);
            }
        }
    }

    /// Sends a packet from one pod to the other and back; returns the address it seemed to come from.
    fn echo(&self) -> Result<IpAddr, std::io::Error> {
        let [from, to] = self.plan.workloads.map(|addr| addr.parse::<IpAddr>().unwrap());
        let bound = |pod: &TestNamespace, addr| {
            let socket = pod.inside(|| UdpSocket::bind(SocketAddr::new(addr, 0)).unwrap());
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            socket
        };
        let (near, far) = (bound(&self.pods[0], from), bound(&self.pods[1], to));
        let mut buffer = [0; 16];
        let mut attempt = || {
            near.send_to(b"ping", far.local_addr()?)?;
            let (len, sender) = far.recv_from(&mut buffer)?;
            far.send_to(&buffer[..len], sender)?;
            near.recv_from(&mut buffer)?;
            Ok(sender.ip())
        };
        // The first packets may wait for neighbours to be found, and for IPv6 to have looked for duplicate addresses. Where
        // a drop is expected, four attempts in a row must fail.
        let attempts = if from.is_ipv6() { 16 } else { 4 };
        let mut last = attempt();
        for _ in 1..attempts {
            if last.is_ok() {
                break;
            }
            last = attempt();
        }
        last
    }

    /// Returns how many packets the first host's device received, or `None` without one.
    fn received(&self, device: &str) -> Option<u64> {
        let output = self.hosts[0].command(&format!("ip -s -o link show {device}")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let numbers = text.split("RX:").nth(1)?.split('\\').nth(1)?;
        numbers.split_whitespace().nth(1)?.parse().ok()
    }
}

fn nodad(addr: &str) -> &'static str {
    if addr.contains(':') { " nodad" } else { "" }
}

#[tokio::test]
async fn vxlan_always_carries_packets_between_and_within_subnets() {
    for plan in [V4, neighbours()] {
        let lab = Lab::up(plan);
        assert!(lab.echo().is_err(), "without routes nothing arrives");
        lab.lay(&lab.snapshot(EncapMode::Always, ProgramClusterRoutes::Disabled)).await;
        assert_eq!(lab.echo().unwrap().to_string(), lab.plan.workloads[0]);
        assert!(lab.received("vxlan.calico").is_some_and(|packets| packets > 0));
    }
}

#[tokio::test]
async fn vxlan_cross_subnet_wraps_between_subnets_and_not_within() {
    let lab = Lab::up(V4);
    lab.lay(&lab.snapshot(EncapMode::CrossSubnet, ProgramClusterRoutes::Disabled)).await;
    assert_eq!(lab.echo().unwrap().to_string(), lab.plan.workloads[0]);
    assert!(lab.received("vxlan.calico").is_some_and(|packets| packets > 0));
    let lab = Lab::up(neighbours());
    lab.lay(&lab.snapshot(EncapMode::CrossSubnet, ProgramClusterRoutes::Disabled)).await;
    assert_eq!(lab.echo().unwrap().to_string(), lab.plan.workloads[0]);
    assert_eq!(lab.received("vxlan.calico"), Some(0));
}

#[tokio::test]
async fn without_encapsulation_neighbours_reach_each_other_and_a_router_that_knows_nothing_drops() {
    let lab = Lab::up(neighbours());
    lab.lay(&lab.snapshot(EncapMode::Never, ProgramClusterRoutes::Enabled)).await;
    assert_eq!(lab.echo().unwrap().to_string(), lab.plan.workloads[0]);
    assert_eq!(lab.received("vxlan.calico"), None);
    let lab = Lab::up(V4);
    lab.lay(&lab.snapshot(EncapMode::Never, ProgramClusterRoutes::Enabled)).await;
    assert!(lab.echo().is_err());
}

#[tokio::test]
async fn vxlan_over_ipv6_carries_ipv6() {
    let lab = Lab::up(V6);
    lab.lay(&lab.snapshot(EncapMode::Always, ProgramClusterRoutes::Disabled)).await;
    assert_eq!(lab.echo().unwrap().to_string(), lab.plan.workloads[0]);
    assert!(lab.received("vxlan-v6.calico").is_some_and(|packets| packets > 0));
}

#[tokio::test]
async fn traffic_goes_on_while_the_encapsulation_changes_and_when_nobody_looks_after_it() {
    for plan in [neighbours(), neighbours_v6()] {
        let lab = Lab::up(plan);
        let [from, to] = lab.plan.workloads.map(|addr| addr.parse::<IpAddr>().unwrap());
        for mode in [EncapMode::Always, EncapMode::CrossSubnet, EncapMode::Always] {
            lab.lay(&lab.snapshot(mode, ProgramClusterRoutes::Disabled)).await;
            assert_eq!(lab.echo().unwrap(), from, "towards {to} with {mode:?}");
        }
    }
}

/// The kernel refuses an IPv6 route by way of an address that another route leads to over another device.
#[tokio::test]
async fn a_tunnel_whose_far_end_a_wider_route_leads_to_carries_packets_all_the_same() {
    let lab = Lab::up(V6);
    for host in &lab.hosts {
        let gateway = host.ip("-6 route show default");
        let gateway = gateway.split_whitespace().nth(2).unwrap();
        host.ip(&format!("route add fd00::/8 via {gateway} dev eth0 proto static"));
    }
    let mut snapshot = lab.snapshot(EncapMode::Always, ProgramClusterRoutes::Disabled);
    lab.lay(&snapshot).await;
    assert_eq!(lab.echo().unwrap().to_string(), lab.plan.workloads[0]);

    // The far end is borrowed from our own block.
    let name = "node1";
    let mut node = snapshot.node(&name.parse::<Name>().unwrap().into()).cloned().unwrap();
    node.ipv6_vxlan_tunnel_addr = Some("fd00::5".parse().unwrap());
    snapshot.insert(Object::new(name.parse().unwrap(), node));
    lend(&mut snapshot, lab.plan.blocks[0], 5, name);
    lab.lay(&snapshot).await;
    assert_eq!(lab.echo().unwrap().to_string(), lab.plan.workloads[0]);
    let route = lab.hosts[0].ip("-6 route show fd00::5");
    assert!(route.starts_with("fd00::5 dev vxlan-v6.calico proto 80"), "{route}");
    let left = lab.hosts[0].ip("-6 route show fd00::40/128");
    assert_eq!(left, "", "nobody is there any more");
}

#[tokio::test]
async fn pe63_the_connections_of_an_address_that_left_are_forgotten_and_no_others() {
    let lab = Lab::up(neighbours());
    let host = &lab.hosts[0];
    host.run("nft add table inet seen");
    host.run("nft add chain inet seen forward { type filter hook forward priority 0 ; }");
    host.run("nft add rule inet seen forward ct state new accept");
    lab.lay(&lab.snapshot(EncapMode::Never, ProgramClusterRoutes::Enabled)).await;
    lab.echo().unwrap();
    let [from, to] = lab.plan.workloads.map(|addr| addr.parse::<IpAddr>().unwrap());
    let mut netlink = host.connect();
    let stranger: IpAddr = "192.168.0.99".parse().unwrap();
    assert_eq!(netlink.forget_connections(&[stranger].into()).await.unwrap(), 0);
    assert!(netlink.forget_connections(&[from].into()).await.unwrap() > 0);
    assert_eq!(netlink.forget_connections(&[from, to].into()).await.unwrap(), 0);
    lab.echo().unwrap();
    assert!(netlink.forget_connections(&[to].into()).await.unwrap() > 0, "also by the far side's address");

    // Behind a service's address the departed one is in the reply alone.
    host.run("nft add chain inet seen services { type nat hook prerouting priority -100 ; }");
    host.run(&format!("nft add rule inet seen services ip daddr 10.96.0.10 dnat ip to {to}"));
    let sender = lab.pods[0].inside(|| UdpSocket::bind(SocketAddr::new(from, 0)).unwrap());
    sender.send_to(b"ping", "10.96.0.10:53").unwrap();
    assert!(
        netlink.forget_connections(&[to].into()).await.unwrap() > 0,
        "also when it is named in the reply only"
    );
    assert_eq!(netlink.forget_connections(&[from].into()).await.unwrap(), 0, "the entry is gone as a whole");
}

#[tokio::test]
async fn pe63_an_address_that_moves_on_this_node_takes_no_connection_along() {
    let lab = Lab::up(neighbours());
    let host = &lab.hosts[0];
    host.run("nft add table inet seen");
    host.run("nft add chain inet seen forward { type filter hook forward priority 0 ; }");
    host.run("nft add rule inet seen forward ct state new accept");
    host.ip("link add cali2 type veth peer name far2");
    host.ip("link set far2 up");
    host.ip("link set cali2 up");
    let mut snapshot = lab.snapshot(EncapMode::Never, ProgramClusterRoutes::Enabled);
    lab.lay(&snapshot).await;
    let mut computer = Computer::new(node_name("node0"));
    let mut departures = Departures::default();
    let mut netlink = host.connect();
    let nodes = snapshot.nodes.values().map(|object| Update::Put(Box::new(object.clone().into())));
    let workloads = snapshot.workloads.values().map(|object| Update::Put(Box::new(object.clone().into())));
    nodes.chain(workloads).for_each(|update| computer.apply(&update));
    computer.settle();
    let actual = netlink.read(&computer.desired().ownership).await.unwrap();
    departures.pass(computer.desired(), &actual, &[]);
    lab.echo().unwrap();

    // The same address on another interface: the entry goes before the route does.
    snapshot.workloads.clear();
    workload(&mut snapshot, "pod0", "node0", "cali2", lab.plan.workloads[0]);
    for object in snapshot.workloads.values() {
        computer.apply(&Update::Put(Box::new(object.clone().into())));
    }
    let delta = computer.settle();
    let changes = plan_delta(computer.desired(), &actual, &delta, &Waits::default()).changes;
    let departed = departures.pass_delta(computer.desired(), &actual, &changes, &delta);
    let address: IpAddr = lab.plan.workloads[0].parse().unwrap();
    assert_eq!((departed.before.contains(&address), departed.after.is_empty()), (true, true));
    assert!(netlink.forget_connections(&departed.before).await.unwrap() > 0);
    assert!(host.ip(&format!("route show {address}")).contains("cali1"), "its new home is not reachable yet");
    assert!(netlink.apply(&changes).await.iter().all(|outcome| outcome.result.is_ok()));
    assert!(host.ip(&format!("route show {address}")).contains("cali2"));
}
