//! What is remembered of the kernel between passes.

use std::time::{Duration, Instant};

use calico_route::Waits;
use calico_route::actual::Actual;
use calico_route::ownership::Ownership;

/// What is remembered of the kernel is not relied upon for longer than this, so that a change of which no event tells is
/// found within a minute: passes are at most half a minute apart.
const MEMORY: Duration = Duration::from_secs(30);

/// What the kernel holds.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) actual: Actual,
    /// When it was read.
    pub(super) since: Instant,
    /// How ours was told from others' when it was read, and what was asked for.
    pub(super) ownership: Ownership,
    /// What of the wanted could not be had.
    pub(super) waiting: Waits,
}

impl Memory {
    /// Reports whether it says what the kernel would say if it were asked now.
    pub(super) fn serves(&self, ownership: &Ownership, now: Instant) -> bool {
        self.ownership == *ownership && now.duration_since(self.since) < MEMORY
    }
}

#[cfg(test)]
mod tests {
    use calico_model::resource::FelixConfiguration;

    use super::*;

    #[test]
    fn what_was_read_when_something_else_was_ours_is_not_relied_upon() {
        let since = crate::clock::now();
        let memory = Memory {
            actual: Actual::default(),
            since,
            ownership: Ownership::default(),
            waiting: Waits::default(),
        };
        assert!(memory.serves(&Ownership::default(), since));
        assert!(!memory.serves(&Ownership::default(), since + MEMORY));
        for settings in [
            FelixConfiguration { interface_prefix: Some("tap".to_owned()), ..FelixConfiguration::new() },
            FelixConfiguration {
                feature_detect_override: Some("ChecksumOffloadBroken=true".to_owned()),
                ..FelixConfiguration::new()
            },
        ] {
            assert!(!memory.serves(&Ownership::of(&settings), since), "{settings:?}");
        }
    }
}
