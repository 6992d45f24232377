//! What a running agent tells of its BGP speaker, in full.

use std::net::IpAddr;

use calico_bgp::net::{Gone, Handle};
use calico_model::Cidr;
use serde::{Deserialize, Serialize};

/// One BGP session, in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeer {
    /// The peer's address.
    pub address: IpAddr,
    /// What it is called, such as `Mesh_172_16_6_11`.
    pub name: String,
    /// Its AS number.
    pub as_number: u32,
    /// `iBGP` or `eBGP`.
    pub peering: String,
    /// The state of RFC 4271.
    pub state: String,
    /// For how many seconds it is in this state.
    pub seconds: u64,
    /// For how many seconds the session is up, or is not, however often it was tried meanwhile.
    #[serde(default)]
    pub turned_seconds: u64,
    /// The peer's identifier, while the session is up.
    pub router_id: Option<String>,
    /// Why the last session or connection ended, in words.
    pub last_error: Option<String>,
    /// Why routes of it were not taken, the last time, in words.
    pub last_refusal: Option<String>,
    /// The last NOTIFICATION that we sent, in words with the RFC's code and subcode.
    pub last_sent: Option<String>,
    /// The last NOTIFICATION that came, in words with the RFC's code and subcode.
    pub last_received: Option<String>,
    /// The last fault in an UPDATE that was survived, in words.
    pub last_fault: Option<String>,
    /// Prefixes held from it.
    pub prefixes_in: u32,
    /// Prefixes told to it.
    pub prefixes_out: u32,
    /// For how many seconds its routes are still kept although it is gone, if they are.
    pub retained_seconds: Option<u64>,
    /// Messages and so on since the agent started.
    pub counters: BgpCounters,
}

/// What was counted for a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpCounters {
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// UPDATE messages received.
    pub updates_in: u64,
    /// UPDATE messages sent.
    pub updates_out: u64,
    /// Faults in UPDATE messages that were survived (RFC 7606).
    pub faults_in: u64,
    /// How often the session came up.
    pub established: u64,
}

/// One path to one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpRoute {
    /// The destination.
    pub prefix: Cidr,
    /// The peer that told it; absent for a route that begins here.
    pub from: Option<IpAddr>,
    /// Where packets go; absent for a route that begins here.
    pub next_hop: Option<IpAddr>,
    /// The autonomous systems it came through.
    pub as_path: String,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// The standard and large communities.
    pub communities: Vec<String>,
    /// Whether it is the best path to its destination.
    pub best: bool,
    /// Why it is, where it is one of several, or why it is not, in words.
    pub why: Option<String>,
}

/// Returns every session.
///
/// # Errors
/// [`Gone`] when the speaker has ended.
pub async fn peers(speaker: &Handle) -> Result<Vec<BgpPeer>, Gone> {
    let now = crate::clock::now();
    let shown = |peer: calico_bgp::PeerStatus| BgpPeer {
        address: peer.address,
        name: peer.name,
        as_number: peer.remote_as.get(),
        peering: match peer.peering {
            calico_bgp::session::Peering::Internal => "iBGP",
            calico_bgp::session::Peering::External => "eBGP",
        }
        .to_owned(),
        state: peer.state.to_string(),
        seconds: now.saturating_duration_since(peer.since).as_secs(),
        turned_seconds: now.saturating_duration_since(peer.turned).as_secs(),
        router_id: peer.remote_id.map(|id| id.to_string()),
        last_error: peer.last_error,
        last_refusal: peer.last_refusal,
        last_sent: peer.last_sent,
        last_received: peer.last_received,
        last_fault: peer.last_fault,
        prefixes_in: peer.prefixes_in.v4 + peer.prefixes_in.v6,
        prefixes_out: peer.prefixes_out.v4 + peer.prefixes_out.v6,
        retained_seconds: peer.retained_until.map(|until| until.saturating_duration_since(now).as_secs()),
        counters: BgpCounters {
            messages_in: peer.counters.messages_in,
            messages_out: peer.counters.messages_out,
            updates_in: peer.counters.updates_in,
            updates_out: peer.counters.updates_out,
            faults_in: peer.counters.faults_in,
            established: peer.counters.established,
        },
    };
    Ok(speaker.status().await?.into_iter().map(shown).collect())
}

/// Returns every path, or those to one destination.
///
/// # Errors
/// [`Gone`] when the speaker has ended.
pub async fn routes(speaker: &Handle, prefix: Option<Cidr>) -> Result<Vec<BgpRoute>, Gone> {
    let shown = |route: calico_bgp::RouteStatus| BgpRoute {
        prefix: route.prefix,
        from: route.peer,
        next_hop: Some(route.attributes.next_hop).filter(|hop| !hop.is_unspecified()),
        as_path: route.attributes.as_path.to_string(),
        local_pref: route.attributes.local_pref,
        med: route.attributes.med,
        communities: route.attributes.communities().iter().map(ToString::to_string).collect(),
        best: route.lost_to.is_none(),
        why: route.why(),
    };
    let routes = match prefix {
        Some(prefix) => speaker.routes_to(prefix).await?,
        None => speaker.routes().await?,
    };
    Ok(routes.into_iter().map(shown).collect())
}
