//! The agent's BGP as resources switch it on, against BIRD in the hosts and workloads of a lab.

use calico_node::lab::{Ending, Lab};
use calico_node::paths::Paths;
use serde_json::Value;

use crate::agent::eventually;
use crate::lab::up;
use bird::Bird;

mod bird;
mod changes;
mod errors;
mod families;
mod interfaces;
mod listeners;
mod mesh;
mod multipath;
mod next_hops;
mod peers;
mod services;
mod settings;
mod workloads;

const TWO: &str = "
name: bgp
subnets:
  - {name: left, cidr: 172.16.6.0/24, gateway: 172.16.6.254}
hosts:
  - {name: node1, address: 172.16.6.47}
  - {name: fabric, address: 172.16.6.249}
pools:
  - {cidr: 192.168.0.0/16}
workloads:
  - {name: leaf, host: node1, labels: {app: router}}
";

/// A lab of one node, whose workloads may talk to it, and of a host that is no node any more: BIRD's place.
fn lab() -> Lab {
    let mut lab = up(TWO);
    lab.apply(
        "
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {defaultEndpointToHostAction: ACCEPT}
",
    )
    .unwrap();
    lab.end_agent("fabric", Ending::Asked).unwrap();
    lab.calicoctl("node1", &["delete", "node", "fabric"], "").unwrap();
    lab
}

/// Nodes do not peer with one another.
const NO_MESH: &str = "
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
";

const FABRIC: &str = "
router id 172.16.6.249;
protocol bfd { interface \"*\" { interval 100 ms; multiplier 3; }; }
protocol static { ipv4; route 10.5.0.0/16 blackhole; }
protocol bgp node1 {
  local 172.16.6.249 as 65001;
  neighbor 172.16.6.47 as 64512;
  direct; bfd on;
  connect delay time 1; connect retry time 1; error wait time 1,2;
  graceful restart on; long lived graceful restart on;
  ipv4 { import all; export all; };
}
";

/// The sessions of an agent, as `calicoctl bgp peers -o json` has them.
fn sessions(lab: &Lab) -> Vec<Value> {
    let text = lab.calicoctl("node1", &["bgp", "peers", "-o", "json"], "").unwrap();
    serde_json::from_str::<Value>(&text).unwrap().as_array().cloned().unwrap_or_default()
}

/// Waits until there is one session, in a state.
fn session(lab: &Lab, state: &str) -> Value {
    let is = |sessions: &Vec<Value>| matches!(&sessions[..], [session] if session["state"] == state);
    let found = eventually(|| sessions(lab), is);
    assert!(is(&found), "{state}: {found:#?}");
    found[0].clone()
}

/// A BIRD on `fabric` that has met node1, and what it says of the session; it is called `name` and has `row` in the
/// table of `calicoctl node status`.
fn meet(lab: &Lab, configuration: &str, name: &str, row: &str) -> (Bird, String) {
    let bird = Bird::start(lab, "fabric", configuration);
    assert_eq!(session(lab, "Established")["name"], name);
    // The agent tells of its sessions once a second at most.
    let table = || lab.calicoctl("node1", &["node", "status"], "").unwrap();
    let table = eventually(table, |table| table.contains(row));
    assert!(table.contains(row), "{table}");
    let said = bird.wait_for("show protocols all node1", "BGP state:          Established");
    (bird, said)
}

/// Writes a password of the Secret `bgp` where a host's agent looks for it.
fn set_password(lab: &Lab, host: &str, key: &str, password: &str) {
    let environment = &lab.state().host(host).unwrap().environment;
    let folder = Paths::from_vars(|name| environment.get(name).cloned()).secrets_dir().join("bgp");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(key), password).unwrap();
}
