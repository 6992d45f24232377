//! Who may reach whom: expected against observed.

use std::fmt;
use std::time::Duration;

use super::Lab;
use super::error::LabError;
use super::probe::{Probe, Verdict};
use super::wait::Stopwatch;

/// How wide a terminal is that nobody made wider.
const TERMINAL: usize = 80;

/// What is expected of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// The workload that it is sent from.
    pub from: String,
    /// The workload that it is sent to.
    pub to: String,
    /// What is sent.
    pub probe: Probe,
    /// What should come of it.
    pub verdict: Verdict,
}

/// Expected against observed, for many probes. Prints as tables that fit a terminal of 80 columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matrix {
    cells: Vec<(Expectation, Verdict)>,
}

impl Lab {
    /// Expects of every pair of workloads and every port that the second listens on, and of a ping, what `verdict` says.
    pub fn expect(&self, verdict: impl Fn(&str, &str, Probe) -> Verdict) -> Vec<Expectation> {
        let mut expectations = Vec::new();
        for from in &self.state().workloads {
            for to in self.state().workloads.iter().filter(|to| to.name != from.name) {
                let ports = to.listen.iter().map(|port| port.probe());
                expectations.extend(ports.chain([Probe::Ping]).map(|probe| Expectation {
                    from: from.name.clone(),
                    to: to.name.clone(),
                    probe,
                    verdict: verdict(&from.name, &to.name, probe),
                }));
            }
        }
        expectations
    }

    /// Probes until everything is as expected twice in a row, or `patience` is over; returns what was seen last.
    ///
    /// # Errors
    /// When a probe cannot be sent.
    pub fn observe(&self, expectations: &[Expectation], patience: Duration) -> Result<Matrix, LabError> {
        let mut probes = Vec::new();
        for expectation in expectations {
            probes.push((expectation.from.as_str(), self.address(&expectation.to)?, expectation.probe));
        }
        let clock = Stopwatch::start();
        let mut in_a_row = 0;
        loop {
            self.options.interrupt.check()?;
            let verdicts = self.probe_all(&probes)?;
            let matrix = Matrix { cells: expectations.iter().cloned().zip(verdicts).collect() };
            in_a_row = if matrix.is_as_expected() { in_a_row + 1 } else { 0 };
            if in_a_row == 2 || clock.elapsed() > patience {
                return Ok(matrix);
            }
        }
    }
}

impl Matrix {
    /// Returns the probes that did not come out as expected, with what was observed.
    pub fn surprises(&self) -> impl Iterator<Item = (&Expectation, Verdict)> {
        let surprising = self.cells.iter().filter(|(expectation, observed)| expectation.verdict != *observed);
        surprising.map(|(expectation, observed)| (expectation, *observed))
    }

    /// Tells whether every probe came out as expected.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.surprises().next().is_none()
    }

    /// Returns how many probes were sent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Tells whether no probe was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    fn cell(&self, from: &str, to: &str) -> String {
        let cells = self.cells.iter().filter(|(cell, _)| cell.from == from && cell.to == to);
        let mut text = String::new();
        for (expectation, observed) in cells {
            text.push(mark(*observed));
            if expectation.verdict != *observed {
                text.push('!');
            }
        }
        if text.is_empty() { "-".to_owned() } else { text }
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = in_order(self.cells.iter().map(|(cell, _)| cell.from.as_str()));
        let targets = in_order(self.cells.iter().map(|(cell, _)| cell.to.as_str()));
        // Both are the same workloads, and the order of the sources is the topology's.
        let targets: Vec<_> = sources.iter().copied().filter(|source| targets.contains(source)).collect();
        let width =
            |name: &&str| sources.iter().map(|from| self.cell(from, name).len()).max().max(Some(name.len()));
        let column = targets.iter().filter_map(width).max().unwrap_or(0) + 2;
        let margin = sources.iter().map(|name| name.len()).max().unwrap_or(0).max(4) + 4;
        for part in targets.chunks(((TERMINAL - margin) / column).max(1)) {
            write!(f, "  {:<rest$}", "from", rest = margin - 2)?;
            line(f, part.iter().map(|name| format!("{name:<column$}")))?;
            for from in &sources {
                write!(f, "  {from:<rest$}", rest = margin - 2)?;
                line(f, part.iter().map(|to| format!("{:<column$}", self.cell(from, to))))?;
            }
        }
        for (expectation, observed) in self.surprises() {
            let Expectation { from, to, probe, verdict } = expectation;
            writeln!(f, "  ! {from} to {to}, {probe}: expected {verdict}, observed {observed}")?;
        }
        let surprises = self.surprises().count();
        write!(f, "  {} probes, {} as expected", self.len(), self.len() - surprises)
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp {port}"),
            Self::Udp(port) => write!(f, "udp {port}"),
            Self::Ping => f.write_str("ping"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "answered",
            Self::Refused => "refused",
            Self::TimedOut => "dropped",
            Self::Unreachable => "unreachable",
        })
    }
}

fn mark(verdict: Verdict) -> char {
    match verdict {
        Verdict::Allowed => '.',
        Verdict::Refused => 'R',
        Verdict::TimedOut => 'X',
        Verdict::Unreachable => 'U',
    }
}

fn in_order<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

fn line(f: &mut fmt::Formatter<'_>, cells: impl Iterator<Item = String>) -> fmt::Result {
    writeln!(f, "{}", cells.collect::<String>().trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(workloads: &[&str], observed: impl Fn(&str, &str) -> Verdict) -> Matrix {
        let mut cells = Vec::new();
        for from in workloads {
            for to in workloads.iter().filter(|to| to != &from) {
                for probe in [Probe::Tcp(80), Probe::Ping] {
                    let (from, to) = ((*from).to_owned(), (*to).to_owned());
                    let seen = observed(&from, &to);
                    cells.push((Expectation { from, to, probe, verdict: Verdict::Allowed }, seen));
                }
            }
        }
        Matrix { cells }
    }

    #[test]
    fn a_surprise_is_marked_in_its_cell_and_told_in_words() {
        let drop_one = |from: &str, _: &str| if from == "b" { Verdict::TimedOut } else { Verdict::Allowed };
        let text = matrix(&["a", "b"], drop_one).to_string();
        let expected = "  from  a     b\n  a     -     ..\n  b     X!X!  -\n  \
            ! b to a, tcp 80: expected answered, observed dropped\n  \
            ! b to a, ping: expected answered, observed dropped\n  4 probes, 2 as expected";
        assert_eq!(text, expected);
    }

    #[test]
    fn any_number_of_workloads_fits_the_terminal() {
        let names: Vec<String> = (0..40).map(|number| format!("workload-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = matrix(&names, |_, _| Verdict::Allowed).to_string();
        assert!(text.lines().all(|line| line.len() <= TERMINAL), "{text}");
        assert!(text.contains("workload-39"), "{text}");
    }
}
