//! Addresses that a host keeps from its workloads.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::block::{Block, Holder, WINDOWS_RESERVED};

/// How many addresses a host keeps for itself in each block that it claims, at the beginning and at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many at the beginning.
    pub first: usize,
    /// How many at the end.
    pub last: usize,
}

impl Kept {
    /// What a host keeps that runs Linux.
    pub const NONE: Kept = Kept { first: 0, last: 0 };

    /// What a Windows host keeps: its network, its gateway and its bridge at the beginning, the broadcast address at the
    /// end. Other hosts do not know of it when they borrow, so strict affinity belongs to it.
    pub const WINDOWS: Kept = Kept { first: 3, last: 1 };
}

impl Block {
    /// Returns the block with what its host keeps. It is held under [`WINDOWS_RESERVED`], which no handle counts.
    #[must_use]
    pub fn keeping(&self, kept: Kept, now: SystemTime) -> Self {
        if kept == Kept::NONE {
            return self.clone();
        }
        let attributes = BTreeMap::from([("note".to_owned(), "windows host rsvd".to_owned())]);
        let holder = Holder { handle: WINDOWS_RESERVED.to_owned(), attributes };
        let last = self.size().saturating_sub(kept.last);
        let ordinals = (0..self.size()).filter(|ordinal| *ordinal < kept.first || *ordinal >= last);
        ordinals.fold(self.clone(), |block, ordinal| {
            let held = block.assign_address(block.addr(ordinal), &holder, now, Duration::ZERO);
            held.unwrap_or(block)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_windows_host_keeps_the_first_three_and_the_last() {
        let now = SystemTime::UNIX_EPOCH;
        let block = Block::new("10.0.0.0/29".parse().unwrap(), Some("host:n".parse().unwrap()), now);
        let kept = block.keeping(Kept::WINDOWS, now);
        let free: Vec<String> = kept.free_addrs().map(|addr| addr.to_string()).collect();
        assert_eq!(free, ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert!(kept.is_empty(), "nobody uses the block");
        assert_eq!(kept.count_of(WINDOWS_RESERVED), 4);
        assert_eq!(kept.keeping(Kept::WINDOWS, now), kept, "what is held stays");
    }
}
