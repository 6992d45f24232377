//! The loop that assigns: read, plan, write if unchanged; on a conflict read again, within bounds.
//!
//! 1. The owner's own blocks serve first, from memory when it has them.
//! 2. When they do not suffice the owner's affinities are read again: another process of the host may have claimed.
//! 3. Then a block is claimed: one that does not exist, or another host's that is empty and was claimed a minute ago. Without
//!    a watch the next eight are read, at once and together with 2; only when all of them exist are the family's listed.
//! 4. When none is left, and strict affinity is off, addresses are borrowed from any block with space.

pub(crate) mod limbo;
mod own;
mod search;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use calico_model::datastore::{Atomicity, Entry, Key};
use calico_model::resource::block::{Owner, block_from_key};
use calico_model::resource::{IpPool, Object};
use calico_model::{Cidr, Family, Labels, Name, NodeName, Revision};

use crate::block::{Block, Holder};
use crate::error::{AccessError, AssignError, PoolShortage, Reason, Shortage, owner_name};
use crate::ipam::{Ipam, Outcome, clean_handle, key_of_handle};
use crate::join::join;
use crate::plan::{Candidate, MAX_BLOCKS, Plan, View, plan};
use crate::pool::{Ask, PoolRef, Settings};
use crate::request::{Allocation, Assigned, AutoAssign, HandleUse, PerFamily};
use crate::retry::MAX_ATTEMPTS;
use crate::versioned::Versioned;
use limbo::Limbo;

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
        let (settings, fresh) = self.first_reads(&request, now).await?;
        let mut effort = self.effort(&request, handle, settings, now).await?;
        effort.fresh = fresh;
        effort.run().await
    }

    /// Returns the settings; when they have to be read, the owner's affinities are read beside them where they are not known.
    async fn first_reads(
        &self,
        request: &AutoAssign,
        now: SystemTime,
    ) -> Result<(Arc<Settings>, PerFamily<bool>), AssignError> {
        let mut fresh = PerFamily::default();
        let known = self.cache().settings(now);
        if let Some(settings) = known {
            return Ok((settings, fresh));
        }
        let unknown = |family: &Family| {
            *request.count.of(*family) > 0 && self.cache().host(&request.owner, *family).is_none()
        };
        let families: Vec<Family> = Family::ALL.into_iter().filter(unknown).collect();
        let (settings, hosts) =
            join(self.read_settings(now), self.read_hosts(&request.owner, &families)).await;
        hosts?;
        families.into_iter().for_each(|family| *fresh.of_mut(family) = true);
        Ok((settings?, fresh))
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
        let mut effort = self.effort(&request, "none".to_owned(), settings, now).await?;
        self.read_host(&request.owner, family).await?;
        let had = self.cache().host(&request.owner, family).map(|host| host.affinities.clone());
        for cidr in had.into_iter().flatten().map(|(cidr, _)| cidr) {
            if let Some(pool) = effort.pool_of(&cidr)
                && self.claim_block(&request.owner, &pool, &cidr, now).await?.is_ok()
            {
                return Ok(cidr);
            }
        }
        let limit = effort.limit_reached(family, &[]);
        while limit.is_none()
            && let Some(candidate) = effort.claimable(family, &BTreeSet::new()).await?
        {
            let cidr = candidate.cidr;
            if self.claim_block(&request.owner, &candidate.pool, &cidr, now).await?.is_ok() {
                return Ok(cidr);
            }
            effort.tried.insert(cidr);
        }
        let limit: Vec<Reason> = limit.into_iter().map(Reason::BlockLimit).collect();
        let pools = effort.shortage(family, &limit);
        let owner = request.owner.clone();
        Err(AssignError::Exhausted(vec![Shortage { family, owner, missing: 1, pools }]))
    }

    async fn effort<'a>(
        &'a self,
        request: &'a AutoAssign,
        handle: String,
        settings: Arc<Settings>,
        now: SystemTime,
    ) -> Result<Effort<'a>, AssignError> {
        let pools = self.eligible(&settings, request, now).await?;
        let attributes = with_node(&request.owner, request.attributes.clone());
        Ok(Effort {
            ipam: self,
            holder: Holder { handle, attributes },
            request,
            now,
            pools,
            cooldown: Duration::from_secs(settings.config.ip_cooldown_seconds.into()),
            assigned: Assigned { notes: settings.problems.clone(), ..Assigned::default() },
            settings,
            wanted: request.count,
            fresh: PerFamily::default(),
            listed: PerFamily::default(),
            listing: BTreeMap::new(),
            vain: PerFamily::default(),
            vacant: VecDeque::new(),
            tried: BTreeSet::new(),
            met: BTreeSet::new(),
            suspects: BTreeSet::new(),
            limbo: Vec::new(),
        })
    }

    /// Returns which of the settings' pools may serve a request, as places in their list.
    async fn eligible(
        &self,
        settings: &Settings,
        request: &AutoAssign,
        now: SystemTime,
    ) -> Result<PerFamily<Vec<usize>>, AssignError> {
        let labels = match &request.owner {
            Owner::Host(node) if settings.selects_nodes() => self.labels(node, now).await?,
            Owner::Host(_) | Owner::Virtual(_) => Arc::new(Labels::new()),
        };
        let mut pools = PerFamily::default();
        for family in Family::ALL {
            if *request.count.of(family) > 0 {
                let ask = Ask {
                    node: owner_name(&request.owner),
                    node_labels: &labels,
                    namespace_labels: request.namespace_labels.as_ref(),
                    intended_use: request.intended_use,
                    requested: request.pools.of(family),
                };
                let found = settings.eligible(family, &ask)?;
                let place = |pool: &&Object<IpPool>| {
                    settings.pools.iter().position(|known| std::ptr::eq(known, *pool))
                };
                *pools.of_mut(family) = found.iter().filter_map(place).collect();
            }
        }
        Ok(pools)
    }
}

