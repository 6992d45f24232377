//! How long to wait before the next attempt: twice as long each time, with jitter.

use std::time::Duration;

/// Pauses that grow, and that are the same for the same seed.
///
/// ```
/// use calico_model::datastore::Backoff;
/// use std::time::Duration;
///
/// let mut backoff = Backoff::new(7, Duration::from_millis(2), Duration::from_millis(100));
/// assert!(backoff.pause() <= Duration::from_millis(2));
/// assert!(backoff.pause() <= Duration::from_millis(4));
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    ceiling: Duration,
    random: u64,
}

impl Backoff {
    /// Begins with pauses of at most `first`, which double up to `longest`. The seed decides the jitter.
    #[must_use]
    pub fn new(seed: u64, first: Duration, longest: Duration) -> Self {
        Self { first, longest, ceiling: first, random: seed }
    }

    /// Begins with short pauses again.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }

    /// Returns the next pause: between half of the ceiling and all of it; the ceiling doubles.
    pub fn pause(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(self.longest);
        // SplitMix64: small, good enough to keep nodes apart, and the same for the same seed.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let half = ceiling / 2;
        let fraction = u32::try_from(bits >> 40).unwrap_or(0);
        half + half * fraction / (1 << 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_reset() {
        let mut backoff = Backoff::new(7, FIRST, LONGEST);
        let mut ceiling = FIRST;
        for _ in 0..12 {
            let pause = backoff.pause();
            assert!(pause >= ceiling / 2 && pause <= ceiling, "{pause:?} of {ceiling:?}");
            ceiling = (ceiling * 2).min(LONGEST);
        }
        assert_eq!(ceiling, LONGEST);
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }

    #[test]
    fn different_seeds_pause_differently() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(seed, FIRST, LONGEST);
            [(); 4].map(|()| backoff.pause())
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }
}
