//! The kernel's iptables and ipset, in the legacy and the nft variant (feature `iptables`).
//!
//! [`lower()`] turns a [`Ruleset`](crate::Ruleset) into a [`Program`]: chains of rules for each family and table, and ipsets, as
//! data. It can be printed as the input of `iptables-restore`, compared, and asked what becomes of a packet ([`simulate`]),
//! which is what [`simulate`](crate::simulate) says of the ruleset.
//!
//! ```text
//!   Ruleset ─ lower ─▶ Program ─ plan ─▶ Transaction ─ Iptables::apply ─▶ ipset restore, iptables-restore, ipset restore
//!                          ▲                 ▲
//!                       simulate         Actual ◀─ Iptables::read ◀─ iptables-save, ipset save
//! ```
//!
//! What nftables has and iptables has not becomes this:
//!
//! - Several *stages* at one hook are chains called one after the other. A stage that accepts a packet marks it and leaves: every call of
//!   a chain is followed by a rule that returns when the mark is there. [`Marks`] says which bits are ours.
//! - A map from interfaces to chains is a tree of chains by what interfaces' names begin with, and a map from ports a tree of ranges: a lookup
//!   asks few rules however many keys there are.
//! - What one rule cannot hold (a second `! -p`, a set of interfaces) is asked by a chain of its own, which marks packets for
//!   which it holds.
//!
//! What is ours is known by its name, `cali-...`, and each rule carries the digest of its own words as a comment. Whatever else
//! is in the tables is neither parsed nor touched; what begins so and is not wanted is removed.
//!
//! ```
//! use calico_policy::iptables::{Actual, Options, lower, plan};
//! use calico_policy::{Ruleset, compile};
//! use calico_model::Snapshot;
//!
//! let ruleset: Ruleset = compile(&Snapshot::default(), &"node-1".parse()?);
//! let program = lower(&ruleset, &Options::default());
//! assert!(program.to_string().contains("-I FORWARD 1 -m comment"));
//! print!("{}", plan(&program, &Actual::default()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod actual;
mod command;
mod condition;
mod error;
mod hook;
mod interpret;
mod kernel;
mod leftover;
mod lower;
mod lowered;
mod options;
mod plan;
mod program;
mod transaction;
mod tree;
mod words;

pub use actual::{Actual, ActualSet, ActualTable};
pub use error::ApplyError;
pub use interpret::{simulate, simulate_marked};
pub use kernel::{Iptables, Refused, Written};
pub use leftover::{Leftover, cleanup_ipsets, holding_ours, in_use};
pub use lower::lower;
pub use options::{Choice, Insertion, Marks, Options, Variant};
pub use plan::plan;
pub use program::{HookRule, Ipset, IpsetKind, Key, Match, Program, Rule, Rules, Table, TableName, Target};
pub use transaction::{Operation, SetOperation, Transaction};
