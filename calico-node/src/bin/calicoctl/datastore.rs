//! `calicoctl datastore`: the datastore as a whole.

use calico_model::resource::{ClusterInformation, Kind};
use clap::Subcommand;
use serde_json::json;

use crate::outcome::{Outcome, Output};
use crate::session::{Config, key};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Steps around a change of the datastore itself.
    #[command(subcommand)]
    Migrate(Migrate),
}

#[derive(Debug, Subcommand)]
pub enum Migrate {
    /// Tell agents and plugins to leave the datastore alone, so that what is there does not change.
    Lock(Args),
    /// Let agents and plugins go on.
    Unlock(Args),
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    config: Config,
}

pub async fn run(verb: Verb) -> anyhow::Result<Outcome> {
    let Verb::Migrate(step) = verb;
    let (args, ready, done) = match step {
        Migrate::Lock(args) => (args, false, "Datastore locked."),
        Migrate::Unlock(args) => (args, true, "Datastore unlocked."),
    };
    let session = args.config.open().await?;
    session.initialize().await?;
    let information = key(Kind::ClusterInformation, ClusterInformation::NAME, None)?;
    let typed = session.client.of::<ClusterInformation>();
    typed.modify(&information.id, |_, cluster| cluster.datastore_ready = Some(ready)).await?;
    Ok(Outcome::text(args.output.of(|| json!({"datastoreReady": ready}), || format!("{done}\n"))))
}
