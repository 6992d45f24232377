//! Machines that are not as a node would have them: what can be laid is laid, and the rest is told of once.

use std::collections::BTreeSet;

use calico_model::Snapshot;
use calico_model::resource::{EncapMode, Object};
use calico_route::netlink::Netlink;
use calico_route::{Desired, diff, plan};

use crate::cluster::{block, node, pool, three_dual_nodes, three_nodes, workload};
use crate::kernel::{contains, desired, settle};
use crate::namespace::machine;

/// Lays what is wanted and returns what is told: no change is refused, and nothing is left to do.
async fn told(netlink: &mut Netlink, desired: &Desired) -> BTreeSet<String> {
    settle(netlink, desired).await;
    let left = plan(desired, &netlink.read(&desired.ownership).await.unwrap());
    let waiting = left.waiting.iter().map(ToString::to_string);
    waiting.chain(desired.problems.iter().map(ToString::to_string)).collect()
}

#[tokio::test]
async fn where_new_interfaces_go_without_ipv6_the_tunnel_of_ipv6_does_not() {
    let machine = machine();
    machine.ip("address add 2001:db8::1/64 dev eth0 nodad");
    machine.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    let desired = desired(&three_dual_nodes());
    let mut netlink = machine.connect();
    assert_eq!(told(&mut netlink, &desired).await, BTreeSet::new());
    let laid = || contains(&machine.ip("-6 route show"), "fd00::300/122 via fd00::300 dev vxlan-v6.calico");
    laid();
    contains(&machine.ip("address show vxlan-v6.calico"), "inet6 fd00::100/128");
    machine.run("sysctl -qw net.ipv6.conf.vxlan-v6/calico.disable_ipv6=1");
    assert!(!machine.ip("-6 route show").contains("vxlan-v6"));
    assert_eq!(told(&mut netlink, &desired).await, BTreeSet::new());
    laid();
}

#[tokio::test]
async fn a_machine_without_ipv6_is_told_of_in_one_line_and_has_the_rest() {
    let machine = machine();
    machine.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    let desired = desired(&three_dual_nodes());
    let mut netlink = machine.connect();
    let expected = "no interface has the node's address 2001:db8::1; add the address, or set spec.bgp of the Node to one \
                    that the machine has";
    assert_eq!(told(&mut netlink, &desired).await, [expected.to_owned()].into());
    contains(&machine.ip("route show"), "192.168.2.0/26 via 192.168.2.0 dev vxlan.calico");
    assert!(!machine.ip("link show").contains("vxlan-v6.calico"));
}

#[tokio::test]
async fn a_node_of_the_subnet_that_is_not_on_the_link_is_told_of() {
    let machine = machine();
    machine.ip("address flush dev eth0");
    machine.ip("address add 172.16.6.1/25 dev eth0");
    let mut snapshot = three_nodes();
    node(&mut snapshot, "node2", "172.16.6.200/24", "192.168.1.0");
    let desired = desired(&snapshot);
    let mut netlink = machine.connect();
    let expected = "the next hop 172.16.6.200 is in the node's subnet by spec.bgp of the Node, but not on the link of \
                    interface eth0; give the Node's address the prefix length that the interface has";
    assert_eq!(told(&mut netlink, &desired).await, [expected.to_owned()].into());
    contains(&machine.ip("route show"), "192.168.2.0/26 via 192.168.2.0 dev vxlan.calico");
    // As clouds have it: the address says one thing, a route another.
    machine.ip("route add 172.16.6.128/25 dev eth0");
    assert_eq!(told(&mut netlink, &desired).await, BTreeSet::new());
    contains(&machine.ip("route show"), "192.168.1.0/26 via 172.16.6.200 dev eth0");
}

/// The kernel looks for a gateway in all tables that its rules lead to.
#[tokio::test]
async fn a_route_over_a_gateway_that_the_kernel_found_by_other_tables_stays() {
    let machine = machine();
    machine.ip("address flush dev eth0");
    machine.ip("address add 172.16.6.1/32 dev eth0");
    machine.ip("route add 172.16.6.0/24 dev eth0 table 100");
    machine.ip("rule add to 172.16.6.0/24 lookup 100");
    let desired = desired(&three_nodes());
    let mut netlink = machine.connect();
    machine.ip("route add 192.168.1.0/26 via 172.16.6.2 dev eth0 metric 1024 proto 80");
    let laid = machine.ip("route show 192.168.1.0/26");
    assert_eq!(told(&mut netlink, &desired).await, BTreeSet::new());
    assert_eq!(machine.ip("route show 192.168.1.0/26"), laid);
    machine.ip("route replace 192.168.1.0/26 via 172.16.6.3 dev eth0 metric 1024 proto 80");
    assert_eq!(told(&mut netlink, &desired).await.len(), 1);
    assert_eq!(machine.ip("route show 192.168.1.0/26"), "");
}

#[tokio::test]
async fn an_interface_that_is_not_told_by_its_name_is_left_alone_but_for_the_route() {
    let machine = machine();
    machine.ip("link add tap1 type veth peer name tapfar");
    machine.ip("link set tapfar up");
    machine.ip("link set tap1 up");
    machine.ip("neigh add 192.168.0.77 lladdr 02:00:00:00:00:77 dev tap1 nud permanent");
    let mut snapshot = three_nodes();
    workload(&mut snapshot, "two", "node1", "tap1", "192.168.0.2/32");
    let desired = desired(&snapshot);
    let mut netlink = machine.connect();
    let expected = "interface tap1 of workload endpoint default/two does not begin with one of interfacePrefix of the \
                    FelixConfiguration, so its neighbours and kernel settings are left as they are; add the prefix there";
    assert_eq!(told(&mut netlink, &desired).await, [expected.to_owned()].into());
    contains(&machine.ip("route show"), "192.168.0.2 dev tap1 proto 80 scope link metric 1024");
    contains(&machine.ip("neigh show dev tap1"), "192.168.0.77 lladdr 02:00:00:00:00:77 PERMANENT");
    assert_eq!(machine.run("cat /proc/sys/net/ipv4/conf/tap1/proxy_arp").trim(), "0");
}

