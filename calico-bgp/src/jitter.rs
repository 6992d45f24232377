//! Randomness that repeats: peers that start together do not act together.

use std::time::Duration;

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
