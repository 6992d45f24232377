//! What a running agent tells of itself over its local socket.
//!
//! The socket (mode 0600) takes one line, a [`Question`] as JSON, and answers with one line of JSON: a [`NodeStatus`] for
//! [`Question::Status`], lists of [`bgp::BgpPeer`] and [`bgp::BgpRoute`] for the others.

use std::io;
use std::path::{Path, PathBuf};

use calico_model::Cidr;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

pub use server::{ListenError, StatusServer};

pub mod bgp;
mod server;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// How the agent is.
    Status,
    /// How each BGP session is, in full: `null` when BGP is off.
    BgpPeers,
    /// Which paths BGP knows, to everywhere or to one network: `null` when BGP is off.
    BgpRoutes(Option<Cidr>),
}

/// How an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// The agent's process id.
    pub pid: u32,
    /// The agent's version.
    pub version: String,
    /// When the agent started, in seconds since 1970.
    pub started: u64,
    /// The datastore, without secrets.
    pub datastore: String,
    /// Whether the datastore has been read to the end once.
    pub in_sync: bool,
    /// Whether the kernel is as it should be, as far as the agent could make it so.
    pub programmed: bool,
    /// How often the kernel changed faster than the agent could follow, so that everything was read again.
    #[serde(default)]
    pub kernel_overruns: u64,
    /// What is wrong, one sentence each; empty when all is well.
    pub problems: Vec<String>,
    /// The BGP sessions; `None` when BGP is off.
    pub bgp: Option<BgpStatus>,
}

/// How an agent's BGP speaker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpStatus {
    /// The node's AS number.
    pub as_number: u32,
    /// The BGP identifier.
    pub router_id: String,
    /// When the speaker was last told something else to do, in seconds since 1970.
    pub reconfigured: u64,
    /// The sessions, sorted by address.
    pub peers: Vec<PeerStatus>,
}

/// How one BGP session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// The peer's address.
    pub address: String,
    /// Why there is a session: `node-to-node mesh`, `global`, `node specific`, `dynamic` or
    /// `local workload`.
    pub peer_type: String,
    /// `up`, `start` while the session is being made, or `down` while it is not tried.
    pub state: String,
    /// Since when it is up, or is not, in seconds since 1970.
    pub since: u64,
    /// The state of RFC 4271 (`Established`, `Active`, ...), and after a colon the last failure in words, if it is not up.
    pub info: String,
    /// How many routes the peer has told.
    pub routes_received: u64,
    /// How many routes the peer was told.
    pub routes_sent: u64,
}

/// An agent that could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No agent listens.
    #[error("calico-node is not running on this host: nothing listens on {}", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is another user's.
    #[error("{} may be used by root only: run this as root", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// The agent did not answer.
    #[error("calico-node does not answer on {}", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

/// Asks the agent that listens on `socket`.
///
/// # Errors
/// When no agent listens, the socket may not be used, or the agent does not answer within five seconds.
pub async fn ask<T: for<'de> Deserialize<'de>>(socket: &Path, question: Question) -> Result<T, AskError> {
    let path = || socket.to_owned();
    #[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of IO error are an open list")]
    let connected = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning { path: path() },
        io::ErrorKind::PermissionDenied => AskError::Forbidden { path: path() },
        _ => AskError::NoAnswer { path: path(), source },
    });
    let stream = connected?;
    let exchange = async {
        let mut stream = BufReader::new(stream);
        let mut line = serde_json::to_string(&question)?;
        line.push('\n');
        stream.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        Ok(serde_json::from_str(&answer)?)
    };
    let patience = std::time::Duration::from_secs(5);
    let answered = tokio::time::timeout(patience, exchange).await;
    answered
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
        .map_err(|source| AskError::NoAnswer { path: path(), source })
}
