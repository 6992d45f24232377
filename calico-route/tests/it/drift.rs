//! A node's loop, and somebody who changes what it laid.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use calico_model::learned::LearnedRoutes;
use calico_route::netlink::{Netlink, Watch};
use calico_route::reconcile::{End, Next, Settings};
use calico_route::{Change, Desired, Reconciler, Waiting, compute, plan};

use crate::cluster::{node_name, three_nodes};
use crate::namespace::{TestNamespace, machine};

#[expect(clippy::disallowed_methods, reason = "a driver of the loop")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

/// What an agent does, for one desired state.
pub(crate) struct Driver {
    netlink: Netlink,
    pub(crate) watch: Watch,
    reconciler: Reconciler,
    pub(crate) desired: Desired,
    pub(crate) passes: u32,
}

impl Driver {
    pub(crate) async fn start(mut netlink: Netlink, receive_buffer: usize) -> Self {
        let desired = compute(&three_nodes(), &node_name("node1"), &LearnedRoutes::new());
        let watch = netlink.watch_with(&desired.ownership, receive_buffer).await.unwrap();
        // As where the workload's interface has been there for long.
        let mut settings = Settings::default();
        settings.grace = Duration::ZERO;
        let mut reconciler = Reconciler::new(settings);
        reconciler.in_sync(clock());
        Self { netlink, watch, reconciler, desired, passes: 0 }
    }

    async fn pass(&mut self) {
        let actual = self.netlink.read(&self.desired.ownership).await.unwrap();
        self.watch.learn(&actual);
        let plan = plan(&self.desired, &actual);
        let changes = self.reconciler.admit(&plan, &actual.host, &self.desired.ownership, clock());
        let outcomes = self.netlink.apply(&changes).await;
        let end =
            if outcomes.iter().all(|outcome| outcome.result.is_ok()) { End::Clean } else { End::Failed };
        self.netlink.apply(&plan.tries).await;
        self.reconciler.finished(end, clock());
        self.passes += 1;
    }

    /// Runs until an instant has come.
    pub(crate) async fn run_until(&mut self, end: Instant) {
        while clock() < end {
            if self.watch.already().unwrap().is_some() {
                self.reconciler.kernel_changed(clock());
            }
            let until = match self.reconciler.next(clock()) {
                Next::Pass => {
                    self.pass().await;
                    continue;
                }
                Next::Wait(until) => until.min(end),
                Next::Idle => end,
            };
            if let Ok(event) =
                tokio::time::timeout(until.saturating_duration_since(clock()), self.watch.next()).await
            {
                event.unwrap();
                self.reconciler.kernel_changed(clock());
            }
        }
    }

    /// Runs until nothing is left to do, and fails when that takes longer than `limit`.
    pub(crate) async fn settle_within(&mut self, limit: Duration) {
        let end = clock() + limit;
        loop {
            self.run_until(clock() + Duration::from_millis(200)).await;
            let left = plan(&self.desired, &self.netlink.read(&self.desired.ownership).await.unwrap());
            let hidden = |waiting: &Waiting| matches!(waiting, Waiting::Shadowed { .. });
            if left.changes.is_empty() && left.waiting.iter().all(hidden) {
                return;
            }
            let left: Vec<_> = left.changes.iter().take(5).map(Change::to_string).collect();
            assert!(clock() < end, "not repaired: {left:?}");
        }
    }
}

