//! Which host has which block: claims, and giving them back.
//!
//! ```text
//!            claim                 block is the host's
//!   absent ────────▶ pending ─────────────────────────▶ confirmed
//!      ▲                │ block is another's                 │ release
//!      └────────────────┴───────────── pending deletion ◀────┘
//! ```
//!
//! Who deletes an affinity because its block is not the owner's has read the affinity *before* the block: a claim that
//! was finished in between has written the affinity, and the delete fails.

use std::collections::BTreeSet;
use std::time::SystemTime;

use calico_model::datastore::{Atomicity, Precondition, Write};
use calico_model::resource::block::{
    AffinityState, Owner, StoredAffinity, StoredBlock, affinity_from_key, affinity_key,
    all_affinities_prefixes, block_from_key, block_key, blocks_prefix,
};
use calico_model::{Cidr, Family, Name, NodeName};

use crate::block::Block;
use crate::error::{AccessError, AffinityError};
use crate::ipam::{Ipam, Outcome};
use crate::plan::{Candidate, Role, View, plan_claim};
use crate::retry::MAX_ATTEMPTS;
use crate::versioned::{Versioned, from_entry, to_json};

/// How many blocks one call claims or releases at most.
const MAX_BLOCKS: u128 = 65_536;

/// Which blocks may be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emptiness {
    /// Only blocks in which nobody holds an address.
    Required,
    /// All. Held addresses stay with their holders, in a block that belongs to nobody until the last is released.
    NotRequired,
}

/// Which blocks of a network were claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// The blocks that are the owner's now, those it had before included.
    pub claimed: Vec<Cidr>,
    /// The blocks that are not to be had, each with its owner; `None` is nobody, who has addresses in it.
    pub refused: Vec<(Cidr, Option<Owner>)>,
}

impl Ipam {
    /// Claims every block of a network for a host.
    ///
    /// # Errors
    /// When the network is not in a pool or smaller than a block, or the store cannot be used. A block that is another's is
    /// no error: see [`Claimed::refused`].
    pub async fn claim_affinity(
        &self,
        node: &NodeName,
        cidr: &Cidr,
        now: SystemTime,
    ) -> Result<Claimed, AffinityError> {
        let owner = Owner::Host(node.clone());
        let (pool, blocks) = self.blocks_in(cidr, now).await?;
        let mut claimed = Claimed::default();
        for block in blocks {
            match self.claim_block(&owner, &pool, &block, now).await? {
                Ok(()) => claimed.claimed.push(block),
                Err(other) => claimed.refused.push((block, other)),
            }
        }
        Ok(claimed)
    }

    /// Gives back every block of a network that a host has.
    ///
    /// # Errors
    /// When a block is not empty and must be, or the store cannot be used. The first error is returned, after every block
    /// was tried.
    pub async fn release_affinity(
        &self,
        node: &NodeName,
        cidr: &Cidr,
        emptiness: Emptiness,
        now: SystemTime,
    ) -> Result<Vec<Cidr>, AffinityError> {
        let owner = Owner::Host(node.clone());
        let had = self.affinities_of(&owner).await?;
        let within = had.into_iter().filter(|block| cidr.covers(block)).map(|block| (owner.clone(), block));
        self.release_all(within.collect(), emptiness, now).await
    }

    /// Gives back every block that a host has.
    ///
    /// # Errors
    /// As for [`Ipam::release_affinity`].
    pub async fn release_host_affinities(
        &self,
        node: &NodeName,
        emptiness: Emptiness,
        now: SystemTime,
    ) -> Result<Vec<Cidr>, AffinityError> {
        let owner = Owner::Host(node.clone());
        let had = self.affinities_of(&owner).await?;
        self.release_all(had.into_iter().map(|block| (owner.clone(), block)).collect(), emptiness, now).await
    }

