//! Whether IPAM's data agrees with what uses it.
//!
//! An address is *leaked* when it is held and nothing uses it, and *missing* when it is used from a pool and nobody holds
//! it. A handle is leaked when it holds less than it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use calico_model::resource::block::{StoredBlock, StoredHandle};
use calico_model::resource::{IpPool, Node, Object, WorkloadEndpoint};
use calico_model::{Cidr, NodeName};
use serde_json::{Value, json};

/// What the check looks at, all read at about the same time.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// The pools.
    pub pools: Vec<Object<IpPool>>,
    /// The nodes.
    pub nodes: Vec<Object<Node>>,
    /// The endpoints.
    pub endpoints: Vec<Object<WorkloadEndpoint>>,
    /// The blocks.
    pub blocks: Vec<StoredBlock>,
    /// The handles.
    pub handles: Vec<StoredHandle>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many blocks there are.
    pub blocks: usize,
    /// The held addresses, and what each is used by.
    pub held: BTreeMap<IpAddr, Option<String>>,
    /// The addresses that are used, are in a pool, and are held by nobody, and what uses them.
    pub missing: BTreeMap<IpAddr, String>,
    /// The addresses that two blocks hold.
    pub doubled: BTreeSet<IpAddr>,
    /// The addresses that several endpoints use.
    pub shared: BTreeMap<IpAddr, Vec<String>>,
    /// The blocks of nodes that do not exist.
    pub orphaned_blocks: BTreeMap<Cidr, String>,
    /// The blocks that are in no pool.
    pub stray_blocks: BTreeSet<Cidr>,
    /// The handles that do not hold what they say.
    pub leaked_handles: BTreeSet<String>,
}

impl Report {
    /// Walks the addresses that are held and not used.
    pub fn leaked(&self) -> impl Iterator<Item = IpAddr> {
        self.held.iter().filter(|(_, user)| user.is_none()).map(|(addr, _)| *addr)
    }

    /// Returns how many things are wrong.
    #[must_use]
    pub fn problems(&self) -> usize {
        self.leaked().count()
            + self.missing.len()
            + self.doubled.len()
            + self.shared.len()
            + self.orphaned_blocks.len()
            + self.leaked_handles.len()
    }
}

/// Compares what is held with what is used.
#[must_use]
pub fn check(input: &Input) -> Report {
    let mut users: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for endpoint in &input.endpoints {
        for net in &endpoint.spec.ip_networks {
            users.entry(net.addr()).or_default().push(format!("WorkloadEndpoint({})", endpoint.id()));
        }
    }
    for node in &input.nodes {
        let name = format!("Node({})", node.metadata.name);
        for addr in tunnel_addrs(&node.spec) {
            users.entry(addr).or_default().push(name.clone());
        }
    }
    let mut report =
        Report { blocks: input.blocks.iter().filter(|block| !block.deleted).count(), ..Report::default() };
    let mut counts: BTreeMap<(&str, Cidr), u64> = BTreeMap::new();
    for block in input.blocks.iter().filter(|block| !block.deleted) {
        if !input.pools.iter().any(|pool| pool.spec.cidr.covers(&block.cidr)) {
            report.stray_blocks.insert(block.cidr);
        }
        let exists =
            |host: &NodeName| input.nodes.iter().any(|node| node.metadata.name.as_str() == host.as_str());
        if let Some(host) = block.host().filter(|host| !exists(host)) {
            report.orphaned_blocks.insert(block.cidr, host.to_string());
        }
        for (addr, attributes) in block.allocated() {
            let user = users.get(&addr).and_then(|users| users.first().cloned());
            if report.held.insert(addr, user).is_some() {
                report.doubled.insert(addr);
            }
            if let Some(handle) = &attributes.handle_id {
                *counts.entry((handle, block.cidr)).or_default() += 1;
            }
        }
    }
    for handle in input.handles.iter().filter(|handle| !handle.deleted) {
        let holds =
            |(cidr, said): (&Cidr, &u64)| counts.get(&(handle.handle_id.as_str(), *cidr)) == Some(said);
        if !handle.block.iter().all(holds) {
            report.leaked_handles.insert(handle.handle_id.clone());
        }
    }
    for (addr, users) in users {
        let in_pool = input.pools.iter().any(|pool| pool.spec.cidr.contains(addr));
        if in_pool && !report.held.contains_key(&addr) {
            report.missing.insert(addr, users[0].clone());
        }
        if users.len() > 1 {
            report.shared.insert(addr, users);
        }
    }
    report
}

fn tunnel_addrs(node: &Node) -> Vec<IpAddr> {
    let ipip = node.bgp.as_ref().and_then(|bgp| bgp.ipv4_ipip_tunnel_addr).map(IpAddr::from);
    let vxlan4 = node.ipv4_vxlan_tunnel_addr.map(IpAddr::from);
    let vxlan6 = node.ipv6_vxlan_tunnel_addr.map(IpAddr::from);
    [ipip, vxlan4, vxlan6].into_iter().flatten().collect()
}

/// Which addresses are listed one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Only counts.
    None,
    /// Those with which something is wrong.
    Problems,
    /// All.
    All,
}

