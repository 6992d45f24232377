//! `calicoctl ipam show`.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::anyhow;
use calico_node::clock;
use calico_node::ctl::ipam_use::{
    Detail, borrowed_json, borrowed_table, configuration_json, configuration_table, describe, describe_json,
    usage_json, usage_table,
};

use crate::outcome::{Outcome, Output};
use crate::session::Config;

#[derive(Debug, clap::Args)]
#[group(id = "what", multiple = false, args = ["ip", "show_blocks", "show_borrowed", "show_configuration"])]
pub struct Args {
    /// Say what one address is used for.
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Show the blocks of each pool.
    #[arg(long)]
    show_blocks: bool,
    /// Show the addresses that live on other nodes than their block's.
    #[arg(long)]
    show_borrowed: bool,
    /// Show the configuration of IPAM.
    #[arg(long)]
    show_configuration: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let session = args.config.open().await?;
    let ipam = calico_node::ipam::ipam(Arc::clone(&session.store));
    if let Some(addr) = args.ip {
        let held = ipam.attributes(addr, clock::wall()).await?;
        let text = args.output.of(|| describe_json(addr, held.as_ref()), || describe(addr, held.as_ref()));
        return Ok(Outcome::text(text));
    }
    if args.show_configuration {
        let config = ipam.config(clock::wall()).await?;
        let text = args.output.of(|| configuration_json(&config), || configuration_table(&config));
        return Ok(Outcome::text(text));
    }
    let found = ipam.utilisation(clock::wall()).await?;
    let text = if args.show_borrowed {
        args.output.of(|| borrowed_json(&found), || borrowed_table(&found))
    } else {
        let detail = if args.show_blocks { Detail::Blocks } else { Detail::Pools };
        args.output.of(|| usage_json(&found), || usage_table(&found, detail))
    };
    let errors = found.problems.into_iter().map(|problem| anyhow!("{problem}")).collect();
    Ok(Outcome { text, errors, status: 0 })
}
