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

mod change;
mod stored;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calico_model::resource::block::{Owner, StoredAttributes};
use calico_model::{Cidr, NodeName, SequenceNumber, timestamp};
use serde_json::{Map, Value};

pub use change::{Expected, Freed, Holder, Mismatch};
pub use stored::DamagedBlock;

/// The handle of the addresses that Calico on a Windows host keeps from workloads, the first three and the last of each of
/// its blocks. They are made with the block, no handle's count has them, and they say nothing about the block's use.
pub const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";

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
