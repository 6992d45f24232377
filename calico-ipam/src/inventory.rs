//! Everything that IPAM stores, read at about the same time.

use std::collections::{BTreeMap, BTreeSet};

use calico_model::Cidr;
use calico_model::resource::block::{
    AffinityState, Owner, StoredAffinity, StoredHandle, affinity_from_key, all_affinities_prefixes,
    handles_prefix,
};

use crate::block::Block;
use crate::error::AccessError;
use crate::ipam::Ipam;
use crate::versioned::from_entry;

/// Everything that IPAM stores, as it was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    /// The blocks.
    pub blocks: BTreeMap<Cidr, Block>,
    /// The affinities with how far they have come.
    pub affinities: BTreeMap<(Owner, Cidr), AffinityState>,
    /// What each handle counts, by block.
    pub handles: BTreeMap<String, BTreeMap<Cidr, u64>>,
    /// Blocks that are marked as deleted and still there.
    pub deleted: BTreeSet<Cidr>,
    /// What cannot be read, for people.
    pub problems: Vec<String>,
}

impl Ipam {
    /// Reads everything that IPAM stores.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn inventory(&self) -> Result<Inventory, AccessError> {
        // Handles are raised before blocks and lowered after, so reading blocks first sees no handle too low.
        let (blocks, problems) = self.read_all_blocks().await?;
        let mut inventory = Inventory { problems, ..Inventory::default() };
        for (cidr, block) in blocks {
            match block.value {
                Some(block) => drop(inventory.blocks.insert(cidr, block)),
                None => drop(inventory.deleted.insert(cidr)),
            }
        }
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
