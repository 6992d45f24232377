//! The loop that assigns: read, plan, write if unchanged; on a conflict read again, within bounds.
//!
//! 1. The owner's own blocks serve first, from memory when it has them.
//! 2. When they do not suffice the owner's affinities are read again: another process of the host may have claimed.
//! 3. Then a block is claimed: one that does not exist, or another host's that is empty and was claimed a minute ago. Absent
//!    blocks are guessed; only after [`MAX_PROBES`] wrong guesses is the family's listing read.
//! 4. When none is left, and strict affinity is off, addresses are borrowed from any block with space.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use calico_model::datastore::{Atomicity, Key};
use calico_model::resource::block::{AffinityState, Owner, StoredAffinity, affinity_key, block_from_key};
use calico_model::resource::{IpPool, Object};
use calico_model::{Cidr, Family, Labels, Name, NodeName, Revision};

use crate::block::{Block, Holder};
use crate::error::{AccessError, AssignError, PoolShortage, Reason, Shortage, owner_name};
use crate::index::{Guess, TAKE_OVER_AFTER, starting_point};
use crate::ipam::{Ipam, MAX_ATTEMPTS, Outcome, clean_handle, key_of_handle};
use crate::join::yield_now;
use crate::plan::{Candidate, MAX_BLOCKS, Plan, Role, View, plan};
use crate::pool::{Ask, PoolRef, Settings};
use crate::request::{Allocation, Assigned, AutoAssign, HandleUse, PerFamily};
use crate::versioned::Versioned;

/// How many absent blocks are guessed before the existing ones are listed.
const MAX_PROBES: u32 = 4;

/// How many blocks are read at once.
const READ_AHEAD: usize = 16;

impl Ipam {
    /// Assigns addresses from the owner's blocks, from newly claimed ones, or borrowed ones, in that order.
    ///
    /// When a family gets fewer addresses than asked for, but not none at all in every family, the request succeeds and
    /// [`Assigned::shortages`] says what is missing; the caller decides whether to release what it got.
    ///
    /// # Errors
    /// When no pool fits, a named pool cannot serve, no address at all is free, the handle is in use where it must be new,
    /// or the store cannot be used. After [`AssignError::Access`] release the handle.
    pub async fn auto_assign(&self, request: AutoAssign, now: SystemTime) -> Result<Assigned, AssignError> {
        let handle = clean_handle(&request.handle);
        key_of_handle(&handle)?;
        let settings = self.settings(now).await?;
        self.effort(&request, handle, &settings, now).await?.run().await
    }

    /// Makes sure that a node has a block to assign from in a family, and returns it: one it has, or a newly claimed one.
    ///
    /// # Errors
    /// As for [`Ipam::auto_assign`]; borrowing is no way out here.
    pub async fn ensure_block(
        &self,
        node: &NodeName,
        family: Family,
        pools: &[PoolRef],
        now: SystemTime,
    ) -> Result<Cidr, AssignError> {
        let mut request = AutoAssign::new(node.clone(), "none");
        *request.count.of_mut(family) = 1;
        *request.pools.of_mut(family) = pools.to_vec();
        let settings = self.settings(now).await?;
        let mut effort = self.effort(&request, "none".to_owned(), &settings, now).await?;
        self.read_host(&request.owner, family).await?;
        let had = self.cache().host(&request.owner, family).map(|host| host.affinities.clone());
        for cidr in had.into_iter().flatten().map(|(cidr, _)| cidr) {
            if let Some(pool) = effort.pool_of(&cidr)
                && self.claim_block(&request.owner, &pool, &cidr, now).await?.is_ok()
            {
                return Ok(cidr);
            }
        }
        while let Some(candidate) = effort.claimable(family, &BTreeSet::new()).await? {
            let cidr = candidate.cidr;
            if self.claim_block(&request.owner, &candidate.pool, &cidr, now).await?.is_ok() {
                return Ok(cidr);
            }
            effort.tried.insert(cidr);
        }
        let pools = effort.shortage(family, &[]);
        let owner = request.owner.clone();
        Err(AssignError::Exhausted(vec![Shortage { family, owner, missing: 1, pools }]))
    }

