//! IPv6 beside IPv4.

use super::{Bird, lab, session};
use crate::agent::eventually;

const SIX: &str = "
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node1}
spec: {bgp: {ipv4Address: 172.16.6.47/24, ipv6Address: 'fd00:6::47/64'}}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec:
  nodeToNodeMeshEnabled: false
  listenPort: 1790
  bindMode: NodeIP
  serviceClusterIPs: [{cidr: 'fd96::/108'}]
  communities: [{name: six, value: '65001:6'}]
  prefixAdvertisements: [{cidr: 'fd96::/64', communities: [six]}]
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: six}
spec:
  exportV6: [{cidr: 'fd96::/108', matchOperator: NotEqual, action: Reject}]
  importV6: [{cidr: 'fd05::/16', matchOperator: In, prefixLength: {max: 48}, action: Accept}, {action: Reject}]
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: six}
spec: {peerIP: 'fd00:6::249', asNumber: 65001, filters: [six]}
";

const FABRIC: &str = "
router id 172.16.6.249;
protocol static { ipv6; route fd05:1::/48 blackhole; route fd05:2::/64 blackhole; }
protocol bgp node1 {
  local fd00:6::249 as 65001; neighbor fd00:6::47 port 1790 as 64512;
  connect delay time 1; connect retry time 1; error wait time 1,2;
  ipv6 { import all; export all; };
}
";

#[test]
fn a_node_that_gets_an_ipv6_address_peers_over_it_and_filters_apply_to_its_family() {
    let lab = lab();
    for (host, address) in [("node1", "fd00:6::47/64"), ("fabric", "fd00:6::249/64")] {
        lab.exec(host, "ip", &["address", "add", address, "dev", "eth0", "nodad"]).unwrap();
    }
    lab.apply(SIX).unwrap();
    let bird = Bird::start(&lab, "fabric", FABRIC);
    assert_eq!(session(&lab, "Established")["name"], "Global_fd00_6__249");
    let status = || lab.calicoctl("node1", &["node", "status"], "").unwrap();
    let is_up = |status: &String| {
        status.split("IPv6 BGP status").nth(1).unwrap().contains("| fd00:6::249  | global    | up ")
    };
    let status = eventually(status, is_up);
    assert!(is_up(&status), "{status}");
    assert!(status.contains("IPv4 BGP status\nNo IPv4 peers found."), "{status}");

    let told = bird.wait_for("show route all protocol node1", "fd96::/108");
    assert!(told.contains("(65001,6)"), "{told}");
    let routes = || lab.exec("node1", "ip", &["-6", "route"]).unwrap().stdout;
    let learned = eventually(routes, |routes| routes.contains("fd05:1::/48"));
    assert!(learned.contains("fd05:1::/48 via fd00:6::249 dev eth0"), "{learned}");
    assert!(!learned.contains("fd05:2::/64"), "{learned}");

    let sockets = lab.exec("node1", "ss", &["-Htln"]).unwrap().stdout;
    for place in ["172.16.6.47:1790", "[fd00:6::47]:1790"] {
        assert!(sockets.contains(place), "{sockets}");
    }
    assert!(!sockets.contains(":179 "), "{sockets}");
    lab.down().unwrap();
}
