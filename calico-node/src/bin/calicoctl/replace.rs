//! `calicoctl replace`: only what exists.

use crate::apply::may_be_written;
use crate::batch::{Files, InNamespace, Order};
use crate::outcome::Outcome;
use crate::session::Config;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
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
        let replaced = async {
            may_be_written(&document)?;
            document.check_input()?;
            session.client.update(&document).await?;
            Ok(())
        };
        batch.settle(replaced.await);
    }
    Ok(batch.outcome("replaced"))
}