/// What somebody may do to what we laid, and the kernel tells of: delete it, change it, replace it, add to it.
const DRIFTS: [&str; 35] = [
    "ip route del 192.168.1.0/26 metric 1024",
    "ip route replace 192.168.1.0/26 via 172.16.6.77 metric 1024 proto 80",
    "ip route replace 192.168.2.0/26 via 172.16.6.77 metric 1024 proto 80",
    "ip route del blackhole 192.168.0.0/26 metric 1024",
    "ip route flush proto 80",
    "ip route replace 192.168.0.1/32 dev eth0 metric 1024 proto 80",
    "ip route append 192.168.1.0/26 via 172.16.6.77 metric 1024 proto 80",
    "ip route append unreachable 192.168.1.0/26 metric 1024 proto 80",
    "ip route append 192.168.1.0/26 via 172.16.6.2 metric 1024 proto 80 src 172.16.6.1",
    "ip route prepend 192.168.1.0/26 via 172.16.6.2 dev eth0 metric 1024 proto 80 onlink",
    "ip route append 192.168.0.9 dev cali1 src 172.16.6.1",
    "ip route add 192.168.1.0/26 via 172.16.6.77 metric 5 proto 80",
    "ip route add 192.168.9.0/26 dev vxlan.calico",
    "ip link del vxlan.calico",
    "ip link set vxlan.calico down",
    "ip link set vxlan.calico mtu 1300",
    "ip link set vxlan.calico address 02:00:00:00:00:07",
    "ip address flush dev vxlan.calico",
    "ip address add 10.1.2.3/32 dev vxlan.calico",
    "ip neigh flush dev vxlan.calico nud permanent",
    "ip neigh replace 192.168.2.0 lladdr 02:00:00:00:00:07 dev vxlan.calico nud permanent",
    "ip neigh replace 192.168.2.9 lladdr 02:00:00:00:00:07 dev vxlan.calico nud permanent",
    "ip neigh replace 192.168.0.1 lladdr 02:00:00:00:00:01 dev cali1 nud reachable",
    "ip neigh replace 192.168.0.1 lladdr 02:00:00:00:00:07 dev cali1 nud permanent",
    "ip route add 192.168.1.0/26 tos 8 via 172.16.6.77 metric 1024 proto 80",
    "bridge fdb append 02:00:00:00:00:07 dev vxlan.calico dst 172.16.6.9 self permanent",
    "bridge fdb append 02:00:00:00:00:08 dev vxlan.calico dst 172.16.6.9 port 9999 self permanent",
    "bridge fdb append 02:00:00:00:00:09 dev vxlan.calico dst 172.16.6.9 vni 77 self permanent",
    "bridge fdb del 66:a4:6f:e0:c4:da dev vxlan.calico dst 172.16.199.3 self",
    "bridge fdb replace 66:a4:6f:e0:c4:da dev vxlan.calico dst 172.16.6.99 self permanent",
    "ip neigh replace 192.168.2.0 dev vxlan.calico nud stale",
    "bridge fdb replace 66:a4:6f:e0:c4:da dev vxlan.calico dst 172.16.199.3 port 9999 self permanent",
    "sysctl -qw net.ipv4.conf.cali1.proxy_arp=0",
    "sysctl -qw net.ipv4.conf.cali1.rp_filter=0",
    "sysctl -qw net.ipv4.ip_forward=0",
];

/// Changes a node's kernel in bursts, drawn by `seed`, for as long as `budget`. Fails when a burst is not repaired within
/// five seconds or something of others' is not as it was. Returns how many changes were made.
pub(crate) async fn storm(seed: u64, budget: Duration) -> usize {
    println!("drift with seed {seed} for {budget:?}");
    let machine = machine();
    machine.ip("route add 10.200.0.0/16 via 172.16.6.254 proto static");
    machine.ip("route add 192.168.1.0/26 via 172.16.6.254 metric 7 proto static");
    machine.ip("route add 192.168.0.9 via 172.16.6.9");
    machine.ip("neigh add 172.16.6.99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent");
    let mut driver = Driver::start(machine.connect(), 16 << 20).await;
    driver.settle_within(Duration::from_secs(5)).await;
    let before = foreign(&machine);
    let mut draw = seed;
    let mut next = |below: usize| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(draw >> 33).unwrap() % below
    };
    let end = clock() + budget;
    let mut made = 0;
    while clock() < end {
        for _ in 0..=next(6) {
            // What is gone cannot be drifted further; the next one may.
            let drifted = machine.command(DRIFTS[next(DRIFTS.len())]).output().unwrap();
            made += usize::from(drifted.status.success());
        }
        driver.settle_within(Duration::from_secs(5)).await;
        assert_eq!(foreign(&machine), before);
    }
    made
}

/// What belongs to others.
fn foreign(machine: &TestNamespace) -> BTreeSet<String> {
    let routes = machine.ip("route show");
    let neighbours = machine.ip("neigh show dev eth0 nud permanent");
    let lines = routes.lines().chain(neighbours.lines()).filter(|line| !line.contains("proto 80"));
    lines.map(|line| line.trim().to_owned()).collect()
}
