//! The node's interfaces, which filters name.

use calico_node::lab::Lab;
use serde_json::Value;

use super::{Bird, FABRIC, NO_MESH, lab, session};
use crate::agent::eventually;

const UPLINK: &str = "
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: uplink}
spec: {importV4: [{action: Reject, interface: 'uplink*'}]}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: fabric}
spec: {peerIP: 172.16.6.249, asNumber: 65001, filters: [uplink]}
---
apiVersion: projectcalico.org/v3
kind: CalicoNodeStatus
metadata: {name: node1}
spec: {node: node1, classes: [Agent], updatePeriodSeconds: 1}
";

/// A value in a resource, as JSON has it.
fn field(lab: &Lab, kind: &str, name: &str, at: &str) -> Value {
    let text = lab.calicoctl("node1", &["get", kind, name, "-o", "json"], "").unwrap();
    serde_json::from_str::<Value>(&text).unwrap().pointer(at).cloned().unwrap_or_default()
}

#[test]
fn a_node_tells_of_its_interfaces_and_filters_match_by_them() {
    let lab = lab();
    let interfaces = || field(&lab, "node", "node1", "/spec/interfaces");
    let eth0 = serde_json::json!({"name": "eth0", "addresses": ["172.16.6.47/24"]});
    let told = eventually(interfaces, |told| *told == Value::from(vec![eth0.clone()]));
    assert_eq!(told, Value::from(vec![eth0.clone()]));

    lab.apply(NO_MESH).unwrap();
    lab.apply(UPLINK).unwrap();
    let bird = Bird::start(
        &lab,
        "fabric",
        &FABRIC.replace("route 10.5.0.0/16 blackhole;", "route 10.5.0.0/16 blackhole; route 10.6.0.0/16 blackhole;").replace("direct; bfd on;", "").replace(
            "export all;",
            "next hop keep; export filter { if net = 10.6.0.0/16 then bgp_next_hop = 172.16.9.2; accept; };",
        ),
    );
    session(&lab, "Established");
    let prefixes = || {
        let text = lab.calicoctl("node1", &["bgp", "routes", "-o", "json"], "").unwrap();
        let routes = serde_json::from_str::<Value>(&text).unwrap();
        let from = |route: &&Value| route["from"] == "172.16.6.249";
        let routes = routes.as_array().unwrap().iter().filter(from);
        routes.map(|route| route["prefix"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let both = ["10.5.0.0/16".to_owned(), "10.6.0.0/16".to_owned()];
    assert_eq!(eventually(prefixes, |now| *now == both), both);
    let reconfigured =
        || field(&lab, "caliconodestatus", "node1", "/status/agent/birdV4/lastReconfigurationTime");
    let before = eventually(reconfigured, |time| !time.is_null());
    // Times are told in seconds, and the next is to be another.
    std::thread::sleep(std::time::Duration::from_millis(1_100));

    // The network that one of the routes leads into is now that of an interface which the filter names.
    for words in [
        "link add uplink0 type veth peer name uplink0p",
        "addr add 172.16.9.1/24 dev uplink0",
        "link set uplink0 up",
        "link set uplink0p up",
    ] {
        lab.exec("node1", "ip", &words.split(' ').collect::<Vec<_>>()).unwrap();
    }
    let uplink = serde_json::json!({"name": "uplink0", "addresses": ["172.16.9.1/24"]});
    let told = eventually(interfaces, |told| *told == Value::from(vec![eth0.clone(), uplink.clone()]));
    assert_eq!(told, Value::from(vec![eth0, uplink]));
    assert_eq!(eventually(prefixes, |now| *now == both[..1]), both[..1], "{}", bird.ask("show route all"));
    let after = eventually(reconfigured, |time| *time != before);
    assert!(after.as_str() > before.as_str(), "{after} after {before}");
    lab.down().unwrap();
}
