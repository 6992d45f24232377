//! Deadlines as data: a table indexed by what is due. Nobody here sleeps.

use std::time::{Duration, Instant};

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

    /// Returns the earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one timer that is due, which is then no longer set.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let timer = Self::ALL.into_iter().find(|t| self.0[*t as usize].is_some_and(|at| at <= now))?;
        self.0[timer as usize] = None;
        Some(timer)
    }
}

/// A small generator for jitter, the same for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns between 75 and 100 percent of a duration (RFC 4271 section 10).
    pub(crate) fn of(&mut self, whole: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let permille = 750 + ((z ^ (z >> 31)) % 251) as u32;
        whole * permille / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_three_quarters_and_the_whole_and_repeats_for_a_seed() {
        let whole = Duration::from_secs(100);
        let take = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..1000).map(|_| jitter.of(whole)).collect::<Vec<_>>()
        };
        assert!(take(7).iter().all(|d| (Duration::from_secs(75)..=whole).contains(d)));
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
    }
}
