//! Laws of the differ, on a kernel in memory.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_model::learned::{LearnedRoute, LearnedRoutes};
use calico_model::resource::{
    EncapMode, FelixConfiguration, IpPool, Node, NodeBgp, Object, ProgramClusterRoutes, Resource,
    WorkloadEndpoint,
};
use calico_model::{Cidr, InterfaceName, Snapshot, Update};
use calico_route::actual::{LinkKind, LinkState};
use calico_route::device::{Tunnel, VXLAN, VxlanParams};
use calico_route::encap::Source;
use calico_route::fake::FakeKernel;
use calico_route::ownership::PROTOCOL;
use calico_route::route::{Form, Installed, Odd, RouteKey};
use calico_route::{Actual, Change, Computer, Desired, Ownership, compute, diff, plan, plan_unlearned};
use proptest::prelude::*;
use proptest::sample::select;

use crate::cluster::{block, lend, node_name};

const POOLS: [&str; 4] = ["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16", "fd00::/64"];
pub(crate) const BLOCKS: [&str; 9] = [
    "10.0.0.0/30",
    "10.0.0.4/30",
    "10.0.1.0/32",
    "10.1.0.0/30",
    "10.1.0.4/30",
    "10.2.0.0/30",
    "fd00::/126",
    "fd00::4/126",
    "fd00::8/126",
];
/// Where a node may be announced by BGP, and by whom.
const AROUND: [&str; 5] = ["0.0.0.0/0", "172.16.1.12/32", "172.16.1.0/24", "172.16.0.0/16", "10.2.0.1/32"];
const SWITCHES: [&str; 4] = ["172.16.0.250", "172.16.0.251", "172.16.1.250", "10.2.0.1"];
const NODES: [(&str, &str, &str); 4] = [
    ("n0", "172.16.0.10/24", "2001:db8::10/64"),
    ("n1", "172.16.0.11/24", "2001:db8::11/64"),
    ("n2", "172.16.1.12/24", "2001:db8:1::12/64"),
    ("n3", "10.2.0.1/24", "fd00::9/64"),
];
const WORKLOADS: [&str; 12] = [
    "10.0.0.0/32",
    "10.0.0.1/32",
    "10.0.0.2/32",
    "10.0.0.3/32",
    "10.0.0.4/32",
    "10.0.0.5/32",
    "10.0.0.6/32",
    "10.0.0.7/32",
    "fd00::/128",
    "fd00::1/128",
    "fd00::5/128",
    "fd00::6/128",
];
/// What nodes announce by BGP.
const ANNOUNCED: [&str; 10] = [
    "10.0.0.0/30",
    "10.1.0.0/30",
    "10.2.0.0/30",
    "10.3.0.0/30",
    "10.0.0.4/30",
    "10.1.0.4/30",
    "10.2.0.4/30",
    "10.3.0.4/30",
    "fd00::/126",
    "fd00::4/126",
];

