//! Published generators for property tests (feature `strategies`).
//!
//! Blocks are tiny and so are their holders' names, so that operations collide.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::block::{Block, Expected, Holder};

const HANDLES: [&str; 3] = ["a", "b", "c"];

/// One operation on a block. Times go forth and, now and then, back.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Assigns up to this many addresses.
    Assign {
        /// How many.
        count: usize,
        /// Whose they are to be.
        holder: Holder,
    },
    /// Assigns the address of this ordinal.
    AssignAddress {
        /// The ordinal.
        ordinal: u8,
        /// Whose it is to be.
        holder: Holder,
    },
    /// Releases the address of this ordinal.
    Release {
        /// The ordinal.
        ordinal: u8,
    },
    /// Releases what a handle holds.
    ReleaseHandle {
        /// The handle.
        handle: String,
    },
    /// Lets time pass, in seconds; less than zero sets the clock back.
    Wait(i64),
}

/// Generates holders with few handles and notes.
pub fn holder() -> impl Strategy<Value = Holder> {
    (select(&HANDLES[..]), select(&["n1", "n2"][..])).prop_map(|(handle, node)| Holder {
        handle: handle.to_owned(),
        attributes: BTreeMap::from([("node".to_owned(), node.to_owned())]),
    })
}

/// Generates operations on blocks of eight addresses.
pub fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (1usize..4, holder()).prop_map(|(count, holder)| Operation::Assign { count, holder }),
        2 => (0u8..9, holder()).prop_map(|(ordinal, holder)| Operation::AssignAddress { ordinal, holder }),
        4 => (0u8..9).prop_map(|ordinal| Operation::Release { ordinal }),
        1 => select(&HANDLES[..]).prop_map(|handle| Operation::ReleaseHandle { handle: handle.to_owned() }),
        2 => (-40i64..40).prop_map(Operation::Wait),
    ]
}

/// Generates blocks of eight addresses as a history of operations leaves them.
pub fn block() -> impl Strategy<Value = Block> {
    let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    vec(operation(), 0..20).prop_map(move |operations| {
        let cidr = "10.0.0.0/29".parse().expect("a constant network");
        let owner = "host:n1".parse().expect("a constant owner");
        let empty = Block::new(cidr, Some(owner), start);
        let mut now = start;
        operations
            .iter()
            .fold(empty, |block, operation| apply(&block, operation, &mut now, Duration::from_secs(10)))
    })
}

/// Carries one operation out; one that is not possible changes nothing.
#[must_use]
pub fn apply(block: &Block, operation: &Operation, now: &mut SystemTime, cooldown: Duration) -> Block {
    let addr = |ordinal: u8| block.cidr().nth(ordinal.into());
    match operation {
        Operation::Assign { count, holder } => block.assign(*count, holder, &[], *now, cooldown).0,
        Operation::AssignAddress { ordinal, holder } => addr(*ordinal)
            .and_then(|addr| block.assign_address(addr, holder, *now, cooldown))
            .unwrap_or_else(|| block.clone()),
        Operation::Release { ordinal } => match addr(*ordinal) {
            Some(addr) => {
                let expected = [Expected { addr, handle: None, sequence: None }];
                block.release(&expected, *now, cooldown).map_or_else(|_| block.clone(), |freed| freed.block)
            }
            None => block.clone(),
        },
        Operation::ReleaseHandle { handle } => block.release_handle(handle, *now, cooldown).block,
        Operation::Wait(seconds) => {
            let by = Duration::from_secs(seconds.unsigned_abs());
            *now = if *seconds < 0 { *now - by } else { *now + by };
            block.clone()
        }
    }
}
