//! The status of an agent, for people.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calico_model::{Family, timestamp};

use super::table;
use crate::status::{NodeStatus, PeerStatus};

/// Writes the status as it is `now`; times are in UTC.
#[must_use]
pub fn render(status: &NodeStatus, now: SystemTime) -> String {
    let mut text = String::from("Calico process is running.\n");
    let mut put = |line: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    put(format_args!(
        "Node {}, version {}, process {}, since {}.\nDatastore: {}",
        status.node,
        status.version,
        status.pid,
        since(status.started, now),
        status.datastore,
    ));
    if !status.in_sync {
        put(format_args!("The datastore has not been read to the end yet."));
    }
    if !status.programmed {
        put(format_args!("The kernel is not yet as it should be."));
    }
    if status.kernel_overruns > 0 {
        put(format_args!(
            "The kernel changed faster than could be followed, and was read anew: {} times.",
            status.kernel_overruns
        ));
    }
    for problem in &status.problems {
        put(format_args!("Problem: {problem}"));
    }
    match &status.bgp {
        None => put(format_args!("\nBGP is off.")),
        Some(bgp) => {
            for family in [Family::V4, Family::V6] {
                let of_family = |peer: &&PeerStatus| {
                    peer.address.parse().is_ok_and(|addr: IpAddr| Family::of(addr) == family)
                };
                let peers: Vec<&PeerStatus> = bgp.peers.iter().filter(of_family).collect();
                put(format_args!("\n{family} BGP status"));
                if peers.is_empty() {
                    put(format_args!("No {family} peers found."));
                } else {
                    put(format_args!("{}", peers_table(&peers, now).trim_end()));
                }
            }
        }
    }
    text.push('\n');
    text
}

fn peers_table(peers: &[&PeerStatus], now: SystemTime) -> String {
    let headings = ["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"];
    let row = |peer: &&PeerStatus| {
        let texts = [&peer.address, &peer.peer_type, &peer.state, &since(peer.since, now), &peer.info];
        texts.map(Clone::clone).to_vec()
    };
    table::boxed(&headings, &peers.iter().map(row).collect::<Vec<_>>())
}

/// The time of day of a moment of the last 24 hours, else its date.
fn since(seconds: u64, now: SystemTime) -> String {
    let then = UNIX_EPOCH + Duration::from_secs(seconds);
    let text = timestamp::format(then);
    let part = if now.duration_since(then).unwrap_or_default() < Duration::from_secs(86_400) {
        text.get(11..19)
    } else {
        text.get(..10)
    };
    part.unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::BgpStatus;

    fn peer(address: &str, info: &str, since: u64) -> PeerStatus {
        PeerStatus {
            address: address.to_owned(),
            peer_type: "node-to-node mesh".to_owned(),
            state: "up".to_owned(),
            since,
            info: info.to_owned(),
            routes_received: 1,
            routes_sent: 1,
        }
    }

    fn status(peers: Vec<PeerStatus>) -> NodeStatus {
        NodeStatus {
            node: "node1".to_owned(),
            pid: 7,
            version: "v0.1.0".to_owned(),
            started: 86_400,
            datastore: "/var/lib/calico/calico.db".to_owned(),
            in_sync: true,
            programmed: true,
            kernel_overruns: 0,
            problems: vec!["ipipMode is set, and this kernel has no IP-in-IP".to_owned()],
            bgp: Some(BgpStatus {
                as_number: 64_512,
                router_id: "10.0.0.1".to_owned(),
                reconfigured: 0,
                peers,
            }),
        }
    }

    #[test]
    fn each_family_has_its_box_and_an_empty_one_says_so() {
        let now = UNIX_EPOCH + Duration::from_secs(86_400 * 3 + 60);
        let long = "the peer closed the connection after the OPEN message: bad peer AS";
        let peers = vec![peer("172.16.6.2", "Established", 86_400 * 3), peer("172.16.6.3", long, 5)];
        let text = render(&status(peers), now);
        for expected in [
            "Calico process is running.",
            "Problem: ipipMode is set, and this kernel has no IP-in-IP",
            "IPv4 BGP status",
            "| PEER ADDRESS |     PEER TYPE     | STATE |   SINCE    |",
            "| 172.16.6.2   | node-to-node mesh | up    | 00:00:00   | Established",
            "| 172.16.6.3   | node-to-node mesh | up    | 1970-01-01 |",
            "IPv6 BGP status\nNo IPv6 peers found.",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn without_bgp_it_says_that_bgp_is_off() {
        let text = render(&NodeStatus { bgp: None, ..status(Vec::new()) }, UNIX_EPOCH);
        assert!(text.contains("BGP is off."), "{text}");
    }

    #[test]
    fn how_often_the_kernel_was_too_fast_is_told_if_ever() {
        let told =
            |kernel_overruns| render(&NodeStatus { kernel_overruns, ..status(Vec::new()) }, UNIX_EPOCH);
        assert!(!told(0).contains("faster"));
        let line = "The kernel changed faster than could be followed, and was read anew: 3 times.";
        assert!(told(3).contains(line));
    }
}