/// Adds who the addresses are for, which borrowing makes worth knowing.
pub(crate) fn with_node(owner: &Owner, mut attributes: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if let Owner::Host(node) = owner {
        attributes.entry("node".to_owned()).or_insert_with(|| node.to_string());
    }
    attributes
}

/// One request on its way.
struct Effort<'a> {
    ipam: &'a Ipam,
    holder: Holder,
    request: &'a AutoAssign,
    now: SystemTime,
    settings: Arc<Settings>,
    /// The pools that may serve it, as places in those of the settings.
    pools: PerFamily<Vec<usize>>,
    cooldown: Duration,
    assigned: Assigned,
    /// What is still to be assigned; a family that can get no more is set to 0.
    wanted: PerFamily<usize>,
    /// Whether the owner's affinities were read for this request.
    fresh: PerFamily<bool>,
    /// Whether the blocks of a family were listed for this request.
    listed: PerFamily<bool>,
    /// Of the blocks that were listed, those that have an address to spare and were not looked at yet.
    listing: BTreeMap<Cidr, Entry>,
    /// Whether blocks of a family that might have been absent were read, and none was.
    vain: PerFamily<bool>,
    /// Blocks that were absent when they were read for this request.
    vacant: VecDeque<(Name, Cidr, Versioned<Block>)>,
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
        let mut attempts = self.ipam.attempts();
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
                    attempts.pause().await;
                    if let Err(error) = self.renew().await {
                        return self.withdraw(error).await;
                    }
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

    /// Reads the settings again after an attempt that failed: a pool may have been disabled since, and there may be a hundred
    /// attempts.
    async fn renew(&mut self) -> Result<(), AssignError> {
        let settings = self.ipam.read_settings(self.now).await?;
        self.pools = self.ipam.eligible(&settings, self.request, self.now).await?;
        self.cooldown = Duration::from_secs(settings.config.ip_cooldown_seconds.into());
        self.settings = settings;
        Ok(())
    }

    /// Ends a request that no pool may serve any more: with what it has, or with the error when that is nothing.
    async fn withdraw(mut self, error: AssignError) -> Result<Assigned, AssignError> {
        if matches!(error, AssignError::Access(_)) {
            return Err(error);
        }
        self.resolve().await?;
        for family in Family::ALL {
            let missing = std::mem::take(self.wanted.of_mut(family));
            if missing > 0 {
                let owner = self.request.owner.clone();
                self.assigned.shortages.push(Shortage { family, owner, missing, pools: Vec::new() });
            }
        }
        self.assigned.notes.push(error.to_string());
        match self.finish().await {
            Err(AssignError::Exhausted(_)) => Err(error),
            other => other,
        }
    }

    /// Returns the pools that may serve the request in a family, in the order they are tried.
    fn pools(&self, family: Family) -> impl Iterator<Item = &Object<IpPool>> {
        self.pools.of(family).iter().filter_map(|place| self.settings.pools.get(*place))
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
            if self.read_own_again(family, &candidates).await? {
                return Box::pin(self.next_plan()).await;
            }
            // Those that gave nothing so far give nothing now.
            let useful = |cidr: &Cidr| plan.cidrs().any(|used| used == *cidr);
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

    /// Reads the owner's affinities in the wanted families, unless they were read for this request, and beside them the
    /// blocks that may be claimed for a family if there is no other way. Returns whether there was something to read.
    async fn read_own_again(&mut self, short: Family, candidates: &[Candidate]) -> Result<bool, AssignError> {
        let stale = |family: &Family| *self.wanted.of(*family) > 0 && !*self.fresh.of(*family);
        let families: Vec<Family> = Family::ALL.into_iter().filter(stale).collect();
        if families.is_empty() {
            return Ok(false);
        }
        families.iter().for_each(|family| *self.fresh.of_mut(*family) = true);
        let may_claim =
            self.settings.config.auto_allocate_blocks && self.limit_reached(short, candidates).is_none();
        let in_hand = candidates.iter().map(|candidate| candidate.cidr).collect();
        let unknown = if may_claim { self.unknown(short, &in_hand) } else { Vec::new() };
        let hosts = self.ipam.read_hosts(&self.request.owner, &families);
        let (hosts, read) = join(hosts, self.read_unknown(&unknown)).await;
        hosts?;
        if !unknown.is_empty() {
            self.note_vacant(short, unknown, read)?;
        }
        Ok(true)
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
            kept: self.ipam.kept,
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

    /// Commits a plan; returns the key that stood in the way, if one did.
    async fn carry_out(&mut self, plan: Plan) -> Result<Option<Key>, AssignError> {
        let in_order = self.ipam.store.atomicity() == Atomicity::InOrder;
        let done = match self.ipam.commit(plan.writes(), self.now).await? {
            Outcome::Done(revision) => {
                if in_order {
                    self.ipam.forget_all(&self.request.owner, &plan, &self.holder.handle);
                } else {
                    self.learn(revision, &plan);
                }
                self.count(plan.allocations);
                None
            }
            Outcome::Again(key) => {
                self.met.extend(block_from_key(&key));
                if in_order {
                    self.doubt(&plan, false);
                }
                Some(key)
            }
            Outcome::Unknown(key) => {
                self.doubt(&plan, true);
                Some(key)
            }
        };
        for cidr in plan.confirm {
            self.ipam.confirm(&self.request.owner, &cidr, self.now).await?;
        }
        Ok(done)
    }

    /// Keeps in mind a plan that may be carried out in part, or, while it is `open`, later.
    fn doubt(&mut self, plan: &Plan, open: bool) {
        self.suspects.extend(plan.cidrs());
        let bases = plan.cidrs().zip(plan.blocks.iter().map(|block| block.revision)).collect();
        self.limbo.push(Limbo { allocations: plan.allocations.clone(), bases, open });
    }

    fn learn(&self, revision: Revision, plan: &Plan) {
        let mut cache = self.ipam.cache();
        for change in plan.first.iter().chain(&plan.last) {
            if let Some(affinity) = change.affinity.value.clone() {
                cache.note_affinity(&change.owner, change.cidr, Versioned::at(affinity, revision));
            }
        }
        for block in plan.blocks.iter().filter_map(|block| block.value.as_ref()) {
            cache.note_block(block.cidr(), &Versioned::at(block.clone(), revision), self.now);
        }
        if let Some(handle) = plan.handle.as_ref().and_then(|handle| handle.value.clone()) {
            cache.note_handle(&self.holder.handle, Versioned::at(handle, revision));
        }
    }

    fn count(&mut self, allocations: Vec<Allocation>) {
        for allocation in &allocations {
            let wanted = self.wanted.of_mut(Family::of(allocation.addr));
            *wanted = wanted.saturating_sub(1);
        }
        self.assigned.add(allocations);
    }

    /// Makes sure that no commit happens any more whose outcome is not known, and counts those that did.
    async fn resolve(&mut self) -> Result<(), AssignError> {
        for (cidr, _) in self.limbo.iter().flat_map(|limbo| &limbo.bases) {
            self.ipam.void(cidr, self.now).await?;
        }
        self.settle().await
    }

    /// Tidies up and turns what was assigned into the answer.
    async fn finish(mut self) -> Result<Assigned, AssignError> {
        self.resolve().await?;
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
