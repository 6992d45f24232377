//! Whether IPAM's data agrees with what uses it: the answer of `calicoctl ipam check`, for people.

use std::collections::BTreeMap;

use calico_ipam::{Check, Finding, Held, Liveness};

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

/// The headings of the findings, in the order they are shown; each is also shown when there is nothing under it.
const HEADINGS: [&str; 11] = [
    "IPs that are allocated and not in use (leaked)",
    "IPs that are in use and not allocated",
    "IPs that are allocated twice",
    "IPs that several endpoints use",
    "handles that do not hold what they say",
    "blocks of nodes that do not exist",
    "blocks that are in no pool",
    "blocks that share addresses",
    "blocks without a confirmed owner",
    "affinities to blocks of others",
    "empty blocks of nobody",
];

fn heading(finding: &Finding) -> &'static str {
    let index = match finding {
        Finding::LeakedAddress { .. } => 0,
        Finding::NotAssigned { .. } => 1,
        Finding::HeldTwice { .. } => 2,
        Finding::SharedAddress { .. } => 3,
        Finding::SkewedHandle { .. } => 4,
        Finding::OrphanedBlock { .. } => 5,
        Finding::OutsidePools { .. } => 6,
        Finding::OverlappingBlocks { .. } => 7,
        Finding::UnconfirmedBlock { .. } => 8,
        Finding::StaleAffinity { .. } => 9,
        // The last also stands for what a later version finds.
        Finding::AbandonedBlock { .. } | _ => 10,
    };
    HEADINGS[index]
}

/// Writes what a check found.
#[must_use]
pub fn render(found: &Check, listed: Listed) -> String {
    let mut lines = vec!["Checking IPAM for inconsistencies...".to_owned(), String::new()];
    let with = |liveness| found.held.iter().filter(move |held| held.liveness == liveness);
    lines.push(format!("Found {} IPAM blocks and {} handles.", found.blocks, found.handles));
    let used = with(Liveness::Alive).count();
    lines.push(format!("Found {} allocated IPs, of which {used} are in use.", found.held.len()));
    if listed == Listed::All {
        lines.extend(
            with(Liveness::Alive).map(|held| format!("  {} is used by {}", held.addr, users(found, held))),
        );
    }
    lines.push(format!("Found {} allocated IPs of which nobody can tell.", with(Liveness::Unknown).count()));
    if listed == Listed::All {
        let handle = |held: &Held| held.handle.clone().unwrap_or_default();
        lines.extend(
            with(Liveness::Unknown).map(|held| format!("  {} is held by {:?}", held.addr, handle(held))),
        );
    }
    let mut findings: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in &found.findings {
        findings.entry(heading(finding)).or_default().push(finding);
    }
    for heading in HEADINGS {
        let under = findings.remove(heading).unwrap_or_default();
        lines.push(format!("Found {} {heading}.", under.len()));
        if listed != Listed::None {
            lines.extend(under.iter().map(|finding| format!("  {finding}")));
        }
    }
    lines.push(format!("Check complete; found {} problems.", found.findings.len()));
    lines.join("\n") + "\n"
}

fn users(found: &Check, held: &Held) -> String {
    let users = found.users.get(&held.addr).into_iter().flatten();
    users.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
