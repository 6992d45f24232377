use std::os::fd::AsRawFd;
use std::sync::Arc;

use calico_model::resource::block::StoredBlock;
use calico_model::resource::felix::{IptablesBackend, NftablesMode};
use calico_model::resource::{
    EncapMode, FelixConfiguration, IpPool, Node, NodeBgp, Object, WorkloadEndpoint,
};
use calico_model::{Cidr, Family, Update};
use calico_route::Computer;
use calico_route::reconcile::Settings;
use calico_route::route::{Form, Gateway, Installed, RouteKey};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::*;

#[test]
fn what_may_have_been_learned_stays_unless_another_route_of_its_key_is_written() {
    let gateway =
        Gateway { address: "192.0.2.1".parse().unwrap(), device: "eth0".parse().unwrap(), onlink: false };
    let route = Installed { protocol: 80, form: Form::Gateways([gateway].into()) };
    let key = |prefix: &str| RouteKey::main(prefix.parse().unwrap(), 1024);
    let removal = |prefix| Change::RemoveRoute { key: key(prefix), route: route.clone() };
    let written = Change::ReplaceRoute { key: key("10.1.0.0/26"), form: Form::Blackhole };
    let mut changes =
        vec![removal("10.0.0.0/26"), removal("10.1.0.0/26"), removal("10.2.0.0/26"), written.clone()];
    let learned: Cidr = "10.0.0.0/15".parse().unwrap();
    leave_alone(&mut changes, &|destination: &Cidr| learned.covers(destination));
    assert_eq!(changes, [removal("10.1.0.0/26"), removal("10.2.0.0/26"), written]);
}

/// On a kernel without VXLAN, everything that belongs on the device is refused, each in its own way.
#[tokio::test]
async fn what_belongs_on_a_device_that_cannot_be_made_is_not_told_of() {
    let device: InterfaceName = "vxlan.absent".parse().unwrap();
    let own = || device.clone();
    let key = RouteKey::main("192.0.2.0/26".parse().unwrap(), 1024);
    let changes = [
        Change::SetSysctl { sysctl: Sysctl::disable_ipv6(&device), value: "0".to_owned() },
        Change::SetSysctl {
            sysctl: Sysctl::of_device(&device, "conf", Family::V4, "rp_filter"),
            value: "1".to_owned(),
        },
        Change::SetLink { device: own(), mtu: Some(1450), mac: None },
        Change::StopChecksumOffload { device: own() },
        Change::AddAddress { device: own(), address: "192.0.2.1/32".parse().unwrap(), mark: None },
        Change::AddRoute { key, form: Form::Device(own()) },
    ];
    let mut netlink = Netlink::connect().unwrap();
    for outcome in netlink.apply(&changes).await {
        let error = outcome.result.expect_err("there is no such device");
        assert!(follows(outcome.change, &error, &[&device].into()), "{error}");
        assert!(!follows(outcome.change, &error, &BTreeSet::new()), "{error}");
    }
}

/// A workload of the node whose interface is not there.
fn workload(name: &str, device: &str, addr: &str) -> Update {
    let mut object = Object::new(name.parse().unwrap(), WorkloadEndpoint::on("node1".parse().unwrap()));
    object.metadata.namespace = Some("default".parse().unwrap());
    object.spec.interface_name = Some(device.parse().unwrap());
    object.spec.ip_networks = vec![addr.parse().unwrap()];
    Update::Put(Box::new(object.into()))
}

async fn while_a_route_waits() {
    let mut dataplane = Dataplane::connect().await.unwrap();
    let mut reconciler = Reconciler::new(Settings::default());
    let mut computer = Computer::new("node1".parse().unwrap());
    let pool = Object::new("pool".parse().unwrap(), IpPool::new("192.0.2.0/24".parse().unwrap()));
    let node = Node { bgp: Some(NodeBgp::at("198.51.100.1/24".parse().unwrap())), ..Node::new() };
    computer.apply(&Update::Put(Box::new(Object::new("node1".parse().unwrap(), node).into())));
    computer.apply(&Update::Put(Box::new(pool.into())));
    computer.apply(&workload("one", "cali1", "192.0.2.1/32"));
    let mut told = Vec::new();
    let steps = [
        None,
        None,
        None,
        Some(workload("two", "cali2", "192.0.2.2/32")),
        Some(workload("one", "cali3", "192.0.2.1/32")),
    ];
    let began = crate::clock::now();
    for (at, step) in steps.into_iter().enumerate() {
        step.iter().for_each(|update| computer.apply(update));
        let delta = computer.settle();
        let desired = computer.desired();
        let limits = Limits { keep: None, to_workloads: true };
        let now = began + Duration::from_secs(4 * at as u64);
        let pass = dataplane.apply_routes(desired, &delta, &mut reconciler, limits, now).await;
        assert!(!pass.failed, "{:?}", pass.problems);
        let absent = pass.problems.iter().filter_map(|problem| problem.strip_prefix("interface "));
        let absent: Vec<_> =
            absent.filter_map(|problem| problem.split(' ').next().map(str::to_owned)).collect();
        told.push((pass.interfaces.is_some(), absent.join(" ")));
    }
    // The first one switches forwarding on, which the kernel tells to the second.
    // An interface that is not there yet is told of once that lasts.
    let expected = [(false, "cali1"), (false, "cali1"), (false, "cali2")];
    assert_eq!(told[2..], expected.map(|(read, absent)| (read, absent.to_owned())));
}

