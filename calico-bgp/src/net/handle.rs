//! What a program holds of a running speaker: each method sends the owner one command, and waits for the answer if there is
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use calico_model::{Cidr, LearnedRoutes};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::{ListenError, Station};
use crate::decision::Reachability;
use crate::speaker::{
    DynamicPeers, Event, FeedId, Origination, PeerConfig, PeerStatus, RouteStatus, SpeakerConfig,
};

/// A speaker that is gone: its runtime has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the BGP speaker is no longer running")]
pub struct Gone;

/// What a handle asks of the owner of the speaker.
pub(super) enum Command {
    Config(SpeakerConfig),
    Peers(Vec<PeerConfig>),
    DynamicPeers(Vec<DynamicPeers>),
    Listen(Vec<SocketAddr>, oneshot::Sender<Result<(), ListenError>>),
    Originate(BTreeMap<Cidr, Origination>),
    Reachability(Option<Reachability>),
    Status(oneshot::Sender<Vec<PeerStatus>>),
    Routes(oneshot::Sender<Vec<RouteStatus>>),
    RoutesTo(Cidr, oneshot::Sender<Vec<RouteStatus>>),
    Unreached(oneshot::Sender<Arc<BTreeSet<IpAddr>>>),
    Learned(oneshot::Sender<watch::Receiver<Option<Arc<LearnedRoutes>>>>),
    Reset(IpAddr, String),
    Refresh(IpAddr),
    Stations(Vec<Station>),
    OpenFeed(String, oneshot::Sender<FeedId>),
    /// Answered when there is something to tell.
    Feed(FeedId, oneshot::Sender<Vec<u8>>),
    CloseFeed(FeedId),
    ShutDown(String, oneshot::Sender<()>),
}

/// Commands a running speaker. When the last handle is dropped, the speaker closes its connections without a
/// NOTIFICATION, so that peers that do graceful restart keep its routes.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) events: broadcast::Sender<Event>,
}

impl Handle {
    /// Changes the speaker's own settings; see [`Speaker::set_config`](crate::Speaker::set_config).
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn set_config(&self, config: SpeakerConfig) -> Result<(), Gone> {
        self.tell(Command::Config(config)).await
    }

    /// Makes these the peers; see [`Speaker::set_peers`](crate::Speaker::set_peers).
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn set_peers(&self, peers: Vec<PeerConfig>) -> Result<(), Gone> {
        self.tell(Command::Peers(peers)).await
    }

    /// Makes these the prefixes from which peers may come unannounced; see [`Speaker::set_dynamic_peers`](crate::Speaker::set_dynamic_peers).
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn set_dynamic_peers(&self, ranges: Vec<DynamicPeers>) -> Result<(), Gone> {
        self.tell(Command::DynamicPeers(ranges)).await
    }

    /// Listens on these addresses from now on. Sessions stay as they are, and so do the sockets of addresses that were
    /// there before.
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended; inside, why it cannot listen, and then it listens where it did before.
    pub async fn set_listen(&self, addresses: &[SocketAddr]) -> Result<Result<(), ListenError>, Gone> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Listen(addresses.to_vec(), answer)).await?;
        answered.await.map_err(|_| Gone)
    }

    /// Makes these the prefixes that begin here.
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn set_originated(&self, prefixes: BTreeMap<Cidr, Origination>) -> Result<(), Gone> {
        self.tell(Command::Originate(prefixes)).await
    }

    /// Judges next hops by where the machine's own routes lead from now on; see
    /// [`Speaker::set_reachability`](crate::Speaker::set_reachability).
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn set_reachability(&self, reachability: Option<Reachability>) -> Result<(), Gone> {
        self.tell(Command::Reachability(reachability)).await
    }

    /// Returns every peer, by address.
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn status(&self) -> Result<Vec<PeerStatus>, Gone> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Status(answer)).await?;
        answered.await.map_err(|_| Gone)
    }

    /// Returns every path in the tables with the reason why it is or is not the best one.
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn routes(&self) -> Result<Vec<RouteStatus>, Gone> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Routes(answer)).await?;
        answered.await.map_err(|_| Gone)
    }

    /// Returns every path to one destination; see [`Speaker::routes_to`](crate::Speaker::routes_to).
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn routes_to(&self, prefix: Cidr) -> Result<Vec<RouteStatus>, Gone> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::RoutesTo(prefix, answer)).await?;
        answered.await.map_err(|_| Gone)
    }

    /// Returns the next hops that keep destinations from being reached; see
    /// [`Speaker::unreached`](crate::Speaker::unreached).
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn unreached(&self) -> Result<Arc<BTreeSet<IpAddr>>, Gone> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Unreached(answer)).await?;
        answered.await.map_err(|_| Gone)
    }

    /// Ends a peer's session and begins it anew, with a text for the other operator.
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn reset_peer(&self, address: IpAddr, text: &str) -> Result<(), Gone> {
        self.tell(Command::Reset(address, text.to_owned())).await
    }

    /// Asks a peer to tell everything again; see [`Speaker::refresh_peer`](crate::Speaker::refresh_peer).
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn refresh_peer(&self, address: IpAddr) -> Result<(), Gone> {
        self.tell(Command::Refresh(address)).await
    }

    /// Makes these the monitoring stations that are told of sessions and routes (BMP, RFC 7854).
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn set_stations(&self, stations: Vec<Station>) -> Result<(), Gone> {
        self.tell(Command::Stations(stations)).await
    }

    /// Ends every session for good, so that peers drop our routes, with a text for the other operators. Returns once
    /// that was said.
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn shut_down(&self, text: &str) -> Result<(), Gone> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::ShutDown(text.to_owned(), answer)).await?;
        answered.await.map_err(|_| Gone)
    }

    /// Returns the newest choice of routes, and each later one. `None` means that nothing is known yet, because the
    /// speaker recovers from a restart: what is in the kernel must then stay. While nobody holds what this returns, the
    /// choice is not gathered, so that a reflector that installs no routes does not pay for it.
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn learned(&self) -> Result<watch::Receiver<Option<Arc<LearnedRoutes>>>, Gone> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Learned(answer)).await?;
        answered.await.map_err(|_| Gone)
    }

    /// Returns what happens from now on, for logs. A slow reader misses the oldest events and is told how many.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn tell(&self, command: Command) -> Result<(), Gone> {
        self.commands.send(command).await.map_err(|_| Gone)
    }
}
