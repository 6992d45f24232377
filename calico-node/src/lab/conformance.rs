//! **Conformance**: known cases of policy, replayed, on every level there is.
//!
//! A case says who may reach whom after which changes. It is asked of the resources (`evaluate`), of the compiled rules
//! (`simulate`), or of a real kernel, with TCP, UDP and SCTP packets between namespaces on one host or on two
//! (`nftables`, and `iptables-legacy` and `iptables-nft`). Two forms of cases are read: `policy-truth-table/v1`, and the manifests of the network-policy-api with
//! their expected results.
//!
//! ```no_run
//! use calico_node::lab::Interrupt;
//! use calico_node::lab::conformance::{Backend, Filter, Hosts, Options, run};
//!
//! let options = Options::new("cases/truth-table.json", Backend::Kernel(Filter::Nftables)).hosts(Hosts::Two);
//! for report in run(&options, &Interrupt::default())? {
//!     println!("{report}");
//! }
//! # Ok::<(), calico_node::lab::conformance::ConformanceError>(())
//! ```

mod ask;
mod atomicity;
mod cases;
mod error;
mod network_policy_api;
mod prober;
mod replay;
mod report;
mod scene;
mod stage;
mod truth_table;

use std::path::PathBuf;
use std::str::FromStr;

pub use atomicity::{Method, Storm, Toll, storm};
pub use error::ConformanceError;
pub use report::{Failure, Report};

use calico_policy::iptables::Variant;

use super::wait::{Interrupt, Stopwatch};
use ask::{Oracle, World};
use cases::Suite;
use scene::Placement;

/// Who decides about a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// The resources themselves.
    Evaluate,
    /// The compiled rules, without a kernel.
    Simulate,
    /// A packet filter of the kernel.
    Kernel(Filter),
}

/// A packet filter of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Nftables.
    Nftables,
    /// Iptables in one of its variants, with ipset.
    Iptables(Variant),
}

/// Over how many hosts the pods of a case are spread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hosts {
    /// All are on one.
    #[default]
    One,
    /// Half are on each of two.
    Two,
}

/// What is to be replayed, and how.
#[derive(Debug, Clone)]
pub struct Options {
    cases: PathBuf,
    backend: Backend,
    hosts: Hosts,
    only: Option<String>,
    one_in: u64,
}

impl Options {
    /// Replays the cases of a file, or of the files in a folder, on one host.
    #[must_use]
    pub fn new(cases: impl Into<PathBuf>, backend: Backend) -> Self {
        Self { cases: cases.into(), backend, hosts: Hosts::One, only: None, one_in: 1 }
    }

    /// Spreads the pods over hosts.
    #[must_use]
    pub fn hosts(self, hosts: Hosts) -> Self {
        Self { hosts, ..self }
    }

    /// Replays one of so many cases, always the same ones: those whose id says so, and the first of each file.
    #[must_use]
    pub fn one_in(self, one_in: u64) -> Self {
        Self { one_in: one_in.max(1), ..self }
    }

    /// Replays the case of one id alone.
    #[must_use]
    pub fn only(self, id: impl Into<String>) -> Self {
        Self { only: Some(id.into()), ..self }
    }
}

/// Replays cases; returns one report for each file of them.
///
/// # Errors
/// When cases cannot be read, or packets cannot be sent. A probe that comes out otherwise than expected is none: it is in
/// the report.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<Vec<Report>, ConformanceError> {
    let decider = match options.backend {
        Backend::Evaluate => Decider::Oracle(|_| Ok(Oracle::Resources)),
        Backend::Simulate => Decider::Oracle(|world| world.rules()),
        Backend::Kernel(filter) => Decider::Kernel(filter),
    };
    let mut suites = Suite::read_all(&options.cases)?;
    match &options.only {
        Some(id) => Suite::only(&mut suites, id)?,
        None => suites.iter_mut().for_each(|suite| suite.one_in(options.one_in)),
    }
    if matches!(decider, Decider::Kernel(_)) && !nix::unistd::geteuid().is_root() {
        return Err(ConformanceError::NotRoot);
    }
    let mut reports = Vec::new();
    for suite in &suites {
        let steps = suite.cases.iter().flat_map(|case| &case.steps);
        let placement = Placement::of(options.hosts, steps.flat_map(|step| step.scene.pods.keys()));
        reports.push(match decider {
            Decider::Oracle(choice) => ask_all(suite, choice, &placement, interrupt)?,
            Decider::Kernel(filter) => replay::replay(suite, filter, &placement, interrupt)?,
        });
    }
    Ok(reports)
}

/// Who decides, ready to be asked.
#[derive(Clone, Copy)]
enum Decider {
    Oracle(Choice),
    Kernel(Filter),
}

/// Chooses who answers without packets.
type Choice = fn(&World<'_>) -> Result<Oracle, String>;

fn ask_all(
    suite: &Suite,
    choice: Choice,
    placement: &Placement,
    interrupt: &Interrupt,
) -> Result<Report, ConformanceError> {
    let clock = Stopwatch::start();
    let mut report = Report::new(suite.path.clone());
    for case in &suite.cases {
        interrupt.check()?;
        let wrong = |reason| ConformanceError::Case { case: case.id.clone(), reason };
        for step in &case.steps {
            let world = World::of(step, placement).map_err(wrong)?;
            let oracle = choice(&world).map_err(wrong)?;
            for probe in &step.probes {
                let verdict = world.ask(&oracle, probe).map_err(wrong)?;
                if verdict == probe.verdict {
                    report.passed += 1;
                } else {
                    let explanation = world.explain(probe);
                    report.failures.push(Failure::new(&case.id, &step.name, probe, verdict, explanation));
                }
            }
        }
    }
    report.took = clock.elapsed();
    Ok(report)
}

impl Hosts {
    /// Returns how many.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Hosts::One => 1,
            Hosts::Two => 2,
        }
    }
}

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1" => Ok(Self::One),
            "2" => Ok(Self::Two),
            _ => Err("cases are replayed on 1 host or on 2".to_owned()),
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "evaluate" => Ok(Self::Evaluate),
            "simulate" => Ok(Self::Simulate),
            kernel => kernel
                .parse()
                .map(Self::Kernel)
                .map_err(|problem: String| problem.replacen("use ", "use evaluate, simulate, ", 1)),
        }
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nftables" => Ok(Self::Nftables),
            "iptables-legacy" => Ok(Self::Iptables(Variant::Legacy)),
            "iptables-nft" => Ok(Self::Iptables(Variant::Nft)),
            _ => Err("use nftables, iptables-legacy or iptables-nft".to_owned()),
        }
    }
}
