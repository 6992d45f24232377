//! From what is known and what is wanted to the writes of one commit: pure.
//!
//! The writes are ordered so that every prefix of them is safe, for stores that apply a commit in order and may stop
//! half-way:
//!
//! 1. affinities to new blocks, *pending*: a claim that failed is seen and undone or finished by the host's next
//!    operation;
//! 2. the handle: it never counts fewer addresses than the blocks have, so releasing by handle misses none;
//! 3. the blocks: from here on the addresses are assigned;
//! 4. affinities to blocks that are now surely the host's, *confirmed*; affinities of former owners, deleted.
//!
//! A claim's affinity is confirmed by a second commit on a store that applies in order. On an atomic store it is written
//! as confirmed at once, because there no prefix of the commit is ever seen.
//!
//! In order, a new block is written empty, and addresses are taken from it by a later plan. So a block with addresses is
//! always written over a revision, and none comes twice. *Absent* does come twice: between the handle's write and the
//! block's, a block can be made and deleted and the handle's count be lowered.
//!
//! Every write names the revision that was read, blocks included, so whatever was decided here from old knowledge fails
//! as a conflict and changes nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use calico_model::datastore::{Atomicity, Write};
use calico_model::resource::block::{
    AffinityState, Owner, StoredAffinity, StoredHandle, affinity_key, block_key,
};
use calico_model::{Cidr, Name};
use serde_json::Map;

use crate::block::{Block, Holder};
use crate::handle::handle_write;
use crate::kept::Kept;
use crate::request::{Allocation, PerFamily};
use crate::versioned::{Versioned, to_json};

/// By which right addresses are taken from a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The block is the owner's.
    Own,
    /// The block does not exist yet.
    Claim,
    /// The block is empty and nobody's, or its owner claimed it a while ago: it is taken over.
    TakeOver {
        /// The former owner, when there is one.
        from: Option<Owner>,
        /// The former owner's affinity.
        affinity: Versioned<StoredAffinity>,
    },
    /// The block stays another's.
    Borrow,
}

/// A block that may serve the request.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The pool.
    pub pool: Name,
    /// The block's network.
    pub cidr: Cidr,
    /// The block as read.
    pub block: Versioned<Block>,
    /// The owner's affinity to the block as read.
    pub affinity: Versioned<StoredAffinity>,
    /// By which right it serves.
    pub role: Role,
}

/// Everything a plan is made from.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// Who asks.
    pub owner: &'a Owner,
    /// The blocks in the order they are used.
    pub candidates: &'a [Candidate],
    /// The handle as read.
    pub handle: &'a Versioned<StoredHandle>,
    /// The networks that are never assigned automatically.
    pub reserved: &'a [Cidr],
    /// How long a released address is kept back.
    pub cooldown: Duration,
    /// How the store commits.
    pub atomicity: Atomicity,
    /// What the owner keeps for itself of the blocks it claims.
    pub kept: Kept,
}

/// An affinity as it is to be; absent is deleted.
#[derive(Debug, Clone, PartialEq)]
pub struct AffinityChange {
    /// Whose it is.
    pub owner: Owner,
    /// The block.
    pub cidr: Cidr,
    /// What is to be written, and the revision it is written over.
    pub affinity: Versioned<StoredAffinity>,
}

/// What is to be written in one commit, and what it brings. [`Plan::writes`] puts it into the form of the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The affinities that are written before everything else.
    pub first: Vec<AffinityChange>,
    /// The handle as it will be, and the revision it is written over.
    pub handle: Option<Versioned<StoredHandle>>,
    /// The blocks as they will be, and the revisions they are written over.
    pub blocks: Vec<Versioned<Block>>,
    /// The affinities that are written after everything else.
    pub last: Vec<AffinityChange>,
    /// The blocks whose pending affinity is to be confirmed after the commit.
    pub confirm: Vec<Cidr>,
    /// The addresses that are assigned once the commit is done.
    pub allocations: Vec<Allocation>,
    /// Whether there was more to take than this commit takes.
    pub full: bool,
}

/// At most this many blocks are changed by one plan, so that the commit fits into [`calico_model::datastore::MAX_WRITES`].
pub(crate) const MAX_BLOCKS: usize = 40;