    async fn effort<'a>(
        &'a self,
        request: &'a AutoAssign,
        handle: String,
        settings: &'a Settings,
        now: SystemTime,
    ) -> Result<Effort<'a>, AssignError> {
        let labels = match &request.owner {
            Owner::Host(node) if settings.selects_nodes() => self.labels(node, now).await?,
            Owner::Host(_) | Owner::Virtual(_) => Arc::new(Labels::new()),
        };
        let attributes = with_node(&request.owner, request.attributes.clone());
        Ok(Effort {
            ipam: self,
            holder: Holder { handle, attributes },
            request,
            now,
            settings,
            pools: eligible(settings, &labels, request)?,
            cooldown: Duration::from_secs(settings.config.ip_cooldown_seconds.into()),
            assigned: Assigned { notes: settings.problems.clone(), ..Assigned::default() },
            wanted: request.count,
            fresh: false,
            listed: PerFamily::default(),
            probes: 0,
            tried: BTreeSet::new(),
            met: BTreeSet::new(),
            suspects: BTreeSet::new(),
            limbo: Vec::new(),
        })
    }
}

/// Adds who the addresses are for, which borrowing makes worth knowing.
pub(crate) fn with_node(
    owner: &Owner,
    mut attributes: std::collections::BTreeMap<String, String>,
) -> std::collections::BTreeMap<String, String> {
    if let Owner::Host(node) = owner {
        attributes.entry("node".to_owned()).or_insert_with(|| node.to_string());
    }
    attributes
}

fn eligible<'s>(
    settings: &'s Settings,
    labels: &Labels,
    request: &AutoAssign,
) -> Result<PerFamily<Vec<&'s Object<IpPool>>>, AssignError> {
    let mut pools = PerFamily::default();
    for family in Family::ALL {
        if *request.count.of(family) > 0 {
            let ask = Ask {
                node: owner_name(&request.owner),
                node_labels: labels,
                namespace_labels: request.namespace_labels.as_ref(),
                intended_use: request.intended_use,
                requested: request.pools.of(family),
            };
            *pools.of_mut(family) = settings.eligible(family, &ask)?;
        }
    }
    Ok(pools)
}

/// What a commit would have assigned that failed or whose outcome is not known: all of it, part of it, or nothing.
struct Limbo {
    allocations: Vec<Allocation>,
    /// The revisions that the blocks must have for it to happen.
    bases: Vec<(Cidr, Option<Revision>)>,
    /// Whether it may still happen.
    open: bool,
}

/// One request on its way.
struct Effort<'a> {
    ipam: &'a Ipam,
    holder: Holder,
    request: &'a AutoAssign,
    now: SystemTime,
    settings: &'a Settings,
    pools: PerFamily<Vec<&'a Object<IpPool>>>,
    cooldown: Duration,
    assigned: Assigned,
    /// What is still to be assigned; a family that can get no more is set to 0.
    wanted: PerFamily<usize>,
    /// Whether the owner's affinities were read for this request.
    fresh: bool,
    /// Whether the blocks of a family were listed for this request.
    listed: PerFamily<bool>,
    probes: u32,
    /// Blocks that turned out to have nothing to give.
    tried: BTreeSet<Cidr>,
    /// Blocks that were not as they were thought to be.
    met: BTreeSet<Cidr>,
    /// Blocks that the handle may count although a conflict kept their write away.
    suspects: BTreeSet<Cidr>,
    /// Commits whose outcome is not known, and that may even happen later.
    limbo: Vec<Limbo>,
}

