//! In a mesh with nodes of upstream's: BIRD 2 with what Calico's templates make for a node (`bird.cfg`, `bird_aggr.cfg`,
//! `bird_ipam.cfg`), in the grammar of BIRD 2.

use std::fmt::Write;

use calico_bgp::net;
use calico_bgp::peers::{self, Secrets};
use calico_bgp::wire::PathIds;
use calico_model::resource::block::{StoredAttributes, StoredBlock};
use calico_model::resource::{IpPool, Node, NodeBgp, Object, WorkloadEndpoint};
use calico_model::{Cidr, Family, Snapshot};

use crate::lab::{Bird, Namespace, wait_for_routes, wait_until_up};
use crate::world::ip;

/// What the templates make for node `at` of three: its block is `192.168.at.0/26`. The fork's BIRD 1.6 gives the kernel the
/// metric of each route; BIRD 2 does that with `metric 0`.
fn rendered(at: u8) -> String {
    let (own, block) = (format!("10.99.0.{at}"), format!("192.168.{at}.0/26"));
    let mut text = format!(
        "router id {own};

function apply_communities()
{{
}}

protocol static {{
  ipv4;
  route {block} blackhole;
}}

function calico_aggr()
{{
  if ( net = {block} ) then {{ accept; }}
  if ( (net ~ {block}) && (krt_metric < 1024) ) then {{ accept; }}
  if ( net ~ {block} ) then {{ reject; }}
}}

function calico_export_to_bgp_peers(bool internal_peer)
{{
  apply_communities();
  calico_aggr();
  if ( net ~ 192.168.0.0/16 ) then {{ accept; }}
}}

filter calico_kernel_programming {{
  if ( defined(bgp_local_pref) ) then {{ krt_metric = 2147483647 - bgp_local_pref; }}
  if ( ! defined(krt_metric) ) then {{ krt_metric = 1024; }}
  if ( net ~ 192.168.0.0/16 ) then {{ accept; }}
  accept;
}}

protocol kernel {{
  learn;
  persist;
  scan time 2;
  ipv4 {{ import all; export filter calico_kernel_programming; }};
  metric 0;
  graceful restart;
  merge paths on;
}}

protocol direct {{
  ipv4;
  interface -\"cali*\", -\"kube-ipvs*\", \"*\";
}}

template bgp bgp_template {{
  description \"Connection to BGP peer\";
  local as 64512;
  ipv4 {{
    gateway recursive;
    import filter {{
      if ( bgp_local_pref > 2147482623 ) then {{ preference = 200; }}
      accept;
    }};
    export filter {{
      if ( source = RTS_BGP && defined(bgp_local_pref) ) then {{ krt_metric = 2147483647 - bgp_local_pref; }}
      if ( ! defined(krt_metric) ) then {{ krt_metric = 1024; }}
      bgp_local_pref = 2147483647 - krt_metric;
      calico_export_to_bgp_peers(true);
      reject;
    }};
    add paths on;
  }};
  graceful restart;
  connect delay time 2;
  connect retry time 5;
  error wait time 5,30;
}}
"
    );
    for other in (1..=3).filter(|other| *other != at) {
        let passive = if other > at { "passive on;" } else { "" };
        write!(
            text,
            "protocol bgp Mesh_10_99_0_{other} from bgp_template {{
  multihop;
  ttl security off;
  neighbor 10.99.0.{other} as 64512;
  source address {own};
  {passive}
}}
"
        )
        .unwrap();
    }
    text
}

/// Three nodes with a block each. A machine migrates from node1 to node2, which is ours, and one from there to node3.
fn cluster() -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.insert(Object::new("pool".parse().unwrap(), IpPool::new("192.168.0.0/16".parse().unwrap())));
    for at in 1..=3 {
        let mut node = Node::new();
        node.bgp = Some(NodeBgp::at(format!("10.99.0.{at}/24").parse().unwrap()));
        snapshot.insert(Object::new(format!("node{at}").parse().unwrap(), node));
        let network = format!("192.168.{at}.0/26").parse().unwrap();
        let mut block = StoredBlock::on(network, format!("node{at}").parse().unwrap());
        if at < 3 {
            let attributes = |node: u8| [("node".to_owned(), format!("node{node}"))].into();
            block.allocations[7] = Some(0);
            block.attributes = vec![StoredAttributes {
                handle_id: None,
                secondary: attributes(at + 1),
                alternate: attributes(at),
                released_at: None,
                unknown: Default::default(),
            }];
        }
        snapshot.blocks.insert(block.cidr, block);
    }
    for (name, address) in [("arriving", "192.168.1.7"), ("staying", "192.168.2.5")] {
        let mut workload = WorkloadEndpoint::on("node2".parse().unwrap());
        workload.ip_networks = vec![Cidr::host(address.parse().unwrap())];
        let mut workload = Object::new(name.parse().unwrap(), workload);
        workload.metadata.namespace = Some("default".parse().unwrap());
        snapshot.insert(workload);
    }
    snapshot
}

