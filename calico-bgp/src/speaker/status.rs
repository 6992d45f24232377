//! What a speaker tells of itself.

use std::net::IpAddr;
use std::time::Instant;

use calico_model::{AsNumber, Cidr, RouterId};

use crate::decision::Reason;
use crate::family::PerFamily;
use crate::session::{Peering, State};
use crate::wire::Attributes;

/// What was counted for one peer since the speaker started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
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
    /// How often the session was established.
    pub established: u64,
}

/// One peer as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Its address.
    pub address: IpAddr,
    /// What it is called.
    pub name: String,
    /// Its AS number.
    pub remote_as: AsNumber,
    /// Whether it is in our AS.
    pub peering: Peering,
    /// The session's state.
    pub state: State,
    /// Since when it is in this state.
    pub since: Instant,
    /// Its identifier, while the session is established.
    pub remote_id: Option<RouterId>,
    /// Why the last session or connection ended, in words.
    pub last_error: Option<String>,
    /// The last fault in an UPDATE that was survived, in words.
    pub last_fault: Option<String>,
    /// The prefixes held from it.
    pub prefixes_in: PerFamily<u32>,
    /// The prefixes told to it.
    pub prefixes_out: PerFamily<u32>,
    /// Until when its routes are kept while it restarts, if it does.
    pub retained_until: Option<Instant>,
    /// What was counted.
    pub counters: Counters,
}

/// One path as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteStatus {
    /// The destination.
    pub prefix: Cidr,
    /// The peer that told it; `None` for a route that begins here.
    pub peer: Option<IpAddr>,
    /// What it is.
    pub attributes: std::sync::Arc<Attributes>,
    /// Why it is not the best one; `None` for the best.
    pub lost_to: Option<Reason>,
}
