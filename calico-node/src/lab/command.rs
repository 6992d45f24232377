//! Programs that are run to their end: their output is kept, and a failure says what they said.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use super::error::LabError;
use super::netns;
use super::wait::{Interrupt, wait_for};

/// How long a program may take that configures something, where it is emulated on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program's answer, and what it said beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// Its exit status; `None` when a signal ended it.
    pub code: Option<i32>,
}

/// Runs `ip -batch` over `lines`, in a namespace or outside of any.
pub(super) fn ip_batch(netns: Option<&str>, lines: &str) -> Result<(), LabError> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    command.args(["-batch", "-"]);
    let mut outcome = run(None, &mut command, lines, &Interrupt::default())?;
    if outcome.code == Some(0) {
        return Ok(());
    }
    // `ip` names the line of the batch by its number: "Command failed -:3".
    let number = outcome.stderr.rsplit("-:").next().and_then(|rest| rest.trim().parse::<usize>().ok());
    let line = number.and_then(|number| lines.lines().nth(number.saturating_sub(1))).unwrap_or("-batch");
    outcome.stderr.retain(|c| c != '\n');
    Err(failed(&format!("ip {line}"), &outcome))
}

/// Runs a program with `input`, inside a namespace or outside of any, and waits for its end.
pub(super) fn run(
    netns: Option<&str>,
    command: &mut Command,
    input: &str,
    interrupt: &Interrupt,
) -> Result<Answer, LabError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = display(command);
    let mut child = match netns {
        Some(netns) => netns::spawn(netns, command)?,
        None => command.spawn().map_err(|source| missing(command.get_program().as_ref(), source))?,
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading its input has said why, or does not need it.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = finish(child, &name, interrupt)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Answer { stdout: text(&output.stdout), stderr: text(&output.stderr), code: output.status.code() })
}

/// Turns an answer that is no success into an error.
pub(super) fn succeeded(name: &str, answer: Answer) -> Result<String, LabError> {
    if answer.code == Some(0) { Ok(answer.stdout) } else { Err(failed(name, &answer)) }
}

/// Returns the command as a person would type it, without the folder of its program.
pub(super) fn display(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn finish(mut child: Child, name: &str, interrupt: &Interrupt) -> Result<Output, LabError> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let stdout = scope.spawn(|| drain(stdout));
        let stderr = scope.spawn(|| drain(stderr));
        let ended =
            wait_for(PATIENCE, interrupt, || child.try_wait().map_err(LabError::io(format!("await {name}"))));
        if !matches!(ended, Ok(Some(_))) {
            // Its pipes close with it, which ends the two readers.
            drop(child.kill());
            drop(child.wait());
        }
        let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
        let too_slow = || LabError::TooSlow { command: name.to_owned(), seconds: PATIENCE.as_secs() };
        Ok(Output { status: ended?.ok_or_else(too_slow)?, stdout, stderr })
    })
}

fn drain(pipe: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What could be read before a failure is still worth showing.
        drop(pipe.read_to_end(&mut bytes));
    }
    bytes
}

fn failed(command: &str, answer: &Answer) -> LabError {
    let said = if answer.stderr.trim().is_empty() { &answer.stdout } else { &answer.stderr };
    let status =
        answer.code.map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit status {code}"));
    LabError::Failed { command: command.to_owned(), status, output: said.trim().to_owned() }
}

fn missing(program: &Path, source: std::io::Error) -> LabError {
    let program = program.display().to_string();
    if source.kind() == std::io::ErrorKind::NotFound {
        let remedy = "install the packages iproute2 and nftables (`scripts/packages demo` does)".to_owned();
        return LabError::MissingProgram { program, remedy };
    }
    LabError::Io { attempt: format!("start {program}"), source }
}
