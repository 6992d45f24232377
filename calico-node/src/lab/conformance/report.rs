//! What came of a replay.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::cases::Expected;

/// What came of the cases of one file.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The file.
    pub path: PathBuf,
    /// How many probes came out as expected.
    pub passed: usize,
    /// Those that did not.
    pub failures: Vec<Failure>,
    /// How long it took, the making of namespaces included.
    pub took: Duration,
    /// How long each change of the rules took, from the changed resources to the kernel's commit on every host; empty
    /// when no packets were sent.
    pub programming: Vec<Duration>,
}

/// A probe that did not come out as expected.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The case.
    pub case: String,
    /// The step of the case.
    pub step: String,
    /// The probe: service, source and destination.
    pub probe: String,
    /// What was expected.
    pub expected: String,
    /// What was observed.
    pub observed: String,
    /// Why the resources have it as they do.
    pub explanation: String,
}

impl Report {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, passed: 0, failures: Vec::new(), took: Duration::ZERO, programming: Vec::new() }
    }

    /// Adds what came of more cases.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.programming.extend(other.programming);
    }
}

impl Failure {
    pub(super) fn new(
        case: &str,
        step: &str,
        probe: &Expected,
        observed: impl fmt::Display,
        explanation: String,
    ) -> Self {
        Self {
            case: case.to_owned(),
            step: step.to_owned(),
            probe: format!("{} from {} to {}", probe.service, probe.from, probe.to),
            expected: probe.verdict.to_string(),
            observed: observed.to_string(),
            explanation,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        let (failed, seconds) = (self.failures.len(), self.took.as_secs_f64());
        write!(f, "{}: {} passed, {failed} failed, in {seconds:.1} s", self.path.display(), self.passed)?;
        let mut sorted = self.programming.clone();
        sorted.sort_unstable();
        if let (Some(median), Some(late), Some(last)) =
            (sorted.get(sorted.len() / 2), sorted.get(sorted.len() * 99 / 100), sorted.last())
        {
            let ms = |time: &Duration| time.as_secs_f64() * 1000.0;
            let (count, median, late, last) = (sorted.len(), ms(median), ms(late), ms(last));
            write!(
                f,
                "\n  {count} changes in force after {median:.1} ms (median), {late:.1} ms (99 of 100), {last:.1} ms (all)"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, step, probe, expected, observed, explanation } = self;
        write!(f, "case {case}, {step}: {probe}: expected {expected}, observed {observed}")?;
        explanation.lines().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
