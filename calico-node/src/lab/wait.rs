//! Waiting by looking again, and giving up: at a deadline, or when the user interrupts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::error::LabError;

/// The user's wish to stop. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks whatever the lab is doing to stop.
    pub fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Stops the caller when the user wished so.
    ///
    /// # Errors
    /// [`LabError::Interrupted`] then.
    pub fn check(&self) -> Result<(), LabError> {
        if self.0.load(Ordering::SeqCst) { Err(LabError::Interrupted) } else { Ok(()) }
    }
}

/// A clock that was started, and the one place of the lab that reads the time.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts a clock.
    #[must_use]
    pub fn start() -> Self {
        Self(crate::clock::now())
    }

    /// Returns how long ago the clock was started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Looks every few milliseconds until `look` finds something; `None` when `patience` is over.
pub(super) fn wait_for<T>(
    patience: Duration,
    interrupt: &Interrupt,
    mut look: impl FnMut() -> Result<Option<T>, LabError>,
) -> Result<Option<T>, LabError> {
    let clock = Stopwatch::start();
    loop {
        interrupt.check()?;
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if clock.elapsed() > patience {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}
