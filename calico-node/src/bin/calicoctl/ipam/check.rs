//! `calicoctl ipam check`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use calico_node::clock;
use calico_node::ctl::ipam_check::{Listed, render};
use calico_node::ctl::ipam_report::Report;

use crate::outcome::Outcome;
use crate::session::{Config, VERSION};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// List every allocated address.
    #[arg(long)]
    show_all_ips: bool,
    /// List everything that is wrong.
    #[arg(long)]
    show_problem_ips: bool,
    /// Write a report in JSON to this file, for `calicoctl ipam release --from-report`; `json` prints it instead.
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Taken for compatibility: Kubernetes is not asked.
    #[arg(long, value_name = "FILE", hide = true)]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let session = args.config.open().await?;
    let cluster = session.cluster().await?;
    let found = calico_node::ipam::ipam(Arc::clone(&session.store)).check(clock::wall()).await?;
    let report = serde_json::to_value(Report::new(&found, cluster.as_ref(), VERSION))?;
    let errors = found.problems.iter().map(|problem| anyhow!("{problem}")).collect();
    if args.output.as_deref().is_some_and(|path| path.as_os_str() == "json") {
        return Ok(Outcome { text: format!("{report:#}\n"), errors, status: 0 });
    }
    if let Some(path) = &args.output {
        let written = std::fs::write(path, format!("{report:#}\n"));
        written.with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let listed = match (args.show_all_ips, args.show_problem_ips) {
        (true, _) => Listed::All,
        (false, true) => Listed::Problems,
        (false, false) => Listed::None,
    };
    Ok(Outcome { text: render(&found, listed), errors, status: 0 })
}
