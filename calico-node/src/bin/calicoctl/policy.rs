//! `calicoctl policy`: what becomes of policy on a node.

use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use calico_model::NodeName;
use calico_node::ctl::ruleset;
use calico_node::paths::Paths;
use calico_policy::iptables;
use clap::Subcommand;

use crate::outcome::Outcome;
use crate::session::Config;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print the rules that a node's agent makes of the datastore as it is.
    Render {
        /// The node [default: this one, if it is one].
        #[arg(long)]
        node: Option<NodeName>,
        /// For which of the kernel's packet filters: nft or iptables.
        #[arg(long, default_value = "nft")]
        backend: Backend,
        /// Print json instead of the backend's own language.
        #[arg(short = 'o', long, value_parser = ["json"])]
        output: Option<String>,
        #[command(flatten)]
        config: Config,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Nft,
    Iptables,
}

pub async fn run(verb: Verb) -> anyhow::Result<Outcome> {
    let Verb::Render { node, backend, output, config } = verb;
    let node = node.map_or_else(this_node, Ok)?;
    let snapshot = config.open().await?.snapshot().await?;
    if snapshot.node(&node).is_none() {
        bail!("resource does not exist: Node({node})");
    }
    let rules = calico_policy::compile(&snapshot, &node);
    let text = match (backend, output) {
        (Backend::Nft, Some(_)) => format!("{:#}\n", ruleset::to_json(&rules)),
        (Backend::Nft, None) => rules.to_string(),
        (Backend::Iptables, output) => {
            let options = iptables::Options::of(&snapshot.felix_configuration(&node));
            let program = iptables::lower(&rules, &options);
            match output {
                Some(_) => format!("{:#}\n", ruleset::program_to_json(&program)),
                None => program.to_string(),
            }
        }
    };
    // What is invalid is in the rules as far as it fails closed; whoever reads them should know.
    let errors = snapshot.invalid.iter().map(|(key, problem)| anyhow!("{key}: {problem}")).collect();
    Ok(Outcome { text, errors, status: 0 })
}

/// The node that this host is, as its agent has left it.
fn this_node() -> anyhow::Result<NodeName> {
    let file = Paths::from_env().nodename_file();
    let name = std::fs::read_to_string(file);
    let name = name.context("no agent has run on this host: say which node with --node")?;
    Ok(name.trim().parse()?)
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nft" => Ok(Self::Nft),
            "iptables" => Ok(Self::Iptables),
            _ => Err("use nft or iptables".to_owned()),
        }
    }
}
