//! `calicoctl policy`: what becomes of policy on a node.

use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use calico_model::resource::Object;
use calico_model::resource::felix::NftablesMode;
use calico_model::{NodeName, Snapshot};
use calico_node::ctl::ruleset;
use calico_policy::iptables::{self, Choice};
use clap::Subcommand;

use crate::outcome::Outcome;
use crate::session::{Config, this_node};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print the rules that a node's agent makes of the datastore as it is.
    Render {
        /// The node [default: this one, if it is one].
        #[arg(long)]
        node: Option<NodeName>,
        /// For which of the kernel's packet filters, nft or iptables, as if the configuration asked for that [default: the one that the
        /// configuration asks for].
        #[arg(long)]
        backend: Option<Backend>,
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
    let node = match node {
        Some(node) => node,
        None => this_node().context("say which node with --node")?,
    };
    let mut snapshot = config.open().await?.snapshot().await?;
    if snapshot.node(&node).is_none() {
        bail!("resource does not exist: Node({node})");
    }
    let configured = match Choice::of(&snapshot.felix_configuration(&node)) {
        Choice::Nftables => Backend::Nft,
        Choice::Iptables(_) | Choice::IptablesAsOthers => Backend::Iptables,
    };
    let backend = backend.unwrap_or(configured);
    if backend != configured {
        choose(&mut snapshot, &node, backend)?;
    }
    let rules = calico_policy::compile(&snapshot, &node);
    let warned: String = rules.warnings.iter().map(|warning| format!("# {warning}\n")).collect();
    let text = match (backend, output) {
        (Backend::Nft, Some(_)) => format!("{:#}\n", ruleset::to_json(&rules)),
        (Backend::Nft, None) => format!("{warned}{rules}"),
        (Backend::Iptables, output) => {
            let options = iptables::Options::of(&snapshot.felix_configuration(&node));
            let program = iptables::lower(&rules, &options);
            match output {
                Some(_) => format!("{:#}\n", ruleset::program_to_json(&program, &rules.warnings)),
                None => format!("{warned}{program}"),
            }
        }
    };
    // What is invalid is in the rules as far as it fails closed; whoever reads them should know.
    let errors = snapshot.invalid.iter().map(|(key, problem)| anyhow!("{key}: {problem}")).collect();
    Ok(Outcome { text, errors, status: 0 })
}

/// Has a node's configuration ask for a packet filter: what is denied, and how, hangs on it.
fn choose(snapshot: &mut Snapshot, node: &NodeName, backend: Backend) -> anyhow::Result<()> {
    let mut felix = snapshot.felix_configuration(node);
    felix.nftables_mode = Some(match backend {
        Backend::Nft => NftablesMode::Enabled,
        Backend::Iptables => NftablesMode::Disabled,
    });
    snapshot.insert(Object::new(format!("node.{node}").parse()?, felix));
    Ok(())
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
