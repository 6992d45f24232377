//! Assigning one given address.

use std::time::{Duration, SystemTime};

use calico_model::datastore::{Atomicity, Key};
use calico_model::resource::block::{Owner, block_key};
use calico_model::{Cidr, Name};

use crate::assign::limbo::holds;
use crate::assign::with_node;
use crate::block::{Block, Holder};
use crate::error::{AccessError, AssignError, PoolShortage, Reason, Shortage};
use crate::ipam::{Ipam, Outcome, clean_handle, key_of_handle};
use crate::plan::{Candidate, Plan, Role, View, plan_address};
use crate::pool::Settings;
use crate::request::{Allocation, AssignAddress};
use crate::retry::MAX_ATTEMPTS;
use crate::versioned::Versioned;

impl Ipam {
    /// Assigns one given address. Reservations and the selectors of its pool do not matter; the pool must be enabled. A
    /// block that does not exist is claimed.
    ///
    /// # Errors
    /// When the address is held, cools down, is in no enabled pool, is in another's block under strict affinity, is in a
    /// block that does not exist while the host has as many as it may have, or the store cannot be used.
    pub async fn assign(&self, request: AssignAddress, now: SystemTime) -> Result<Allocation, AssignError> {
        let handle = clean_handle(&request.handle);
        key_of_handle(&handle)?;
        let mut settings = self.settings(now).await?;
        let (mut pool, mut cidr) = place(&settings, &request)?;
        let holder = Holder { handle, attributes: with_node(&request.owner, request.attributes.clone()) };
        let mut last = block_key(&cidr);
        let mut limbo: Vec<Allocation> = Vec::new();
        let mut attempts = self.attempts();
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 0 {
                attempts.pause().await;
                // The pool may have been disabled since, and there may be a hundred attempts.
                settings = self.read_settings(now).await?;
                (pool, cidr) = place(&settings, &request)?;
            }
            let block = self.read_block(&cidr, now).await?;
            if let Some(landed) = limbo.iter().find(|planned| holds(&block, planned, &holder)) {
                self.confirm(&request.owner, &cidr, now).await?;
                return Ok(landed.clone());
            }
            if block.value.is_none()
                && let Some(limit) = self.limit_reached(&request.owner, &settings, &cidr).await?
            {
                return Err(over_limit(&request.owner, &settings, cidr, limit));
            }
            let candidate = self.candidate(&request.owner, &settings, pool.clone(), cidr, block).await?;
            let candidate = candidate.map_err(|owner| {
                let (addr, owner) = (request.addr, owner.map_or("nobody".to_owned(), |o| o.to_string()));
                AssignError::StrictAffinity { addr, block: cidr, owner }
            })?;
            let handle = self.cache().handle(&holder.handle);
            let handle = handle.unwrap_or_else(Versioned::absent);
            let view = View {
                owner: &request.owner,
                candidates: std::slice::from_ref(&candidate),
                handle: &handle,
                reserved: &[],
                cooldown: Duration::from_secs(settings.config.ip_cooldown_seconds.into()),
                atomicity: self.store.atomicity(),
                kept: self.kept,
            };
            let Some(plan) = plan_address(&view, request.addr, &holder, now) else {
                return Err(taken(&candidate, &request, settings.config.ip_cooldown_seconds));
            };
            match self.carry_out_address(&request.owner, plan, &holder, now).await? {
                Ok(Some(allocation)) => return Ok(allocation),
                Ok(None) => {}
                Err((key, unknown)) => {
                    last = key;
                    limbo.extend(unknown);
                }
            }
        }
        Err(AccessError::Contended { key: last, attempts: MAX_ATTEMPTS }.into())
    }

    /// Returns how many blocks an owner may have, when it has them already and this one is none of them.
    async fn limit_reached(
        &self,
        owner: &Owner,
        settings: &Settings,
        cidr: &Cidr,
    ) -> Result<Option<u32>, AccessError> {
        let limit = settings.config.max_blocks_per_host;
        if limit == 0 {
            return Ok(None);
        }
        self.read_host(owner, cidr.family()).await?;
        let cache = self.cache();
        let had = cache.host(owner, cidr.family()).map(|host| &host.affinities);
        let reached = had.is_some_and(|had| {
            had.len() >= usize::try_from(limit).unwrap_or(usize::MAX) && !had.contains_key(cidr)
        });
        Ok(reached.then_some(limit))
    }

    /// Says by which right the block serves; the block's owner when it must not.
    async fn candidate(
        &self,
        owner: &Owner,
        settings: &Settings,
        pool: Name,
        cidr: Cidr,
        block: Versioned<Block>,
    ) -> Result<Result<Candidate, Option<Owner>>, AccessError> {
        let affinity = self.read_affinity(owner, &cidr).await?;
        let role = match block.value.as_ref().map(Block::owner) {
            None => Role::Claim,
            Some(Some(theirs)) if theirs == owner => Role::Own,
            Some(theirs) if settings.config.strict_affinity => return Ok(Err(theirs.cloned())),
            Some(_) => Role::Borrow,
        };
        Ok(Ok(Candidate { pool, cidr, block, affinity, role }))
    }

    /// Commits, and returns the allocation, none when the block was only made; otherwise the key that stood in the way, and
    /// the allocation when it may have happened.
    async fn carry_out_address(
        &self,
        owner: &Owner,
        plan: Plan,
        holder: &Holder,
        now: SystemTime,
    ) -> Result<Result<Option<Allocation>, (Key, Option<Allocation>)>, AccessError> {
        let in_order = self.store.atomicity() == Atomicity::InOrder;
        let allocation = plan.allocations.first().cloned();
        match self.commit(plan.writes(), now).await? {
            Outcome::Done(_) => {
                self.forget_all(owner, &plan, &holder.handle);
                for cidr in plan.confirm {
                    self.confirm(owner, &cidr, now).await?;
                }
                Ok(Ok(allocation))
            }
            Outcome::Again(key) => {
                if in_order {
                    for cidr in plan.cidrs() {
                        self.recount(&holder.handle, &cidr, now).await?;
                    }
                }
                // In order, the block may have been written before the key that stood in the way.
                Ok(Err((key, allocation)))
            }
            Outcome::Unknown(key) => Ok(Err((key, allocation))),
        }
    }
}

