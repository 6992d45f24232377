//! Sessions and tables as one machine: octets, time and commands in; octets, deadlines and route events out.
//!
//! Whoever drives it owns the sockets and the clock:
//!
//! - after every call, take [`Speaker::poll`] until it is empty and do what it says;
//! - when [`Action::Wake`] names a connection, take octets with [`Speaker::offer`] as fast as the socket accepts
//!   them: a slow peer leaves its octets here, where they are shared with its group;
//! - at [`Speaker::deadline`], read what [`Speaker::silent`] names, and call [`Speaker::timeout`].

mod act;
mod config;
mod draft;
mod dynamic;
mod export;
mod feed;
mod group;
mod import;
mod journal;
mod limit;
mod members;
mod next_hops;
mod octets;
mod originated;
mod peer;
mod refresh;
mod restart;
mod round;
mod run;
mod status;
mod taken;
mod watch;
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use calico_model::Cidr;

pub use config::{
    AsSets, Distance, DynamicPeers, Exchange, Extent, LongLived, METRIC_BASE, MaxPrefixes, NORMAL_LOCAL_PREF,
    NextHopMode, Origination, Password, PeerConfig, Reflection, SpeakerConfig, Start, WhenExceeded,
};
pub use feed::FeedId;
pub use status::{Counters, PeerStatus, RouteStatus};

use crate::bfd::BfdConfig;
use crate::rib::PeerId;
use crate::rib::intern::Interner;
use crate::session::{ConnectionId, Heard, Input};
use crate::wire::Notification;
use export::GroupKey;
use feed::Feeds;
use group::Group;
use journal::Journal;
use members::Departed;
use next_hops::Asked;
use octets::new_line;
use peer::Peer;
use restart::Deferral;
use world::Tables;

/// What a driver must do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Open a connection to a peer; answer with [`Speaker::connected`] or [`Speaker::refused`].
    Dial {
        /// The connection's name.
        connection: ConnectionId,
        /// The peer's settings: where to, from where, and how.
        peer: Box<PeerConfig>,
    },
    /// Something waits to be sent: take it with [`Speaker::offer`] or [`Speaker::transmit`].
    Wake(ConnectionId),
    /// Close the connection at once, or dial it no longer.
    Close(ConnectionId),
    /// Watch the path to a peer by BFD, or change how closely: hand on what a [`Watcher`](crate::bfd::Watcher) notices to
    /// [`Speaker::path_changed`].
    Watch {
        /// The peer.
        peer: IpAddr,
        /// Our address towards it.
        local: IpAddr,
        /// How closely.
        config: BfdConfig,
    },
    /// Watch the path to a peer no longer.
    Unwatch(IpAddr),
    /// A monitoring station has something to hear: take it with [`Speaker::feed`].
    WakeFeed(FeedId),
    /// A monitoring station is too far behind: close its connection.
    CloseFeed(FeedId),
    /// Something that an operator or the routes' consumer wants to know.
    Event(Event),
}

/// Something worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A session is established.
    Up(IpAddr),
    /// An established session is over, with the cause in words.
    Down(IpAddr, String),
    /// A connection failed before it was a session, with the cause in words.
    Failed(IpAddr, String),
    /// A peer does something that an operator should look at, in words.
    Warning(IpAddr, String),
    /// The choice of routes may have changed: see [`Speaker::learned`].
    Routes,
    /// A recovering speaker has heard enough and now chooses and tells.
    Settled,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// No peer with this address is configured.
    #[error("no peer with the address {0} is configured")]
    Unknown(IpAddr),
    /// The peer is stopped.
    #[error("the peer {0} is stopped")]
    Stopped(IpAddr),
    /// As many peers as are allowed came from its prefix.
    #[error("{address} would be one peer more than the {limit} that may come from {prefix}")]
    Full {
        /// The peer.
        address: IpAddr,
        /// Where it comes from.
        prefix: Cidr,
        /// How many may.
        limit: u32,
    },
    /// Nobody may come unannounced any more: so many peers are here, or were configured since the speaker began.
    #[error("{0} would be one peer more than a speaker can tell apart in its life")]
    Exhausted(IpAddr),
}

