//! How fast routes get into a kernel and out of it, as ratios to what `ip` needs for the same in the same run.
//!
//! `cargo bench -p calico-route --features netlink` as root.
#![expect(clippy::disallowed_methods, reason = "a bench looks at the clock")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use calico_model::learned::{LearnedRoute, LearnedRoutes};
use calico_model::resource::block::StoredBlock;
use calico_model::resource::{EncapMode, IpPool, Node, NodeBgp, Object};
use calico_model::{Cidr, NodeName, Snapshot, Update};
use calico_route::netlink::Netlink;
use calico_route::{Change, Desired, compute, diff};

#[path = "../tests/it/namespace.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod namespace;
use namespace::TestNamespace;

const ROUTES: u32 = 100_000;
const GATEWAYS: [&str; 4] = ["172.16.6.2", "172.16.6.3", "172.16.6.4", "172.16.6.5"];

fn machine() -> TestNamespace {
    let namespace = TestNamespace::new();
    namespace.ip("link add eth0 type veth peer name far0");
    namespace.ip("address add 172.16.6.1/24 dev eth0");
    namespace.ip("link set far0 up");
    namespace.ip("link set eth0 up");
    namespace
}

fn prefix(number: u32) -> Cidr {
    Cidr::holding(std::net::Ipv4Addr::from((10 << 24) + (number << 6)).into(), 26).unwrap()
}

fn node() -> NodeName {
    "node1".parse().unwrap()
}

fn wanted() -> Desired {
    let mut snapshot = Snapshot::default();
    let bgp = Some(NodeBgp::at("172.16.6.1/24".parse().unwrap()));
    snapshot.insert(Object::new("node1".parse().unwrap(), Node { bgp, ..Node::new() }));
    let learned: LearnedRoutes = (0..ROUTES)
        .map(|number| {
            let hop = GATEWAYS[number as usize % GATEWAYS.len()].parse().unwrap();
            (prefix(number), LearnedRoute { next_hops: [hop].into(), priority: None })
        })
        .collect();
    compute(&snapshot, &node(), &learned)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn rate(count: u32, took: Duration) -> f64 {
    f64::from(count) / took.as_secs_f64()
}

fn line(what: &str, number: f64, unit: &str) {
    println!("{what:<62} {number:>10.1} {unit}");
}

fn ip_batch() -> Duration {
    let machine = machine();
    let mut commands = String::new();
    for number in 0..ROUTES {
        let gateway = GATEWAYS[number as usize % GATEWAYS.len()];
        writeln!(commands, "route add {} via {gateway} dev eth0 proto 80 metric 1024", prefix(number))
            .unwrap();
    }
    let file = std::env::temp_dir().join(format!("calico-route-bench-{}", std::process::id()));
    std::fs::write(&file, commands).unwrap();
    let (_, took) = timed(|| machine.ip(&format!("-batch {}", file.display())));
    std::fs::remove_file(&file).unwrap();
    took
}

fn ip_show(machine: &TestNamespace) -> Duration {
    let show = || machine.command("ip route show").stdout(Stdio::null()).status().unwrap();
    let nothing = || machine.command("true").status().unwrap();
    let (_, start_up) = timed(nothing);
    (0..5).map(|_| timed(show).1.saturating_sub(start_up)).min().unwrap()
}

async fn apply(netlink: &mut Netlink, changes: &[Change]) {
    for outcome in netlink.apply(changes).await {
        outcome.result.unwrap();
    }
}

fn cluster(nodes: u32) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let pool = IpPool { vxlan_mode: EncapMode::CrossSubnet, ..IpPool::new("10.0.0.0/8".parse().unwrap()) };
    snapshot.insert(Object::new("pool".parse().unwrap(), pool));
    for number in 1..=nodes {
        let [_, _, high, low] = number.to_be_bytes();
        let cidr = prefix(number);
        let node = Node {
            bgp: Some(NodeBgp::at(format!("172.16.{high}.{low}/24").parse().unwrap())),
            ipv4_vxlan_tunnel_addr: cidr.addr().to_string().parse().ok(),
            ..Node::new()
        };
        snapshot.insert(Object::new(format!("node{number}").parse().unwrap(), node));
        let stored: StoredBlock = serde_json::from_value(serde_json::json!({
            "cidr": cidr, "affinity": format!("host:node{number}"),
            "allocations": vec![None::<u8>; 64], "unallocated": (0..64).collect::<Vec<_>>(), "attributes": [],
        }))
        .unwrap();
        snapshot.apply(Update::PutBlock(Box::new(stored)));
    }
    snapshot
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let desired = wanted();
    let batch = ip_batch();
    let machine = machine();
    let mut netlink = machine.connect();
    let (actual, _) = (netlink.read(&desired.ownership).await.unwrap(), ());
    let (changes, differ) = timed(|| diff(&desired, &actual));
    let sysctls = changes.iter().filter(|change| matches!(change, Change::SetSysctl { .. })).count();
    assert_eq!(changes.len() - sysctls, ROUTES as usize);

    let start = Instant::now();
    apply(&mut netlink, &changes).await;
    let ours = start.elapsed();
    line("ip -batch, prepared file", rate(ROUTES, batch), "routes/s");
    line("apply", rate(ROUTES, ours), "routes/s");
    line("  ratio to ip -batch (at least 0.9)", rate(ROUTES, ours) / rate(ROUTES, batch), "x");

    let mut reads = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let actual = netlink.read(&desired.ownership).await.unwrap();
        let read = start.elapsed();
        assert!(diff(&desired, &actual).is_empty());
        reads.push((start.elapsed(), read));
    }
    let (whole, read) = *reads.iter().min().unwrap();
    let show = ip_show(&machine);
    line("ip route show into /dev/null", show.as_secs_f64() * 1e3, "ms");
    line("read and diff with nothing to do", whole.as_secs_f64() * 1e3, "ms");
    line("  of which read", read.as_secs_f64() * 1e3, "ms");
    line("  ratio to ip route show (at most 1.5)", whole.as_secs_f64() / show.as_secs_f64(), "x");
    line("diff with everything to do", differ.as_secs_f64() * 1e3, "ms");

    let mut singles: Vec<Duration> = Vec::new();
    for change in changes.iter().filter(|change| matches!(change, Change::AddRoute { .. })).take(10_000) {
        let Change::AddRoute { key, form } = change else { continue };
        let again = [Change::ReplaceRoute { key: *key, form: form.clone() }];
        let start = Instant::now();
        apply(&mut netlink, &again).await;
        singles.push(start.elapsed());
    }
    singles.sort();
    let alone: Duration = singles.iter().sum();
    line(
        "one change, one answer: median (at most 100)",
        singles[singles.len() / 2].as_secs_f64() * 1e6,
        "us",
    );
    let single_rate = rate(10_000, alone);
    line("  batch against one by one (at least 5)", rate(ROUTES, ours) / single_rate, "x");

    for nodes in [1_000, 5_000, 50_000] {
        let snapshot = cluster(nodes);
        let (desired, took) = timed(|| compute(&snapshot, &node(), &LearnedRoutes::new()));
        assert!(desired.routes.len() >= nodes as usize);
        line(&format!("compute, {nodes} nodes with a block each"), took.as_secs_f64() * 1e3, "ms");
    }
}
