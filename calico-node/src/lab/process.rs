//! Processes that outlive the program that started them, known by process id *and* start time.
//!
//! A process id alone is not enough: after a crash of the lab the kernel may have given it to somebody else.

use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::error::LabError;
use super::wait::{Interrupt, wait_for};

/// One process, for good: the pair is never given twice while the machine is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    pid: u32,
    /// When it started, in clock ticks since the machine did.
    started: u64,
}

impl Process {
    /// Looks a process up; `None` when there is none.
    #[must_use]
    pub fn find(pid: u32) -> Option<Self> {
        stat(pid).map(|stat| Self { pid, started: stat.started })
    }

    /// Returns its process id.
    #[must_use]
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// Tells whether it still runs. One that only waits to be collected by its parent does not; one whose first thread has
    /// ended before the others does, and has its files and sockets still.
    #[must_use]
    pub fn runs(self) -> bool {
        let stat = stat(self.pid).filter(|stat| stat.started == self.started);
        stat.is_some_and(|stat| !stat.zombie || threads(self.pid) > 1)
    }

    /// Sends it a signal; a process that is gone is no failure.
    pub(super) fn signal(self, signal: Signal) -> Result<(), LabError> {
        if !self.runs() {
            return Ok(());
        }
        match kill(Pid::from_raw(i32::try_from(self.pid).unwrap_or(i32::MAX)), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(LabError::io(format!("send {signal} to the process {}", self.pid))(errno)),
        }
    }
}

/// Ends processes: politely, then by force for those still there after two seconds.
pub(super) fn end_all(processes: &[Process]) -> Vec<LabError> {
    let mut failures = Vec::new();
    for (signal, patience) in [(Signal::SIGTERM, 2), (Signal::SIGKILL, 5)] {
        failures.extend(processes.iter().filter_map(|process| process.signal(signal).err()));
        let gone = || Ok(processes.iter().all(|process| !process.runs()).then_some(()));
        if matches!(wait_for(Duration::from_secs(patience), &Interrupt::default(), gone), Ok(Some(()))) {
            return failures;
        }
    }
    failures.extend(processes.iter().filter(|process| process.runs()).map(|process| LabError::TooSlow {
        command: format!("the process {} that was killed", process.pid),
        seconds: 5,
    }));
    failures
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

struct Stat {
    started: u64,
    zombie: bool,
}

/// Reads `/proc/PID/stat`; the second field, the program's name, may hold anything, also `) Z 1`.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let zombie = matches!(fields.next()?, "Z" | "X");
    // proc(5) numbers the fields from 1: the state is the third, the start time the 22nd.
    let started = fields.nth(18)?.parse().ok()?;
    Some(Stat { started, zombie })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_runs() {
        let me = Process::find(std::process::id()).unwrap();
        assert!(me.runs());
    }

    #[test]
    fn a_process_id_given_to_somebody_else_is_not_the_same_process() {
        let me = Process::find(std::process::id()).unwrap();
        let before = Process { started: me.started - 1, ..me };
        assert!(!before.runs());
        before.signal(Signal::SIGKILL).unwrap();
    }
}
