//! The algebra of one block: which of its addresses are free, held or cooling down.
//!
//! ```text
//!           assign                release (cool-down > 0)
//!   free ───────────▶ held ─────────────────────────────────▶ cooling
//!    ▲                 │ release (no cool-down)                  │ time passes; seen by the next assign
//!    └─────────────────┴─────────────────────────────────────────┘
//! ```
//!
//! Every method takes the time and returns a *new* block: a loaded block is never changed before the write that carries
//! it. The free addresses form a queue, so the one that has been free longest is assigned next. Each change raises the
//! block's sequence number, and each held address remembers the number it was assigned at; a release that presents
//! an older number means an assignment that is over, and frees nothing. Held, cooling and free addresses always add up to the block.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calico_model::resource::block::{Owner, StoredAttributes, StoredBlock};
use calico_model::{Cidr, NodeName, SequenceNumber, timestamp};
use serde_json::{Map, Value};

/// The handle of the addresses that Calico on a Windows host keeps from workloads, the first three and the last of each of
/// its blocks. They are made with the block, no handle's count has them, and they say nothing about the block's use.
pub const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";

/// Stored data that contradicts itself and is therefore not used as a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block {cidr} is damaged: {problem}")]
pub struct DamagedBlock {
    /// The block.
    pub cidr: Cidr,
    /// Which rule it breaks.
    pub problem: String,
}

/// Whose an address is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The handle it can be released by.
    pub handle: String,
    /// Notes: `node`, `pod`, `namespace`, `type`, ...
    pub attributes: BTreeMap<String, String>,
}

/// What must be true of an address for its release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The address.
    pub addr: IpAddr,
    /// The handle that must hold it, when that matters.
    pub handle: Option<String>,
    /// The sequence number it must have been assigned at, when that matters.
    pub sequence: Option<SequenceNumber>,
}

/// A release whose expectation does not hold: the address is somebody else's by now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// Another handle holds the address.
    #[error("{addr} is held by {actual:?}, not by {expected:?}")]
    Handle {
        /// The address.
        addr: IpAddr,
        /// The handle that the release named.
        expected: String,
        /// The handle that holds the address, when it has one.
        actual: Option<String>,
    },
    /// The address was never assigned at this number, as far as its block tells: an older number would mean an assignment
    /// that is over, which is no error.
    #[error("{addr} was not assigned at sequence number {expected}: it is held since {}",
        match actual { Some(actual) => actual.to_string(), None => "an unknown one".to_owned() })]
    Sequence {
        /// The address.
        addr: IpAddr,
        /// The number that the release presented.
        expected: SequenceNumber,
        /// The number of the address's present assignment, when it has one.
        actual: Option<SequenceNumber>,
    },
}

/// What a release did to a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freed {
    /// The block afterwards.
    pub block: Block,
    /// The addresses that were held and are not any more, with the handle that held them.
    pub freed: Vec<(IpAddr, Option<String>)>,
    /// The addresses that nobody held, or whose assignment was over and that are held anew.
    pub not_held: Vec<IpAddr>,
}

/// One block of addresses.
///
/// # Examples
/// ```
/// use calico_ipam::{Block, Holder};
/// use std::time::{Duration, SystemTime};
///
/// let block = Block::new("10.0.0.0/30".parse()?, Some("host:node1".parse()?), SystemTime::UNIX_EPOCH);
/// let holder = Holder { handle: "pod-1".into(), attributes: Default::default() };
/// let (block, addrs) = block.assign(2, &holder, &[], SystemTime::UNIX_EPOCH, Duration::ZERO);
/// assert_eq!(addrs, ["10.0.0.0".parse::<std::net::IpAddr>()?, "10.0.0.1".parse()?]);
/// assert_eq!((block.held(), block.free()), (2, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    cidr: Cidr,
    owner: Option<Owner>,
    claimed: Option<Arc<str>>,
    /// For each ordinal, which of the attributes it has; `None` is free.
    slots: Vec<Option<u16>>,
    /// The free ordinals, the one that is free longest first.
    queue: Vec<u16>,
    attributes: Vec<Arc<StoredAttributes>>,
    sequence: SequenceNumber,
    sequences: Vec<Option<SequenceNumber>>,
    deleted: bool,
    unknown: Arc<Map<String, Value>>,
}

