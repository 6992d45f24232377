//! What `apply`, `create` and `replace` have in common: each resource of some files is written, one by one.

use anyhow::bail;
use calico_model::datastore::client::{Client, ClientError};
use calico_model::resource::{Document, Kind};

use crate::batch::{Files, InNamespace, Order};
use crate::outcome::Outcome;
use crate::session::Config;

/// What is written, and where.
#[derive(Debug, clap::Args)]
pub struct Input {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    namespace: InNamespace,
    #[command(flatten)]
    config: Config,
}

impl Input {
    /// Checks and writes each resource; `done` says in the outcome what became of them, such as `applied`.
    pub async fn each(
        self,
        done: &str,
        write: impl AsyncFn(&Client, &Document) -> Result<(), ClientError>,
    ) -> anyhow::Result<Outcome> {
        let (mut batch, documents) = self.files.read(self.namespace.namespace.as_ref(), Order::Creation)?;
        let session = self.config.open().await?;
        session.initialize().await?;
        for document in documents {
            let written = async {
                may_be_written(&document)?;
                document.check_input()?;
                Ok(write(&session.client, &document).await?)
            };
            batch.settle(written.await);
        }
        Ok(batch.outcome(done))
    }
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
