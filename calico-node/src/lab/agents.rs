//! The agents and the other programs that run on hosts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::error::LabError;
use super::port::Port;
use super::process::{Process, end_all};
use super::state::{HostState, WorkloadState};
use super::wait::wait_for;
use super::{Lab, command, netns};
use crate::status::{self, NodeStatus, Question};

/// What of the caller's environment goes on to the programs; the rest would make a lab depend on who started it.
const PASSED_ON: [&str; 6] = ["HOME", "LANG", "LLVM_PROFILE_FILE", "RUST_BACKTRACE", "RUST_LOG", "TERM"];

/// How an agent is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By SIGTERM: it may put its things in order.
    Asked,
    /// By SIGKILL: as in a crash.
    Killed,
}

impl Lab {
    /// Starts the agent of a host, and returns without waiting for it.
    ///
    /// # Errors
    /// When there is no such host, or the program cannot be started.
    pub fn start_agent(&mut self, host: &str) -> Result<(), LabError> {
        let programs = self.programs()?.to_owned();
        let host = self.state.host(host)?.clone();
        let attempt = || LabError::io(format!("open {}", host.log.display()));
        let log = fs::File::options().create(true).append(true).open(&host.log).map_err(attempt())?;
        let mut command = program(&programs, "calico-node", &host.environment);
        command.arg("run").stdin(Stdio::null()).stdout(log.try_clone().map_err(attempt())?).stderr(log);
        let child = netns::spawn(&host.netns, detached(&mut command))?;
        let process = self.adopt(child);
        self.change(|state| {
            for planned in state.hosts.iter_mut().filter(|planned| planned.name == host.name) {
                planned.agent = process;
            }
        })
    }

