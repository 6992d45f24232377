//! Programs, run with their arguments and input, and never for longer than a time.

use std::io::{ErrorKind, Read, Write};
use std::num::NonZeroU16;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::ApplyError;

/// How long a program may take, for the largest of inputs.
const PATIENCE_SECONDS: u64 = 30;

/// Runs a program and returns what it printed.
///
/// The program runs in the network namespace of the calling thread. Its input is written and its output read on other
/// threads, so that neither waits for the other.
pub(super) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, ApplyError> {
    run_for(program, arguments, input, PATIENCE_SECONDS)
}

/// As [`run`], of a program that takes the lock of iptables, and waits so long for it.
pub(super) fn run_locked(
    program: &str,
    arguments: &[&str],
    input: &str,
    lock_seconds: NonZeroU16,
) -> Result<String, ApplyError> {
    let wait = lock_seconds.to_string();
    let arguments = [arguments, &["-w", &wait]].concat();
    let seconds = u64::from(lock_seconds.get());
    match run_for(program, &arguments, input, seconds + PATIENCE_SECONDS) {
        Err(ApplyError::Refused { program, said }) if said.contains("xtables lock") => {
            Err(ApplyError::Locked { program, seconds })
        }
        done @ (Ok(_) | Err(_)) => done,
    }
}

fn run_for(program: &str, arguments: &[&str], input: &str, seconds: u64) -> Result<String, ApplyError> {
    let broken = |source| ApplyError::Broken { program: program.to_owned(), source };
    let spawned = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(ApplyError::Missing { program: program.to_owned() });
        }
        spawned => spawned.map_err(broken)?,
    };
    let Some((printed, said)) = talk(&mut child, input, Duration::from_secs(seconds)) else {
        // One that is gone already needs no end.
        let _ = child.kill();
        let _ = child.wait();
        return Err(ApplyError::Stuck { program: program.to_owned(), seconds });
    };
    let status = child.wait().map_err(broken)?;
    if status.success() { Ok(printed) } else { Err(refusal(program, &said)) }
}

/// Writes the input and reads both outputs to their end; `None` when that takes too long.
fn talk(child: &mut Child, input: &str, patience: Duration) -> Option<(String, String)> {
    let (mut stdin, stdout, stderr) = (child.stdin.take()?, child.stdout.take()?, child.stderr.take()?);
    let input = input.to_owned();
    // A program that ends before it has read everything says itself why.
    thread::spawn(move || stdin.write_all(input.as_bytes()));
    let (sender, receiver) = channel();
    let said = sender.clone();
    thread::spawn(move || said.send((false, read(stderr))));
    thread::spawn(move || sender.send((true, read(stdout))));
    let mut texts = (String::new(), String::new());
    for _ in 0..2 {
        match receiver.recv_timeout(patience) {
            Ok((true, text)) => texts.0 = text,
            Ok((false, text)) => texts.1 = text,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        }
    }
    Some(texts)
}

fn read(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is all there is.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn refusal(program: &str, said: &str) -> ApplyError {
    let program = program.to_owned();
    if said.contains("ermission denied") || said.contains("Operation not permitted") {
        return ApplyError::NotPermitted { program };
    }
    let kept = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Try `"));
    ApplyError::Refused { program, said: kept.collect::<Vec<_>>().join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_its_input_and_gives_its_output() {
        let long = "line\n".repeat(100_000);
        assert_eq!(run("cat", &[], &long).unwrap(), long);
    }

    #[test]
    fn what_goes_wrong_is_told_apart() {
        assert!(matches!(run("no-such-program-here", &[], ""), Err(ApplyError::Missing { .. })));
        assert!(matches!(run("false", &[], "unread"), Err(ApplyError::Refused { .. })));
    }
}
