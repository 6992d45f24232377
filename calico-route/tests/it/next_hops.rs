//! Next hops over routes that BGP learned: which way they lead, and that what leads over a route follows it.

use std::collections::BTreeSet;
use std::sync::Arc;

use calico_model::learned::{LearnedRoute, LearnedRoutes};
use calico_model::resource::{EncapMode, FelixConfiguration, Object, ProgramClusterRoutes};
use calico_model::{Cidr, Snapshot, Update};
use calico_route::actual::LinkState;
use calico_route::encap::Source;
use calico_route::fake::FakeKernel;
use calico_route::route::{Form, Gateway, Installed, Odd, RouteKey};
use calico_route::{
    Change, Computer, Delta, Distance, Ownership, Ways, compute, plan, plan_delta, plan_unlearned,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::cluster::{block, learn, node, node_name, pool};

/// The first of two nodes, each with a loopback address that is its own, in racks without encapsulation.
fn racks() -> Snapshot {
    let mut snapshot = Snapshot::default();
    pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, EncapMode::Never);
    node(&mut snapshot, "node1", "10.0.0.1/32", "192.168.0.0");
    node(&mut snapshot, "node2", "10.0.0.2/32", "192.168.1.0");
    block(&mut snapshot, "192.168.0.0/26", "node1");
    block(&mut snapshot, "192.168.1.0/26", "node2");
    snapshot
}

/// Its machine: on the links of two switches.
fn machine() -> FakeKernel {
    let mut kernel = FakeKernel::default();
    let links = [("lo", "10.0.0.1/32"), ("eth0", "172.16.1.1/24"), ("eth1", "172.16.2.1/24")];
    for (device, address) in links {
        kernel.add_link(&device.parse().unwrap(), &[address.parse().unwrap()]);
    }
    kernel
}

/// Gives the machine a route of others.
fn give(kernel: &mut FakeKernel, prefix: &str, metric: u32, form: Form) {
    let key = RouteKey::main(prefix.parse().unwrap(), metric);
    kernel.routes.insert(key, vec![Installed { protocol: 4, form }]);
}

fn via(address: &str, device: &str) -> Form {
    let gateway =
        Gateway { address: address.parse().unwrap(), device: device.parse().unwrap(), onlink: false };
    Form::Gateways([gateway].into())
}

fn learned(routes: &[(&str, &[&str])]) -> LearnedRoutes {
    let mut learned = LearnedRoutes::new();
    routes.iter().for_each(|(prefix, hops)| learn(&mut learned, prefix, hops));
    learned
}

/// Where the other node's block leads to, or why nowhere.
fn way(kernel: &FakeKernel, learned: &LearnedRoutes) -> String {
    let desired = compute(&racks(), &node_name("node1"), learned);
    let planned = plan(&desired, &kernel.read(&desired.ownership));
    let to_block = |change: &Change| {
        let Change::AddRoute { key, form } = change else { return None };
        (key.prefix == "192.168.1.0/26".parse().unwrap()).then(|| form.to_string())
    };
    let waiting = || planned.waiting.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    planned.changes.iter().find_map(to_block).unwrap_or_else(waiting)
}

const BLOCK: (&str, &[&str]) = ("192.168.1.0/26", &["10.0.0.2"]);
const BY_BOTH: &str = "multipath nexthop via 172.16.1.254 dev eth0 nexthop via 172.16.2.254 dev eth1";
const SWITCHES: &[&str] = &["172.16.1.254", "172.16.2.254"];

#[test]
fn a_block_leads_over_the_route_that_both_switches_announce_to_its_node() {
    let nowhere = "the machine has no route to the next hop 10.0.0.2";
    assert!(way(&machine(), &learned(&[BLOCK])).starts_with(nowhere));
    for announced in ["10.0.0.2/32", "10.0.0.0/24", "0.0.0.0/0"] {
        assert_eq!(way(&machine(), &learned(&[BLOCK, (announced, SWITCHES)])), BY_BOTH, "{announced}");
        let by_one = learned(&[BLOCK, (announced, &SWITCHES[1..])]);
        assert_eq!(way(&machine(), &by_one), "via 172.16.2.254 dev eth1", "{announced}");
    }
}

