//! The loop that gives back: read, plan, write if unchanged; never an address that is somebody else's by now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use calico_model::Cidr;
use calico_model::datastore::{Atomicity, Key, Write};
use calico_model::resource::block::{StoredHandle, block_from_key, block_key, blocks_prefix};
use calico_model::{Family, Revision};

use crate::block::{Block, Expected, Freed};
use crate::error::{AccessError, ReleaseError};
use crate::handle::{handle_write, set_count};
use crate::ipam::{Ipam, Outcome, clean_handle};
use crate::request::{Release, Released};
use crate::retry::MAX_ATTEMPTS;
use crate::versioned::{Versioned, to_json};

/// At most this many addresses are released by one commit, each perhaps with a handle of its own.
const MAX_ADDRESSES: usize = 60;

/// The writes of one release: the block first, so that a write which is about to add to it fails; then the handles.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReleasePlan {
    pub(crate) writes: Vec<Write>,
    block: Option<Block>,
    handles: Vec<StoredHandle>,
}

/// Plans to store `freed.block` in place of `block`, and to make the handles count what is left. A block that belongs to
/// nobody and is free as a whole is deleted.
pub(crate) fn plan_release(
    block: &Versioned<Block>,
    freed: &Freed,
    handles: &BTreeMap<String, Versioned<StoredHandle>>,
) -> ReleasePlan {
    let after = &freed.block;
    let key = block_key(&after.cidr());
    // Addresses that cool down keep the block: in a new one they would be free.
    let unused = after.is_unused();
    let mut plan = ReleasePlan { writes: Vec::new(), block: None, handles: Vec::new() };
    if unused {
        plan.writes.extend(block.delete(key));
    } else {
        plan.writes.push(block.put(key, to_json(after)));
        plan.block = Some(after.clone());
    }
    for read in handles.values() {
        let Some(mut counts) = read.value.clone() else { continue };
        let held = after.count_of(&counts.handle_id);
        set_count(&mut counts, after.cidr(), held);
        if read.value.as_ref() != Some(&counts) {
            plan.writes.extend(handle_write(read, &counts));
            plan.handles.push(counts);
        }
    }
    plan
}