#[test]
fn a_node_of_ours_and_upstreams_tell_one_another_their_blocks_alone_and_what_migrates_with_the_same_metrics()
{
    let hub = Namespace::new();
    hub.ip("link add hub type bridge");
    hub.ip("link set hub up");
    let nodes = [1, 2, 3].map(|_| Namespace::new());
    for (at, node) in (1..=3).zip(&nodes) {
        hub.plug(node, &format!("10.99.0.{at}/24"));
    }
    let [first, ours, third] = &nodes;
    // As Felix has them: a workload's own route, and that of a machine whose migration is at its end.
    third.ip("link add cali0 type bridge");
    third.ip("link set cali0 up");
    third.ip("route add 192.168.3.5/32 dev cali0 metric 1024");
    third.ip("route add 192.168.2.7/32 dev cali0 metric 512");
    let birds = [(first, 1), (third, 3)].map(|(node, at)| Bird::start(node, &rendered(at)));

    ours.block_on(async {
        let plan = peers::plan(&cluster(), &"node2".parse().unwrap(), &Secrets::default()).unwrap();
        let handle = net::spawn(&plan.listen, plan.speaker).unwrap();
        handle.set_originated(plan.originated).await.unwrap();
        handle.set_peers(plan.peers).await.unwrap();
        for other in ["10.99.0.1", "10.99.0.3"] {
            let negotiated = wait_until_up(&handle, other).await.negotiated.expect("it is up");
            assert_eq!(negotiated.dialect.path_ids_in[Family::V4], PathIds::Present);
            assert_eq!(negotiated.dialect.path_ids_out[Family::V4], PathIds::Present);
            assert!(negotiated.graceful_restart.is_some());
        }
        let expected = [
            ("192.168.1.0/26", "10.99.0.1", 1024),
            ("192.168.2.7/32", "10.99.0.3", 512),
            ("192.168.3.0/26", "10.99.0.3", 1024),
        ];
        let learned = wait_for_routes(&handle, |routes| routes.len() == expected.len()).await;
        for ((prefix, route), (network, next_hop, metric)) in learned.iter().zip(expected) {
            assert_eq!(prefix.to_string(), network);
            assert_eq!(route.next_hops, [ip(next_hop)].into(), "{network}");
            assert_eq!(route.priority, Some(metric), "{network}");
        }
        for bird in &birds {
            bird.wait_for("show protocols Mesh_10_99_0_2", "Established").await;
            bird.wait_for("show route", "192.168.2.0/26").await;
        }
        birds[0].wait_for("show route", "192.168.3.0/26").await;
        birds[1].wait_for("show route", "192.168.1.0/26").await;
    });
    let of_first = [
        "192.168.1.0/26 blackhole 1024",
        "192.168.1.7/32 10.99.0.2 512",
        "192.168.2.0/26 10.99.0.2 1024",
        "192.168.2.7/32 10.99.0.3 512",
        "192.168.3.0/26 10.99.0.3 1024",
    ];
    let of_third = [
        "192.168.1.0/26 10.99.0.1 1024",
        "192.168.1.7/32 10.99.0.2 512",
        "192.168.2.0/26 10.99.0.2 1024",
        "192.168.3.0/26 blackhole 1024",
    ];
    assert_eq!(programmed(first, of_first.len()), of_first);
    assert_eq!(programmed(third, of_third.len()), of_third);
}

/// Waits until BIRD has put that many routes inside the pool into the kernel, and returns where they lead and their metrics. BIRD 2
/// also puts the links there, which 1.6 leaves alone.
fn programmed(node: &Namespace, wanted: usize) -> Vec<String> {
    let mut routes = Vec::new();
    for _ in 0..400 {
        let shown = node
            .command("ip")
            .args(["route", "show", "root", "192.168.0.0/16", "proto", "bird"])
            .output()
            .expect("iproute2");
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        routes = text.lines().map(route).collect();
        routes.sort();
        if routes.len() == wanted {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    routes
}

/// Shortens what `ip route` shows: the network, the gateway or the kind, and the metric.
fn route(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |word| words.iter().skip_while(|it| **it != word).nth(1).copied();
    let kind = ["blackhole", "unreachable", "prohibit"].iter().find(|kind| words[0] == **kind);
    let network = words[usize::from(kind.is_some())];
    let host = if network.contains('/') { "" } else { "/32" };
    let to = kind.copied().or_else(|| after("via")).unwrap_or("link");
    format!("{network}{host} {to} {}", after("metric").unwrap_or("0"))
}
