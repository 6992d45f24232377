//! **Where it goes**: the routes, tunnels and neighbours of a Calico node, decided purely and reconciled with a kernel.
//!
//! ```text
//!   Snapshot ─┐
//!   node name ┼─ compute ─▶ Desired ─┐
//!   learned  ─┘                      ├─ diff ─▶ changes ─▶ kernel
//!                 kernel ─▶ Actual ──┘
//! ```
//!
//! - [`compute()`] says what a node's kernel should hold. It knows the datastore and what BGP learned, and nothing of the
//!   machine.
//! - [`Actual`] is what the kernel holds: ours (see [`ownership`]), and the [`Host`] around it. [`diff()`] compares the
//!   two and gives [`Change`]s that can be printed, in an order that is safe to stop after. A route says "over the device
//!   that holds the node's address" or "however the host gets there"; which device that is, is settled here.
//! - [`departed`] says which addresses have left an interface, so that their tracked connections can be forgotten.
//! - [`reconcile`] is the loop's memory: in sync or not, dirty, backing off, patient with new interfaces.
//! - [`netlink`] (feature `netlink`) reads and writes a real kernel; [`fake`] is one in memory.
//!
//! Where the routes to the blocks of other nodes come from: for VXLAN pools always from the datastore, so that they
//! outlive the agents; for the others as `programClusterRoutes` of the `FelixConfiguration` says, and then either the
//! datastore or BGP is the source, never both. Learned routes outside all pools are taken as they are.
//!
//! A next hop that is on no link of the machine is reached as the routes of *others* in the main table and those that BGP
//! *learned* lead to it: by the longest prefix, then the lowest metric. A learned route counts where others' lead to its own
//! next hops, one step deep: so a default route from two switches, or a node's loopback address that both announce, leads to
//! the blocks behind it by both. What no such route leads to waits as [`Waiting::Unreachable`]. Wrapped packets are not
//! concerned: the kernel leads those by every route that it has.
//!
//! ```
//! use calico_model::learned::{LearnedRoute, LearnedRoutes};
//! use calico_model::resource::{Node, NodeBgp, Object};
//! use calico_model::Snapshot;
//! use calico_route::{compute, diff, fake::FakeKernel};
//!
//! let mut snapshot = Snapshot::default();
//! let node = Node { bgp: Some(NodeBgp::at("172.16.6.47/24".parse()?)), ..Node::new() };
//! snapshot.insert(Object::new("walker-1".parse()?, node));
//! let hop = LearnedRoute { next_hops: ["172.16.6.249".parse()?].into(), priority: None };
//! let learned = LearnedRoutes::from([("192.168.135.64/26".parse()?, hop)]);
//! let desired = compute(&snapshot, &"walker-1".parse()?, &learned);
//!
//! let mut kernel = FakeKernel::default();
//! kernel.add_link(&"eth0".parse()?, &["172.16.6.47/24".parse()?]);
//! let changes = diff(&desired, &kernel.read(&desired.ownership));
//! assert_eq!(changes[0].to_string(), "route add 192.168.135.64/26 metric 1024 via 172.16.6.249 dev eth0");
//!
//! kernel.apply(&changes);
//! assert!(diff(&desired, &kernel.read(&desired.ownership)).is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs)]

pub mod actual;
pub mod change;
pub mod compute;
pub mod departed;
pub mod desired;
pub mod device;
pub mod diff;
pub mod encap;
#[cfg(feature = "netlink")]
mod error;
pub mod fake;
#[cfg(feature = "netlink")]
pub mod netlink;
pub mod ownership;
pub mod reconcile;
pub mod resolve;
pub mod route;
pub mod sysctl;
mod waits;
pub mod ways;

pub use actual::{Actual, Host};
pub use change::Change;
pub use compute::{Computer, Delta, Peering, compute};
pub use desired::{Desired, Problem};
pub use device::vxlan_mac;
pub use diff::{Plan, diff, plan, plan_delta, plan_unlearned};
pub use ownership::Ownership;
pub use reconcile::Reconciler;
pub use resolve::Waiting;
pub use waits::Waits;
pub use ways::{Distance, Ways};
