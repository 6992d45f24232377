//! `calicoctl ipam release`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use calico_ipam::{Finding, Ipam, Release};
use calico_node::clock;
use calico_node::ctl::ipam_report::{Report, still_leaked};
use serde_json::json;

use crate::outcome::{Outcome, Output};
use crate::session::{Config, Session};

#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, args = ["ip", "handle", "from_report"])]
pub struct Args {
    /// An address. Whoever still uses it loses it: see `calicoctl ipam show --ip` first. May be repeated.
    #[arg(long)]
    ip: Vec<IpAddr>,
    /// All addresses of a handle. May be repeated.
    #[arg(long)]
    handle: Vec<String>,
    /// What a report of `calicoctl ipam check -o` calls leaked, as far as it still is. May be repeated: then only what
    /// all reports call leaked, so that one made a while ago rules out what was only on its way.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ip", "handle"])]
    from_report: Vec<PathBuf>,
    /// With reports: go on although the datastore is not locked.
    #[arg(long, requires = "from_report")]
    force: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let session = args.config.open().await?;
    let ipam = calico_node::ipam::ipam(Arc::clone(&session.store));
    if !args.from_report.is_empty() {
        return from_reports(&session, &ipam, &args).await;
    }
    let (mut outcome, mut freed) = (Outcome::default(), Vec::new());
    let mut said = String::new();
    for addr in &args.ip {
        match ipam.release(&[Release::of(*addr)], clock::wall()).await {
            Ok(released) if released.released.contains(addr) => {
                said += &format!("Successfully released IP address {addr}\n");
                freed.push(addr.to_string());
            }
            Ok(_) => outcome.errors.push(anyhow!("IP address {addr} is not assigned")),
            Err(error) => outcome.errors.push(error.into()),
        }
    }
    for handle in &args.handle {
        match ipam.release_by_handle(handle, clock::wall()).await {
            Ok(released) if released.released.is_empty() => {
                outcome.errors.push(anyhow!("handle {handle:?} holds no addresses"));
            }
            Ok(released) => {
                for addr in released.released {
                    said += &format!("Successfully released IP address {addr}\n");
                    freed.push(addr.to_string());
                }
            }
            Err(error) => outcome.errors.push(error.into()),
        }
    }
    outcome.text = args.output.of(|| json!({"released": freed}), || said);
    Ok(outcome)
}

async fn from_reports(session: &Session, ipam: &Ipam, args: &Args) -> anyhow::Result<Outcome> {
    let reports: Vec<Report> =
        args.from_report.iter().map(|path| read(path)).collect::<anyhow::Result<_>>()?;
    let cluster = session.cluster().await?.map(|cluster| cluster.spec.cluster_guid).unwrap_or_default();
    for (path, report) in args.from_report.iter().zip(&reports) {
        if report.cluster_guid != cluster {
            bail!("{} is of another cluster: nothing was released", path.display());
        }
    }
    if !args.force && !session.is_locked().await? {
        bail!("the datastore is not locked: run `calicoctl datastore migrate lock` first, or add --force");
    }
    let found = ipam.check(clock::wall()).await?;
    let (plan, mut kept) = still_leaked(&reports, &found);
    let done = ipam.reclaim(&plan, clock::wall()).await?;
    kept += done.kept.iter().filter(|finding| matches!(finding, Finding::LeakedAddress { .. })).count();
    let freed: Vec<IpAddr> = done.mended.iter().filter_map(address).collect();
    let handles = done.mended.len() - freed.len();
    let text = || {
        let mut text = format!("Released {} IPs and mended {handles} handles.\n", freed.len());
        if kept > 0 {
            text += &format!(
                "Left {kept} IPs alone: they are in use again, assigned anew or released already.\n"
            );
        }
        text
    };
    let addrs: Vec<String> = freed.iter().map(ToString::to_string).collect();
    let text = args.output.of(|| json!({"released": addrs, "mendedHandles": handles, "left": kept}), text);
    let errors = found.problems.into_iter().map(|problem| anyhow!("{problem}")).collect();
    Ok(Outcome { text, errors, status: 0 })
}

fn address(finding: &Finding) -> Option<IpAddr> {
    if let Finding::LeakedAddress { addr, .. } = finding { Some(*addr) } else { None }
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not a report of `calicoctl ipam check -o`", path.display()))
}