impl Ipam {
    /// Releases addresses. Within one block either all whose expectations hold are released, or, when one does not hold,
    /// none; the other blocks are released all the same.
    ///
    /// Releasing what nobody holds is no error, so a release may be repeated until it succeeds. Nor is it one when the
    /// address was assigned anew since, which the sequence number tells: it was released before, perhaps by this call when
    /// the answer of a commit was lost. The new assignment stays.
    ///
    /// # Errors
    /// When an address is held by another handle, or was never assigned at that number, or the store cannot be used. The first error is
    /// returned, after every block was tried.
    pub async fn release(&self, releases: &[Release], now: SystemTime) -> Result<Released, ReleaseError> {
        let mut blocks: BTreeMap<Cidr, Vec<Expected>> = BTreeMap::new();
        let mut result = Released::default();
        for release in releases {
            let handle = release.handle.as_deref().map(clean_handle);
            let expected = Expected { addr: release.addr, handle, sequence: release.sequence };
            match self.block_holding(release.addr, now).await? {
                Some(cidr) => blocks.entry(cidr).or_default().push(expected),
                None => result.not_held.push(release.addr),
            }
        }
        let mut failure = None;
        for (cidr, expected) in blocks {
            match self.release_in_block(&cidr, expected, now).await {
                Ok(Released { released, not_held }) => {
                    result.released.extend(released);
                    result.not_held.extend(not_held);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(result), Err)
    }

    /// Releases every address that a handle holds. A handle that does not exist holds nothing, and that is no error.
    ///
    /// # Errors
    /// When the store cannot be used, or a block cannot be read. The first error is returned, after every block was tried.
    pub async fn release_by_handle(&self, handle: &str, now: SystemTime) -> Result<Released, ReleaseError> {
        let handle = clean_handle(handle);
        let mut result = Released::default();
        let Some(counts) = self.read_handle(&handle).await?.value else { return Ok(result) };
        let mut failure = None;
        for cidr in counts.block.keys() {
            match self.release_handle_in_block(cidr, &handle, now).await {
                Ok(released) => result.released.extend(released),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(result), Err)
    }

    /// Frees what has cooled down in every block, and deletes blocks of nobody that are free then; returns how many addresses
    /// became free. Assigning does the same for the blocks it meets: this is for those that nothing is assigned from.
    /// Reads all blocks, or where a watch is [followed](Ipam::observe) only those in which addresses cool down.
    ///
    /// # Errors
    /// When the store cannot be used. A block that somebody else changes meanwhile is left to them.
    pub async fn free_cooled(&self, now: SystemTime) -> Result<usize, AccessError> {
        let cooldown = self.cooldown(now).await?;
        let mut freed = 0;
        for (cidr, read) in self.cooling_blocks(now).await? {
            let Some(block) = read.value.as_ref().filter(|block| block.cooling() > 0) else { continue };
            let thawed = block.thawed(now, cooldown);
            let count = thawed.free() - block.free();
            if count == 0 {
                continue;
            }
            let key = block_key(&cidr);
            let stored = read.put(key.clone(), to_json(&thawed));
            let write = if thawed.is_unused() { read.delete(key).unwrap_or(stored) } else { stored };
            if let Outcome::Done(_) = self.commit(vec![write], now).await? {
                self.cache().forget_block(&cidr);
                freed += count;
            }
        }
        Ok(freed)
    }

    /// Reads the blocks that may have cooling addresses. One that cannot be read is left out.
    async fn cooling_blocks(&self, now: SystemTime) -> Result<BTreeMap<Cidr, Versioned<Block>>, AccessError> {
        let cooling = Family::ALL.map(|family| self.cache().index.of(family).cooling());
        let [Some(v4), Some(v6)] = cooling else { return Ok(self.read_all_blocks().await?.0) };
        let cidrs = [v4, v6].concat();
        let mut blocks = BTreeMap::new();
        for (cidr, block) in cidrs.iter().zip(self.read_blocks(&cidrs, now).await) {
            match block {
                Ok(block) => drop(blocks.insert(*cidr, block)),
                Err(AccessError::Unreadable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(blocks)
    }

    /// Returns the addresses that a handle holds.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn addrs_by_handle(&self, handle: &str, now: SystemTime) -> Result<Vec<IpAddr>, AccessError> {
        let handle = clean_handle(handle);
        let Some(counts) = self.read_handle(&handle).await?.value else { return Ok(Vec::new()) };
        let cidrs: Vec<Cidr> = counts.block.into_keys().collect();
        let mut addrs = Vec::new();
        for block in self.read_blocks(&cidrs, now).await {
            let Some(block) = block?.value else { continue };
            let held = block.holders().filter(|(_, a)| a.handle_id.as_ref() == Some(&handle));
            addrs.extend(held.map(|(addr, _)| addr));
        }
        Ok(addrs)
    }

    /// Returns whose an address is, with what was noted at its assignment; `None` when nobody holds it.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn attributes(&self, addr: IpAddr, now: SystemTime) -> Result<Option<Assignment>, AccessError> {
        let Some(cidr) = self.block_holding(addr, now).await? else { return Ok(None) };
        let Some(block) = self.read_block(&cidr, now).await?.value else { return Ok(None) };
        let found = block.attributes_of(addr).map(|attributes| Assignment {
            addr,
            block: cidr,
            handle: attributes.handle_id.clone(),
            attributes: attributes.secondary.clone(),
            alternate: attributes.alternate.clone(),
            sequence: block.sequence_of(addr),
        });
        Ok(found)
    }

    /// Finds the block that holds an address: by its pool, and when it is in none, by looking at all blocks.
    pub(crate) async fn block_holding(
        &self,
        addr: IpAddr,
        now: SystemTime,
    ) -> Result<Option<Cidr>, AccessError> {
        if let Some(cidr) = self.settings_for_release(now).await?.block_of(addr) {
            return Ok(Some(cidr));
        }
        let listing = self.list(&blocks_prefix(Family::of(addr))).await?;
        let mut blocks = listing.entries.iter().filter_map(|entry| block_from_key(&entry.key));
        Ok(blocks.find(|cidr| cidr.contains(addr)))
    }

    async fn release_in_block(
        &self,
        cidr: &Cidr,
        mut expected: Vec<Expected>,
        now: SystemTime,
    ) -> Result<Released, ReleaseError> {
        let mut result = Released::default();
        while !expected.is_empty() {
            let rest = expected.split_off(expected.len().min(MAX_ADDRESSES));
            self.release_some(cidr, expected, &mut result, now).await?;
            expected = rest;
        }
        Ok(result)
    }

    async fn release_some(
        &self,
        cidr: &Cidr,
        mut expected: Vec<Expected>,
        result: &mut Released,
        now: SystemTime,
    ) -> Result<(), ReleaseError> {
        let cooldown = self.cooldown(now).await?;
        let mut last = None;
        let mut known = true;
        let mut handles_seen: BTreeSet<String> = BTreeSet::new();
        let mut attempts = self.attempts();
        for attempt in 0..MAX_ATTEMPTS {
            let block = if known { self.block(cidr, now).await? } else { self.read_block(cidr, now).await? };
            let Some(value) = &block.value else {
                for handle in &handles_seen {
                    self.recount(handle, cidr, now).await?;
                }
                result.not_held.extend(expected.iter().map(|expected| expected.addr));
                return Ok(());
            };
            let freed = match value.release(&expected, now, cooldown) {
                Ok(freed) => freed,
                // What is remembered may be older than what the caller knows.
                Err(_) if known => {
                    known = false;
                    continue;
                }
                Err(mismatch) => return Err(ReleaseError::Mismatch { block: *cidr, mismatch }),
            };
            if !freed.not_held.is_empty() && known {
                known = false;
                continue;
            }
            if freed.freed.is_empty() {
                // An attempt that failed half-way may have released them and not lowered the count.
                for handle in &handles_seen {
                    self.recount(handle, cidr, now).await?;
                }
                result.not_held.extend(&freed.not_held);
                return Ok(());
            }
            handles_seen.extend(freed.freed.iter().filter_map(|(_, handle)| handle.clone()));
            // From now on this release means these assignments: a retry must not free what was assigned since.
            for expected in &mut expected {
                expected.sequence = expected.sequence.or_else(|| value.sequence_of(expected.addr));
            }
            let handles = self.handles_of(value, &freed, attempt > 0).await?;
            let plan = plan_release(&block, &freed, &handles);
            match self.carry_out_release(cidr, plan, now).await? {
                None => {
                    result.released.extend(freed.freed.iter().map(|(addr, _)| *addr));
                    result.not_held.extend(&freed.not_held);
                    return Ok(());
                }
                Some(key) => last = Some(key),
            }
            attempts.pause().await;
        }
        let key = last.unwrap_or_else(|| block_key(cidr));
        Err(AccessError::Contended { key, attempts: MAX_ATTEMPTS }.into())
    }

    async fn release_handle_in_block(
        &self,
        cidr: &Cidr,
        handle: &str,
        now: SystemTime,
    ) -> Result<Vec<IpAddr>, ReleaseError> {
        let cooldown = self.cooldown(now).await?;
        let mut last = None;
        let mut attempts = self.attempts();
        for _ in 0..MAX_ATTEMPTS {
            let block = self.read_block(cidr, now).await?;
            let freed = block.value.as_ref().map(|value| value.release_handle(handle, now, cooldown));
            let Some(freed) = freed.filter(|freed| !freed.freed.is_empty()) else {
                self.recount(handle, cidr, now).await?;
                return Ok(Vec::new());
            };
            let handles = BTreeMap::from([(handle.to_owned(), self.read_handle(handle).await?)]);
            let plan = plan_release(&block, &freed, &handles);
            match self.carry_out_release(cidr, plan, now).await? {
                None => return Ok(freed.freed.into_iter().map(|(addr, _)| addr).collect()),
                Some(key) => last = Some(key),
            }
            attempts.pause().await;
        }
        let key = last.unwrap_or_else(|| block_key(cidr));
        Err(AccessError::Contended { key, attempts: MAX_ATTEMPTS }.into())
    }

    pub(crate) async fn cooldown(&self, now: SystemTime) -> Result<Duration, AccessError> {
        Ok(Duration::from_secs(self.settings_for_release(now).await?.config.ip_cooldown_seconds.into()))
    }

    /// Returns the handles of the freed addresses, from memory unless they must be read anew. No handle counts less than a
    /// block has: what is remembered of one that does is older than the block.
    async fn handles_of(
        &self,
        block: &Block,
        freed: &Freed,
        anew: bool,
    ) -> Result<BTreeMap<String, Versioned<StoredHandle>>, AccessError> {
        let mut handles = BTreeMap::new();
        for handle in freed.freed.iter().filter_map(|(_, handle)| handle.as_deref()) {
            let counted = |known: &Versioned<StoredHandle>| {
                known.value.as_ref().and_then(|counts| counts.block.get(&block.cidr())).copied().unwrap_or(0)
            };
            let known = self.cache().handle(handle);
            let known = known.filter(|known| !anew && counted(known) >= block.count_of(handle));
            let value = match known {
                Some(known) => known,
                None if calico_model::resource::block::handle_key(handle).is_none() => continue,
                None => self.read_handle(handle).await?,
            };
            handles.insert(handle.to_owned(), value);
        }
        Ok(handles)
    }

    /// Commits a release; returns the key that stood in the way, if one did.
    async fn carry_out_release(
        &self,
        cidr: &Cidr,
        plan: ReleasePlan,
        now: SystemTime,
    ) -> Result<Option<Key>, AccessError> {
        let ReleasePlan { writes, block, handles } = plan;
        match self.commit(writes, now).await? {
            Outcome::Done(revision) => {
                self.learn_release(cidr, block, handles, revision, now);
                Ok(None)
            }
            Outcome::Again(key) | Outcome::Unknown(key) => Ok(Some(key)),
        }
    }

    fn learn_release(
        &self,
        cidr: &Cidr,
        block: Option<Block>,
        handles: Vec<StoredHandle>,
        revision: Revision,
        now: SystemTime,
    ) {
        let in_order = self.store.atomicity() == Atomicity::InOrder;
        let mut cache = self.cache();
        for handle in handles {
            let id = handle.handle_id.clone();
            if in_order || handle.block.is_empty() {
                cache.forget_handle(&id);
            } else {
                cache.note_handle(&id, Versioned::at(handle, revision));
            }
        }
        match block {
            Some(block) if !in_order => cache.note_block(*cidr, &Versioned::at(block, revision), now),
            Some(_) => cache.forget_block(cidr),
            None => cache.note_block(*cidr, &Versioned::absent(), now),
        }
    }
}

/// One held address and what was noted when it was assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The address.
    pub addr: IpAddr,
    /// The block it is in.
    pub block: Cidr,
    /// The handle that holds it.
    pub handle: Option<String>,
    /// The notes on who has the address.
    pub attributes: BTreeMap<String, String>,
    /// The notes on who is to have it next, or had it before, while a virtual machine moves; mostly empty.
    pub alternate: BTreeMap<String, String>,
    /// When it was assigned, in the block's count of changes.
    pub sequence: Option<calico_model::SequenceNumber>,
}
