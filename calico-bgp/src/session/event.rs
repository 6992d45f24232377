//! What happens to a session, what it wants done, and the words for both.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::negotiate::Negotiated;
use crate::wire::{MessageType, Notification, Open};

/// Names one connection of one speaker, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    pub(crate) peer: u32,
    pub(crate) serial: u32,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.peer, self.serial)
    }
}

/// The states of RFC 4271 section 8.2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Stopped.
    Idle,
    /// A connection is being dialed.
    Connect,
    /// Waiting: for the peer, or until the next dialing.
    Active,
    /// Connected, our OPEN is sent.
    OpenSent,
    /// OPENs are exchanged.
    OpenConfirm,
    /// Routes flow.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Whether we dial the peer, or wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Initiation {
    /// We dial.
    #[default]
    Active,
    /// The peer does.
    Passive,
}

/// Why a session or a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// We sent this.
    Sent(Notification),
    /// The peer sent this.
    Received(Notification),
    /// The connection went away, with the cause in words.
    Lost(String),
    /// No connection came about, with the cause in words.
    Undialed(String),
    /// The peer opened a new connection because it has restarted.
    Replaced,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(n) => write!(f, "we closed the session: {}", n.unwrapped()),
            Self::Received(n) => write!(f, "the peer closed the session: {}", n.unwrapped()),
            Self::Lost(why) => write!(f, "connection lost: {why}"),
            Self::Undialed(why) => f.write_str(why),
            Self::Replaced => f.write_str("the peer restarted and connected anew"),
        }
    }
}

/// A message, or what stands for one, on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// An OPEN that could be read.
    Open(Box<Open>),
    /// A KEEPALIVE.
    Keepalive,
    /// An UPDATE.
    Update,
    /// A ROUTE-REFRESH.
    Refresh,
    /// A NOTIFICATION.
    Notification(Notification),
    /// Something that must be answered with this NOTIFICATION.
    Malformed(Notification),
    /// The connection's end, with the cause in words.
    Closed(String),
}

impl Heard {
    /// Returns the type of the message that was read, if one was.
    pub(crate) fn message(&self) -> Option<MessageType> {
        match self {
            Self::Open(_) => Some(MessageType::Open),
            Self::Keepalive => Some(MessageType::Keepalive),
            Self::Update => Some(MessageType::Update),
            Self::Refresh => Some(MessageType::RouteRefresh),
            Self::Notification(_) => Some(MessageType::Notification),
            Self::Malformed(_) | Self::Closed(_) => None,
        }
    }
}

/// What happens to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The operator wants the session.
    Start,
    /// The operator ends the session, and it stays down.
    Stop(Notification),
    /// The session ends and begins anew.
    Reset(Notification),
    /// The operator changes who dials, and how often. Connections that exist, and a dialing that is under way, go on.
    Initiate(Initiation, Duration),
    /// The dialed connection is there.
    Connected(ConnectionId),
    /// The dialed connection could not be made, with the cause in words.
    Refused(ConnectionId, String),
    /// The peer opened this connection; see [`Session::next_connection`](crate::session::Session::next_connection).
    Accepted(ConnectionId),
    /// Something came in on a connection.
    Heard(ConnectionId, Heard),
    /// Everything that waited for this connection was taken.
    Drained(ConnectionId),
    /// A deadline has passed.
    Timeout,
}

/// What a session wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Dial the peer; answer with [`Input::Connected`] or [`Input::Refused`].
    Dial(ConnectionId),
    /// Send a message.
    Transmit(ConnectionId, Vec<u8>),
    /// Close the connection once what was to be transmitted is out, or dial it no longer.
    Close(ConnectionId),
    /// The session is established.
    Up(ConnectionId, Arc<Negotiated>),
    /// The established session is over.
    Down(ConnectionId, Ended),
    /// A connection that was not established is over.
    Failed(Ended),
}