#[test]
fn the_longest_prefix_decides_and_then_the_lowest_metric_whoever_told_of_it() {
    let managed = |prefix: &str, metric| {
        let mut kernel = machine();
        kernel.add_link(&"mgmt".parse().unwrap(), &["198.51.100.9/24".parse().unwrap()]);
        give(&mut kernel, prefix, metric, via("198.51.100.1", "mgmt"));
        kernel
    };
    let by_management = "via 198.51.100.1 dev mgmt";
    let loopback = learned(&[BLOCK, ("10.0.0.2/32", SWITCHES)]);
    assert_eq!(way(&managed("0.0.0.0/0", 0), &loopback), BY_BOTH);
    assert_eq!(way(&managed("10.0.0.2/32", 0), &loopback), by_management);
    let mut default = learned(&[BLOCK, ("0.0.0.0/0", SWITCHES)]);
    assert_eq!(way(&managed("0.0.0.0/0", 100), &default), by_management);
    assert_eq!(way(&managed("0.0.0.0/0", 1024), &default), by_management, "ours cannot be written beside it");
    assert_eq!(way(&managed("0.0.0.0/0", 2000), &default), BY_BOTH);
    default.get_mut(&"0.0.0.0/0".parse().unwrap()).unwrap().priority = Some(50);
    assert_eq!(way(&managed("0.0.0.0/0", 100), &default), BY_BOTH);
    let mut dropping = machine();
    give(&mut dropping, "10.0.0.0/24", 0, Form::Blackhole);
    assert!(way(&dropping, &default).contains("no route to the next hop"), "the kernel would drop it");
    assert_eq!(way(&dropping, &loopback), BY_BOTH);
}

#[test]
fn a_learned_route_leads_one_step_and_never_over_itself() {
    let unreachable = "the machine has no route to the next hop 10.0.0.2; add one, or let the pool use VXLAN between subnets";
    // Over the other node's own word for where it is, and round in a circle.
    for routes in [
        &[BLOCK, ("10.0.0.2/32", &["10.0.0.2"])][..],
        &[BLOCK, ("10.0.0.2/32", &["10.0.0.3"]), ("10.0.0.3/32", &["10.0.0.2"])],
        &[BLOCK, ("10.0.0.2/32", &["10.1.0.1"]), ("10.1.0.0/16", &["10.2.0.1"])],
    ] {
        assert!(way(&machine(), &learned(routes)).contains(unreachable), "{routes:?}");
    }
    // Two steps are one too many; what they do not lead to, a wider route may.
    let far = ("10.0.0.2/32", &["10.1.0.1"][..]);
    let two = [BLOCK, far, ("10.1.0.0/16", SWITCHES)];
    assert!(way(&machine(), &learned(&two)).contains(unreachable));
    assert_eq!(way(&machine(), &learned(&[BLOCK, far, ("0.0.0.0/0", SWITCHES)])), BY_BOTH);
    let own = [BLOCK, ("10.0.0.2/32", &["10.0.0.2"][..]), ("10.0.0.0/24", SWITCHES)];
    assert_eq!(way(&machine(), &learned(&own)), BY_BOTH);
    // Nor does what a node says of itself lead by the network that manages it while there is a better way.
    let mut managed = machine();
    give(&mut managed, "0.0.0.0/0", 0, via("172.16.1.1", "eth0"));
    assert_eq!(way(&managed, &learned(&own)), BY_BOTH);
    assert_eq!(way(&managed, &learned(&own[..2])), "via 172.16.1.1 dev eth0");
    // Of several gateways those count that can be reached.
    let partly = [BLOCK, ("10.0.0.2/32", &["10.1.0.1", "172.16.2.254"][..])];
    assert_eq!(way(&machine(), &learned(&partly)), "via 172.16.2.254 dev eth1");
}

