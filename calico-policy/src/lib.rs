//! **What may pass**: the compiler from selectors and policies to the rules of a node's kernel.
//!
//! [`compile`] turns a [`Snapshot`](calico_model::Snapshot) into a [`Ruleset`]: chains, sets and verdict maps as data, with
//! stable names, equal for equal input. Two readers say what it means, and agree for every packet:
//!
//! - [`evaluate`] asks the resources themselves and says why, rule by rule;
//! - [`simulate`] runs the packet through a ruleset as a kernel would.
//!
//! A [`Compiler`] follows a datastore: it ends where [`compile`] does, at a cost that follows what changed, and says what changed.
//!
//! [`explain()`] follows a packet through all nodes and finds what is missing for it to pass. [`compare()`] says of two worlds
//! between which ends which traffic is allowed in one and not in the other.
//!
//! A [`Ruleset`] prints as nft text. With the feature `nft`, the module `nft` reads the kernel's table, plans what is missing
//! and applies it in one transaction; with the feature `iptables`, the module `iptables` does so for iptables and ipset.
//!
//! ```
//! use calico_model::resource::{NetworkPolicy, Object, Policy, PolicyType, Rule, WorkloadEndpoint};
//! use calico_model::{NodeName, Snapshot};
//! use calico_policy::{Packet, Path, Transport, Verdict, compile, evaluate, simulate};
//!
//! let node: NodeName = "node-1".parse()?;
//! let mut world = Snapshot::default();
//! let mut database = Object::new("db".parse()?, WorkloadEndpoint::on(node.clone()));
//! database.metadata.namespace = Some("shop".parse()?);
//! database.spec.interface_name = Some("cali1".parse()?);
//! database.spec.ip_networks = vec!["192.168.0.1".parse()?];
//! world.insert(database);
//! let mut policy = Policy::selecting("all()".parse()?, vec![PolicyType::Ingress]);
//! let mut mysql = Rule::allow();
//! mysql.protocol = Some("TCP".parse()?);
//! mysql.destination.ports = vec!["3306".parse()?];
//! policy.ingress.push(mysql);
//! let mut policy = Object::new("database".parse()?, NetworkPolicy(policy));
//! policy.metadata.namespace = Some("shop".parse()?);
//! world.insert(policy);
//!
//! let path = Path::Forward { from: "eth0".parse()?, to: "cali1".parse()? };
//! let packet = |port| {
//!     let (client, server) = ("10.1.2.3".parse().unwrap(), "192.168.0.1".parse().unwrap());
//!     Packet::new(node.clone(), path.clone(), client, server, Transport::tcp(port)).unwrap()
//! };
//! assert_eq!(evaluate(&world, &packet(3306)).outcome.verdict, Verdict::Allow);
//! let denied = evaluate(&world, &packet(80));
//! assert!(denied.to_string().ends_with("denied: policies in tier default apply, and none of their rules matches"));
//!
//! let ruleset = compile(&world, &node);
//! assert_eq!(simulate(&ruleset, &packet(80)), denied.outcome);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is meant
//!
//! - Tiers in order; in each, the policies that select the endpoint and have the direction, in order; in each, its rules in order. Allow and
//!   Deny are final, Pass goes to the next tier, Log goes on. A tier of which some policy applies ends with its default
//!   action. After the last tier come the endpoint's profiles, and after them nothing is allowed. A profile that is named and does
//!   not exist denies.
//! - What is denied is dropped in silence, or its sender hears by ICMP that the port is not reached, when
//!   `nftablesFilterDenyAction` (`iptablesFilterDenyAction` where `nftablesMode` is `Disabled`) is `Reject`. Before connection
//!   tracking and translation (sources, untracked and pre-DNAT policy), and from a workload to its own node, it is always silence.
//! - Only the first packet of a flow is asked about: what belongs to a tracked flow passes, and what connection tracking finds invalid
//!   is dropped. When policy changes, a [`FlowJudge`] asks about the first packet of each live flow again; what is denied by
//!   then is marked, and dropped from then on.
//! - A workload sends from its own addresses only, makes no tunnel packets, and reaches its own node only as
//!   `defaultEndpointToHostAction` says. A node always reaches its own workloads from its own addresses; what it sends them from
//!   another's is dropped unless it answers a flow.
//! - No resource switches an endpoint off (the *admin-down* of Calico's first versions): one that no profile and no policy allows
//!   anything neither sends nor receives.
//! - An interface that is named like a workload's and belongs to none is dropped, in every direction.
//! - What is forwarded to an address of services (those that BGP tells of) belongs to no service any more and is dropped, unless
//!   `serviceLoopPrevention` is `Disabled`; with `Reject` its sender is told.
//! - Sources in pools with `natOutgoing` are translated on the way to what is in no pool (with `natOutgoingExclusions`, to no node
//!   either), by the interfaces that `iptablesNATOutgoingInterfaceFilter` names: to the node's own address, or
//!   those of IPv4 to `natOutgoingAddress`. `natPortRange` bounds the source ports of TCP and UDP; a name in it bounds nothing.
//! - A service is what its EndpointSlices hold, ready or not: as a source their addresses, as a destination their addresses, protocols
//!   and ports. One without endpoints matches nothing.
//! - What the system says of an endpoint (namespace, service account, orchestrator) is not taken from its labels.
//! - What cannot be enforced here (HTTP without a proxy that is registered as one of the [`Enforcers`]) never
//!   allows anything: see [`ruleset::Warning`].
//!
//! Edges that other implementations got wrong have ids (`PE-30`); the file `EDGES.md` of this crate says which test or which
//! choice answers each.
//!
//! # What is left to others
//!
//! A packet that is accepted here goes on to the tables of others, which may still drop it: nftables has no verdict that
//! overrules them. ARP is not looked at. Kernel settings (`rp_filter`, `accept_ra`) belong to whoever plugs interfaces in.
#![deny(missing_docs)]

mod active;
mod closed;
pub mod compare;
mod compile;
mod compiler;
mod delta;
mod evaluate;
pub mod explain;
mod flow;
mod index;
#[cfg(feature = "iptables")]
pub mod iptables;
mod labels;
mod local;
mod log;
mod lower;
#[cfg(feature = "nft")]
pub mod nft;
mod optimise;
mod order;
mod output;
pub mod packet;
mod peer;
pub mod ruleset;
mod sets;
mod simulate;
#[cfg(any(test, feature = "strategies"))]
pub mod strategies;
mod text;
pub mod trace;
mod way;

pub use closed::Enforcers;
pub use compare::{Comparison, compare};
pub use compile::{compile, compile_in, compile_with};
pub use compiler::{Changes, Compiler};
pub use delta::Delta;
pub use evaluate::{evaluate, evaluate_with};
pub use explain::{Explanation, explain};
pub use flow::{Flow, FlowJudge};
pub use optimise::Layout;
pub use packet::{Outcome, Packet, Path, Told, Transport, Verdict, WITHDRAWN_MARK};
pub use ruleset::Ruleset;
pub use simulate::simulate;
pub use trace::Trace;
pub use way::{Homes, way};
