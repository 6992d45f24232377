//! What something costs.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// What something cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost {
    /// The CPU time of this process and of the programs that it started and that have ended. What others keep the machine busy with is
    /// no part of it.
    pub(crate) busy: Duration,
    /// The time that passed.
    pub(crate) wall: Duration,
}

impl Cost {
    /// Measures something.
    pub(crate) fn of<T>(act: impl FnOnce() -> T) -> (Self, T) {
        let (began, spent) = (clock(), cpu());
        let done = act();
        (Self { busy: cpu() - spent, wall: began.elapsed() }, done)
    }

    /// Returns the one in the middle, by CPU time.
    pub(crate) fn median(mut costs: Vec<Self>) -> Self {
        costs.sort();
        costs[costs.len() / 2]
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(f, "{:8.1} ms of CPU, {:8.1} ms in all", ms(self.busy), ms(self.wall))
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn clock() -> Instant {
    Instant::now()
}

fn cpu() -> Duration {
    let part = |time: TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), 1000 * u32::try_from(time.tv_usec()).unwrap_or_default())
    };
    let of = |who| {
        let usage = getrusage(who).expect("the kernel tells it");
        part(usage.user_time()) + part(usage.system_time())
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}