/// A BGP speaker without sockets or clock.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    peers: BTreeMap<PeerId, Peer>,
    by_address: BTreeMap<IpAddr, PeerId>,
    next_id: u32,
    /// Numbers that nothing names any more, and how far their connections were counted.
    vacant: Vec<ConnectionId>,
    tables: Tables,
    interner: Interner,
    /// Peers that are gone, and whose connections still carry the last words.
    leaving: Vec<PeerId>,
    /// Peers that are gone, which what was told until now still depends on.
    departed: Vec<Departed>,
    journal: Journal,
    originated: BTreeMap<Cidr, Origination>,
    groups: BTreeMap<GroupKey, Group>,
    /// Peers whose settings have changed, and that may belong to other groups now.
    moving: BTreeSet<PeerId>,
    dynamic: Vec<DynamicPeers>,
    feeds: Feeds,
    deferral: Option<Deferral>,
    asked: Asked,
    /// Which next hops keep destinations from being reached, while that is known.
    unreached: OnceLock<Arc<BTreeSet<IpAddr>>>,
    choice_changed: bool,
    next_round: Instant,
    deadlines: BTreeSet<(Instant, PeerId)>,
    awake: BTreeSet<ConnectionId>,
    /// What is offered to one connection after the other.
    offered: Vec<u8>,
    events: VecDeque<Action>,
}

