//! What is wrong: addresses whose holder is gone, counts that do not agree, claims that were never finished.
//!
//! [`Ipam::check`] looks and changes nothing. What it finds is a plan: [`Ipam::reclaim`] carries it out, and looks at
//! each thing again just before. A holder that was made a moment ago may not be visible yet, so check twice, some
//! minutes apart, and reclaim [what both found](Check::also_in).

mod finding;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use calico_model::resource::ResourceKey;
use calico_model::resource::block::{AffinityState, Owner};
use calico_model::{Cidr, NodeName, SequenceNumber};

use crate::block::{Block, WINDOWS_RESERVED};
use crate::error::AccessError;
pub use crate::inventory::Inventory;
use crate::ipam::Ipam;
use crate::pool::Settings;
use crate::users::Users;
pub use finding::Finding;

/// Whether the holder of an address still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It does.
    Alive,
    /// It does not: its addresses are leaked.
    Gone,
    /// There is no telling; its addresses are let be.
    Unknown,
}

/// An address that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The address.
    pub addr: IpAddr,
    /// Its block.
    pub block: Cidr,
    /// The handle that holds it.
    pub handle: Option<String>,
    /// What was noted when it was assigned.
    pub attributes: BTreeMap<String, String>,
    /// When it was assigned, in the block's count of changes.
    pub sequence: Option<SequenceNumber>,
    /// Whether it lives on another node than its block's.
    pub borrowed: bool,
    /// Whether its holder still lives.
    pub liveness: Liveness,
}

impl Held {
    /// Describes an address as its block has it; `None` when nobody holds it.
    pub(crate) fn read(block: &Block, addr: IpAddr) -> Option<Self> {
        let attributes = block.attributes_of(addr)?;
        let host = block.owner().and_then(Owner::host).map(NodeName::as_str);
        let node = attributes.secondary.get("node").map(String::as_str);
        Some(Self {
            addr,
            block: block.cidr(),
            handle: attributes.handle_id.clone(),
            attributes: attributes.secondary.clone(),
            sequence: block.sequence_of(addr),
            borrowed: node.is_some() && node != host,
            liveness: Liveness::Unknown,
        })
    }
}

impl Held {
    /// Says whether the holder lives; what a Windows host keeps for itself lives with the block.
    pub(crate) fn judged(&self, judge: &dyn Fn(&Held) -> Liveness) -> Liveness {
        if self.handle.as_deref() == Some(WINDOWS_RESERVED) { Liveness::Alive } else { judge(self) }
    }
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Every address that is held.
    pub held: Vec<Held>,
    /// What is wrong, sorted.
    pub findings: BTreeSet<Finding>,
    /// Who uses which address, held or not; empty after [`Ipam::check_with`].
    pub users: BTreeMap<IpAddr, BTreeSet<ResourceKey>>,
    /// How many blocks there are.
    pub blocks: usize,
    /// How many handles there are.
    pub handles: usize,
    /// What is stored and cannot be read, for people.
    pub problems: Vec<String>,
}

impl Check {
    /// Returns what an earlier check found too: an address only when it was not assigned anew between.
    pub fn also_in<'c>(&'c self, earlier: &'c Check) -> impl Iterator<Item = &'c Finding> {
        self.findings.intersection(&earlier.findings)
    }
}

/// Looks for what is wrong. All addresses of one handle are leaked or none is: a holder with one live address lives.
#[must_use]
pub fn check(inventory: &Inventory, settings: &Settings, judge: &dyn Fn(&Held) -> Liveness) -> Check {
    let mut result = Check {
        problems: inventory.problems.clone(),
        blocks: inventory.blocks.len(),
        handles: inventory.handles.len(),
        ..Check::default()
    };
    let mut spared: BTreeSet<String> = BTreeSet::new();
    for block in inventory.blocks.values() {
        for mut held in block.holders().filter_map(|(addr, _)| Held::read(block, addr)) {
            held.liveness = held.judged(judge);
            if held.liveness != Liveness::Gone {
                spared.extend(held.handle.clone());
            }
            result.held.push(held);
        }
    }
    for held in &mut result.held {
        if held.liveness == Liveness::Gone
            && held.handle.as_ref().is_some_and(|handle| spared.contains(handle))
        {
            held.liveness = Liveness::Unknown;
        }
        if held.liveness == Liveness::Gone {
            let Held { addr, handle, sequence, .. } = held.clone();
            result.findings.insert(Finding::LeakedAddress { addr, handle, sequence });
        }
    }
    result.findings.extend(skewed_handles(inventory));
    result.findings.extend(broken_claims(inventory));
    result.findings.extend(inventory.deleted.iter().map(|block| Finding::DeletedBlock { block: *block }));
    result.findings.extend(misplaced_blocks(inventory, settings));
    result
}

