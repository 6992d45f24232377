//! The stored form of a block, and what must hold of it.

use std::sync::Arc;

use calico_model::resource::block::{Owner, StoredAttributes, StoredBlock};
use calico_model::{Cidr, SequenceNumber};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Block, size_of};

/// Stored data that contradicts itself and is therefore not used as a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block {cidr} is damaged: {problem}")]
pub struct DamagedBlock {
    /// The block.
    pub cidr: Cidr,
    /// Which rule it breaks.
    pub problem: String,
}

impl TryFrom<StoredBlock> for Block {
    type Error = DamagedBlock;

    fn try_from(stored: StoredBlock) -> Result<Self, DamagedBlock> {
        let cidr = stored.cidr;
        let damaged = |problem: String| DamagedBlock { cidr, problem };
        let size = size_of(&cidr).ok_or_else(|| damaged("it is larger than a block can be".to_owned()))?;
        if stored.allocations.len() != size {
            let problem = format!("it has {size} addresses, but says what {} are", stored.allocations.len());
            return Err(damaged(problem));
        }
        let mut free: Vec<bool> = stored.allocations.iter().map(Option::is_none).collect();
        for index in stored.allocations.iter().flatten() {
            if *index >= stored.attributes.len().min(usize::from(u16::MAX)) {
                return Err(damaged(format!("an address has attributes {index}, which do not exist")));
            }
        }
        for ordinal in &stored.unallocated {
            if !free.get_mut(*ordinal).is_some_and(std::mem::take) {
                return Err(damaged(format!("address {ordinal} is queued as free and is not, or twice")));
            }
        }
        if let Some(ordinal) = free.iter().position(|free| *free) {
            return Err(damaged(format!("address {ordinal} is neither allocated nor queued as free")));
        }
        let mut sequences = vec![None; size];
        for (ordinal, sequence) in &stored.sequence_number_for_allocation {
            let slot = ordinal.parse().ok().and_then(|ordinal: usize| sequences.get_mut(ordinal));
            *slot.ok_or_else(|| damaged(format!("{ordinal:?} has a sequence number and is no address")))? =
                Some(*sequence);
        }
        let narrow = |ordinal: usize| u16::try_from(ordinal).unwrap_or(u16::MAX);
        Ok(Self {
            cidr,
            owner: stored.affinity,
            claimed: stored.affinity_claim_time.map(Into::into),
            slots: stored.allocations.into_iter().map(|slot| slot.map(narrow)).collect(),
            queue: stored.unallocated.into_iter().map(narrow).collect(),
            attributes: stored.attributes.into_iter().map(Arc::new).collect(),
            sequence: stored.sequence_number,
            sequences,
            deleted: stored.deleted,
            unknown: Arc::new(stored.unknown),
        })
    }
}

impl From<&Block> for StoredBlock {
    fn from(block: &Block) -> Self {
        Self {
            cidr: block.cidr,
            affinity: block.owner.clone(),
            affinity_claim_time: block.claimed.as_deref().map(str::to_owned),
            allocations: block.slots.iter().map(|slot| slot.map(usize::from)).collect(),
            unallocated: block.queue.iter().copied().map(usize::from).collect(),
            attributes: block.attributes.iter().map(|attributes| (**attributes).clone()).collect(),
            sequence_number: block.sequence,
            sequence_number_for_allocation: (0..)
                .zip(&block.sequences)
                .filter_map(|(ordinal, sequence): (usize, _)| Some((ordinal.to_string(), (*sequence)?)))
                .collect(),
            deleted: block.deleted,
            unknown: (*block.unknown).clone(),
        }
    }
}

/// A [`StoredBlock`] that is only written. A full block names dozens of workloads, which would be copied for each write.
#[derive(Serialize)]
struct Written<'a> {
    cidr: Cidr,
    affinity: Option<&'a Owner>,
    #[serde(skip_serializing_if = "Option::is_none")]
    affinity_claim_time: Option<&'a str>,
    allocations: &'a [Option<u16>],
    unallocated: &'a [u16],
    #[serde(serialize_with = "each")]
    attributes: &'a [Arc<StoredAttributes>],
    #[serde(rename = "sequenceNumber")]
    sequence_number: SequenceNumber,
    #[serde(rename = "sequenceNumberForAllocation", serialize_with = "by_ordinal")]
    sequence_number_for_allocation: &'a [Option<SequenceNumber>],
    deleted: bool,
    #[serde(flatten)]
    unknown: &'a Map<String, Value>,
}

fn each<S: Serializer>(attributes: &[Arc<StoredAttributes>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(attributes.iter().map(Arc::as_ref))
}

fn by_ordinal<S: Serializer>(sequences: &[Option<SequenceNumber>], serializer: S) -> Result<S::Ok, S::Error> {
    let held = (0usize..).zip(sequences).filter_map(|(ordinal, sequence)| Some((ordinal, (*sequence)?)));
    serializer.collect_map(held)
}

/// Writes what [`StoredBlock`] reads.
impl Serialize for Block {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written {
            cidr: self.cidr,
            affinity: self.owner.as_ref(),
            affinity_claim_time: self.claimed.as_deref(),
            allocations: &self.slots,
            unallocated: &self.queue,
            attributes: &self.attributes,
            sequence_number: self.sequence,
            sequence_number_for_allocation: &self.sequences,
            deleted: self.deleted,
            unknown: &self.unknown,
        };
        written.serialize(serializer)
    }
}
