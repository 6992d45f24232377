//! `calicoctl replace`: only what exists.

use crate::outcome::Outcome;
use crate::write::Input;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    input: Input,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    args.input.each("replaced", async |client, document| client.update(document).await.map(|_| ())).await
}
