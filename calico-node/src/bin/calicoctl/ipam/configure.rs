//! `calicoctl ipam configure`.

use anyhow::bail;
use calico_model::datastore::{CommitError, Precondition, Write};
use calico_model::resource::block::{StoredIpamConfig, config_key};

use crate::outcome::Outcome;
use crate::session::Config;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whether a node takes addresses only from its own blocks.
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
    strictaffinity: Option<bool>,
    /// How many blocks a node may have in each family; 0 is unlimited.
    #[arg(long)]
    max_blocks_per_host: Option<u32>,
    /// For how many seconds a released address is not assigned again.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1200))]
    ip_cooldown_seconds: Option<u32>,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    if args.strictaffinity.is_none()
        && args.max_blocks_per_host.is_none()
        && args.ip_cooldown_seconds.is_none()
    {
        bail!("name what to change: --strictaffinity, --max-blocks-per-host or --ip-cooldown-seconds");
    }
    let session = args.config.open().await?;
    session.initialize().await?;
    loop {
        let stored = session.store.get(&config_key()).await?;
        let (mut config, precondition) = match &stored {
            Some(entry) => (serde_json::from_slice(&entry.value)?, Precondition::At(entry.revision)),
            None => (StoredIpamConfig::default(), Precondition::Absent),
        };
        let text = change(&mut config, &args);
        if !config.strict_affinity && config.max_blocks_per_host > 0 {
            bail!(
                "max-blocks-per-host needs strict affinity, without which a node takes addresses of any block: add --strictaffinity=true"
            );
        }
        let write = Write::put(config_key(), serde_json::to_vec(&config)?, precondition);
        match session.store.commit(vec![write]).await {
            // Another writer came first; what it wrote is read again.
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(Outcome::text(text)),
        }
    }
}

fn change(config: &mut StoredIpamConfig, args: &Args) -> String {
    let mut text = String::new();
    if let Some(strict) = args.strictaffinity {
        config.strict_affinity = strict;
        text += &format!("Successfully set StrictAffinity to: {strict}\n");
    }
    if let Some(max) = args.max_blocks_per_host {
        config.max_blocks_per_host = max;
        text += &format!("Successfully set MaxBlocksPerHost to: {max}\n");
    }
    if let Some(seconds) = args.ip_cooldown_seconds {
        config.ip_cooldown_seconds = seconds;
        text += &format!("Successfully set IPCooldownSeconds to: {seconds}\n");
    }
    text
}
