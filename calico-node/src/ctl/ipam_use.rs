//! What addresses are used for: the tables of `calicoctl ipam show`.

use std::fmt::Write;
use std::net::IpAddr;

use calico_ipam::report::{BlockUse, Borrowed, PoolUse, Usage, sum};
use calico_ipam::{Assignment, Utilisation};
use calico_model::Cidr;
use calico_model::resource::block::{Owner, StoredIpamConfig};
use serde_json::{Value, json};

use super::table;

/// Whether the blocks of each pool are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Pools alone.
    Pools,
    /// Pools and their blocks.
    Blocks,
}

/// Draws the use of pools, and of their blocks, each with a bar that stands as high as the block is full. When addresses
/// cool down, which are neither in use nor free, a sentence below says how many.
#[must_use]
pub fn usage_table(found: &Utilisation, detail: Detail) -> String {
    let headings = ["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE"];
    let row = |grouping: String, cidr: &Cidr, usage: &Usage| {
        let share = |part: u128| format!("{} ({}%)", count(part), percent(part, usage.capacity));
        let mut row = vec![grouping, cidr.to_string(), count(usage.capacity)];
        row.extend([usage.in_use, usage.reserved, usage.available()].map(share));
        row
    };
    let block = |block: &BlockUse| row(format!("Block {}", bar(&block.usage)), &block.cidr, &block.usage);
    let mut rows = Vec::new();
    for pool in &found.pools {
        rows.push(row("IP Pool".to_owned(), &pool.cidr, &pool.usage));
        if detail == Detail::Blocks {
            rows.extend(pool.blocks.iter().map(block));
        }
    }
    if detail == Detail::Blocks {
        rows.extend(found.outside.iter().map(block));
    }
    let mut text = table::boxed(&headings, &rows);
    let cooling =
        found.pools.iter().map(|pool| pool.usage.cooling).sum::<u128>() + sum(&found.outside).cooling;
    if cooling > 0 {
        text += &format!("IPs released a moment ago, neither in use nor free yet: {}\n", count(cooling));
    }
    text
}

/// A number in full, or by its power of ten when nobody would read it.
fn count(number: u128) -> String {
    const READABLE: u128 = 10_000_000;
    if number < READABLE { number.to_string() } else { format!("{:.1e}", number as f64) }
}

fn percent(part: u128, total: u128) -> u128 {
    if total == 0 { 0 } else { (part as f64 * 100.0 / total as f64).round() as u128 }
}

