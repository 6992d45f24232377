//! **Which address**: IP address management over any [`calico_model::Datastore`].
//!
//! Pools are cut into *blocks*. A host claims a block and then assigns from it without asking anybody; its routes are
//! one per block. [`Ipam`] is the whole of it: assign, release, claim, give back.
//!
//! - **An address has one holder.** Every write names the revision of what it replaces. What was decided from old
//!   knowledge fails as a conflict, is read again and decided again.
//! - **A crash loses nothing.** The writes of a commit are ordered so that every prefix is safe, whether the store is
//!   atomic or applies in order; the next operation finishes or undoes what was begun.
//! - **A late release frees nobody else's address**: it presents the sequence number of its assignment.
//! - **Deciding is pure.** [`Block`] and [`plan`](mod@plan) take the time and what was read, and return what to write.
//!
//! The data is that of Calico (`/calico/ipam/v2/...`), so another Calico on the same datastore agrees. Where its behaviour
//! surprises, or has defects, this crate differs:
//!
//! - No block limit is no limit. Calico stops at 20 blocks for each host unless told otherwise.
//! - A host that has reached its limit, or may not borrow, is told so, pool by pool, in the error.
//! - Finding a block reads neither all of the cluster's nor one after the other, and takes two round trips: eight that may
//!   be absent are read at once, and only when none is are the family's listed. What a watch tells saves both.
//! - Assigning a given address is tried again when its block is claimed by another host at that moment; Calico means to
//!   and does not. A conflict there leaves no handle counting too much.
//! - A handle counts what was assigned, not what was asked for.
//! - A release whose sequence number is older than that of the present assignment has happened already, whoever heard of
//!   it: the address counts as not held, and the rest of its block is released. Calico fails the whole block.
//! - A [`Block`] is changed as a copy: an assignment that fails has not touched a sequence number.
//! - Borrowing reads only blocks that may have space, and not one after the other through the whole pool.
//! - The index of what blocks there are is one map, by block, from which a deleted block is gone. (Calico's resolver of routes
//!   keeps an entry for every node that ever was.)
//!
//! Calico's `UpgradeHost` has no counterpart: it puts labels on the BlockAffinity objects of the Kubernetes API, by which a host's
//! are then found. Here, as in Calico's own etcd, they are found by their keys, which begin with the host.
//!
//! Every address of a block is assigned, its first and its last too. An address of a pool that a host has itself is to be
//! reserved by an IPReservation; what a Windows host needs of its blocks is kept by [`Ipam::keeping`]. An address may have two
//! endpoints for a moment, and is leaked when the last has gone. A pod that has finished holds no address any more: releasing
//! it again later, by its handle and sequence number, takes nothing from whoever has the address then.
//!
//! ```
//! use calico_ipam::{AutoAssign, Ipam};
//! use calico_model::datastore::{Precondition, Write};
//! use calico_model::resource::{Document, IpPool, Object, Resource};
//! use calico_model::MemoryStore;
//! use std::{sync::Arc, time::SystemTime};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let store = MemoryStore::new();
//! let pool: Resource = Object::new("default".parse()?, IpPool::new("192.168.0.0/16".parse()?)).into();
//! let (key, value) = (pool.key().datastore_key(), Document::from(&pool).stored_form());
//! store.commit_now(vec![Write::put(key, value, Precondition::Absent)])?;
//!
//! let ipam = Ipam::new(Arc::new(store));
//! let now = SystemTime::UNIX_EPOCH;
//! let mut request = AutoAssign::new("node1".parse()?, "k8s-pod-network.0123");
//! request.count.v4 = 2;
//! let assigned = ipam.auto_assign(request, now).await?;
//! assert_eq!(assigned.v4.len(), 2);
//!
//! let released = ipam.release_by_handle("k8s-pod-network.0123", now).await?;
//! assert_eq!(released.released.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs)]

mod affinity;
mod assign;
mod assign_address;
pub mod block;
mod cache;
pub mod check;
mod config;
pub mod error;
mod handle;
mod index;
mod inventory;
mod ipam;
mod join;
mod kept;
mod owners;
pub mod plan;
pub mod pool;
mod reclaim;
mod release;
pub mod report;
pub mod request;
mod retry;
pub mod split;
#[cfg(feature = "strategies")]
pub mod strategies;
mod tunnel;
mod users;
mod versioned;

pub use affinity::{Claimed, Emptiness};
pub use block::{Block, DamagedBlock, Expected, Holder, Mismatch, WINDOWS_RESERVED};
pub use cache::SETTINGS_MAX_AGE;
pub use check::{Check, Finding, Held, Liveness};
pub use config::MAX_COOLDOWN;
pub use error::{AccessError, AffinityError, AssignError, ConfigError, ReleaseError};
pub use inventory::Inventory;
pub use ipam::Ipam;
pub use kept::Kept;
pub use owners::{ExpectedOwner, OwnerChange, OwnerError, OwnerSlot, PodRef};
pub use pool::{PoolRef, Settings};
pub use reclaim::Reclaimed;
pub use release::Assignment;
pub use report::Utilisation;
pub use request::{Allocation, AssignAddress, Assigned, AutoAssign, HandleUse, PerFamily, Release, Released};
pub use split::split;
pub use tunnel::TunnelKind;
pub use users::Users;
pub use versioned::Versioned;
