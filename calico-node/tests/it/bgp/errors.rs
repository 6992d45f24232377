//! What an operator reads of a session that does not come up.

use serde_json::Value;

use super::{Bird, NO_MESH, lab, session, sessions};
use crate::agent::eventually;

const PEER: &str = "
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: fabric}
spec: {peerIP: 172.16.6.249, asNumber: 65001}
";

fn fabric(number: u32) -> String {
    format!(
        "router id 172.16.6.249;
protocol bgp node1 {{
  local 172.16.6.249 as {number}; neighbor 172.16.6.47 as 64512;
  connect delay time 1; connect retry time 1; error wait time 1,2;
  ipv4 {{ import all; export all; }};
}}
"
    )
}

/// The table of `calicoctl node status`, each cell of which may be folded, as one line of words.
fn info(table: &str) -> String {
    let last =
        |line: &str| line.trim_end_matches('|').rsplit('|').next().unwrap_or_default().trim().to_owned();
    table.lines().filter(|line| line.starts_with('|')).map(last).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_session_that_is_refused_says_why_in_words_and_with_the_rfcs_numbers() {
    let lab = lab();
    lab.apply(NO_MESH).unwrap();
    lab.apply(PEER).unwrap();
    let status = || lab.calicoctl("node1", &["node", "status"], "").unwrap();
    let dialed = eventually(status, |status| info(status).contains("refused"));
    assert!(dialed.contains("| 172.16.6.249 | global    | start |"), "{dialed}");
    assert!(info(&dialed).contains("INFO Active: cannot connect to 172.16.6.249:179"), "{dialed}");

    let bird = Bird::start(&lab, "fabric", &fabric(65009));
    let told = || sessions(&lab)[0]["lastSent"].as_str().unwrap_or_default().to_owned();
    let sent = eventually(told, |sent| sent.contains("2/2"));
    assert_eq!(sent, "AS number is not the expected one (2/2)");
    let status = eventually(status, |status| info(status).contains(&sent));
    assert!(info(&status).contains(&format!("we closed the session: {sent}")), "{status}");

    // It is tried again and again, and has not been up all the while.
    let since = || {
        let text = lab.calicoctl("node1", &["node", "status", "-o", "json"], "").unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["bgp"]["peers"][0]["since"].as_u64().unwrap()
    };
    let tries = || sessions(&lab)[0]["counters"]["messagesOut"].as_u64().unwrap();
    let (before, tried) = (since(), tries());
    assert!(
        eventually(tries, |tries| *tries >= tried + 6) >= tried + 6,
        "each costs an OPEN and a NOTIFICATION"
    );
    assert!(since().abs_diff(before) <= 1, "not since the last try");

    bird.reconfigure(&fabric(65001));
    session(&lab, "Established");
    lab.down().unwrap();
}
