//! A stand-alone BGP daemon for labs and load tests: the library behind a TOML file and a Unix socket.
//!
//! `cargo run --release --example bgpd -- --config FILE` runs it; `echo peers | nc -U /run/bgpd.sock` (or `routes`, or
//! `counters`) asks it. A file must say `local_as`, `router_id`, `socket`, and each peer's `address` and `as`:
//!
//! ```toml
//! local_as = 65001
//! router_id = "10.0.0.1"
//! cluster_id = "1.0.0.1"
//! listen = ["0.0.0.0:179"]
//! networks = ["10.1.0.0/16"]
//! socket = "/run/bgpd.sock"
//! peer = [{ address = "10.0.0.2", port = 179, as = 65002, families = ["ipv4"], add_path = true, password = "secret",
//!           passive = false, reflector_client = false, export = true }]
//! ```
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use calico_bgp::filter::{Policy, Program};
use calico_bgp::net::{self, Handle};
use calico_bgp::session::Initiation;
use calico_bgp::speaker::{Exchange, Password, Reflection};
use calico_bgp::wire::open::AddPath;
use calico_bgp::{Origination, PeerConfig, PeerStatus, RouteStatus, SpeakerConfig};
use calico_model::{AsNumber, Cidr, Family, RouterId};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    local_as: NonZeroU32,
    router_id: RouterId,
    #[serde(default)]
    listen: Vec<SocketAddr>,
    cluster_id: Option<Ipv4Addr>,
    #[serde(default)]
    networks: Vec<Cidr>,
    socket: std::path::PathBuf,
    #[serde(default)]
    peer: Vec<Peer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    address: IpAddr,
    port: Option<u16>,
    r#as: NonZeroU32,
    families: Option<Vec<String>>,
    reflector_client: Option<bool>,
    passive: Option<bool>,
    password: Option<String>,
    add_path: Option<bool>,
    export: Option<bool>,
}

fn asn(number: NonZeroU32) -> AsNumber {
    AsNumber::new(number.get()).expect("only 0 is no AS number")
}

impl Peer {
    fn config(&self, local_as: AsNumber) -> Result<PeerConfig, Failure> {
        let fault = |words: &str| Failure::from(format!("peer {}: {words}", self.address));
        let mut config = PeerConfig::new(self.address, asn(self.r#as), local_as);
        config.port = self.port.unwrap_or(config.port);
        if let Some(names) = &self.families {
            let of = |name: &String| Family::ALL.into_iter().find(|f| f.to_string().to_lowercase() == *name);
            let families = names.iter().map(of).collect::<Option<_>>();
            config.families = families.ok_or_else(|| fault("families are ipv4 and ipv6"))?;
        }
        config.reflection =
            if self.reflector_client == Some(true) { Reflection::Client } else { Reflection::NonClient };
        config.initiation = if self.passive == Some(true) { Initiation::Passive } else { Initiation::Active };
        config.add_path = if self.add_path == Some(true) { AddPath::Both } else { AddPath::Neither };
        if self.export == Some(false) {
            config.export = Exchange::Filtered(Policy::new(Program::closed()));
        }
        if let Some(text) = &self.password {
            config.password = Some(Password::new(text).ok_or_else(|| fault("passwords: 1 to 80 octets"))?);
        }
        Ok(config)
    }
}

#[tokio::main(flavor = "current_thread")] // The speaker is one task, which then wakes no other thread.
async fn main() -> Result<(), Failure> {
    let path = std::env::args().skip_while(|w| w != "--config").nth(1).ok_or("usage: bgpd --config FILE")?;
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let file: File = toml::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
    let peers = file.peer.iter().map(|peer| peer.config(asn(file.local_as))).collect::<Result<_, _>>()?;
    let mut config = SpeakerConfig::new(asn(file.local_as), file.router_id);
    config.cluster_id = file.cluster_id;
    config.default_local_pref = 100;
    let speaker = net::spawn(&file.listen, config)?;
    let networks = file.networks.iter().map(|cidr| (*cidr, Origination::default()));
    speaker.set_originated(networks.collect()).await?;
    speaker.set_peers(peers).await?;
    let _absent = std::fs::remove_file(&file.socket);
    let questions =
        UnixListener::bind(&file.socket).map_err(|e| format!("{}: {e}", file.socket.display()))?;
    let mut events = speaker.events();
    loop {
        tokio::select! {
            asked = questions.accept() => drop(tokio::spawn(answer(asked?.0, speaker.clone()))),
            Ok(event) = events.recv() => eprintln!("{event:?}"),
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    speaker.shut_down("bgpd ends").await?;
    Ok(std::fs::remove_file(&file.socket)?)
}

async fn answer(stream: UnixStream, speaker: Handle) -> Result<(), Failure> {
    let (from, mut to) = stream.into_split();
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match line.trim() {
            "peers" => speaker.status().await?.iter().map(peer).collect(),
            "counters" => speaker.status().await?.iter().map(counters).collect(),
            "routes" => speaker.routes().await?.iter().map(route).collect(),
            other => json!({ "error": format!("{other:?} is not peers, routes or counters") }),
        };
        to.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

fn peer(p: &PeerStatus) -> Value {
    json!({ "address": p.address, "as": p.remote_as.get(), "state": p.state.to_string(), "lastError": p.last_error,
            "lastRefusal": p.last_refusal, "lastFault": p.last_fault, "seconds": p.since.elapsed().as_secs(),
            "prefixesIn": p.prefixes_in.v4 + p.prefixes_in.v6, "prefixesOut": p.prefixes_out.v4 + p.prefixes_out.v6 })
}

fn counters(p: &PeerStatus) -> Value {
    let c = &p.counters;
    json!({ "address": p.address, "messagesIn": c.messages_in, "messagesOut": c.messages_out, "updatesIn": c.updates_in,
            "updatesOut": c.updates_out, "faultsIn": c.faults_in, "refusedIn": c.refused_in, "established": c.established })
}

fn route(r: &RouteStatus) -> Value {
    json!({ "prefix": r.prefix, "from": r.peer, "nextHop": r.attributes.next_hop, "localPref": r.attributes.local_pref,
            "asPath": r.attributes.as_path.to_string(), "communities": r.attributes.communities(),
            "best": r.lost_to.is_none(), "why": r.lost_to.map(|reason| reason.to_string()) })
}
