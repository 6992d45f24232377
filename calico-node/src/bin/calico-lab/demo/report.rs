//! What the demo prints, and the count of what held.

use calico_node::lab::Stopwatch;

/// The checks so far.
pub(super) struct Report {
    clock: Stopwatch,
    held: usize,
    failures: Vec<String>,
}

/// Prints the line of a phase, with the time since the start.
pub(super) fn phase(clock: Stopwatch, phase: &str) {
    println!("\n[{:5.1} s] {phase}", clock.elapsed().as_secs_f64());
}

impl Report {
    pub(super) fn start() -> Self {
        Self { clock: Stopwatch::start(), held: 0, failures: Vec::new() }
    }

    pub(super) fn clock(&self) -> Stopwatch {
        self.clock
    }

    pub(super) fn phase(&self, name: &str) {
        phase(self.clock, name);
    }

    pub(super) fn section(&self, name: &str) {
        println!("\n{name}");
    }

    /// Prints a program's output, moved in.
    pub(super) fn lines(&self, text: &str, margin: &str) {
        for line in text.lines() {
            println!("{}", format!("{margin}{line}").trim_end());
        }
    }

    /// Prints and counts one thing that must hold.
    pub(super) fn check(&mut self, claim: &str, held: bool) {
        println!("  {} {claim}", if held { "ok    " } else { "FAILED" });
        if held {
            self.held += 1;
        } else {
            self.failures.push(claim.to_owned());
        }
    }

    pub(super) fn failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Prints the closing lines.
    ///
    /// # Errors
    /// When something did not hold.
    pub(super) fn close(self) -> anyhow::Result<()> {
        println!("\nAfter {:.1} s:", self.clock.elapsed().as_secs_f64());
        for failure in &self.failures {
            println!("  FAILED {failure}");
        }
        println!("{} passed, {} failed", self.held, self.failures.len());
        anyhow::ensure!(self.failures.is_empty(), "the demo did not show what it should");
        Ok(())
    }
}
