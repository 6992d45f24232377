//! The kernel's nf_tables: read what is there, plan what is missing, apply it in one transaction (feature `nft`).
//!
//! Everything lives in one table, `inet calico`. Nothing else is ever read or written, and whatever is in the table and does
//! not belong there is removed. A process has no memory of what it wrote before: each rule carries the digest of its own
//! words as a comment, so that a fresh process recognises rules that are as they should be and leaves them alone.
//!
//! A [`Transaction`] is a value: it can be printed before it is applied, and the kernel takes it whole or not at all. Where a
//! packet that is on its way could see half of it, it has parts: a packet keeps to the rules that were in force when it came,
//! but finds the elements that are there when it looks. What the kernel refuses is closed by itself, and all else is in force
//! ([`Nft::refused`]).
//!
//! ```no_run
//! use calico_policy::nft::{Nft, plan};
//! # let ruleset = calico_policy::Ruleset::default();
//!
//! let mut nft = Nft::new();
//! let transaction = plan(&ruleset, &nft.read()?);
//! print!("{transaction}");
//! nft.apply(&transaction)?;
//! # Ok::<(), calico_policy::nft::ApplyError>(())
//! ```

mod actual;
mod closing;
mod decode;
mod element;
mod encode;
mod error;
mod expression;
mod kernel;
mod plan;
mod transaction;
mod watch;
mod wire;

pub use actual::{Actual, ActualChain, ActualRule, ActualSet, Digest, ForeignBase, Table};
pub use closing::Refused;
pub use error::ApplyError;
pub use kernel::Nft;
pub use plan::{plan, plan_change};
pub use transaction::{Operation, Transaction};
pub use watch::{Foreign, Watch};
