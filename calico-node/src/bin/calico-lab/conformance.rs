//! `calico-lab conformance`

use std::path::PathBuf;

use calico_node::lab::Interrupt;
use calico_node::lab::conformance::{self, Backend, Hosts, Options};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file of cases, or a folder with such files in it.
    #[arg(long, value_name = "FILE|DIR")]
    cases: PathBuf,
    /// Who decides: evaluate or simulate (no packets), nftables, iptables-legacy or iptables-nft.
    #[arg(long, default_value = "nftables")]
    backend: Backend,
    /// Over how many hosts the pods are spread: 1 or 2.
    #[arg(long, default_value = "1")]
    nodes: Hosts,
    /// Replay one of so many cases, always the same ones.
    #[arg(long, value_name = "N", default_value_t = 1)]
    one_in: u64,
    /// Replay the case of this id alone.
    #[arg(long, value_name = "ID")]
    only: Option<String>,
}

pub(crate) fn run(args: Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut options = Options::new(args.cases, args.backend).hosts(args.nodes).one_in(args.one_in);
    if let Some(id) = args.only {
        options = options.only(id);
    }
    let reports = conformance::run(&options, interrupt)?;
    reports.iter().for_each(|report| println!("{report}"));
    let passed: usize = reports.iter().map(|report| report.passed).sum();
    let failed: usize = reports.iter().map(|report| report.failures.len()).sum();
    println!("{passed} passed, {failed} failed");
    anyhow::ensure!(failed == 0, "{failed} of {} probes came out otherwise than expected", passed + failed);
    Ok(())
}
