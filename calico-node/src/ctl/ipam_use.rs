//! What addresses are used for: the tables of `calicoctl ipam show`.

use std::fmt::Write;

use calico_model::Cidr;
use calico_model::resource::block::{Owner, StoredAttributes, StoredBlock, StoredIpamConfig};
use calico_model::resource::{IpPool, IpReservation, Object};
use serde_json::{Value, json};

use super::table;

/// How many addresses of a network there are, and of what sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// All of them.
    pub total: u128,
    /// Those that are held.
    pub in_use: u128,
    /// Those that are reserved and not held.
    pub reserved: u128,
}

/// The use of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockUse {
    /// The block.
    pub cidr: Cidr,
    /// Whose it is.
    pub owner: Option<Owner>,
    /// Its use.
    pub usage: Usage,
}

/// The use of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUse {
    /// The pool's name; `None` gathers the blocks that are in no pool.
    pub name: Option<String>,
    /// The pool's network.
    pub cidr: Option<Cidr>,
    /// Its use.
    pub usage: Usage,
    /// Its blocks.
    pub blocks: Vec<BlockUse>,
}

/// Whether the blocks of each pool are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Pools alone.
    Pools,
    /// Pools and their blocks.
    Blocks,
}

impl Usage {
    /// Returns how many addresses are free.
    #[must_use]
    pub fn free(&self) -> u128 {
        self.total.saturating_sub(self.in_use).saturating_sub(self.reserved)
    }
}

/// Adds up the use of pools and blocks.
#[must_use]
pub fn usage(
    pools: &[Object<IpPool>],
    reservations: &[Object<IpReservation>],
    blocks: &[StoredBlock],
) -> Vec<PoolUse> {
    let reserved = disjoint(reservations.iter().flat_map(|reservation| &reservation.spec.reserved_cidrs));
    let mut blocks: Vec<&StoredBlock> = blocks.iter().filter(|block| !block.deleted).collect();
    blocks.sort_by_key(|block| block.cidr);
    let use_of = |block: &&StoredBlock| BlockUse {
        cidr: block.cidr,
        owner: block.affinity.clone(),
        usage: of_blocks(&block.cidr, &[*block], &reserved),
    };
    let mut found: Vec<PoolUse> = Vec::new();
    for pool in pools {
        let inside: Vec<&StoredBlock> =
            blocks.iter().filter(|block| pool.spec.cidr.covers(&block.cidr)).copied().collect();
        found.push(PoolUse {
            name: Some(pool.metadata.name.to_string()),
            cidr: Some(pool.spec.cidr),
            usage: of_blocks(&pool.spec.cidr, &inside, &reserved),
            blocks: inside.iter().map(use_of).collect(),
        });
    }
    found.sort_by_key(|pool| pool.cidr);
    let in_no_pool = |block: &&&StoredBlock| !pools.iter().any(|pool| pool.spec.cidr.covers(&block.cidr));
    let stray: Vec<BlockUse> = blocks.iter().filter(in_no_pool).map(use_of).collect();
    if !stray.is_empty() {
        let sum = |part: fn(&Usage) -> u128| stray.iter().map(|block| part(&block.usage)).sum();
        let usage =
            Usage { total: sum(|u| u.total), in_use: sum(|u| u.in_use), reserved: sum(|u| u.reserved) };
        found.push(PoolUse { name: None, cidr: None, usage, blocks: stray });
    }
    found
}

fn of_blocks(network: &Cidr, blocks: &[&StoredBlock], reserved: &[Cidr]) -> Usage {
    let held = blocks.iter().flat_map(|block| block.allocated());
    let (mut in_use, mut held_reserved) = (0, 0);
    for (addr, _) in held {
        in_use += 1;
        held_reserved += u128::from(reserved.iter().any(|net| net.contains(addr)));
    }
    let overlap = reserved.iter().filter(|net| net.overlaps(network));
    let all_reserved: u128 = overlap.map(|net| size(if net.covers(network) { network } else { net })).sum();
    Usage { total: size(network), in_use, reserved: all_reserved.saturating_sub(held_reserved) }
}

