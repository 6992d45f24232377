//! Time of the processor and of the clock, and medians.

use std::fmt;
use std::time::{Duration, Instant};

use nix::time::ClockId;

/// What something cost this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
}

impl Cost {
    pub(crate) fn each(self, rounds: u32) -> Self {
        Self { cpu: self.cpu / rounds, wall: self.wall / rounds }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1?} of processor, {:.1?} of clock", self.cpu, self.wall)
    }
}

pub(crate) struct Stopwatch {
    cpu: Duration,
    wall: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { cpu: cpu(), wall: Instant::now() }
    }

    pub(crate) fn cost(&self) -> Cost {
        Cost { cpu: cpu() - self.cpu, wall: self.wall.elapsed() }
    }
}

/// The time that all threads of this process have had.
fn cpu() -> Duration {
    ClockId::CLOCK_PROCESS_CPUTIME_ID.now().unwrap().into()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of each kind of time.
pub(crate) fn median_cost(costs: &[Cost]) -> Cost {
    let of = |time: fn(&Cost) -> Duration| {
        Duration::from_secs_f64(median(costs.iter().map(|cost| time(cost).as_secs_f64()).collect()))
    };
    Cost { cpu: of(|cost| cost.cpu), wall: of(|cost| cost.wall) }
}

/// The medians of the ratios of two costs that were measured together.
pub(crate) fn ratios(pairs: &[(Cost, Cost)]) -> (f64, f64) {
    let of = |time: fn(&Cost) -> Duration| {
        median(pairs.iter().map(|(one, other)| time(one).as_secs_f64() / time(other).as_secs_f64()).collect())
    };
    (of(|cost| cost.cpu), of(|cost| cost.wall))
}