/// Looks for what is wrong as [`check`] does, and for what is wrong with who uses addresses.
#[must_use]
pub fn check_users(inventory: &Inventory, settings: &Settings, users: &Users) -> Check {
    let mut result = check(inventory, settings, &|held| users.judge(held));
    result.problems.extend(settings.problems.iter().chain(&users.problems).cloned());
    result.users = users.addrs.clone();
    for block in inventory.blocks.values() {
        if let Some(node) = block.owner().and_then(Owner::host).filter(|node| !users.nodes.contains(*node)) {
            result.findings.insert(Finding::OrphanedBlock { node: node.clone(), block: block.cidr() });
        }
    }
    let assigned: BTreeSet<IpAddr> = result.held.iter().map(|held| held.addr).collect();
    for (addr, keys) in &users.addrs {
        let unassigned = !assigned.contains(addr) && settings.pool_of(&Cidr::host(*addr)).is_some();
        for user in keys.iter().filter(|_| unassigned) {
            result.findings.insert(Finding::NotAssigned { addr: *addr, user: user.to_string() });
        }
        if keys.len() > 1 {
            result.findings.insert(Finding::SharedAddress { addr: *addr, users: keys.clone() });
        }
    }
    result
}

fn skewed_handles(inventory: &Inventory) -> Vec<Finding> {
    let mut counts: BTreeMap<(&str, Cidr), (u64, u64)> = BTreeMap::new();
    for (handle, blocks) in &inventory.handles {
        for (block, counted) in blocks {
            counts.entry((handle, *block)).or_default().0 = *counted;
        }
    }
    for block in inventory.blocks.values() {
        for handle in block.holders().filter_map(|(_, attributes)| attributes.handle_id.as_deref()) {
            counts.entry((handle, block.cidr())).or_default().1 += 1;
        }
    }
    let skewed = counts
        .into_iter()
        .filter(|((handle, _), (counted, held))| counted != held && *handle != WINDOWS_RESERVED);
    skewed
        .map(|((handle, block), (counted, held))| Finding::SkewedHandle {
            handle: handle.to_owned(),
            block,
            counted,
            held,
        })
        .collect()
}

fn broken_claims(inventory: &Inventory) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (owner, block) in inventory.affinities.keys() {
        if inventory.blocks.get(block).and_then(Block::owner) != Some(owner) {
            findings.push(Finding::StaleAffinity { owner: owner.clone(), block: *block });
        }
    }
    for block in inventory.blocks.values() {
        match block.owner() {
            Some(owner) => {
                let state = inventory.affinities.get(&(owner.clone(), block.cidr()));
                if state != Some(&AffinityState::Confirmed) {
                    let (owner, block) = (owner.clone(), block.cidr());
                    findings.push(Finding::UnconfirmedBlock { owner, block });
                }
            }
            None if block.is_empty() => findings.push(Finding::AbandonedBlock { block: block.cidr() }),
            None => {}
        }
    }
    findings
}

fn misplaced_blocks(inventory: &Inventory, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut outer: Option<Cidr> = None;
    // Sorted by address and then by length: what overlaps a block follows the largest that holds it.
    for cidr in inventory.blocks.keys() {
        match outer.filter(|outer| outer.covers(cidr)) {
            Some(outer) => {
                findings.push(Finding::OverlappingBlocks { outer, inner: *cidr });
                let (outside, inside) = (inventory.blocks.get(&outer), inventory.blocks.get(cidr));
                let held = |addr| outside.is_some_and(|block| block.attributes_of(addr).is_some());
                let both = inside.into_iter().flat_map(Block::holders).map(|(addr, _)| addr);
                findings.extend(both.filter(|addr| held(*addr)).map(|addr| Finding::HeldTwice {
                    addr,
                    outer,
                    inner: *cidr,
                }));
            }
            None => outer = Some(*cidr),
        }
        if settings.pool_of(cidr).is_none() {
            findings.push(Finding::OutsidePools { block: *cidr });
        }
    }
    findings
}

impl Ipam {
    /// Looks for what is wrong, by comparing IPAM's data with itself and with the workload endpoints and nodes of the
    /// datastore. Changes nothing. What cannot be read is among the [problems](Check::problems); while a workload endpoint or
    /// a node is, nobody is known to be gone.
    ///
    /// # Errors
    /// When the store cannot be used, or a reservation or the configuration cannot be read.
    pub async fn check(&self, now: SystemTime) -> Result<Check, AccessError> {
        let inventory = self.inventory().await?;
        // Read after the addresses: who got one and is known by now is seen.
        let users = self.users().await?;
        let settings = self.read_settings(now).await?;
        Ok(check_users(&inventory, &settings, &users))
    }

    /// Looks for what is wrong as [`Ipam::check`] does, with holders that the caller knows better.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn check_with(
        &self,
        judge: &(dyn Fn(&Held) -> Liveness + Sync),
        now: SystemTime,
    ) -> Result<Check, AccessError> {
        let inventory = self.inventory().await?;
        Ok(check(&inventory, &*self.read_settings(now).await?, &|held| judge(held)))
    }
}