/// The networks without those that lie inside another.
fn disjoint<'c>(networks: impl Iterator<Item = &'c Cidr>) -> Vec<Cidr> {
    let mut all: Vec<Cidr> = networks.copied().collect();
    all.sort_by_key(|net| (net.prefix_len(), *net));
    let mut kept: Vec<Cidr> = Vec::new();
    for net in all {
        if !kept.iter().any(|wider| wider.covers(&net)) {
            kept.push(net);
        }
    }
    kept
}

fn size(network: &Cidr) -> u128 {
    network.subnet_count(network.family().bits()).unwrap_or(u128::MAX)
}

/// Draws the use of pools, and of their blocks, each with a bar that stands as high as the block is full.
#[must_use]
pub fn usage_table(pools: &[PoolUse], detail: Detail) -> String {
    let headings = ["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE"];
    let mut rows = Vec::new();
    for pool in pools {
        if pool.name.is_some() {
            rows.push(row("IP Pool".to_owned(), pool.cidr, &pool.usage));
        }
        if detail == Detail::Blocks {
            let block = |block: &BlockUse| {
                row(format!("Block {}", bar(&block.usage)), Some(block.cidr), &block.usage)
            };
            rows.extend(pool.blocks.iter().map(block));
        }
    }
    table::boxed(&headings, &rows)
}

fn row(grouping: String, cidr: Option<Cidr>, usage: &Usage) -> Vec<String> {
    let share = |part: u128| format!("{} ({}%)", count(part), percent(part, usage.total));
    vec![
        grouping,
        cidr.map(|cidr| cidr.to_string()).unwrap_or_default(),
        count(usage.total),
        share(usage.in_use),
        count(usage.reserved),
        share(usage.free()),
    ]
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
    let eighths = usage.in_use * 8 / usage.total.max(1);
    let shown = if usage.in_use > 0 { eighths.clamp(1, 8) } else { 0 };
    HEIGHTS[usize::try_from(shown).unwrap_or(0)]
}

/// Returns the use of pools as JSON.
#[must_use]
pub fn usage_json(pools: &[PoolUse]) -> Value {
    let numbers = |usage: &Usage| {
        let number = |n: u128| u64::try_from(n).map_or_else(|_| Value::from(n as f64), Value::from);
        json!({
            "total": number(usage.total),
            "inUse": number(usage.in_use),
            "reserved": number(usage.reserved),
            "free": number(usage.free()),
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
            "name": pool.name,
            "cidr": pool.cidr.map(|cidr| cidr.to_string()),
            "ips": numbers(&pool.usage),
            "blocks": pool.blocks.iter().map(block).collect::<Vec<_>>(),
        })
    };
    json!({"pools": pools.iter().map(pool).collect::<Vec<_>>()})
}

/// Draws the addresses that live on other nodes than their block's.
#[must_use]
pub fn borrowed_table(blocks: &[StoredBlock]) -> String {
    let headings = ["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"];
    let mut rows = Vec::new();
    for block in blocks {
        for (addr, borrower) in block.borrowed() {
            let attributes =
                block.allocated().find(|(held, _)| *held == addr).map(|(_, attributes)| attributes);
            let owner = block.host().map(ToString::to_string).unwrap_or_default();
            let (sort, holder) = attributes.map(holder).unwrap_or_default();
            rows.push(vec![
                addr.to_string(),
                borrower.to_string(),
                block.cidr.to_string(),
                owner,
                sort,
                holder,
            ]);
        }
    }
    table::boxed(&headings, &rows)
}

/// What sort of user holds an address, and which.
fn holder(attributes: &StoredAttributes) -> (String, String) {
    let note = |key: &str| attributes.secondary.get(key).cloned();
    let sort = note("type").or_else(|| note("pod").map(|_| "pod".to_owned())).unwrap_or_default();
    let pod = note("pod").map(|pod| match note("namespace") {
        Some(namespace) => format!("{namespace}/{pod}"),
        None => pod,
    });
    (sort, pod.or_else(|| attributes.handle_id.clone()).unwrap_or_default())
}

