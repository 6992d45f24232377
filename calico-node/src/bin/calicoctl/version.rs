//! `calicoctl version`: of this program and of the cluster.

use calico_model::datastore::client::ClientError;
use calico_model::resource::{ClusterInformation, Kind};

use crate::outcome::Outcome;
use crate::session::{Config, VERSION, key};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show the version of this program alone.
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let mut text = format!("Client Version:    {VERSION}\n");
    if args.client {
        return Ok(Outcome::text(text));
    }
    let session = match args.config.open().await {
        Ok(session) => session,
        Err(error) => return Ok(Outcome { text, errors: vec![error] }),
    };
    let information = key(Kind::ClusterInformation, ClusterInformation::NAME, None)?;
    match session.client.of::<ClusterInformation>().get(&information.id).await {
        Ok(found) => {
            text += &format!("Cluster Version:   {}\n", or_unknown(&found.spec.calico_version));
            text += &format!("Cluster Type:      {}\n", or_unknown(&found.spec.cluster_type));
            Ok(Outcome::text(text))
        }
        Err(ClientError::NotFound { .. }) => {
            text += "Cluster Version:   unknown\nCluster Type:      unknown\n";
            Ok(Outcome::text(text))
        }
        Err(error) => Ok(Outcome { text, errors: vec![error.into()] }),
    }
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}
