//! Against the real kernel. `ip` and `bridge` are the second opinion.

use calico_model::Snapshot;
use calico_model::learned::LearnedRoutes;
use calico_route::netlink::Netlink;
use calico_route::{Change, Desired, compute, diff};

use crate::cluster::{node_name, three_nodes};
use crate::namespace::TestNamespace;

/// The first of the three nodes' machine, with a workload's interface.
fn machine() -> TestNamespace {
    let namespace = TestNamespace::new();
    namespace.ip("link add eth0 type veth peer name far0");
    namespace.ip("address add 172.16.6.1/24 dev eth0");
    namespace.ip("link set far0 up");
    namespace.ip("link set eth0 up");
    namespace.ip("route add default via 172.16.6.254");
    namespace.ip("link add cali1 type veth peer name far1");
    namespace.ip("link set far1 up");
    namespace.ip("link set cali1 up");
    namespace
}

fn desired(snapshot: &Snapshot) -> Desired {
    compute(snapshot, &node_name("node1"), &LearnedRoutes::new())
}

/// Applies what is to be done and checks that all of it was and that nothing is left.
async fn settle(netlink: &mut Netlink, desired: &Desired) -> Vec<Change> {
    let changes = diff(desired, &netlink.read(&desired.ownership).await.unwrap());
    for outcome in netlink.apply(&changes).await {
        assert!(outcome.result.is_ok(), "{}: {:?}", outcome.change, outcome.result);
    }
    let left = diff(desired, &netlink.read(&desired.ownership).await.unwrap());
    assert_eq!(left.iter().map(Change::to_string).collect::<Vec<_>>(), Vec::<String>::new());
    changes
}

fn contains(text: &str, line: &str) {
    let found = text.lines().any(|have| {
        let mut words = have.split_whitespace();
        line.split_whitespace().all(|word| words.any(|have| have == word))
    });
    assert!(found, "no line with `{line}` in\n{text}");
}

#[tokio::test]
async fn everything_of_a_node_is_laid_and_a_restart_writes_nothing() {
    let machine = machine();
    let desired = desired(&three_nodes());
    let mut netlink = machine.connect();
    assert!(!settle(&mut netlink, &desired).await.is_empty());

    let routes = machine.ip("route show");
    contains(&routes, "192.168.0.1 dev cali1 proto 80 scope link metric 1024");
    contains(&routes, "blackhole 192.168.0.0/26 proto 80 metric 1024");
    contains(&routes, "192.168.1.0/26 via 172.16.6.2 dev eth0 proto 80 metric 1024");
    contains(&routes, "192.168.2.0/26 via 192.168.2.0 dev vxlan.calico proto 80 metric 1024 onlink");
    contains(
        &machine.ip("-d link show vxlan.calico"),
        "vxlan id 4096 local 172.16.6.1 dev eth0 dstport 4789 nolearning",
    );
    contains(&machine.ip("link show vxlan.calico"), "mtu 1450");
    contains(&machine.ip("address show vxlan.calico"), "inet 192.168.0.0/32");
    contains(&machine.ip("neigh show dev vxlan.calico"), "192.168.2.0 lladdr PERMANENT");
    contains(&machine.ip("neigh show dev cali1"), "192.168.0.1 lladdr 02:00:00:00:00:01 PERMANENT");
    contains(&machine.run("bridge fdb show dev vxlan.calico"), "dst 172.16.199.3 self permanent");
    assert_eq!(machine.run("cat /proc/sys/net/ipv4/conf/cali1/proxy_arp").trim(), "1");
    assert_eq!(machine.run("cat /proc/sys/net/ipv6/conf/cali1/disable_ipv6").trim(), "1");
    assert_eq!(machine.run("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");

    let mut fresh = machine.connect();
    assert_eq!(diff(&desired, &fresh.read(&desired.ownership).await.unwrap()), []);
}