fn place(settings: &Settings, request: &AssignAddress) -> Result<(Name, Cidr), AssignError> {
    let addr = request.addr;
    let holding = Cidr::host(addr);
    let pool = settings.pool_of(&holding).ok_or(AssignError::NotInPool { addr, pool: None })?;
    let name = pool.metadata.name.clone();
    if pool.spec.disabled {
        return Err(AssignError::NotInPool { addr, pool: Some(name) });
    }
    if let Some(wanted) = request.intended_use.filter(|wanted| !pool.spec.allowed_uses.contains(wanted)) {
        return Err(AssignError::UseNotAllowed { addr, pool: name, wanted: format!("{wanted:?}") });
    }
    let block = settings.block_of(addr).ok_or(AssignError::NotInPool { addr, pool: None })?;
    Ok((name, block))
}

fn over_limit(owner: &Owner, settings: &Settings, cidr: Cidr, limit: u32) -> AssignError {
    let pool = settings.pool_of(&cidr).map(|pool| PoolShortage {
        pool: pool.metadata.name.clone(),
        cidr: pool.spec.cidr,
        blocks: pool.spec.cidr.subnet_count(pool.spec.block_size).unwrap_or(0),
        reasons: vec![Reason::BlockLimit(limit)],
    });
    let pools = pool.into_iter().collect();
    let owner = owner.clone();
    AssignError::Exhausted(vec![Shortage { family: cidr.family(), owner, missing: 1, pools }])
}

fn taken(candidate: &Candidate, request: &AssignAddress, seconds: u32) -> AssignError {
    let addr = request.addr;
    match candidate.block.value.as_ref().and_then(|block| block.attributes_of(addr)) {
        Some(attributes) => AssignError::InUse { addr, handle: attributes.handle_id.clone() },
        None => AssignError::CoolingDown { addr, seconds },
    }
}
