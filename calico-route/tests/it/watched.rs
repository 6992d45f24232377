//! What the watch tells of what others change in a kernel.

use std::time::Duration;

use calico_model::Cidr;
use calico_model::learned::LearnedRoutes;
use calico_model::resource::FelixConfiguration;
use calico_route::netlink::{Event, Subject, Watch};
use calico_route::route::{Form, RouteKey};
use calico_route::{Change, Desired, Ownership, compute};

use crate::cluster::{node_name, three_nodes};
use crate::drift::Driver;
use crate::kernel::{contains, desired, settle};
use crate::namespace::{TestNamespace, machine};

#[tokio::test]
async fn the_watch_tells_what_others_change_and_not_what_we_do() {
    let machine = machine();
    let desired = desired(&three_nodes());
    let mut netlink = machine.connect();
    settle(&mut netlink, &desired).await;
    let mut watch = netlink.watch(&desired.ownership).await.unwrap();
    let (patience, silence) = (Duration::from_secs(5), Duration::from_millis(300));

    machine.ip("route del 192.168.2.0/26 metric 1024");
    let event = tokio::time::timeout(patience, watch.next()).await.unwrap().unwrap();
    assert_eq!(event, Event::Changed([Subject::Routes].into()));
    settle(&mut netlink, &desired).await;
    let own = tokio::time::timeout(silence, watch.next()).await;
    assert!(own.is_err(), "{own:?}");

    machine.ip("neigh del 192.168.2.0 dev vxlan.calico");
    let event = tokio::time::timeout(patience, watch.next()).await.unwrap().unwrap();
    assert_eq!(event, Event::Changed([Subject::Neighbours].into()));

    machine.run("sysctl -qw net.ipv4.conf.cali1.proxy_arp=0");
    let event = tokio::time::timeout(patience, watch.next()).await.unwrap().unwrap();
    assert_eq!(event, Event::Changed([Subject::Settings].into()));
    machine.run("sysctl -qw net.ipv4.conf.eth0.proxy_arp=1");
    let other = tokio::time::timeout(silence, watch.next()).await;
    assert!(other.is_err(), "{other:?}");

    machine.ip("link set cali1 down");
    let event = tokio::time::timeout(patience, watch.next()).await.unwrap().unwrap();
    assert!(matches!(event, Event::Changed(subjects) if subjects.contains(&Subject::Links)));
}

#[tokio::test]
async fn the_watch_follows_which_interfaces_are_workloads() {
    let machine = machine();
    machine.ip("link add tap1 type veth peer name tapfar");
    let mut netlink = machine.connect();
    let mut watch = netlink.watch(&Ownership::default()).await.unwrap();
    let (patience, silence) = (Duration::from_secs(5), Duration::from_millis(300));
    machine.run("sysctl -qw net.ipv4.conf.tap1.proxy_arp=1");
    let other = tokio::time::timeout(silence, watch.next()).await;
    assert!(other.is_err(), "{other:?}");

    let mut settings = FelixConfiguration::new();
    settings.interface_prefix = Some("tap".to_owned());
    watch.set_ownership(&Ownership::of(&settings));
    machine.run("sysctl -qw net.ipv4.conf.tap1.proxy_arp=0");
    let event = tokio::time::timeout(patience, watch.next()).await.unwrap().unwrap();
    assert_eq!(event, Event::Changed([Subject::Settings].into()));
}

/// Routes to so many networks, as if they were ours.
pub(crate) fn stray_routes(count: u32) -> Vec<Change> {
    let stray = |number: u32| {
        let addr = std::net::Ipv4Addr::from((10 << 24) + (number << 6));
        let key = RouteKey::main(Cidr::holding(addr.into(), 26).unwrap(), 1024);
        Change::AddRoute { key, form: Form::Blackhole }
    };
    (0..count).map(stray).collect()
}

/// Has somebody write ten thousand routes as if they were ours.
pub(crate) async fn strays(machine: &TestNamespace, desired: &Desired) {
    let mut other = machine.connect();
    other.read(&desired.ownership).await.unwrap();
    assert!(other.apply(&stray_routes(10_000)).await.iter().all(|outcome| outcome.result.is_ok()));
}

/// Reports whether a change of these is told within a time; the kernel says more of its own accord, such as that a link has its
/// address now.
async fn tells(watch: &mut Watch, subject: Subject, within: Duration) -> bool {
    let telling = async {
        while !matches!(watch.next().await.unwrap(), Event::Changed(told) if told.contains(&subject)) {}
    };
    tokio::time::timeout(within, telling).await.is_ok()
}

