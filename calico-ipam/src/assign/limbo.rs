//! What became of commits that failed half-way or whose answer was lost.

use calico_model::{Cidr, Revision};

use super::Effort;
use crate::block::{Block, Holder};
use crate::error::AssignError;
use crate::request::Allocation;
use crate::versioned::Versioned;

/// What a commit would have assigned that failed or whose outcome is not known: all of it, part of it, or nothing.
pub(super) struct Limbo {
    pub(super) allocations: Vec<Allocation>,
    /// The revisions that the blocks must have for it to happen.
    pub(super) bases: Vec<(Cidr, Option<Revision>)>,
    /// Whether it may still happen.
    pub(super) open: bool,
}

impl Effort<'_> {
    /// Looks what became of commits that failed half-way or whose outcome is not known. What they assigned is counted. One
    /// that can still happen stays in limbo, until another writer or this request's next commit has changed what it needs.
    ///
    /// The handle is read first: a commit that lands after that changes the handle, and the next plan fails.
    pub(super) async fn settle(&mut self) -> Result<(), AssignError> {
        // A commit may land between the reads of two of its blocks: then look again.
        while !self.limbo.is_empty() && self.settle_once().await? {}
        Ok(())
    }

    /// Looks once; returns whether something had landed.
    pub(super) async fn settle_once(&mut self) -> Result<bool, AssignError> {
        self.ipam.read_handle(&self.holder.handle).await?;
        let mut any = false;
        for Limbo { mut allocations, bases, open } in std::mem::take(&mut self.limbo) {
            let (mut landed, mut possible) = (Vec::new(), false);
            for (cidr, base) in &bases {
                let block = self.ipam.read_block(cidr, self.now).await?;
                possible |= open && block.revision == *base;
                let here = allocations.iter().filter(|allocation| allocation.block == *cidr);
                landed.extend(here.filter(|planned| holds(&block, planned, &self.holder)).cloned());
            }
            any |= !landed.is_empty();
            allocations.retain(|allocation| !landed.contains(allocation));
            if !allocations.is_empty() && (possible || !landed.is_empty()) {
                self.limbo.push(Limbo { allocations, bases, open });
            }
            // The same plan may have been tried twice.
            landed.retain(|allocation| !self.assigned.allocations().any(|counted| counted == allocation));
            self.count(landed);
        }
        Ok(any)
    }
}

/// Reports whether a block has an allocation as it was planned. The sequence number and the attributes tell it from any
/// other.
pub(crate) fn holds(block: &Versioned<Block>, planned: &Allocation, holder: &Holder) -> bool {
    block.value.as_ref().is_some_and(|block| {
        block.sequence_of(planned.addr) == Some(planned.sequence)
            && block.attributes_of(planned.addr).is_some_and(|attributes| {
                attributes.handle_id.as_ref() == Some(&holder.handle)
                    && attributes.secondary == holder.attributes
            })
    })
}
