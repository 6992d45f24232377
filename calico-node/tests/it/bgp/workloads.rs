//! Workloads that peer with their node.

use std::net::IpAddr;
use std::time::Duration;

use calico_node::lab::{Ending, Lab};

use super::{Bird, NO_MESH, lab, session, sessions};
use crate::agent::eventually;
use crate::article::interface;

const WORKLOAD_PEERS: &str = "
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: workloads}
spec: {localWorkloadSelector: app == 'router', asNumber: 65001}
";

/// BIRD in a workload, which tells its node at an address of what is behind it.
fn router(address: IpAddr, node: &str) -> String {
    format!(
        "router id {address};
protocol static {{ ipv4; route 10.77.0.0/24 blackhole; }}
protocol bgp node1 {{
  local {address} as 65001; neighbor {node} as 64512;
  multihop; connect delay time 1; connect retry time 1;
  ipv4 {{ import all; export all; next hop self; }};
}}
"
    )
}

fn routes(lab: &Lab) -> String {
    lab.exec("node1", "ip", &["route"]).unwrap().stdout
}

fn addresses(lab: &Lab, interface: &str) -> String {
    lab.exec("node1", "ip", &["address", "show", "dev", interface]).unwrap().stdout
}

#[test]
fn a_workload_that_a_resource_selects_tells_its_node_of_networks_behind_it() {
    let lab = lab();
    lab.apply(NO_MESH).unwrap();
    lab.apply(WORKLOAD_PEERS).unwrap();
    let address = lab.address("leaf").unwrap();
    let configuration = router(address, "172.16.6.47");
    let bird = Bird::start(&lab, "leaf", &configuration);
    let peer = session(&lab, "Established");
    assert_eq!(peer["name"], format!("Local_Workload_{}", address.to_string().replace('.', "_")));
    let route = format!("10.77.0.0/24 via {address} dev cali");
    let learned = eventually(|| routes(&lab), |routes| routes.contains(&route));
    assert!(learned.contains(&route), "{learned}");
    bird.wait_for("show route", "192.168.");
    lab.calicoctl("node1", &["delete", "bgppeer", "workloads"], "").unwrap();
    let gone = eventually(|| routes(&lab), |routes| !routes.contains("10.77.0.0/24"));
    assert!(!gone.contains("10.77.0.0/24"), "{gone}");
    lab.down().unwrap();
}

const PEERING_ADDRESS: &str = "
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false, localWorkloadPeeringIPV4: 169.254.0.179}
";

#[test]
fn a_workload_peers_with_an_address_that_is_the_same_on_every_node() {
    let mut lab = lab();
    lab.apply(PEERING_ADDRESS).unwrap();
    lab.apply(WORKLOAD_PEERS).unwrap();
    let (address, interface) = (lab.address("leaf").unwrap(), interface(&lab, "leaf"));
    let held = eventually(|| addresses(&lab, &interface), |held| held.contains("169.254.0.179/32"));
    assert!(held.contains("169.254.0.179/32"), "{held}");

    let bird = Bird::start(&lab, "leaf", &router(address, "169.254.0.179"));
    session(&lab, "Established");
    bird.wait_for("show protocols all node1", "BGP state:          Established");
    bird.wait_for("show route", "192.168.");
    let route = format!("10.77.0.0/24 via {address} dev {interface}");
    let learned = eventually(|| routes(&lab), |routes| routes.contains(&route));
    assert!(learned.contains(&route), "{learned}");

    // An agent that is killed and started again finds everything as it should be.
    lab.quiet_kernel_objects("node1", Duration::from_millis(500)).unwrap();
    let events = lab.kernel_events("node1").unwrap();
    lab.end_agent("node1", Ending::Killed).unwrap();
    lab.start_agent("node1").unwrap();
    lab.await_agent("node1").unwrap();
    session(&lab, "Established");
    bird.wait_for("show route", "192.168.");
    std::thread::sleep(Duration::from_secs(1));
    let (written, now) = (events.drain().unwrap(), routes(&lab));
    assert_eq!((written, now.as_str()), (Vec::new(), learned.as_str()), "{:#?}", sessions(&lab));

    // Put right when somebody takes it away; gone with the workload's part in BGP.
    lab.exec("node1", "ip", &["address", "del", "169.254.0.179/32", "dev", &interface]).unwrap();
    let held = eventually(|| addresses(&lab, &interface), |held| held.contains("169.254.0.179/32"));
    assert!(held.contains("169.254.0.179/32"), "{held}");
    lab.calicoctl("node1", &["delete", "bgppeer", "workloads"], "").unwrap();
    let gone = eventually(|| addresses(&lab, &interface), |held| !held.contains("169.254.0.179"));
    assert!(!gone.contains("169.254.0.179"), "{gone}");
    lab.down().unwrap();
}
