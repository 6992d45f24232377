//! Machines that are not as a node would have them: what can be laid is laid, and the rest is told of once.

use std::collections::BTreeSet;

use calico_model::Snapshot;
use calico_model::resource::{EncapMode, Object};
use calico_route::netlink::Netlink;
use calico_route::{Desired, plan};

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
