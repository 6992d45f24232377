//! What is wanted, worked out change by change, against what it is by definition.

use std::collections::BTreeSet;
use std::sync::Arc;

use calico_model::learned::{LearnedRoute, LearnedRoutes};
use calico_model::resource::bgp::ServiceNetwork;
use calico_model::resource::block::{StoredAttributes, StoredBlock};
use calico_model::resource::{
    BgpConfiguration, EncapMode, FelixConfiguration, IpPool, Kind, Node, NodeBgp, Object, ObjectId,
    ProgramClusterRoutes, Resource, ResourceKey, WorkloadEndpoint,
};
use calico_model::{Cidr, Name, NodeName, Snapshot, Update};
use calico_route::actual::Knowledge;
use calico_route::departed::Departures;
use calico_route::fake::FakeKernel;
use calico_route::route::{Form, Gateway, Installed, RouteKey};
use calico_route::{Computer, Delta, Desired, compute, plan, plan_delta};
use proptest::prelude::*;
use proptest::sample::select;

use crate::cluster::node_name;

const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];
/// Two subnets, an address that two nodes may have, and one inside a block.
const ADDRESSES: [&str; 6] =
    ["172.16.0.10/24", "172.16.0.11/24", "172.16.0.11/16", "172.16.1.12/24", "10.0.0.5/24", "10.1.0.1/32"];
const ADDRESSES_V6: [&str; 3] = ["2001:db8::1/64", "2001:db8::2/64", "2001:db8:1::3/64"];
const BLOCKS: [&str; 7] =
    ["10.0.0.0/30", "10.0.0.4/30", "10.0.0.5/32", "10.1.0.0/30", "10.1.0.0/31", "10.2.0.0/30", "fd00::/126"];
const POOLS: [&str; 4] = ["10.0.0.0/16", "10.1.0.0/16", "10.1.0.0/24", "fd00::/64"];
const WORKLOADS: [&str; 6] = ["10.0.0.1", "10.0.0.5", "10.1.0.1", "172.16.0.11", "fd00::1", "2001:db8::2"];
const LEARNED: [&str; 10] = [
    "10.0.0.0/29",
    "10.0.0.0/30",
    "10.0.0.5/32",
    "10.2.0.0/30",
    "0.0.0.0/0",
    "fd00::/126",
    "172.16.1.12/32",
    "172.16.0.0/23",
    "10.1.0.1/32",
    "2001:db8:1::/64",
];

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Told(Box<Update>),
    Learned(LearnedRoutes),
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn removed(kind: Kind, text: &str) -> Update {
    let namespace = (kind == Kind::WorkloadEndpoint).then(|| "default".parse().unwrap());
    Update::Removed(ResourceKey { kind, id: ObjectId { namespace, name: name(text) } })
}

fn put(resource: impl Into<Resource>) -> Update {
    Update::Put(Box::new(resource.into()))
}

fn sometimes<T: std::fmt::Debug>(some: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    proptest::option::weighted(0.75, some)
}

fn node() -> impl Strategy<Value = Update> {
    let stack = (
        sometimes(select(&ADDRESSES[..])),
        sometimes(0..3u8),
        sometimes(select(&ADDRESSES_V6[..])),
        sometimes(0..3u8),
        proptest::option::of(1..3u8),
    );
    (select(&NODES[..]), sometimes(stack)).prop_map(|(at, stack)| {
        let Some((v4, tunnel, v6, tunnel_v6, mac)) = stack else { return removed(Kind::Node, at) };
        let bgp = NodeBgp {
            ipv4_address: v4.map(|addr| addr.parse().unwrap()),
            ipv6_address: v6.map(|addr| addr.parse().unwrap()),
            ..NodeBgp::at("172.16.0.1/24".parse().unwrap())
        };
        put(Object::new(
            name(at),
            Node {
                bgp: Some(bgp),
                ipv4_vxlan_tunnel_addr: tunnel.map(|tunnel| [10, 0, 9, tunnel].into()),
                ipv6_vxlan_tunnel_addr: tunnel_v6
                    .map(|tunnel| format!("fd00::{}", tunnel + 2).parse().unwrap()),
                vxlan_tunnel_mac: mac.map(|mac| calico_model::Mac([2, 0, 0, 0, 0, mac])),
                ..Node::new()
            },
        ))
    })
}

