//! `calicoctl ipam show`.

use std::net::IpAddr;
use std::sync::Arc;

use calico_ipam::Ipam;
use calico_model::resource::{IpPool, IpReservation};
use calico_node::ctl::ipam_use::{
    Detail, borrowed_table, configuration_table, describe, usage, usage_json, usage_table,
};
use serde_json::json;

use super::{blocks, configuration};
use crate::outcome::Outcome;
use crate::session::{Config, now};

#[derive(Debug, clap::Args)]
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
    /// Print JSON.
    #[arg(short = 'o', long, value_parser = ["json"])]
    output: Option<String>,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let session = args.config.open().await?;
    let as_json = args.output.is_some();
    if let Some(addr) = args.ip {
        let assignment = Ipam::new(Arc::clone(&session.store)).attributes(addr, now()).await?;
        let text = if as_json {
            let holder = assignment.map(
                |a| json!({"block": a.block.to_string(), "handle": a.handle, "attributes": a.attributes}),
            );
            format!(
                "{:#}\n",
                json!({"ip": addr.to_string(), "inUse": holder.is_some(), "assignment": holder})
            )
        } else {
            describe(addr, assignment.as_ref())
        };
        return Ok(Outcome::text(text));
    }
    if args.show_configuration {
        let config = configuration(session.store.as_ref()).await?;
        let text = if as_json {
            format!("{:#}\n", serde_json::to_value(&config)?)
        } else {
            configuration_table(&config)
        };
        return Ok(Outcome::text(text));
    }
    let (blocks, mut errors) = blocks(session.store.as_ref()).await?;
    let pools = session.client.of::<IpPool>().list(None).await?;
    let reservations = session.client.of::<IpReservation>().list(None).await?;
    for (key, error) in pools.invalid.into_iter().chain(reservations.invalid) {
        errors.push(anyhow::Error::new(error).context(format!("{key} is not counted")));
    }
    let used = usage(&pools.items, &reservations.items, &blocks);
    let text = match (as_json, args.show_borrowed) {
        (true, _) => format!("{:#}\n", usage_json(&used)),
        (false, true) => borrowed_table(&blocks),
        (false, false) => usage_table(&used, if args.show_blocks { Detail::Blocks } else { Detail::Pools }),
    };
    Ok(Outcome { text, errors })
}
