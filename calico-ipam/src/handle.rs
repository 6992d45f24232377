//! Handles: how many addresses each holder has, by block, so that all of them can be found without looking everywhere.
//!
//! A handle may count too many addresses after a crash, never too few: it is raised before the block is written and
//! lowered after. The next operation that meets the handle mends the count.

use std::time::SystemTime;

use calico_model::Cidr;
use calico_model::datastore::Write;
use calico_model::resource::block::{StoredHandle, block_from_key, block_key, handle_key};

use crate::block::Block;
use crate::error::AccessError;
use crate::ipam::{Ipam, Outcome};
use crate::retry::MAX_ATTEMPTS;
use crate::versioned::{Versioned, to_json};

/// Makes the write that leaves a handle with these counts; one that counts nothing is deleted.
pub(crate) fn handle_write(read: &Versioned<StoredHandle>, counts: &StoredHandle) -> Option<Write> {
    let key = handle_key(&counts.handle_id)?;
    if counts.block.is_empty() { read.delete(key) } else { Some(read.put(key, to_json(counts))) }
}

/// Makes a handle count for one block what the block holds.
pub(crate) fn set_count(counts: &mut StoredHandle, cidr: Cidr, held: u64) {
    if held == 0 {
        counts.block.remove(&cidr);
    } else {
        counts.block.insert(cidr, held);
    }
}

impl Ipam {
    /// Makes a handle count for one block what the block holds, after a write that was counted did not happen.
    ///
    /// The block is written first, unchanged, so that a write that is still on its way fails. Where there is no block every
    /// such write fails already: addresses are only ever added to a block that exists.
    pub(crate) async fn recount(
        &self,
        handle: &str,
        cidr: &Cidr,
        now: SystemTime,
    ) -> Result<(), AccessError> {
        let mut attempts = self.attempts();
        for _ in 0..MAX_ATTEMPTS {
            let block = self.read_block(cidr, now).await?;
            let read = self.read_handle(handle).await?;
            let Some(mut counts) = read.value.clone() else { break };
            let held = block.value.as_ref().map_or(0, |block| block.count_of(handle));
            if counts.block.get(cidr).copied().unwrap_or(0) == held {
                break;
            }
            set_count(&mut counts, *cidr, held);
            let fence = self.fence(cidr, &block);
            let writes = fence.into_iter().chain(handle_write(&read, &counts)).collect();
            match self.commit(writes, now).await? {
                Outcome::Again(key) if block_from_key(&key).is_some() => attempts.pause().await,
                // Who changed the handle is using it, and counts what it holds.
                Outcome::Done(_) | Outcome::Again(_) => break,
                Outcome::Unknown(_) => {}
            }
        }
        self.cache().forget_handle(handle);
        Ok(())
    }

    /// Makes sure that a write to a block that is still on its way fails, where the block exists.
    pub(crate) async fn void(&self, cidr: &Cidr, now: SystemTime) -> Result<(), AccessError> {
        let block = self.read_block(cidr, now).await?;
        if let Some(write) = self.fence(cidr, &block) {
            // A conflict is as good: somebody else changed the block.
            self.commit(vec![write], now).await?;
        }
        Ok(())
    }

    /// Makes the write that fails whatever else is about to change a block that exists.
    fn fence(&self, cidr: &Cidr, block: &Versioned<Block>) -> Option<Write> {
        self.cache().forget_block(cidr);
        Some(block.put(block_key(cidr), to_json(block.value.as_ref()?)))
    }
}