#[tokio::test]
async fn a_device_of_another_kind_under_the_name_of_the_ipip_device_is_told_of() {
    let machine = machine();
    // A kernel that has IP-in-IP may have made its own already.
    let _ = machine.command("ip link set tunl0 name aside").output().unwrap();
    // It is off: the kernel tells a little later of one that is on whether it has a carrier.
    machine.ip("link add tunl0 type veth peer name tunlfar mtu 1400");
    let before = machine.ip("link show tunl0");
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "10.77.0.0/16", EncapMode::Always, EncapMode::Never);
    block(&mut snapshot, "10.77.0.0/26", "node2");
    let desired = desired(&snapshot);
    let mut netlink = machine.connect();
    let expected = "interface tunl0 is no IP-in-IP device; rename or remove it, so that the kernel's own can have the name";
    assert_eq!(told(&mut netlink, &desired).await, [expected.to_owned()].into());
    assert_eq!(machine.ip("link show tunl0"), before);
    assert!(!machine.ip("route show").contains("tunl0"));
}

#[tokio::test]
async fn a_node_without_a_tunnel_address_is_told_of_in_one_line() {
    let machine = machine();
    let mut snapshot: Snapshot = three_nodes();
    let mut own = snapshot.node(&"node1".parse().unwrap()).cloned().unwrap();
    own.ipv4_vxlan_tunnel_addr = None;
    snapshot.insert(Object::new("node1".parse().unwrap(), own));
    let told = told(&mut machine.connect(), &desired(&snapshot)).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told.first().unwrap().starts_with("node node1 has no IPv4 VXLAN tunnel address yet"), "{told:?}");
}

/// As in a routed fabric, where the node's address is the loopback device's and all uplinks lead to it.
#[tokio::test]
async fn a_node_whose_address_is_inside_the_machine_has_the_mtu_of_its_narrowest_link() {
    let machine = machine();
    machine.ip("address flush dev eth0");
    machine.ip("address add 10.0.0.1/24 dev eth0");
    machine.ip("route add default via 10.0.0.254");
    machine.ip("address add 172.16.6.1/32 dev lo");
    machine.ip("link add uplink1 mtu 1400 type veth peer name uplink1p");
    machine.ip("link set uplink1 up");
    let mut snapshot = three_nodes();
    node(&mut snapshot, "node1", "172.16.6.1/32", "192.168.0.0");
    let desired = desired(&snapshot);
    let mut netlink = machine.connect();
    assert_eq!(told(&mut netlink, &desired).await, BTreeSet::new());
    let device = machine.ip("-d link show vxlan.calico");
    contains(&device, "vxlan id 4096 local 172.16.6.1 dstport 4789");
    contains(&device, "mtu 1350");
    assert!(!device.contains(" dev "), "{device}");
    let host = netlink.read(&desired.ownership).await.unwrap().host;
    assert_eq!(desired.workload_mtu(&host), 1350);
    machine.ip("link del uplink1");
    machine.ip("link del eth0");
    machine.ip("link del far1");
    assert_eq!(told(&mut netlink, &desired).await.len(), 1, "the workload's interface is gone too");
    contains(&machine.ip("link show vxlan.calico"), "mtu 1410");
}

/// A bridge takes what comes out of the tunnel for itself.
#[tokio::test]
async fn a_tunnel_that_was_put_into_a_bridge_is_taken_out() {
    let machine = machine();
    let desired = desired(&three_nodes());
    let mut netlink = machine.connect();
    settle(&mut netlink, &desired).await;
    let before = machine.ip("link show vxlan.calico");
    machine.ip("link add bridge1 type bridge");
    machine.ip("link set vxlan.calico master bridge1");
    let changes = settle(&mut netlink, &desired).await;
    assert_eq!(
        changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["link set vxlan.calico nomaster"]
    );
    assert_eq!(machine.ip("link show vxlan.calico"), before);
}

/// Somebody else has what ours would have; while it has, what belongs on ours waits.
#[tokio::test]
async fn a_vxlan_device_of_others_with_our_network_and_port_is_named() {
    let machine = machine();
    let desired = desired(&three_nodes());
    let mut netlink = machine.connect();
    let other = crate::namespace::TestNamespace::new();
    let aside = ("the VXLAN device theirs has", "a VXLAN device that is in another network namespace has");
    for (moved, holder) in [(false, aside.0), (true, aside.1)] {
        machine.ip("link add theirs type vxlan id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0");
        if moved {
            machine.give("theirs", &other);
        }
        let changes = diff(&desired, &netlink.read(&desired.ownership).await.unwrap());
        let outcomes = netlink.apply(&changes).await;
        let mut errors = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err());
        let first = errors.next().unwrap();
        let expected = format!(
            "{holder} network identifier 4096 at port 4789 already, so pool pool-192-168-0-0-16 is not served; remove it, or \
             set vxlanVNI or vxlanPort of the FelixConfiguration for all nodes"
        );
        assert_eq!(first.to_string(), expected);
        assert!(!first.requires_retry());
        assert!(errors.all(|error| !error.requires_retry()));
        if moved { &other } else { &machine }.ip("link del theirs");
        settle(&mut netlink, &desired).await;
        machine.ip("link del vxlan.calico");
    }
}
