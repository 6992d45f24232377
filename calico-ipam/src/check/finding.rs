//! The things that can be wrong.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use calico_model::resource::ResourceKey;
use calico_model::resource::block::Owner;
use calico_model::{Cidr, NodeName, SequenceNumber};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Finding {
    /// An address is held, and its holder is gone. Mended by releasing it.
    LeakedAddress {
        /// The address.
        addr: IpAddr,
        /// The handle that holds it.
        handle: Option<String>,
        /// When it was assigned: what a release must present.
        sequence: Option<SequenceNumber>,
    },
    /// A handle counts other than what a block holds. Mended by counting again.
    SkewedHandle {
        /// The handle.
        handle: String,
        /// The block.
        block: Cidr,
        /// What the handle says.
        counted: u64,
        /// What the block says.
        held: u64,
    },
    /// An owner has an affinity to a block that does not exist or is another's. Mended by deleting it.
    StaleAffinity {
        /// The owner.
        owner: Owner,
        /// The block.
        block: Cidr,
    },
    /// A block says whose it is, and the owner does not have a confirmed affinity. Mended by confirming it.
    UnconfirmedBlock {
        /// The owner.
        owner: Owner,
        /// The block.
        block: Cidr,
    },
    /// A block is a node's that does not exist. Mended by taking it from the node; held addresses stay held.
    OrphanedBlock {
        /// The node.
        node: NodeName,
        /// The block.
        block: Cidr,
    },
    /// A block is nobody's and empty. Mended by deleting it.
    AbandonedBlock {
        /// The block.
        block: Cidr,
    },
    /// A block is marked as deleted and was left behind. Mended by deleting it.
    DeletedBlock {
        /// The block.
        block: Cidr,
    },
    /// Two blocks share addresses. For a person to solve.
    OverlappingBlocks {
        /// The larger block.
        outer: Cidr,
        /// The smaller block.
        inner: Cidr,
    },
    /// An address is held in two blocks at once. For a person to solve.
    HeldTwice {
        /// The address.
        addr: IpAddr,
        /// The larger block.
        outer: Cidr,
        /// The smaller block.
        inner: Cidr,
    },
    /// A block is in no pool. For a person to solve.
    OutsidePools {
        /// The block.
        block: Cidr,
    },
    /// A workload or node uses an address of a pool that is not assigned. For a person to solve.
    NotAssigned {
        /// The address.
        addr: IpAddr,
        /// Who uses it.
        user: String,
    },
    /// Several workloads or nodes use one address. For a person to solve, unless it goes by: an address may have two
    /// users while one takes over from the other.
    SharedAddress {
        /// The address.
        addr: IpAddr,
        /// Who uses it.
        users: BTreeSet<ResourceKey>,
    },
}

impl Finding {
    /// Reports whether [`Ipam::reclaim`](crate::Ipam::reclaim) mends it; otherwise it is for a person to solve.
    #[must_use]
    pub fn is_mendable(&self) -> bool {
        match self {
            Finding::LeakedAddress { .. }
            | Finding::SkewedHandle { .. }
            | Finding::StaleAffinity { .. }
            | Finding::UnconfirmedBlock { .. }
            | Finding::OrphanedBlock { .. }
            | Finding::AbandonedBlock { .. }
            | Finding::DeletedBlock { .. } => true,
            Finding::OverlappingBlocks { .. }
            | Finding::HeldTwice { .. }
            | Finding::OutsidePools { .. }
            | Finding::NotAssigned { .. }
            | Finding::SharedAddress { .. } => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::LeakedAddress { addr, handle: Some(handle), .. } => {
                write!(f, "{addr} is held by {handle:?}, whose user is gone")
            }
            Finding::LeakedAddress { addr, handle: None, .. } => {
                write!(f, "{addr} is held, and its user is gone")
            }
            Finding::SkewedHandle { handle, block, counted, held } => {
                write!(
                    f,
                    "handle {handle:?} counts {counted} addresses in block {block}, where it holds {held}"
                )
            }
            Finding::StaleAffinity { owner, block } => {
                write!(f, "{owner} has an affinity to block {block}, which is not its own")
            }
            Finding::UnconfirmedBlock { owner, block } => {
                write!(f, "block {block} is of {owner}, which has no confirmed affinity to it")
            }
            Finding::OrphanedBlock { node, block } => {
                write!(f, "block {block} is of node {node}, which does not exist")
            }
            Finding::AbandonedBlock { block } => write!(f, "block {block} is nobody's and empty"),
            Finding::DeletedBlock { block } => {
                write!(f, "block {block} is marked as deleted and still there")
            }
            Finding::OverlappingBlocks { outer, inner } => {
                write!(f, "blocks {outer} and {inner} share addresses")
            }
            Finding::HeldTwice { addr, outer, inner } => {
                write!(f, "{addr} is held twice: in block {outer} and in block {inner}")
            }
            Finding::OutsidePools { block } => write!(f, "block {block} is in no pool"),
            Finding::NotAssigned { addr, user } => write!(f, "{addr} is used by {user} and not allocated"),
            Finding::SharedAddress { addr, users } => {
                write!(f, "{addr} is used by several: ")?;
                for (index, user) in users.iter().enumerate() {
                    write!(f, "{}{user}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}
