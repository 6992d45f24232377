//! Where a request finds blocks: the owner's own, then one to claim or take over, then one to borrow from.

use std::collections::BTreeSet;
use std::time::SystemTime;

use calico_model::resource::IpPool;
use calico_model::resource::block::{AffinityState, affinity_key};
use calico_model::{Cidr, Family, Name};

use super::Effort;
use crate::block::Block;
use crate::error::{AccessError, AssignError, PoolShortage, Reason};
use crate::index::{Guess, TAKE_OVER_AFTER, starting_point};
use crate::ipam::Outcome;
use crate::plan::{Candidate, Role};
use crate::versioned::Versioned;

/// How many absent blocks are guessed before the existing ones are listed.
const MAX_PROBES: u32 = 4;

/// How many blocks are read at once.
const READ_AHEAD: usize = 16;

impl Effort<'_> {
    /// Returns the owner's own blocks that may have space, as many as are likely to suffice.
    pub(super) async fn own(&mut self, family: Family) -> Result<Vec<Candidate>, AssignError> {
        if self.ipam.cache().host(&self.request.owner, family).is_none() {
            self.fresh = true;
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
    pub(super) fn own_in_memory(
        &self,
        family: Family,
        seen: &mut BTreeSet<Cidr>,
        wanted: usize,
    ) -> Vec<Candidate> {
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
    pub(super) async fn complete(&mut self, batch: &mut Vec<Candidate>) -> Result<(), AssignError> {
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

    /// Leaves out a block that cannot be read, and says so, instead of failing because of it.
    pub(super) fn usable(
        &mut self,
        cidr: Cidr,
        block: Result<Versioned<Block>, AccessError>,
    ) -> Result<Option<Versioned<Block>>, AssignError> {
        match block {
            Ok(block) => Ok(Some(block)),
            Err(error @ AccessError::Unreadable { .. }) => {
                self.assigned.notes.push(error.to_string());
                self.tried.insert(cidr);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn pool_of(&self, cidr: &Cidr) -> Option<Name> {
        let pools = self.pools.of(cidr.family());
        let pool = pools.iter().find(|pool| pool.spec.cidr.covers(cidr))?;
        (pool.spec.block_size == cidr.prefix_len()).then(|| pool.metadata.name.clone())
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

    /// Finds one more block for a family, beside the candidates; or says, pool by pool, why there is none.
    pub(super) async fn further(
        &mut self,
        family: Family,
        candidates: &[Candidate],
    ) -> Result<Result<Candidate, Vec<PoolShortage>>, AssignError> {
        let config = &self.settings.config;
        let in_hand: BTreeSet<Cidr> = candidates.iter().map(|candidate| candidate.cidr).collect();
        if let Some(limit) = self.limit_reached(family, candidates) {
            return Ok(Err(self.shortage(family, &[Reason::BlockLimit(limit)])));
        }
        let mut found = self.claim_or_borrow(family, &in_hand).await?;
        if found.is_none() && !*self.listed.of(family) {
            // What a watch tells may come late: before giving up, look.
            self.list(family).await?;
            found = self.claim_or_borrow(family, &in_hand).await?;
        }
        if let Some(candidate) = found {
            return Ok(Ok(candidate));
        }
        let mut reasons = Vec::new();
        if config.strict_affinity {
            reasons.push(Reason::StrictAffinity);
            if !config.auto_allocate_blocks {
                reasons.push(Reason::NoAutoAllocation);
            }
        }
        Ok(Err(self.shortage(family, &reasons)))
    }

    async fn claim_or_borrow(
        &mut self,
        family: Family,
        in_hand: &BTreeSet<Cidr>,
    ) -> Result<Option<Candidate>, AssignError> {
        let config = &self.settings.config;
        if config.auto_allocate_blocks
            && let Some(candidate) = self.claimable(family, in_hand).await?
        {
            return Ok(Some(candidate));
        }
        if config.strict_affinity { Ok(None) } else { self.lender(family, in_hand).await }
    }

    pub(super) fn limit_reached(&self, family: Family, candidates: &[Candidate]) -> Option<u32> {
        let configured = Some(self.settings.config.max_blocks_per_host).filter(|limit| *limit > 0);
        let limit = [configured, self.request.max_blocks].into_iter().flatten().min()?;
        let cache = self.ipam.cache();
        let host = cache.host(&self.request.owner, family);
        let known = |cidr: &Cidr| host.is_some_and(|host| host.affinities.contains_key(cidr));
        let claimed = candidates.iter().filter(|candidate| {
            candidate.cidr.family() == family && candidate.role != Role::Borrow && !known(&candidate.cidr)
        });
        let owned = host.map_or(0, |host| host.affinities.len()) + claimed.count();
        (owned >= usize::try_from(limit).unwrap_or(usize::MAX)).then_some(limit)
    }

    pub(super) async fn claimable(
        &mut self,
        family: Family,
        in_hand: &BTreeSet<Cidr>,
    ) -> Result<Option<Candidate>, AssignError> {
        loop {
            if self.probes >= MAX_PROBES {
                self.list(family).await?;
            }
            let Some((pool, guess)) = self.guess(family, in_hand) else {
                if self.knows_all(family) {
                    return Ok(None);
                }
                self.list(family).await?;
                continue;
            };
            match guess {
                // What is absent and still in the way is marked as deleted: its revision must be known.
                Guess::Absent(cidr) if !self.met.contains(&cidr) => {
                    self.probes += 1;
                    let affinity = self.ipam.cache().affinity(&self.request.owner, &cidr);
                    let block = Versioned::absent();
                    return Ok(Some(Candidate { pool, cidr, block, affinity, role: Role::Claim }));
                }
                Guess::Absent(cidr) | Guess::Present(cidr) => match self.look_at(pool, cidr).await? {
                    Some(candidate) => return Ok(Some(candidate)),
                    None => {
                        self.tried.insert(cidr);
                    }
                },
            }
        }
    }

    /// Suggests a block to claim, pool by pool, and moves the owner's cursor past it.
    pub(super) fn guess(&self, family: Family, in_hand: &BTreeSet<Cidr>) -> Option<(Name, Guess)> {
        let mut cache = self.ipam.cache();
        let owner = &self.request.owner;
        let tried = &self.tried | in_hand;
        for pool in self.pools.of(family) {
            let place = (owner.clone(), pool.spec.cidr);
            let start = cache.cursors.get(&place).copied().unwrap_or_else(|| self.start(&pool.spec));
            let index = cache.index.of(family);
            let found = index.claimable(&pool.spec, owner, &self.settings.reserved, start, &tried, self.now);
            if let Some((number, guess)) = found {
                cache.cursors.insert(place, number + 1);
                return Some((pool.metadata.name.clone(), guess));
            }
        }
        None
    }

    /// Returns where the search of a pool begins. Blocks of one address are sought at a new place each time, because a
    /// host needs one for each workload.
    pub(super) fn start(&self, pool: &IpPool) -> u128 {
        let since = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let moving = if pool.block_size == pool.cidr.family().bits() { since.as_nanos() } else { 0 };
        starting_point(&self.request.owner).wrapping_add(moving)
    }

    /// Reads a block that the index suggests, and says by which right it may serve.
    pub(super) async fn look_at(&mut self, pool: Name, cidr: Cidr) -> Result<Option<Candidate>, AssignError> {
        let block = self.ipam.read_block(&cidr, self.now).await;
        let Some(block) = self.usable(cidr, block)? else { return Ok(None) };
        let owner = &self.request.owner;
        let affinity = self.ipam.read_affinity(owner, &cidr).await?;
        let role = match block.value.as_ref().map(|found| (found, found.owner())) {
            None => Role::Claim,
            Some((_, Some(theirs))) if theirs == owner => Role::Own,
            Some((found, from)) => {
                if !found.is_empty() || !found.claimed_before(self.now, TAKE_OVER_AFTER) {
                    return Ok(None);
                }
                match from.cloned() {
                    Some(from) => {
                        let affinity = self.ipam.read_affinity(&from, &cidr).await?;
                        Role::TakeOver { from: Some(from), affinity }
                    }
                    None => Role::TakeOver { from: None, affinity: Versioned::absent() },
                }
            }
        };
        Ok(Some(Candidate { pool, cidr, block, affinity, role }))
    }

    /// Reports whether the index holds every block: it was listed for this request, or is kept by a watch.
    fn knows_all(&self, family: Family) -> bool {
        *self.listed.of(family) || self.ipam.cache().index.of(family).is_watched()
    }

    pub(super) async fn list(&mut self, family: Family) -> Result<(), AssignError> {
        if !*self.listed.of(family) {
            self.ipam.read_index(family, self.now).await?;
            *self.listed.of_mut(family) = true;
        }
        Ok(())
    }

    pub(super) async fn lender(
        &mut self,
        family: Family,
        in_hand: &BTreeSet<Cidr>,
    ) -> Result<Option<Candidate>, AssignError> {
        if !self.knows_all(family) {
            self.list(family).await?;
        }
        loop {
            let tried = &self.tried | in_hand;
            let found = self.pools.of(family).iter().find_map(|pool| {
                let cidr =
                    self.ipam.cache().index.of(family).lender(&pool.spec, self.start(&pool.spec), &tried)?;
                Some((pool.metadata.name.clone(), cidr))
            });
            let Some((pool, cidr)) = found else { return Ok(None) };
            let block = self.ipam.read_block(&cidr, self.now).await;
            match self.usable(cidr, block)? {
                Some(block) if block.value.is_some() => {
                    let affinity = Versioned::absent();
                    return Ok(Some(Candidate { pool, cidr, block, affinity, role: Role::Borrow }));
                }
                Some(_) | None => {
                    self.tried.insert(cidr);
                }
            }
        }
    }

    pub(super) fn shortage(&self, family: Family, reasons: &[Reason]) -> Vec<PoolShortage> {
        let pools = self.pools.of(family).iter();
        pools
            .map(|pool| {
                let spec = &pool.spec;
                let blocks = spec.cidr.subnet_count(spec.block_size).unwrap_or(0);
                let reserved = reserved_blocks(spec, &self.settings.reserved);
                let mut all = Vec::new();
                if !reasons
                    .iter()
                    .any(|reason| matches!(reason, Reason::BlockLimit(_) | Reason::NoAutoAllocation))
                {
                    if blocks > reserved {
                        all.push(Reason::BlocksFull(blocks - reserved));
                    }
                    if reserved > 0 {
                        all.push(Reason::BlocksReserved(reserved));
                    }
                }
                all.extend(reasons);
                PoolShortage { pool: pool.metadata.name.clone(), cidr: spec.cidr, blocks, reasons: all }
            })
            .collect()
    }
}

fn reserved_blocks(pool: &IpPool, reserved: &[Cidr]) -> u128 {
    let within =
        reserved.iter().filter(|net| !reserved.iter().any(|wider| wider != *net && wider.covers(net)));
    within
        .filter_map(|net| {
            if net.covers(&pool.cidr) {
                pool.cidr.subnet_count(pool.block_size)
            } else if pool.cidr.covers(net) {
                net.subnet_count(pool.block_size)
            } else {
                None
            }
        })
        .sum()
}
