//! `calicoctl bgp`: the BGP speaker of this host's agent.

use calico_model::Cidr;
use calico_node::ctl::bgp;
use calico_node::paths::Paths;
use calico_node::status::bgp::{BgpPeer, BgpRoute};
use calico_node::status::{Question, ask};
use clap::Subcommand;
use serde_json::json;

use crate::outcome::{Outcome, Output};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the sessions.
    Peers {
        #[command(flatten)]
        output: Output,
    },
    /// Show the routes that peers tell and that begin here.
    Routes {
        /// Only those to this network.
        prefix: Option<Cidr>,
        #[command(flatten)]
        output: Output,
    },
    /// Say why each path to a network is or is not used.
    Why {
        /// The network, such as 192.168.0.0/26.
        prefix: Cidr,
        #[command(flatten)]
        output: Output,
    },
}

pub async fn run(verb: Verb) -> anyhow::Result<Outcome> {
    let socket = Paths::from_env().status_socket();
    Ok(Outcome::text(match verb {
        Verb::Peers { output } => {
            let peers: Option<Vec<BgpPeer>> = ask(&socket, Question::BgpPeers).await?;
            let peers = peers.ok_or_else(off)?;
            output.of(|| json!(peers), || bgp::peers(&peers))
        }
        Verb::Routes { prefix, output } => {
            let routes: Option<Vec<BgpRoute>> = ask(&socket, Question::BgpRoutes(prefix)).await?;
            let routes = routes.ok_or_else(off)?;
            output.of(|| json!(routes), || bgp::routes(&routes))
        }
        Verb::Why { prefix, output } => {
            let routes: Option<Vec<BgpRoute>> = ask(&socket, Question::BgpRoutes(Some(prefix))).await?;
            let routes = routes.ok_or_else(off)?;
            let peers: Option<Vec<BgpPeer>> = ask(&socket, Question::BgpPeers).await?;
            output.of(|| json!(routes), || bgp::why(prefix, &routes, &peers.unwrap_or_default()))
        }
    }))
}

fn off() -> anyhow::Error {
    anyhow::anyhow!(
        "BGP is off on this node: CALICO_NETWORKING_BACKEND is none, or the node has no BGP address"
    )
}