/// Runs a test on a thread of its own, which may enter a namespace of its own.
pub(super) fn alone<F: Future<Output = ()> + 'static>(test: fn() -> F) {
    let run = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(test());
    };
    std::thread::spawn(run).join().expect("the thread says why");
}

#[test]
fn while_a_route_waits_a_change_of_another_has_nothing_read() {
    alone(while_a_route_waits);
}

fn ip(arguments: &str) -> String {
    let output = std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn while_a_gateway_is_on_no_link() {
    // Link-local addresses that come by themselves are seconds late.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    for command in [
        "link add eth0 type veth peer name far0",
        "link set far0 up",
        "link set eth0 up",
        "address add 198.51.100.1/32 dev eth0",
    ] {
        ip(command);
    }
    let mut dataplane = Dataplane::connect().await.unwrap();
    let mut reconciler = Reconciler::new(Settings::default());
    let mut computer = Computer::new("node1".parse().unwrap());
    let mut put = |resource| computer.apply(&Update::Put(Box::new(resource)));
    let mut pool = IpPool::new("192.0.2.0/24".parse().unwrap());
    pool.vxlan_mode = EncapMode::CrossSubnet;
    put(Object::new("pool".parse().unwrap(), pool).into());
    for (name, address) in [("node1", "198.51.100.1/24"), ("node2", "198.51.100.2/24")] {
        let mut node = Node { bgp: Some(NodeBgp::at(address.parse().unwrap())), ..Node::new() };
        node.ipv4_vxlan_tunnel_addr = Some(format!("192.0.2.6{}", &name[4..]).parse().unwrap());
        put(Object::new(name.parse().unwrap(), node).into());
    }
    let remote = StoredBlock::on("192.0.2.0/26".parse().unwrap(), "node2".parse().unwrap());
    computer.apply(&Update::PutBlock(Box::new(remote)));
    let (route, silence) = ("route show 192.0.2.0/26", Duration::from_millis(500));
    let mut pass = async |dataplane: &mut Dataplane, computer: &mut Computer| {
        let delta = computer.settle();
        let limits = Limits { keep: None, to_workloads: true };
        let now = crate::clock::now();
        let pass = dataplane.apply_routes(computer.desired(), &delta, &mut reconciler, limits, now).await;
        assert!(!pass.failed, "{:?}", pass.problems);
        let told = pass.problems.iter().any(|problem| problem.contains("not on the link of interface eth0"));
        (told, !ip(route).is_empty(), pass.interfaces.is_some())
    };
    while pass(&mut dataplane, &mut computer).await.2 {}
    while tokio::time::timeout(silence, dataplane.event()).await.is_ok() {}
    // Somebody changes other tables all the time.
    let (began, mut woken, mut read) = (crate::clock::now(), 0, 0);
    while began.elapsed() < Duration::from_millis(2500) {
        ip("route add 203.0.113.128/25 dev eth0 table 101");
        ip("route del 203.0.113.128/25 dev eth0 table 101");
        let event = tokio::time::timeout(Duration::from_millis(10), dataplane.event()).await;
        woken += u64::from(event.is_ok());
        let (told, laid, is_read) = pass(&mut dataplane, &mut computer).await;
        assert!(told && !laid);
        read += u64::from(is_read);
    }
    let seconds = began.elapsed().as_secs();
    let often = 1..=seconds + 2;
    assert!(
        often.contains(&woken) && often.contains(&read),
        "woken {woken} times, read {read}, in {seconds} s"
    );
    for (command, laid) in [
        ("route add 198.51.100.0/24 dev eth0 table 100", false),
        ("rule add to 198.51.100.0/24 lookup 100", true),
    ] {
        ip(command);
        let within = Duration::from_secs(3);
        tokio::time::timeout(within, dataplane.event()).await.expect("it may end the wait");
        assert_eq!(pass(&mut dataplane, &mut computer).await, (!laid, laid, true), "{command}");
        assert_eq!(pass(&mut dataplane, &mut computer).await, (!laid, laid, false), "it is remembered");
    }
    ip("route add 203.0.113.0/24 dev eth0 table 100");
    assert!(tokio::time::timeout(silence, dataplane.event()).await.is_err(), "nothing waits any more");
    ip("route add 203.0.113.0/25 dev eth0 table 100");
    assert_eq!(pass(&mut dataplane, &mut computer).await, (false, true, false));
}

