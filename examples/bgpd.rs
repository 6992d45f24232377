//! A stand-alone BGP daemon for labs and load tests: the library behind a TOML file and a Unix socket.
//!
//! `cargo run --release --example bgpd -- --config FILE` runs it; `echo peers | nc -U /run/bgpd.sock` (or `routes`, or
//! `counters`) asks it. A file must say `local_as`, `router_id`, `socket`, and each peer's `address` and `as`. With
//! `require_policy` nothing passes to or from another AS unless `export` or `import` says so (RFC 8212). `role` is what we
//! are to the peer (RFC 9234); one that tells more than `max_prefixes` of a family is stopped.
//!
//! ```toml
//! local_as = 65001
//! router_id = "10.0.0.1"
//! cluster_id = "1.0.0.1"
//! listen = ["0.0.0.0:179"]
//! networks = ["10.1.0.0/16"]
//! require_policy = true
//! socket = "/run/bgpd.sock"
//! peer = [{ address = "10.0.0.2", port = 179, as = 65002, families = ["ipv4"], add_path = true, password = "secret",
//!           passive = false, reflector_client = false, export = true, import = true, role = "peer", max_prefixes = 1000 }]
//! ```
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use calico_bgp::session::Initiation;
use calico_bgp::speaker::{Exchange, MaxPrefixes, Password, Reflection};
use calico_bgp::wire::open::AddPath;
use calico_bgp::{Origination, PeerConfig, PeerStatus, RouteStatus, SpeakerConfig, net};
use calico_model::{AsNumber, Cidr, RouterId};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

type Failure = Box<dyn std::error::Error + Send + Sync>;
const NO_AS: &str = "0 is no AS number";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    local_as: u32,
    router_id: RouterId,
    listen: Option<Vec<SocketAddr>>,
    cluster_id: Option<Ipv4Addr>,
    networks: Option<Vec<Cidr>>,
    require_policy: Option<bool>,
    socket: std::path::PathBuf,
    peer: Option<Vec<Peer>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    address: IpAddr,
    port: Option<u16>,
    r#as: u32,
    families: Option<Vec<String>>,
    reflector_client: Option<bool>,
    passive: Option<bool>,
    password: Option<String>,
    add_path: Option<bool>,
    export: Option<bool>,
    import: Option<bool>,
    role: Option<String>,
    max_prefixes: Option<u32>,
}

impl Peer {
    fn config(&self, local_as: AsNumber, requires_policy: bool) -> Result<PeerConfig, Failure> {
        let remote_as = AsNumber::new(self.r#as).ok_or(NO_AS)?;
        let mut config = PeerConfig::new(self.address, remote_as, local_as);
        config.port = self.port.unwrap_or(config.port);
        config.families = self.families.as_ref().map_or(Ok(config.families), |n| n.join(" ").parse())?;
        config.reflection =
            if self.reflector_client == Some(true) { Reflection::Client } else { Reflection::NonClient };
        config.initiation = if self.passive == Some(true) { Initiation::Passive } else { Initiation::Active };
        config.add_path = if self.add_path == Some(true) { AddPath::Both } else { AddPath::Neither };
        let exchange = |said: Option<bool>| match said {
            Some(false) => Exchange::nothing(),
            None if requires_policy => Exchange::Unsaid,
            Some(true) | None => Exchange::Everything,
        };
        (config.import, config.export) = (exchange(self.import), exchange(self.export));
        let key = |text: &String| Password::new(text).ok_or("a password has 1 to 80 octets");
        config.password = self.password.as_ref().map(key).transpose()?;
        config.role = self.role.as_deref().map(str::parse).transpose()?;
        config.max_prefixes = self.max_prefixes.map(MaxPrefixes::new);
        Ok(config)
    }
}

#[tokio::main(flavor = "current_thread")] // The speaker is one task, which then wakes no other thread.
async fn main() -> Result<(), Failure> {
    let path = std::env::args().skip_while(|w| w != "--config").nth(1).ok_or("usage: bgpd --config FILE")?;
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let file: File = toml::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
    let local_as = AsNumber::new(file.local_as).ok_or(NO_AS)?;
    let strict = file.require_policy == Some(true);
    let read = |p: &Peer| p.config(local_as, strict).map_err(|e| format!("peer {}: {e}", p.address));
    let peers = file.peer.iter().flatten().map(read).collect::<Result<_, _>>()?;
    let mut config = SpeakerConfig::new(local_as, file.router_id);
    config.cluster_id = file.cluster_id;
    config.default_local_pref = 100;
    let speaker = net::spawn(file.listen.as_deref().unwrap_or_default(), config)?;
    let networks = file.networks.iter().flatten().map(|cidr| (*cidr, Origination::default()));
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

async fn answer(stream: UnixStream, speaker: net::Handle) -> Result<(), Failure> {
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

fn counters(PeerStatus { address, counters: c, .. }: &PeerStatus) -> Value {
    json!({ "address": address, "messagesIn": c.messages_in, "messagesOut": c.messages_out, "updatesIn": c.updates_in,
            "updatesOut": c.updates_out, "faultsIn": c.faults_in, "refusedIn": c.refused_in, "established": c.established })
}

fn route(r: &RouteStatus) -> Value {
    json!({ "prefix": r.prefix, "from": r.peer, "nextHop": r.attributes.next_hop, "localPref": r.attributes.local_pref,
            "asPath": r.attributes.as_path.to_string(), "communities": r.attributes.communities(),
            "best": r.lost_to.is_none(), "why": r.why() })
}
