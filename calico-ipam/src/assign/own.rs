//! The owner's own blocks: what is remembered of them, read where it is not.

use std::collections::BTreeSet;

use calico_model::resource::block::{AffinityState, affinity_key};
use calico_model::{Cidr, Family};

use super::Effort;
use crate::block::Block;
use crate::error::AssignError;
use crate::ipam::Outcome;
use crate::plan::{Candidate, Role};
use crate::versioned::Versioned;

/// How many blocks are read at once.
const READ_AHEAD: usize = 16;

impl Effort<'_> {
    /// Returns the owner's own blocks that may have space, as many as are likely to suffice.
    pub(super) async fn own(&mut self, family: Family) -> Result<Vec<Candidate>, AssignError> {
        if self.ipam.cache().host(&self.request.owner, family).is_none() {
            *self.fresh.of_mut(family) = true;
            self.ipam.read_host(&self.request.owner, family).await?;
        }
        let (mut candidates, mut space, mut seen) = (Vec::new(), 0, BTreeSet::new());
        while space < *self.wanted.of(family) {
            let mut batch = self.own_in_memory(family, &mut seen, *self.wanted.of(family) - space);
            if batch.is_empty() {
                break;
            }
            self.complete(&mut batch).await?;
            for candidate in batch {
                match &candidate.block.value {
                    None => {
                        space += 1;
                        candidates.push(Candidate { role: Role::Claim, ..candidate });
                    }
                    Some(block) if block.owner() == Some(&self.request.owner) => {
                        space += block.free();
                        candidates.push(candidate);
                    }
                    Some(_) => {
                        if let Some(candidate) = self.drop_stale(candidate).await? {
                            space += candidate.block.value.as_ref().map_or(0, Block::free);
                            candidates.push(candidate);
                        }
                    }
                }
            }
        }
        Ok(candidates)
    }

    /// Returns own blocks from memory, in order, until they have the space wanted. A block whose revision is missing is
    /// not in memory.
    fn own_in_memory(&self, family: Family, seen: &mut BTreeSet<Cidr>, wanted: usize) -> Vec<Candidate> {
        let cache = self.ipam.cache();
        let (mut batch, mut space) = (Vec::new(), 0);
        let Some(host) = cache.host(&self.request.owner, family) else { return batch };
        for cidr in &host.open {
            if space >= wanted || batch.len() == READ_AHEAD {
                break;
            }
            if self.tried.contains(cidr) || !seen.insert(*cidr) {
                continue;
            }
            let Some(pool) = self.pool_of(cidr) else { continue };
            let block = cache.block(cidr).unwrap_or_else(Versioned::absent);
            space += block.value.as_ref().map_or(0, Block::free);
            let affinity = host.affinities.get(cidr).cloned().unwrap_or_else(Versioned::absent);
            batch.push(Candidate { pool, cidr: *cidr, block, affinity, role: Role::Own });
        }
        batch
    }

    /// Reads the blocks of a batch that are not in memory, all at once.
    async fn complete(&mut self, batch: &mut Vec<Candidate>) -> Result<(), AssignError> {
        let unread: Vec<Cidr> =
            batch.iter().filter(|own| own.block.revision.is_none()).map(|own| own.cidr).collect();
        if unread.is_empty() {
            return Ok(());
        }
        let blocks = self.ipam.read_blocks(&unread, self.now).await;
        for (cidr, block) in unread.into_iter().zip(blocks) {
            match self.usable(cidr, block)? {
                Some(block) => {
                    if let Some(own) = batch.iter_mut().find(|own| own.cidr == cidr) {
                        own.block = block;
                    }
                }
                None => batch.retain(|own| own.cidr != cidr),
            }
        }
        Ok(())
    }

    /// Deletes an affinity to a block that is another's; returns the candidate when the block turns out to be the owner's.
    /// A pending affinity is let be: another process of this host may be about to take the block over.
    ///
    /// The block is read after the affinity, which may be younger than what is remembered of the block: a claim that was
    /// finished since has changed the affinity, and the delete fails.
    async fn drop_stale(&mut self, candidate: Candidate) -> Result<Option<Candidate>, AssignError> {
        let cidr = candidate.cidr;
        let block = self.ipam.read_block(&cidr, self.now).await;
        let Some(block) = self.usable(cidr, block)? else { return Ok(None) };
        if block.value.as_ref().is_some_and(|block| block.owner() == Some(&self.request.owner)) {
            return Ok(Some(Candidate { block, ..candidate }));
        }
        let settled = candidate.affinity.value.as_ref().is_some_and(|a| a.state != AffinityState::Pending);
        let key = affinity_key(&self.request.owner, &cidr);
        if let Some(write) = candidate.affinity.delete(key).filter(|_| settled)
            && let Outcome::Done(_) = self.ipam.commit(vec![write], self.now).await?
        {
            let gone = Versioned::absent();
            self.ipam.cache().note_affinity(&self.request.owner, cidr, gone);
        }
        Ok(None)
    }
}
