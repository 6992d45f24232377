//! What is left alone for a while, on a kernel in memory.

use std::time::{Duration, Instant};

use calico_model::learned::LearnedRoutes;
use calico_model::resource::{EncapMode, FelixConfiguration, Object, ProgramClusterRoutes};
use calico_route::fake::FakeKernel;
use calico_route::reconcile::{End, Next, Settings};
use calico_route::route::{Form, Gateway, Installed, Odd, RouteKey};
use calico_route::{Desired, Ownership, Reconciler, Waiting, Ways, compute, plan};

use crate::cluster::{learn, node_name, pool, three_nodes};

struct Machine {
    kernel: FakeKernel,
    reconciler: Reconciler,
    desired: Desired,
    start: Instant,
}

impl Machine {
    /// A machine with an interface for a workload, whose pools' packets are not wrapped, and the third node beyond a router.
    fn new() -> Self {
        Self::with(EncapMode::Never)
    }

    /// The same, with another mode of VXLAN.
    #[expect(clippy::disallowed_methods, reason = "some instant to count from; nothing waits for it")]
    fn with(vxlan: EncapMode) -> Self {
        let mut snapshot = three_nodes();
        pool(&mut snapshot, "192.168.0.0/16", EncapMode::Never, vxlan);
        let setting = Some(ProgramClusterRoutes::Enabled);
        let spec = FelixConfiguration { program_cluster_routes: setting, ..FelixConfiguration::new() };
        snapshot.insert(Object::new("default".parse().unwrap(), spec));
        let mut kernel = FakeKernel::default();
        kernel.add_link(&"eth0".parse().unwrap(), &["172.16.6.1/24".parse().unwrap()]);
        kernel.add_link(&"cali1".parse().unwrap(), &[]);
        let desired = compute(&snapshot, &node_name("node1"), &LearnedRoutes::new());
        let start = Instant::now();
        let mut reconciler = Reconciler::new(Settings::default());
        reconciler.in_sync(start);
        let mut machine = Self { kernel, reconciler, desired, start };
        machine.set_default();
        machine
    }

    fn set_default(&mut self) {
        let (address, device) = ("172.16.6.254".parse().unwrap(), "eth0".parse().unwrap());
        let form = Form::Gateways([Gateway { address, device, onlink: false }].into());
        self.kernel.routes.insert(default(), vec![Installed { protocol: 16, form }]);
    }

    /// Makes a pass, and returns what it changed.
    fn pass(&mut self, millis: u64) -> Vec<String> {
        let now = self.start + Duration::from_millis(millis);
        self.reconciler.kernel_changed(now);
        assert_eq!(self.reconciler.next(now), Next::Pass);
        let actual = self.kernel.read(&self.desired.ownership);
        let plan = plan(&self.desired, &actual);
        let changes = self.reconciler.admit(&plan, &actual.host, &self.desired.ownership, now);
        assert!(self.kernel.apply(&changes).iter().all(Result::is_ok), "{changes:?}");
        self.reconciler.finished(End::Clean, now);
        changes.iter().map(ToString::to_string).collect()
    }

    fn next(&mut self, millis: u64) -> Option<u64> {
        let next = self.reconciler.next(self.start + Duration::from_millis(millis));
        let Next::Wait(at) = next else { return None };
        u64::try_from((at - self.start).as_millis()).ok()
    }
}

fn default() -> RouteKey {
    RouteKey::main("0.0.0.0/0".parse().unwrap(), 0)
}

#[test]
fn what_leads_over_a_route_that_is_back_in_the_next_moment_stays() {
    let mut machine = Machine::new();
    let laid = machine.pass(0);
    let far = "192.168.2.0/26 metric 1024 via 172.16.6.254 dev eth0";
    assert!(laid.contains(&format!("route add {far}")), "{laid:?}");
    machine.kernel.routes.remove(&default());
    assert_eq!(machine.pass(5000), [] as [&str; 0]);
    assert_eq!(machine.next(5000), Some(6000), "it is looked at again");
    machine.set_default();
    assert_eq!(machine.pass(5200), [] as [&str; 0]);
    // Another time, and for good.
    machine.kernel.routes.remove(&default());
    assert_eq!(machine.pass(5900), [] as [&str; 0]);
    assert_eq!(machine.pass(6500), [] as [&str; 0]);
    assert_eq!(machine.pass(6900), [format!("route del {far}")]);
}

