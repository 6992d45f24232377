//! Clusters as Calico's resources describe them: each node's speaker does what the resources say, on an in-memory wire,
//! and a change of the resources changes only what it must.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_bgp::peers::{self, Secrets};
use calico_bgp::speaker::Password;
use calico_model::name::{Name, NodeName};
use calico_model::resource::bgp::{self, PrefixAdvertisement, SecretKey, ServiceNetwork};
use calico_model::resource::block::StoredBlock;
use calico_model::resource::filter::{FilterAction, FilterRule, MatchOperator};
use calico_model::resource::{
    BgpConfiguration, BgpFilter, BgpPeer, IpPool, IpReservation, Node, NodeBgp, Object, Resource,
};
use calico_model::snapshot::Snapshot;
use calico_model::{AsNumber, Cidr};

use crate::world::{World, asn, ip};

const NODES: [(&str, &str); 3] =
    [("node1", "172.16.6.9"), ("node2", "172.16.6.10"), ("node3", "172.16.6.12")];
/// A router of another AS that node1 peers with, and knows nothing of Calico.
const TOR: &str = "172.16.6.1";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn block(network: &str, owner: &str) -> StoredBlock {
    StoredBlock::on(cidr(network), owner.parse().unwrap())
}

fn rule(network: &str, action: FilterAction) -> FilterRule {
    FilterRule {
        cidr: Some(cidr(network)),
        match_operator: Some(MatchOperator::In),
        ..FilterRule::new(action)
    }
}

fn filter(import: &[FilterRule], export: &[FilterRule]) -> BgpFilter {
    BgpFilter {
        export_v4: export.to_vec(),
        import_v4: import.to_vec(),
        export_v6: Vec::new(),
        import_v6: Vec::new(),
    }
}

/// The peering of node1 with the router.
fn rack() -> BgpPeer {
    BgpPeer {
        node: Some("node1".parse().unwrap()),
        peer_ip: Some(TOR.parse().unwrap()),
        as_number: AsNumber::new(65001),
        ..BgpPeer::new()
    }
}

fn password(key: &str) -> Option<bgp::Password> {
    let key = SecretKey { name: "bgp".to_owned(), key: key.to_owned(), optional: None };
    Some(bgp::Password { secret_key_ref: Some(key) })
}

