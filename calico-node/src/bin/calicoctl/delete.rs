//! `calicoctl delete`: by file, or by kind and name, with all that hangs on what is deleted.

use anyhow::bail;
use calico_model::datastore::client::ClientError;
use calico_model::resource::{Kind, ResourceKey};
use calico_node::clock;
use calico_node::ctl::cascade;

use crate::batch::{Batch, Files, InNamespace, Order};
use crate::outcome::Outcome;
use crate::session::{Config, Session, key};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kind of the resources.
    #[arg(conflicts_with = "files")]
    kind: Option<Kind>,
    /// The names of the resources.
    #[arg(requires = "kind")]
    names: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Let resources that do not exist be.
    #[arg(short = 's', long)]
    skip_not_exists: bool,
    #[command(flatten)]
    namespace: InNamespace,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let namespace = args.namespace.namespace.as_ref();
    let (mut batch, documents) = match args.kind {
        None if args.files.files.is_empty() => bail!("name a kind and what to delete, or a file with -f"),
        None => args.files.read(namespace, Order::Deletion)?,
        Some(kind) if args.names.is_empty() => bail!("name the {kind} to delete"),
        Some(kind) => (Batch::of(kind), Vec::new()),
    };
    let session = args.config.open().await?;
    for document in documents {
        let result = match document.key() {
            Some(key) => remove(&session, &key, args.skip_not_exists).await,
            None => document.check().map(|_| ()).map_err(Into::into),
        };
        batch.settle(result);
    }
    for (kind, name) in args.kind.into_iter().flat_map(|kind| args.names.iter().map(move |name| (kind, name)))
    {
        let result = match key(kind, name, namespace) {
            Ok(key) => remove(&session, &key, args.skip_not_exists).await,
            Err(error) => Err(error),
        };
        batch.attempt(result);
    }
    Ok(batch.outcome("deleted"))
}

async fn remove(session: &Session, key: &ResourceKey, skip_not_exists: bool) -> anyhow::Result<()> {
    let removed = async {
        match session.client.get(key).await {
            Ok(_) => cascade::before_deletion(&session.client, key, clock::wall()).await?,
            // What cannot be read has nothing that goes with it, and can be deleted all the same.
            Err(ClientError::Corrupt { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        session.client.delete(key, None).await?;
        anyhow::Ok(())
    };
    match removed.await {
        Err(error)
            if skip_not_exists && matches!(error.downcast_ref(), Some(ClientError::NotFound { .. })) =>
        {
            Ok(())
        }
        done => done,
    }
}