/// A program that renews the address of an interface may remove it first. Another address is left on the interface, so the kernel
/// keeps the routes over it.
#[test]
fn routes_within_the_subnet_stay_while_the_nodes_address_is_away_for_a_moment() {
    let mut machine = Machine::with(EncapMode::CrossSubnet);
    machine.pass(0);
    machine.pass(500);
    assert_eq!(machine.pass(1000), [] as [&str; 0]);
    let eth0 = "eth0".parse().unwrap();
    let connected = RouteKey::main("172.16.6.0/24".parse().unwrap(), 0);
    let near = |device| format!("192.168.1.0/26 metric 1024 via 172.16.6.2 dev {device}");
    let whole = machine.kernel.clone();
    // Away, and on a bridge that takes the interface in and has the whole prefix only later.
    for (at, bridge) in [(5000, None), (15_000, Some("172.16.6.1/32"))] {
        machine.kernel.links.get_mut(&eth0).unwrap().addresses.clear();
        machine.kernel.routes.remove(&connected);
        machine.kernel.routes.remove(&default());
        if let Some(address) = bridge {
            machine.kernel.add_link(&"br0".parse().unwrap(), &[address.parse().unwrap()]);
        }
        let before = machine.kernel.routes.clone();
        machine.pass(at);
        assert_eq!(machine.kernel.routes, before, "{bridge:?}");
        assert_eq!(machine.next(at), Some(at + 1000), "it is looked at again");
        if bridge.is_none() {
            machine.kernel = whole.clone();
            assert_eq!(machine.pass(at + 200), [] as [&str; 0]);
        }
    }
    machine.kernel.add_link(&"br0".parse().unwrap(), &["172.16.6.1/24".parse().unwrap()]);
    let moved = machine.pass(15_200);
    assert!(moved.contains(&format!("route replace {}", near("br0"))), "{moved:?}");
    // For good.
    machine.kernel.links.get_mut(&"br0".parse().unwrap()).unwrap().addresses.clear();
    assert_eq!(machine.pass(25_000), [] as [&str; 0]);
    let removed = machine.pass(26_000);
    assert!(removed.contains(&format!("route del {}", near("br0"))), "{removed:?}");
}

/// A CNI plugin of another kind gives its route a source address or the like.
#[test]
fn an_odd_route_over_a_new_interface_is_left_alone_for_a_while() {
    let mut machine = Machine::new();
    let device = Some("cali1".parse().unwrap());
    let form =
        Form::Other(Odd { what: "something with a source address".to_owned(), device, ..Odd::default() });
    let key = RouteKey::main("192.168.0.9/32".parse().unwrap(), 0);
    machine.kernel.routes.insert(key, vec![Installed { protocol: 3, form }]);
    machine.pass(0);
    assert!(machine.kernel.routes.contains_key(&key));
    machine.pass(10_000);
    assert!(!machine.kernel.routes.contains_key(&key));
}

