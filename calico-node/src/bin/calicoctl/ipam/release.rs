//! `calicoctl ipam release`.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::anyhow;
use calico_ipam::{Ipam, Release};

use crate::outcome::Outcome;
use crate::session::{Config, now};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The address. Whoever still uses it loses it: see `calicoctl ipam show --ip` first.
    #[arg(long, required = true)]
    ip: Vec<IpAddr>,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let session = args.config.open().await?;
    let ipam = Ipam::new(Arc::clone(&session.store));
    let mut outcome = Outcome::default();
    for addr in args.ip {
        match ipam.release(&[Release::of(addr)], now()).await {
            Ok(released) if released.released.contains(&addr) => {
                outcome.text += &format!("Successfully released IP address {addr}\n");
            }
            Ok(_) => outcome.errors.push(anyhow!("IP address {addr} is not assigned")),
            Err(error) => outcome.errors.push(error.into()),
        }
    }
    Ok(outcome)
}