/// One character: a bar of eight heights, empty only when nothing is used and full only when all is.
fn bar(usage: &Usage) -> char {
    const HEIGHTS: [char; 9] = ['_', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let eighths = usage.in_use * 8 / usage.capacity.max(1);
    let shown = if usage.in_use > 0 { eighths.clamp(1, 8) } else { 0 };
    HEIGHTS[usize::try_from(shown).unwrap_or(0)]
}

/// Returns the use of pools as JSON.
#[must_use]
pub fn usage_json(found: &Utilisation) -> Value {
    let numbers = |usage: &Usage| {
        let number = |n: u128| u64::try_from(n).map_or_else(|_| Value::from(n as f64), Value::from);
        json!({
            "total": number(usage.capacity),
            "inUse": number(usage.in_use),
            "reserved": number(usage.reserved),
            "cooling": number(usage.cooling),
            "free": number(usage.available()),
        })
    };
    let block = |block: &BlockUse| {
        json!({
            "cidr": block.cidr.to_string(),
            "affinity": block.owner.as_ref().map(ToString::to_string),
            "ips": numbers(&block.usage),
        })
    };
    let pool = |pool: &PoolUse| {
        json!({
            "name": pool.name.to_string(),
            "cidr": pool.cidr.to_string(),
            "disabled": pool.disabled,
            "ips": numbers(&pool.usage),
            "blocks": pool.blocks.iter().map(block).collect::<Vec<_>>(),
        })
    };
    json!({
        "pools": found.pools.iter().map(pool).collect::<Vec<_>>(),
        "blocksOutsidePools": found.outside.iter().map(block).collect::<Vec<_>>(),
    })
}

fn all_blocks(found: &Utilisation) -> impl Iterator<Item = &BlockUse> {
    found.pools.iter().flat_map(|pool| &pool.blocks).chain(&found.outside)
}

fn owner_of(block: &BlockUse) -> String {
    match &block.owner {
        Some(Owner::Host(name) | Owner::Virtual(name)) => name.to_string(),
        None => String::new(),
    }
}

/// Draws the addresses that live on other nodes than their block's.
#[must_use]
pub fn borrowed_table(found: &Utilisation) -> String {
    let headings = ["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"];
    let row = |block: &BlockUse, borrowed: &Borrowed| {
        let (sort, holder) = borrowed.holder();
        let [addr, cidr] = [borrowed.addr.to_string(), block.cidr.to_string()];
        vec![addr, borrowed.node.to_string(), cidr, owner_of(block), sort, holder]
    };
    let rows: Vec<Vec<String>> =
        all_blocks(found).flat_map(|block| block.borrowed.iter().map(move |one| row(block, one))).collect();
    let mut text = table::boxed(&headings, &rows);
    let nodeless: usize = all_blocks(found).map(|block| block.nodeless).sum();
    if nodeless > 0 {
        text += &format!("{nodeless} allocated IPs do not say which node they live on.\n");
    }
    text
}

/// Returns the addresses that live on other nodes than their block's as JSON.
#[must_use]
pub fn borrowed_json(found: &Utilisation) -> Value {
    let one = |block: &BlockUse, borrowed: &Borrowed| {
        let (sort, holder) = borrowed.holder();
        json!({
            "ip": borrowed.addr.to_string(),
            "borrowingNode": borrowed.node.to_string(),
            "block": block.cidr.to_string(),
            "blockOwner": owner_of(block),
            "type": sort,
            "allocatedTo": holder,
        })
    };
    let borrowed: Vec<Value> =
        all_blocks(found).flat_map(|block| block.borrowed.iter().map(move |b| one(block, b))).collect();
    json!({"borrowed": borrowed})
}

/// Draws the IPAM configuration.
#[must_use]
pub fn configuration_table(config: &StoredIpamConfig) -> String {
    let rows = [
        ("StrictAffinity", config.strict_affinity.to_string()),
        ("AutoAllocateBlocks", config.auto_allocate_blocks.to_string()),
        ("MaxBlocksPerHost", config.max_blocks_per_host.to_string()),
        (
            "KubeVirtVMAddressPersistence",
            config.kube_virt_vm_address_persistence.clone().unwrap_or_else(|| "<unset>".to_owned()),
        ),
        ("IPCooldownSeconds", config.ip_cooldown_seconds.to_string()),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    table::boxed(&["PROPERTY", "VALUE"], &rows)
}

/// Returns the IPAM configuration as JSON, with the names of the `IPAMConfiguration` resource.
#[must_use]
pub fn configuration_json(config: &StoredIpamConfig) -> Value {
    json!({
        "strictAffinity": config.strict_affinity,
        "autoAllocateBlocks": config.auto_allocate_blocks,
        "maxBlocksPerHost": config.max_blocks_per_host,
        "kubeVirtVMAddressPersistence": config.kube_virt_vm_address_persistence,
        "ipCooldownSeconds": config.ip_cooldown_seconds,
    })
}

/// Says whose an address is.
#[must_use]
pub fn describe(addr: IpAddr, assignment: Option<&Assignment>) -> String {
    let Some(assignment) = assignment else {
        return format!("{addr} is not assigned\n");
    };
    let mut text = format!("IP {addr} is in use\n");
    // Writing to a string does not fail.
    let _ = writeln!(text, "Block: {}", assignment.block);
    let _ = writeln!(text, "Handle ID: {}", assignment.handle.as_deref().unwrap_or("<none>"));
    let mut notes = |title: &str, notes: &std::collections::BTreeMap<String, String>| {
        let _ = writeln!(text, "{title}:");
        for (key, value) in notes {
            let _ = writeln!(text, "  {key}: {value}");
        }
    };
    notes("Attributes", &assignment.attributes);
    if !assignment.alternate.is_empty() {
        notes("Alternate owner", &assignment.alternate);
    }
    text
}

/// Returns whose an address is as JSON.
#[must_use]
pub fn describe_json(addr: IpAddr, assignment: Option<&Assignment>) -> Value {
    let holder = assignment.map(|held| {
        json!({
            "block": held.block.to_string(),
            "handle": held.handle,
            "attributes": held.attributes,
            "alternateOwner": held.alternate,
            "sequenceNumber": held.sequence.map(|sequence| sequence.0),
        })
    });
    json!({"ip": addr.to_string(), "inUse": holder.is_some(), "assignment": holder})
}

#[cfg(test)]
mod tests {
    use calico_ipam::report::utilisation;
    use calico_ipam::{Block, Settings};
    use calico_model::resource::block::StoredBlock;
    use calico_model::resource::{IpPool, Object};

    use super::*;

    /// A block with an address for each node, and one that cools down where the node is `cold`.
    fn block(cidr: &str, node: &str, held_by: &[Option<&str>]) -> Block {
        let note = |node: &&str| match *node {
            "cold" => json!({"releasedAt": "2025-03-04T05:06:07Z"}),
            node => json!({"handle_id": "h", "secondary": {"node": node, "pod": "p", "namespace": "ns"}}),
        };
        let mut next = 0..;
        let allocations: Vec<Option<usize>> =
            held_by.iter().map(|held| held.and_then(|_| next.next())).collect();
        let unallocated: Vec<usize> = allocations
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.is_none())
            .map(|(index, _)| index)
            .collect();
        let stored: StoredBlock = serde_json::from_value(json!({
            "cidr": cidr, "affinity": format!("host:{node}"), "allocations": allocations,
            "unallocated": unallocated, "attributes": held_by.iter().flatten().map(note).collect::<Vec<_>>(),
        }))
        .unwrap();
        stored.try_into().unwrap()
    }

    fn shown(pools: &[(&str, &str)], blocks: &[Block]) -> Utilisation {
        let pool = |(name, cidr): &(&str, &str)| {
            Object::new(name.parse().unwrap(), IpPool::new(cidr.parse().unwrap()))
        };
        let settings = Settings {
            config: StoredIpamConfig::default(),
            pools: pools.iter().map(pool).collect(),
            reserved: Vec::new(),
            problems: Vec::new(),
        };
        utilisation(&settings, blocks)
    }

    #[test]
    fn pools_and_blocks_fit_into_a_terminal() {
        let blocks = [block("192.168.100.0/30", "n1", &[Some("n1"), None, None, None])];
        let found = shown(&[("p", "192.168.0.0/16"), ("q", "fd00:1234:5678::/48")], &blocks);
        let text = usage_table(&found, Detail::Blocks);
        assert!(text.contains("| Block ▂  | 192.168.100.0/30    | 4      | 1 (25%) |"), "{text}");
        assert!(text.contains("1.2e24"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(usage_json(&found)["pools"][0]["blocks"][0]["ips"]["inUse"], 1);
    }

    #[test]
    fn an_address_that_cools_down_is_neither_in_use_nor_free() {
        let blocks = [block("192.168.100.0/30", "n1", &[Some("n1"), Some("cold"), None, None])];
        let found = shown(&[("p", "192.168.0.0/16")], &blocks);
        let text = usage_table(&found, Detail::Blocks);
        assert!(text.ends_with("+\nIPs released a moment ago, neither in use nor free yet: 1\n"), "{text}");
        assert!(text.contains("| 1 (25%) ") && text.contains("| 2 (50%) "), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let ips = &usage_json(&found)["pools"][0]["ips"];
        assert_eq!((&ips["inUse"], &ips["cooling"], &ips["free"]), (&json!(1), &json!(1), &json!(65_534)));
    }

    #[test]
    fn a_borrowed_address_names_both_nodes_and_its_holder() {
        let found = shown(&[], &[block("10.0.0.0/30", "n1", &[Some("n1"), Some("n2"), None, None])]);
        let text = borrowed_table(&found);
        assert!(
            text.contains("| 10.0.0.1 | n2             | 10.0.0.0/30 | n1          | pod  | ns/p         |"),
            "{text}"
        );
        assert!(!text.contains("10.0.0.0 "), "{text}");
        assert_eq!(borrowed_json(&found)["borrowed"][0]["borrowingNode"], "n2");
    }
}
