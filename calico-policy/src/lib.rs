//! **What may pass**: the compiler from selectors and policies to the rules of a node's kernel.
#![deny(missing_docs)]

mod active;
mod closed;
mod compile;
mod evaluate;
mod labels;
mod local;
mod log;
mod lower;
mod members;
#[cfg(feature = "nft")]
pub mod nft;
mod order;
pub mod packet;
mod peer;
pub mod ruleset;
mod sets;
mod simulate;
#[cfg(any(test, feature = "strategies"))]
pub mod strategies;
mod text;
pub mod trace;

pub use compile::compile;
pub use evaluate::evaluate;
pub use packet::{Outcome, Packet, Path, Transport, Verdict};
pub use ruleset::Ruleset;
pub use simulate::simulate;
pub use trace::Trace;
