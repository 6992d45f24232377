//! `calicoctl`: look at and change the resources of a cluster.
//!
//! Each verb is a file. A verb returns what is to be printed and what went wrong; it prints nothing itself, but for
//! `get --watch`, which does not end.
#![allow(unreachable_pub, reason = "a program's modules have no public face")]

mod apply;
mod batch;
mod bgp;
mod convert;
mod create;
mod datastore;
mod delete;
mod explain;
mod get;
mod ipam;
mod label;
mod node;
mod outcome;
mod patch;
mod plan;
mod policy;
mod replace;
mod schema;
mod selector;
mod session;
mod validate;
mod version;
mod watch;
mod write;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use outcome::Outcome;

/// Look at and change the resources of a Calico cluster.
#[derive(Debug, Parser)]
#[command(name = "calicoctl", version, max_term_width = 80)]
struct Cli {
    /// How much to log: panic, fatal, error, warn, info, debug.
    #[arg(long, global = true, default_value = "panic", hide = true)]
    log_level: String,
    /// The same, before the verb.
    #[arg(short = 'l', hide = true)]
    level: Option<String>,
    /// Taken for compatibility: versions are never compared.
    #[arg(long, global = true, hide = true)]
    allow_version_mismatch: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create resources that do not exist yet.
    Create(create::Args),
    /// Create resources, or update those that exist.
    Apply(apply::Args),
    /// Update resources that exist.
    Replace(replace::Args),
    /// Delete resources by file, or by kind and name.
    Delete(delete::Args),
    /// Show resources.
    Get(get::Args),
    /// Change some fields of a resource.
    Patch(patch::Args),
    /// Set or remove a label of a resource.
    Label(label::Args),
    /// Show what applying or deleting resources would change: who reaches whom, live connections, kernels. Writes nothing.
    ///
    /// The exit status is 0 when nothing would change, 2 when something would, and 1 after an error, a wrong command line among them.
    Plan(plan::Args),
    /// Say why something passes or does not, and what would have to change.
    Explain(explain::Args),
    /// Check files without a datastore.
    Validate(validate::Args),
    /// Show resources of older versions, and of Kubernetes, as today's.
    Convert(convert::Args),
    /// Show what a resource of a kind may say, as JSON Schema.
    Schema(schema::Args),
    /// Show and change what addresses are used for.
    #[command(subcommand)]
    Ipam(ipam::Verb),
    /// Lock and unlock the datastore.
    #[command(subcommand)]
    Datastore(datastore::Verb),
    /// Look at the agent of this host.
    #[command(subcommand)]
    Node(node::Verb),
    /// Look at the BGP speaker of this host's agent.
    #[command(subcommand)]
    Bgp(bgp::Verb),
    /// Look at what becomes of policy.
    #[command(subcommand)]
    Policy(policy::Verb),
    /// Try selectors.
    #[command(subcommand)]
    Selector(selector::Verb),
    /// Show the versions of this program and of the cluster.
    Version(version::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Nobody is left to be told that the output is closed.
            let _ = usage.print();
            return ExitCode::from(usage_status(&usage));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(cli.verb)),
        Err(error) => Err(error.into()),
    };
    outcome.unwrap_or_else(Outcome::failed).print()
}

/// A wrong command line is 2 as for other programs, but for `plan`, where 2 says that something would change.
fn usage_status(usage: &clap::Error) -> u8 {
    let mut words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let verb = loop {
        match words.next() {
            // Their values come as words of their own.
            Some(option) if matches!(option.as_str(), "-l" | "--log-level") => drop(words.next()),
            Some(option) if option.starts_with('-') => {}
            verb => break verb,
        }
    };
    let plans = verb.is_some_and(|verb| verb == "plan");
    if usage.use_stderr() { if plans { 1 } else { 2 } } else { 0 }
}

async fn run(verb: Verb) -> anyhow::Result<Outcome> {
    match verb {
        Verb::Create(args) => create::run(args).await,
        Verb::Apply(args) => apply::run(args).await,
        Verb::Replace(args) => replace::run(args).await,
        Verb::Delete(args) => delete::run(args).await,
        Verb::Get(args) => get::run(args).await,
        Verb::Patch(args) => patch::run(args).await,
        Verb::Label(args) => label::run(args).await,
        Verb::Plan(args) => plan::run(args).await,
        Verb::Explain(args) => explain::run(args).await,
        Verb::Validate(args) => validate::run(&args),
        Verb::Convert(args) => convert::run(&args),
        Verb::Schema(args) => schema::run(&args),
        Verb::Ipam(verb) => ipam::run(verb).await,
        Verb::Datastore(verb) => datastore::run(verb).await,
        Verb::Node(verb) => node::run(verb).await,
        Verb::Bgp(verb) => bgp::run(verb).await,
        Verb::Policy(verb) => policy::run(verb).await,
        Verb::Selector(verb) => Ok(selector::run(verb)),
        Verb::Version(args) => version::run(args).await,
    }
}
