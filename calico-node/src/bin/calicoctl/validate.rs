//! `calicoctl validate`: check files without a datastore.

use std::path::PathBuf;

use crate::batch::{Files, InNamespace, Order};
use crate::outcome::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    namespace: InNamespace,
    /// Taken for compatibility: no datastore is asked.
    #[arg(short = 'c', long, hide = true)]
    config: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let (mut batch, documents) = args.files.read(args.namespace.namespace.as_ref(), Order::Creation)?;
    for document in documents {
        batch.settle(document.check_input().map(|_| ()).map_err(Into::into));
    }
    Ok(batch.outcome("validated"))
}
