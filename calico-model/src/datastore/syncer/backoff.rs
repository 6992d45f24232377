//! How long to wait before the next attempt: twice as long each time, with jitter.

use std::time::Duration;

/// The first pause is at most this long.
const FIRST: Duration = Duration::from_millis(100);

/// No pause is longer than this.
const LONGEST: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Backoff {
    ceiling: Duration,
    random: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { ceiling: FIRST, random: seed }
    }

    pub(super) fn reset(&mut self) {
        self.ceiling = FIRST;
    }

    /// Returns the next pause: between half of the ceiling and all of it; the ceiling doubles.
    pub(super) fn pause(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(LONGEST);
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

    #[test]
    fn pauses_double_up_to_ten_seconds_and_begin_anew_after_a_reset() {
        let mut backoff = Backoff::new(7);
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
            let mut backoff = Backoff::new(seed);
            [(); 4].map(|()| backoff.pause())
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }
}
