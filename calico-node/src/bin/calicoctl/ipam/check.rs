//! `calicoctl ipam check`.

use std::path::PathBuf;

use anyhow::Context;
use calico_model::resource::block::handles_prefix;
use calico_model::resource::{IpPool, Node, WorkloadEndpoint};
use calico_node::ctl::ipam_check::{Input, Listed, check, render, to_json};

use super::blocks;
use crate::outcome::Outcome;
use crate::session::Config;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// List every address that is in use.
    #[arg(long)]
    show_all_ips: bool,
    /// List every address with which something is wrong.
    #[arg(long)]
    show_problem_ips: bool,
    /// Write a report in JSON to this file; `json` prints it instead.
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let session = args.config.open().await?;
    let (blocks, mut errors) = blocks(session.store.as_ref()).await?;
    let mut input = Input { blocks, ..Input::default() };
    for entry in session.store.list(&handles_prefix()).await?.entries {
        match serde_json::from_slice(&entry.value) {
            Ok(handle) => input.handles.push(handle),
            Err(error) => {
                errors.push(anyhow::Error::new(error).context(format!("{} cannot be read", entry.key)))
            }
        }
    }
    input.pools = session.client.of::<IpPool>().list(None).await?.items;
    input.nodes = session.client.of::<Node>().list(None).await?.items;
    input.endpoints = session.client.of::<WorkloadEndpoint>().list(None).await?.items;
    let report = check(&input);
    let json = || format!("{:#}\n", to_json(&report));
    if args.output.as_deref().is_some_and(|path| path.as_os_str() == "json") {
        return Ok(Outcome { text: json(), errors });
    }
    if let Some(path) = &args.output {
        std::fs::write(path, json()).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let listed = match (args.show_all_ips, args.show_problem_ips) {
        (true, _) => Listed::All,
        (false, true) => Listed::Problems,
        (false, false) => Listed::None,
    };
    Ok(Outcome { text: render(&report, listed), errors })
}
