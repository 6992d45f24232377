//! How fast routes get into a kernel and out of it, as ratios to what `ip` needs for the same in the same run.
//!
//! `cargo bench -p calico-route --features netlink` as root.
#![expect(clippy::disallowed_methods, reason = "a bench looks at the clock")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::fmt::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calico_model::learned::{LearnedRoute, LearnedRoutes};
use calico_model::resource::block::StoredBlock;
use calico_model::resource::{EncapMode, IpPool, Node, NodeBgp, Object, WorkloadEndpoint};
use calico_model::{Cidr, NodeName, Snapshot, Update};
use calico_route::actual::Knowledge;
use calico_route::netlink::Netlink;
use calico_route::{Change, Computer, Desired, Waits, compute, diff, plan_delta};
use nix::sys::resource::{UsageWho, getrusage};

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

fn own() -> Node {
    Node { bgp: Some(NodeBgp::at("172.16.6.1/24".parse().unwrap())), ..Node::new() }
}

fn learned() -> LearnedRoutes {
    (0..ROUTES)
        .map(|number| {
            let hop = GATEWAYS[number as usize % GATEWAYS.len()].parse().unwrap();
            (prefix(number), LearnedRoute { next_hops: [hop].into(), priority: None })
        })
        .collect()
}

fn wanted() -> Desired {
    let mut snapshot = Snapshot::default();
    snapshot.insert(Object::new("node1".parse().unwrap(), own()));
    compute(&snapshot, &node(), &learned())
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

/// How long something took, and whose CPU time that was.
struct Took {
    wall: Duration,
    ours: Duration,
    kernel: Duration,
}

impl Took {
    async fn by(work: impl AsyncFnOnce()) -> Self {
        let cpu = || {
            let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
            let duration = |time: nix::sys::time::TimeVal| {
                Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap())
            };
            (duration(usage.user_time()), duration(usage.system_time()))
        };
        let (start, (ours, kernel)) = (Instant::now(), cpu());
        work().await;
        let (wall, (ours_after, kernel_after)) = (start.elapsed(), cpu());
        Self { wall, ours: ours_after - ours, kernel: kernel_after - kernel }
    }
}

impl Took {
    fn cpu(&self) -> Duration {
        self.ours + self.kernel
    }
}

fn per_route(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6 / f64::from(ROUTES)
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// The same changes, each sent and its answer awaited before the next.
async fn one_by_one(desired: &Desired, changes: &[Change]) -> Took {
    let machine = machine();
    let mut netlink = machine.connect();
    netlink.read(&desired.ownership).await.unwrap();
    Took::by(async || {
        for change in changes {
            apply(&mut netlink, std::slice::from_ref(change)).await;
        }
    })
    .await
}

/// From a change in the datastore to the kernel, on a node that has a hundred thousand routes.
async fn end_to_end(machine: &TestNamespace) {
    let mut computer = Computer::new(node());
    computer.learn(Arc::new(learned()));
    let put = |object: Object<Node>| Update::Put(Box::new(object.into()));
    computer.apply(&put(Object::new("node1".parse().unwrap(), own())));
    computer.settle();
    machine.ip("link add cali1 type veth peer name far1");
    machine.ip("link set far1 up");
    machine.ip("link set cali1 up");
    let mut netlink = machine.connect();
    let actual = netlink.read(&computer.desired().ownership).await.unwrap();
    apply(&mut netlink, &diff(computer.desired(), &actual)).await;
    let mut actual = netlink.read(&computer.desired().ownership).await.unwrap();
    let mut took: Vec<Duration> = Vec::new();
    for number in 0..1_000u32 {
        let addr = std::net::Ipv4Addr::from((172 << 24) + (30 << 16) + number);
        let mut workload = Object::new(
            format!("w{number}").parse().unwrap(),
            WorkloadEndpoint {
                interface_name: Some("cali1".parse().unwrap()),
                ip_networks: vec![Cidr::host(addr.into())],
                ..WorkloadEndpoint::on(node())
            },
        );
        workload.metadata.namespace = Some("default".parse().unwrap());
        let update = Update::Put(Box::new(workload.into()));
        let start = Instant::now();
        computer.apply(&update);
        let delta = computer.settle();
        let plan = plan_delta(computer.desired(), &actual, &delta, &Waits::default());
        apply(&mut netlink, &plan.changes).await;
        plan.changes.iter().for_each(|change| assert_eq!(actual.made(change), Knowledge::Kept));
        took.push(start.elapsed());
        assert_eq!(delta.routes.len(), 1);
    }
    took.sort();
    let median = took[took.len() / 2].as_secs_f64() * 1e6;
    line("a workload's route, from datastore to kernel: median (at most 100)", median, "us");
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

    let together = Took::by(async || apply(&mut netlink, &changes).await).await;
    let alone = one_by_one(&desired, &changes).await;
    line("ip -batch, prepared file", rate(ROUTES, batch), "routes/s");
    line("apply", rate(ROUTES, together.wall), "routes/s");
    line("  ratio to ip -batch (at least 0.9)", rate(ROUTES, together.wall) / rate(ROUTES, batch), "x");
    for (what, took) in [("apply, per route", &together), ("one request, one answer, per route", &alone)] {
        line(what, per_route(took.wall), "us");
        line("  of which the kernel's CPU", per_route(took.kernel), "us");
        line("  of which ours", per_route(took.ours), "us");
    }
    line("  batch against one by one, CPU time (at least 5)", ratio(alone.cpu(), together.cpu()), "x");
    line(
        "  the most that could be, were only the kernel's part paid",
        ratio(alone.cpu(), together.kernel),
        "x",
    );

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

    end_to_end(&machine).await;

    for nodes in [1_000, 5_000, 50_000] {
        let snapshot = cluster(nodes);
        let (desired, took) = timed(|| compute(&snapshot, &node(), &LearnedRoutes::new()));
        assert!(desired.routes.len() >= nodes as usize);
        let mut computer = Computer::new(node());
        snapshot
            .nodes
            .values()
            .for_each(|object| computer.apply(&Update::Put(Box::new(object.clone().into()))));
        snapshot
            .pools
            .values()
            .for_each(|object| computer.apply(&Update::Put(Box::new(object.clone().into()))));
        snapshot.blocks.values().for_each(|block| computer.apply(&Update::PutBlock(Box::new(block.clone()))));
        computer.settle();
        let newest = cluster(nodes + 1);
        let name = format!("node{}", nodes + 1);
        let node = newest.nodes.values().find(|node| node.metadata.name.as_str() == name).unwrap();
        let its = |block: &&StoredBlock| block.host().is_some_and(|host| host.as_str() == name);
        let block = newest.blocks.values().find(its).unwrap();
        let (delta, more) = timed(|| {
            computer.apply(&Update::Put(Box::new(node.clone().into())));
            computer.apply(&Update::PutBlock(Box::new(block.clone())));
            computer.settle()
        });
        assert!(!delta.everything && !delta.routes.is_empty());
        line(&format!("  one more of them ({} routes)", delta.routes.len()), more.as_secs_f64() * 1e3, "ms");
        line(&format!("compute, {nodes} nodes with a block each"), took.as_secs_f64() * 1e3, "ms");
    }
}