impl Block {
    /// Makes an empty block, claimed now when it has an owner.
    ///
    /// The sequence number starts at the time in nanoseconds, so that a block that is deleted and made again does not
    /// repeat one.
    #[must_use]
    pub fn new(cidr: Cidr, owner: Option<Owner>, now: SystemTime) -> Self {
        let size = size_of(&cidr).unwrap_or(0);
        let nanos = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos();
        Self {
            cidr,
            claimed: owner.is_some().then(|| timestamp::format(now).into()),
            owner,
            slots: vec![None; size],
            queue: (0..size).filter_map(|ordinal| u16::try_from(ordinal).ok()).collect(),
            attributes: Vec::new(),
            sequence: SequenceNumber(u64::try_from(nanos).unwrap_or(u64::MAX / 2)),
            sequences: vec![None; size],
            deleted: false,
            unknown: Arc::default(),
        }
    }

    /// Returns the network.
    #[must_use]
    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// Returns who the block belongs to.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Returns how many addresses the block has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.slots.len()
    }

    /// Returns how many addresses are free, the reserved among them included.
    #[must_use]
    pub fn free(&self) -> usize {
        self.queue.len()
    }

    /// Returns how many addresses are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.size() - self.free() - self.cooling()
    }

    /// Returns how many addresses cool down: neither held nor free.
    #[must_use]
    pub fn cooling(&self) -> usize {
        if self.attributes.iter().all(|attributes| attributes.released_at.is_none()) {
            return 0;
        }
        self.slots.iter().flatten().filter(|index| self.is_cooling(**index)).count()
    }

    /// Reports whether nobody holds an address. Cooling addresses do not count, nor do those [`WINDOWS_RESERVED`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let held = self.held();
        held == 0 || self.count_of(WINDOWS_RESERVED) == held as u64
    }

    /// Reports whether a block serves nobody any more: it has no owner, nobody holds an address, and none cools down.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.owner.is_none() && self.is_empty() && self.cooling() == 0
    }

    /// Returns the number that the next change exceeds.
    #[must_use]
    pub fn sequence(&self) -> SequenceNumber {
        self.sequence
    }

    /// Returns the sequence number at which a held address was assigned.
    #[must_use]
    pub fn sequence_of(&self, addr: IpAddr) -> Option<SequenceNumber> {
        let ordinal = self.ordinal(addr)?;
        self.holder(ordinal)?;
        self.sequences[ordinal]
    }

    /// Returns whose a held address is.
    #[must_use]
    pub fn attributes_of(&self, addr: IpAddr) -> Option<&StoredAttributes> {
        self.holder(self.ordinal(addr)?)
    }

    /// Walks the held addresses with whose they are.
    pub fn holders(&self) -> impl Iterator<Item = (IpAddr, &StoredAttributes)> {
        (0..self.size()).filter_map(|ordinal| Some((self.addr(ordinal), self.holder(ordinal)?)))
    }

    /// Walks the free addresses, the one that is free longest first.
    pub fn free_addrs(&self) -> impl Iterator<Item = IpAddr> {
        self.queue.iter().map(|ordinal| self.addr(usize::from(*ordinal)))
    }

    /// Returns how many addresses a handle holds.
    #[must_use]
    pub fn count_of(&self, handle: &str) -> u64 {
        self.holders().filter(|(_, attributes)| attributes.handle_id.as_deref() == Some(handle)).count()
            as u64
    }

    /// Walks the held addresses that live on other nodes than the block's owner, each with its node.
    pub fn borrowed(&self) -> impl Iterator<Item = (IpAddr, NodeName)> {
        let host = self.owner.as_ref().and_then(Owner::host);
        self.holders().filter_map(move |(addr, attributes)| {
            let node: NodeName = attributes.secondary.get("node")?.parse().ok()?;
            (Some(&node) != host).then_some((addr, node))
        })
    }

    /// Returns when the block was claimed, when that is known.
    #[must_use]
    pub fn claimed(&self) -> Option<SystemTime> {
        timestamp::parse(self.claimed.as_deref()?)
    }

    /// Reports whether a claim is older than `age`, so that an empty block may be taken over. A claim of unknown time is
    /// old, and so is one from the future by more than `age`: some clock was wrong.
    #[must_use]
    pub fn claimed_before(&self, now: SystemTime, age: Duration) -> bool {
        self.claimed().is_none_or(|claimed| elapsed(claimed, now, age))
    }

    /// Returns the block in the hands of another owner, or of nobody. What a former owner kept for itself is free for the
    /// next one.
    #[must_use]
    pub fn with_owner(&self, owner: Option<Owner>, now: SystemTime) -> Self {
        let mut block = match &owner {
            Some(_) if owner != self.owner => {
                self.release_handle(WINDOWS_RESERVED, now, Duration::ZERO).block
            }
            _ => self.clone(),
        };
        block.claimed = owner.is_some().then(|| timestamp::format(now).into());
        block.owner = owner;
        block.sequence = block.sequence.next();
        // An older form of the owner that another Calico would believe.
        if block.unknown.contains_key("hostAffinity") {
            Arc::make_mut(&mut block.unknown).remove("hostAffinity");
        }
        block
    }

    /// Assigns up to `count` addresses, those that have been free longest first, and returns them with the new block.
    /// Addresses inside `reserved` are passed over and keep their place. Addresses that have cooled down are free.
    #[must_use]
    pub fn assign(
        &self,
        count: usize,
        holder: &Holder,
        reserved: &[Cidr],
        now: SystemTime,
        cooldown: Duration,
    ) -> (Self, Vec<IpAddr>) {
        let mut block = self.thawed(now, cooldown);
        let reserved: Vec<&Cidr> = reserved.iter().filter(|net| net.overlaps(&block.cidr)).collect();
        let mut chosen = Vec::new();
        let mut kept = Vec::with_capacity(block.queue.len());
        for ordinal in &block.queue {
            let free = chosen.len() < count && {
                let addr = block.addr(usize::from(*ordinal));
                !reserved.iter().any(|net| net.contains(addr))
            };
            if free { chosen.push(*ordinal) } else { kept.push(*ordinal) }
        }
        if chosen.is_empty() {
            return (block, Vec::new());
        }
        block.queue = kept;
        block.hold(&chosen, holder);
        let addrs = chosen.iter().map(|ordinal| block.addr(usize::from(*ordinal))).collect();
        (block, addrs)
    }

    /// Assigns one given address; `None` when it is held, cooling down or not in the block.
    #[must_use]
    pub fn assign_address(
        &self,
        addr: IpAddr,
        holder: &Holder,
        now: SystemTime,
        cooldown: Duration,
    ) -> Option<Self> {
        let ordinal = self.ordinal(addr)?;
        let mut block = self.thawed(now, cooldown);
        let place = block.queue.iter().position(|free| usize::from(*free) == ordinal)?;
        let ordinal = block.queue.remove(place);
        block.hold(&[ordinal], holder);
        Some(block)
    }

    /// Releases addresses: all whose expectation holds, or none. Addresses that nobody holds are reported and no error; so
    /// are those that were assigned anew since, which the sequence number tells: the assignment that is meant is over.
    ///
    /// # Errors
    /// When another handle holds one of the addresses, or it has no number or an older one than expected.
    pub fn release(
        &self,
        expected: &[Expected],
        now: SystemTime,
        cooldown: Duration,
    ) -> Result<Freed, Mismatch> {
        let (mut ordinals, mut not_held) = (Vec::new(), Vec::new());
        for Expected { addr, handle, sequence } in expected {
            let held = self.ordinal(*addr).and_then(|ordinal| Some((ordinal, self.holder(ordinal)?)));
            let Some((ordinal, attributes)) = held else {
                not_held.push(*addr);
                continue;
            };
            // Numbers grow, and one is given up only by a release.
            if self.sequences[ordinal].zip(*sequence).is_some_and(|(actual, meant)| meant < actual) {
                not_held.push(*addr);
                continue;
            }
            if let Some(expected) =
                handle.as_ref().filter(|handle| attributes.handle_id.as_ref() != Some(handle))
            {
                let (expected, actual) = (expected.clone(), attributes.handle_id.clone());
                return Err(Mismatch::Handle { addr: *addr, expected, actual });
            }
            if let Some(expected) = sequence.filter(|sequence| self.sequences[ordinal] != Some(*sequence)) {
                return Err(Mismatch::Sequence { addr: *addr, expected, actual: self.sequences[ordinal] });
            }
            if !ordinals.contains(&ordinal) {
                ordinals.push(ordinal);
            }
        }
        Ok(self.free_ordinals(&ordinals, not_held, now, cooldown))
    }

    /// Releases every address that a handle holds.
    #[must_use]
    pub fn release_handle(&self, handle: &str, now: SystemTime, cooldown: Duration) -> Freed {
        let holds = |attributes: &StoredAttributes| attributes.handle_id.as_deref() == Some(handle);
        let ordinals: Vec<usize> =
            (0..self.size()).filter(|ordinal| self.holder(*ordinal).is_some_and(holds)).collect();
        self.free_ordinals(&ordinals, Vec::new(), now, cooldown)
    }

    /// Returns the block with every address that has cooled down free again.
    #[must_use]
    pub fn thawed(&self, now: SystemTime, cooldown: Duration) -> Self {
        let mut block = self.clone();
        if self.cooling() == 0 {
            return block;
        }
        let mut cold: Vec<(SystemTime, u16)> = Vec::new();
        for (ordinal, slot) in (0u16..).zip(&self.slots) {
            let released = slot.and_then(|index| self.attributes[usize::from(index)].released_at.as_deref());
            // A time that cannot be read would never end.
            let released = released.map(|text| timestamp::parse(text).unwrap_or(UNIX_EPOCH));
            if let Some(released) = released.filter(|released| elapsed(*released, now, cooldown)) {
                cold.push((released, ordinal));
            }
        }
        cold.sort_unstable();
        for (_, ordinal) in cold {
            block.slots[usize::from(ordinal)] = None;
            block.queue.push(ordinal);
        }
        block.drop_unused_attributes();
        block
    }

    fn hold(&mut self, ordinals: &[u16], holder: &Holder) {
        let attributes = StoredAttributes {
            handle_id: Some(holder.handle.clone()),
            secondary: holder.attributes.clone(),
            alternate: BTreeMap::new(),
            released_at: None,
            unknown: Map::new(),
        };
        let index = self.intern(attributes);
        self.sequence = self.sequence.next();
        for ordinal in ordinals {
            let ordinal = usize::from(*ordinal);
            self.slots[ordinal] = Some(index);
            self.sequences[ordinal] = Some(self.sequence);
        }
    }

    fn free_ordinals(
        &self,
        ordinals: &[usize],
        not_held: Vec<IpAddr>,
        now: SystemTime,
        cooldown: Duration,
    ) -> Freed {
        let mut block = self.clone();
        let mut freed = Vec::with_capacity(ordinals.len());
        if ordinals.is_empty() {
            return Freed { block, freed, not_held };
        }
        block.sequence = block.sequence.next();
        let cooling = (!cooldown.is_zero()).then(|| {
            block.intern(StoredAttributes {
                handle_id: None,
                secondary: BTreeMap::new(),
                alternate: BTreeMap::new(),
                released_at: Some(timestamp::format(now)),
                unknown: Map::new(),
            })
        });
        for ordinal in ordinals {
            let handle = self.holder(*ordinal).and_then(|attributes| attributes.handle_id.clone());
            freed.push((self.addr(*ordinal), handle));
            block.sequences[*ordinal] = None;
            block.slots[*ordinal] = cooling;
            if cooling.is_none() {
                block.queue.extend(u16::try_from(*ordinal));
            }
        }
        block.drop_unused_attributes();
        Freed { block, freed, not_held }
    }

    /// Returns the index of an entry with these attributes, adding one when there is none.
    fn intern(&mut self, attributes: StoredAttributes) -> u16 {
        let known = self.attributes.iter().position(|known| **known == attributes);
        let index = known.unwrap_or_else(|| {
            self.attributes.push(Arc::new(attributes));
            self.attributes.len() - 1
        });
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    fn drop_unused_attributes(&mut self) {
        let mut used = vec![false; self.attributes.len()];
        for index in self.slots.iter().flatten() {
            used[usize::from(*index)] = true;
        }
        if used.iter().all(|used| *used) {
            return;
        }
        let mut next = 0;
        let renumbered: Vec<u16> = used
            .iter()
            .map(|used| {
                if *used {
                    next += 1;
                    next - 1
                } else {
                    0
                }
            })
            .collect();
        let mut used = used.into_iter();
        self.attributes.retain(|_| used.next().unwrap_or(false));
        for index in self.slots.iter_mut().flatten() {
            *index = renumbered[usize::from(*index)];
        }
    }

    fn is_cooling(&self, index: u16) -> bool {
        self.attributes[usize::from(index)].released_at.is_some()
    }

    fn holder(&self, ordinal: usize) -> Option<&StoredAttributes> {
        let attributes = &self.attributes[usize::from((*self.slots.get(ordinal)?)?)];
        attributes.released_at.is_none().then_some(attributes)
    }

    fn ordinal(&self, addr: IpAddr) -> Option<usize> {
        usize::try_from(self.cidr.index_of(addr)?).ok().filter(|ordinal| *ordinal < self.size())
    }

    pub(crate) fn addr(&self, ordinal: usize) -> IpAddr {
        self.cidr.nth(ordinal as u128).unwrap_or_else(|| self.cidr.addr())
    }
}

