//! `calicoctl node`: the agent of this host.

use calico_node::clock;
use calico_node::ctl::node_status;
use calico_node::paths::Paths;
use calico_node::status::{NodeStatus, Question, ask};
use clap::Subcommand;

use crate::outcome::Outcome;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show how the agent and its BGP sessions are.
    Status {
        /// Print JSON.
        #[arg(short = 'o', long, value_parser = ["json"])]
        output: Option<String>,
    },
}

pub async fn run(verb: Verb) -> anyhow::Result<Outcome> {
    let Verb::Status { output } = verb;
    let status: NodeStatus = ask(&Paths::from_env().status_socket(), Question::Status).await?;
    if output.is_some() {
        return Ok(Outcome::text(format!("{:#}\n", serde_json::to_value(&status)?)));
    }
    Ok(Outcome::text(node_status::render(&status, clock::wall())))
}
