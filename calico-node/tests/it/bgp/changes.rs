//! Changes under sessions that are up: each ends the sessions that it concerns, and no other.

use std::net::IpAddr;

use calico_node::lab::Lab;

use super::{Bird, lab, sessions, set_password};
use crate::agent::eventually;

/// A router of the fabric, whose session has a password and the node's AS number, and a workload, whose session has neither.
const PEERS: &str = "
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: fabric}
spec: {peerIP: 172.16.6.249, asNumber: 65001, password: {secretKeyRef: {name: bgp, key: KEY}}}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: workloads}
spec: {localWorkloadSelector: app == 'router', asNumber: 65002, localASNumber: 64600}
";

/// The cluster's settings, with more of them.
fn settings(more: &str) -> String {
    format!(
        "
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {{name: default}}
spec: {{nodeToNodeMeshEnabled: false, localWorkloadPeeringIPV4: 169.254.0.179{more}}}
"
    )
}

fn fabric(password: &str) -> String {
    let session = |name: &str, node: &str| {
        format!(
            "protocol bgp {name} {{
  local 172.16.6.249 as 65001; neighbor {node} external; password \"{password}\";
  connect delay time 1; connect retry time 1; error wait time 1,2;
  ipv4 {{ import all; export all; }};
}}
"
        )
    };
    let both = [session("node1", "172.16.6.47"), session("moved", "172.16.6.48")].concat();
    format!("router id 172.16.6.249;\n{both}")
}

fn leaf(address: IpAddr) -> String {
    format!(
        "router id {address};
protocol bgp node1 {{
  local {address} as 65002; neighbor 169.254.0.179 as 64600; multihop;
  connect delay time 1; connect retry time 1; error wait time 1,2;
  ipv4 {{ import all; export all; }};
}}
"
    )
}

/// How often the session with the fabric and that with the workload came up, once both are.
fn ups(lab: &Lab) -> [u64; 2] {
    let up = |name: &str| {
        let mut all = sessions(lab).into_iter();
        let session = all.find(|session| session["name"].as_str().is_some_and(|is| is.starts_with(name)))?;
        let times = session["counters"]["established"].as_u64()?;
        (session["state"] == "Established").then_some(times)
    };
    let both = || Some([up("Global_172_16_6_249")?, up("Local_Workload_")?]);
    eventually(both, Option::is_some).unwrap_or_else(|| panic!("{:#?}", sessions(lab)))
}

#[test]
fn a_change_ends_the_sessions_that_it_concerns_and_no_other() {
    let lab = lab();
    set_password(&lab, "node1", "one", "first");
    set_password(&lab, "node1", "two", "second");
    lab.apply(&settings("")).unwrap();
    lab.apply(&PEERS.replace("KEY", "one")).unwrap();
    let router = Bird::start(&lab, "fabric", &fabric("first"));
    let workload = Bird::start(&lab, "leaf", &leaf(lab.address("leaf").unwrap()));
    assert_eq!(ups(&lab), [1, 1]);

    // What routes carry, and a peer more.
    let tagged = ", prefixAdvertisements: [{cidr: 192.168.0.0/16, communities: ['64512:7']}]";
    lab.apply(&settings(tagged)).unwrap();
    let another = PEERS.split("---").next().unwrap().replace("name: fabric", "name: nobody");
    lab.apply(&another.replace("172.16.6.249", "172.16.6.77").replace("KEY", "one")).unwrap();
    router.wait_for("show route all", "(64512,7)");
    workload.wait_for("show route all", "(64512,7)");
    let named = |name: &str| sessions(&lab).iter().any(|session| session["name"] == name);
    assert!(eventually(|| named("Global_172_16_6_77"), |there| *there));
    assert_eq!(ups(&lab), [1, 1], "what has nothing to do with sessions");

    lab.apply(&PEERS.replace("KEY", "two")).unwrap();
    router.reconfigure(&fabric("second"));
    let reset = || ups(&lab)[0];
    assert!(eventually(reset, |times| *times > 1) > 1, "another password");
    let [before, unmoved] = ups(&lab);
    assert_eq!(unmoved, 1, "a password that others have");

    lab.apply(&settings(&format!("{tagged}, asNumber: 64999"))).unwrap();
    router.wait_for("show protocols all node1", "Neighbor AS:      64999");
    let [after, unmoved] = ups(&lab);
    assert!(after > before, "the OPEN says the AS number");
    assert_eq!(unmoved, 1, "the session has an AS number of its own");

    // Every OPEN says the identifier, so every session has to come up anew.
    lab.exec("node1", "ip", &["address", "add", "172.16.6.48/24", "dev", "eth0"]).unwrap();
    lab.apply(
        "
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node1}
spec: {bgp: {ipv4Address: 172.16.6.48/24}}
",
    )
    .unwrap();
    router.wait_for("show protocols all moved", "Neighbor ID:      172.16.6.48");
    workload.wait_for("show protocols all node1", "Neighbor ID:      172.16.6.48");
    assert!(ups(&lab)[1] > 1);
    lab.down().unwrap();
}
