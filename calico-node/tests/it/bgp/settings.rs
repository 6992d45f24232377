//! What a BGPPeer and the BGPConfiguration say of sessions.

use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use calico_node::lab::Stopwatch;
use serde_json::Value;

use super::{Bird, FABRIC, lab, session, sessions};
use crate::agent::eventually;

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
