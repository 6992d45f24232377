//! Where a request finds blocks beside the owner's own: one to claim or take over, then one to borrow from.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use calico_model::resource::IpPool;
use calico_model::{Cidr, Family, Name};

use super::Effort;
use crate::block::Block;
use crate::cache::Cache;
use crate::error::{AccessError, AssignError, PoolShortage, Reason};
use crate::index::{Guess, TAKE_OVER_AFTER, block_number, starting_point};
use crate::join::join;
use crate::plan::{Candidate, Role};
use crate::versioned::Versioned;

/// How many blocks that may be absent are read at once. In a pool of which nine tenths are taken more than every second
/// look finds one; only what is fuller is listed.
const LOOK_AHEAD: usize = 8;

impl Effort<'_> {
    /// Finds one more block for a family, beside the candidates; or says, pool by pool, why there is none.
    pub(super) async fn further(
        &mut self,
        family: Family,
        candidates: &[Candidate],
    ) -> Result<Result<Candidate, Vec<PoolShortage>>, AssignError> {
        let settings = Arc::clone(&self.settings);
        let config = &settings.config;
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
        let settings = Arc::clone(&self.settings);
        let config = &settings.config;
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

    /// Finds a block to claim or take over. What is not known to be absent is read first, several blocks at once; when
    /// none of them is absent the family's blocks are listed. So this takes two round trips at most, unless others take
    /// what it has found.
    pub(super) async fn claimable(
        &mut self,
        family: Family,
        in_hand: &BTreeSet<Cidr>,
    ) -> Result<Option<Candidate>, AssignError> {
        loop {
            if let Some(vacant) = self.vacancy(family, in_hand) {
                return Ok(Some(vacant));
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
                    if self.knows_all(family) {
                        return Ok(Some(self.claim(pool, cidr, Versioned::absent())));
                    }
                    if *self.vain.of(family) {
                        self.list(family).await?;
                        continue;
                    }
                    let unknown = self.unknown(family, in_hand);
                    let read = self.read_unknown(&unknown).await;
                    self.note_vacant(family, unknown, read)?;
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

    /// Suggests a block to claim, pool by pool.
    fn guess(&self, family: Family, in_hand: &BTreeSet<Cidr>) -> Option<(Name, Guess)> {
        let tried = &self.tried | in_hand;
        let cache = self.ipam.cache();
        let (index, reserved) = (cache.index.of(family), &self.settings.reserved);
        self.pools(family).find_map(|pool| {
            let start = self.cursor(&cache, &pool.spec);
            let guess =
                index.claimable(&pool.spec, &self.request.owner, reserved, start, &tried, self.now)?;
            Some((pool.metadata.name.clone(), guess))
        })
    }

    /// Returns where the search in a pool goes on.
    fn cursor(&self, cache: &Cache, pool: &IpPool) -> u128 {
        let place = (self.request.owner.clone(), pool.cidr);
        cache.cursors.get(&place).copied().unwrap_or_else(|| self.start(pool))
    }

    /// Returns the next blocks that may be absent: those to be read at once before one of them is claimed. There is none
    /// when all blocks are known.
    pub(super) fn unknown(&self, family: Family, in_hand: &BTreeSet<Cidr>) -> Vec<(Name, Cidr)> {
        if self.knows_all(family) {
            return Vec::new();
        }
        let cache = self.ipam.cache();
        let (index, reserved) = (cache.index.of(family), &self.settings.reserved);
        let absent = self.pools(family).flat_map(|pool| {
            let start = self.cursor(&cache, &pool.spec);
            let name = &pool.metadata.name;
            index.absent(&pool.spec, reserved, start).map(move |cidr| (name.clone(), cidr))
        });
        absent.filter(|(_, cidr)| self.is_new(cidr, in_hand)).take(LOOK_AHEAD).collect()
    }

    pub(super) async fn read_unknown(
        &self,
        unknown: &[(Name, Cidr)],
    ) -> Vec<Result<Versioned<Block>, AccessError>> {
        let cidrs: Vec<Cidr> = unknown.iter().map(|(_, cidr)| *cidr).collect();
        self.ipam.read_blocks(&cidrs, self.now).await
    }

    /// Reports whether a block was not looked at for this request, and serves it in no other way.
    fn is_new(&self, cidr: &Cidr, in_hand: &BTreeSet<Cidr>) -> bool {
        ![&self.tried, &self.met, in_hand].iter().any(|known| known.contains(cidr))
    }

    /// Keeps those of the blocks that turned out to be absent.
    pub(super) fn note_vacant(
        &mut self,
        family: Family,
        unknown: Vec<(Name, Cidr)>,
        read: Vec<Result<Versioned<Block>, AccessError>>,
    ) -> Result<(), AssignError> {
        let before = self.vacant.len();
        for ((pool, cidr), block) in unknown.into_iter().zip(read) {
            if let Some(block) = self.usable(cidr, block)?.filter(|block| block.value.is_none()) {
                self.vacant.push_back((pool, cidr, block));
            }
        }
        *self.vain.of_mut(family) = self.vacant.len() == before;
        Ok(())
    }

    /// Takes the first of the blocks that were absent when they were read.
    fn vacancy(&mut self, family: Family, in_hand: &BTreeSet<Cidr>) -> Option<Candidate> {
        let fits = |cidr: &Cidr| cidr.family() == family && self.is_new(cidr, in_hand);
        let place = self.vacant.iter().position(|(_, cidr, _)| fits(cidr))?;
        let (pool, cidr, block) = self.vacant.remove(place)?;
        Some(self.claim(pool, cidr, block))
    }

    /// Makes the candidate of an absent block; the owner's next search goes on behind it.
    fn claim(&self, pool: Name, cidr: Cidr, block: Versioned<Block>) -> Candidate {
        let mut cache = self.ipam.cache();
        let owner = &self.request.owner;
        if let Some(pool) = self.pools(cidr.family()).find(|known| known.metadata.name == pool)
            && let Some(number) = block_number(&pool.spec, &cidr)
        {
            cache.cursors.insert((owner.clone(), pool.spec.cidr), number + 1);
        }
        let affinity = cache.affinity(owner, &cidr);
        Candidate { pool, cidr, block, affinity, role: Role::Claim }
    }

    /// Returns where the search of a pool begins. Blocks of one address are sought at a new place each time, because a
    /// host needs one for each workload.
    fn start(&self, pool: &IpPool) -> u128 {
        let since = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let moving = if pool.block_size == pool.cidr.family().bits() { since.as_nanos() } else { 0 };
        starting_point(&self.request.owner).wrapping_add(moving)
    }

    /// Looks at a block that the index suggests, and says by which right it may serve.
    async fn look_at(&mut self, pool: Name, cidr: Cidr) -> Result<Option<Candidate>, AssignError> {
        let Some(block) = self.listed_or_read(cidr).await? else { return Ok(None) };
        let (ipam, owner) = (self.ipam, &self.request.owner);
        let other = block.value.as_ref().and_then(Block::owner).filter(|other| *other != owner).cloned();
        let theirs = async {
            match &other {
                Some(other) => ipam.read_affinity(other, &cidr).await,
                None => Ok(Versioned::absent()),
            }
        };
        let (own, theirs) = join(ipam.read_affinity(owner, &cidr), theirs).await;
        let (affinity, theirs) = (own?, theirs?);
        let role = match &block.value {
            None => Role::Claim,
            Some(found) if found.owner() == Some(owner) => Role::Own,
            Some(found) if found.is_empty() && found.claimed_before(self.now, TAKE_OVER_AFTER) => {
                Role::TakeOver { from: other, affinity: theirs }
            }
            Some(_) => return Ok(None),
        };
        Ok(Some(Candidate { pool, cidr, block, affinity, role }))
    }

    /// Returns a block as the listing of this request showed it, the first time; reads it otherwise.
    async fn listed_or_read(&mut self, cidr: Cidr) -> Result<Option<Versioned<Block>>, AssignError> {
        let block = match self.listing.remove(&cidr) {
            Some(entry) => self.ipam.note_block(&cidr, Some(&entry), self.now),
            None => self.ipam.read_block(&cidr, self.now).await,
        };
        self.usable(cidr, block)
    }

    /// Reports whether the index holds every block: it was listed for this request, or is kept by a watch that has not been
    /// late so far.
    pub(super) fn knows_all(&self, family: Family) -> bool {
        *self.listed.of(family) || (self.met.is_empty() && self.ipam.cache().index.of(family).is_watched())
    }

    async fn list(&mut self, family: Family) -> Result<(), AssignError> {
        if !*self.listed.of(family) {
            self.listing.extend(self.ipam.read_index(family, self.now).await?);
            *self.listed.of_mut(family) = true;
        }
        Ok(())
    }

    async fn lender(
        &mut self,
        family: Family,
        in_hand: &BTreeSet<Cidr>,
    ) -> Result<Option<Candidate>, AssignError> {
        if !self.knows_all(family) {
            self.list(family).await?;
        }
        loop {
            let tried = &self.tried | in_hand;
            let found = self.pools(family).find_map(|pool| {
                let cidr =
                    self.ipam.cache().index.of(family).lender(&pool.spec, self.start(&pool.spec), &tried)?;
                Some((pool.metadata.name.clone(), cidr))
            });
            let Some((pool, cidr)) = found else { return Ok(None) };
            match self.listed_or_read(cidr).await? {
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
        let pool = self.pools(cidr.family()).find(|pool| pool.spec.cidr.covers(cidr))?;
        (pool.spec.block_size == cidr.prefix_len()).then(|| pool.metadata.name.clone())
    }

    pub(super) fn shortage(&self, family: Family, reasons: &[Reason]) -> Vec<PoolShortage> {
        let pools = self.pools(family);
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
