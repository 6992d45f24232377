//! Against the real kernel. `ip` and `bridge` are the second opinion.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use calico_model::learned::LearnedRoutes;
use calico_model::resource::{EncapMode, FelixConfiguration, Object};
use calico_model::{Name, Snapshot, Update};
use calico_route::actual::Knowledge;
use calico_route::netlink::Netlink;
use calico_route::route::{Form, Gateway, RouteKey};
use calico_route::{Change, Computer, Desired, Ownership, Waits, compute, diff, plan_delta};

use crate::cluster::{block, learn, node_name, pool, three_dual_nodes, three_nodes, workload};
use crate::namespace::{TestNamespace, machine};

pub(crate) fn desired(snapshot: &Snapshot) -> Desired {
    compute(snapshot, &node_name("node1"), &LearnedRoutes::new())
}

/// Applies what is to be done and checks that all of it was and that nothing is left.
pub(crate) async fn settle(netlink: &mut Netlink, desired: &Desired) -> Vec<Change> {
    let changes = diff(desired, &netlink.read(&desired.ownership).await.unwrap());
    for outcome in netlink.apply(&changes).await {
        assert!(outcome.result.is_ok(), "{}: {:?}", outcome.change, outcome.result);
    }
    let left = diff(desired, &netlink.read(&desired.ownership).await.unwrap());
    assert_eq!(left.iter().map(Change::to_string).collect::<Vec<_>>(), Vec::<String>::new());
    changes
}