/// Writes a report for people.
#[must_use]
pub fn render(report: &Report, listed: Listed) -> String {
    let mut text = String::from("Checking IPAM for inconsistencies...\n\n");
    // Writing to a string does not fail.
    let mut line = |words: String| {
        let _ = writeln!(text, "{words}");
    };
    let used = report.held.values().flatten().count();
    line(format!("Found {} IPAM blocks.", report.blocks));
    line(format!("Found {} allocated IPs, of which {used} are in use.", report.held.len()));
    if listed == Listed::All {
        for (addr, user) in report.held.iter().filter_map(|(addr, user)| Some((addr, user.as_ref()?))) {
            line(format!("  {addr} is used by {user}"));
        }
    }
    let many = listed != Listed::None;
    line(format!("Found {} IPs that are allocated and not in use (leaked).", report.leaked().count()));
    report.leaked().filter(|_| many).for_each(|addr| line(format!("  {addr}")));
    line(format!("Found {} IPs that are in use and not allocated.", report.missing.len()));
    report
        .missing
        .iter()
        .filter(|_| many)
        .for_each(|(addr, user)| line(format!("  {addr} is used by {user}")));
    line(format!("Found {} IPs that are allocated twice.", report.doubled.len()));
    report.doubled.iter().filter(|_| many).for_each(|addr| line(format!("  {addr}")));
    line(format!("Found {} IPs that several endpoints use.", report.shared.len()));
    for (addr, users) in report.shared.iter().filter(|_| many) {
        line(format!("  {addr} is used by {}", users.join(", ")));
    }
    line(format!("Found {} blocks of nodes that do not exist.", report.orphaned_blocks.len()));
    for (cidr, node) in report.orphaned_blocks.iter().filter(|_| many) {
        line(format!("  {cidr} belongs to {node}"));
    }
    line(format!("Found {} blocks that are in no pool.", report.stray_blocks.len()));
    report.stray_blocks.iter().filter(|_| many).for_each(|cidr| line(format!("  {cidr}")));
    line(format!("Found {} handles that do not hold what they say.", report.leaked_handles.len()));
    report.leaked_handles.iter().filter(|_| many).for_each(|handle| line(format!("  {handle}")));
    line(format!("Check complete; found {} problems.", report.problems()));
    text
}

/// Returns a report as JSON.
#[must_use]
pub fn to_json(report: &Report) -> Value {
    let texts = |addrs: &mut dyn Iterator<Item = IpAddr>| -> Vec<String> {
        addrs.map(|addr| addr.to_string()).collect()
    };
    let allocations: serde_json::Map<String, Value> = report
        .held
        .iter()
        .map(|(addr, user)| (addr.to_string(), json!({"user": user, "inUse": user.is_some()})))
        .collect();
    json!({
        "blocks": report.blocks,
        "allocations": allocations,
        "leakedIPs": texts(&mut report.leaked()),
        "missingIPs": texts(&mut report.missing.keys().copied()),
        "doubledIPs": texts(&mut report.doubled.iter().copied()),
        "sharedIPs": texts(&mut report.shared.keys().copied()),
        "orphanedBlocks": report.orphaned_blocks.keys().map(ToString::to_string).collect::<Vec<_>>(),
        "strayBlocks": report.stray_blocks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "leakedHandles": report.leaked_handles,
        "problems": report.problems(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> Input {
        let block = serde_json::from_value(json!({
            "cidr": "10.0.0.0/30", "affinity": "host:n1", "allocations": [0, 1, null, null], "unallocated": [2, 3],
            "attributes": [{"handle_id": "a", "secondary": {}}, {"handle_id": "b", "secondary": {}}],
        }));
        let handle = |name: &str, count: u64| {
            serde_json::from_value(json!({"id": name, "block": {"10.0.0.0/30": count}})).unwrap()
        };
        let node: NodeName = "n1".parse().unwrap();
        let mut used = WorkloadEndpoint::on(node.clone());
        used.ip_networks = vec![
            "10.0.0.0/32".parse().unwrap(),
            "10.0.0.3/32".parse().unwrap(),
            "172.16.0.1/32".parse().unwrap(),
        ];
        Input {
            pools: vec![Object::new("p".parse().unwrap(), IpPool::new("10.0.0.0/16".parse().unwrap()))],
            nodes: vec![Object::new(node.into(), Node::new())],
            endpoints: vec![Object::new("e".parse().unwrap(), used)],
            blocks: vec![block.unwrap()],
            handles: vec![handle("a", 1), handle("b", 2)],
        }
    }

    #[test]
    fn what_is_held_and_what_is_used_are_compared() {
        let report = check(&input());
        assert_eq!(report.leaked().collect::<Vec<_>>(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(report.missing.keys().collect::<Vec<_>>(), [&"10.0.0.3".parse::<IpAddr>().unwrap()]);
        assert_eq!(report.leaked_handles, BTreeSet::from(["b".to_owned()]));
        assert_eq!(report.problems(), 3);
        let text = render(&report, Listed::Problems);
        assert!(
            text.contains("Found 1 IPs that are allocated and not in use (leaked).\n  10.0.0.1\n"),
            "{text}"
        );
        assert_eq!(to_json(&report)["leakedIPs"], json!(["10.0.0.1"]));
    }

    #[test]
    fn a_tunnel_address_is_in_use_and_a_block_of_no_node_is_orphaned() {
        let mut input = input();
        input.nodes[0].spec.ipv4_vxlan_tunnel_addr = "10.0.0.1".parse().ok();
        input.endpoints[0].spec.ip_networks.pop();
        assert_eq!(check(&input).leaked().count(), 0);
        input.nodes.clear();
        let report = check(&input);
        assert_eq!(report.orphaned_blocks.len(), 1);
    }
}