#[test]
fn a_route_over_a_gateway_by_another_table_is_laid_once_the_kernel_takes_it_which_is_looked_at_once_a_second()
{
    alone(while_a_gateway_is_on_no_link);
}

fn nft(arguments: &str) {
    let done = std::process::Command::new("nft").args(arguments.split(' ')).status();
    assert!(done.expect("this test needs nft").success(), "{arguments}");
}

/// With iptables over nf_tables.
async fn while_rules_cannot_be_read_back() {
    let mut dataplane = Dataplane::connect().await.unwrap();
    let node: NodeName = "node1".parse().unwrap();
    let mut compiler = Compiler::new(node.clone());
    let iptables = FelixConfiguration {
        nftables_mode: Some(NftablesMode::Disabled),
        iptables_backend: Some(IptablesBackend::Nft),
        ..FelixConfiguration::new()
    };
    compiler.apply(Update::Put(Box::new(Object::new("default".parse().unwrap(), iptables).into())));
    dataplane.apply_rules(&mut compiler, &node).unwrap();
    dataplane.walk_flows(&mut compiler).await.unwrap();
    assert_eq!(dataplane.walk_due(crate::clock::now()), None);

    // A rule of somebody else that iptables-nft-save cannot tell.
    nft("add table ip filter");
    nft("add chain ip filter others");
    nft("add rule ip filter others meta cpu 1");
    dataplane.filter.changed(None);
    dataplane.apply_rules(&mut compiler, &node).unwrap_err();
    assert_eq!(dataplane.walk_due(crate::clock::now()), None, "not while it is not known what is in force");
    nft("flush chain ip filter others");
    dataplane.apply_rules(&mut compiler, &node).unwrap();
    assert!(dataplane.walk_due(crate::clock::now()).is_some());
}

#[test]
fn live_flows_are_asked_about_again_where_it_was_not_known_whether_rules_were_written() {
    alone(while_rules_cannot_be_read_back);
}

async fn an_empty_machine() {
    let node: NodeName = "node1".parse().unwrap();
    let mut computer = Computer::new(node.clone());
    let mut pool = IpPool::new("192.0.2.0/24".parse().unwrap());
    pool.vxlan_mode = EncapMode::Never;
    computer.apply(&Update::Put(Box::new(Object::new("pool".parse().unwrap(), pool).into())));
    computer.apply(&Update::PutBlock(Box::new(StoredBlock::on("192.0.2.0/26".parse().unwrap(), node))));
    let delta = computer.settle();
    for found in [Start::Fresh, Start::Recovering] {
        let mut dataplane = Dataplane::connect().await.unwrap();
        assert_eq!(dataplane.found(), Start::Recovering, "not looked yet");
        let mut reconciler = Reconciler::new(Settings::default());
        for _ in 0..2 {
            let limits = Limits { keep: None, to_workloads: true };
            let now = crate::clock::now();
            let pass = dataplane.apply_routes(computer.desired(), &delta, &mut reconciler, limits, now).await;
            assert!(!pass.failed, "{:?}", pass.problems);
            assert_eq!(dataplane.found(), found);
        }
        assert!(ip("route show").contains("blackhole 192.0.2.0/26"));
    }
}

#[test]
fn the_routes_of_an_earlier_agent_are_those_that_were_there_before_ours() {
    alone(an_empty_machine);
}