pub(crate) fn contains(text: &str, line: &str) {
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

#[tokio::test]
async fn drift_of_every_kind_is_repaired_and_what_belongs_to_others_stays() {
    let machine = machine();
    let desired = desired(&three_nodes());
    let mut netlink = machine.connect();
    machine.ip("route add 10.200.0.0/16 via 172.16.6.254 proto static");
    machine.ip("route add 192.168.1.0/26 via 172.16.6.254 metric 7 proto static");
    machine.ip("neigh add 172.16.6.99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent");
    settle(&mut netlink, &desired).await;
    let foreign = |routes: String| {
        routes.lines().filter(|line| !line.contains("proto 80")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = foreign(machine.ip("route show"));
    for drift in [
        "route del 192.168.1.0/26 metric 1024",
        "route replace 192.168.1.0/26 via 172.16.6.77 metric 1024 proto 80",
        "route replace 192.168.0.1/32 dev eth0 metric 1024 proto 80",
        "route append 192.168.1.0/26 via 172.16.6.77 metric 1024 proto 80",
        "route add 192.168.1.0/26 via 172.16.6.77 metric 5 proto 80",
        "route add 192.168.9.0/26 dev cali1",
        "route del blackhole 192.168.0.0/26",
        "route replace 192.168.0.1/32 dev cali1 metric 1024 proto 80 src 172.16.6.1",
        "link set vxlan.calico mtu 1300",
        "link set vxlan.calico down",
        "link set vxlan.calico address 02:00:00:00:00:07",
        "link del vxlan.calico",
        "address del 192.168.0.0/32 dev vxlan.calico",
        "address add 10.1.2.3/32 dev vxlan.calico",
        "neigh del 192.168.2.0 dev vxlan.calico",
        "neigh replace 192.168.2.0 lladdr 02:00:00:00:00:07 dev vxlan.calico nud permanent",
        "neigh add 192.168.2.9 lladdr 02:00:00:00:00:07 dev vxlan.calico nud permanent",
        "link set cali1 down",
    ] {
        machine.ip(drift);
        if drift == "link set cali1 down" {
            machine.ip("link set cali1 up");
        }
        let repairs = settle(&mut netlink, &desired).await;
        assert!(!repairs.is_empty(), "{drift}");
    }
    for drift in [
        "bridge fdb append 02:00:00:00:00:07 dev vxlan.calico dst 172.16.6.9 self permanent",
        "bridge fdb del 66:a4:6f:e0:c4:da dev vxlan.calico dst 172.16.199.3 self",
        "bridge fdb replace 66:a4:6f:e0:c4:da dev vxlan.calico dst 172.16.199.3 port 9999 self permanent",
        "bridge fdb replace 66:a4:6f:e0:c4:da dev vxlan.calico dst 172.16.199.3 vni 77 self permanent",
        "bridge fdb replace 66:a4:6f:e0:c4:da dev vxlan.calico dst 172.16.199.3 via eth0 self permanent",
        "ip neigh replace 192.168.2.0 dev vxlan.calico nud stale",
        "sysctl -qw net.ipv4.conf.cali1.proxy_arp=0",
        "sysctl -qw net.ipv4.ip_forward=0",
    ] {
        machine.run(drift);
        assert!(!settle(&mut netlink, &desired).await.is_empty(), "{drift}");
    }
    assert_eq!(foreign(machine.ip("route show")), before);
    contains(&machine.ip("neigh show dev eth0"), "172.16.6.99 lladdr 02:00:00:00:00:99 PERMANENT");
}

/// Hardware that computes the checksums of wrapped packets wrong: the kernel does it, on a device that is made and on one that
/// is there. `ethtool` is the second opinion.
#[tokio::test]
async fn where_the_hardware_computes_checksums_wrong_the_kernel_does() {
    let machine = machine();
    let mut snapshot = three_nodes();
    let mut netlink = machine.connect();
    let features = || machine.run("ethtool -k vxlan.calico");
    settle(&mut netlink, &desired(&snapshot)).await;
    contains(&features(), "tx-checksumming: on");
    let broken = Some("SNATFullyRandom=false,ChecksumOffloadBroken=true".to_owned());
    let spec = FelixConfiguration { feature_detect_override: broken, ..FelixConfiguration::new() };
    snapshot.insert(Object::new("default".parse().unwrap(), spec));
    let told = settle(&mut netlink, &desired(&snapshot)).await;
    assert_eq!(told.iter().map(Change::to_string).collect::<Vec<_>>(), ["ethtool -K vxlan.calico tx off"]);
    contains(&features(), "tx-checksumming: off");
    machine.ip("link del vxlan.calico");
    settle(&mut netlink, &desired(&snapshot)).await;
    contains(&features(), "tx-checksumming: off");
    machine.run("ethtool -K vxlan.calico tx on");
    settle(&mut netlink, &desired(&snapshot)).await;
    contains(&features(), "tx-checksumming: off");
}

#[tokio::test]
async fn a_vxlan_device_with_another_attribute_that_stays_is_made_anew() {
    let machine = machine();
    let desired = desired(&three_nodes());
    let mut netlink = machine.connect();
    machine.ip("link add other type veth peer name far3");
    for stale in [
        "id 77 dstport 4789 nolearning local 172.16.6.1 dev eth0",
        "id 4096 dstport 8472 nolearning local 172.16.6.1 dev eth0",
        "id 4096 dstport 4789 learning local 172.16.6.1 dev eth0",
        "id 4096 dstport 4789 nolearning local 172.16.6.9 dev eth0",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev other",
        "id 4096 dstport 4789 nolearning local 172.16.6.1",
        "id 4096 dstport 4789 nolearning dev eth0",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 gbp",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 ttl 1",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 ttl inherit",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 tos 8",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 maxaddress 1",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 l2miss",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 proxy",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 remote 172.16.6.9",
        "dstport 4789 local 172.16.6.1 dev eth0 external",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 noudpcsum",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 udp6zerocsumtx",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 udp6zerocsumrx",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 remcsumtx",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 remcsumrx",
        "id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 srcport 1000 2000",
    ] {
        machine.ip(&format!("link add vxlan.calico type vxlan {stale}"));
        let changes = settle(&mut netlink, &desired).await;
        assert!(changes.iter().any(|change| matches!(change, Change::RemoveLink { .. })), "{stale}");
        machine.ip("link del vxlan.calico");
    }
    // What is learned for how long means nothing to a device that does not learn.
    machine.ip(
        "link add vxlan.calico type vxlan id 4096 dstport 4789 nolearning local 172.16.6.1 dev eth0 ageing 60",
    );
    let changes = settle(&mut netlink, &desired).await;
    assert!(!changes.iter().any(|change| matches!(change, Change::RemoveLink { .. })), "{changes:?}");
}

#[tokio::test]
async fn a_vxlan_device_that_was_renamed_is_made_anew_and_one_of_others_stays() {
    let machine = machine();
    let desired = desired(&three_nodes());
    let mut netlink = machine.connect();
    machine.ip("link add theirs type vxlan id 4097 dstport 4789 nolearning local 172.16.6.1 dev eth0");
    settle(&mut netlink, &desired).await;
    let (routes, device) = (machine.ip("route show"), machine.ip("-br link show vxlan.calico"));
    machine.ip("link set vxlan.calico down");
    machine.ip("link set vxlan.calico name mislaid");
    machine.ip("link set mislaid up");
    let changes = settle(&mut netlink, &desired).await;
    assert_eq!(changes[0].to_string(), "link del mislaid", "{changes:?}");
    assert_eq!((machine.ip("route show"), machine.ip("-br link show vxlan.calico")), (routes, device));
    contains(&machine.ip("-br link"), "theirs");
}

#[tokio::test]
async fn a_destination_that_stays_is_replaced_in_one_step() {
    let machine = machine();
    let mut snapshot = three_nodes();
    let mut netlink = machine.connect();
    settle(&mut netlink, &desired(&snapshot)).await;
    crate::cluster::node(&mut snapshot, "node2", "172.16.6.22/24", "192.168.1.0");
    let changes = settle(&mut netlink, &desired(&snapshot)).await;
    let routes: Vec<_> = changes.iter().filter(|change| change.to_string().starts_with("route")).collect();
    assert!(matches!(routes[..], [Change::ReplaceRoute { .. }]), "{routes:?}");
    contains(&machine.ip("route show"), "192.168.1.0/26 via 172.16.6.22");
}

#[tokio::test]
async fn equal_next_hops_make_a_multipath_route_and_a_far_one_goes_by_the_gateway() {
    let machine = machine();
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "10.50.0.0/16", &["172.16.6.2", "172.16.6.3"]);
    learn(&mut learned, "10.51.0.0/16", &["172.16.199.3"]);
    learn(&mut learned, "10.52.0.0/16", &["172.16.6.2"]);
    let snapshot = three_nodes();
    let mut netlink = machine.connect();
    settle(&mut netlink, &compute(&snapshot, &node_name("node1"), &learned)).await;
    contains(&machine.ip("route show 10.50.0.0/16"), "nexthop via 172.16.6.2 dev eth0 weight 1");
    contains(&machine.ip("route show 10.50.0.0/16"), "nexthop via 172.16.6.3 dev eth0 weight 1");
    contains(&machine.ip("route show 10.51.0.0/16"), "via 172.16.6.254 dev eth0");
    learn(&mut learned, "10.50.0.0/16", &["172.16.6.3", "172.16.6.4"]);
    learn(&mut learned, "10.52.0.0/16", &["172.16.6.2", "172.16.6.4"]);
    learned.remove(&"10.51.0.0/16".parse().unwrap());
    settle(&mut netlink, &compute(&snapshot, &node_name("node1"), &learned)).await;
    settle(&mut netlink, &compute(&snapshot, &node_name("node1"), &LearnedRoutes::new())).await;
}

/// A fabric that announces each node as a single host, on a link where nodes see each other: the kernel would look for the way
/// to the gateway, and find another gateway.
#[tokio::test]
async fn an_ipv6_gateway_on_the_link_is_taken_though_a_narrower_route_leads_there() {
    let machine = machine();
    machine.ip("address add 2001:db8::1/64 dev eth0 nodad");
    let snapshot = three_dual_nodes();
    let mut learned = LearnedRoutes::new();
    let mut netlink = machine.connect();
    settle(&mut netlink, &compute(&snapshot, &node_name("node1"), &learned)).await;
    learn(&mut learned, "2001:db8::2/128", &["2001:db8::ff"]);
    settle(&mut netlink, &compute(&snapshot, &node_name("node1"), &learned)).await;
    machine.ip("-6 route del fd00::200/122");
    let desired = compute(&snapshot, &node_name("node1"), &learned);
    settle(&mut netlink, &desired).await;
    contains(&machine.ip("-6 route show"), "fd00::200/122 via 2001:db8::2 dev eth0 proto 80 onlink");
    contains(&machine.ip("-6 route show"), "2001:db8::2 via 2001:db8::ff dev eth0 proto 80");
    assert_eq!(diff(&desired, &machine.connect().read(&desired.ownership).await.unwrap()), []);
}

/// The other way about: told that the gateway is on the link, the kernel would find it by way of the other device.
#[tokio::test]
async fn an_ipv6_gateway_on_the_link_is_taken_though_a_narrower_route_leads_over_another_device() {
    let machine = machine();
    machine.ip("address add 2001:db8::1/64 dev eth0 nodad");
    machine.ip("link add uplink1 type veth peer name uplink1p");
    machine.ip("link set uplink1p up");
    machine.ip("link set uplink1 up");
    machine.ip("-6 route add 2001:db8::2/128 dev uplink1");
    let desired = compute(&three_dual_nodes(), &node_name("node1"), &LearnedRoutes::new());
    settle(&mut machine.connect(), &desired).await;
    let routes = machine.ip("-6 route show fd00::200/122");
    contains(&routes, "via 2001:db8::2 dev eth0 proto 80");
    assert!(!routes.contains("onlink"), "{routes}");
    assert_eq!(diff(&desired, &machine.connect().read(&desired.ownership).await.unwrap()), []);
}

/// More than a socket's send buffer holds at once.
#[tokio::test]
async fn many_routes_of_many_hops_are_written() {
    let machine = machine();
    let hops: Vec<String> = (2..66).map(|host| format!("172.16.6.{host}")).collect();
    let hops: Vec<&str> = hops.iter().map(String::as_str).collect();
    let mut learned = LearnedRoutes::new();
    (0..=255).for_each(|net| learn(&mut learned, &format!("10.7.{net}.0/24"), &hops));
    let mut netlink = machine.connect();
    settle(&mut netlink, &compute(&three_nodes(), &node_name("node1"), &learned)).await;
    assert_eq!(machine.ip("route show 10.7.255.0/24").matches("nexthop via").count(), 64);
    settle(&mut netlink, &compute(&three_nodes(), &node_name("node1"), &LearnedRoutes::new())).await;
}

#[tokio::test]
async fn ipv6_has_the_same() {
    let machine = machine();
    machine.ip("address add 2001:db8::1/64 dev eth0 nodad");
    let snapshot = three_dual_nodes();
    let mut learned = LearnedRoutes::new();
    learn(&mut learned, "fd07::/64", &["2001:db8::2", "2001:db8::4"]);
    learn(&mut learned, "10.60.0.0/16", &["2001:db8::2"]);
    let desired = compute(&snapshot, &node_name("node1"), &learned);
    let mut netlink = machine.connect();
    settle(&mut netlink, &desired).await;
    let routes = machine.ip("-6 route show");
    contains(&routes, "fd00::101 dev cali1 proto 80 metric 1024");
    contains(&routes, "blackhole fd00::100/122 proto 80 metric 1024");
    contains(&routes, "fd00::200/122 via 2001:db8::2 dev eth0 proto 80");
    contains(&routes, "fd00::300/122 via fd00::300 dev vxlan-v6.calico proto 80 metric 1024 onlink");
    contains(&machine.ip("route show"), "10.60.0.0/16 via inet6 2001:db8::2 dev eth0");
    contains(&machine.ip("-d link show vxlan-v6.calico"), "mtu 1430");
    contains(&machine.ip("-d link show vxlan-v6.calico"), "local 2001:db8::1 dev eth0");
    contains(&machine.run("bridge fdb show dev vxlan-v6.calico"), "dst 2001:db8:1::3 self permanent");
    assert_eq!(machine.run("cat /proc/sys/net/ipv6/conf/cali1/accept_ra").trim(), "0");
    assert_eq!(machine.run("cat /proc/sys/net/ipv6/conf/cali1/proxy_ndp").trim(), "1");
    learn(&mut learned, "fd07::/64", &["2001:db8::4"]);
    settle(&mut netlink, &compute(&snapshot, &node_name("node1"), &learned)).await;
    settle(&mut netlink, &compute(&snapshot, &node_name("node1"), &LearnedRoutes::new())).await;
}

#[tokio::test]
async fn where_the_kernel_has_no_ipip_that_alone_fails_and_says_so() {
    let machine = machine();
    let mut snapshot = three_nodes();
    pool(&mut snapshot, "10.77.0.0/16", EncapMode::Always, EncapMode::Never);
    block(&mut snapshot, "10.77.0.0/26", "node2");
    let name: Name = "node1".parse().unwrap();
    let mut own = snapshot.node(&name.clone().into()).cloned().unwrap();
    own.bgp.as_mut().unwrap().ipv4_ipip_tunnel_addr = Some("10.77.0.64".parse().unwrap());
    snapshot.insert(Object::new(name, own));
    let desired = desired(&snapshot);
    let mut netlink = machine.connect();
    let changes = diff(&desired, &netlink.read(&desired.ownership).await.unwrap());
    let outcomes = netlink.apply(&changes).await;
    let failed: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| outcome.result.as_ref().err())
        .map(ToString::to_string)
        .collect();
    assert!(
        outcomes
            .iter()
            .filter_map(|outcome| outcome.result.as_ref().err())
            .all(|error| !error.requires_retry())
    );
    contains(&machine.ip("route show"), "192.168.2.0/26 via 192.168.2.0 dev vxlan.calico");
    let has_ipip = failed.is_empty();
    assert!(has_ipip || std::env::var_os("CALICO_TEST_TUNNEL").is_none(), "{failed:?}");
    if has_ipip {
        the_kernels_ipip_device_is_kept_in_order_and_given_back(&machine, &mut netlink, &desired).await;
    } else {
        assert_eq!(
            failed[0],
            "this kernel cannot make IP-in-IP devices; pool pool-10-77-0-0-16 needs ipipMode Never or a kernel with \
             the ipip module"
        );
        assert!(
            failed[1..].iter().all(|text| text.starts_with("interface tunl0 does not exist")),
            "{failed:?}"
        );
    }
}

/// Where the kernel has IP-in-IP, as in `make test-vm`: what is laid, a restart, drift, and a clean-up.
async fn the_kernels_ipip_device_is_kept_in_order_and_given_back(
    machine: &TestNamespace,
    netlink: &mut Netlink,
    desired: &Desired,
) {
    let (device, routes) = (|| machine.ip("address show tunl0"), || machine.ip("route show"));
    contains(&routes(), "10.77.0.0/26 via 172.16.6.2 dev tunl0 proto 80 metric 1024 onlink");
    contains(&device(), "mtu 1480");
    contains(&device(), "inet 10.77.0.64/32 tunl0:cali");
    assert_eq!(diff(desired, &machine.connect().read(&desired.ownership).await.unwrap()), []);

    machine.ip("address add 10.99.0.1/32 dev tunl0");
    machine.ip("route add 10.200.0.0/16 via 172.16.6.9 dev tunl0 onlink proto static");
    assert_eq!(settle(netlink, desired).await, [], "an address and a route of others");
    let (laid, number) = (routes(), machine.ip("-o link show tunl0").split(':').next().map(str::to_owned));
    for drift in [
        "route del 10.77.0.0/26 metric 1024",
        "route replace 10.77.0.0/26 via 172.16.6.77 dev tunl0 onlink metric 1024 proto 80",
        "route add 10.78.0.0/26 via 172.16.6.2 dev tunl0 onlink metric 1024 proto 80",
        "address del 10.77.0.64/32 dev tunl0",
        "address add 10.77.0.65/32 dev tunl0 label tunl0:cali",
        "link set tunl0 mtu 1300",
    ] {
        machine.ip(drift);
        assert!(!settle(netlink, desired).await.is_empty(), "{drift}");
        assert_eq!(routes(), laid, "{drift}");
    }
    machine.ip("link set tunl0 down");
    assert!(!settle(netlink, desired).await.is_empty(), "down");
    contains(&routes(), "10.77.0.0/26 via 172.16.6.2 dev tunl0 proto 80 metric 1024 onlink");
    contains(&device(), "mtu 1480");

    let failed = netlink.cleanup(&desired.ownership).await.unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    let left = device();
    assert!(left.contains("inet 10.99.0.1/32") && !left.contains("tunl0:cali"), "{left}");
    assert!(!routes().contains("10.77."), "{}", routes());
    assert_eq!(
        machine.ip("-o link show tunl0").split(':').next().map(str::to_owned),
        number,
        "it was made anew"
    );
}

#[tokio::test]
async fn a_refusal_carries_the_kernels_own_words_and_stops_nothing_else() {
    let machine = machine();
    let mut netlink = machine.connect();
    netlink.read(&Ownership::default()).await.unwrap();
    let gateway = |address: &str| {
        let gateway =
            Gateway { address: address.parse().unwrap(), device: "eth0".parse().unwrap(), onlink: false };
        Form::Gateways([gateway].into())
    };
    let key = |prefix: &str| RouteKey::main(prefix.parse().unwrap(), 1024);
    let changes = [
        Change::AddRoute { key: key("10.1.0.0/16"), form: gateway("203.0.113.1") },
        Change::AddRoute { key: key("10.2.0.0/16"), form: gateway("172.16.6.9") },
        Change::AddRoute { key: key("10.3.0.0/16"), form: Form::Device("absent".parse().unwrap()) },
    ];
    let outcomes = netlink.apply(&changes).await;
    let texts: Vec<_> =
        outcomes.iter().map(|outcome| outcome.result.as_ref().err().map(ToString::to_string)).collect();
    let refused = "the kernel refuses `route add 10.1.0.0/16 metric 1024 via 203.0.113.1 dev eth0`: Nexthop has invalid \
                   gateway (Network is unreachable (os error 101))";
    assert_eq!(texts[0].as_deref(), Some(refused));
    assert_eq!(texts[1], None);
    assert!(texts[2].as_deref().is_some_and(|text| text.starts_with("interface absent does not exist")));
    contains(&machine.ip("route show"), "10.2.0.0/16 via 172.16.6.9");
}

/// Routes of other tables are others', whatever their protocol and device, also where we have the same destination.
#[tokio::test]
async fn a_clean_up_leaves_only_what_belongs_to_others() {
    let machine = machine();
    machine.ip("address add 2001:db8::1/64 dev eth0 nodad");
    for theirs in [
        "route add 10.200.0.0/16 via 172.16.6.254 proto static",
        "route add 10.9.0.0/16 via 172.16.6.254 table 100 proto 80",
        "route add 192.168.1.0/26 via 172.16.6.254 metric 1024 table 100 proto 80",
        "route add 192.168.0.1 dev cali1 table 100",
        "route add blackhole 10.8.0.0/16 table 1000 proto 80",
        "neigh add 172.16.6.99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        "-6 route add fd77::/64 via 2001:db8::fe proto static",
        "-6 route add fd09::/64 via 2001:db8::fe table 100 proto 80",
        "-6 route add fd00::200/122 via 2001:db8::fe metric 1024 table 100 proto 80",
        "-6 route add fd00::101 dev cali1 table 100",
        "-6 route add blackhole fd08::/64 table 1000 proto 80",
        "neigh add 2001:db8::99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
    ] {
        machine.ip(theirs);
    }
    let lists = ["-4 route show table all", "-6 route show table all", "neigh show nud permanent"];
    // The kernel's own come and go with the links' carrier.
    let list = |list: &&str| machine.ip(list).lines().map(str::to_owned).collect::<Vec<_>>();
    let shown = || -> BTreeSet<String> {
        lists.iter().flat_map(list).filter(|line| !line.contains("proto kernel")).collect()
    };
    let before = shown();
    let desired = desired(&three_dual_nodes());
    let mut netlink = machine.connect();
    settle(&mut netlink, &desired).await;
    let laid = shown();
    assert_eq!(before.difference(&laid).collect::<Vec<_>>(), Vec::<&String>::new(), "after a pass");
    let laid: String = laid.difference(&before).map(|line| format!("{line}\n")).collect();
    for ours in [
        "192.168.2.0/26 via 192.168.2.0 dev vxlan.calico proto 80",
        "192.168.0.1 dev cali1 lladdr PERMANENT",
        "fd00::101 dev cali1 proto 80",
        "blackhole fd00::100/122 proto 80",
        "fd00::200/122 via 2001:db8::2 dev eth0 proto 80",
        "fd00::300/122 via fd00::300 dev vxlan-v6.calico proto 80",
        "fd00::300 dev vxlan-v6.calico lladdr PERMANENT",
        "fd00::101 dev cali1 lladdr PERMANENT",
    ] {
        contains(&laid, ours);
    }
    let failed = netlink.cleanup(&desired.ownership).await.unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(shown(), before);
    let links = machine.ip("link show");
    assert!(!links.contains("vxlan.calico") && !links.contains("vxlan-v6.calico"), "{links}");
}

#[tokio::test]
async fn change_by_change_the_kernel_is_what_is_remembered_of_it() {
    let machine = machine();
    let mut netlink = machine.connect();
    let mut snapshot = three_nodes();
    let mut computer = Computer::new(node_name("node1"));
    let tell = |computer: &mut Computer, snapshot: &Snapshot| {
        let nodes = snapshot.nodes.values().map(|object| Update::Put(Box::new(object.clone().into())));
        let pools = snapshot.pools.values().map(|object| Update::Put(Box::new(object.clone().into())));
        let workloads =
            snapshot.workloads.values().map(|object| Update::Put(Box::new(object.clone().into())));
        let blocks = snapshot.blocks.values().map(|block| Update::PutBlock(Box::new(block.clone())));
        nodes.chain(pools).chain(workloads).chain(blocks).for_each(|update| computer.apply(&update));
        computer.settle()
    };
    tell(&mut computer, &snapshot);
    settle(&mut netlink, computer.desired()).await;
    let mut actual = netlink.read(&computer.desired().ownership).await.unwrap();
    let steps: [fn(&mut Snapshot); 5] = [
        |snapshot| workload(snapshot, "two", "node1", "cali1", "192.168.0.2/32"),
        |snapshot| block(snapshot, "192.168.3.0/26", "node3"),
        |snapshot| crate::cluster::lend(snapshot, "192.168.3.0/26", 5, "node2"),
        |snapshot| crate::cluster::node(snapshot, "node3", "172.16.199.4/24", "192.168.2.0"),
        |snapshot| crate::cluster::node(snapshot, "node4", "172.16.6.4/24", "192.168.4.0"),
    ];
    for step in steps {
        step(&mut snapshot);
        let delta = tell(&mut computer, &snapshot);
        assert!(!delta.everything && !delta.is_empty());
        let changes = plan_delta(computer.desired(), &actual, &delta, &Waits::default()).changes;
        assert!(changes.len() <= 3, "{changes:?}");
        for outcome in netlink.apply(&changes).await {
            assert!(outcome.result.is_ok(), "{}: {:?}", outcome.change, outcome.result);
            assert_eq!(actual.made(outcome.change), Knowledge::Kept);
        }
        assert_eq!(actual, netlink.read(&computer.desired().ownership).await.unwrap());
    }
    assert_eq!(diff(computer.desired(), &actual), []);
}

#[tokio::test]
async fn the_namespace_of_the_caller_stays_what_it_was() {
    let inode = || std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    let before = inode();
    let machine = machine();
    let desired = desired(&three_nodes());
    let mut netlink = machine.connect();
    settle(&mut netlink, &desired).await;
    assert_eq!(inode(), before);
}
