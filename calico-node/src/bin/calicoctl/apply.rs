//! `calicoctl apply`: create, or update what exists.

use anyhow::bail;
use calico_model::resource::{Document, Kind};

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
        let applied = async {
            may_be_written(&document)?;
            document.check_input()?;
            session.client.apply(&document).await?;
            Ok(())
        };
        batch.settle(applied.await);
    }
    Ok(batch.outcome("applied"))
}

/// Refuses what only the agents write.
pub fn may_be_written(document: &Document) -> anyhow::Result<()> {
    let name = document.metadata("name").unwrap_or_default();
    let kind = document.kind();
    if kind == Kind::ClusterInformation {
        bail!("{kind}({name}) is written by the agents alone");
    }
    if kind == Kind::NetworkPolicy && name.starts_with("knp.default.") {
        bail!("{kind}({name}) stands for a Kubernetes policy: change that one with kubectl");
    }
    Ok(())
}