#[test]
fn how_far_away_an_address_is_the_machines_own_routes_tell_and_no_route_of_ours() {
    let mut kernel = machine();
    give(&mut kernel, "10.0.0.0/8", 0, via("172.16.1.254", "eth0"));
    give(&mut kernel, "10.1.0.0/16", 0, Form::Blackhole);
    give(&mut kernel, "10.1.2.0/24", 5, Form::Device("eth1".parse().unwrap()));
    give(&mut kernel, "10.1.2.0/24", 6, via("172.16.1.254", "eth0"));
    kernel.add_link(&"eth2".parse().unwrap(), &["172.16.3.1/24".parse().unwrap()]);
    kernel.set_link(&"eth2".parse().unwrap(), LinkState::Down);
    let ours = RouteKey::main("10.9.0.0/16".parse().unwrap(), 1024);
    let learned = Installed { protocol: 80, form: Form::Device("eth1".parse().unwrap()) };
    kernel.routes.insert(ours, vec![learned]);
    let ways = Ways::of(&kernel.read(&Ownership::default()).host);
    let (on_link, behind) = (Some(Distance::OnLink), Some(Distance::BehindGateway));
    let to = |ways: &Ways, address: &str| ways.to(address.parse().unwrap());
    for (address, distance) in [
        ("172.16.1.7", on_link),
        ("10.0.0.1", on_link),
        ("10.0.0.2", behind),
        ("10.9.0.1", behind),
        ("10.1.0.1", None),
        ("10.1.2.3", on_link),
        ("172.16.3.7", None),
        ("192.168.0.7", None),
        ("2001:db8::1", None),
    ] {
        assert_eq!(to(&ways, address), distance, "{address}");
    }
    let gateways = [("10.0.0.2", "192.168.0.7"), ("10.0.0.3", "10.1.0.1")];
    let gateways = gateways.map(|(peer, gateway)| (peer.parse().unwrap(), gateway.parse().unwrap()));
    let more = ways.clone().with(["192.168.0.0/26".parse().unwrap()], gateways.into());
    for (address, distance) in
        [("192.168.0.7", on_link), ("192.168.1.7", None), ("10.0.0.2", behind), ("10.0.0.3", None)]
    {
        assert_eq!(to(&more, address), distance, "{address}");
    }
    // Interfaces of workloads come and go, and their routes are ours.
    kernel.add_link(&"cali1".parse().unwrap(), &["fe80::7/64".parse().unwrap()]);
    let before = Ways::of(&kernel.read(&Ownership::default()).host);
    kernel.add_link(&"cali2".parse().unwrap(), &["fe80::8/64".parse().unwrap()]);
    assert_eq!(Ways::of(&kernel.read(&Ownership::default()).host), before);
}

/// What a process that follows changes would do, which must be what one does that looks at everything.
struct Follower {
    computer: Computer,
    kernel: FakeKernel,
}

impl Follower {
    fn new(snapshot: &Snapshot, kernel: FakeKernel) -> Self {
        let mut computer = Computer::new(node_name("node1"));
        let put = |resource| Update::Put(Box::new(resource));
        let nodes = snapshot.nodes.values().map(|one| put(one.as_ref().clone().into()));
        let pools = snapshot.pools.values().map(|one| put(one.as_ref().clone().into()));
        let settings = snapshot.felix_configurations.values().map(|one| put(one.as_ref().clone().into()));
        let blocks = snapshot.blocks.values().map(|one| Update::PutBlock(Box::new(one.clone())));
        nodes.chain(pools).chain(settings).chain(blocks).for_each(|update| computer.apply(&update));
        computer.settle();
        Self { computer, kernel }
    }

    /// Begins with a kernel that holds what is wanted.
    fn laid(mut self) -> Self {
        let desired = self.computer.desired();
        let changes = plan(desired, &self.kernel.read(&desired.ownership)).changes;
        assert!(self.kernel.apply(&changes).iter().all(Result::is_ok), "{changes:#?}");
        self
    }

