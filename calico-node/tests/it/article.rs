//! What the tests of published route tables share.

use calico_node::lab::Lab;

/// The tunnel that labs use where any would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tunnel {
    Ipip,
    Vxlan,
}

/// `CALICO_TEST_TUNNEL=ipip` on a kernel that has it, as in `make test-vm`; VXLAN otherwise.
pub(crate) fn tunnel() -> Tunnel {
    match std::env::var("CALICO_TEST_TUNNEL").as_deref() {
        Ok("ipip") => Tunnel::Ipip,
        Ok(other) => panic!("CALICO_TEST_TUNNEL={other}: it may be ipip, or absent"),
        Err(_) => Tunnel::Vxlan,
    }
}

/// Waits until the IPv4 routes of a host are those wanted, whatever their order, protocol and metric.
pub(crate) fn assert_routes(lab: &Lab, host: &str, wanted: &[String]) {
    let mut wanted = wanted.to_vec();
    wanted.sort();
    let found = crate::agent::eventually(|| routes(lab, host), |found| *found == wanted);
    assert_eq!(found, wanted, "the routes of {host}");
}

fn routes(lab: &Lab, host: &str) -> Vec<String> {
    let text = lab.exec(host, "ip", &["-4", "route", "show"]).unwrap().stdout;
    let mut routes: Vec<String> = text.lines().map(without_accidents).collect();
    routes.sort();
    routes
}

/// Drops who wrote a route, and its metric.
fn without_accidents(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if matches!(word, "proto" | "metric") {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// The interface of a workload on its host.
pub(crate) fn interface(lab: &Lab, workload: &str) -> String {
    let attachment = lab.state().workload(workload).unwrap().attachment.clone().unwrap();
    attachment["interfaces"][0]["name"].as_str().unwrap().to_owned()
}
