//! The `nft` program as the way to the kernel. It works in the network namespace of the calling thread.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::{Actual, ApplyError, Transaction, json, plan};
use crate::ruleset::Ruleset;
use crate::text::TABLE;

/// A way to the kernel's tables, in the network namespace of whichever thread calls it.
#[derive(Debug, Clone)]
pub struct Nft {
    program: PathBuf,
}

const READ: &str = "read the table inet calico";
const WRITE: &str = "write the table inet calico";

impl Default for Nft {
    fn default() -> Self {
        Self::new()
    }
}

impl Nft {
    /// Makes a way that uses the `nft` program of the search path.
    #[must_use]
    pub fn new() -> Self {
        Self::with_program("nft")
    }

    /// Makes a way that uses this program.
    #[must_use]
    pub fn with_program(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Reads our table, and nothing else.
    ///
    /// # Errors
    /// When the program is missing, the kernel does not permit it, or the answer makes no sense.
    pub fn read(&mut self) -> Result<Actual, ApplyError> {
        let arguments = ["-j", "list", "table"].into_iter().chain(TABLE.split(' '));
        let output = self.run(READ, arguments, None)?;
        if output.status.success() {
            return json::read(&output.stdout).map_err(|problem| ApplyError::Unreadable { problem });
        }
        let problem = String::from_utf8_lossy(&output.stderr);
        if problem.contains("No such file or directory") {
            return Ok(Actual::default());
        }
        Err(refused(READ, &problem))
    }

    /// Applies a transaction: whole, or not at all. An empty one touches nothing.
    ///
    /// # Errors
    /// When the program is missing, or the kernel does not permit or refuses it.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<(), ApplyError> {
        if transaction.is_empty() {
            return Ok(());
        }
        let output = self.run(WRITE, ["-f", "-"], Some(&transaction.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(refused(WRITE, &String::from_utf8_lossy(&output.stderr)))
    }

    /// Reads, plans and applies; returns what was written, which is nothing when all was as it should be.
    ///
    /// # Errors
    /// As [`read`](Self::read) and [`apply`](Self::apply).
    pub fn sync(&mut self, desired: &Ruleset) -> Result<Transaction, ApplyError> {
        let transaction = plan(desired, &self.read()?);
        self.apply(&transaction)?;
        Ok(transaction)
    }

    fn run<'a>(
        &self,
        doing: &'static str,
        arguments: impl IntoIterator<Item = &'a str>,
        input: Option<&str>,
    ) -> Result<Output, ApplyError> {
        let broken = |source: io::Error| ApplyError::Broken { doing, source };
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = Command::new(&self.program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| ApplyError::NoProgram {
                program: self.program.display().to_string(),
                source,
            })?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // The program reads all of its input before it prints anything, so neither side waits for the other.
            match stdin.write_all(input.as_bytes()) {
                // It ended early: what it printed says why.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written.map_err(broken)?,
            }
        }
        child.wait_with_output().map_err(broken)
    }
}

fn refused(doing: &'static str, problem: &str) -> ApplyError {
    if problem.contains("Operation not permitted") {
        return ApplyError::NotPermitted { doing };
    }
    let line = problem.lines().find(|line| line.contains("Error")).unwrap_or("nft gave no reason");
    ApplyError::Refused { doing, problem: line.trim().to_owned() }
}