    fn learn(&mut self, routes: &[(&str, &[&str])]) -> (Delta, Vec<String>) {
        self.hear(learned(routes))
    }

    fn hear(&mut self, learned: LearnedRoutes) -> (Delta, Vec<String>) {
        let desired = self.computer.desired();
        let waited = plan(desired, &self.kernel.read(&desired.ownership)).waiting;
        self.computer.learn(Arc::new(learned));
        let delta = self.computer.settle();
        let desired = self.computer.desired();
        let actual = self.kernel.read(&desired.ownership);
        let (mut short, whole) = (plan_delta(desired, &actual, &delta, &waited), plan(desired, &actual));
        // Where the node waits for something else everything is looked at.
        if short.waiting.node != waited.node {
            short = whole.clone();
        }
        assert_eq!(short, whole);
        assert!(self.kernel.apply(&short.changes).iter().all(Result::is_ok), "{:#?}", short.changes);
        assert_eq!(plan(desired, &self.kernel.read(&desired.ownership)).changes, []);
        (delta, short.changes.iter().map(ToString::to_string).collect())
    }
}

#[test]
fn what_leads_over_a_route_follows_it_and_what_does_not_costs_nothing() {
    let mut follower = Follower::new(&racks(), machine()).laid();
    follower.learn(&[BLOCK, ("10.0.0.2/32", SWITCHES)]);
    let (_, changes) = follower.learn(&[BLOCK, ("10.0.0.2/32", &SWITCHES[1..])]);
    let by = "via 172.16.2.254 dev eth1";
    assert_eq!(
        changes,
        [
            format!("route replace 10.0.0.2/32 metric 1024 {by}"),
            format!("route replace 192.168.1.0/26 metric 1024 {by}")
        ]
    );
    let (delta, changes) =
        follower.learn(&[BLOCK, ("10.0.0.2/32", &SWITCHES[1..]), ("10.9.0.0/16", &SWITCHES[1..])]);
    assert!(!delta.everything, "no next hop is in there");
    assert_eq!(changes, [format!("route add 10.9.0.0/16 metric 1024 {by}")]);
    let (_, changes) = follower.learn(&[BLOCK, ("10.9.0.0/16", &SWITCHES[1..])]);
    assert_eq!(changes.len(), 2, "both are removed: {changes:?}");
}

/// The blocks that the datastore tells of lead over learned routes too. While a restarted agent has yet to hear what BGP
/// learned, they stay as they are.
#[test]
fn a_restart_leaves_the_blocks_where_they_lead_until_it_is_known_what_was_learned() {
    let mut snapshot = racks();
    let settings = FelixConfiguration {
        program_cluster_routes: Some(ProgramClusterRoutes::Enabled),
        ..FelixConfiguration::new()
    };
    snapshot.insert(Object::new("default".parse().unwrap(), settings));
    let mut kernel = machine();
    kernel.add_link(&"mgmt".parse().unwrap(), &["198.51.100.9/24".parse().unwrap()]);
    give(&mut kernel, "0.0.0.0/0", 0, via("198.51.100.1", "mgmt"));
    let mut follower = Follower::new(&snapshot, kernel).laid();
    let announced = [("10.0.0.2/32", SWITCHES)];
    let (_, changes) = follower.learn(&announced);
    assert!(changes.contains(&format!("route replace 192.168.1.0/26 metric 1024 {BY_BOTH}")), "{changes:?}");

    let mut restarted = Follower::new(&snapshot, follower.kernel);
    let desired = restarted.computer.desired();
    let actual = restarted.kernel.read(&desired.ownership);
    let may_be_learned = |to: &Cidr| restarted.computer.sources()(to) != Some(Source::Datastore);
    let plan = plan_unlearned(desired, &actual, &may_be_learned);
    let text: Vec<_> = plan.changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [format!("route del 10.0.0.2/32 metric 1024 {BY_BOTH}")],
        "which the agent leaves alone"
    );
    assert!(plan.waiting.is_empty(), "{:?}", plan.waiting);
    let (_, changes) = restarted.learn(&announced);
    assert_eq!(changes, [] as [&str; 0]);
}

