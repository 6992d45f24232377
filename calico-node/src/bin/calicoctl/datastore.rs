//! `calicoctl datastore`: the datastore as a whole.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::bail;
use calico_model::datastore::{Key, Precondition, Prefix, Write};
use calico_model::resource::{ClusterInformation, Kind};
use calico_node::ctl::migrate;
use clap::Subcommand;
use serde_json::json;

use crate::outcome::{Outcome, Output};
use crate::session::{Config, key, read_text};

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
    /// Print all that is stored, for `import` into another datastore; what it does not know stops it. Wants the lock.
    Export(Export),
    /// Store all that `export` printed in an empty datastore, which stays locked. May be repeated.
    Import(Import),
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    config: Config,
}

#[derive(Debug, clap::Args)]
pub struct Export {
    #[command(flatten)]
    config: Config,
}

#[derive(Debug, clap::Args)]
pub struct Import {
    /// What `export` printed; - is standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE|-")]
    text: PathBuf,
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
        Migrate::Export(args) => return export(args).await,
        Migrate::Import(args) => return import(args).await,
    };
    let session = args.config.open().await?;
    session.initialize().await?;
    let information = key(Kind::ClusterInformation, ClusterInformation::NAME, None)?;
    let typed = session.client.of::<ClusterInformation>();
    typed.modify(&information.id, |_, cluster| cluster.datastore_ready = Some(ready)).await?;
    Ok(Outcome::text(args.output.of(|| json!({"datastoreReady": ready}), || format!("{done}\n"))))
}

async fn export(args: Export) -> anyhow::Result<Outcome> {
    let session = args.config.open().await?;
    if !session.is_locked().await? {
        bail!("the datastore may change meanwhile: run calicoctl datastore migrate lock first");
    }
    let entries = session.store.list(&Prefix::new("/calico/")?).await?.entries;
    Ok(Outcome::text(migrate::export(&entries)?))
}

async fn import(args: Import) -> anyhow::Result<Outcome> {
    let wanted = migrate::import(&read_text(&args.text)?)?;
    let session = args.config.open().await?;
    // Whatever is there must have come from here, in an earlier attempt.
    let there = session.store.list(&Prefix::new("/calico/")?).await?.entries;
    let total = wanted.len();
    let mut missing: BTreeMap<&Key, &Vec<u8>> = wanted.iter().map(|(key, value)| (key, value)).collect();
    for entry in there {
        match missing.remove(&entry.key) {
            Some(value) if same(value, &entry.value) => {}
            _ => bail!("the datastore is not empty: it has {}", entry.key),
        }
    }
    for (key, value) in wanted.iter().filter(|(key, _)| missing.contains_key(key)) {
        session.store.commit(vec![Write::put(key.clone(), value.clone(), Precondition::Absent)]).await?;
    }
    let done =
        || format!("Imported {total} entries. The datastore is locked: calicoctl datastore migrate unlock\n");
    Ok(Outcome::text(args.output.of(|| json!({"entries": total}), done)))
}

/// JSON says the same in whatever order.
fn same(one: &[u8], other: &[u8]) -> bool {
    let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    one == other || value(one).is_some_and(|one| Some(one) == value(other))
}