/// What a program that programmed the node's routes before has left.
#[test]
fn a_route_that_another_one_hides_is_told_of() {
    let mut machine = Machine::new();
    machine.pass(0);
    let waiting = |machine: &Machine| {
        let plan = plan(&machine.desired, &machine.kernel.read(&machine.desired.ownership));
        assert_eq!(plan.changes, []);
        plan.waiting.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(waiting(&machine), [] as [&str; 0]);
    let (prefix, left) =
        ("192.168.0.0/26".parse().unwrap(), Installed { protocol: 12, form: Form::Blackhole });
    machine.kernel.routes.insert(RouteKey::main(prefix, 2000), vec![left.clone()]);
    assert_eq!(waiting(&machine), [] as [&str; 0], "ours has the lower metric");
    machine.kernel.routes.insert(RouteKey::main(prefix, 32), vec![left]);
    assert_eq!(
        waiting(&machine),
        [
            "the route 192.168.0.0/26 metric 1024 blackhole is not used because another program's route to there has a lower \
             metric (metric 32 blackhole protocol 12); remove it or give it a higher one"
        ]
    );
}

/// What came counts at once, and what went after a second of its own, whatever else comes and goes meanwhile.
#[test]
#[expect(clippy::disallowed_methods, reason = "some instant to count from; nothing waits for it")]
fn what_is_back_in_the_next_moment_is_not_lost_to_bgp() {
    let ways = |devices: &str| {
        let mut kernel = FakeKernel::default();
        for device in devices.chars() {
            let address = format!("172.16.{}.10/24", u32::from(device));
            kernel.add_link(&format!("eth{device}").parse().unwrap(), &[address.parse().unwrap()]);
        }
        Ways::of(&kernel.read(&Ownership::default()).host)
    };
    let settings = || {
        let mut settings = Settings::default();
        settings.patience = Duration::from_millis(500);
        settings
    };
    for (settings, patience) in [(Settings::default(), 1000), (settings(), 500)] {
        let start = Instant::now();
        let mut reconciler = Reconciler::new(settings);
        reconciler.in_sync(start);
        let first_pass = reconciler.next(start);
        assert_eq!((first_pass, reconciler.ways()), (Next::Pass, None));
        for (millis, seen, due, expected) in [
            (0, "A", None, "A"),
            (10, "AB", None, "AB"),
            (20, "A", Some(20), "AB"),
            (70, "AB", None, "AB"),
            (100, "B", Some(100), "AB"),
            (patience, "A", Some(patience), "AB"),
            (patience + 50, "ACD", Some(patience), "ABCD"),
            (patience + 60, "AD", Some(patience), "ABCD"),
            (2 * patience - 1, "AD", Some(patience), "ABCD"),
            (2 * patience, "AD", Some(patience + 60), "ACD"),
            (2 * patience + 60, "AD", None, "AD"),
        ] {
            let now = start + Duration::from_millis(millis);
            let due = due.map(|lost| start + Duration::from_millis(lost + patience));
            assert_eq!(reconciler.take_ways(ways(seen), now), due, "{millis}");
            assert_eq!(reconciler.ways().map(|told| Ways::clone(told)), Some(ways(expected)), "{millis}");
        }
        assert_eq!(reconciler.next(start), Next::Wait(start + Duration::from_millis(20 + patience)));
    }
}

/// A route that BGP told is not used either while another program's is before it. To a link of its own the machine knows better.
#[test]
fn a_learned_route_that_another_one_hides_is_told_of() {
    let mut machine = Machine::new();
    let mut learned = LearnedRoutes::new();
    for prefix in ["10.50.0.0/16", "0.0.0.0/0", "172.16.6.0/24"] {
        learn(&mut learned, prefix, &["172.16.6.2"]);
    }
    machine.desired = compute(&three_nodes(), &node_name("node1"), &learned);
    machine.pass(0);
    let hidden = |machine: &Machine| {
        let plan = plan(&machine.desired, &machine.kernel.read(&machine.desired.ownership));
        let routes = plan.waiting.routes.into_iter();
        let hidden = routes.filter(|(_, waiting)| matches!(waiting, Waiting::Shadowed { .. }));
        hidden.map(|(key, _)| key.prefix.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(hidden(&machine), ["0.0.0.0/0"], "the machine's own default route has metric 0");
    machine.kernel.routes.remove(&default());
    assert_eq!(hidden(&machine), [] as [&str; 0]);
    let key = RouteKey::main("10.50.0.0/16".parse().unwrap(), 32);
    machine.kernel.routes.insert(key, vec![Installed { protocol: 12, form: Form::Blackhole }]);
    assert_eq!(hidden(&machine), ["10.50.0.0/16"]);
}
