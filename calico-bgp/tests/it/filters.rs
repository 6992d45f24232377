//! BGPFilters of a datastore on live sessions with BIRD: what each match and operation does to routes of a router, and to
//! what another one is told.

use calico_bgp::net::{self, Handle};
use calico_bgp::peers::{self, Plan, Secrets};
use calico_model::resource::block::StoredBlock;
use calico_model::resource::filter::{
    AddCommunity, CommunityMatch, FilterAction, FilterOperation, FilterRule, MatchOperator, PeerType,
    PrefixLength, PrependAsPath, RouteSource, SetPriority,
};
use calico_model::resource::{BgpConfiguration, BgpFilter, BgpPeer, IpPool, Node, NodeBgp, Object};
use calico_model::{AsNumber, Snapshot};

use crate::lab::{Bird, Namespace, wait_for_routes, wait_until_up};

/// A router that tells routes with communities and paths of many kinds.
const TELLER: &str = "
router id 10.99.1.2;
protocol static {
  ipv4;
  route 10.1.0.0/16 blackhole { bgp_community.add((65001,1)); };
  route 10.2.0.0/16 blackhole { bgp_community.add((65001,2)); };
  route 10.3.0.0/16 blackhole { bgp_large_community.add((65001,2,3)); };
  route 10.4.0.0/16 blackhole { bgp_path.prepend(65003); };
  route 10.5.16.0/20 blackhole;
  route 10.5.16.0/28 blackhole;
  route 10.6.0.0/16 blackhole;
}
protocol bgp calico {
  local 10.99.1.2 as 65001; neighbor 10.99.1.1 as 64512;
  connect delay time 1; connect retry time 1; error wait time 1,2;
  ipv4 { import all; export all; next hop self; };
}
";

const HEARER: &str = "
router id 10.99.2.2;
protocol bgp calico {
  local 10.99.2.2 as 65002; neighbor 10.99.2.1 as 64512;
  connect delay time 1; connect retry time 1; error wait time 1,2;
  ipv4 { import all; export none; };
}
";

fn asn(number: u32) -> AsNumber {
    AsNumber::new(number).unwrap()
}

fn within(network: &str, action: FilterAction) -> FilterRule {
    FilterRule {
        cidr: Some(network.parse().unwrap()),
        match_operator: Some(MatchOperator::In),
        ..FilterRule::new(action)
    }
}

fn carries(community: &str) -> Option<CommunityMatch> {
    Some(CommunityMatch { values: vec![community.parse().unwrap()] })
}

const NOTHING: FilterOperation =
    FilterOperation { add_community: None, prepend_as_path: None, set_priority: None };

fn add(community: &str) -> FilterOperation {
    let value = community.parse().unwrap();
    FilterOperation { add_community: Some(AddCommunity { value }), ..NOTHING }
}

fn prepend(numbers: &[u32]) -> FilterOperation {
    let prefix = numbers.iter().copied().map(asn).collect();
    FilterOperation { prepend_as_path: Some(PrependAsPath { prefix }), ..NOTHING }
}

fn set_priority(value: u32) -> FilterOperation {
    FilterOperation { set_priority: Some(SetPriority { value }), ..NOTHING }
}

/// What is taken from the router that tells.
fn import() -> Vec<FilterRule> {
    vec![
        FilterRule { communities: carries("65001:2"), ..FilterRule::new(FilterAction::Reject) },
        FilterRule { as_path_prefix: vec![asn(65001), asn(65003)], ..FilterRule::new(FilterAction::Reject) },
        FilterRule {
            communities: carries("65001:1"),
            peer_type: Some(PeerType::External),
            operations: vec![set_priority(512)],
            ..FilterRule::new(FilterAction::Accept)
        },
        FilterRule {
            communities: carries("65001:2:3"),
            operations: vec![add("64512:5"), prepend(&[65010, 65011])],
            ..FilterRule::new(FilterAction::Accept)
        },
        FilterRule {
            prefix_length: Some(PrefixLength { min: Some(24), max: None }),
            ..within("10.5.0.0/16", FilterAction::Reject)
        },
        FilterRule { peer_type: Some(PeerType::Internal), ..FilterRule::new(FilterAction::Reject) },
    ]
}

/// What the other router is told, with this said of routes with priority 512.
fn export(preferred: FilterAction) -> Vec<FilterRule> {
    let peers = Some(RouteSource::RemotePeers);
    let accepts = preferred == FilterAction::Accept;
    vec![
        FilterRule {
            source: peers,
            priority: Some(512),
            operations: if accepts { vec![add("65000:512"), add("65000:5:12")] } else { Vec::new() },
            ..FilterRule::new(preferred)
        },
        FilterRule {
            source: peers,
            communities: carries("64512:5"),
            operations: vec![prepend(&[65020])],
            ..FilterRule::new(FilterAction::Accept)
        },
        FilterRule { source: peers, ..FilterRule::new(FilterAction::Reject) },
    ]
}

