//! What can go wrong: one enum per family of operations.

use std::fmt;
use std::net::IpAddr;

use calico_model::datastore::{Key, StoreError};
use calico_model::resource::block::Owner;
use calico_model::{Cidr, Family, Name, NodeName};

use crate::block::Mismatch;

/// The datastore, or what it holds, stood in the way. Part of every family of errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The store could not be asked. Worth retrying.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored is not what the key promises.
    #[error("{key} cannot be used: {problem}")]
    Unreadable {
        /// Where it is stored.
        key: Key,
        /// What is wrong with it.
        problem: String,
    },
    /// Others changed the same data at every attempt. Worth retrying.
    #[error("gave up after {attempts} attempts: other writers changed {key} each time")]
    Contended {
        /// What was changed the last time.
        key: Key,
        /// How often it was tried.
        attempts: u32,
    },
    /// The store does not take the write at all.
    #[error("the datastore refused the write: {problem}")]
    Refused {
        /// Why.
        problem: String,
    },
    /// A handle that cannot be stored.
    #[error(
        "{handle:?} is not a handle: it must not be empty, contain '/' or a control character, or exceed 1000 bytes"
    )]
    InvalidHandle {
        /// The handle, cut at 80 characters.
        handle: String,
    },
}

/// Why a family of a request got fewer addresses than it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// The family.
    pub family: Family,
    /// Who asked.
    pub owner: Owner,
    /// How many addresses are missing.
    pub missing: usize,
    /// What stood in the way, pool by pool.
    pub pools: Vec<PoolShortage>,
}

/// Why one pool had no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolShortage {
    /// The pool.
    pub pool: Name,
    /// Its network.
    pub cidr: Cidr,
    /// How many blocks the pool has in all.
    pub blocks: u128,
    /// What stood in the way.
    pub reasons: Vec<Reason>,
}

/// One thing that stood in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// This many blocks have no address for this host.
    BlocksFull(u128),
    /// This many blocks are wholly reserved.
    BlocksReserved(u128),
    /// Addresses may only come from the host's own blocks.
    StrictAffinity,
    /// Hosts may not claim blocks by themselves.
    NoAutoAllocation,
    /// The host has as many blocks as it may have.
    BlockLimit(u32),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::BlocksFull(1) => f.write_str("1 block full"),
            Reason::BlocksFull(n) => write!(f, "{} blocks full", grouped(*n)),
            Reason::BlocksReserved(1) => f.write_str("1 block reserved"),
            Reason::BlocksReserved(n) => write!(f, "{} blocks reserved", grouped(*n)),
            Reason::StrictAffinity => f.write_str("strict affinity on"),
            Reason::NoAutoAllocation => f.write_str("automatic block allocation off"),
            Reason::BlockLimit(1) => f.write_str("the limit of 1 block per host is reached"),
            Reason::BlockLimit(n) => write!(f, "the limit of {n} blocks per host is reached"),
        }
    }
}

/// Writes a number with commas: `1,024`.
fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn owner_name(owner: &Owner) -> &NodeName {
    match owner {
        Owner::Host(name) | Owner::Virtual(name) => name,
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, shortage) in self.pools.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let name = owner_name(&self.owner);
            write!(f, "{separator}pool {} has no free address for {name}: ", shortage.pool)?;
            for (index, reason) in shortage.reasons.iter().enumerate() {
                write!(f, "{}{reason}", if index == 0 { "" } else { ", " })?;
            }
        }
        Ok(())
    }
}

