//! Which blocks of a family exist, and how far they are used: hints for finding the next one.
//!
//! The index answers "which block next?" without asking the datastore. It is never trusted: what it suggests is read, or
//! written under a precondition, before anything depends on it. It learns from every block that is read or written, from
//! a listing when probing has failed, and from a watch when somebody feeds one in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use calico_model::resource::IpPool;
use calico_model::resource::block::Owner;
use calico_model::{Cidr, Revision};
use serde::de::{IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};

use crate::block::{Block, WINDOWS_RESERVED};

/// An empty block of another host is taken over when it was claimed at least this long ago.
pub(crate) const TAKE_OVER_AFTER: Duration = Duration::from_secs(60);

/// What is known of a block that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hint {
    owner: Option<Owner>,
    /// Whether an address may be free or about to cool down.
    spare: bool,
    empty: bool,
    /// Whether an address cools down, or did when the block was last written.
    cooling: bool,
    /// From when on it may be taken over, if it is empty.
    old_from: SystemTime,
    revision: Revision,
}

/// The part of a stored block that a hint is made of; the rest is skipped.
#[derive(Deserialize)]
struct Glimpse {
    affinity: Option<Owner>,
    #[serde(rename = "affinity_claim_time")]
    claimed: Option<String>,
    unallocated: Vec<IgnoredAny>,
    #[serde(default)]
    attributes: Vec<AttributesGlimpse>,
    #[serde(default)]
    deleted: bool,
}

#[derive(Deserialize)]
struct AttributesGlimpse {
    #[serde(default)]
    handle_id: Option<IsWindows>,
    #[serde(default, rename = "releasedAt")]
    released: Option<IgnoredAny>,
}

/// Whether a handle is the one under which a Windows host keeps addresses. Listings have tens of thousands of handles, so
/// they are compared and not kept.
struct IsWindows(bool);

impl<'de> Deserialize<'de> for IsWindows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Self(false))
    }
}

impl Visitor<'_> for IsWindows {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a handle")
    }

    fn visit_str<E>(self, handle: &str) -> Result<Self, E> {
        Ok(Self(handle == WINDOWS_RESERVED))
    }
}

impl Hint {
    pub(crate) fn of(block: &Block, revision: Revision, now: SystemTime) -> Self {
        Self {
            owner: block.owner().cloned(),
            spare: block.held() < block.size(),
            empty: block.is_empty(),
            cooling: block.cooling() > 0,
            old_from: old_from(block.claimed(), now),
            revision,
        }
    }

    /// Reports whether an address may be free, or about to cool down.
    pub(crate) fn is_spare(&self) -> bool {
        self.spare
    }

    /// Reads as much of a stored block as a hint needs; `None` when it is marked as deleted. A block that cannot be read
    /// is one that has nothing to give.
    pub(crate) fn glimpse(value: &[u8], revision: Revision, now: SystemTime) -> Option<Self> {
        let Ok(glimpse) = serde_json::from_slice::<Glimpse>(value) else {
            let empty = false;
            return Some(Self { owner: None, spare: false, empty, cooling: false, old_from: now, revision });
        };
        let claimed = glimpse.claimed.as_deref().and_then(calico_model::timestamp::parse);
        let cooling = glimpse.attributes.iter().any(|attributes| attributes.released.is_some());
        let empty = glimpse.attributes.iter().all(|attributes| {
            attributes.released.is_some() || attributes.handle_id.as_ref().is_some_and(|handle| handle.0)
        });
        (!glimpse.deleted).then(|| Self {
            owner: glimpse.affinity,
            spare: !glimpse.unallocated.is_empty() || cooling,
            empty,
            cooling,
            old_from: old_from(claimed, now),
            revision,
        })
    }
}

/// A claim of unknown time is old, and so is one from the future by more than the age: some clock was wrong.
fn old_from(claimed: Option<SystemTime>, now: SystemTime) -> SystemTime {
    match claimed {
        Some(claimed) if !crate::block::elapsed(claimed, now, TAKE_OVER_AFTER) => claimed + TAKE_OVER_AFTER,
        Some(_) | None => now,
    }
}

/// A block to try next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guess {
    /// It does not exist, as far as is known.
    Absent(Cidr),
    /// It exists and is worth reading: the owner's own with space, or another's and empty.
    Present(Cidr),
}

/// The hints of one family.
#[derive(Debug, Default)]
pub(crate) struct Index {
    hints: BTreeMap<Cidr, Hint>,
    /// Whether a watch tells of every block.
    watched: bool,
}

