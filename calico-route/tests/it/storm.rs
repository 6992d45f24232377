//! The whole loop against a kernel in which somebody else is at work.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use calico_model::learned::LearnedRoutes;
use calico_route::netlink::{Netlink, Watch};
use calico_route::reconcile::{End, Next, Settings};
use calico_route::route::{Form, RouteKey};
use calico_route::{Change, Desired, Reconciler, compute, plan};

use crate::cluster::{node_name, three_nodes};
use crate::kernel::machine;

#[expect(clippy::disallowed_methods, reason = "a driver of the loop")]
fn clock() -> Instant {
    Instant::now()
}

/// What an agent does, for one desired state.
struct Driver {
    netlink: Netlink,
    watch: Watch,
    reconciler: Reconciler,
    desired: Desired,
    passes: u32,
}

impl Driver {
    async fn start(mut netlink: Netlink, receive_buffer: usize) -> Self {
        let desired = compute(&three_nodes(), &node_name("node1"), &LearnedRoutes::new());
        let watch = netlink.watch_with(&desired.ownership, receive_buffer).await.unwrap();
        let mut reconciler = Reconciler::new(Settings::default());
        reconciler.in_sync(clock());
        Self { netlink, watch, reconciler, desired, passes: 0 }
    }

    async fn pass(&mut self) {
        let actual = self.netlink.read(&self.desired.ownership).await.unwrap();
        let changes = plan(&self.desired, &actual).changes;
        let changes = self.reconciler.admit(changes, &actual.host, &self.desired.ownership, clock());
        let outcomes = self.netlink.apply(&changes).await;
        let end =
            if outcomes.iter().all(|outcome| outcome.result.is_ok()) { End::Clean } else { End::Failed };
        self.reconciler.finished(end, clock());
        self.passes += 1;
    }

    /// Runs until an instant has come.
    async fn run_until(&mut self, end: Instant) {
        while clock() < end {
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
    async fn settle_within(&mut self, limit: Duration) {
        let end = clock() + limit;
        loop {
            self.run_until(clock() + Duration::from_millis(200)).await;
            let left = plan(&self.desired, &self.netlink.read(&self.desired.ownership).await.unwrap());
            if left.changes.is_empty() && left.waiting.is_empty() {
                return;
            }
            let left: Vec<_> = left.changes.iter().take(5).map(Change::to_string).collect();
            assert!(clock() < end, "not repaired: {left:?}");
        }
    }
}

#[tokio::test]
async fn ten_thousand_changes_that_nobody_could_tell_are_found_and_undone() {
    let machine = machine();
    let mut driver = Driver::start(machine.connect(), 64 << 10).await;
    driver.settle_within(Duration::from_secs(5)).await;
    let mut other = machine.connect();
    other.read(&driver.desired.ownership).await.unwrap();
    let stray = |number: u32| {
        let addr = std::net::Ipv4Addr::from((10 << 24) + (number << 6));
        let key = RouteKey::main(calico_model::Cidr::holding(addr.into(), 26).unwrap(), 1024);
        Change::AddRoute { key, form: Form::Blackhole }
    };
    let strays: Vec<Change> = (0..10_000).map(stray).collect();
    assert!(other.apply(&strays).await.iter().all(|outcome| outcome.result.is_ok()));
    driver.settle_within(Duration::from_secs(5)).await;
    assert!(driver.watch.overruns() > 0);
    assert!(driver.passes < 20, "{} passes", driver.passes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_drift_is_repaired_and_leaves_what_belongs_to_others() {
    const DRIFTS: [&str; 12] = [
        "route del 192.168.1.0/26 metric 1024",
        "route replace 192.168.1.0/26 via 172.16.6.77 metric 1024 proto 80",
        "route del blackhole 192.168.0.0/26 metric 1024",
        "route flush proto 80",
        "route replace 192.168.0.1/32 dev eth0 metric 1024 proto 80",
        "link del vxlan.calico",
        "link set vxlan.calico down",
        "link set vxlan.calico mtu 1300",
        "address flush dev vxlan.calico",
        "neigh flush dev vxlan.calico nud permanent",
        "neigh replace 192.168.2.0 lladdr 02:00:00:00:00:07 dev vxlan.calico nud permanent",
        "route replace 192.168.2.0/26 via 172.16.6.77 metric 1024 proto 80",
    ];
    let machine = machine();
    let mut driver = Driver::start(machine.connect(), 16 << 20).await;
    machine.ip("route add 10.200.0.0/16 via 172.16.6.254 proto static");
    driver.settle_within(Duration::from_secs(5)).await;
    let foreign = || -> BTreeSet<String> {
        machine
            .ip("route show")
            .lines()
            .filter(|line| !line.contains("proto 80"))
            .map(str::to_owned)
            .collect()
    };
    let before = foreign();
    let end = clock() + Duration::from_secs(3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = 20_u64;
            while clock() < end {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let drift = DRIFTS[usize::try_from(seed >> 33).unwrap() % DRIFTS.len()];
                // What is gone cannot be drifted further; the next one may.
                let _ = machine.command(&format!("ip {drift}")).output();
            }
        });
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(driver.run_until(end)));
    });
    driver.settle_within(Duration::from_secs(5)).await;
    assert_eq!(foreign(), before);
}

#[tokio::test]
async fn a_link_that_flaps_has_its_routes_back_within_a_second() {
    let machine = machine();
    let mut driver = Driver::start(machine.connect(), 16 << 20).await;
    driver.settle_within(Duration::from_secs(5)).await;
    for device in ["cali1", "eth0"] {
        machine.ip(&format!("link set {device} down"));
        driver.run_until(clock() + Duration::from_millis(150)).await;
        machine.ip(&format!("link set {device} up"));
        if device == "eth0" {
            machine.ip("route add default via 172.16.6.254");
        }
        driver.settle_within(Duration::from_secs(1)).await;
    }
}