impl Speaker {
    /// Makes a speaker without peers.
    #[must_use]
    pub fn new(config: SpeakerConfig, now: Instant) -> Self {
        let deferral = (config.start == Start::Recovering).then(|| Deferral::begin(&config, now));
        Self {
            tables: Tables::new(&config),
            config,
            peers: BTreeMap::new(),
            by_address: BTreeMap::new(),
            next_id: 1,
            vacant: Vec::new(),
            interner: Interner::default(),
            leaving: Vec::new(),
            departed: Vec::new(),
            journal: Journal::default(),
            originated: BTreeMap::new(),
            groups: BTreeMap::new(),
            moving: BTreeSet::new(),
            dynamic: Vec::new(),
            feeds: Feeds::default(),
            deferral,
            asked: Asked::default(),
            unreached: OnceLock::new(),
            choice_changed: false,
            next_round: now,
            deadlines: BTreeSet::new(),
            awake: BTreeSet::new(),
            offered: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Returns the settings.
    #[must_use]
    pub fn config(&self) -> &SpeakerConfig {
        &self.config
    }

    /// Changes the speaker's own settings. What peers are told in an OPEN message resets sessions, and peers that do
    /// graceful restart keep our routes meanwhile: a router id all of them, an AS number those whose
    /// [`PeerConfig::local_as`] changes with it. A cluster id has routes told and asked for again. How it started, what
    /// it waits for then, and its seed stay as they were.
    pub fn set_config(&mut self, config: SpeakerConfig, now: Instant) {
        let SpeakerConfig { start, deferral, deferral_unreached, seed, .. } = self.config;
        let before = std::mem::replace(
            &mut self.config,
            SpeakerConfig { start, deferral, deferral_unreached, seed, ..config },
        );
        self.tables.cluster = self.config.cluster();
        self.tables.default_local_pref = self.config.default_local_pref;
        let told = |config: &SpeakerConfig| (config.cluster(), config.default_local_pref);
        let renamed = before.router_id != self.config.router_id;
        let tells_anew = told(&before) != told(&self.config);
        for id in self.by_address.values().copied().collect::<Vec<_>>() {
            self.renew_terms(id);
            if renamed {
                let why = Notification::new(Notification::CONFIGURATION_CHANGE);
                self.session_input(id, Input::Reset(why), now);
                continue;
            }
            if tells_anew {
                self.tell_again(id);
                self.ask_again(id, now);
            }
        }
        self.advance(now);
    }

    /// Makes these the peers: new ones start, missing ones stop, and a changed one has its session reset only when
    /// the change needs it. The others notice nothing. Of two peers with one address the first counts.
    ///
    /// What is taken from a peer changes without a new session where the peer can be asked to tell everything again (RFC
    /// 2918); another has its session reset, unless all that changes is which networks are refused because they are
    /// [ours](crate::filter::Import). What is refused now is dropped at once, and nobody is asked. What was refused until
    /// now and is no longer is asked for where that is possible, and otherwise comes with the next session. Of a peer that
    /// is away, what is kept and would be refused now is dropped.
    pub fn set_peers(&mut self, peers: Vec<PeerConfig>, now: Instant) {
        let mut wanted: BTreeMap<IpAddr, PeerConfig> = BTreeMap::new();
        for peer in peers {
            wanted.entry(peer.address).or_insert(peer);
        }
        if let Some(deferral) = &mut self.deferral {
            deferral.peers_known();
        }
        let stays = |id: &PeerId| self.peers.get(id).is_some_and(|peer| peer.came_by.is_some());
        let gone: Vec<IpAddr> = self
            .by_address
            .iter()
            .filter(|(address, id)| !wanted.contains_key(address) && !stays(id))
            .map(|(address, _)| *address)
            .collect();
        for address in gone {
            self.remove_peer(address, now);
        }
        for (address, config) in wanted {
            match self.by_address.get(&address) {
                None => self.add_peer(config, now),
                Some(id) => {
                    let id = *id;
                    if let Some(peer) = self.peers.get_mut(&id) {
                        peer.came_by = None;
                    }
                    self.change_peer(id, config, now);
                }
            }
        }
        self.regroup(now);
        self.advance(now);
    }

    /// Ends a peer's session and begins it anew, with a text for the other operator (RFC 9003). A peer that is held down
    /// because it told too many prefixes gets another chance.
    pub fn reset_peer(&mut self, address: IpAddr, text: &str, now: Instant) {
        let why = Notification::new(Notification::ADMINISTRATIVE_RESET).with_communication(text);
        if let Some(id) = self.by_address.get(&address).copied() {
            if !self.resume(id, now) {
                self.session_input(id, Input::Reset(why), now);
            }
            self.forget_if_gone(id, now);
            self.advance(now);
        }
    }

    /// Asks a peer to tell everything again (RFC 2918); a peer that cannot gets a fresh session instead.
    pub fn refresh_peer(&mut self, address: IpAddr, now: Instant) {
        let Some(id) = self.by_address.get(&address).copied() else { return };
        self.ask_again(id, now);
        self.advance(now);
    }

    /// Ends every session for good, with a text for the other operators; peers drop our routes.
    pub fn shut_down(&mut self, text: &str, now: Instant) {
        let why = Notification::new(Notification::ADMINISTRATIVE_SHUTDOWN).with_communication(text);
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.session_input(id, Input::Stop(why.clone().into_hard_reset()), now);
        }
        self.advance(now);
    }

    /// Takes a connection that `remote` opened to our address `local`.
    ///
    /// # Errors
    /// When nobody with this address is expected, or too many are there already; the connection is to be closed.
    pub fn accept(&mut self, remote: IpAddr, local: IpAddr, now: Instant) -> Result<ConnectionId, Refused> {
        let id = self.peer_for(remote, now)?;
        let peer = self.peers.get_mut(&id).ok_or(Refused::Unknown(remote))?;
        let connection = peer.session.next_connection().ok_or(Refused::Stopped(remote))?;
        peer.lines.insert(connection, new_line(local, &peer.config));
        self.session_input(id, Input::Accepted(connection), now);
        self.advance(now);
        Ok(connection)
    }

    /// A dialed connection is there; `local` is its address on our side.
    pub fn connected(&mut self, connection: ConnectionId, local: IpAddr, now: Instant) {
        let id = PeerId(connection.peer);
        match self.peers.get_mut(&id) {
            Some(peer) => {
                peer.lines.insert(connection, new_line(local, &peer.config));
                self.session_input(id, Input::Connected(connection), now);
                self.advance(now);
            }
            None => self.events.push_back(Action::Close(connection)),
        }
    }

    /// Says which ports a connection has, ours and the peer's, which monitoring stations want to know.
    pub fn note_ports(&mut self, connection: ConnectionId, ports: (u16, u16)) {
        let peer = self.peers.get_mut(&PeerId(connection.peer));
        if let Some(line) = peer.and_then(|peer| peer.lines.get_mut(&connection)) {
            line.ports = ports;
        }
    }

    /// A connection could not be dialed, with the cause in words.
    pub fn refused(&mut self, connection: ConnectionId, why: String, now: Instant) {
        self.session_input(PeerId(connection.peer), Input::Refused(connection, why), now);
        self.advance(now);
    }

    /// A connection has ended, with the cause in words.
    pub fn closed(&mut self, connection: ConnectionId, why: String, now: Instant) {
        let id = PeerId(connection.peer);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.lines.remove(&connection);
        }
        self.awake.remove(&connection);
        self.session_input(id, Input::Heard(connection, Heard::Closed(why)), now);
        self.forget_if_gone(id, now);
        self.advance(now);
    }

    /// Returns when [`Speaker::timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let round = self.has_work().then_some(self.next_round);
        let deferral = self.deferral.map(|d| d.look_at);
        self.deadlines.first().map(|(at, _)| *at).into_iter().chain(round).chain(deferral).min()
    }

    /// Returns the connections that [`Speaker::timeout`] will end because their peers have said nothing for so long. Whoever
    /// was held up, or is slow, has to look first whether the peer's octets wait in the socket.
    #[must_use]
    pub fn silent(&self, now: Instant) -> Vec<ConnectionId> {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        let peers = due.filter_map(|(_, id)| self.peers.get(id));
        peers.flat_map(|peer| peer.session.silent(now)).collect()
    }

    /// A deadline has passed. What [`Speaker::silent`] names is to be read before.
    pub fn timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.filed = None;
            }
            self.expire_retained(id, now);
            self.expire_refresh(id, now);
            self.cut_short(id, now);
            self.resume_if_due(id, now);
            self.session_input(id, Input::Timeout, now);
            self.forget_if_gone(id, now);
        }
        self.advance(now);
    }

    /// Takes the next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.events.pop_front()
    }
}