/// One thing that is known.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Pool(usize, EncapMode, EncapMode),
    Node(usize, Option<u8>, Option<u8>),
    Block(usize, usize, Option<(usize, usize)>),
    Workload(u8, u8, &'static str),
    Routes(ProgramClusterRoutes),
    Learned(&'static str, usize, Option<u32>),
    Around(&'static str, Vec<&'static str>, Option<u32>),
}

pub(crate) fn piece() -> impl Strategy<Value = Piece> {
    let mode = || select(vec![EncapMode::Never, EncapMode::Always, EncapMode::CrossSubnet]);
    let setting = select(vec![
        ProgramClusterRoutes::Disabled,
        ProgramClusterRoutes::Enabled,
        ProgramClusterRoutes::IpipOnly,
        ProgramClusterRoutes::NoEncapOnly,
    ]);
    prop_oneof![
        (0..4usize, mode(), mode()).prop_map(|(pool, ipip, vxlan)| Piece::Pool(pool, ipip, vxlan)),
        (0..4usize, proptest::option::of(0..6u8), proptest::option::of(0..6u8))
            .prop_map(|(node, tunnel, tunnel_v6)| Piece::Node(node, tunnel, tunnel_v6)),
        (0..9usize, 0..5usize, proptest::option::of((0..4usize, 0..4usize)))
            .prop_map(|(block, node, lent)| Piece::Block(block, node, lent)),
        (0..4u8, 0..3u8, select(&WORKLOADS[..]))
            .prop_map(|(name, device, addr)| Piece::Workload(name, device, addr)),
        setting.prop_map(Piece::Routes),
        (select(&ANNOUNCED[..]), 0..4usize, proptest::option::of(1..3u32))
            .prop_map(|(to, hop, metric)| Piece::Learned(to, hop, metric)),
        (
            select(&AROUND[..]),
            proptest::sample::subsequence(&SWITCHES[..], 1..3),
            proptest::option::of(1..3u32)
        )
            .prop_map(|(to, hops, metric)| Piece::Around(to, hops, metric)),
    ]
}

pub(crate) fn known(pieces: &[Piece]) -> Desired {
    let (snapshot, learned) = told(pieces);
    compute(&snapshot, &node_name("n0"), &learned)
}

fn told(pieces: &[Piece]) -> (Snapshot, LearnedRoutes) {
    let mut snapshot = Snapshot::default();
    let mut learned = LearnedRoutes::new();
    for piece in pieces {
        match piece {
            Piece::Pool(pool, ipip_mode, vxlan_mode) => {
                let cidr: Cidr = POOLS[*pool].parse().unwrap();
                // There is no IP-in-IP for IPv6.
                let ipip_mode = if cidr.addr().is_ipv6() { EncapMode::Never } else { *ipip_mode };
                let vxlan_mode = *vxlan_mode;
                let spec = IpPool { ipip_mode, vxlan_mode, ..IpPool::new(cidr) };
                snapshot.insert(Object::new(format!("p{pool}").parse().unwrap(), spec));
            }
            Piece::Node(at, tunnel, tunnel_v6) => {
                let (name, addr, addr_v6) = NODES[*at];
                let ipv6_address = Some(addr_v6.parse().unwrap());
                let spec = Node {
                    bgp: Some(NodeBgp { ipv6_address, ..NodeBgp::at(addr.parse().unwrap()) }),
                    ipv4_vxlan_tunnel_addr: tunnel.map(|tunnel| [10, 0, 9, tunnel].into()),
                    ipv6_vxlan_tunnel_addr: tunnel_v6
                        .map(|tunnel| [0xfd00, 0, 0, 0, 0, 0, 9, tunnel.into()].into()),
                    ..Node::new()
                };
                snapshot.insert(Object::new(name.parse().unwrap(), spec));
            }
            Piece::Block(at, owner, lent) => {
                block(&mut snapshot, BLOCKS[*at], NODES.get(*owner).map_or("stranger", |node| node.0));
                if let Some((ordinal, to)) = lent
                    && !BLOCKS[*at].ends_with("/32")
                {
                    lend(&mut snapshot, BLOCKS[*at], *ordinal, NODES[*to].0);
                }
            }
            Piece::Workload(name, device, addr) => {
                let spec = WorkloadEndpoint {
                    interface_name: Some(format!("cali{device}").parse().unwrap()),
                    ip_networks: vec![addr.parse().unwrap()],
                    ..WorkloadEndpoint::on(node_name("n0"))
                };
                snapshot.insert(Object::new(format!("w{name}").parse().unwrap(), spec));
            }
            Piece::Routes(setting) => {
                let spec = FelixConfiguration {
                    program_cluster_routes: Some(*setting),
                    ..FelixConfiguration::new()
                };
                snapshot.insert(Object::new("default".parse().unwrap(), spec));
            }
            Piece::Learned(to, hop, priority) => {
                let prefix: Cidr = to.parse().unwrap();
                let (_, addr, addr_v6) = NODES[*hop];
                let addr = if prefix.addr().is_ipv6() { addr_v6 } else { addr };
                let hop: IpAddr = addr.split('/').next().unwrap().parse().unwrap();
                let route = LearnedRoute { next_hops: [hop].into(), priority: *priority };
                learned.insert(prefix, route);
            }
            Piece::Around(to, hops, priority) => {
                let next_hops = hops.iter().map(|hop| hop.parse().unwrap()).collect();
                learned.insert(to.parse().unwrap(), LearnedRoute { next_hops, priority: *priority });
            }
        }
    }
    (snapshot, learned)
}

/// A process that has heard everything but what BGP learned.
fn computer(snapshot: &Snapshot) -> Computer {
    let objects =
        |kinds: [Vec<Resource>; 4]| kinds.into_iter().flatten().map(|one| Update::Put(Box::new(one)));
    let resources = objects([
        snapshot.pools.values().map(|one| one.as_ref().clone().into()).collect(),
        snapshot.nodes.values().map(|one| one.as_ref().clone().into()).collect(),
        snapshot.workloads.values().map(|one| one.as_ref().clone().into()).collect(),
        snapshot.felix_configurations.values().map(|one| one.as_ref().clone().into()).collect(),
    ]);
    let blocks = snapshot.blocks.values().map(|block| Update::PutBlock(Box::new(block.clone())));
    let mut computer = Computer::new(node_name("n0"));
    resources.chain(blocks).for_each(|update| computer.apply(&update));
    computer.settle();
    computer
}

/// Something in the kernel that nobody expects.
#[derive(Debug, Clone)]
enum Drift {
    Route { to: u8, priority: u32, protocol: u8, over: u8 },
    StaleVxlan(u32),
    DeviceDown(u8),
    NoDefault,
}

fn drift() -> impl Strategy<Value = Drift> {
    prop_oneof![
        (0..15u8, select(vec![0, 1, 1024]), select(vec![3, 4, PROTOCOL]), 0..5u8)
            .prop_map(|(to, priority, protocol, over)| Drift::Route { to, priority, protocol, over }),
        (4095..4097u32).prop_map(Drift::StaleVxlan),
        (0..3u8).prop_map(Drift::DeviceDown),
        Just(Drift::NoDefault),
    ]
}

fn machine(drifts: &[Drift]) -> FakeKernel {
    let mut kernel = FakeKernel::default();
    let eth0: InterfaceName = "eth0".parse().unwrap();
    kernel.add_link(&eth0, &["172.16.0.10/24".parse().unwrap(), "2001:db8::10/64".parse().unwrap()]);
    let gateway = calico_route::route::Gateway {
        address: "172.16.0.254".parse().unwrap(),
        device: eth0,
        onlink: false,
    };
    let default = Installed { protocol: 4, form: Form::Gateways([gateway].into()) };
    kernel.routes.insert(RouteKey::main("0.0.0.0/0".parse().unwrap(), 0), vec![default]);
    for device in 0..2 {
        kernel.add_link(&format!("cali{device}").parse().unwrap(), &[]);
    }
    for drift in drifts {
        match drift {
            Drift::Route { to, priority, protocol, over } => {
                let form = match over {
                    0 => Form::Blackhole,
                    1 => Form::Device("cali0".parse().unwrap()),
                    2 => Form::Device("cali1".parse().unwrap()),
                    3 => Form::Other(Odd { what: "something odd".to_owned(), ..Odd::default() }),
                    _ => Form::Device("eth0".parse().unwrap()),
                };
                let block = BLOCKS.get(usize::from(*to)).map(|block| (*block).to_owned());
                let prefix = block.unwrap_or_else(|| format!("10.0.0.{to}/32"));
                let key = RouteKey::main(prefix.parse().unwrap(), *priority);
                kernel.routes.entry(key).or_default().push(Installed { protocol: *protocol, form });
            }
            Drift::StaleVxlan(vni) => {
                let params = VxlanParams {
                    vni: *vni,
                    port: 4789,
                    local: None,
                    parent: None,
                    learning: true,
                    others: Vec::new(),
                };
                let change = Change::AddVxlan {
                    device: VXLAN.parse().unwrap(),
                    params,
                    mac: calico_model::Mac([2; 6]),
                    mtu: 1400,
                    pools: Vec::new(),
                };
                kernel.apply(&[change]);
            }
            Drift::NoDefault => {
                kernel.routes.remove(&RouteKey::main("0.0.0.0/0".parse().unwrap(), 0));
            }
            Drift::DeviceDown(device) => {
                kernel.set_link(&format!("cali{device}").parse().unwrap(), LinkState::Down);
            }
        }
    }
    kernel
}

/// What of a kernel matters when two are compared: not the numbers of links, nor settings of what is gone, nor that the
/// kernel's IP-in-IP device stays once it was asked for.
fn essence(actual: &Actual) -> impl PartialEq + std::fmt::Debug + use<> {
    let links: BTreeMap<_, _> = actual
        .host
        .links
        .iter()
        .filter(|(_, link)| link.kind != LinkKind::Ipip || !link.addresses.is_empty())
        .map(|(name, link)| {
            (name.clone(), (link.state, link.mtu, link.mac, link.kind.clone(), link.addresses.clone()))
        })
        .collect();
    (actual.routes.clone(), actual.neighbours.clone(), actual.fdb.clone(), actual.host.foreign.clone(), links)
}

fn reconcile(kernel: &mut FakeKernel, desired: &Desired) {
    let changes = diff(desired, &kernel.read(&desired.ownership));
    for (change, result) in changes.iter().zip(kernel.apply(&changes)) {
        assert_eq!(result, Ok(()), "{change}");
    }
}

/// Reports whether routes wait for a tunnel that cannot be made as the datastore has it, which is told among the problems and
/// nowhere else.
pub(crate) fn lacks_tunnel(desired: &Desired) -> bool {
    let lacking =
        |tunnel: &Tunnel| matches!(tunnel, Tunnel::Vxlan(family) if !desired.vxlan.contains_key(family));
    let lacks = desired.tunnels.keys().any(lacking);
    assert!(!lacks || !desired.problems.is_empty(), "nothing tells of the tunnel");
    lacks
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_a_diff_yields_what_is_wanted_and_a_second_diff_is_empty(
        pieces in proptest::collection::vec(piece(), 0..24),
        drifts in proptest::collection::vec(drift(), 0..8),
    ) {
        let desired = known(&pieces);
        let mut kernel = machine(&drifts);
        reconcile(&mut kernel, &desired);
        let actual = kernel.read(&desired.ownership);
        let after = plan(&desired, &actual);
        prop_assert_eq!(after.changes, vec![]);
        for (key, routes) in &actual.routes {
            prop_assert!(desired.routes.contains_key(key), "{} is left", key);
            prop_assert_eq!(routes.len(), 1);
            prop_assert_eq!(routes[0].protocol, PROTOCOL);
        }
        if after.waiting.is_empty() && !lacks_tunnel(&desired) {
            prop_assert!(actual.routes.keys().eq(desired.routes.keys()));
            prop_assert!(actual.neighbours.keys().eq(desired.neighbours.keys()));
            prop_assert_eq!(actual.fdb.len(), desired.fdb.len());
        }
    }

    #[test]
    fn a_restart_writes_nothing_while_it_is_not_known_what_was_learned(
        pieces in proptest::collection::vec(piece(), 0..24),
        drifts in proptest::collection::vec(drift(), 0..8),
    ) {
        let (snapshot, learned) = told(&pieces);
        // The kernel does not tell which routes were resolved over learned ones themselves, and so are no ways.
        let links: [Cidr; 2] = ["172.16.0.0/24", "2001:db8::/64"].map(|link| link.parse().unwrap());
        let on_link = |hop: &IpAddr| links.iter().any(|link| link.contains(*hop));
        let over_learned = |hop: &IpAddr| !on_link(hop) && learned.keys().any(|to| to.contains(*hop));
        prop_assume!(!learned.values().flat_map(|route| &route.next_hops).any(over_learned));
        let mut kernel = machine(&drifts);
        reconcile(&mut kernel, &compute(&snapshot, &node_name("n0"), &learned));
        let computer = computer(&snapshot);
        let sources = computer.sources();
        let may_be_learned = |to: &Cidr| sources(to) != Some(Source::Datastore);
        let desired = computer.desired();
        let actual = kernel.read(&desired.ownership);
        let mut changes = plan_unlearned(desired, &actual, &may_be_learned).changes;
        // These are left alone.
        changes.retain(|change| !matches!(change, Change::RemoveRoute { key, route }
            if matches!(route.form, Form::Gateways(_)) && may_be_learned(&key.prefix)));
        prop_assert_eq!(changes, vec![]);
    }

    #[test]
    fn what_belongs_to_others_is_untouched(
        pieces in proptest::collection::vec(piece(), 0..24),
        drifts in proptest::collection::vec(drift(), 0..8),
    ) {
        let desired = known(&pieces);
        let mut kernel = machine(&drifts);
        let before = kernel.read(&desired.ownership).host.foreign;
        reconcile(&mut kernel, &desired);
        prop_assert_eq!(&kernel.read(&desired.ownership).host.foreign, &before);
        reconcile(&mut kernel, &Desired::nothing(Ownership::default()));
        let left = kernel.read(&desired.ownership);
        prop_assert_eq!(&left.host.foreign, &before);
        prop_assert!(left.routes.is_empty() && left.neighbours.is_empty() && left.fdb.is_empty());
        prop_assert!(!left.host.links.contains_key(&VXLAN.parse::<InterfaceName>().unwrap()));
    }

    #[test]
    fn any_order_of_the_same_changes_ends_in_the_same_kernel(
        pieces in proptest::collection::vec(piece(), 0..24),
        drifts in proptest::collection::vec(drift(), 0..8),
        seed in proptest::collection::vec(any::<u16>(), 64),
    ) {
        let desired = known(&pieces);
        let mut orderly = machine(&drifts);
        reconcile(&mut orderly, &desired);
        let mut shuffled = machine(&drifts);
        // What could not be done out of order is done in a later pass.
        for _ in 0..4 {
            let mut changes: Vec<_> =
                diff(&desired, &shuffled.read(&desired.ownership)).into_iter().enumerate().collect();
            changes.sort_by_key(|(at, _)| seed[at % seed.len()]);
            let changes: Vec<Change> = changes.into_iter().map(|(_, change)| change).collect();
            shuffled.apply(&changes);
        }
        reconcile(&mut shuffled, &desired);
        prop_assert_eq!(essence(&shuffled.read(&desired.ownership)), essence(&orderly.read(&desired.ownership)));
    }

    #[test]
    fn the_kernel_depends_on_what_is_known_and_not_on_the_way_there(
        pieces in proptest::collection::vec(piece(), 0..24),
        stops in proptest::collection::vec(0..24usize, 0..4),
    ) {
        let desired = known(&pieces);
        // A tunnel that cannot be made as the datastore has it is left as it is where it is.
        prop_assume!(!lacks_tunnel(&desired));
        let mut straight = machine(&[]);
        reconcile(&mut straight, &desired);
        let mut winding = machine(&[]);
        for stop in stops {
            reconcile(&mut winding, &known(&pieces[..stop.min(pieces.len())]));
        }
        reconcile(&mut winding, &desired);
        prop_assert_eq!(essence(&winding.read(&desired.ownership)), essence(&straight.read(&desired.ownership)));
    }

    #[test]
    fn a_diff_may_stop_anywhere_without_wanted_routes_going_dark(
        before in proptest::collection::vec(piece(), 0..16),
        more in proptest::collection::vec(piece(), 0..8),
        cut in 0..40usize,
    ) {
        let first = known(&before);
        let second = known(&[before, more].concat());
        let mut kernel = machine(&[]);
        reconcile(&mut kernel, &first);
        let held = kernel.read(&first.ownership);
        let changes = diff(&second, &held);
        let remade = changes.iter().any(|change| matches!(change, Change::RemoveLink { .. }));
        kernel.apply(&changes[..cut.min(changes.len())]);
        let now = kernel.read(&first.ownership);
        for key in held.routes.keys().filter(|key| second.routes.contains_key(key)) {
            let waits = !plan(&second, &held).waiting.is_empty() || lacks_tunnel(&second);
            prop_assert!(remade || waits || now.routes.contains_key(key), "{} went dark", key);
        }
    }
}
