//! The agent's BGP as resources switch it on, against BIRD in the hosts and workloads of a lab.

use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use calico_node::lab::{Ending, Lab, Stopwatch};
use serde_json::Value;

use crate::agent::eventually;
use crate::article::up;

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

/// A lab of one node, and of a host that is no node any more: BIRD's place.
fn lab() -> Lab {
    let mut lab = up(TWO);
    lab.end_agent("fabric", Ending::Asked).unwrap();
    lab.calicoctl("node1", &["delete", "node", "fabric"], "").unwrap();
    lab
}

/// A BIRD in the network namespace of a host or workload; gone when this is dropped.
struct Bird {
    folder: PathBuf,
    process: Child,
    netns: String,
}

impl Bird {
    fn start(lab: &Lab, member: &str, configuration: &str) -> Self {
        let netns = lab.state().netns(member).unwrap().to_owned();
        let folder = std::env::temp_dir().join(format!("calico-bird-{netns}"));
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!("log stderr all;\nprotocol device {{}}\n{configuration}");
        std::fs::write(folder.join("bird.conf"), text).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &netns, "bird", "-f", "-c"]).arg(folder.join("bird.conf"));
        command.arg("-s").arg(folder.join("ctl")).stderr(std::fs::File::create(folder.join("log")).unwrap());
        let process = command.spawn().expect("these tests need bird: apt-get install bird2");
        Self { folder, process, netns }
    }

    fn ask(&self, question: &str) -> String {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns, "birdc", "-s"]).arg(self.folder.join("ctl"));
        let output = command.args(question.split(' ')).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Asks until an answer contains a word.
    fn wait_for(&self, question: &str, word: &str) -> String {
        let answer = eventually(|| self.ask(question), |answer| answer.contains(word));
        let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        assert!(answer.contains(word), "{question}: no {word} in\n{answer}\nlog:\n{}", log());
        answer
    }

    /// Stops it where it stands: its kernel still answers, and it does not.
    fn freeze(&self) {
        let frozen = Command::new("kill").args(["-STOP", &self.process.id().to_string()]).status().unwrap();
        assert!(frozen.success());
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

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

const SETTINGS: &str = "
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false, bmpStations: [{address: '172.16.6.249:11019'}]}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: fabric}
spec:
  peerCIDR: 172.16.6.0/24
  asNumber: 65001
  failureDetectionMode: BFDIfDirectlyConnected
  restartMode: LongLivedGracefulRestart
  longLivedStaleTime: 90s
  keepaliveTime: 1s
  holdTime: 33s
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

#[test]
fn resources_switch_on_dynamic_peers_bfd_long_lived_restarts_and_monitoring() {
    let lab = lab();
    let netns = lab.state().netns("fabric").unwrap().to_owned();
    let station = std::thread::spawn(move || {
        let file = std::fs::File::open(format!("/run/netns/{netns}")).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        TcpListener::bind("172.16.6.249:11019").unwrap()
    });
    let station = station.join().unwrap();
    lab.apply(SETTINGS).unwrap();

    let (mut feed, _) = station.accept().unwrap();
    let mut first = [0; 6];
    feed.read_exact(&mut first).unwrap();
    assert_eq!((first[0], first[5]), (3, 4), "BMP version 3, an Initiation message");
    let mut rest = vec![0; u32::from_be_bytes([first[1], first[2], first[3], first[4]]) as usize - 6];
    feed.read_exact(&mut rest).unwrap();
    let text = String::from_utf8_lossy(&rest);
    assert!(text.contains("calico-node 172.16.6.47"), "{text:?}");

    let bird = Bird::start(&lab, "fabric", FABRIC);
    let peer = session(&lab, "Established");
    assert_eq!(peer["name"], "Dynamic_172_16_6_249");
    let table = lab.calicoctl("node1", &["node", "status"], "").unwrap();
    assert!(table.contains("| 172.16.6.249 | dynamic"), "{table}");
    let seen = bird.wait_for("show protocols all node1", "BGP state:          Established");
    let offered = seen.split("Neighbor capabilities").nth(1).unwrap();
    assert!(
        offered.contains("Long-lived graceful restart") && offered.contains("LL stale time: 90"),
        "{seen}"
    );
    assert!(seen.contains("/33"), "the hold time: {seen}");
    bird.wait_for("show bfd sessions", "Up");

    // As often as it says that it is alive when nothing else is to be said.
    let told = |peer: &Value| peer["counters"]["messagesOut"].as_u64().unwrap();
    let (before, watch) = (told(&session(&lab, "Established")), Stopwatch::start());
    std::thread::sleep(Duration::from_secs(5));
    let said = told(&session(&lab, "Established")) - before;
    let most = watch.elapsed().as_secs_f64() / 0.75 + 2.0;
    assert!(said >= 4 && said as f64 <= most, "{said} in {:?}", watch.elapsed());

    let watch = Stopwatch::start();
    bird.freeze();
    let lost = |sessions: &Vec<Value>| sessions.iter().all(|session| session["state"] != "Established");
    eventually(|| sessions(&lab), lost);
    assert!(watch.elapsed() < Duration::from_secs(20), "long before the hold time: {:?}", watch.elapsed());
    lab.down().unwrap();
}

const WORKLOAD_PEERS: &str = "
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
---
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
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
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
