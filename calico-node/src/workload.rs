//! Plugging a workload in, and unplugging it: the veth pair, its addresses, routes and settings.
//!
//! ```text
//!   node                                          workload's network namespace
//!   ────                                          ────────────────────────────
//!   caliXXXXXXXXXXX  ee:ee:ee:ee:ee:ee ◀── veth ──▶ eth0   address/32
//!     proxy_arp, forwarding                           169.254.1.1 dev eth0 scope link
//!     address/32 dev caliXXXXXXXXXXX scope link       default via 169.254.1.1
//! ```
//!
//! [`plan`] says purely, as a list of [`Step`]s, what an [`Attachment`] takes; [`plug`] does it and [`differences`]
//! compares it with the kernel. The peer is created inside the workload's namespace, so it never appears on the node.
//! All work in that namespace happens on a thread of its own; the caller's namespace never changes.
//!
//! Plugging opens nothing: the node's packet filter drops whatever comes from or goes to a `cali` interface that it does
//! not know, and it is the agent that makes it known, once the endpoint's policy is in force.

mod apply;
mod error;
mod netns;
mod plan;
mod verify;

pub use apply::{Unplugged, host_interface_exists, plug, unplug, unplug_host};
pub use error::WorkloadError;
pub use netns::{Netns, inside};
pub use plan::{Attachment, Forwarding, GATEWAY_V4, GATEWAY_V6, HOST_MAC, Lenience, Plan, Step, plan};
pub use verify::differences;
