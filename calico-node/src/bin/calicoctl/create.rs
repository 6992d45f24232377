//! `calicoctl create`: only what does not exist yet.

use calico_model::datastore::client::ClientError;

use crate::apply::may_be_written;
use crate::batch::{Files, InNamespace, Order};
use crate::outcome::Outcome;
use crate::session::Config;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// Let resources that exist be.
    #[arg(long)]
    skip_exists: bool,
    #[command(flatten)]
    namespace: InNamespace,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let (mut batch, documents) = args.files.read(args.namespace.namespace.as_ref(), Order::Creation)?;
    let session = args.config.open().await?;
    session.initialize().await?;
    for document in documents {
        let created = async {
            may_be_written(&document)?;
            document.check_input()?;
            match session.client.create(&document).await {
                Err(ClientError::AlreadyExists { .. }) if args.skip_exists => Ok(()),
                Err(error) => Err(error.into()),
                Ok(_) => Ok(()),
            }
        };
        batch.settle(created.await);
    }
    Ok(batch.outcome("created"))
}
