//! `calicoctl policy`: what becomes of policy on a node.

use anyhow::anyhow;
use calico_model::resource::Kind;
use calico_model::{NodeName, Snapshot, Update};
use clap::Subcommand;

use crate::outcome::Outcome;
use crate::session::Config;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print the nftables rules that a node's agent makes of the datastore as it is.
    Render {
        /// The node.
        #[arg(long)]
        node: NodeName,
        #[command(flatten)]
        config: Config,
    },
}

pub async fn run(verb: Verb) -> anyhow::Result<Outcome> {
    let Verb::Render { node, config } = verb;
    let session = config.open().await?;
    let mut snapshot = Snapshot::default();
    for prefix in [Kind::all_prefix(), calico_model::resource::block::all_blocks_prefix()] {
        let listing = session.store.list(&prefix).await?;
        listing.entries.iter().filter_map(Update::from_entry).for_each(|update| snapshot.apply(update));
    }
    if snapshot.node(&node).is_none() {
        return Err(anyhow!("resource does not exist: Node({node})"));
    }
    let text = calico_policy::compile(&snapshot, &node).to_string();
    // What is invalid is in the rules as far as it fails closed; whoever reads them should know.
    let errors = snapshot.invalid.iter().map(|(key, problem)| anyhow!("{key}: {problem}")).collect();
    Ok(Outcome { text, errors, status: 0 })
}