/// An assignment that did not happen.
///
/// After [`AssignError::Access`] some addresses may have been assigned before the datastore went away: release the
/// handle, or try again with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssignError {
    /// No pool may serve the request at all.
    #[error("no pool serves {family} requests of {node}: {}", problems.join("; "))]
    NoPool {
        /// The family.
        family: Family,
        /// Who asked.
        node: NodeName,
        /// Why not, pool by pool.
        problems: Vec<String>,
    },
    /// A pool that the request names does not exist.
    #[error("there is no pool {pool}: {remedy}")]
    UnknownPool {
        /// The name or network asked for.
        pool: String,
        /// What could be named instead.
        remedy: String,
    },
    /// A pool that the request names is disabled.
    #[error("pool {pool} is disabled: enable it or name another")]
    PoolDisabled {
        /// The pool.
        pool: Name,
    },
    /// A pool that the request names is of another family than the request.
    #[error("pool {pool} ({cidr}) is not an {family} pool")]
    PoolFamily {
        /// The pool.
        pool: Name,
        /// Its network.
        cidr: Cidr,
        /// The family asked for.
        family: Family,
    },
    /// The pools are full, for this host. Nothing was assigned.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Exhausted(Vec<Shortage>),
    /// The address asked for is held already.
    #[error("address {addr} is in use{}", match handle { Some(handle) => format!(" by {handle:?}"), None => String::new() })]
    InUse {
        /// The address.
        addr: IpAddr,
        /// The handle that holds it, when it has one.
        handle: Option<String>,
    },
    /// The address asked for was released a moment ago.
    #[error("address {addr} was released less than {seconds} seconds ago")]
    CoolingDown {
        /// The address.
        addr: IpAddr,
        /// How long it cools down.
        seconds: u32,
    },
    /// No enabled pool holds the address asked for.
    #[error("address {addr} is not in an enabled pool{}", match pool { Some(pool) => format!(": pool {pool} is disabled"), None => String::new() })]
    NotInPool {
        /// The address.
        addr: IpAddr,
        /// The disabled pool that holds it.
        pool: Option<Name>,
    },
    /// The pool of the address asked for does not serve this use.
    #[error("address {addr} is in pool {pool}, which is not for {wanted}")]
    UseNotAllowed {
        /// The address.
        addr: IpAddr,
        /// Its pool.
        pool: Name,
        /// The use asked for.
        wanted: String,
    },
    /// The address asked for is in another host's block, and addresses may only come from own blocks.
    #[error("address {addr} is in block {block} of {owner}, and strict affinity is on")]
    StrictAffinity {
        /// The address.
        addr: IpAddr,
        /// Its block.
        block: Cidr,
        /// Whose the block is.
        owner: String,
    },
    /// The handle has addresses, and the request is only for one that has none.
    #[error("handle {handle:?} has addresses already")]
    HandleInUse {
        /// The handle.
        handle: String,
    },
    /// The datastore, or what it holds, stood in the way.
    #[error(transparent)]
    Access(#[from] AccessError),
}

impl From<StoreError> for AssignError {
    fn from(error: StoreError) -> Self {
        AssignError::Access(error.into())
    }
}

/// A release that did not happen, or not wholly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// An address is not held as the release expects. Nothing of its block was released.
    #[error("block {block}: {mismatch}")]
    Mismatch {
        /// The block.
        block: Cidr,
        /// Which expectation does not hold.
        mismatch: Mismatch,
    },
    /// The datastore, or what it holds, stood in the way.
    #[error(transparent)]
    Access(#[from] AccessError),
}

impl From<StoreError> for ReleaseError {
    fn from(error: StoreError) -> Self {
        ReleaseError::Access(error.into())
    }
}

/// A claim or release of blocks that did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AffinityError {
    /// No pool holds the network.
    #[error("{cidr} is not in a pool, or is smaller than a block of its pool")]
    NotInPool {
        /// The network.
        cidr: Cidr,
    },
    /// Another owner has the block.
    #[error("block {block} belongs to {owner}")]
    OwnedByOther {
        /// The block.
        block: Cidr,
        /// Whose it is.
        owner: String,
    },
    /// The block has addresses in use, and only an empty one was to be released.
    #[error("block {block} of {} has {held} addresses in use", match owner { Some(owner) => owner.to_string(), None => "nobody".to_owned() })]
    NotEmpty {
        /// The block.
        block: Cidr,
        /// Whose it is; a block of nobody has its holders still.
        owner: Option<Owner>,
        /// How many addresses are held.
        held: usize,
    },
    /// The network holds more blocks than one call takes.
    #[error("{cidr} holds {blocks} blocks, and one call takes at most {limit}: name a smaller network")]
    TooLarge {
        /// The network.
        cidr: Cidr,
        /// How many blocks it holds.
        blocks: u128,
        /// How many one call takes.
        limit: u128,
    },
    /// The datastore, or what it holds, stood in the way.
    #[error(transparent)]
    Access(#[from] AccessError),
}

impl From<StoreError> for AffinityError {
    fn from(error: StoreError) -> Self {
        AffinityError::Access(error.into())
    }
}

/// A configuration that is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The settings contradict one another.
    #[error("the IPAM configuration is not sound: {problem}")]
    Unsound {
        /// What is wrong and what to do about it.
        problem: String,
    },
    /// The datastore, or what it holds, stood in the way.
    #[error(transparent)]
    Access(#[from] AccessError),
}

impl From<StoreError> for ConfigError {
    fn from(error: StoreError) -> Self {
        ConfigError::Access(error.into())
    }
}
