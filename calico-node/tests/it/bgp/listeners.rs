//! Where an agent can be reached from outside its host.

use std::collections::BTreeSet;

use super::lab;
use crate::agent::eventually;

#[test]
fn an_agent_listens_for_bgp_and_on_no_other_port() {
    let lab = lab();
    let listening = || -> BTreeSet<(String, String)> {
        let text = lab.exec("node1", "ss", &["-Hlntu"]).unwrap().stdout;
        let socket = |line: &str| {
            let mut words = line.split_whitespace();
            let (kind, address) = (words.next()?, words.nth(3)?);
            Some((kind.to_owned(), address.rsplit(':').next()?.to_owned()))
        };
        text.lines().filter_map(socket).collect()
    };
    let bgp = BTreeSet::from([("tcp".to_owned(), "179".to_owned())]);
    assert_eq!(eventually(listening, |listening| !listening.is_empty()), bgp);
    lab.down().unwrap();
}