/// Reports whether `wait` has passed since `then`, also when the clock was set back by more than `wait` in between.
pub(crate) fn elapsed(then: SystemTime, now: SystemTime, wait: Duration) -> bool {
    match now.duration_since(then) {
        Ok(passed) => passed >= wait,
        Err(ahead) => ahead.duration() > wait,
    }
}

/// Returns how many addresses a block of this network has; `None` when it is too large for a block.
fn size_of(cidr: &Cidr) -> Option<usize> {
    let bits = cidr.family().bits() - cidr.prefix_len();
    (bits <= 12).then(|| 1 << bits)
}

impl TryFrom<StoredBlock> for Block {
    type Error = DamagedBlock;

    fn try_from(stored: StoredBlock) -> Result<Self, DamagedBlock> {
        let cidr = stored.cidr;
        let damaged = |problem: String| DamagedBlock { cidr, problem };
        let size = size_of(&cidr).ok_or_else(|| damaged("it is larger than a block can be".to_owned()))?;
        if stored.allocations.len() != size {
            let problem = format!("it has {size} addresses, but says what {} are", stored.allocations.len());
            return Err(damaged(problem));
        }
        let mut free: Vec<bool> = stored.allocations.iter().map(Option::is_none).collect();
        for index in stored.allocations.iter().flatten() {
            if *index >= stored.attributes.len().min(usize::from(u16::MAX)) {
                return Err(damaged(format!("an address has attributes {index}, which do not exist")));
            }
        }
        for ordinal in &stored.unallocated {
            if !free.get_mut(*ordinal).is_some_and(std::mem::take) {
                return Err(damaged(format!("address {ordinal} is queued as free and is not, or twice")));
            }
        }
        if let Some(ordinal) = free.iter().position(|free| *free) {
            return Err(damaged(format!("address {ordinal} is neither allocated nor queued as free")));
        }
        let mut sequences = vec![None; size];
        for (ordinal, sequence) in &stored.sequence_number_for_allocation {
            let slot = ordinal.parse().ok().and_then(|ordinal: usize| sequences.get_mut(ordinal));
            *slot.ok_or_else(|| damaged(format!("{ordinal:?} has a sequence number and is no address")))? =
                Some(*sequence);
        }
        let narrow = |ordinal: usize| u16::try_from(ordinal).unwrap_or(u16::MAX);
        Ok(Self {
            cidr,
            owner: stored.affinity,
            claimed: stored.affinity_claim_time.map(Into::into),
            slots: stored.allocations.into_iter().map(|slot| slot.map(narrow)).collect(),
            queue: stored.unallocated.into_iter().map(narrow).collect(),
            attributes: stored.attributes.into_iter().map(Arc::new).collect(),
            sequence: stored.sequence_number,
            sequences,
            deleted: stored.deleted,
            unknown: Arc::new(stored.unknown),
        })
    }
}

impl From<&Block> for StoredBlock {
    fn from(block: &Block) -> Self {
        Self {
            cidr: block.cidr,
            affinity: block.owner.clone(),
            affinity_claim_time: block.claimed.as_deref().map(str::to_owned),
            allocations: block.slots.iter().map(|slot| slot.map(usize::from)).collect(),
            unallocated: block.queue.iter().copied().map(usize::from).collect(),
            attributes: block.attributes.iter().map(|attributes| (**attributes).clone()).collect(),
            sequence_number: block.sequence,
            sequence_number_for_allocation: (0..)
                .zip(&block.sequences)
                .filter_map(|(ordinal, sequence): (usize, _)| Some((ordinal.to_string(), (*sequence)?)))
                .collect(),
            deleted: block.deleted,
            unknown: (*block.unknown).clone(),
        }
    }
}