/// A change of the resources, and what it is.
type Change = (&'static str, fn(&mut Cluster));

struct Cluster {
    world: World,
    snapshot: Snapshot,
    secrets: Secrets,
}

impl Cluster {
    /// Three nodes in a mesh with a block each, and a router that node1 peers with.
    fn new() -> Self {
        let mut cluster =
            Self { world: World::new(), snapshot: Snapshot::default(), secrets: Secrets::default() };
        for (at, (node, address)) in NODES.into_iter().enumerate() {
            let mut spec = Node::new();
            spec.bgp = Some(NodeBgp::at(format!("{address}/24").parse().unwrap()));
            cluster.put(Object::new(name(node), spec));
            let block = block(&format!("192.168.{at}.0/26"), node);
            cluster.snapshot.blocks.insert(block.cidr, block);
            cluster.world.add(address, 64512);
        }
        cluster.put(Object::new(name("pool"), IpPool::new(cidr("192.168.0.0/16"))));
        cluster.put(Object::new(name("rack"), rack()));
        cluster.world.add(TOR, 65001);
        let mut node1 = calico_bgp::PeerConfig::new(ip(NODES[0].1), asn(64512), asn(65001));
        node1.local_address = Some(ip(TOR));
        cluster.world.add_peer(TOR, node1);
        cluster.world.originate(TOR, &["0.0.0.0/0", "192.168.200.0/24", "172.16.6.10/32", "10.0.0.0/8"]);
        cluster.settle();
        cluster
    }

    fn put(&mut self, resource: impl Into<Resource>) {
        self.snapshot.insert(resource);
    }

    fn configure(&mut self, change: impl FnOnce(&mut BgpConfiguration)) {
        let mut configuration = self.snapshot.bgp_configuration();
        change(&mut configuration);
        self.put(Object::new(name("default"), configuration));
    }

    fn know(&mut self, key: &str, text: &str) {
        let password = Password::new(text).unwrap();
        self.secrets = [(("bgp".to_owned(), key.to_owned()), password)].into_iter().collect();
    }

    /// Has every node do what the resources say by now, and lets things settle.
    fn settle(&mut self) {
        for (node, address) in NODES {
            let node: NodeName = node.parse().unwrap();
            let plan = peers::plan(&self.snapshot, &node, &self.secrets).unwrap();
            let now = self.world.now;
            self.world.set_peers(address, plan.peers);
            self.world.speaker(address).set_originated(plan.originated, now);
        }
        self.world.run_secs(30);
    }

    fn problems(&self) -> Vec<String> {
        let plan = peers::plan(&self.snapshot, &"node1".parse().unwrap(), &self.secrets).unwrap();
        plan.problems.iter().map(ToString::to_string).collect()
    }

    /// How often each session came up, by both ends.
    fn sessions(&mut self) -> BTreeMap<(IpAddr, IpAddr), u64> {
        let of = |(at, speaker): (&IpAddr, &calico_bgp::Speaker)| {
            let at = *at;
            speaker.status().into_iter().map(move |peer| ((at, peer.address), peer.counters.established))
        };
        self.world.speakers.iter().flat_map(of).collect()
    }

    /// Makes a change, and returns the sessions that came up again, each once: by its smaller end.
    fn reset_by(&mut self, change: impl FnOnce(&mut Self)) -> Vec<(String, String)> {
        let before = self.sessions();
        assert!(before.values().all(|count| *count > 0), "all are up: {before:?}");
        change(self);
        self.settle();
        let after = self.sessions();
        assert!(after.values().all(|count| *count > 0), "all are up again: {after:?}");
        let again = after.iter().filter(|(ends, count)| before.get(ends).is_some_and(|held| held < count));
        let named = again.filter(|((a, b), _)| a < b).map(|((a, b), _)| (a.to_string(), b.to_string()));
        named.collect()
    }

    fn told_to_router(&mut self) -> Vec<String> {
        self.world.learned_text(TOR).iter().map(|route| route.split(' ').next().unwrap().to_owned()).collect()
    }
}

#[test]
fn what_has_nothing_to_do_with_sessions_resets_none() {
    let mut cluster = Cluster::new();
    let changes: [Change; 11] = [
        ("a pool", |c| c.put(Object::new(name("more"), IpPool::new(cidr("10.9.0.0/16"))))),
        ("a pool that is not exported", |c| {
            let mut pool = IpPool::new(cidr("192.168.0.0/16"));
            pool.disable_bgp_export = true;
            c.put(Object::new(name("pool"), pool));
        }),
        ("a reservation", |c| {
            c.put(Object::new(name("kept"), IpReservation { reserved_cidrs: Vec::new() }));
        }),
        ("a block", |c| {
            c.snapshot.blocks.insert(cidr("192.168.9.0/26"), block("192.168.9.0/26", "node1"));
        }),
        ("a filter that nobody names", |c| c.put(Object::new(name("filter"), filter(&[], &[])))),
        ("a filter on a peer", |c| {
            let peer = BgpPeer { filters: vec![name("filter")], ..rack() };
            c.put(Object::new(name("rack"), peer));
        }),
        ("a rule in a filter", |c| {
            let rules = [rule("192.168.0.0/26", FilterAction::Reject)];
            c.put(Object::new(name("filter"), filter(&rules, &rules)));
        }),
        ("the next hop", |c| {
            let peer = BgpPeer { next_hop_mode: Some(bgp::NextHopMode::Keep), ..rack() };
            c.put(Object::new(name("rack"), peer));
        }),
        ("communities", |c| {
            c.configure(|configuration| {
                configuration.prefix_advertisements = vec![PrefixAdvertisement {
                    cidr: cidr("192.168.0.0/16"),
                    communities: vec!["64512:7".to_owned()],
                }];
            });
        }),
        ("service networks", |c| {
            c.configure(|configuration| {
                configuration.service_cluster_ips = vec![ServiceNetwork { cidr: cidr("10.96.0.0/16") }];
            });
        }),
        ("priorities and ports", |c| {
            c.configure(|configuration| {
                configuration.ipv4_normal_route_priority = Some(2048);
                configuration.listen_port = Some(1790);
            });
        }),
    ];
    for (what, change) in changes {
        assert_eq!(cluster.reset_by(change), [], "{what}");
    }
}

#[test]
fn a_password_resets_the_sessions_that_have_it_and_no_others() {
    let mut cluster = Cluster::new();
    let rack_alone = [(TOR.to_owned(), NODES[0].1.to_owned())];
    let with_password = |c: &mut Cluster| {
        c.know("rack", "first");
        c.put(Object::new(name("rack"), BgpPeer { password: password("rack"), ..rack() }));
    };
    assert_eq!(cluster.reset_by(with_password), rack_alone);
    assert_eq!(cluster.reset_by(|c| c.know("rack", "second")), rack_alone, "another password");
    assert_eq!(cluster.reset_by(|c| c.put(Object::new(name("rack"), rack()))), rack_alone, "none any more");
    let mesh = cluster.reset_by(|c| {
        c.know("mesh", "third");
        c.configure(|configuration| configuration.node_mesh_password = password("mesh"));
    });
    assert_eq!(mesh.len(), 3, "those of the mesh: {mesh:?}");
    assert!(!mesh.contains(&rack_alone[0]));
}

#[test]
fn a_new_node_and_one_that_leaves_are_nothing_to_the_sessions_of_others() {
    let mut cluster = Cluster::new();
    let mut spec = Node::new();
    spec.bgp = Some(NodeBgp::at("172.16.6.50/24".parse().unwrap()));
    let others = cluster.sessions();
    cluster.put(Object::new(name("node4"), spec));
    cluster.settle();
    let after = cluster.sessions();
    assert!(others.iter().all(|(ends, count)| after[ends] == *count), "{after:?}");
    assert_eq!(after[&(ip(NODES[0].1), ip("172.16.6.50"))], 0, "expected, and not there yet");
    cluster.snapshot.nodes.remove(&name("node4").into());
    cluster.settle();
    assert_eq!(cluster.sessions(), others);
}

#[test]
fn the_mesh_goes_and_comes_and_the_other_sessions_stay() {
    let mut cluster = Cluster::new();
    let router = (ip(TOR), ip(NODES[0].1));
    cluster.configure(|configuration| configuration.node_to_node_mesh_enabled = Some(false));
    cluster.settle();
    assert_eq!(cluster.sessions().len(), 2, "that with the router, by both ends");
    assert_eq!(cluster.sessions()[&router], 1);
    cluster.configure(|configuration| configuration.node_to_node_mesh_enabled = None);
    cluster.settle();
    assert_eq!(cluster.sessions().len(), 8);
    assert_eq!(cluster.sessions()[&router], 1);
}

#[test]
fn a_restart_time_resets_the_sessions_it_is_for() {
    let mut cluster = Cluster::new();
    let time = Some("60s".parse().unwrap());
    let rack = BgpPeer { max_restart_time: time.clone(), ..rack() };
    let reset = cluster.reset_by(|c| c.put(Object::new(name("rack"), rack)));
    assert_eq!(reset, [(TOR.to_owned(), NODES[0].1.to_owned())]);
    let reset = cluster.reset_by(|c| c.configure(|c| c.node_mesh_max_restart_time = time));
    assert_eq!(reset.len(), 3);
}

#[test]
fn what_is_missing_or_wrong_costs_only_what_asks_for_it_and_is_reported() {
    let mut cluster = Cluster::new();
    let before = cluster.sessions();
    cluster.put(Object::new(
        name("other"),
        BgpPeer {
            peer_ip: Some("172.16.6.77".parse().unwrap()),
            as_number: AsNumber::new(65009),
            password: password("nowhere"),
            ..BgpPeer::new()
        },
    ));
    cluster.put(Object::new(name("rack"), BgpPeer { filters: vec![name("gone")], ..rack() }));
    cluster.settle();
    assert_eq!(cluster.sessions(), before, "no session is reset, and none is opened without its password");
    assert_eq!(
        cluster.told_to_router(),
        Vec::<String>::new(),
        "a filter that is not there lets nothing pass"
    );
    assert_eq!(
        cluster.problems(),
        [
            "nothing is told to or taken from peers with the filter gone: there is no valid BGPFilter of this name",
            "the session with Global_172_16_6_77 is left out: the Secret bgp has no usable entry nowhere; a password \
         has 1 to 80 octets",
        ]
    );
    cluster.put(Object::new(name("gone"), filter(&[], &[])));
    cluster.settle();
    assert_eq!(cluster.sessions(), before);
    assert_eq!(cluster.told_to_router().len(), 3, "and is told as before once it is");
}

#[test]
fn only_blocks_and_what_is_advertised_leave_the_cluster_and_its_own_networks_do_not_come_in() {
    let mut cluster = Cluster::new();
    let all = ["192.168.0.0/26", "192.168.1.0/26", "192.168.2.0/26"];
    assert_eq!(cluster.told_to_router(), all);
    let gateways: Vec<String> = cluster.world.learned_text("172.16.6.9");
    let from_router: Vec<&String> = gateways.iter().filter(|route| route.ends_with(TOR)).collect();
    assert_eq!(from_router, ["0.0.0.0/0 via 172.16.6.1", "10.0.0.0/8 via 172.16.6.1"]);
    let node2 = cluster.world.learned_text("172.16.6.10");
    assert_eq!(node2, ["192.168.0.0/26 via 172.16.6.9", "192.168.2.0/26 via 172.16.6.12"]);

    let rules = [rule("192.168.200.0/24", FilterAction::Accept), rule("10.0.0.0/8", FilterAction::Reject)];
    let exported = [rule("192.168.1.0/26", FilterAction::Reject)];
    cluster.put(Object::new(name("filter"), filter(&rules, &exported)));
    cluster.put(Object::new(name("rack"), BgpPeer { filters: vec![name("filter")], ..rack() }));
    cluster.configure(|configuration| {
        configuration.service_cluster_ips = vec![ServiceNetwork { cidr: cidr("10.96.0.0/16") }];
    });
    cluster.settle();
    assert_eq!(cluster.told_to_router(), ["10.96.0.0/16", "192.168.0.0/26", "192.168.2.0/26"]);
    let gateways: Vec<String> = cluster.world.learned_text("172.16.6.9");
    let from_router: Vec<&String> = gateways.iter().filter(|route| route.ends_with(TOR)).collect();
    assert_eq!(from_router, ["0.0.0.0/0 via 172.16.6.1", "192.168.200.0/24 via 172.16.6.1"]);
    let expected = [
        "192.168.0.0/26 via 172.16.6.9",
        "192.168.1.0/26 via 172.16.6.10",
        "192.168.200.0/24 via 172.16.6.1",
    ];
    assert_eq!(cluster.world.learned_text("172.16.6.12"), expected, "a route inside a pool is passed on");
}

#[test]
fn a_route_that_came_without_a_preference_is_of_no_ordinary_priority() {
    let mut cluster = Cluster::new();
    let ordinary = FilterRule { priority: Some(1024), ..FilterRule::new(FilterAction::Reject) };
    let taken = rule("192.168.200.0/24", FilterAction::Accept);
    cluster.put(Object::new(name("filter"), filter(&[ordinary, taken], &[])));
    cluster.put(Object::new(name("rack"), BgpPeer { filters: vec![name("filter")], ..rack() }));
    cluster.settle();
    const OF_BGP: Option<u32> = Some(0x7fff_ffff - 100);
    let learned = cluster.world.learned(NODES[0].1);
    let from_router = learned.values().filter(|route| route.next_hops.contains(&ip(TOR)));
    assert_eq!(from_router.map(|route| route.priority).collect::<Vec<_>>(), [OF_BGP; 3]);
    let passed_on = cluster.world.learned(NODES[1].1);
    assert_eq!(passed_on[&cidr("192.168.200.0/24")].priority, OF_BGP, "the same on every node");
    assert_eq!(passed_on[&cidr("192.168.2.0/26")].priority, Some(1024));
}
