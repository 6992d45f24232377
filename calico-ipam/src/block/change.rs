//! What happens to a block: it gets another owner, addresses are assigned and released, and cool down. Each change returns a
//! new block.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calico_model::resource::block::{Owner, StoredAttributes};
use calico_model::{Cidr, SequenceNumber, timestamp};
use serde_json::Map;

use super::{Block, WINDOWS_RESERVED, elapsed};

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

impl Block {
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
}
