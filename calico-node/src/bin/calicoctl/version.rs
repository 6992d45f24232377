//! `calicoctl version`: of this program and of the cluster.

use crate::outcome::Outcome;
use crate::session::{Config, VERSION};

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
        Err(error) => return Ok(Outcome { text, errors: vec![error], status: 0 }),
    };
    match session.cluster().await {
        Ok(found) => {
            let words = found.map(|found| (found.spec.calico_version, found.spec.cluster_type));
            let (version, cluster_type) = words.unwrap_or_default();
            text += &format!("Cluster Version:   {}\n", or_unknown(&version));
            text += &format!("Cluster Type:      {}\n", or_unknown(&cluster_type));
            Ok(Outcome::text(text))
        }
        Err(error) => Ok(Outcome { text, ..Outcome::failed(error) }),
    }
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}