/// Draws the IPAM configuration.
#[must_use]
pub fn configuration_table(config: &StoredIpamConfig) -> String {
    let rows = [
        ("StrictAffinity", config.strict_affinity.to_string()),
        ("AutoAllocateBlocks", config.auto_allocate_blocks.to_string()),
        ("MaxBlocksPerHost", config.max_blocks_per_host.to_string()),
        ("IPCooldownSeconds", config.ip_cooldown_seconds.to_string()),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    table::boxed(&["PROPERTY", "VALUE"], &rows)
}

/// Says whose an address is.
#[must_use]
pub fn describe(addr: std::net::IpAddr, assignment: Option<&calico_ipam::Assignment>) -> String {
    let Some(assignment) = assignment else {
        return format!("{addr} is not assigned\n");
    };
    let mut text = format!("IP {addr} is in use\n");
    // Writing to a string does not fail.
    let _ = writeln!(text, "Block: {}", assignment.block);
    if let Some(handle) = &assignment.handle {
        let _ = writeln!(text, "Handle: {handle}");
    }
    text.push_str("Attributes:\n");
    for (key, value) in &assignment.attributes {
        let _ = writeln!(text, "  {key}: {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, node: &str, held_by: &[Option<&str>]) -> StoredBlock {
        let attributes: Vec<Value> = held_by
            .iter()
            .flatten()
            .map(|node| json!({"handle_id": "h", "secondary": {"node": node, "pod": "p", "namespace": "ns"}}))
            .collect();
        let mut next = 0..;
        let allocations: Vec<Option<usize>> =
            held_by.iter().map(|held| held.and_then(|_| next.next())).collect();
        serde_json::from_value(json!({
            "cidr": cidr, "affinity": format!("host:{node}"), "allocations": allocations, "unallocated": [],
            "attributes": attributes,
        }))
        .unwrap()
    }

    fn pool(name: &str, cidr: &str) -> Object<IpPool> {
        Object::new(name.parse().unwrap(), IpPool::new(cidr.parse().unwrap()))
    }

    fn reservation(cidrs: &[&str]) -> Object<IpReservation> {
        let reserved_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        Object::new("r".parse().unwrap(), IpReservation { reserved_cidrs })
    }

    #[test]
    fn addresses_add_up() {
        let blocks = [
            block("10.0.0.0/30", "n1", &[Some("n1"), Some("n2"), None, None]),
            block("172.16.0.0/30", "n1", &[Some("n1"), None, None, None]),
        ];
        let reserved = [reservation(&["10.0.0.0/31", "10.0.0.1/32", "192.168.0.0/16"])];
        let found = usage(&[pool("p", "10.0.0.0/24")], &reserved, &blocks);
        assert_eq!(found[0].usage, Usage { total: 256, in_use: 2, reserved: 0 });
        assert_eq!((found[1].name.clone(), found[1].blocks.len()), (None, 1));
        let unheld = usage(&[pool("p", "10.0.0.0/24")], &reserved, &[]);
        assert_eq!(unheld[0].usage, Usage { total: 256, in_use: 0, reserved: 2 });
        let covered = usage(&[pool("p", "192.168.1.0/24")], &reserved, &[]);
        assert_eq!((covered[0].usage.reserved, covered[0].usage.free()), (256, 0));
    }

    #[test]
    fn pools_and_blocks_fit_into_a_terminal() {
        let blocks = [block("192.168.100.0/30", "n1", &[Some("n1"), None, None, None])];
        let pools = [pool("p", "192.168.0.0/16"), pool("q", "fd00:1234:5678::/48")];
        let found = usage(&pools, &[], &blocks);
        let text = usage_table(&found, Detail::Blocks);
        assert!(text.contains("| Block ▂  | 192.168.100.0/30    | 4      | 1 (25%) |"), "{text}");
        assert!(text.contains("1.2e24"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(usage_json(&found)["pools"][0]["blocks"][0]["ips"]["inUse"], 1);
    }

    #[test]
    fn a_borrowed_address_names_both_nodes_and_its_holder() {
        let text = borrowed_table(&[block("10.0.0.0/30", "n1", &[Some("n1"), Some("n2"), None, None])]);
        assert!(
            text.contains("| 10.0.0.1 | n2             | 10.0.0.0/30 | n1          | pod  | ns/p         |"),
            "{text}"
        );
        assert!(!text.contains("10.0.0.0 "), "{text}");
    }
}
