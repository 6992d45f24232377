//! `calicoctl delete`: by file, or by kind and name, with all that hangs on what is deleted.

use anyhow::bail;
use calico_model::Revision;
use calico_model::datastore::client::ClientError;
use calico_model::resource::{Document, Kind, ResourceKey};
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
            Some(key) => match revision(&document) {
                Ok(at) => remove(&session, &key, at, args.skip_not_exists).await,
                Err(error) => Err(error),
            },
            None => document.check().map(|_| ()).map_err(Into::into),
        };
        batch.settle(result);
    }
    for (kind, name) in args.kind.into_iter().flat_map(|kind| args.names.iter().map(move |name| (kind, name)))
    {
        let result = match key(kind, name, namespace) {
            Ok(key) => remove(&session, &key, None, args.skip_not_exists).await,
            Err(error) => Err(error),
        };
        batch.attempt(result);
    }
    Ok(batch.outcome("deleted"))
}

/// The revision that a document says is the one to delete.
fn revision(document: &Document) -> anyhow::Result<Option<Revision>> {
    let Some(version) = document.metadata("resourceVersion").filter(|version| !version.is_empty()) else {
        return Ok(None);
    };
    match version.parse() {
        Ok(number) => Ok(Some(Revision(number))),
        Err(_) => bail!("metadata.resourceVersion is {version:?}, and must be a number as get shows it"),
    }
}

async fn remove(
    session: &Session,
    key: &ResourceKey,
    at: Option<Revision>,
    skip_not_exists: bool,
) -> anyhow::Result<()> {
    let removed = async {
        let at = match session.client.get(key).await {
            Ok(_) => cascade::before_deletion(&session.client, key, at, clock::wall()).await?,
            // What cannot be read has nothing that goes with it, and can be deleted all the same.
            Err(ClientError::Corrupt { .. }) => at,
            Err(error) => return Err(error.into()),
        };
        session.client.delete(key, at).await?;
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