fn plan(preferred: FilterAction) -> Plan {
    let mut snapshot = Snapshot::default();
    let mut node = Node::new();
    node.bgp = Some(NodeBgp::at("10.99.1.1/24".parse().unwrap()));
    snapshot.insert(Object::new("node1".parse().unwrap(), node));
    snapshot.insert(Object::new("pool".parse().unwrap(), IpPool::new("192.168.0.0/16".parse().unwrap())));
    let block = StoredBlock::on("192.168.1.0/26".parse().unwrap(), "node1".parse().unwrap());
    snapshot.blocks.insert(block.cidr, block);
    let mesh = BgpConfiguration { node_to_node_mesh_enabled: Some(false), ..BgpConfiguration::new() };
    snapshot.insert(Object::new("default".parse().unwrap(), mesh));
    let rules = [("in", Vec::new(), import()), ("out", export(preferred), Vec::new())];
    for (name, export_v4, import_v4) in rules {
        let filter = BgpFilter { export_v4, import_v4, export_v6: Vec::new(), import_v6: Vec::new() };
        snapshot.insert(Object::new(name.parse().unwrap(), filter));
    }
    for (name, number, address) in [("in", 65001, "10.99.1.2"), ("out", 65002, "10.99.2.2")] {
        let peer = BgpPeer {
            peer_ip: Some(address.parse().unwrap()),
            as_number: Some(asn(number)),
            source_address: Some(calico_model::resource::bgp::SourceAddress::Any),
            filters: vec![name.parse().unwrap()],
            ..BgpPeer::new()
        };
        snapshot.insert(Object::new(name.parse().unwrap(), peer));
    }
    peers::plan(&snapshot, &"node1".parse().unwrap(), &Secrets::default()).unwrap()
}

async fn follow(handle: &Handle, plan: Plan) {
    handle.set_originated(plan.originated).await.unwrap();
    handle.set_peers(plan.peers).await.unwrap();
}

#[test]
fn each_match_and_operation_of_a_filter_holds_on_a_live_session() {
    let (ours, one, two) = (Namespace::new(), Namespace::new(), Namespace::new());
    ours.wire(&["10.99.1.1/24"], &one, &["10.99.1.2/24"]);
    ours.wire(&["10.99.2.1/24"], &two, &["10.99.2.2/24"]);
    let _teller = Bird::start(&one, TELLER);
    let hearer = Bird::start(&two, HEARER);
    ours.block_on(async {
        let first = plan(FilterAction::Accept);
        let handle = net::spawn(&first.listen, first.speaker.clone()).unwrap();
        follow(&handle, first).await;
        let learned = wait_for_routes(&handle, |routes| routes.len() == 4).await;
        let taken = learned.iter().map(|(prefix, route)| (prefix.to_string(), route.priority));
        // Another AS says no LOCAL_PREF, so that the usual of BGP counts.
        const USUAL: Option<u32> = Some(0x7fff_ffff - 100);
        let expected = [
            ("10.1.0.0/16", Some(512)),
            ("10.3.0.0/16", USUAL),
            ("10.5.16.0/20", USUAL),
            ("10.6.0.0/16", USUAL),
        ];
        let expected = expected.map(|(prefix, priority)| (prefix.to_owned(), priority));
        assert_eq!(taken.collect::<Vec<_>>(), expected);

        let own = hearer.wait_for("show route all 192.168.1.0/26", "BGP.as_path: 64512").await;
        assert!(!own.contains("community"), "no rule of the filter is for it: {own}");
        let preferred = hearer.wait_for("show route all 10.1.0.0/16", "BGP.as_path: 64512 65001").await;
        assert!(preferred.contains("BGP.community: (65000,512) (65001,1)"), "{preferred}");
        assert!(preferred.contains("BGP.large_community: (65000, 5, 12)"), "{preferred}");
        let marked =
            hearer.wait_for("show route all 10.3.0.0/16", "BGP.as_path: 64512 65020 65010 65011 65001").await;
        assert!(marked.contains("BGP.community: (64512,5)"), "{marked}");
        assert!(marked.contains("BGP.large_community: (65001, 2, 3)"), "{marked}");
        let count = hearer.ask("show route count");
        assert!(count.contains("3 of 3 routes"), "{count}");

        // A filter that changes takes away what it lets pass no longer, on the same session.
        follow(&handle, plan(FilterAction::Reject)).await;
        hearer.wait_for("show route count", "2 of 2 routes").await;
        assert!(!hearer.ask("show route").contains("10.1.0.0/16"));
        assert_eq!(wait_until_up(&handle, "10.99.2.2").await.counters.established, 1);
        assert_eq!(wait_until_up(&handle, "10.99.1.2").await.counters.established, 1);
    });
}