#[test]
fn while_rules_of_before_are_in_force_no_way_to_a_workload_is_opened() {
    let ownership = Ownership::default();
    let key = |prefix: &str| RouteKey::main(prefix.parse().unwrap(), 1024);
    let to = |device: &str| Form::Device(device.parse().unwrap());
    let leads = |change: &Change| leads_to_workload(change, &ownership);
    assert!(leads(&Change::AddRoute { key: key("10.0.0.1/32"), form: to("cali1") }));
    assert!(leads(&Change::ReplaceRoute { key: key("10.0.0.1/32"), form: to("cali1") }));
    let route = Installed { protocol: 80, form: to("cali1") };
    for other in [
        Change::RemoveRoute { key: key("10.0.0.1/32"), route },
        Change::AddRoute { key: key("10.0.0.0/26"), form: Form::Blackhole },
        Change::ReplaceRoute { key: key("10.1.0.0/26"), form: to("vxlan.calico") },
    ] {
        assert!(!leads(&other), "{other}");
    }
}

async fn while_watches_have_failed() {
    let mut dataplane = Dataplane::connect().await.unwrap();
    dataplane.cannot_follow(&std::io::Error::other("a fault"));
    dataplane.rules_changed(Err("a fault".to_owned()));
    assert_eq!(dataplane.unfollowed().count(), 2);
    let node: NodeName = "node1".parse().unwrap();
    let (mut compiler, mut reconciler) = (Compiler::new(node.clone()), Reconciler::new(Settings::default()));
    let mut pass = async |dataplane: &mut Dataplane| {
        dataplane.apply_rules(&mut compiler, &node).unwrap();
        let limits = Limits { keep: None, to_workloads: true };
        let (desired, delta) = (Desired::default(), Delta::default());
        dataplane.apply_routes(&desired, &delta, &mut reconciler, limits, crate::clock::now()).await;
        dataplane.unfollowed().count()
    };
    assert_eq!(pass(&mut dataplane).await, 2, "not at once");
    let now = crate::clock::now();
    (dataplane.reopened, dataplane.rules_reopened, dataplane.tries) = (now, now, [now].into());
    tokio::time::timeout(Duration::from_secs(1), dataplane.event())
        .await
        .expect("it is time for another try");
    assert_eq!(pass(&mut dataplane).await, 0);
    assert!(dataplane.watch.is_some() && dataplane.rules_watch.is_some());
    while tokio::time::timeout(Duration::from_millis(200), dataplane.event()).await.is_ok() {}
    nft("delete table inet calico");
    tokio::time::timeout(Duration::from_secs(1), dataplane.event()).await.expect("it is followed again");
}

#[test]
fn watches_that_have_failed_are_opened_again_when_it_is_time() {
    alone(while_watches_have_failed);
}

/// A workload's interface with its far end, switched on, and what may be told of it heard.
fn attach(device: &str) {
    for command in ["link add NEAR type veth peer name far-NEAR", "link set far-NEAR up", "link set NEAR up"]
    {
        ip(&command.replace("NEAR", device));
    }
}

/// The agent's part in routes, and what it is asked for.
struct Machine {
    dataplane: Dataplane,
    computer: Computer,
    reconciler: Reconciler,
}

impl Machine {
    /// A node with a pool, nothing of which is laid yet.
    async fn new() -> Self {
        // Link-local addresses that come by themselves are seconds late.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let mut computer = Computer::new("node1".parse().unwrap());
        let pool = Object::new("pool".parse().unwrap(), IpPool::new("192.0.2.0/24".parse().unwrap()));
        let node = Node { bgp: Some(NodeBgp::at("198.51.100.1/24".parse().unwrap())), ..Node::new() };
        computer.apply(&Update::Put(Box::new(Object::new("node1".parse().unwrap(), node).into())));
        computer.apply(&Update::Put(Box::new(pool.into())));
        let dataplane = Dataplane::connect().await.unwrap();
        Self { dataplane, computer, reconciler: Reconciler::new(Settings::default()) }
    }

    async fn pass(&mut self, now: Instant) -> RoutePass {
        let delta = self.computer.settle();
        let limits = Limits { keep: None, to_workloads: true };
        let desired = self.computer.desired();
        let pass = self.dataplane.apply_routes(desired, &delta, &mut self.reconciler, limits, now).await;
        assert!(!pass.failed, "{:?}", pass.problems);
        pass
    }

    /// Makes passes until the kernel need not be read for one, and tells nothing.
    async fn settle(&mut self) {
        loop {
            while self.pass(crate::clock::now()).await.interfaces.is_some() {}
            if tokio::time::timeout(Duration::from_millis(200), self.dataplane.event()).await.is_err() {
                return;
            }
        }
    }
}