impl Effort<'_> {
    async fn run(mut self) -> Result<Assigned, AssignError> {
        let mut last = None;
        for _ in 0..MAX_ATTEMPTS {
            self.settle().await?;
            if self.is_done() {
                return self.finish().await;
            }
            let Some(plan) = self.next_plan().await? else { return self.finish().await };
            match self.carry_out(plan).await? {
                None => {}
                Some(key) => {
                    last = Some(key);
                    yield_now().await;
                }
            }
            if self.is_done() {
                return self.finish().await;
            }
        }
        match last {
            Some(key) => Err(AccessError::Contended { key, attempts: MAX_ATTEMPTS }.into()),
            None => self.finish().await,
        }
    }

    fn is_done(&self) -> bool {
        Family::ALL.iter().all(|family| *self.wanted.of(*family) == 0)
    }

    /// Plans the next commit; `None` when nothing more can be had.
    async fn next_plan(&mut self) -> Result<Option<Plan>, AssignError> {
        let mut candidates = Vec::new();
        for family in Family::ALL {
            if *self.wanted.of(family) > 0 {
                candidates.extend(self.own(family).await?);
            }
        }
        loop {
            let plan = self.plan(&candidates)?;
            let short = self.short_of(&plan);
            let family = Family::ALL.into_iter().find(|family| *short.of(*family) > 0);
            let Some(family) = family.filter(|_| !plan.full) else { return Ok(Some(plan)) };
            if !self.fresh {
                self.fresh = true;
                for family in Family::ALL.into_iter().filter(|family| *self.wanted.of(*family) > 0) {
                    self.ipam.read_host(&self.request.owner, family).await?;
                }
                return Box::pin(self.next_plan()).await;
            }
            // Those that gave nothing so far give nothing now.
            let useful = |cidr: &Cidr| plan.blocks.iter().any(|block| block.cidr() == *cidr);
            self.tried.extend(candidates.iter().map(|candidate| candidate.cidr).filter(|cidr| !useful(cidr)));
            candidates.retain(|candidate| useful(&candidate.cidr));
            let missing = *short.of(family);
            if let Some(pools) = self.gather(family, missing, &mut candidates).await? {
                let owner = self.request.owner.clone();
                self.assigned.shortages.push(Shortage { family, owner, missing, pools });
                *self.wanted.of_mut(family) -= missing;
                if self.is_done() {
                    return Ok(None);
                }
            }
        }
    }

    /// Adds candidates for a family until they should suffice; when there is none at all, says why.
    async fn gather(
        &mut self,
        family: Family,
        missing: usize,
        candidates: &mut Vec<Candidate>,
    ) -> Result<Option<Vec<PoolShortage>>, AssignError> {
        let mut space = 0;
        while space < missing && candidates.len() <= MAX_BLOCKS {
            match self.further(family, candidates).await? {
                Ok(candidate) => {
                    space +=
                        candidate.block.value.as_ref().map_or(1 << candidate.host_bits(), Block::free).max(1);
                    candidates.push(candidate);
                }
                Err(pools) => return Ok((space == 0).then_some(pools)),
            }
        }
        Ok(None)
    }

    fn plan(&self, candidates: &[Candidate]) -> Result<Plan, AssignError> {
        let handle = self.ipam.cache().handle(&self.holder.handle).unwrap_or_else(Versioned::absent);
        let mine = !self.assigned.v4.is_empty() || !self.assigned.v6.is_empty();
        if self.request.handle_use == HandleUse::New && handle.value.is_some() && !mine {
            return Err(AssignError::HandleInUse { handle: self.holder.handle.clone() });
        }
        let view = View {
            owner: &self.request.owner,
            candidates,
            handle: &handle,
            reserved: &self.settings.reserved,
            cooldown: self.cooldown,
            atomicity: self.ipam.store.atomicity(),
        };
        Ok(plan(&view, self.wanted, &self.holder, self.now))
    }

    fn short_of(&self, plan: &Plan) -> PerFamily<usize> {
        let mut short = self.wanted;
        for allocation in &plan.allocations {
            *short.of_mut(Family::of(allocation.addr)) -= 1;
        }
        short
    }

    /// Returns the owner's own blocks that may have space, as many as are likely to suffice.
    async fn own(&mut self, family: Family) -> Result<Vec<Candidate>, AssignError> {
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
                    Some(_) => self.drop_stale(&candidate).await?,
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

    /// Leaves out a block that cannot be read, and says so, instead of failing because of it.
    fn usable(
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

    fn pool_of(&self, cidr: &Cidr) -> Option<Name> {
        let pools = self.pools.of(cidr.family());
        let pool = pools.iter().find(|pool| pool.spec.cidr.covers(cidr))?;
        (pool.spec.block_size == cidr.prefix_len()).then(|| pool.metadata.name.clone())
    }

    /// Deletes an affinity to a block that is another's. A pending one is let be: another process of this host may be
    /// about to take the block over.
    async fn drop_stale(&self, candidate: &Candidate) -> Result<(), AssignError> {
        let settled = candidate.affinity.value.as_ref().is_some_and(|a| a.state != AffinityState::Pending);
        let key = affinity_key(&self.request.owner, &candidate.cidr);
        if let Some(write) = candidate.affinity.delete(key).filter(|_| settled)
            && let Outcome::Done(_) = self.ipam.commit(vec![write], self.now).await?
        {
            let gone = Versioned::absent();
            self.ipam.cache().note_affinity(&self.request.owner, candidate.cidr, gone);
        }
        Ok(())
    }

    /// Finds one more block for a family, beside the candidates; or says, pool by pool, why there is none.
    async fn further(
        &mut self,
        family: Family,
        candidates: &[Candidate],
    ) -> Result<Result<Candidate, Vec<PoolShortage>>, AssignError> {
        let config = &self.settings.config;
        let in_hand: BTreeSet<Cidr> = candidates.iter().map(|candidate| candidate.cidr).collect();
        if let Some(limit) = self.limit_reached(family, candidates) {
            return Ok(Err(self.shortage(family, &[Reason::BlockLimit(limit)])));
        }
        if config.auto_allocate_blocks
            && let Some(candidate) = self.claimable(family, &in_hand).await?
        {
            return Ok(Ok(candidate));
        }
        if config.strict_affinity {
            let mut reasons = vec![Reason::StrictAffinity];
            if !config.auto_allocate_blocks {
                reasons.push(Reason::NoAutoAllocation);
            }
            return Ok(Err(self.shortage(family, &reasons)));
        }
        match self.lender(family, &in_hand).await? {
            Some(candidate) => Ok(Ok(candidate)),
            None => Ok(Err(self.shortage(family, &[]))),
        }
    }

    fn limit_reached(&self, family: Family, candidates: &[Candidate]) -> Option<u32> {
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

    async fn claimable(
        &mut self,
        family: Family,
        in_hand: &BTreeSet<Cidr>,
    ) -> Result<Option<Candidate>, AssignError> {
        loop {
            if self.probes >= MAX_PROBES {
                self.list(family).await?;
            }
            let Some((pool, guess)) = self.guess(family, in_hand) else {
                if *self.listed.of(family) {
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
    fn guess(&self, family: Family, in_hand: &BTreeSet<Cidr>) -> Option<(Name, Guess)> {
        let mut cache = self.ipam.cache();
        let owner = &self.request.owner;
        let tried = &self.tried | in_hand;
        for pool in self.pools.of(family) {
            let place = (owner.clone(), pool.spec.cidr);
            let start = cache.cursors.get(&place).copied().unwrap_or_else(|| self.start(&pool.spec));
            let index = cache.index.of(family);
            let found = index.claimable(&pool.spec, owner, &self.settings.reserved, start, &tried);
            if let Some((number, guess)) = found {
                cache.cursors.insert(place, number + 1);
                return Some((pool.metadata.name.clone(), guess));
            }
        }
        None
    }

    /// Returns where the search of a pool begins. Blocks of one address are sought at a new place each time, because a
    /// host needs one for each workload.
    fn start(&self, pool: &IpPool) -> u128 {
        let since = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let moving = if pool.block_size == pool.cidr.family().bits() { since.as_nanos() } else { 0 };
        starting_point(&self.request.owner).wrapping_add(moving)
    }

    /// Reads a block that the index suggests, and says by which right it may serve.
    async fn look_at(&mut self, pool: Name, cidr: Cidr) -> Result<Option<Candidate>, AssignError> {
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

    async fn list(&mut self, family: Family) -> Result<(), AssignError> {
        if !*self.listed.of(family) {
            self.ipam.read_index(family, self.now).await?;
            *self.listed.of_mut(family) = true;
        }
        Ok(())
    }

    async fn lender(
        &mut self,
        family: Family,
        in_hand: &BTreeSet<Cidr>,
    ) -> Result<Option<Candidate>, AssignError> {
        self.list(family).await?;
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

    fn shortage(&self, family: Family, reasons: &[Reason]) -> Vec<PoolShortage> {
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

    /// Commits a plan; returns the key that stood in the way, if one did.
    async fn carry_out(&mut self, plan: Plan) -> Result<Option<Key>, AssignError> {
        let Plan { writes, confirm, allocations, blocks, bases, affinities, handle, full: _ } = plan;
        let in_order = self.ipam.store.atomicity() == Atomicity::InOrder;
        let done = match self.ipam.commit(writes, self.now).await? {
            Outcome::Done(revision) => {
                if in_order {
                    self.ipam.forget_all(&self.request.owner, &blocks, &self.holder.handle);
                } else {
                    self.learn(revision, &blocks, affinities, handle);
                }
                self.count(allocations);
                None
            }
            Outcome::Again(key) => {
                self.met.extend(block_from_key(&key));
                if in_order {
                    self.suspects.extend(blocks.iter().map(Block::cidr));
                    self.limbo.push(Limbo { allocations, bases, open: false });
                }
                Some(key)
            }
            Outcome::Unknown(key) => {
                self.suspects.extend(blocks.iter().map(Block::cidr));
                self.limbo.push(Limbo { allocations, bases, open: true });
                Some(key)
            }
        };
        for cidr in confirm {
            self.ipam.confirm(&self.request.owner, &cidr, self.now).await?;
        }
        Ok(done)
    }

    fn learn(
        &self,
        revision: Revision,
        blocks: &[Block],
        affinities: Vec<(Cidr, StoredAffinity)>,
        handle: Option<calico_model::resource::block::StoredHandle>,
    ) {
        let mut cache = self.ipam.cache();
        for (cidr, affinity) in affinities {
            cache.note_affinity(&self.request.owner, cidr, Versioned::at(affinity, revision));
        }
        for block in blocks {
            cache.note_block(block.cidr(), &Versioned::at(block.clone(), revision), self.now);
        }
        if let Some(handle) = handle {
            cache.note_handle(&self.holder.handle, Versioned::at(handle, revision));
        }
    }

    /// Looks what became of commits that failed half-way or whose outcome is not known. What they assigned is counted. One
    /// that can still happen stays in limbo, until another writer or this request's next commit has changed what it needs.
    ///
    /// The handle is read first: a commit that lands after that changes the handle, and the next plan fails.
    async fn settle(&mut self) -> Result<(), AssignError> {
        // A commit may land between the reads of two of its blocks: then look again.
        while !self.limbo.is_empty() && self.settle_once().await? {}
        Ok(())
    }

    /// Looks once; returns whether something had landed.
    async fn settle_once(&mut self) -> Result<bool, AssignError> {
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

    fn count(&mut self, allocations: Vec<Allocation>) {
        for allocation in &allocations {
            let wanted = self.wanted.of_mut(Family::of(allocation.addr));
            *wanted = wanted.saturating_sub(1);
        }
        self.assigned.add(allocations);
    }

    /// Tidies up and turns what was assigned into the answer.
    async fn finish(mut self) -> Result<Assigned, AssignError> {
        for (cidr, _) in self.limbo.iter().flat_map(|limbo| &limbo.bases) {
            self.ipam.void(cidr, self.now).await?;
        }
        self.settle().await?;
        for cidr in &self.suspects {
            self.ipam.recount(&self.holder.handle, cidr, self.now).await?;
        }
        let nothing = self.assigned.v4.is_empty() && self.assigned.v6.is_empty();
        if nothing && !self.assigned.shortages.is_empty() {
            return Err(AssignError::Exhausted(self.assigned.shortages));
        }
        Ok(self.assigned)
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
