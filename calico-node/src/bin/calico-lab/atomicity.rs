//! `calico-lab atomicity`

use calico_node::lab::Interrupt;
use calico_node::lab::conformance::{Filter, Method, Storm, storm};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose rules are replaced: nftables, iptables-legacy or iptables-nft.
    #[arg(long, default_value = "nftables")]
    backend: Filter,
    /// How often the rules are replaced.
    #[arg(long, default_value_t = 500)]
    replacements: usize,
    /// New flows a second that are allowed, and as many that are denied.
    #[arg(long, default_value_t = 2500)]
    flows: u64,
    /// Remove the rules before each replacement, which must show: it proves that the count can see it.
    #[arg(long)]
    remove_first: bool,
}

pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    let Args { backend: filter, replacements, flows, remove_first } = *args;
    let method = if remove_first { Method::RemoveThenWrite } else { Method::Transaction };
    let toll = storm(&Storm { filter, replacements, flows, method }, interrupt)?;
    println!("{toll}");
    anyhow::ensure!(toll.lost == 0 && toll.leaked == 0, "the rules were not replaced all at once");
    Ok(())
}