const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_neighbour_that_ceases_to_be_permanent_is_told_of_and_one_that_never_was_is_not() {
    let machine = machine();
    let desired = desired(&three_nodes());
    let mut netlink = machine.connect();
    let mut watch = netlink.watch(&desired.ownership).await.unwrap();
    settle(&mut netlink, &desired).await;
    while watch.already().unwrap().is_some() {}
    for known in ["written while it watched", "read"] {
        machine.ip("neigh replace 192.168.0.99 lladdr 02:00:00:00:00:99 dev cali1 nud reachable");
        assert!(!tells(&mut watch, Subject::Neighbours, SILENCE).await, "{known}");
        machine.ip("neigh replace 192.168.0.1 lladdr 02:00:00:00:00:01 dev cali1 nud reachable");
        assert!(tells(&mut watch, Subject::Neighbours, PATIENCE).await, "{known}");
        settle(&mut netlink, &desired).await;
        contains(&machine.ip("neigh show dev cali1"), "192.168.0.1 lladdr 02:00:00:00:00:01 PERMANENT");
        watch = netlink.watch(&desired.ownership).await.unwrap();
        watch.learn(&netlink.read(&desired.ownership).await.unwrap());
    }
}

#[tokio::test]
async fn a_link_that_came_while_more_changed_than_could_be_told_is_watched_like_others() {
    let machine = machine();
    let mut driver = Driver::start(machine.connect(), 64 << 10).await;
    driver.settle_within(Duration::from_secs(5)).await;
    strays(&machine, &driver.desired).await;
    machine.ip("link del cali1");
    machine.ip("link add cali1 type veth peer name far1");
    machine.ip("link set far1 up");
    machine.ip("link set cali1 up");
    driver.settle_within(Duration::from_secs(5)).await;
    assert!(driver.watch.overruns() > 0);
    for drift in [
        "neigh replace 192.168.0.1 lladdr 02:00:00:00:00:07 dev cali1 nud permanent",
        "neigh replace 192.168.0.1 lladdr 02:00:00:00:00:01 dev cali1 nud reachable",
    ] {
        machine.ip(drift);
        driver.settle_within(Duration::from_secs(5)).await;
    }
    // Until the kernel is read, nobody knows whose the link is.
    strays(&machine, &driver.desired).await;
    machine.ip("link del cali1");
    machine.ip("link add cali1 type veth peer name far1");
    machine.ip("link set cali1 up");
    while driver.watch.next().await.unwrap() != Event::Overrun {}
    while driver.watch.already().unwrap().is_some() {}
    machine.run("sysctl -qw net.ipv4.conf.cali1.proxy_arp=1");
    assert!(tells(&mut driver.watch, Subject::Settings, PATIENCE).await);
    machine.ip("neigh replace 192.168.0.1 lladdr 02:00:00:00:00:07 dev cali1 nud permanent");
    assert!(tells(&mut driver.watch, Subject::Neighbours, PATIENCE).await);
}

/// The kernel does not tell of the IPv4 routes that go with a next hop object.
#[tokio::test]
async fn a_route_that_goes_with_its_next_hop_object_is_told_of() {
    let machine = machine();
    let mut learned = LearnedRoutes::new();
    crate::cluster::learn(&mut learned, "10.50.0.0/16", &["10.1.0.1"]);
    machine.ip("nexthop add id 7 via 172.16.6.9 dev eth0");
    machine.ip("route add 10.1.0.0/16 nhid 7");
    machine.ip("route del default");
    let desired = compute(&three_nodes(), &node_name("node1"), &learned);
    let mut netlink = machine.connect();
    let mut watch = netlink.watch(&desired.ownership).await.unwrap();
    settle(&mut netlink, &desired).await;
    contains(&machine.ip("route show"), "10.50.0.0/16 via 172.16.6.9 dev eth0");
    while watch.already().unwrap().is_some() {}
    machine.ip("nexthop del id 7");
    assert!(!machine.ip("route show").contains("10.1.0.0/16"));
    assert!(tells(&mut watch, Subject::Routes, PATIENCE).await);
    settle(&mut netlink, &desired).await;
    assert!(!machine.ip("route show").contains("10.50.0.0/16"));
}
