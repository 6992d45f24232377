//! Mending what a check found, each thing looked at again just before.

use std::collections::BTreeMap;
use std::time::SystemTime;

use calico_model::datastore::Write;
use calico_model::resource::block::{Owner, affinity_key, block_key};
use calico_model::resource::{Kind, ObjectId, ResourceKey};
use calico_model::{Cidr, Name, NodeName};

use crate::affinity::Emptiness;
use crate::block::Block;
use crate::check::{Finding, Held, Liveness};
use crate::error::{AccessError, AffinityError, ReleaseError};
use crate::ipam::{Ipam, Outcome};
use crate::request::Release;

/// How many leaked addresses are released between two looks at who lives.
const BATCH: usize = 64;

/// What became of the findings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// What was mended.
    pub mended: Vec<Finding>,
    /// What was let be, because it was not so any more or is for a person to solve.
    pub kept: Vec<Finding>,
}

impl Ipam {
    /// Mends what a check found. Each leaked address is looked at again just before: who uses addresses is read anew, and the
    /// release presents handle and sequence number, so what was assigned since is never taken.
    ///
    /// # Errors
    /// When the store cannot be used. What was mended until then is mended; call again with a new check.
    pub async fn reclaim(&self, findings: &[Finding], now: SystemTime) -> Result<Reclaimed, AccessError> {
        let mut result = Reclaimed::default();
        let (leaks, others): (Vec<&Finding>, Vec<&Finding>) =
            findings.iter().partition(|finding| matches!(finding, Finding::LeakedAddress { .. }));
        for batch in leaks.chunks(BATCH) {
            let users = self.users().await?;
            self.reclaim_leaks(batch, &|held| users.judge(held), &mut result, now).await?;
        }
        for finding in others {
            let mended = self.mend(finding, now).await?;
            if mended { &mut result.mended } else { &mut result.kept }.push(finding.clone());
        }
        Ok(result)
    }

    /// Mends what [`Ipam::check_with`] found, with holders that the caller knows better. `judge` is asked again for each
    /// leaked address.
    ///
    /// # Errors
    /// As for [`Ipam::reclaim`].
    pub async fn reclaim_with(
        &self,
        findings: &[Finding],
        judge: &(dyn Fn(&Held) -> Liveness + Sync),
        now: SystemTime,
    ) -> Result<Reclaimed, AccessError> {
        let mut result = Reclaimed::default();
        for finding in findings {
            if matches!(finding, Finding::LeakedAddress { .. }) {
                self.reclaim_leaks(&[finding], judge, &mut result, now).await?;
            } else {
                let mended = self.mend(finding, now).await?;
                if mended { &mut result.mended } else { &mut result.kept }.push(finding.clone());
            }
        }
        Ok(result)
    }

    async fn reclaim_leaks(
        &self,
        leaks: &[&Finding],
        judge: &(dyn Fn(&Held) -> Liveness + Sync),
        result: &mut Reclaimed,
        now: SystemTime,
    ) -> Result<(), AccessError> {
        let mut blocks: BTreeMap<Cidr, Option<Block>> = BTreeMap::new();
        for finding in leaks {
            let Finding::LeakedAddress { addr, handle, sequence } = *finding else { continue };
            let gone = match self.block_holding(*addr, now).await? {
                Some(cidr) => {
                    if let std::collections::btree_map::Entry::Vacant(place) = blocks.entry(cidr) {
                        place.insert(self.read_block(&cidr, now).await?.value);
                    }
                    let block = blocks.get(&cidr).and_then(Option::as_ref);
                    let held = block.and_then(|block| Held::read(block, *addr));
                    held.is_some_and(|held| held.judged(judge) == Liveness::Gone)
                }
                None => false,
            };
            let release = Release { addr: *addr, handle: handle.clone(), sequence: *sequence };
            let released = match gone {
                false => false,
                true => match self.release(&[release], now).await {
                    Ok(released) => !released.released.is_empty(),
                    Err(ReleaseError::Mismatch { .. }) => false,
                    Err(ReleaseError::Access(error)) => return Err(error),
                },
            };
            if released { &mut result.mended } else { &mut result.kept }.push((*finding).clone());
        }
        Ok(())
    }

    async fn mend(&self, finding: &Finding, now: SystemTime) -> Result<bool, AccessError> {
        match finding {
            Finding::SkewedHandle { handle, block, .. } => {
                self.recount(handle, block, now).await?;
                Ok(true)
            }
            Finding::StaleAffinity { owner, block } => self.mend_stale(owner, block, now).await,
            Finding::UnconfirmedBlock { owner, block } => self.confirm_owned(owner, block, now).await,
            Finding::AbandonedBlock { block: cidr } => {
                let cooldown = self.cooldown(now).await?;
                let block = self.read_block(cidr, now).await?;
                let unused =
                    block.value.as_ref().is_some_and(|block| block.thawed(now, cooldown).is_unused());
                self.write(block.delete(block_key(cidr)).filter(|_| unused), now).await
            }
            Finding::DeletedBlock { block: cidr } => {
                let block = self.read_block(cidr, now).await?;
                self.write(block.delete(block_key(cidr)).filter(|_| block.value.is_none()), now).await
            }
            Finding::OrphanedBlock { node, block } => self.mend_orphan(node, block, now).await,
            Finding::LeakedAddress { .. }
            | Finding::OverlappingBlocks { .. }
            | Finding::HeldTwice { .. }
            | Finding::OutsidePools { .. }
            | Finding::NotAssigned { .. }
            | Finding::SharedAddress { .. } => Ok(false),
        }
    }

    async fn mend_orphan(&self, node: &NodeName, cidr: &Cidr, now: SystemTime) -> Result<bool, AccessError> {
        let id = ObjectId::from(Name::from(node.clone()));
        if self.store.get(&ResourceKey { kind: Kind::Node, id }.datastore_key()).await?.is_some() {
            return Ok(false);
        }
        let owner = Owner::Host(node.clone());
        match self.release_block(&owner, cidr, Emptiness::NotRequired, now).await {
            Ok(()) => Ok(true),
            Err(AffinityError::Access(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    async fn mend_stale(&self, owner: &Owner, cidr: &Cidr, now: SystemTime) -> Result<bool, AccessError> {
        // The affinity first: a claim that is finished after this read has changed it, and the delete fails.
        let affinity = self.read_affinity(owner, cidr).await?;
        let block = self.read_block(cidr, now).await?;
        let stale = block.value.as_ref().and_then(Block::owner) != Some(owner);
        self.write(affinity.delete(affinity_key(owner, cidr)).filter(|_| stale), now).await
    }

    async fn write(&self, write: Option<Write>, now: SystemTime) -> Result<bool, AccessError> {
        match write {
            Some(write) => Ok(matches!(self.commit(vec![write], now).await?, Outcome::Done(_))),
            None => Ok(false),
        }
    }
}