/// Whatever others' routes may be.
fn forms() -> impl Strategy<Value = Form> {
    let odd = |device: Option<&str>| {
        let device = device.map(|device| device.parse().unwrap());
        Form::Other(Odd { what: "something odd".to_owned(), device, ..Odd::default() })
    };
    let device = |device: &str| Form::Device(device.parse().unwrap());
    let straight = [device("eth0"), device("eth2"), device("eth9")];
    let odd = [odd(None), odd(Some("eth0")), odd(Some("eth2"))];
    let others = [via("172.16.1.1", "eth0"), Form::Blackhole];
    select(straight.into_iter().chain(odd).chain(others).collect::<Vec<_>>())
}

fn any_learned() -> impl Strategy<Value = LearnedRoutes> {
    let to =
        vec!["192.168.1.0/26", "192.168.2.0/26", "10.0.0.2/32", "10.0.0.0/30", "10.0.0.0/24", "0.0.0.0/0"];
    let hops = vec!["10.0.0.2", "10.0.0.3", "10.1.0.1", SWITCHES[0], SWITCHES[1]];
    let route = (proptest::collection::btree_set(select(hops), 1..3), proptest::option::of(7..9u32));
    proptest::collection::btree_map(select(to), route, 0..6).prop_map(|routes| {
        let read = |(prefix, (hops, priority)): (&str, (BTreeSet<&str>, _))| {
            let next_hops = hops.iter().map(|hop| hop.parse().unwrap()).collect();
            (prefix.parse().unwrap(), LearnedRoute { next_hops, priority })
        };
        routes.into_iter().map(read).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_learned_bit_by_bit_ends_in_the_kernel_of_what_is_learned_at_once(
        steps in proptest::collection::vec(any_learned(), 1..8),
        managed in proptest::option::of((select(vec!["0.0.0.0/0", "10.0.0.0/24", "10.1.0.0/16"]), 0..9u32, forms())),
    ) {
        let mut snapshot = racks();
        block(&mut snapshot, "192.168.2.0/26", "node3");
        let mut kernel = machine();
        kernel.add_link(&"eth2".parse().unwrap(), &[]);
        kernel.set_link(&"eth2".parse().unwrap(), LinkState::Down);
        if let Some((prefix, metric, form)) = managed {
            give(&mut kernel, prefix, metric, form);
        }
        let ways = Ways::of(&kernel.read(&Ownership::default()).host);
        for hop in ["10.0.0.2", "10.0.0.3", "10.1.0.1", SWITCHES[0]] {
            let is_led = way(&kernel, &learned(&[(BLOCK.0, &[hop])])).starts_with("via");
            prop_assert_eq!(ways.to(hop.parse().unwrap()).is_some(), is_led, "{}", hop);
        }
        let mut follower = Follower::new(&snapshot, kernel.clone()).laid();
        let last = steps.last().cloned().unwrap();
        steps.into_iter().for_each(|step| drop(follower.hear(step)));
        let desired = compute(&snapshot, &node_name("node1"), &last);
        let changes = plan(&desired, &kernel.read(&desired.ownership)).changes;
        prop_assert!(kernel.apply(&changes).iter().all(Result::is_ok));
        prop_assert_eq!(&follower.kernel, &kernel);
    }
}

#[cfg(feature = "netlink")]
#[tokio::test]
async fn a_default_route_and_a_loopback_that_two_switches_announce_lead_to_what_is_behind_them() {
    use crate::kernel::{contains, settle};

    let machine = crate::namespace::TestNamespace::new();
    for (device, address) in
        [("eth0", "172.16.1.1/24"), ("eth1", "172.16.2.1/24"), ("mgmt", "198.51.100.9/24")]
    {
        machine.ip(&format!("link add {device} type veth peer name far-{device}"));
        machine.ip(&format!("address add {address} dev {device}"));
        machine.ip(&format!("link set far-{device} up"));
        machine.ip(&format!("link set {device} up"));
    }
    machine.ip("address add 10.0.0.1/32 dev lo");
    machine.ip("route add default via 198.51.100.1 metric 2000");
    let mut snapshot = racks();
    block(&mut snapshot, "192.168.2.0/26", "node3");
    let mut netlink = machine.connect();
    let third = ("192.168.2.0/26", &["10.0.0.3"][..]);
    let mut by = async |default: &[&str], loopback: &[&str], third_by: &[&str]| {
        let routes = learned(&[BLOCK, third, ("0.0.0.0/0", default), ("10.0.0.2/32", loopback)]);
        let desired = compute(&snapshot, &node_name("node1"), &routes);
        settle(&mut netlink, &desired).await;
        for (prefix, hops) in [("192.168.1.0/26", loopback), ("192.168.2.0/26", third_by)] {
            let shown = machine.ip(&format!("route show {prefix}"));
            let found: Vec<&str> = shown
                .split_whitespace()
                .skip_while(|word| *word != "via")
                .filter(|word| word.contains('.'))
                .collect();
            assert_eq!(found, hops, "{shown}");
        }
        let mut fresh = machine.connect();
        assert_eq!(plan(&desired, &fresh.read(&desired.ownership).await.unwrap()).changes, []);
    };
    by(SWITCHES, SWITCHES, SWITCHES).await;
    by(SWITCHES, &SWITCHES[1..], SWITCHES).await;
    by(&SWITCHES[..1], SWITCHES, &SWITCHES[..1]).await;
    // A default route of the network that manages the machine, before that of the switches: not before a loopback.
    machine.ip("route add default via 198.51.100.1 metric 100");
    by(SWITCHES, SWITCHES, &["198.51.100.1"]).await;
    contains(&machine.ip("route show default"), "default via 198.51.100.1 dev mgmt metric 100");
    machine.ip("route del default metric 100");
    by(SWITCHES, SWITCHES, SWITCHES).await;
}

/// Two lines to the outside without a gateway between them, as of a machine with two modems: the kernel finds no gateway over such
/// a route, and takes one that is said to be there.
#[cfg(feature = "netlink")]
#[tokio::test]
async fn what_is_beyond_a_route_over_several_devices_is_led_to_and_bgp_knows() {
    use crate::kernel::{contains, settle};

    let machine = crate::namespace::TestNamespace::new();
    for (device, address) in [("eth0", "172.16.1.1/24"), ("eth1", "172.16.2.1/24")] {
        machine.ip(&format!("link add {device} type veth peer name far-{device}"));
        machine.ip(&format!("address add {address} dev {device}"));
        machine.ip(&format!("link set far-{device} up"));
        machine.ip(&format!("link set {device} up"));
    }
    machine.ip("address add 10.0.0.1/32 dev lo");
    let mut netlink = machine.connect();
    let desired = compute(&racks(), &node_name("node1"), &learned(&[BLOCK]));
    for (route, expected) in [
        ("default nexthop dev eth0 nexthop dev eth1", "via 10.0.0.2 dev eth0 proto 80 metric 1024 onlink"),
        ("default dev eth1 scope global", "via 10.0.0.2 dev eth1 proto 80 metric 1024 onlink"),
        ("default dev eth1", "via 10.0.0.2 dev eth1 proto 80 metric 1024"),
    ] {
        machine.ip(&format!("route replace {route}"));
        settle(&mut netlink, &desired).await;
        contains(&machine.ip("route show"), &format!("192.168.1.0/26 {expected}"));
        let host = netlink.read(&desired.ownership).await.unwrap().host;
        assert_eq!(Ways::of(&host).to("10.0.0.2".parse().unwrap()), Some(Distance::OnLink), "{route}");
    }
}
