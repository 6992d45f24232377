//! What a BGPPeer and the BGPConfiguration say of sessions.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use calico_node::lab::Stopwatch;

use super::{FABRIC, lab, meet, session};
use crate::agent::{PATIENCE, eventually};

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
    feed.set_read_timeout(Some(PATIENCE)).unwrap();
    let (kind, text) = message(&mut feed);
    assert_eq!(kind, 4, "an Initiation message");
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("calico-node 172.16.6.47"), "{text:?}");

    let (bird, seen) = meet(&lab, FABRIC, "Dynamic_172_16_6_249", "| 172.16.6.249 | dynamic");
    let offered = seen.split("Neighbor capabilities").nth(1).unwrap();
    assert!(
        offered.contains("Long-lived graceful restart") && offered.contains("LL stale time: 90"),
        "{seen}"
    );
    assert!(seen.contains("/33"), "the hold time: {seen}");
    bird.wait_for("show bfd sessions", "Up");

    // As often as it says that it is alive when nothing else is to be said.
    let told = || session(&lab, "Established")["counters"]["messagesOut"].as_u64().unwrap();
    let (before, watch) = (told(), Stopwatch::start());
    let said = eventually(told, |told| *told >= before + 4) - before;
    let most = watch.elapsed().as_secs_f64() / 0.75 + 2.0;
    assert!(said >= 4 && said as f64 <= most, "{said} in {:?}", watch.elapsed());

    bird.freeze();
    // BFD is told to be down (RFC 9384), long before the hold time; a session that had to begin again before is told too.
    let (mut downs, watch) = (Vec::new(), Stopwatch::start());
    while !downs.iter().any(|down: &Vec<u8>| down.ends_with(&[6, 10])) {
        assert!(watch.elapsed() < PATIENCE, "no session ended because BFD is down: {downs:?}");
        if let (2, down) = message(&mut feed) {
            downs.push(down);
        }
    }
    lab.down().unwrap();
}

/// The next message to a monitoring station: its type, and what stands behind the common header (RFC 7854 section 4).
fn message(feed: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 6];
    feed.read_exact(&mut header).unwrap();
    let [3, length @ .., kind] = header else { panic!("BMP version 3, not {header:?}") };
    let mut rest = vec![0; u32::from_be_bytes(length) as usize - header.len()];
    feed.read_exact(&mut rest).unwrap();
    (kind, rest)
}
