//! What the compiler promises, seen from outside.
#![allow(clippy::unwrap_used, reason = "tests")]

mod golden;
mod kernel;
mod meaning;
mod netns;
mod packets;
