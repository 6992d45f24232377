//! A stand-alone BGP daemon for labs and load tests: the library behind a TOML file and a Unix socket.
//!
//! `cargo run --release --example bgpd -- --config FILE`, then `echo peers | socat - UNIX:/run/bgpd.sock` (or `routes`,
//! `learned`). A file says:
//!
//! ```toml
//! local_as = 65001
//! router_id = "10.0.0.1"
//! listen = ["0.0.0.0:179"]          # absent: do not listen
//! cluster_id = "1.0.0.1"            # absent: the router id
//! networks = ["10.1.0.0/16"]
//! socket = "/run/bgpd.sock"
//!
//! [[peer]]
//! address = "10.0.0.2"
//! as = 65002
//! families = ["ipv4", "ipv6"]       # absent: that of the address
//! reflector_client = false
//! passive = false
//! password = "secret"               # absent: none
//! add_path = "both"                 # or "send", "receive"; absent: neither
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use calico_bgp::family::FamilySet;
use calico_bgp::net::{self, Handle};
use calico_bgp::session::Initiation;
use calico_bgp::speaker::{Password, Reflection};
use calico_bgp::wire::open::AddPath;
use calico_bgp::{Origination, PeerConfig, SpeakerConfig};
use calico_model::{AsNumber, Cidr, Family, RouterId};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(deserialize_with = "as_number")]
    local_as: AsNumber,
    router_id: RouterId,
    #[serde(default)]
    listen: Vec<SocketAddr>,
    cluster_id: Option<Ipv4Addr>,
    #[serde(default)]
    networks: Vec<Cidr>,
    socket: PathBuf,
    #[serde(default)]
    peer: Vec<Peer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    address: IpAddr,
    port: Option<u16>,
    #[serde(rename = "as", deserialize_with = "as_number")]
    remote_as: AsNumber,
    families: Option<Vec<String>>,
    #[serde(default)]
    reflector_client: bool,
    #[serde(default)]
    passive: bool,
    password: Option<String>,
    add_path: Option<String>,
}

/// Reads a plain number; the model's own form is text, for the dotted notation.
fn as_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AsNumber, D::Error> {
    let number = u32::deserialize(deserializer)?;
    AsNumber::new(number).ok_or_else(|| serde::de::Error::custom("0 is not an AS number"))
}

impl Peer {
    fn config(&self, local_as: AsNumber) -> Result<PeerConfig, String> {
        let mut config = PeerConfig::new(self.address, self.remote_as, local_as);
        config.port = self.port.unwrap_or(config.port);
        if let Some(names) = &self.families {
            let family = |name: &String| match name.as_str() {
                "ipv4" => Ok(Family::V4),
                "ipv6" => Ok(Family::V6),
                other => Err(format!("peer {}: {other:?} is not ipv4 or ipv6", self.address)),
            };
            config.families = names.iter().map(family).collect::<Result<FamilySet, _>>()?;
        }
        if self.reflector_client {
            config.reflection = Reflection::Client;
        }
        if self.passive {
            config.initiation = Initiation::Passive;
        }
        config.add_path = match self.add_path.as_deref() {
            None => AddPath::Neither,
            Some("send") => AddPath::Send,
            Some("receive") => AddPath::Receive,
            Some("both") => AddPath::Both,
            Some(other) => {
                return Err(format!(
                    "peer {}: add_path {other:?} is not send, receive or both",
                    self.address
                ));
            }
        };
        if let Some(text) = &self.password {
            let fault = || format!("peer {}: a password has 1 to 80 octets", self.address);
            config.password = Some(Password::new(text).ok_or_else(fault)?);
        }
        Ok(config)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some("--config"), Some(path), None) =
        (arguments.next().as_deref(), arguments.next(), arguments.next())
    else {
        return Err("usage: bgpd --config FILE".into());
    };
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let file: File = toml::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
    let peers = file.peer.iter().map(|p| p.config(file.local_as)).collect::<Result<Vec<_>, _>>()?;
    let networks: BTreeMap<Cidr, Origination> =
        file.networks.iter().map(|cidr| (*cidr, Origination::default())).collect();

    let mut config = SpeakerConfig::new(file.local_as, file.router_id);
    config.cluster_id = file.cluster_id;
    config.default_local_pref = 100;
    let speaker = net::spawn(&file.listen, config)?;
    speaker.set_originated(networks).await?;
    speaker.set_peers(peers).await?;

    let _absent = std::fs::remove_file(&file.socket);
    let questions = UnixListener::bind(&file.socket)
        .map_err(|error| format!("cannot listen on {}: {error}", file.socket.display()))?;
    let mut events = speaker.events();
    loop {
        tokio::select! {
            asked = questions.accept() => {
                let (stream, _) = asked?;
                tokio::spawn(answer(stream, speaker.clone()));
            }
            Ok(event) = events.recv() => eprintln!("{event:?}"),
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    speaker.shut_down("bgpd ends").await?;
    Ok(std::fs::remove_file(&file.socket)?)
}

/// Answers each line of a connection with one line of JSON.
async fn answer(stream: UnixStream, speaker: Handle) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (from, mut to) = stream.into_split();
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match line.trim() {
            "peers" => speaker.status().await?.iter().map(peer).collect(),
            "routes" => speaker.routes().await?.iter().map(route).collect(),
            "learned" => match &*speaker.learned().await?.borrow() {
                None => Value::Null,
                Some(learned) => learned
                    .iter()
                    .map(|(cidr, route)| (cidr.to_string(), json!(route.next_hops)))
                    .collect::<serde_json::Map<_, _>>()
                    .into(),
            },
            other => json!({ "error": format!("{other:?} is not peers, routes or learned") }),
        };
        to.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

fn peer(status: &calico_bgp::PeerStatus) -> Value {
    json!({
        "address": status.address,
        "as": status.remote_as,
        "state": status.state.to_string(),
        "seconds": status.since.elapsed().as_secs(),
        "lastError": status.last_error,
        "prefixesIn": status.prefixes_in.v4 + status.prefixes_in.v6,
        "prefixesOut": status.prefixes_out.v4 + status.prefixes_out.v6,
        "updatesIn": status.counters.updates_in,
        "updatesOut": status.counters.updates_out,
        "faultsIn": status.counters.faults_in,
    })
}

fn route(route: &calico_bgp::RouteStatus) -> Value {
    json!({
        "prefix": route.prefix,
        "from": route.peer,
        "nextHop": route.attributes.next_hop,
        "asPath": route.attributes.as_path.to_string(),
        "localPref": route.attributes.local_pref,
        "communities": route.attributes.communities(),
        "best": route.lost_to.is_none(),
        "why": route.lost_to.map(|reason| reason.to_string()),
    })
}