async fn while_an_event_was_lost() {
    attach("cali1");
    let mut machine = Machine::new().await;
    machine.computer.apply(&workload("one", "cali1", "192.0.2.1/32"));
    let route = || ip("route show 192.0.2.1");
    for change in ["route del 192.0.2.1", "route replace 192.0.2.1 dev far-cali1 proto 80 metric 1024"] {
        machine.settle().await;
        let settled = crate::clock::now();
        assert!(route().contains("dev cali1"), "{}", route());
        ip(change);
        let lost = machine.dataplane.watch.as_mut().unwrap().already().unwrap();
        assert_eq!(lost, Some(Event::Changed([Subject::Routes].into())));
        let soon = machine.pass(settled + Duration::from_secs(1)).await;
        assert!(soon.interfaces.is_none(), "nothing says that it is to be read");
        assert!(!route().contains("dev cali1"), "{}", route());
        let later = machine.pass(settled + Duration::from_secs(31)).await;
        assert!(later.interfaces.is_some() && route().contains("dev cali1"), "{}", route());
        machine.dataplane.forget_kernel();
    }
}

#[test]
fn a_change_of_routes_of_which_no_event_tells_is_put_right_by_the_next_sweep() {
    alone(while_an_event_was_lost);
}

/// What the kernel tells of one kind of thing, as it happens.
struct Told(std::os::fd::OwnedFd);

impl Told {
    /// Listens in the namespace of the calling thread.
    fn open(protocol: SockProtocol, groups: u32) -> Self {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups)).unwrap();
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(10)).unwrap();
        Self(socket)
    }

    fn is_told(&self, how: MsgFlags) -> bool {
        recv(self.0.as_raw_fd(), &mut [0; 1 << 16], how).is_ok()
    }

    fn drain(&self) {
        while self.is_told(MsgFlags::MSG_DONTWAIT) {}
    }
}

/// Waits on a thread of its own until `second` is told of, and says whether `first` had been by then.
fn in_order(first: &Arc<Told>, second: &Arc<Told>) -> std::thread::JoinHandle<bool> {
    first.drain();
    second.drain();
    let (first, second) = (Arc::clone(first), Arc::clone(second));
    let watching = move || {
        assert!(second.is_told(MsgFlags::empty()), "nothing was told");
        first.is_told(MsgFlags::MSG_DONTWAIT)
    };
    std::thread::spawn(watching)
}

async fn while_addresses_move() {
    // rtnetlink(7): RTMGRP_IPV4_ROUTE. NFNLGRP_CONNTRACK_DESTROY is group 3.
    let routes = Arc::new(Told::open(SockProtocol::NetlinkRoute, 0x40));
    let ended = Arc::new(Told::open(SockProtocol::NetlinkNetFilter, 1 << 2));
    ["cali1", "cali2"].into_iter().for_each(attach);
    let mut machine = Machine::new().await;
    machine.computer.apply(&workload("one", "cali1", "192.0.2.1/32"));
    machine.settle().await;
    let track = || {
        let flow = "-I -p udp -s 198.51.100.7 -d 192.0.2.1 --sport 4000 --dport 53 -t 600";
        let done = std::process::Command::new("conntrack").args(flow.split(' ')).output();
        assert!(done.expect("this test needs conntrack").status.success());
    };
    // Often, since a watcher that comes late sees both.
    for round in 0..40 {
        let device = ["cali2", "cali1"][round % 2];
        track();
        let watching = in_order(&ended, &routes);
        machine.computer.apply(&workload("one", device, "192.0.2.1/32"));
        if round % 4 > 1 {
            machine.dataplane.forget_kernel();
        }
        machine.pass(crate::clock::now()).await;
        let is_before = watching.join().expect("the kernel tells");
        assert!(
            is_before,
            "round {round}: the address was on {device} before its connections were forgotten"
        );
        assert!(ip("route show 192.0.2.1").contains(device));
    }
    // One that goes elsewhere is forgotten once no packet can bring its connections back.
    track();
    let watching = in_order(&routes, &ended);
    let gone = workload("one", "cali1", "192.0.2.1/32");
    let Update::Put(gone) = gone else { unreachable!("it is put") };
    machine.computer.apply(&Update::Removed(gone.key()));
    // Routes over an interface that is new are left alone at first.
    machine.pass(crate::clock::now() + Duration::from_secs(11)).await;
    assert!(
        watching.join().expect("the kernel tells"),
        "its connections were forgotten before its route was gone"
    );
    assert_eq!(ip("route show 192.0.2.1"), "");
}

#[test]
fn the_connections_of_an_address_are_forgotten_before_it_is_on_another_interface() {
    alone(while_addresses_move);
}