fn pool() -> impl Strategy<Value = Update> {
    let mode = || select(vec![EncapMode::Never, EncapMode::Always, EncapMode::CrossSubnet]);
    (0..POOLS.len(), sometimes((mode(), mode()))).prop_map(|(at, modes)| {
        let text = format!("pool{at}");
        let Some((ipip, vxlan_mode)) = modes else { return removed(Kind::IpPool, &text) };
        let cidr: Cidr = POOLS[at].parse().unwrap();
        let ipip_mode = if cidr.addr().is_ipv4() { ipip } else { EncapMode::Never };
        put(Object::new(name(&text), IpPool { ipip_mode, vxlan_mode, ..IpPool::new(cidr) }))
    })
}

fn block() -> impl Strategy<Value = Update> {
    let owner = proptest::option::of(select(vec!["n0", "n1", "n2", "n3", "stranger"]));
    let node = || select(vec!["n0", "n1", "n2", "n3", "stranger"]);
    let lent = proptest::option::of((0..4usize, node(), proptest::option::of(node())));
    (select(&BLOCKS[..]), sometimes((owner, lent)), any::<bool>()).prop_map(|(cidr, held, deleted)| {
        let cidr: Cidr = cidr.parse().unwrap();
        let Some((owner, lent)) = held else { return Update::RemovedBlock(cidr) };
        let mut block = StoredBlock::on(cidr, node_name(owner.unwrap_or("nobody")));
        block.affinity = block.affinity.filter(|_| owner.is_some());
        let size = block.allocations.len();
        block.deleted = deleted && size == 2;
        if let Some((ordinal, to, from)) = lent {
            block.allocations[ordinal % size] = Some(0);
            block.attributes.push(StoredAttributes {
                handle_id: None,
                secondary: [("node".to_owned(), to.to_owned())].into(),
                alternate: from.map(|from| ("node".to_owned(), from.to_owned())).into_iter().collect(),
                released_at: None,
                unknown: Default::default(),
            });
        }
        Update::PutBlock(Box::new(block))
    })
}

fn workload() -> impl Strategy<Value = Update> {
    let spec = (
        select(vec!["n0", "n0", "n0", "n1"]),
        sometimes(0..3u8),
        proptest::collection::vec(select(&WORKLOADS[..]), 0..3),
        proptest::option::of(1..3u8),
        any::<bool>(),
        proptest::option::of(0..2u8),
    );
    (0..4u8, sometimes(spec)).prop_map(|(at, spec)| {
        let text = format!("w{at}");
        let Some((node, device, addrs, mac, spoofs, born)) = spec else {
            return removed(Kind::WorkloadEndpoint, &text);
        };
        let mut object = Object::new(
            name(&text),
            WorkloadEndpoint {
                interface_name: device.map(|device| format!("cali{device}").parse().unwrap()),
                ip_networks: addrs.iter().map(|addr| Cidr::host(addr.parse().unwrap())).collect(),
                mac: mac.map(|mac| calico_model::Mac([6, 0, 0, 0, 0, mac])),
                allow_spoofed_source_prefixes: spoofs
                    .then(|| "8.8.8.0/24".parse().unwrap())
                    .into_iter()
                    .collect(),
                ..WorkloadEndpoint::on(node_name(node))
            },
        );
        object.metadata.namespace = Some("default".parse().unwrap());
        object.metadata.creation_timestamp = born.map(|day| format!("2026-01-0{day}T00:00:00Z"));
        put(object)
    })
}

fn configuration() -> impl Strategy<Value = Update> {
    let setting = select(vec![
        ProgramClusterRoutes::Disabled,
        ProgramClusterRoutes::Enabled,
        ProgramClusterRoutes::IpipOnly,
        ProgramClusterRoutes::NoEncapOnly,
    ]);
    let spec = (
        proptest::option::of(any::<bool>()),
        proptest::option::of(setting),
        proptest::option::of(7..9u32),
        proptest::option::of(4095..4097u32),
        proptest::option::of(select(vec![100u16, 1400, 9000])),
    );
    let invalid = proptest::bool::weighted(0.2);
    (select(vec!["default", "node.n0", "node.n1"]), sometimes(spec), invalid).prop_map(
        |(text, spec, invalid)| {
            let Some((ipv6_support, program_cluster_routes, priority, vxlan_vni, vxlan_mtu)) = spec else {
                return removed(Kind::FelixConfiguration, text);
            };
            let spec = FelixConfiguration {
                ipv6_support,
                program_cluster_routes,
                ipv4_normal_route_priority: priority,
                vxlan_vni,
                vxlan_mtu,
                ..FelixConfiguration::new()
            };
            let sound: Resource = Object::new(name(text), spec).into();
            if invalid {
                let (key, closed) = (sound.key(), Some(Box::new(sound)));
                Update::Invalid { key, problem: "odd".to_owned(), closed }
            } else {
                put(sound)
            }
        },
    )
}

