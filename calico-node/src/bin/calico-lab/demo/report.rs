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
        for line in text.lines().flat_map(|line| folded(&format!("{margin}{line}"))) {
            println!("{}", line.trim_end());
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
        println!("\nAfter {:.1} s; it should be less than 60:", self.clock.elapsed().as_secs_f64());
        for failure in &self.failures {
            println!("  FAILED {failure}");
        }
        println!("{} passed, {} failed", self.held, self.failures.len());
        anyhow::ensure!(self.failures.is_empty(), "the demo did not show what it should");
        Ok(())
    }
}

/// Breaks a line that is too wide for a terminal before a word, and indents what follows.
fn folded(line: &str) -> Vec<String> {
    const WIDTH: usize = 80;
    const INDENT: &str = "      ";
    let mut lines = Vec::new();
    let mut rest = line.trim_end().to_owned();
    while rest.chars().count() > WIDTH {
        let limit = rest.char_indices().nth(WIDTH).map_or(rest.len(), |(at, _)| at);
        let lead = rest.len() - rest.trim_start().len();
        let Some(at) = rest[..limit].rfind(' ').filter(|at| *at > lead) else { break };
        lines.push(rest[..at].to_owned());
        rest = format!("{INDENT}{}", &rest[at + 1..]);
    }
    lines.push(rest);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_line_is_folded_between_words_and_a_wide_word_is_left_whole() {
        let route =
            " 192.168.130.0/26 via 192.168.130.0 dev vxlan.calico proto 80 metric 1024 onlink and more";
        let lines = folded(route);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:?}");
        assert_eq!(
            lines.join(" ").split_whitespace().collect::<Vec<_>>(),
            route.split_whitespace().collect::<Vec<_>>()
        );
        assert_eq!(folded(&"x".repeat(90)), ["x".repeat(90)]);
        assert_eq!(folded("short"), ["short"]);
    }
}
