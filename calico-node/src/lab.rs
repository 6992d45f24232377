//! **The lab**: a cluster on one machine, for playing and for tests that need real packets.
//!
//! Every host and every workload is a network namespace; a router joins the hosts' subnets and knows nothing of
//! workloads. On each host runs the real `calico-node`, all share one SQLite datastore, and workloads are attached by
//! calling the real CNI programs. So what holds in a lab holds for the programs as users get them.
//!
//! ```text
//!   web ──cali…─ node1 ─eth0──┐                     ┌──eth0─ node3 ─cali…── db
//!                             br0 ── router ── br1 ─┤
//!   app ──cali…─ node2 ─eth0──┘                     └──eth0─ node4 ...
//! ```
//!
//! A lab is written down in `/run/calico-lab/NAME` before anything is made, so that another process can look at it
//! ([`LabState`]) and take it down ([`down`]), also after a crash. A [`Lab`] in hand is taken down when it is dropped,
//! unless it was told to [stay](Lab::keep). Names derive from the lab's, so several are up side by side.
//!
//! ```no_run
//! use std::str::FromStr;
//!
//! use calico_node::lab::{Lab, LabOptions, Topology};
//!
//! let topology = Topology::from_str("{name: tiny, subnets: [{name: a, cidr: 10.1.0.0/24, gateway: 10.1.0.254}], \
//!     hosts: [{name: node1, address: 10.1.0.1}], pools: [{cidr: 192.168.0.0/16}], \
//!     workloads: [{name: web, host: node1, listen: [80]}, {name: app, host: node1}]}")?;
//! let lab = Lab::up(&topology, LabOptions::default())?;
//! let web = lab.address("web")?;
//! println!("{:?}", lab.probe_tcp("app", web, 80)?);
//! # Ok::<(), calico_node::lab::LabError>(())
//! ```

mod agents;
mod build;
mod capture;
mod cni;
mod command;
pub mod conformance;
mod down;
mod error;
mod fields;
mod kernel;
mod matrix;
mod netns;
mod options;
mod plain;
mod port;
mod probe;
mod process;
mod responder;
mod state;
mod stream;
mod topology;
mod traffic;
mod wait;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use calico_model::Family;

pub use agents::{Ending, tail};
pub use capture::{Capture, IPIP, IpHeader, Packet, UDP};
pub use cni::CniVerb;
pub use command::Answer;
pub use down::down;
pub use error::{LabError, TopologyError};
pub use kernel::{KernelEvents, KernelObjects};
pub use matrix::{Expectation, Matrix};
pub use options::{LabOptions, Programs};
pub use port::{Port, PortError};
pub use probe::{Probe, Verdict};
pub use process::Process;
pub use responder::respond;
pub use state::{HostState, LabState, WorkloadState};
pub use stream::{Stream, StreamCount};
pub use topology::{LabName, Topology};
pub use traffic::{Traffic, TrafficCount};
pub use wait::{Interrupt, Stopwatch};

use state::Reservation;
use topology::Manifest;

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    state: LabState,
    options: LabOptions,
    children: Vec<Child>,
    fate: Fate,
}

/// What becomes of a lab when it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    TakenDown,
    Stays,
}

