//! What others put beside ours under the same key, of which the kernel removes whichever fits first.

use calico_route::reconcile::Settings;
use calico_route::{Reconciler, plan};

use crate::cluster::{three_dual_nodes, three_nodes};
use crate::drift::clock;
use crate::kernel::{contains, desired, settle};
use crate::namespace::{TestNamespace, machine};

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.sort_unstable();
    lines
}

/// Has somebody do each of these to a node that is laid. One pass must bring back exactly what was there.
async fn survives(machine: &TestNamespace, family: &str, drifts: &[&str]) {
    let desired = desired(&three_dual_nodes());
    let mut netlink = machine.connect();
    settle(&mut netlink, &desired).await;
    let listed = || machine.ip(&format!("{family} route show"));
    let before = listed();
    for drift in drifts {
        drift.split(" ; ").for_each(|step| drop(machine.ip(&format!("{family} route {step}"))));
        assert_ne!(sorted(&listed()), sorted(&before), "{drift} changes nothing");
        assert!(!settle(&mut netlink, &desired).await.is_empty(), "{drift}");
        assert_eq!(sorted(&listed()), sorted(&before), "{drift}");
    }
}

fn dual_machine() -> TestNamespace {
    let machine = machine();
    machine.ip("address add 2001:db8::1/64 dev eth0 nodad");
    machine
}

