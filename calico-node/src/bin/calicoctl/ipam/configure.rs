//! `calicoctl ipam configure`.

use std::sync::Arc;

use anyhow::bail;
use calico_ipam::MAX_COOLDOWN;
use calico_model::resource::block::StoredIpamConfig;
use calico_node::clock;
use calico_node::ctl::ipam_use::configuration_json;

use crate::outcome::{Outcome, Output};
use crate::session::Config;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whether a node takes addresses only from its own blocks.
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
    strictaffinity: Option<bool>,
    /// How many blocks a node may have in each family; 0 is unlimited.
    #[arg(long)]
    max_blocks_per_host: Option<u32>,
    /// Whether a KubeVirt machine keeps its address when it moves or restarts.
    #[arg(long, value_parser = ["Enabled", "Disabled"])]
    kubevirt_ip_persistence: Option<String>,
    /// For how many seconds a released address is not assigned again.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_COOLDOWN)))]
    ip_cooldown_seconds: Option<u32>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let text = said(&args);
    if text.is_empty() {
        bail!(
            "name what to change: --strictaffinity, --max-blocks-per-host, --kubevirt-ip-persistence or \
             --ip-cooldown-seconds"
        );
    }
    let session = args.config.open().await?;
    session.initialize().await?;
    let ipam = calico_node::ipam::ipam(Arc::clone(&session.store));
    let config = ipam.configure(|config| change(config, &args), clock::wall()).await?;
    Ok(Outcome::text(args.output.of(|| configuration_json(&config), || text)))
}

fn change(config: &mut StoredIpamConfig, args: &Args) {
    config.strict_affinity = args.strictaffinity.unwrap_or(config.strict_affinity);
    config.max_blocks_per_host = args.max_blocks_per_host.unwrap_or(config.max_blocks_per_host);
    config.ip_cooldown_seconds = args.ip_cooldown_seconds.unwrap_or(config.ip_cooldown_seconds);
    if let Some(persistence) = &args.kubevirt_ip_persistence {
        config.kube_virt_vm_address_persistence = Some(persistence.clone());
    }
}

fn said(args: &Args) -> String {
    let strict = args.strictaffinity.map(|value| ("StrictAffinity", value.to_string()));
    let max = args.max_blocks_per_host.map(|value| ("MaxBlocksPerHost", value.to_string()));
    let persistence =
        args.kubevirt_ip_persistence.clone().map(|value| ("KubeVirtVMAddressPersistence", value));
    let cooldown = args.ip_cooldown_seconds.map(|value| ("IPCooldownSeconds", value.to_string()));
    let set = [strict, max, persistence, cooldown].into_iter().flatten();
    set.map(|(name, value)| format!("Successfully set {name} to: {value}\n")).collect()
}
