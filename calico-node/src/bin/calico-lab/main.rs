//! `calico-lab`: clusters on one machine.

mod atomicity;
mod blackout;
mod conformance;
mod demo;
mod down;
mod drift;
mod exec;
mod list;
mod throughput;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use calico_node::lab::{Interrupt, LabName, Port, respond};
use clap::{Parser, Subcommand};

/// Clusters on one machine: every host and workload is a network namespace, and runs the real programs.
#[derive(Debug, Parser)]
#[command(name = "calico-lab", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the whole system at work on three hosts, and check that it does what it should.
    Demo {
        /// Leave the hosts up.
        #[arg(long)]
        keep: bool,
    },
    /// Restart agents under a steady stream of datagrams between two hosts, and count what is lost.
    Blackout(blackout::Blackout),
    /// Change what an agent laid in a host's kernel, at random, and wait until it has put it right.
    Drift(drift::Drift),
    /// Measure TCP between workloads on two hosts, beside the same path with no agent and no rules. Needs iperf3.
    Throughput(throughput::Throughput),
    /// Make a lab from a topology file, and leave it up.
    #[command(after_long_help = up::EXAMPLE)]
    Up {
        /// The topology, in YAML.
        topology: PathBuf,
        /// The lab's name, instead of the topology's.
        #[arg(long)]
        name: Option<LabName>,
        /// Make the namespaces and the wires only, and start no program.
        #[arg(long)]
        wires_only: bool,
    },
    /// Take a lab down, also what a crash left of one.
    Down {
        /// The lab's name; needed when more than one is up.
        name: Option<LabName>,
    },
    /// List the labs that are up.
    List,
    /// Run a program on a host or in a workload.
    Exec {
        /// The lab's name; needed when more than one has a member of that name.
        #[arg(long)]
        name: Option<LabName>,
        /// The host or workload.
        member: String,
        /// The program and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Replay known cases of policy, and tell what came out otherwise than expected.
    Conformance(conformance::Args),
    /// Replace rules under new flows, and count what is lost or leaks.
    Atomicity(atomicity::Args),
    /// Answer on ports with a name.
    #[command(hide = true)]
    Respond {
        /// What to answer.
        name: String,
        /// Where.
        ports: Vec<Port>,
    },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let done = match Arguments::parse().verb {
        Verb::Demo { keep } => demo::run(keep, &on_signals()),
        Verb::Blackout(arguments) => blackout::run(&arguments, &on_signals()),
        Verb::Drift(arguments) => drift::run(&arguments, &on_signals()),
        Verb::Throughput(arguments) => throughput::run(&arguments, &on_signals()),
        Verb::Up { topology, name, wires_only } => up::run(&topology, name, wires_only, on_signals()),
        Verb::Down { name } => down::run(name),
        Verb::List => list::run(),
        Verb::Exec { name, member, command } => exec::run(name, &member, &command),
        Verb::Atomicity(args) => atomicity::run(&args, &on_signals()),
        Verb::Conformance(args) => conformance::run(args, &on_signals()),
        Verb::Respond { name, ports } => respond(&name, &ports).map_err(anyhow::Error::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns what is raised by Ctrl-C and SIGTERM, so that whatever is under way stops and is taken down.
fn on_signals() -> Interrupt {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = Interrupt::default();
    let raised = interrupt.clone();
    let listen = move || -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            loop {
                tokio::select! {
                    interrupted = tokio::signal::ctrl_c() => interrupted?,
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                raised.raise();
            }
        })
    };
    std::thread::spawn(move || {
        if let Err(error) = listen() {
            eprintln!("signals are not heard, so take the lab down with `calico-lab down`: {error}");
        }
    });
    interrupt
}