#[tokio::test]
async fn a_route_that_is_beside_a_wanted_one_goes_and_the_wanted_one_stays() {
    let machine = dual_machine();
    machine.ip("nexthop add id 7 via 172.16.6.2 dev eth0");
    survives(
        &machine,
        "-4",
        &[
            "append unreachable 192.168.1.0/26 metric 1024 proto 80",
            "prepend unreachable 192.168.1.0/26 metric 1024 proto 80",
            "append blackhole 192.168.1.0/26 metric 1024 proto 80",
            "append 192.168.1.0/26 via 172.16.6.2 metric 1024 proto 80 src 172.16.6.1",
            "prepend 192.168.1.0/26 via 172.16.6.2 metric 1024 proto 80 src 172.16.6.1",
            "append 192.168.1.0/26 via 172.16.6.2 metric 1024 proto 80 mtu 1300",
            "append 192.168.1.0/26 via 172.16.6.2 dev eth0 metric 1024 proto 80 onlink",
            "prepend 192.168.1.0/26 via 172.16.6.2 dev eth0 metric 1024 proto 80 onlink",
            "append 192.168.1.0/26 metric 1024 proto 80 nexthop via 172.16.6.2 dev eth0 nexthop via 172.16.6.3 dev eth0",
            "prepend 192.168.1.0/26 metric 1024 proto 80 nexthop via 172.16.6.2 dev eth0 nexthop via 172.16.6.3 dev eth0",
            "append 192.168.1.0/26 metric 1024 proto 80 nexthop via 172.16.6.2 dev eth0 weight 5 nexthop via 172.16.6.3",
            "append 192.168.1.0/26 nhid 7 metric 1024 proto 80",
            "append 192.168.1.0/26 metric 1024 proto 80 nexthop dev eth0 nexthop dev cali1",
            "prepend 192.168.1.0/26 metric 1024 proto 80 nexthop via 172.16.6.2 dev eth0 nexthop dev cali1",
            "del 192.168.1.0/26 metric 1024 ; add 192.168.1.0/26 metric 1024 proto 80 nexthop dev eth0 nexthop dev cali1",
            "add 10.99.4.5 nexthop dev cali1 nexthop dev eth0",
            "append 192.168.0.1 dev cali1 metric 1024 proto 80 src 172.16.6.1",
            "prepend 192.168.0.1 dev cali1 metric 1024 proto 80 src 172.16.6.1",
            "append 192.168.0.1 dev cali1 metric 1024 proto 80 scope global",
            "append unreachable 192.168.0.0/26 metric 1024 proto 80",
            "add 192.168.1.0/26 tos 8 via 172.16.6.77 metric 1024 proto 80",
            "add 192.168.1.0/26 tos 8 via 172.16.6.77 metric 1024 proto 80 ; del 192.168.1.0/26 tos 0 metric 1024",
            "add 192.168.1.0/26 tos 8 via 172.16.6.77 metric 1024 proto 80 ; add 192.168.1.0/26 tos 0x10 via 172.16.6.77 metric 1024 proto 80 ; replace 192.168.1.0/26 via 172.16.6.9 metric 1024 proto 80",
            "add 192.168.1.9 tos 8 dev cali1",
            "append throw 192.168.1.0/26 metric 1024 proto 80 ; append 192.168.1.0/26 via 172.16.6.9 metric 1024 proto 80 src 172.16.6.1",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_route_that_is_beside_a_wanted_one_of_ipv6_goes_and_the_wanted_one_stays() {
    let machine = dual_machine();
    machine.ip("nexthop add id 7 via 2001:db8::2 dev eth0");
    survives(
        &machine,
        "-6",
        &[
            "del fd00::200/122 metric 1024",
            "replace fd00::200/122 via 2001:db8::77 metric 1024 proto 80",
            "append fd00::200/122 via 2001:db8::77 dev eth0 metric 1024 proto 80",
            "append blackhole fd00::200/122 metric 1024 proto 80",
            "append unreachable fd00::200/122 metric 1024 proto 80",
            "append fd00::200/122 dev cali1 metric 1024 proto 80",
            "append fd00::200/122 dev cali1 metric 1024 proto 80 ; append blackhole fd00::200/122 metric 1024 proto 80",
            "append fd00::100/122 via 2001:db8::77 dev eth0 metric 1024 proto 80",
            "append fd00::101 dev eth0 metric 1024 proto 80",
            "del fd00::200/122 metric 1024 ; add fd00::200/122 nhid 7 metric 1024 proto 80",
            "del blackhole fd00::100/122 ; add unreachable fd00::100/122 metric 1024 proto 80",
            "add fd00::999 via 2001:db8::77 proto 80",
            "flush proto 80",
        ],
    )
    .await;
}

/// A restarted agent has seen no interface before, and leaves what it does not know of for a while.
#[tokio::test]
async fn a_route_that_is_before_a_wanted_one_goes_at_once_over_a_new_interface_too() {
    let machine = machine();
    machine.ip("link add cali2 type veth peer name far2");
    machine.ip("link set far2 up");
    machine.ip("link set cali2 up");
    let desired = desired(&three_nodes());
    let mut netlink = machine.connect();
    settle(&mut netlink, &desired).await;
    let before = machine.ip("route show");
    machine.ip("route prepend 192.168.0.1 dev cali2 metric 1024 proto 80");
    machine.ip("route add 192.168.0.2 dev cali2 metric 1024");
    let actual = netlink.read(&desired.ownership).await.unwrap();
    let mut reconciler = Reconciler::new(Settings::default());
    let changes = reconciler.admit(&plan(&desired, &actual), &actual.host, &desired.ownership, clock());
    for outcome in netlink.apply(&changes).await {
        assert!(outcome.result.is_ok(), "{}: {:?}", outcome.change, outcome.result);
    }
    contains(&machine.ip("route show"), "192.168.0.2 dev cali2");
    machine.ip("route del 192.168.0.2");
    assert_eq!(sorted(&machine.ip("route show")), sorted(&before));
}

#[tokio::test]
async fn a_route_of_others_under_the_key_of_one_that_goes_stays() {
    let machine = machine();
    let mut netlink = machine.connect();
    let desired = desired(&three_nodes());
    settle(&mut netlink, &desired).await;
    machine.ip("nexthop add id 8 dev cali1");
    for (theirs, ours) in [
        ("192.168.0.9 via 172.16.6.9 dev eth0", "192.168.0.9 dev cali1 src 172.16.6.1"),
        ("192.168.0.9 dev eth0", "192.168.0.9 dev cali1 scope global"),
        ("192.168.0.9 via 172.16.6.9 dev eth0", "192.168.0.9 nhid 8"),
        ("192.168.0.9 via 172.16.6.9 dev eth0", "192.168.0.9 dev cali1 mtu 1300"),
    ] {
        machine.ip(&format!("route add {theirs}"));
        let before = machine.ip("route show");
        machine.ip(&format!("route append {ours}"));
        assert_ne!(machine.ip("route show"), before);
        assert!(!settle(&mut netlink, &desired).await.is_empty(), "{ours}");
        assert_eq!(machine.ip("route show"), before, "{ours}");
        machine.ip(&format!("route del {theirs}"));
    }
}

/// Another program's VXLAN device has forwarding entries too, even of the MAC addresses of our peers.
#[tokio::test]
async fn forwarding_entries_of_others_stay() {
    let machine = machine();
    machine.ip("link add theirs type vxlan id 4097 dstport 4790 nolearning local 172.16.6.1 dev eth0");
    machine.ip("link set theirs up");
    machine.run("bridge fdb append 66:a4:6f:e0:c4:da dev theirs dst 172.16.6.99 self permanent");
    machine.run("bridge fdb append 02:00:00:00:00:07 dev theirs dst 172.16.6.98 self permanent");
    let theirs = || machine.run("bridge fdb show dev theirs");
    let before = theirs();
    let desired = desired(&three_nodes());
    let mut netlink = machine.connect();
    settle(&mut netlink, &desired).await;
    let ours = machine.run("bridge fdb show dev vxlan.calico");
    for drift in [
        "append 00:00:00:00:00:00 dev vxlan.calico dst 172.16.6.98 self permanent",
        "append 02:00:00:00:00:07 dev vxlan.calico dst 172.16.6.98 self permanent",
        "replace 66:a4:6f:e0:c4:da dev vxlan.calico dst 172.16.6.98 self permanent",
    ] {
        machine.run(&format!("bridge fdb {drift}"));
        assert!(!settle(&mut netlink, &desired).await.is_empty(), "{drift}");
        assert_eq!(sorted(&machine.run("bridge fdb show dev vxlan.calico")), sorted(&ours), "{drift}");
        assert_eq!(theirs(), before, "{drift}");
    }
    assert!(netlink.cleanup(&desired.ownership).await.unwrap().is_empty());
    assert_eq!(theirs(), before);
}

/// The kernel says that it replaces an entry by a next hop object, and keeps it.
#[tokio::test]
async fn forwarding_entries_unlike_ours_go_and_ours_come_in_their_place() {
    let machine = dual_machine();
    for (group, via) in [(6, "172.16.6.9"), (8, "2001:db8::9")] {
        machine.ip(&format!("nexthop add id {} via {via} fdb", group - 1));
        machine.ip(&format!("nexthop add id {group} group {} fdb", group - 1));
    }
    let desired = desired(&three_dual_nodes());
    let mut netlink = machine.connect();
    settle(&mut netlink, &desired).await;
    for (device, group, stranger) in
        [("vxlan.calico", 6, "172.16.6.9"), ("vxlan-v6.calico", 8, "2001:db8::9")]
    {
        let shown = || machine.run(&format!("bridge fdb show dev {device}"));
        let (before, others) = (shown(), machine.ip("nexthop show"));
        let ours = before.split_whitespace().next().unwrap();
        for drift in [
            format!("del {ours} dev {device} self ; add {ours} dev {device} nhid {group} self permanent"),
            format!("append 02:00:00:00:00:07 dev {device} nhid {group} self permanent"),
            format!("append 02:00:00:00:00:07 dev {device} dst {stranger} port 9999 self permanent"),
            format!(
                "append 00:00:00:00:00:00 dev {device} dst {stranger} self permanent ; \
                 append 00:00:00:00:00:00 dev {device} dst {stranger} port 9999 self permanent"
            ),
        ] {
            drift.split(" ; ").for_each(|step| drop(machine.run(&format!("bridge fdb {step}"))));
            assert_ne!(sorted(&shown()), sorted(&before), "{drift} changes nothing");
            settle(&mut netlink, &desired).await;
            assert_eq!(sorted(&shown()), sorted(&before), "{drift}");
        }
        assert_eq!(machine.ip("nexthop show"), others);
    }
}

/// Others may have routes for one type of service; of ours there is none.
#[tokio::test]
async fn a_route_of_others_for_one_type_of_service_stays() {
    let machine = machine();
    let desired = desired(&three_nodes());
    machine.ip("route add 192.168.1.0/26 tos 8 via 172.16.6.9 proto static");
    let before = machine.ip("route show");
    let mut netlink = machine.connect();
    settle(&mut netlink, &desired).await;
    machine.ip("route add 192.168.1.0/26 tos 0x10 via 172.16.6.9 proto 80");
    assert!(netlink.cleanup(&desired.ownership).await.unwrap().is_empty());
    assert_eq!(machine.ip("route show"), before);
}
