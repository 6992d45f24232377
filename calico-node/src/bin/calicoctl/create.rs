//! `calicoctl create`: only what does not exist yet.

use calico_model::datastore::client::ClientError;

use crate::outcome::Outcome;
use crate::write::Input;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Let resources that exist be.
    #[arg(long)]
    skip_exists: bool,
    #[command(flatten)]
    input: Input,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let skip_exists = args.skip_exists;
    args.input
        .each("created", async |client, document| match client.create(document).await {
            Err(ClientError::AlreadyExists { .. }) if skip_exists => Ok(()),
            created => created.map(|_| ()),
        })
        .await
}
