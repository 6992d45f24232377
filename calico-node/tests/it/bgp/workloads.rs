//! Workloads that peer with their node.

use super::{Bird, NO_MESH, lab, session};
use crate::agent::eventually;

const WORKLOAD_PEERS: &str = "
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {defaultEndpointToHostAction: ACCEPT}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: workloads}
spec: {localWorkloadSelector: app == 'router', asNumber: 65001}
";

#[test]
fn a_workload_that_a_resource_selects_tells_its_node_of_networks_behind_it() {
    let lab = lab();
    lab.apply(NO_MESH).unwrap();
    lab.apply(WORKLOAD_PEERS).unwrap();
    let address = lab.address("leaf").unwrap();
    let configuration = format!(
        "router id {address};
protocol static {{ ipv4; route 10.77.0.0/24 blackhole; }}
protocol bgp node1 {{
  local {address} as 65001; neighbor 172.16.6.47 as 64512;
  multihop; connect delay time 1; connect retry time 1;
  ipv4 {{ import all; export all; next hop self; }};
}}
"
    );
    let bird = Bird::start(&lab, "leaf", &configuration);
    let peer = session(&lab, "Established");
    assert_eq!(peer["name"], format!("Local_Workload_{}", address.to_string().replace('.', "_")));
    let route = format!("10.77.0.0/24 via {address} dev cali");
    let routes = || lab.exec("node1", "ip", &["route"]).unwrap().stdout;
    let learned = eventually(routes, |routes| routes.contains(&route));
    assert!(learned.contains(&route), "{learned}");
    bird.wait_for("show route", "192.168.");
    lab.calicoctl("node1", &["delete", "bgppeer", "workloads"], "").unwrap();
    let gone = eventually(routes, |routes| !routes.contains("10.77.0.0/24"));
    assert!(!gone.contains("10.77.0.0/24"), "{gone}");
    lab.down().unwrap();
}
