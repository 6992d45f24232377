//! One route that several peers tell of.

use super::{Bird, NO_MESH, sessions};
use crate::agent::eventually;
use crate::lab::up;
use calico_node::lab::Ending;

const THREE: &str = "
name: equal
subnets:
  - {name: left, cidr: 172.16.6.0/24, gateway: 172.16.6.254}
hosts:
  - {name: node1, address: 172.16.6.1}
  - {name: east, address: 172.16.6.2}
  - {name: west, address: 172.16.6.3}
pools:
  - {cidr: 10.5.0.0/16}
";

const PEERS: &str = "
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: east}
spec: {peerIP: 172.16.6.2, asNumber: 65001}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: west}
spec: {peerIP: 172.16.6.3, asNumber: 65001}
";

/// A router of the fabric, which tells of a network, by a path that is longer by `prepended`.
fn router(address: &str, prepended: &str) -> String {
    format!(
        "
router id {address};
protocol static {{ ipv4; route 10.7.0.0/24 blackhole; }}
protocol bgp node1 {{
  local {address} as 65001; neighbor 172.16.6.1 as 64512;
  connect delay time 1; connect retry time 1; error wait time 1,2;
  ipv4 {{ import all; export filter {{ {prepended} accept; }}; }};
}}
"
    )
}

#[test]
fn equal_paths_of_two_peers_are_one_route_of_two_next_hops_and_a_longer_one_is_not() {
    // The metric says how little an ordinary path of a peer is preferred.
    const EAST: &str = "10.7.0.0/24 via 172.16.6.2 dev eth0 proto 80 metric 2147483547";
    let both = "10.7.0.0/24 proto 80 metric 2147483547 nexthop via 172.16.6.2 dev eth0 weight 1 nexthop via 172.16.6.3 dev eth0 \
                weight 1";
    let mut lab = up(THREE);
    for host in ["east", "west"] {
        lab.end_agent(host, Ending::Asked).unwrap();
        lab.calicoctl("node1", &["delete", "node", host], "").unwrap();
    }
    lab.apply(NO_MESH).unwrap();
    lab.apply(PEERS).unwrap();
    let expect = |line: &str| {
        let routes = || lab.exec("node1", "ip", &["route", "show", "10.7.0.0/24"]).unwrap().stdout;
        let words = |text: &String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = eventually(routes, |found| words(found) == line);
        assert_eq!(words(&found), line, "{:#?}", sessions(&lab));
    };
    let _east = Bird::start(&lab, "east", &router("172.16.6.2", ""));
    expect(EAST);
    let west = Bird::start(&lab, "west", &router("172.16.6.3", ""));
    expect(both);
    west.reconfigure(&router("172.16.6.3", "bgp_path.prepend(65001);"));
    expect(EAST);
    west.reconfigure(&router("172.16.6.3", ""));
    expect(both);
    drop(west);
    expect(EAST);
    lab.down().unwrap();
}
