//! `calicoctl ipam`: what addresses are used for.

mod check;
mod configure;
mod release;
mod show;
mod split;

use clap::Subcommand;

use crate::outcome::Outcome;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show how much of each pool is used, or what an address is used for.
    Show(show::Args),
    /// Release addresses: one, those of a handle, or those that a report calls leaked.
    Release(release::Args),
    /// Compare what is allocated with what is in use.
    Check(check::Args),
    /// Change how addresses are assigned.
    Configure(configure::Args),
    /// Cut a pool into smaller ones.
    Split(split::Args),
}

pub async fn run(verb: Verb) -> anyhow::Result<Outcome> {
    match verb {
        Verb::Show(args) => show::run(args).await,
        Verb::Release(args) => release::run(args).await,
        Verb::Check(args) => check::run(args).await,
        Verb::Configure(args) => configure::run(args).await,
        Verb::Split(args) => split::run(args).await,
    }
}