impl Lab {
    /// Makes a lab, and returns when its agents are ready and its workloads attached.
    ///
    /// # Errors
    /// When not root, when names are taken, or when a part cannot be made. Nothing is left behind then but the logs,
    /// which [`LabError::Up`] names.
    pub fn up(topology: &Topology, options: LabOptions) -> Result<Self, LabError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let options = LabOptions { programs: options.programs.resolve(), ..options };
        options.programs.check()?;
        let mut lab = Self::reserve(topology, options)?;
        match lab.fill(topology) {
            Ok(()) => Ok(lab),
            Err(LabError::Interrupted) => Err(LabError::Interrupted),
            Err(source) => Err(LabError::Up { logs: lab.salvage_logs(), source: Box::new(source) }),
        }
    }

    /// Takes the names, and makes namespaces and wires.
    fn reserve(topology: &Topology, options: LabOptions) -> Result<Self, LabError> {
        (options.progress)("namespaces, wires and the router");
        let state = LabState::plan(topology);
        let reservation = Reservation::take()?;
        if state.folder().exists() {
            return Err(LabError::Exists { name: state.name });
        }
        if let Some(netns) = state.namespaces().find(|netns| netns::exists(netns)) {
            return Err(taken(netns));
        }
        state.claim()?;
        let lab = Self { state, options, children: Vec::new(), fate: Fate::TakenDown };
        build::build(topology, &lab.state)?;
        drop(reservation);
        lab.options.interrupt.check()?;
        Ok(lab)
    }

    fn fill(&mut self, topology: &Topology) -> Result<(), LabError> {
        if self.options.programs.folder().is_none() {
            return Ok(());
        }
        let hosts: Vec<String> = self.state.hosts.iter().map(|host| host.name.clone()).collect();
        let pools = topology.pool_manifest();
        if !pools.is_empty() {
            self.apply(&pools)?;
        }
        (self.options.progress)("calico-node on each host");
        for host in &hosts {
            self.options.interrupt.check()?;
            self.start_agent(host)?;
        }
        self.await_mesh()?;
        for manifest in &topology.manifests {
            match manifest {
                Manifest::File(path) => {
                    drop(self.calicoctl(&hosts[0], &["apply", "-f", &path.display().to_string()], "")?)
                }
                Manifest::Inline(value) => self.apply(&value.to_string())?,
            }
        }
        (self.options.progress)("workloads, attached by CNI");
        for workload in self.state.workloads.clone() {
            self.options.interrupt.check()?;
            self.start_responder(&workload)?;
        }
        self.attach_all()
    }

    /// Applies resources, given as YAML or JSON.
    ///
    /// # Errors
    /// When `calicoctl` refuses them.
    pub fn apply(&self, manifest: &str) -> Result<(), LabError> {
        let host = &self.state.hosts[0].name;
        self.calicoctl(host, &["apply", "-f", "-"], manifest).map(drop)
    }

    /// Returns what is written down of the lab.
    #[must_use]
    pub fn state(&self) -> &LabState {
        &self.state
    }

    /// Returns the address of a workload.
    ///
    /// # Errors
    /// [`LabError::NoSuchMember`] when there is no such workload, or it is not attached.
    pub fn address(&self, workload: &str) -> Result<IpAddr, LabError> {
        let workload = self.state.workload(workload)?;
        workload.address.ok_or_else(|| LabError::NotAttached { workload: workload.name.clone() })
    }

    /// Returns the address of a workload in one family.
    ///
    /// # Errors
    /// [`LabError::NoSuchMember`] when there is no such workload, or it is not attached with such an address.
    pub fn address_in(&self, workload: &str, family: Family) -> Result<IpAddr, LabError> {
        let workload = self.state.workload(workload)?;
        let attached = workload.attachment.as_ref().filter(|_| workload.address.is_some());
        attached
            .and_then(|result| cni::addresses(result).find(|address| Family::of(*address) == family))
            .ok_or_else(|| LabError::NotAttached { workload: workload.name.clone() })
    }

    /// Lets the lab stay up when this value is dropped.
    pub fn keep(mut self) {
        self.fate = Fate::Stays;
    }

    /// Takes the lab down.
    ///
    /// # Errors
    /// [`LabError::LeftBehind`] with all that could not be removed.
    pub fn down(mut self) -> Result<(), LabError> {
        self.take_down()
    }

    /// Copies the agents' logs to where they outlive the lab, and returns that folder, which is new and root's alone.
    #[must_use]
    pub fn salvage_logs(&self) -> PathBuf {
        let template = std::env::temp_dir().join(format!("calico-lab-{}-XXXXXX", self.state.name));
        // Logs that cannot be kept must not hide why the lab failed.
        let Ok(folder) = nix::unistd::mkdtemp(&template) else { return template };
        for host in &self.state.hosts {
            drop(fs::copy(&host.log, folder.join(format!("{}.log", host.name))));
        }
        folder
    }

    fn take_down(&mut self) -> Result<(), LabError> {
        self.fate = Fate::Stays;
        let gone = self.state.take_down();
        self.collect();
        gone
    }

    fn change_workload(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut WorkloadState),
    ) -> Result<(), LabError> {
        self.change(|state| {
            if let Some(planned) = state.workloads.iter_mut().find(|planned| planned.name == name) {
                change(planned);
            }
        })
    }

    fn change(&mut self, change: impl FnOnce(&mut LabState)) -> Result<(), LabError> {
        change(&mut self.state);
        self.state.save()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.fate == Fate::TakenDown
            && let Err(error) = self.take_down()
        {
            tracing::error!(%error, "the lab could not be taken down");
        }
    }
}

impl LabState {
    /// Returns a program to be run on a host or in a workload, with the environment that belongs there: on a host that
    /// of its agent, everywhere the lab's programs first in `PATH`.
    ///
    /// # Errors
    /// [`LabError::NoSuchMember`] when there is none of that name.
    pub fn command(&self, member: &str, programs: Option<&Path>, program: &str) -> Result<Command, LabError> {
        self.netns(member)?;
        let mut command = Command::new(program);
        command.env("PATH", agents::search_path(programs));
        if let Ok(host) = self.host(member) {
            command.envs(&host.environment);
        }
        Ok(command)
    }

    /// Becomes `command` in the namespace of a host or workload; returns only when that fails. The caller must have one
    /// thread.
    #[must_use]
    pub fn become_program(&self, member: &str, command: &mut Command) -> LabError {
        match self.netns(member) {
            Ok(netns) => netns::become_program(netns, command),
            Err(error) => error,
        }
    }
}

fn taken(netns: &str) -> LabError {
    let owner = LabState::names()
        .unwrap_or_default()
        .into_iter()
        .find(|name| LabState::read(name).is_ok_and(|state| state.namespaces().any(|known| known == netns)));
    let netns = netns.to_owned();
    match owner {
        Some(owner) => LabError::NetnsOfLab { netns, owner: owner.as_str().to_owned() },
        None => LabError::NetnsTaken { netns },
    }
}