    /// Gives back the empty blocks of a host that are in pools whose node selectors do not select it any more. Nothing
    /// could be assigned from them, and nobody else could claim them.
    ///
    /// # Errors
    /// When the store cannot be used. A block in which an address was assigned meanwhile is kept and is no error.
    pub async fn release_unselected_affinities(
        &self,
        node: &NodeName,
        now: SystemTime,
    ) -> Result<Vec<Cidr>, AffinityError> {
        let settings = self.read_settings(now).await?;
        let labels = self.labels(node, now).await?;
        let owner = Owner::Host(node.clone());
        let mut released = Vec::new();
        for cidr in self.affinities_of(&owner).await? {
            let pool = settings.pool_of(&cidr);
            if pool.is_none_or(|pool| pool.spec.node_selector.matches(&*labels)) {
                continue;
            }
            match self.release_block(&owner, &cidr, Emptiness::Required, now).await {
                Ok(()) => released.push(cidr),
                Err(AffinityError::NotEmpty { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(released)
    }

    /// Takes every block of a pool's network back from whoever has it, before the pool is deleted. Every one must be empty,
    /// those that belong to nobody included: with the pool gone, another could be laid over addresses that are held.
    ///
    /// # Errors
    /// As for [`Ipam::release_affinity`], and when a block cannot be read, in which addresses may be held.
    pub async fn release_pool_affinities(
        &self,
        cidr: &Cidr,
        now: SystemTime,
    ) -> Result<Vec<Cidr>, AffinityError> {
        let mut owned = BTreeSet::new();
        for prefix in all_affinities_prefixes() {
            let listing = self.list(&prefix).await?;
            owned.extend(listing.entries.iter().filter_map(|entry| affinity_from_key(&entry.key)));
        }
        owned.extend(self.owned_blocks(cidr.family()).await?);
        owned.retain(|(_, block)| cidr.covers(block));
        let released = self.release_all(owned, Emptiness::Required, now).await?;
        self.check_unused(cidr, now).await?;
        Ok(released)
    }

    /// Fails when an address is, or may be, held in a block of a network.
    async fn check_unused(&self, cidr: &Cidr, now: SystemTime) -> Result<(), AffinityError> {
        let cooldown = self.cooldown(now).await?;
        for entry in &self.list(&blocks_prefix(cidr.family())).await?.entries {
            let Some(within) = block_from_key(&entry.key).filter(|block| cidr.overlaps(block)) else {
                continue;
            };
            let Some(block) = from_entry::<Block>(Some(entry))?.value else { continue };
            let block = block.thawed(now, cooldown);
            if !block.is_empty() {
                let (owner, held) = (block.owner().cloned(), block.held());
                return Err(AffinityError::NotEmpty { block: within, owner, held });
            }
        }
        Ok(())
    }

    /// Takes one block back from whoever has it.
    ///
    /// # Errors
    /// As for [`Ipam::release_affinity`].
    pub async fn release_block_affinity(
        &self,
        cidr: &Cidr,
        emptiness: Emptiness,
        now: SystemTime,
    ) -> Result<(), AffinityError> {
        let block = self.read_block(cidr, now).await?.value;
        match block.as_ref().and_then(Block::owner) {
            Some(owner) => self.release_block(owner, cidr, emptiness, now).await,
            None => Ok(()),
        }
    }

    /// Takes all blocks from a host that is gone, the ones it lost track of included. Addresses that are held stay held
    /// until they are released, by handle or by [`Ipam::reclaim`].
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn remove_host(&self, node: &NodeName, now: SystemTime) -> Result<Vec<Cidr>, AffinityError> {
        let owner = Owner::Host(node.clone());
        let mut owned: BTreeSet<(Owner, Cidr)> =
            self.affinities_of(&owner).await?.into_iter().map(|block| (owner.clone(), block)).collect();
        for family in Family::ALL {
            let blocks = self.owned_blocks(family).await?;
            owned.extend(blocks.into_iter().filter(|(other, _)| *other == owner));
        }
        let released = self.release_all(owned, Emptiness::NotRequired, now).await;
        self.cache().forget_host(&owner);
        released
    }

    async fn release_all(
        &self,
        blocks: BTreeSet<(Owner, Cidr)>,
        emptiness: Emptiness,
        now: SystemTime,
    ) -> Result<Vec<Cidr>, AffinityError> {
        let (mut released, mut failure) = (Vec::new(), None);
        for (owner, cidr) in blocks {
            match self.release_block(&owner, &cidr, emptiness, now).await {
                Ok(()) => released.push(cidr),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(released), Err)
    }

    /// Gives one block back, in steps that are safe to stop after.
    pub(crate) async fn release_block(
        &self,
        owner: &Owner,
        cidr: &Cidr,
        emptiness: Emptiness,
        now: SystemTime,
    ) -> Result<(), AffinityError> {
        let cooldown = self.cooldown(now).await?;
        let mut last = block_key(cidr);
        let mut attempts = self.attempts();
        let mut given_back = false;
        for _ in 0..MAX_ATTEMPTS {
            let affinity = self.read_affinity(owner, cidr).await?;
            let block = self.read_block(cidr, now).await?;
            let thawed = block.value.as_ref().filter(|block| block.owner() == Some(owner));
            let thawed = thawed.map(|block| block.thawed(now, cooldown));
            if given_back && thawed.is_some() {
                // It was claimed anew, and is not to be taken away again: two could go on like this for ever.
                return Ok(());
            }
            let used = thawed.as_ref().filter(|block| !block.is_empty());
            if let Some(held) = used.map(Block::held)
                && emptiness == Emptiness::Required
            {
                self.restore(owner, cidr, &affinity, now).await?;
                return Err(AffinityError::NotEmpty { block: *cidr, owner: Some(owner.clone()), held });
            }
            let step =
                release_step(owner, cidr, &block, thawed.as_ref(), &affinity, self.store.atomicity(), now);
            if step.is_empty() {
                return Ok(());
            }
            let gives_back = step.iter().any(|write| write.key == block_key(cidr));
            match self.commit(step, now).await? {
                Outcome::Done(_) if gives_back || thawed.is_none() => return Ok(()),
                Outcome::Done(_) => continue,
                Outcome::Again(key) => {
                    // In order, the block's write comes before that of an affinity which exists.
                    given_back |= gives_back
                        && self.store.atomicity() == Atomicity::InOrder
                        && affinity.revision.is_some()
                        && key == affinity_key(owner, cidr);
                    last = key;
                }
                Outcome::Unknown(key) => last = key,
            }
            attempts.pause().await;
        }
        Err(AccessError::Contended { key: last, attempts: MAX_ATTEMPTS }.into())
    }

    /// Puts an affinity back that was about to be deleted, when its block turned out to be in use.
    async fn restore(
        &self,
        owner: &Owner,
        cidr: &Cidr,
        affinity: &Versioned<StoredAffinity>,
        now: SystemTime,
    ) -> Result<(), AccessError> {
        let Some(value) = &affinity.value else { return Ok(()) };
        if value.state == AffinityState::PendingDeletion {
            let confirmed = StoredAffinity { state: AffinityState::Confirmed, ..value.clone() };
            self.commit(vec![affinity.put(affinity_key(owner, cidr), to_json(&confirmed))], now).await?;
        }
        Ok(())
    }

    /// Claims one block; the owner that has it when it is not to be had.
    pub(crate) async fn claim_block(
        &self,
        owner: &Owner,
        pool: &Name,
        cidr: &Cidr,
        now: SystemTime,
    ) -> Result<Result<(), Option<Owner>>, AccessError> {
        let mut last = block_key(cidr);
        let mut attempts = self.attempts();
        for _ in 0..MAX_ATTEMPTS {
            let affinity = self.read_affinity(owner, cidr).await?;
            let block = self.read_block(cidr, now).await?;
            let confirmed =
                affinity.value.as_ref().is_some_and(|affinity| affinity.state == AffinityState::Confirmed);
            let role = match block.value.as_ref().map(|block| (block, block.owner())) {
                None => Role::Claim,
                Some((_, Some(theirs))) if theirs == owner => {
                    if confirmed {
                        return Ok(Ok(()));
                    }
                    Role::Own
                }
                Some((block, None)) if block.is_empty() => {
                    Role::TakeOver { from: None, affinity: Versioned::absent() }
                }
                Some((_, other)) => {
                    if let Some(write) = affinity.delete(affinity_key(owner, cidr)) {
                        self.commit(vec![write], now).await?;
                    }
                    return Ok(Err(other.cloned()));
                }
            };
            let candidate = Candidate { pool: pool.clone(), cidr: *cidr, block, affinity, role };
            let view = View {
                owner,
                candidates: std::slice::from_ref(&candidate),
                handle: &Versioned::absent(),
                reserved: &[],
                cooldown: std::time::Duration::ZERO,
                atomicity: self.store.atomicity(),
                kept: self.kept,
            };
            let plan = plan_claim(&view, now);
            match self.commit(plan.writes(), now).await? {
                Outcome::Done(_) => {
                    for cidr in plan.confirm {
                        self.confirm(owner, &cidr, now).await?;
                    }
                    self.read_block(cidr, now).await?;
                    self.read_affinity(owner, cidr).await?;
                    return Ok(Ok(()));
                }
                Outcome::Again(key) | Outcome::Unknown(key) => last = key,
            }
            attempts.pause().await;
        }
        Err(AccessError::Contended { key: last, attempts: MAX_ATTEMPTS })
    }

    /// Makes the affinity of a block that says whose it is confirmed, unless somebody changes either meanwhile. A block
    /// that is not the owner's any more is let be.
    pub(crate) async fn confirm_owned(
        &self,
        owner: &Owner,
        cidr: &Cidr,
        now: SystemTime,
    ) -> Result<bool, AccessError> {
        let affinity = self.read_affinity(owner, cidr).await?;
        let block = self.read_block(cidr, now).await?;
        let Some(value) = block.value.as_ref().filter(|block| block.owner() == Some(owner)) else {
            return Ok(false);
        };
        if affinity.value.as_ref().is_some_and(|affinity| affinity.state == AffinityState::Confirmed) {
            return Ok(true);
        }
        let confirmed =
            StoredAffinity { state: AffinityState::Confirmed, ..affinity.value.clone().unwrap_or_default() };
        // The block is written unchanged, so that whoever is about to take it away has lost.
        let writes = vec![
            block.put(block_key(cidr), to_json(value)),
            affinity.put(affinity_key(owner, cidr), to_json(&confirmed)),
        ];
        Ok(matches!(self.commit(writes, now).await?, Outcome::Done(_)))
    }

    /// Returns the blocks of a network, and the pool it is in.
    async fn blocks_in(&self, cidr: &Cidr, now: SystemTime) -> Result<(Name, Vec<Cidr>), AffinityError> {
        let settings = self.settings(now).await?;
        let outside = || AffinityError::NotInPool { cidr: *cidr };
        let pool = settings.pool_of(cidr).ok_or_else(outside)?;
        let size = pool.spec.block_size;
        let blocks = cidr.subnet_count(size).ok_or_else(outside)?;
        if blocks > MAX_BLOCKS {
            return Err(AffinityError::TooLarge { cidr: *cidr, blocks, limit: MAX_BLOCKS });
        }
        Ok((pool.metadata.name.clone(), (0..blocks).filter_map(|index| cidr.subnet(size, index)).collect()))
    }

    async fn affinities_of(&self, owner: &Owner) -> Result<Vec<Cidr>, AccessError> {
        self.read_hosts(owner, &Family::ALL).await?;
        let cache = self.cache();
        let hosts = Family::ALL.into_iter().filter_map(|family| cache.host(owner, family));
        Ok(hosts.flat_map(|host| host.affinities.keys()).copied().collect())
    }

    /// Returns the blocks of a family that belong to somebody, as the blocks themselves say.
    async fn owned_blocks(&self, family: Family) -> Result<Vec<(Owner, Cidr)>, AccessError> {
        let listing = self.list(&blocks_prefix(family)).await?;
        let stored = listing.entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok());
        Ok(stored.filter_map(|block: StoredBlock| Some((block.affinity?, block.cidr))).collect())
    }

    /// Confirms a claim whose block is written. When somebody changed the affinity meanwhile it is theirs to finish.
    pub(crate) async fn confirm(
        &self,
        owner: &Owner,
        cidr: &Cidr,
        now: SystemTime,
    ) -> Result<(), AccessError> {
        let affinity = self.read_affinity(owner, cidr).await?;
        let block = self.read_block(cidr, now).await?;
        let key = affinity_key(owner, cidr);
        let ours = block.value.as_ref().is_some_and(|block| block.owner() == Some(owner));
        let state = affinity.value.as_ref().map(|affinity| affinity.state);
        let write = match (ours, state) {
            (true, Some(AffinityState::Pending) | None) => {
                let confirmed = affinity.value.clone().unwrap_or_default();
                let confirmed = StoredAffinity { state: AffinityState::Confirmed, ..confirmed };
                Some(affinity.put(key, to_json(&confirmed)))
            }
            (false, Some(AffinityState::Pending)) => affinity.delete(key),
            _ => None,
        };
        if let Some(write) = write {
            self.commit(vec![write], now).await?;
            self.read_affinity(owner, cidr).await?;
        }
        Ok(())
    }
}

/// Returns the next writes of giving a block back; none when it is done. `owned` is the block when it is the owner's.
///
/// On a store that applies in order the affinity is first marked, so that a crash before the last step is seen; then the
/// block goes, then the affinity.
fn release_step(
    owner: &Owner,
    cidr: &Cidr,
    block: &Versioned<Block>,
    owned: Option<&Block>,
    affinity: &Versioned<StoredAffinity>,
    atomicity: Atomicity,
    now: SystemTime,
) -> Vec<Write> {
    let key = affinity_key(owner, cidr);
    let marked =
        affinity.value.as_ref().is_none_or(|affinity| affinity.state == AffinityState::PendingDeletion);
    if let (Atomicity::InOrder, false, Some(_), Some(value)) = (atomicity, marked, owned, &affinity.value) {
        let marked = StoredAffinity { state: AffinityState::PendingDeletion, ..value.clone() };
        return vec![affinity.put(key, to_json(&marked))];
    }
    let block_write = owned.and_then(|owned| {
        // Addresses that cool down keep the block.
        let left = owned.with_owner(None, now);
        if left.is_unused() {
            return block.delete(block_key(cidr));
        }
        Some(block.put(block_key(cidr), to_json(&left)))
    });
    // Where no affinity was read none may come meanwhile: a claim that is finished now must not lose its block alone.
    let none_came = || Write::delete(key.clone(), Precondition::Absent);
    let guard = affinity.revision.is_none().then(none_came).filter(|_| block_write.is_some());
    guard.into_iter().chain(block_write).chain(affinity.delete(key.clone())).collect()
}