fn services() -> impl Strategy<Value = Update> {
    sometimes(select(vec!["10.0.0.0/29", "10.2.0.0/16"])).prop_map(|network| {
        let Some(network) = network else { return removed(Kind::BgpConfiguration, "default") };
        let service_external_ips = vec![ServiceNetwork { cidr: network.parse().unwrap() }];
        put(Object::new(
            name("default"),
            BgpConfiguration { service_external_ips, ..BgpConfiguration::new() },
        ))
    })
}

fn learned() -> impl Strategy<Value = LearnedRoutes> {
    let hop = select(vec![
        "172.16.0.11",
        "172.16.1.12",
        "172.16.1.13",
        "172.16.0.250",
        "172.16.0.10",
        "169.254.0.9",
        "2001:db8::2",
        WORKLOADS[0],
        WORKLOADS[1],
    ]);
    let route = (proptest::collection::btree_set(hop, 1..3), proptest::option::of(7..9u32));
    proptest::collection::btree_map(select(&LEARNED[..]), route, 0..4).prop_map(|routes| {
        let read = |(prefix, (hops, priority)): (&str, (BTreeSet<&str>, Option<u32>))| {
            let next_hops = hops.iter().map(|hop| hop.parse().unwrap()).collect();
            (prefix.parse().unwrap(), LearnedRoute { next_hops, priority })
        };
        routes.into_iter().map(read).collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    let told = |update| Step::Told(Box::new(update));
    let nothing = select(vec![
        Update::InSync,
        Update::InvalidBlock { cidr: BLOCKS[0].parse().unwrap(), problem: "odd".to_owned() },
        Update::Invalid {
            key: ResourceKey { kind: Kind::Node, id: ObjectId { namespace: None, name: name("n1") } },
            problem: "odd".to_owned(),
            closed: None,
        },
    ]);
    prop_oneof![
        6 => node().prop_map(told),
        3 => pool().prop_map(told),
        6 => block().prop_map(told),
        6 => workload().prop_map(told),
        2 => configuration().prop_map(told),
        1 => services().prop_map(told),
        1 => nothing.prop_map(told),
        3 => learned().prop_map(Step::Learned),
    ]
}

/// A snapshot and a computer that are told the same.
struct Pair {
    node: NodeName,
    snapshot: Snapshot,
    learned: Arc<LearnedRoutes>,
    computer: Computer,
}

impl Pair {
    fn new() -> Self {
        let node = node_name("n0");
        let computer = Computer::new(node.clone());
        Self { node, snapshot: Snapshot::default(), learned: Arc::default(), computer }
    }

    fn tell(&mut self, step: &Step) {
        match step {
            Step::Told(update) => {
                self.computer.apply(update);
                self.snapshot.apply((**update).clone());
            }
            Step::Learned(learned) => {
                self.learned = Arc::new(learned.clone());
                self.computer.learn(Arc::clone(&self.learned));
            }
        }
    }

    fn definition(&self) -> Desired {
        compute(&self.snapshot, &self.node, &self.learned)
    }
}

fn gateway(address: &str) -> Gateway {
    Gateway { address: address.parse().unwrap(), device: "eth0".parse().unwrap(), onlink: false }
}

/// The entries that differ, as a delta says it.
fn difference(before: &Desired, after: &Desired) -> Delta {
    fn keys<K: Ord + Clone, V: PartialEq>(
        before: &std::collections::BTreeMap<K, V>,
        after: &std::collections::BTreeMap<K, V>,
    ) -> BTreeSet<K> {
        before.keys().chain(after.keys()).filter(|key| before.get(key) != after.get(key)).cloned().collect()
    }
    Delta {
        everything: false,
        routes: keys(&before.routes, &after.routes),
        neighbours: keys(&before.neighbours, &after.neighbours),
        fdb: keys(&before.fdb, &after.fdb),
        sysctls: keys(&before.sysctls, &after.sysctls),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn change_by_change_is_the_same_as_at_once_and_a_delta_is_what_differs(
        steps in proptest::collection::vec((step(), any::<bool>()), 0..48),
    ) {
        let mut pair = Pair::new();
        pair.computer.settle();
        let mut before = pair.computer.desired().clone();
        for (step, settle) in &steps {
            pair.tell(step);
            if !settle {
                continue;
            }
            let delta = pair.computer.settle();
            let after = pair.computer.desired().clone();
            prop_assert_eq!(&after, &pair.definition());
            if !delta.everything {
                prop_assert_eq!(&delta, &difference(&before, &after));
            }
            prop_assert!(pair.computer.settle().is_empty());
            before = after;
        }
        pair.computer.settle();
        prop_assert_eq!(pair.computer.desired(), &pair.definition());
    }

    #[test]
    fn any_order_of_the_same_updates_ends_in_the_same(
        steps in proptest::collection::vec(step(), 0..32),
        order in proptest::collection::vec(any::<u16>(), 32),
    ) {
        // Of each object only the last update, so that the order does not matter to the datastore either.
        let mut pair = Pair::new();
        steps.iter().for_each(|step| pair.tell(step));
        let snapshot = &pair.snapshot;
        let mut last: Vec<Step> = [
            snapshot.pools.values().map(|object| put(object.clone())).collect::<Vec<_>>(),
            snapshot.nodes.values().map(|object| put(object.clone())).collect(),
            snapshot.workloads.values().map(|object| put(object.clone())).collect(),
            snapshot.felix_configurations.values().map(|object| put(object.clone())).collect(),
            snapshot.bgp_configurations.values().map(|object| put(object.clone())).collect(),
            snapshot.blocks.values().map(|block| Update::PutBlock(Box::new(block.clone()))).collect(),
        ]
        .concat()
        .into_iter()
        .map(|update| Step::Told(Box::new(update)))
        .chain([Step::Learned((*pair.learned).clone())])
        .collect();
        let ended = |steps: &[Step]| {
            let mut pair = Pair::new();
            for (step, settle) in steps.iter().zip(order.iter().cycle()) {
                pair.tell(step);
                if settle % 2 == 0 {
                    pair.computer.settle();
                }
            }
            pair.computer.settle();
            pair.computer.desired().clone()
        };
        let expected = pair.definition();
        prop_assert_eq!(&ended(&last), &expected);
        last.reverse();
        prop_assert_eq!(&ended(&last), &expected);
        let mut keys = order.iter().cycle();
        last.sort_by_cached_key(|_| keys.next());
        prop_assert_eq!(&ended(&last), &expected);
    }

    #[test]
    fn the_plan_of_a_delta_is_the_plan_of_everything(
        steps in proptest::collection::vec(step(), 0..24),
        more in proptest::collection::vec(step(), 1..4),
        managed in proptest::option::of(7..1026u32),
    ) {
        let mut pair = Pair::new();
        steps.iter().for_each(|step| pair.tell(step));
        pair.computer.settle();
        let mut kernel = FakeKernel::default();
        if let Some(metric) = managed {
            let default = Form::Gateways([gateway("172.16.0.254")].into());
            let key = RouteKey::main("0.0.0.0/0".parse().unwrap(), metric);
            kernel.routes.insert(key, vec![Installed { protocol: 4, form: default }]);
        }
        kernel.add_link(&"eth0".parse().unwrap(), &["172.16.0.10/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()]);
        (0..3).for_each(|device| kernel.add_link(&format!("cali{device}").parse().unwrap(), &[]));
        let before = pair.computer.desired().clone();
        kernel.apply(&plan(&before, &kernel.read(&before.ownership)).changes);
        let mut actual = kernel.read(&before.ownership);
        let settled = plan(&before, &actual);
        prop_assume!(settled.changes.is_empty());
        let mut departures = Departures::default();
        departures.pass(&before, &actual, &[]);
        more.iter().for_each(|step| pair.tell(step));
        let delta = pair.computer.settle();
        let desired = pair.computer.desired();
        let short = plan_delta(desired, &actual, &delta, &settled.waiting);
        // Where the node waits for something else everything is looked at.
        prop_assume!(short.waiting.node == settled.waiting.node);
        prop_assert_eq!(&short, &plan(desired, &actual));
        prop_assert_eq!(
            departures.clone().pass_delta(desired, &actual, &short.changes, &delta),
            departures.pass(desired, &actual, &short.changes)
        );

        // And what is remembered of the kernel afterwards is what it holds.
        let kept = short.changes.iter().all(|change| actual.made(change) == Knowledge::Kept);
        if kernel.apply(&short.changes).iter().all(Result::is_ok) {
            prop_assert!(!kept || actual == kernel.read(&desired.ownership));
        } else {
            // An IPv6 gateway that a workload had is refused as long as the workload's route is there, which goes last.
            let rest = plan(desired, &kernel.read(&desired.ownership)).changes;
            prop_assert!(kernel.apply(&rest).iter().all(Result::is_ok));
        }
    }
}
