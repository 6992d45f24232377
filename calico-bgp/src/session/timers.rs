//! Deadlines as data: a table indexed by what is due. Nobody here sleeps.

use std::time::Instant;

/// What becomes due on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Nothing was heard for the hold time.
    Hold,
    /// A KEEPALIVE is to be sent.
    Keepalive,
    /// The peer took nothing for the send hold time (RFC 9687).
    SendHold,
}

/// When each timer of a connection is due.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timers([Option<Instant>; 3]);

impl Timers {
    const ALL: [Timer; 3] = [Timer::Hold, Timer::Keepalive, Timer::SendHold];

    pub(crate) fn set(&mut self, timer: Timer, deadline: Option<Instant>) {
        self.0[timer as usize] = deadline;
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    pub(crate) fn is_due(&self, timer: Timer, now: Instant) -> bool {
        self.0[timer as usize].is_some_and(|at| at <= now)
    }

    /// Returns the earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one timer that is due, which is then no longer set.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let timer = Self::ALL.into_iter().find(|timer| self.is_due(*timer, now))?;
        self.0[timer as usize] = None;
        Some(timer)
    }
}
