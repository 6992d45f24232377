//! Why routes are held in blocks: a million prefixes in random order, put into and found in our table, the standard
//! library's B-tree and its hash map. Each has a process of its own, whose memory is what it then holds.

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Instant;

use calico_bgp::decision::Sources;
use calico_bgp::rib::intern::Interner;
use calico_bgp::rib::{Path, PeerId, Table};
use calico_bgp::wire::{Attributes, Prefix};
use calico_model::Cidr;

const COUNT: u32 = 1_000_000;

fn main() {
    if let Some(kind) = std::env::args().nth(1).filter(|argument| argument != "--bench") {
        return measure(&kind);
    }
    let Ok(own) = std::env::current_exe() else { return eprintln!("cannot tell where this program is") };
    println!("{:<22} {:>14} {:>14} {:>18}", "", "insert", "find", "memory per route");
    for kind in ["blocks", "btree", "hash"] {
        match Command::new(&own).arg(kind).status() {
            Ok(status) if status.success() => {}
            outcome => eprintln!("{kind}: {outcome:?}"),
        }
    }
}

fn measure(kind: &str) {
    let prefixes: Vec<Prefix<Ipv4Addr>> = (0..COUNT).filter_map(scattered).collect();
    let short = Attributes::originated(Ipv4Addr::new(10, 0, 0, 1).into());
    let set = Interner::default().intern(&short).expect("no attribute is long");
    let path = || Path::new(set.clone(), PeerId::LOCAL, 0);
    match kind {
        "blocks" => {
            let (mut table, sources) = (Table::default(), Sources::default());
            let insert = |prefix, table: &mut Table<Ipv4Addr>| drop(table.insert(prefix, path(), &sources));
            report("our table", &prefixes, &mut table, insert, |prefix, table| table.best(prefix).is_some());
        }
        "btree" => {
            let mut table = BTreeMap::new();
            let insert = |prefix, table: &mut BTreeMap<_, _>| drop(table.insert(prefix, path()));
            report("BTreeMap", &prefixes, &mut table, insert, |prefix, table| table.contains_key(&prefix));
        }
        _ => {
            let mut table: HashMap<_, Path> = HashMap::new();
            let insert = |prefix, table: &mut HashMap<_, _>| drop(table.insert(prefix, path()));
            report("HashMap, no order", &prefixes, &mut table, insert, |prefix, table| {
                table.contains_key(&prefix)
            });
        }
    }
}

/// A prefix of 24 bits; an odd multiplier scatters the numbers without repeating one.
fn scattered(number: u32) -> Option<Prefix<Ipv4Addr>> {
    let place = number.wrapping_mul(0x9e37_79b1) >> 8;
    Prefix::of(Cidr::holding(Ipv4Addr::from(place << 8).into(), 24)?)
}

fn report<T>(
    name: &str,
    prefixes: &[Prefix<Ipv4Addr>],
    table: &mut T,
    insert: impl Fn(Prefix<Ipv4Addr>, &mut T),
    find: impl Fn(Prefix<Ipv4Addr>, &T) -> bool,
) {
    let before = resident();
    let start = clock();
    prefixes.iter().for_each(|prefix| insert(*prefix, table));
    let inserted = start.elapsed();
    let held = resident().saturating_sub(before);
    let start = clock();
    let found = prefixes.iter().rev().filter(|prefix| find(**prefix, black_box(table))).count();
    let looked = start.elapsed();
    let each = |total: u128| total as f64 / prefixes.len() as f64;
    println!(
        "{name:<22} {:>11.0} ns {:>11.0} ns {:>16.1} B",
        each(inserted.as_nanos()),
        looked.as_nanos() as f64 / found as f64,
        each(held.into())
    );
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn clock() -> Instant {
    Instant::now()
}

/// Returns the resident memory in octets.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
