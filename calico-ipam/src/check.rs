//! What is wrong: addresses whose holder is gone, counts that do not agree, claims that were never finished.
//!
//! [`Ipam::check`] looks and changes nothing. What it finds is a plan: [`Ipam::reclaim`] carries it out, and looks at
//! each thing again just before. A holder that was made a moment ago may not be visible yet, so check twice, some
//! minutes apart, and reclaim [what both found](Check::also_in).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use calico_model::resource::block::{
    AffinityState, Owner, StoredAffinity, StoredHandle, affinity_from_key, all_affinities_prefixes,
    handles_prefix,
};
use calico_model::{Cidr, SequenceNumber};

use crate::block::Block;
use crate::error::AccessError;
use crate::ipam::Ipam;
use crate::pool::Settings;
use crate::versioned::from_entry;

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
    /// Whether its holder still lives.
    pub liveness: Liveness,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Finding {
    /// An address is held, and its holder is gone. Mended by releasing it.
    LeakedAddress {
        /// The address.
        addr: IpAddr,
        /// The handle that holds it.
        handle: Option<String>,
        /// When it was assigned: what a release must present.
        sequence: Option<SequenceNumber>,
    },
    /// A handle counts other than what a block holds. Mended by counting again.
    SkewedHandle {
        /// The handle.
        handle: String,
        /// The block.
        block: Cidr,
        /// What the handle says.
        counted: u64,
        /// What the block says.
        held: u64,
    },
    /// An owner has an affinity to a block that does not exist or is another's. Mended by deleting it.
    StaleAffinity {
        /// The owner.
        owner: Owner,
        /// The block.
        block: Cidr,
    },
    /// A block says whose it is, and the owner does not have a confirmed affinity. Mended by confirming it.
    UnconfirmedBlock {
        /// The owner.
        owner: Owner,
        /// The block.
        block: Cidr,
    },
    /// A block is nobody's and empty. Mended by deleting it.
    AbandonedBlock {
        /// The block.
        block: Cidr,
    },
    /// Two blocks share addresses. For a person to solve.
    OverlappingBlocks {
        /// The larger block.
        outer: Cidr,
        /// The smaller block.
        inner: Cidr,
    },
    /// A block is in no pool. For a person to solve.
    OutsidePools {
        /// The block.
        block: Cidr,
    },
    /// A workload or node uses an address of a pool that is not assigned. For a person to solve.
    NotAssigned {
        /// The address.
        addr: IpAddr,
        /// Who uses it.
        user: String,
    },
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Every address that is held.
    pub held: Vec<Held>,
    /// What is wrong, sorted.
    pub findings: BTreeSet<Finding>,
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

/// Everything that IPAM stores, as it was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    /// The blocks.
    pub blocks: BTreeMap<Cidr, Block>,
    /// The affinities with how far they have come.
    pub affinities: BTreeMap<(Owner, Cidr), AffinityState>,
    /// What each handle counts, by block.
    pub handles: BTreeMap<String, BTreeMap<Cidr, u64>>,
    /// What cannot be read, for people.
    pub problems: Vec<String>,
}

/// Looks for what is wrong. All addresses of one handle are leaked or none is: a holder with one live address lives.
#[must_use]
pub fn check(inventory: &Inventory, settings: &Settings, judge: &dyn Fn(&Held) -> Liveness) -> Check {
    let mut result =
        Check { problems: inventory.problems.clone(), handles: inventory.handles.len(), ..Check::default() };
    let mut spared: BTreeSet<String> = BTreeSet::new();
    for block in inventory.blocks.values() {
        for mut held in held_of(block) {
            held.liveness = judge(&held);
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
    result.findings.extend(misplaced_blocks(inventory, settings));
    result
}

fn held_of(block: &Block) -> impl Iterator<Item = Held> {
    block.holders().map(|(addr, attributes)| Held {
        addr,
        block: block.cidr(),
        handle: attributes.handle_id.clone(),
        attributes: attributes.secondary.clone(),
        sequence: block.sequence_of(addr),
        liveness: Liveness::Unknown,
    })
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
    let skewed = counts.into_iter().filter(|(_, (counted, held))| counted != held);
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
            Some(outer) => findings.push(Finding::OverlappingBlocks { outer, inner: *cidr }),
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
    /// datastore. Changes nothing.
    ///
    /// # Errors
    /// When the store cannot be used, or a workload endpoint or node cannot be read.
    pub async fn check(&self, now: SystemTime) -> Result<Check, AccessError> {
        let inventory = self.inventory().await?;
        // Read after the addresses: who got one and is known by now is seen.
        let users = self.users().await?;
        let settings = self.read_settings(now).await?;
        let mut result = check(&inventory, &settings, &|held| users.judge(held));
        let assigned: BTreeSet<IpAddr> = result.held.iter().map(|held| held.addr).collect();
        for (addr, keys) in users.addrs.iter().filter(|(addr, _)| !assigned.contains(addr)) {
            let pooled = settings.pool_of(&Cidr::host(*addr)).is_some();
            for user in keys.iter().filter(|_| pooled) {
                result.findings.insert(Finding::NotAssigned { addr: *addr, user: user.to_string() });
            }
        }
        Ok(result)
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

    /// Reads everything that IPAM stores.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn inventory(&self) -> Result<Inventory, AccessError> {
        // Handles are raised before blocks and lowered after, so reading blocks first sees no handle too low.
        let (blocks, problems) = self.read_all_blocks().await?;
        let blocks = blocks.into_iter().filter_map(|(cidr, block)| Some((cidr, block.value?))).collect();
        let mut inventory = Inventory { blocks, problems, ..Inventory::default() };
        for entry in &self.list(&handles_prefix()).await?.entries {
            match from_entry::<StoredHandle>(Some(entry)) {
                Ok(handle) => {
                    inventory.handles.extend(handle.value.map(|handle| (handle.handle_id, handle.block)));
                }
                Err(error) => inventory.problems.push(error.to_string()),
            }
        }
        for prefix in all_affinities_prefixes() {
            for entry in &self.list(&prefix).await?.entries {
                let Some(key) = affinity_from_key(&entry.key) else { continue };
                match from_entry::<StoredAffinity>(Some(entry)) {
                    Ok(affinity) => {
                        inventory.affinities.extend(affinity.value.map(|affinity| (key, affinity.state)));
                    }
                    Err(error) => inventory.problems.push(error.to_string()),
                }
            }
        }
        Ok(inventory)
    }
}