/// At most this many addresses may the changed blocks have, so that the commit is not too large.
const MAX_ADDRESSES: usize = 4096;

/// Takes up to `wanted` addresses of each family from the candidates, in order.
///
/// The plan is empty when they have none. It brings fewer than wanted when they have fewer, or when more would not fit
/// into one commit.
#[must_use]
pub fn plan(view: &View<'_>, wanted: PerFamily<usize>, holder: &Holder, now: SystemTime) -> Plan {
    let mut draft = Draft::new(view, holder);
    let mut wanted = wanted;
    let mut addresses = 0;
    for candidate in view.candidates {
        let wanted = wanted.of_mut(candidate.cidr.family());
        if *wanted == 0 {
            continue;
        }
        let before = candidate.block_before(view, now);
        let (after, addrs) = before.assign(*wanted, holder, view.reserved, now, view.cooldown);
        if addrs.is_empty() {
            continue;
        }
        addresses += after.size();
        let blocks = draft.plan.blocks.len();
        if blocks == MAX_BLOCKS || (addresses > MAX_ADDRESSES && blocks > 0) {
            draft.plan.full = true;
            break;
        }
        *wanted -= addrs.len();
        if draft.claims_first(candidate) {
            draft.take(candidate, before);
            draft.plan.full = true;
        } else {
            draft.assign(candidate, &before, after, &addrs);
        }
    }
    draft.finish()
}

/// Takes one given address from the only candidate; `None` when it is not free. The plan has no allocation yet when the
/// block must be there first.
#[must_use]
pub fn plan_address(view: &View<'_>, addr: IpAddr, holder: &Holder, now: SystemTime) -> Option<Plan> {
    let mut draft = Draft::new(view, holder);
    let candidate = view.candidates.first()?;
    let before = candidate.block_before(view, now);
    let after = before.assign_address(addr, holder, now, view.cooldown)?;
    if draft.claims_first(candidate) {
        draft.take(candidate, before);
    } else {
        draft.assign(candidate, &before, after, &[addr]);
    }
    Some(draft.finish())
}

/// Claims the candidates, or mends the claim of those that are the owner's already, without taking an address.
#[must_use]
pub fn plan_claim(view: &View<'_>, now: SystemTime) -> Plan {
    let mut draft = Draft::without_handle(view);
    for candidate in view.candidates {
        draft.take(candidate, candidate.block_before(view, now));
    }
    draft.finish()
}

impl Plan {
    /// Returns the writes of one commit, in an order whose every prefix is safe.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        let handle = self.handle.iter().filter_map(|handle| handle_write(handle, handle.value.as_ref()?));
        let blocks = self.blocks.iter().filter_map(|block| {
            let stored = block.value.as_ref()?;
            Some(block.put(block_key(&stored.cidr()), to_json(stored)))
        });
        let (first, last) = (self.first.iter(), self.last.iter());
        let first = first.filter_map(AffinityChange::write);
        first.chain(handle).chain(blocks).chain(last.filter_map(AffinityChange::write)).collect()
    }

    /// Walks the networks of the blocks.
    pub(crate) fn cidrs(&self) -> impl Iterator<Item = Cidr> {
        self.blocks.iter().filter_map(|block| block.value.as_ref().map(Block::cidr))
    }
}

impl AffinityChange {
    fn write(&self) -> Option<Write> {
        let key = affinity_key(&self.owner, &self.cidr);
        match &self.affinity.value {
            Some(affinity) => Some(self.affinity.put(key, to_json(affinity))),
            None => self.affinity.delete(key),
        }
    }
}

impl Candidate {
    pub(crate) fn host_bits(&self) -> u8 {
        self.cidr.family().bits() - self.cidr.prefix_len()
    }

    /// Returns the block as it is when it has become the owner's.
    fn block_before(&self, view: &View<'_>, now: SystemTime) -> Block {
        let owner = || Some(view.owner.clone());
        match (&self.block.value, &self.role) {
            (None, _) => Block::new(self.cidr, owner(), now).keeping(view.kept, now),
            (Some(block), Role::TakeOver { .. }) => block.with_owner(owner(), now).keeping(view.kept, now),
            (Some(block), Role::Own | Role::Claim | Role::Borrow) => block.clone(),
        }
    }
}

