//! The clocks. Everything that decides takes the time as an argument; the drivers here, and the programs, read it.
#![expect(clippy::disallowed_methods, reason = "the one place where the time comes in")]

use std::time::{Instant, SystemTime};

/// Returns a time to measure by.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Returns the time of the world outside.
#[must_use]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