impl Index {
    /// Notes what a block is now; an older note than is known is ignored.
    pub(crate) fn note(&mut self, cidr: Cidr, hint: Option<Hint>) {
        match hint {
            None => {
                self.hints.remove(&cidr);
            }
            Some(hint) => {
                if self.hints.get(&cidr).is_none_or(|known| known.revision <= hint.revision) {
                    self.hints.insert(cidr, hint);
                }
            }
        }
    }

    /// Replaces everything by a listing of all blocks.
    pub(crate) fn replace(&mut self, hints: BTreeMap<Cidr, Hint>) {
        self.hints = hints;
    }

    /// Notes whether a watch has told of every block there is, and will tell of every change.
    pub(crate) fn set_watched(&mut self, watched: bool) {
        self.watched = watched;
    }

    /// Returns the blocks in which addresses cool down; `None` when no watch tells of every block.
    pub(crate) fn cooling(&self) -> Option<Vec<Cidr>> {
        let cooling = self.hints.iter().filter(|(_, hint)| hint.cooling).map(|(cidr, _)| *cidr);
        self.watched.then(|| cooling.collect())
    }

    /// Reports whether a watch tells of every block; what is not known of is then likely not to exist.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched
    }

    /// Finds a block of a pool to claim or take over, walking from the `start`th with wrap-around.
    pub(crate) fn claimable(
        &self,
        pool: &IpPool,
        owner: &Owner,
        reserved: &[Cidr],
        start: u128,
        tried: &BTreeSet<Cidr>,
        now: SystemTime,
    ) -> Option<Guess> {
        let mut fallback = None;
        for cidr in walk(pool, reserved, start).filter(|cidr| !tried.contains(cidr)) {
            match self.hints.get(&cidr) {
                None => return Some(Guess::Absent(cidr)),
                Some(hint) if hint.owner.as_ref() == Some(owner) => {
                    if hint.spare {
                        return Some(Guess::Present(cidr));
                    }
                }
                Some(hint) if hint.empty && hint.old_from <= now && fallback.is_none() => {
                    fallback = Some(Guess::Present(cidr));
                }
                Some(_) => {}
            }
        }
        fallback
    }

    /// Walks the blocks of a pool that do not exist, as far as is known, from the `start`th with wrap-around.
    pub(crate) fn absent(&self, pool: &IpPool, reserved: &[Cidr], start: u128) -> impl Iterator<Item = Cidr> {
        walk(pool, reserved, start).filter(|cidr| !self.hints.contains_key(cidr))
    }

    /// Finds a block of a pool that has an address to spare, walking from the `start`th with wrap-around.
    pub(crate) fn lender(&self, pool: &IpPool, start: u128, tried: &BTreeSet<Cidr>) -> Option<Cidr> {
        let count = pool.cidr.subnet_count(pool.block_size)?;
        let first = pool.cidr.subnet(pool.block_size, start % count)?;
        let last = pool.cidr.subnet(pool.block_size, count - 1)?;
        let zero = pool.cidr.subnet(pool.block_size, 0)?;
        let lends = |(cidr, hint): (&Cidr, &Hint)| {
            (hint.spare && cidr.prefix_len() == pool.block_size && !tried.contains(cidr)).then_some(*cidr)
        };
        self.hints
            .range(first..=last)
            .find_map(lends)
            .or_else(|| self.hints.range(zero..first).find_map(lends))
    }
}

/// Walks the blocks of a pool from the `start`th with wrap-around, but for reserved ones.
fn walk(pool: &IpPool, reserved: &[Cidr], start: u128) -> impl Iterator<Item = Cidr> {
    let count = pool.cidr.subnet_count(pool.block_size).unwrap_or(0);
    let mut step = 0;
    std::iter::from_fn(move || {
        while step < count {
            let number = (start + step) % count;
            step += 1;
            let cidr = pool.cidr.subnet(pool.block_size, number)?;
            let Some(net) = reserved.iter().find(|net| net.covers(&cidr)) else { return Some(cidr) };
            // A reservation may cover more blocks than can be walked.
            step += block_number(pool, net).unwrap_or(count - 1) - number;
        }
        None
    })
}

/// Returns which block of a pool holds the last address of a network; `None` when that is outside of the pool.
pub(crate) fn block_number(pool: &IpPool, net: &Cidr) -> Option<u128> {
    Some(pool.cidr.index_of(net.last())? >> (pool.cidr.family().bits() - pool.block_size))
}

/// Returns where the search of a pool begins for an owner: the same place each time, and another for each owner, so that
/// hosts that start together do not meet (the FNV-1a hash of the name).
pub(crate) fn starting_point(owner: &Owner) -> u128 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in crate::error::owner_name(owner).as_str().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The low bits choose among few blocks, and names differ mostly in their last letter.
    u128::from(hash ^ (hash >> 32))
}