/// The writes in the order of the module's promise.
struct Draft<'a> {
    view: &'a View<'a>,
    /// The handle as it will be, when addresses are assigned.
    counts: Option<StoredHandle>,
    plan: Plan,
}

impl<'a> Draft<'a> {
    fn new(view: &'a View<'a>, holder: &Holder) -> Self {
        let counts = view.handle.value.clone().unwrap_or_else(|| StoredHandle {
            handle_id: holder.handle.clone(),
            block: BTreeMap::new(),
            deleted: false,
            unknown: Map::new(),
        });
        Self { counts: Some(counts), ..Self::without_handle(view) }
    }

    fn without_handle(view: &'a View<'a>) -> Self {
        Self { view, counts: None, plan: Plan::default() }
    }

    /// Reports whether the block must be there before addresses are taken from it.
    fn claims_first(&self, candidate: &Candidate) -> bool {
        self.view.atomicity == Atomicity::InOrder && candidate.block.value.is_none()
    }

    fn assign(&mut self, candidate: &Candidate, before: &Block, after: Block, addrs: &[IpAddr]) {
        if let Some(counts) = &mut self.counts {
            let held = before.count_of(&counts.handle_id) + addrs.len() as u64;
            let counted = counts.block.entry(candidate.cidr).or_default();
            // In order, another process may be about to write what it has counted under this handle.
            *counted = match self.view.atomicity {
                Atomicity::Atomic => held,
                Atomicity::InOrder => held.max(*counted),
            };
        }
        let sequence = after.sequence();
        self.plan.allocations.extend(addrs.iter().map(|addr| {
            let (block, pool) = (candidate.cidr, candidate.pool.clone());
            Allocation { addr: *addr, block, pool, sequence }
        }));
        self.take(candidate, after);
    }

    fn take(&mut self, candidate: &Candidate, after: Block) {
        self.plan.blocks.push(Versioned { value: Some(after), revision: candidate.block.revision });
        match &candidate.role {
            Role::Borrow => {}
            Role::Own => self.own(candidate),
            Role::Claim => self.claim(candidate),
            Role::TakeOver { from, affinity } => {
                self.claim(candidate);
                let affinity = Versioned { value: None, revision: affinity.revision };
                let cidr = candidate.cidr;
                let former = from.clone().map(|owner| AffinityChange { owner, cidr, affinity });
                self.plan.last.extend(former);
            }
        }
    }

    /// The block is the owner's, and whoever was about to change that has just lost: confirm it, if it is not.
    fn own(&mut self, candidate: &Candidate) {
        match &candidate.affinity.value {
            None => self.claim(candidate),
            Some(affinity) if affinity.state == AffinityState::Confirmed => {}
            Some(_) => {
                let change = self.affinity(candidate, AffinityState::Confirmed);
                self.plan.last.push(change);
            }
        }
    }

    /// The affinity is written even if it seems to be confirmed already: it may be gone, or about to be deleted because
    /// the block was not the owner's.
    fn claim(&mut self, candidate: &Candidate) {
        let state = match self.view.atomicity {
            Atomicity::Atomic => AffinityState::Confirmed,
            Atomicity::InOrder => {
                self.plan.confirm.push(candidate.cidr);
                AffinityState::Pending
            }
        };
        let change = self.affinity(candidate, state);
        self.plan.first.push(change);
    }

    fn affinity(&self, candidate: &Candidate, state: AffinityState) -> AffinityChange {
        let affinity = StoredAffinity { state, ..candidate.affinity.value.clone().unwrap_or_default() };
        let affinity = Versioned { value: Some(affinity), revision: candidate.affinity.revision };
        AffinityChange { owner: self.view.owner.clone(), cidr: candidate.cidr, affinity }
    }

    fn finish(self) -> Plan {
        let Self { view, counts, mut plan } = self;
        let counts = counts.filter(|_| !plan.allocations.is_empty());
        plan.handle = counts.map(|counts| Versioned { value: Some(counts), revision: view.handle.revision });
        plan
    }
}
