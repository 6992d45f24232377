//! What a BGPPeer and its filters say, as the peer and the kernel see it.

use super::{NO_MESH, lab, meet};
use crate::agent::eventually;

/// A router behind a gateway, for one node, with most of what a BGPPeer can say.
const PEER: &str = "
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: edge}
spec:
  exportV4:
  - {cidr: 192.168.0.0/16, matchOperator: In, peerType: eBGP, action: Accept, operations: [
      {addCommunity: {value: '65001:9'}}, {prependASPath: {prefix: [65009, 65010]}}]}
  importV4:
  - {cidr: 10.5.0.0/16, matchOperator: Equal, asPathPrefix: [65001], action: Accept, operations: [{setPriority: {value: 77}}]}
  - {action: Reject}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: edge}
spec:
  node: node1
  peerIP: 10.99.0.1
  asNumber: 65001
  reachableBy: 172.16.6.249
  ttlSecurity: 2
  sourceAddress: None
  maxRestartTime: 77s
  nextHopMode: Self
  filters: [edge]
";

const EDGE: &str = "
router id 172.16.6.249;
protocol static { ipv4; route 10.5.0.0/16 blackhole; route 10.6.0.0/16 blackhole; }
protocol bgp node1 {
  local 10.99.0.1 as 65001; neighbor 172.16.6.47 as 64512; multihop 2; ttl security on;
  connect delay time 1; connect retry time 1; error wait time 1,2;
  ipv4 { import all; export all; next hop self; };
}
";

#[test]
fn a_bgppeer_of_one_node_has_its_gateway_its_distance_its_times_and_its_filters() {
    let lab = lab();
    lab.exec("fabric", "ip", &["address", "add", "10.99.0.1/32", "dev", "lo"]).unwrap();
    lab.apply(NO_MESH).unwrap();
    lab.apply(PEER).unwrap();
    let routes = || lab.exec("node1", "ip", &["route"]).unwrap().stdout;
    let gateway = eventually(routes, |routes| routes.contains("10.99.0.1 via 172.16.6.249"));
    assert!(gateway.contains("10.99.0.1 via 172.16.6.249"), "{gateway}");

    let (bird, seen) = meet(&lab, EDGE, "Node_10_99_0_1", "| 10.99.0.1    | node specific | up ");
    assert!(seen.contains("Restart time: 77"), "{seen}");
    let told = bird.wait_for("show route all protocol node1", "192.168.");
    assert!(told.contains("BGP.as_path: 64512 65009 65010"), "{told}");
    assert!(
        told.contains("BGP.community: (65001,9)") && told.contains("BGP.next_hop: 172.16.6.47"),
        "{told}"
    );

    let learned = eventually(routes, |routes| routes.contains("10.5.0.0/16"));
    let line = learned.lines().find(|line| line.starts_with("10.5.0.0/16")).unwrap();
    assert!(line.contains("metric 77"), "{line}");
    assert!(!learned.contains("10.6.0.0/16"), "{learned}");
    let why = lab.calicoctl("node1", &["bgp", "why", "10.5.0.0/16", "-o", "json"], "").unwrap();
    let why: serde_json::Value = serde_json::from_str(&why).unwrap();
    assert_eq!((&why[0]["from"], &why[0]["best"]), (&"10.99.0.1".into(), &true.into()), "{why}");
    lab.down().unwrap();
}
