//! Next hops that the machine can reach or not: which path a node chooses, programs and tells on.

use std::time::Duration;

use calico_node::lab::{Ending, Lab};
use serde_json::Value;

use super::{Bird, NO_MESH, sessions};
use crate::agent::eventually;
use crate::lab::up;

const FOUR: &str = "
name: hops
subnets:
  - {name: left, cidr: 172.16.6.0/24, gateway: 172.16.6.254}
hosts:
  - {name: node1, address: 172.16.6.1}
  - {name: far, address: 172.16.6.2}
  - {name: near, address: 172.16.6.3}
  - {name: client, address: 172.16.6.4}
pools:
  - {cidr: 10.5.0.0/16}
";

/// The node reflects for all three, which are routers and no nodes any more.
const REFLECTOR: &str = "
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node1}
spec: {bgp: {ipv4Address: 172.16.6.1/24, routeReflectorClusterID: 1.0.0.1}}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: far}
spec: {peerIP: 172.16.6.2, asNumber: 64512}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: near}
spec: {peerIP: 172.16.6.3, asNumber: 64512}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: client}
spec: {peerIP: 172.16.6.4, asNumber: 64512}
";

/// A router that tells of networks, and what it puts on them.
fn router(address: &str, networks: &[&str], puts: &str) -> String {
    let networks: String = networks.iter().map(|network| format!("route {network} blackhole; ")).collect();
    format!(
        "
router id {address};
protocol static {{ ipv4; {networks} }}
protocol bgp node1 {{
  local {address} as 64512; neighbor 172.16.6.1 as 64512;
  connect delay time 1; connect retry time 1; error wait time 1,2;
  ipv4 {{ import all; next hop keep; export filter {{ {puts} accept; }}; }};
}}
"
    )
}

/// The better path to the shared network, by a next hop behind some other router.
fn far() -> String {
    router("172.16.6.2", &["10.5.1.0/24"], "bgp_next_hop = 10.44.0.1; bgp_local_pref = 2147482624;")
}

fn near(networks: &[&str]) -> String {
    router("172.16.6.3", networks, "bgp_next_hop = 172.16.6.3; bgp_local_pref = 2147482623;")
}

const BY_NEAR: &str = "10.5.1.0/24 via 172.16.6.3 dev eth0 proto 80 metric 1024";

/// Waits until the network leads as wanted in the kernel, and the client hears of it by a next hop.
fn await_way(lab: &Lab, client: &Bird, line: &str, told: &str) {
    let routes = || lab.exec("node1", "ip", &["route", "show", "10.5.1.0/24"]).unwrap().stdout;
    let now = eventually(routes, |now| now.trim() == line);
    assert_eq!(now.trim(), line, "{:#?}", sessions(lab));
    client.wait_for("show route all 10.5.1.0/24", &format!("BGP.next_hop: {told}"));
}

/// How many UPDATE messages the client was sent.
fn updates(lab: &Lab) -> u64 {
    let client = sessions(lab).into_iter().find(|session| session["address"] == "172.16.6.4").unwrap();
    client["counters"]["updatesOut"].as_u64().unwrap()
}

fn await_sessions(lab: &Lab) {
    let are_up = |all: &Vec<Value>| all.iter().filter(|one| one["state"] == "Established").count() == 3;
    let all = eventually(|| sessions(lab), are_up);
    assert!(are_up(&all), "{all:#?}");
}

#[test]
fn a_path_whose_next_hop_the_machine_cannot_reach_gives_way_to_another_until_it_can_be() {
    let mut lab = up(FOUR);
    for host in ["far", "near", "client"] {
        lab.end_agent(host, Ending::Asked).unwrap();
        lab.calicoctl("node1", &["delete", "node", host], "").unwrap();
    }
    lab.exec("node1", "ip", &["route", "del", "default"]).unwrap();
    lab.apply(NO_MESH).unwrap();
    lab.apply(REFLECTOR).unwrap();
    let client = Bird::start(&lab, "client", &router("172.16.6.4", &[], ""));
    let _far = Bird::start(&lab, "far", &far());
    let nearby = Bird::start(&lab, "near", &near(&["10.5.1.0/24"]));
    await_sessions(&lab);
    await_way(&lab, &client, BY_NEAR, "172.16.6.3");
    let why = || lab.calicoctl("node1", &["bgp", "why", "10.5.1.0/24"], "").unwrap();
    let reason =
        "The path to 10.5.1.0/24 from 172.16.6.2 via 10.44.0.1 is not used: its next hop cannot be reached.";
    let said = eventually(why, |said| said.contains(reason));
    assert!(said.contains(reason), "{said}");
    let best = "The path to 10.5.1.0/24 from 172.16.6.3 via 172.16.6.3 is the best one: it is the only one whose next \
                hop can be reached.";
    assert!(said.contains(best), "{said}");
    let problem = "the machine has no route to the next hop 10.44.0.1";
    assert_eq!(lab.status("node1").unwrap().problems, Vec::<String>::new(), "there is another way");

    // Another program gives the machine a way there, and takes it back.
    let told = updates(&lab);
    lab.exec("node1", "ip", &["route", "add", "10.44.0.0/24", "via", "172.16.6.254"]).unwrap();
    await_way(&lab, &client, "10.5.1.0/24 via 172.16.6.254 dev eth0 proto 80 metric 1023", "10.44.0.1");
    lab.exec("node1", "ip", &["route", "del", "10.44.0.0/24"]).unwrap();
    await_way(&lab, &client, BY_NEAR, "172.16.6.3");
    assert_eq!(updates(&lab), told + 2, "each change is told once");

    // A peer tells of a way there. What was chosen by it is not what it is chosen by.
    nearby.reconfigure(&near(&["10.5.1.0/24", "10.44.0.0/24"]));
    let by_learned = "10.5.1.0/24 via 172.16.6.3 dev eth0 proto 80 metric 1023";
    await_way(&lab, &client, by_learned, "10.44.0.1");
    assert_eq!(updates(&lab), told + 3, "of the way itself the client need not hear");

    // An agent that is killed and started again finds it so, and writes nothing.
    lab.quiet_kernel_objects("node1", Duration::from_millis(500)).unwrap();
    let events = lab.kernel_events("node1").unwrap();
    lab.end_agent("node1", Ending::Killed).unwrap();
    lab.start_agent("node1").unwrap();
    lab.await_agent("node1").unwrap();
    await_sessions(&lab);
    // It tells the client everything again when it has heard everybody.
    assert!(eventually(|| updates(&lab), |told| *told > 0) > 0);
    await_way(&lab, &client, by_learned, "10.44.0.1");
    assert_eq!(events.drain().unwrap(), Vec::<String>::new(), "{:#?}", sessions(&lab));

    nearby.reconfigure(&near(&["10.5.1.0/24"]));
    await_way(&lab, &client, BY_NEAR, "172.16.6.3");
    drop(nearby);
    let problems = || lab.status("node1").unwrap().problems;
    let told = eventually(problems, |told| told.iter().any(|line| line.starts_with(problem)));
    assert!(told.iter().any(|line| line.starts_with(problem)), "{told:?}");
    lab.down().unwrap();
}