    /// Ends the agent of a host and waits until it is gone. What it put into the kernel stays.
    ///
    /// # Errors
    /// When there is no such host, or its agent does not end.
    pub fn end_agent(&mut self, host: &str, ending: Ending) -> Result<(), LabError> {
        let Some(agent) = self.state.host(host)?.agent else { return Ok(()) };
        if ending == Ending::Killed {
            agent.signal(Signal::SIGKILL)?;
        }
        let failures = end_all(&[agent]);
        self.collect();
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    /// Waits until every agent has read the datastore, has programmed the kernel and has a BGP session with every other.
    ///
    /// # Errors
    /// [`LabError::NotReady`] when that takes too long; [`LabError::AgentEnded`] when one ended.
    pub fn await_mesh(&self) -> Result<(), LabError> {
        self.await_ready(&self.state.hosts, self.state.hosts.len() - 1)
    }

    /// Waits until the agent of a host has read the datastore, has programmed the kernel and has all the BGP sessions up
    /// that it knows it should have.
    ///
    /// # Errors
    /// [`LabError::NotReady`] when that takes too long; [`LabError::AgentEnded`] when it ended.
    pub fn await_agent(&self, host: &str) -> Result<(), LabError> {
        self.await_ready(std::slice::from_ref(self.state.host(host)?), 0)
    }

    fn await_ready(&self, hosts: &[HostState], least_peers: usize) -> Result<(), LabError> {
        for host in hosts {
            let mut reason = String::new();
            let ready = wait_for(self.options.patience, &self.options.interrupt, || {
                // Others wait for an agent that ended until their patience is over; it is the one to tell of.
                if let Some(ended) = hosts.iter().find(|host| !host.agent.is_some_and(Process::runs)) {
                    return Err(LabError::AgentEnded {
                        host: ended.name.clone(),
                        log: ended.log.clone(),
                        tail: tail(&ended.log),
                    });
                }
                match missing(host, least_peers) {
                    None => Ok(Some(())),
                    Some(missing) => {
                        reason = missing;
                        Ok(None)
                    }
                }
            })?;
            let seconds = self.options.patience.as_secs();
            let slow =
                || LabError::NotReady { host: host.name.clone(), seconds, reason, log: host.log.clone() };
            ready.ok_or_else(slow)?;
        }
        Ok(())
    }

    /// Asks the agent of a host how it is.
    ///
    /// # Errors
    /// When there is no such host, or its agent does not answer.
    pub fn status(&self, host: &str) -> Result<NodeStatus, LabError> {
        let host = self.state.host(host)?;
        ask(host).map_err(|reason| LabError::Answer {
            program: format!("calico-node on {}", host.name),
            reason,
            answer: String::new(),
        })
    }

    /// Runs `calicoctl` on a host with `input`, and returns what it prints.
    ///
    /// # Errors
    /// When there is no such host, or `calicoctl` fails.
    pub fn calicoctl(&self, host: &str, arguments: &[&str], input: &str) -> Result<String, LabError> {
        let host = self.state.host(host)?;
        let mut command = program(self.programs()?, "calicoctl", &host.environment);
        command.args(arguments);
        let answer = command::run(Some(&host.netns), &mut command, input, &self.options.interrupt)?;
        command::succeeded(&command::display(&command), answer)
    }

    /// Runs a program on a host or in a workload, and returns how it ended. The lab's own programs are found first.
    ///
    /// # Errors
    /// When there is no such host or workload, or the program cannot be started.
    pub fn exec(&self, member: &str, program: &str, arguments: &[&str]) -> Result<command::Answer, LabError> {
        let mut command = self.state.command(member, self.options.programs.folder(), program)?;
        command.args(arguments);
        command::run(Some(self.state.netns(member)?), &mut command, "", &self.options.interrupt)
    }

    /// Starts what answers on a workload's ports, and waits until it does.
    pub(super) fn start_responder(&mut self, workload: &WorkloadState) -> Result<(), LabError> {
        let mut command = program(self.programs()?, "calico-lab", &BTreeMap::new());
        command.arg("respond").arg(&workload.name).args(workload.listen.iter().map(Port::to_string));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = netns::spawn(&workload.netns, detached(&mut command))?;
        let stdout = child.stdout.take();
        let process = self.adopt(child);
        self.change_workload(&workload.name, |planned| planned.responder = process)?;
        let mut line = String::new();
        let attempt = format!("await the responder of {}", workload.name);
        let mut stdout = std::io::BufReader::new(stdout.expect("its output is piped, three lines above"));
        std::io::BufRead::read_line(&mut stdout, &mut line).map_err(LabError::io(attempt))?;
        if line.trim() == "ready" {
            return Ok(());
        }
        let program = format!("the responder of {}", workload.name);
        Err(LabError::Answer { program, reason: "it is not ready".to_owned(), answer: line })
    }

    fn programs(&self) -> Result<&Path, LabError> {
        self.options.programs.folder().ok_or_else(|| LabError::MissingProgram {
            program: "calico-node".to_owned(),
            remedy: "this lab was made of wires only".to_owned(),
        })
    }
}

/// Returns the program of ours in `folder` with exactly this environment.
pub(super) fn program(folder: &Path, name: &str, environment: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(folder.join(name));
    command.env_clear().env("PATH", search_path(Some(folder)));
    for name in PASSED_ON {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command.envs(environment);
    command
}

/// Returns `PATH` with the folder of our programs first.
pub(super) fn search_path(programs: Option<&Path>) -> std::ffi::OsString {
    const DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let rest = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT.into());
    let folders = programs.map(PathBuf::from).into_iter().chain(std::env::split_paths(&rest));
    std::env::join_paths(folders).unwrap_or(rest)
}

/// Returns the last lines of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Keeps a signal that a terminal sends to its foreground group away from a program.
fn detached(command: &mut Command) -> &mut Command {
    command.process_group(0)
}

/// Says what keeps an agent from being ready.
fn missing(host: &HostState, least_peers: usize) -> Option<String> {
    let status = match ask(host) {
        Ok(status) => status,
        Err(error) => return Some(error),
    };
    if !status.in_sync {
        return Some("the datastore is not read to the end".to_owned());
    }
    if !status.programmed {
        return Some(format!("the kernel is not programmed: {}", status.problems.join("; ")));
    }
    let peers = status.bgp?.peers;
    let up = peers.iter().filter(|peer| peer.state == "up").count();
    let wanted = peers.len().max(least_peers);
    (up < wanted).then(|| format!("{up} of {wanted} BGP sessions are up"))
}

fn ask(host: &HostState) -> Result<NodeStatus, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let socket = crate::paths::Paths::from_vars(|name| host.environment.get(name).cloned()).status_socket();
    let asked = runtime.block_on(async {
        let asked = status::ask::<NodeStatus>(&socket, Question::Status);
        tokio::time::timeout(Duration::from_secs(2), asked).await
    });
    asked.map_err(|_| "its agent does not answer".to_owned())?.map_err(|error| error.to_string())
}

impl Lab {
    /// Takes a child in, so that it is collected when it ends.
    fn adopt(&mut self, child: Child) -> Option<Process> {
        let process = Process::find(child.id());
        self.children.push(child);
        process
    }

    /// Collects the children that ended.
    pub(super) fn collect(&mut self) {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}
