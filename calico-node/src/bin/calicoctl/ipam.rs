//! `calicoctl ipam`: what addresses are used for.

mod check;
mod configure;
mod release;
mod show;

use calico_model::Datastore;
use calico_model::resource::block::{StoredBlock, StoredIpamConfig, all_blocks_prefix, config_key};
use clap::Subcommand;

use crate::outcome::Outcome;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show how much of each pool is used, or what an address is used for.
    Show(show::Args),
    /// Release an address.
    Release(release::Args),
    /// Compare what is allocated with what is in use.
    Check(check::Args),
    /// Change how addresses are assigned.
    Configure(configure::Args),
}

pub async fn run(verb: Verb) -> anyhow::Result<Outcome> {
    match verb {
        Verb::Show(args) => show::run(args).await,
        Verb::Release(args) => release::run(args).await,
        Verb::Check(args) => check::run(args).await,
        Verb::Configure(args) => configure::run(args).await,
    }
}

/// Reads all blocks; one that cannot be read is an error of its own.
async fn blocks(store: &dyn Datastore) -> anyhow::Result<(Vec<StoredBlock>, Vec<anyhow::Error>)> {
    let mut blocks = Vec::new();
    let mut errors = Vec::new();
    for entry in store.list(&all_blocks_prefix()).await?.entries {
        match serde_json::from_slice(&entry.value) {
            Ok(block) => blocks.push(block),
            Err(error) => errors.push(
                anyhow::Error::new(error).context(format!("the block at {} cannot be read", entry.key)),
            ),
        }
    }
    Ok((blocks, errors))
}

/// Reads the configuration; nothing stored means the defaults.
async fn configuration(store: &dyn Datastore) -> anyhow::Result<StoredIpamConfig> {
    match store.get(&config_key()).await? {
        Some(entry) => Ok(serde_json::from_slice(&entry.value)?),
        None => Ok(StoredIpamConfig::default()),
    }
}
