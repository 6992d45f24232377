//! `calicoctl explain`: why something passes or does not, and what would have to change.

use std::str::FromStr;

use calico_model::{InterfaceName, Namespace};
use calico_node::ctl::{explain, who};
use calico_policy::Transport;
use calico_policy::packet::PortProtocol;
use serde_json::Value;

use crate::outcome::Outcome;
use crate::session::Config;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where it comes from: a pod or endpoint (NAMESPACE/NAME), a node or an address.
    #[arg(long, value_name = "POD|IP")]
    from: String,
    /// Where it goes.
    #[arg(long, value_name = "POD|IP")]
    to: String,
    /// The protocol: tcp, udp, sctp or icmp (a ping).
    #[arg(long, default_value = "tcp")]
    protocol: Protocol,
    /// The port that is asked for; not for icmp.
    #[arg(long, required_if_eq_any([("protocol", "tcp"), ("protocol", "udp"), ("protocol", "sctp")]), value_parser = port)]
    port: Option<u16>,
    /// Which flows: `to` from --from to --to, `from` the other way round, or both. Answers always pass with their flow.
    #[arg(long, default_value = "to")]
    direction: Direction,
    /// The namespace of names that do not say theirs.
    #[arg(short = 'n', long, default_value = "default")]
    namespace: Namespace,
    /// The interface by which nodes reach one another and the outside.
    #[arg(long, default_value = "eth0")]
    uplink: InterfaceName,
    /// Print json instead of text.
    #[arg(short = 'o', long, value_parser = ["json"])]
    output: Option<String>,
    #[command(flatten)]
    config: Config,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Ports(PortProtocol),
    Icmp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    To,
    From,
    Both,
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "use a number from 0 to 65535".to_owned())
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let transport = match (args.protocol, args.port) {
        (Protocol::Ports(protocol), Some(destination)) => {
            Transport::Ports { protocol, source: 40_000, destination }
        }
        (Protocol::Ports(_), None) => anyhow::bail!("say which port with --port"),
        (Protocol::Icmp, None) => Transport::Icmp { icmp_type: 8, code: 0 },
        (Protocol::Icmp, Some(_)) => anyhow::bail!("icmp has no ports: leave out --port"),
    };
    let session = args.config.open().await?;
    let snapshot = session.snapshot().await?;
    let (from, to) = who::ends(&snapshot, (&args.from, &args.to), &args.namespace)?;
    // A ping of IPv6 is another type of ICMP.
    let transport = if from.is_ipv6() && args.protocol == Protocol::Icmp {
        Transport::Icmp { icmp_type: 128, code: 0 }
    } else {
        transport
    };
    let ways = match args.direction {
        Direction::To => vec![(from, to)],
        Direction::From => vec![(to, from)],
        Direction::Both => vec![(from, to), (to, from)],
    };
    let explanations: Vec<_> = ways
        .into_iter()
        .map(|(from, to)| calico_policy::explain(&snapshot, from, to, transport, &args.uplink))
        .collect();
    let text = match args.output {
        Some(_) => {
            let values: Vec<Value> = explanations.iter().map(explain::to_json).collect();
            let value = if let [only] = values.as_slice() { only.clone() } else { Value::Array(values) };
            format!("{value:#}\n")
        }
        None => explanations.iter().map(explain::render).collect::<Vec<_>>().join("\n"),
    };
    Ok(Outcome::text(text))
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Ports(PortProtocol::Tcp)),
            "udp" => Ok(Self::Ports(PortProtocol::Udp)),
            "sctp" => Ok(Self::Ports(PortProtocol::Sctp)),
            "icmp" => Ok(Self::Icmp),
            _ => Err("use tcp, udp, sctp or icmp".to_owned()),
        }
    }
}

impl FromStr for Direction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "to" => Ok(Self::To),
            "from" => Ok(Self::From),
            "both" => Ok(Self::Both),
            _ => Err("use to, from or both".to_owned()),
        }
    }
}
