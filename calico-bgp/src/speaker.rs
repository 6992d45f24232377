//! Sessions and tables as one machine: octets, time and commands in; octets, deadlines and route events out.
//!
//! Whoever drives it owns the sockets and the clock:
//!
//! - after every call, take [`Speaker::poll`] until it is empty and do what it says;
//! - when [`Action::Wake`] names a connection, take octets with [`Speaker::transmit`] as fast as the socket accepts
//!   them: a slow peer leaves its octets here, where they are shared with its group;
//! - at [`Speaker::deadline`], call [`Speaker::timeout`].

mod config;
mod group;
mod import;
mod peer;
mod restart;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use calico_model::{Cidr, Family, LearnedRoute, LearnedRoutes};

pub use config::{
    Distance, METRIC_BASE, NORMAL_LOCAL_PREF, NextHopMode, Origination, Password, PeerConfig, Reflection,
    SpeakerConfig, Start,
};
pub use status::{Counters, PeerStatus, RouteStatus};

use crate::decision::{self, Source, Sources};
use crate::family::{FamilySet, PerFamily};
use crate::rib::intern::Interner;
use crate::rib::{Freshness, Path, PeerId, Rib, Tabled};
use crate::session::{ConnectionId, Heard, Input, Output, Peering, Session, State};
use crate::wire::{
    self, Attributes, Dialect, MAX_MESSAGE, MessageType, Notification, Open, Refresh, Remedy, Update,
};
use group::{Group, GroupKey, World};
use import::Marked;
use peer::{Closing, History, Line, Peer, Retained, Up};
use restart::Deferral;

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
    /// Something waits to be sent: take it with [`Speaker::transmit`].
    Wake(ConnectionId),
    /// Close the connection at once.
    Close(ConnectionId),
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
}

/// How many octets one [`Speaker::transmit`] hands out, about.
const ENOUGH: usize = 64 * 1024;

/// A BGP speaker without sockets or clock.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    peers: BTreeMap<PeerId, Peer>,
    by_address: BTreeMap<IpAddr, PeerId>,
    next_id: u32,
    rib: Rib,
    interner: Interner,
    sources: Sources,
    clients: BTreeSet<PeerId>,
    originated: BTreeMap<Cidr, Origination>,
    groups: BTreeMap<GroupKey, Group>,
    deferral: Option<Deferral>,
    choice_changed: bool,
    next_round: Instant,
    deadlines: BTreeSet<(Instant, PeerId)>,
    awake: BTreeSet<ConnectionId>,
    events: VecDeque<Action>,
}

impl Speaker {
    /// Makes a speaker without peers.
    #[must_use]
    pub fn new(config: SpeakerConfig, now: Instant) -> Self {
        let deferral = (config.start == Start::Recovering).then(|| Deferral::begin(&config, now));
        Self {
            config,
            peers: BTreeMap::new(),
            by_address: BTreeMap::new(),
            next_id: 1,
            rib: Rib::default(),
            interner: Interner::default(),
            sources: Sources::default(),
            clients: BTreeSet::new(),
            originated: BTreeMap::new(),
            groups: BTreeMap::new(),
            deferral,
            choice_changed: false,
            next_round: now,
            deadlines: BTreeSet::new(),
            awake: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// Returns the settings.
    #[must_use]
    pub fn config(&self) -> &SpeakerConfig {
        &self.config
    }

    /// Makes these the peers: new ones start, missing ones stop, and a changed one has its session reset only when
    /// the change needs it. The others notice nothing. Of two peers with one address the first counts.
    pub fn set_peers(&mut self, peers: Vec<PeerConfig>, now: Instant) {
        let mut wanted: BTreeMap<IpAddr, PeerConfig> = BTreeMap::new();
        for peer in peers {
            wanted.entry(peer.address).or_insert(peer);
        }
        if let Some(deferral) = &mut self.deferral {
            deferral.peers_known();
        }
        let gone: Vec<IpAddr> = self.by_address.keys().filter(|a| !wanted.contains_key(a)).copied().collect();
        for address in gone {
            self.remove_peer(address, now);
        }
        for (address, config) in wanted {
            match self.by_address.get(&address) {
                None => self.add_peer(config, now),
                Some(id) => self.change_peer(*id, config, now),
            }
        }
        self.advance(now);
    }

    /// Makes these the prefixes that begin here.
    pub fn set_originated(&mut self, prefixes: BTreeMap<Cidr, Origination>, now: Instant) {
        if let Some(deferral) = &mut self.deferral {
            deferral.origins_known();
        }
        let old = std::mem::replace(&mut self.originated, prefixes);
        for cidr in old.keys().filter(|cidr| !self.originated.contains_key(cidr)).copied().collect::<Vec<_>>()
        {
            match cidr.family() {
                Family::V4 => self.withdraw_own::<std::net::Ipv4Addr>(cidr),
                Family::V6 => self.withdraw_own::<std::net::Ipv6Addr>(cidr),
            }
        }
        let changed: Vec<(Cidr, Origination)> = self
            .originated
            .iter()
            .filter(|(cidr, how)| old.get(cidr) != Some(how))
            .map(|(cidr, how)| (*cidr, how.clone()))
            .collect();
        for (cidr, how) in changed {
            let unset = Origination::unset_next_hop(cidr.family());
            let mut attributes = Attributes::originated(how.next_hop.unwrap_or(unset));
            attributes.local_pref = Some(how.local_pref);
            attributes.add_communities(&how.communities);
            match cidr.family() {
                Family::V4 => self.announce_own::<std::net::Ipv4Addr>(cidr, attributes),
                Family::V6 => self.announce_own::<std::net::Ipv6Addr>(cidr, attributes),
            }
        }
        self.advance(now);
    }

    fn announce_own<A: Marked>(&mut self, cidr: Cidr, attributes: Attributes) {
        let Some(prefix) = wire::Prefix::<A>::of(cidr) else { return };
        let attributes = self.interner.intern(attributes);
        let path = Path { attributes, peer: PeerId::LOCAL, path_id: 0, freshness: Freshness::Fresh };
        let effect = A::table_mut(&mut self.rib).insert(prefix, path, &self.sources);
        self.note(PeerId::LOCAL, prefix, effect);
    }

    fn withdraw_own<A: Marked>(&mut self, cidr: Cidr) {
        let Some(prefix) = wire::Prefix::<A>::of(cidr) else { return };
        let effect = A::table_mut(&mut self.rib).remove(prefix, PeerId::LOCAL, 0, &self.sources);
        self.note(PeerId::LOCAL, prefix, effect);
    }

    /// Ends a peer's session and begins it anew, with a text for the other operator (RFC 9003).
    pub fn reset_peer(&mut self, address: IpAddr, text: &str, now: Instant) {
        let why = Notification::new(Notification::ADMINISTRATIVE_RESET).with_communication(text);
        if let Some(id) = self.by_address.get(&address).copied() {
            self.session_input(id, Input::Reset(why), now);
            self.advance(now);
        }
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
    /// When nobody with this address is expected; the connection is to be closed.
    pub fn accept(&mut self, remote: IpAddr, local: IpAddr, now: Instant) -> Result<ConnectionId, Refused> {
        let id = *self.by_address.get(&remote).ok_or(Refused::Unknown(remote))?;
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
        self.session_input(id, Input::Heard(connection, Heard::Closed(why)), now);
        self.advance(now);
    }

    /// Octets came in on a connection, in any portions.
    pub fn receive(&mut self, connection: ConnectionId, octets: &[u8], now: Instant) {
        let id = PeerId(connection.peer);
        let Some(line) = self.peers.get_mut(&id).and_then(|peer| peer.lines.get_mut(&connection)) else {
            return;
        };
        if line.closing != Closing::No {
            return;
        }
        let mut pending = std::mem::take(&mut line.received);
        let whole: &[u8] = if pending.is_empty() {
            octets
        } else {
            pending.extend_from_slice(octets);
            &pending
        };
        let used = self.messages(id, connection, whole, now);
        let rest = whole[used..].to_vec();
        if let Some(line) = self.peers.get_mut(&id).and_then(|peer| peer.lines.get_mut(&connection)) {
            line.received = rest;
        }
        self.advance(now);
    }

    /// Handles the whole messages at the front; returns how many octets they were.
    fn messages(&mut self, id: PeerId, connection: ConnectionId, octets: &[u8], now: Instant) -> usize {
        let mut used = 0;
        loop {
            let Some(peer) = self.peers.get_mut(&id) else { return octets.len() };
            let Some(line) = peer.lines.get(&connection).filter(|line| line.closing == Closing::No) else {
                return octets.len();
            };
            let dialect = line.dialect;
            let heard = match wire::frame(&octets[used..], dialect.max_len) {
                Ok(None) => return used,
                Err(fault) => malformed(fault),
                Ok(Some(frame)) => {
                    used += frame.len;
                    peer.counters.messages_in += 1;
                    match frame.kind {
                        MessageType::Open => match Open::decode(frame.body) {
                            Ok(open) => Heard::Open(Box::new(open)),
                            Err(fault) => malformed(fault),
                        },
                        MessageType::Keepalive => Heard::Keepalive,
                        MessageType::Notification => Heard::Notification(wire::read_notification(frame.body)),
                        MessageType::RouteRefresh => match wire::read_refresh(frame.body) {
                            Ok(refresh) => self.refresh(id, connection, refresh),
                            Err(fault) => malformed(fault),
                        },
                        MessageType::Update => self.update(id, connection, frame.body, &dialect),
                    }
                }
            };
            self.session_input(id, Input::Heard(connection, heard), now);
        }
    }

    fn update(&mut self, id: PeerId, connection: ConnectionId, body: &[u8], dialect: &Dialect) -> Heard {
        let Some(peer) = self.peers.get_mut(&id) else { return Heard::Update };
        peer.counters.updates_in += 1;
        if peer.up.as_ref().is_none_or(|up| up.connection != connection) {
            return Heard::Update;
        }
        match Update::decode(body, dialect) {
            Err(fault) => {
                peer.last_fault = Some(fault.to_string());
                malformed(fault)
            }
            Ok(update) => {
                peer.counters.faults_in += update.faults.len() as u64;
                if let Some(fault) = update.faults.last() {
                    peer.last_fault = Some(fault.to_string());
                }
                match self.import(id, update) {
                    Ok(()) => Heard::Update,
                    Err(too_many) => Heard::Malformed(too_many),
                }
            }
        }
    }

    fn refresh(&mut self, id: PeerId, connection: ConnectionId, refresh: Refresh) -> Heard {
        let up = self.peers.get(&id).and_then(|peer| peer.up.as_ref());
        if let (Some(up), Refresh::Request(family)) = (up, refresh)
            && up.connection == connection
            && up.negotiated.families.contains(family)
            && let Some(group) = self.groups.get_mut(&up.group)
        {
            group.join(id, [family].into_iter().collect());
        }
        Heard::Refresh
    }

    /// Appends what is to be sent on a connection, about 64 KiB at most, to `out`. Nothing appended means nothing
    /// waits: the next octets are announced by [`Action::Wake`], or the connection is to be closed.
    pub fn transmit(&mut self, connection: ConnectionId, out: &mut Vec<u8>, now: Instant) {
        let id = PeerId(connection.peer);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(line) = peer.lines.get_mut(&connection) else { return };
        while out.len() < ENOUGH
            && let Some(message) = line.control.pop_front()
        {
            out.extend_from_slice(&message);
            peer.counters.messages_out += 1;
        }
        if line.closing == Closing::WhenSent {
            if line.control.is_empty() && out.is_empty() {
                peer.lines.remove(&connection);
                self.events.push_back(Action::Close(connection));
            }
            return;
        }
        if let Some(up) = peer.up.as_ref().filter(|up| up.connection == connection)
            && let Some(group) = self.groups.get_mut(&up.group)
        {
            let count = group.take(id, out, ENOUGH);
            peer.counters.messages_out += count;
            peer.counters.updates_out += count;
        }
        if out.is_empty() {
            self.awake.remove(&connection);
            self.session_input(id, Input::Drained(connection), now);
        }
    }

    /// Returns when [`Speaker::timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let round = self.has_work().then_some(self.next_round);
        let deferral = self.deferral.map(|d| d.look_at);
        self.deadlines.first().map(|(at, _)| *at).into_iter().chain(round).chain(deferral).min()
    }

    /// A deadline has passed.
    pub fn timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.filed = None;
            }
            self.expire_retained(id, now);
            self.session_input(id, Input::Timeout, now);
        }
        self.advance(now);
    }

    /// Takes the next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.events.pop_front()
    }

    /// Returns every peer, by address.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        self.by_address
            .values()
            .filter_map(|id| self.peers.get(id))
            .map(|peer| self.status_of(peer))
            .collect()
    }

    fn status_of(&self, peer: &Peer) -> PeerStatus {
        let group = peer.up.as_ref().and_then(|up| self.groups.get(&up.group));
        PeerStatus {
            address: peer.config.address,
            name: peer.config.name.clone(),
            remote_as: peer.config.remote_as,
            peering: peer.config.peering(),
            state: peer.state,
            since: peer.since,
            remote_id: peer.up.as_ref().map(|up| up.negotiated.remote_id),
            last_error: peer.last_error.as_ref().map(ToString::to_string),
            last_fault: peer.last_fault.clone(),
            prefixes_in: peer.held,
            prefixes_out: PerFamily::new(|family| {
                group.map_or(0, |g| u32::try_from(g.told(family, peer.id)).unwrap_or(u32::MAX))
            }),
            retained_until: peer.retained.until(),
            counters: peer.counters,
        }
    }

    /// Returns every path in the tables with the reason why it is or is not the best one.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteStatus> {
        let mut routes = self.routes_of::<std::net::Ipv4Addr>();
        routes.extend(self.routes_of::<std::net::Ipv6Addr>());
        routes
    }

    fn routes_of<A: Tabled>(&self) -> Vec<RouteStatus> {
        let explained = |(prefix, paths): (wire::Prefix<A>, &[Path])| {
            let reasons = decision::explain(paths, &self.sources);
            paths
                .iter()
                .zip(reasons)
                .map(|(path, lost_to)| RouteStatus {
                    prefix: prefix.cidr(),
                    peer: self.peers.get(&path.peer).map(|peer| peer.config.address),
                    attributes: path.attributes.clone(),
                    lost_to,
                })
                .collect::<Vec<_>>()
        };
        A::table(&self.rib).iter().flat_map(explained).collect()
    }

    /// Returns the best routes learned from peers, or `None` while a recovering speaker has not heard enough to
    /// choose: the routes in the kernel are then better than anything known here.
    #[must_use]
    pub fn learned(&self) -> Option<LearnedRoutes> {
        if self.deferral.is_some() {
            return None;
        }
        let mut learned = self.learned_of::<std::net::Ipv4Addr>();
        learned.append(&mut self.learned_of::<std::net::Ipv6Addr>());
        Some(learned)
    }

    fn learned_of<A: Tabled>(&self) -> LearnedRoutes {
        let chosen = |(prefix, paths): (wire::Prefix<A>, &[Path])| {
            let best = paths.first().filter(|best| best.peer != PeerId::LOCAL)?;
            let next_hops = decision::equally_good(paths, &self.sources)
                .into_iter()
                .map(|at| paths[at].attributes.next_hop)
                .collect();
            let internal = self.sources.get(best.peer).is_some_and(|s| s.peering == Peering::Internal);
            let priority = best.attributes.local_pref.filter(|_| internal);
            let priority = priority.and_then(|preference| METRIC_BASE.checked_sub(preference));
            Some((prefix.cidr(), LearnedRoute { next_hops, priority }))
        };
        A::table(&self.rib).iter().filter_map(chosen).collect()
    }

    fn add_peer(&mut self, config: PeerConfig, now: Instant) {
        let id = PeerId(self.next_id);
        self.next_id += 1;
        let terms = peer::terms(&self.config, &config, History::Never, self.restart_state());
        let seed = self.config.seed ^ (u64::from(id.0) << 32);
        let session = Session::new(id.0, terms, config.initiation, config.connect_retry, seed);
        if config.reflection == Reflection::Client {
            self.clients.insert(id);
        }
        self.by_address.insert(config.address, id);
        let peer = Peer {
            id,
            config,
            session,
            lines: BTreeMap::new(),
            up: None,
            retained: Retained::Nothing,
            held: PerFamily::default(),
            counters: Counters::default(),
            since: now,
            state: State::Idle,
            last_error: None,
            last_fault: None,
            filed: None,
            history: History::Never,
        };
        self.peers.insert(id, peer);
        self.session_input(id, Input::Start, now);
    }

    fn remove_peer(&mut self, address: IpAddr, now: Instant) {
        let Some(id) = self.by_address.remove(&address) else { return };
        let gone = Notification::new(Notification::PEER_DECONFIGURED);
        self.session_input(id, Input::Stop(gone.into_hard_reset()), now);
        for family in Family::ALL {
            self.drop_paths(family, id, |_| true);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.retained = Retained::Nothing;
            peer.config.max_prefixes = None;
        }
        self.sources.remove(id);
        self.clients.remove(&id);
    }

    fn change_peer(&mut self, id: PeerId, config: PeerConfig, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.config == config {
            return;
        }
        let reset = peer.config.requires_reset(&config);
        peer.session.set_initiation(config.initiation, config.connect_retry);
        peer.config = config;
        match peer.config.reflection {
            Reflection::Client => self.clients.insert(id),
            Reflection::NonClient => self.clients.remove(&id),
        };
        self.renew_terms(id);
        if reset {
            let why = Notification::new(Notification::CONFIGURATION_CHANGE);
            self.session_input(id, Input::Reset(why), now);
        } else {
            self.regroup(id);
            for group in self.groups.values_mut() {
                group.mark_all(&self.rib);
            }
        }
    }

    /// Moves an established peer to the group that its settings now ask for.
    fn regroup(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(up) = &mut peer.up else { return };
        let Some(line) = peer.lines.get(&up.connection) else { return };
        let key = group::key_of(&peer.config, &up.negotiated, line.local);
        if key == up.group {
            return;
        }
        let old = std::mem::replace(&mut up.group, key.clone());
        let families = up.negotiated.families;
        self.leave_group(&old, id);
        self.join_group(key, id, families);
    }

    fn join_group(&mut self, key: GroupKey, id: PeerId, families: FamilySet) {
        let cluster = self.config.cluster();
        let world = World {
            rib: &self.rib,
            sources: &self.sources,
            clients: &self.clients,
            cluster,
            default_local_pref: self.config.default_local_pref,
        };
        let group = self.groups.entry(key.clone()).or_insert_with(|| Group::new(key, &world));
        group.join(id, families);
    }

    fn leave_group(&mut self, key: &GroupKey, id: PeerId) {
        if let Some(group) = self.groups.get_mut(key) {
            group.leave(id);
            if group.is_empty() {
                self.groups.remove(key);
            }
        }
    }

    /// Gives a session an input and carries out what it wants.
    fn session_input(&mut self, id: PeerId, input: Input, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.session.handle(input, now);
        while let Some(peer) = self.peers.get_mut(&id)
            && let Some(output) = peer.session.poll()
        {
            self.carry_out(id, output, now);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.note_state(now);
        }
        self.file(id);
    }

    fn carry_out(&mut self, id: PeerId, output: Output, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let address = peer.config.address;
        match output {
            Output::Dial(connection) => {
                let peer = Box::new(peer.config.clone());
                self.events.push_back(Action::Dial { connection, peer });
            }
            Output::Transmit(connection, message) => {
                if let Some(line) = peer.lines.get_mut(&connection) {
                    line.control.push_back(message);
                    self.wake(connection);
                }
            }
            Output::Close(connection) => match peer.lines.get_mut(&connection) {
                Some(line) if !line.control.is_empty() => {
                    line.closing = Closing::WhenSent;
                    self.wake(connection);
                }
                _ => {
                    peer.lines.remove(&connection);
                    self.events.push_back(Action::Close(connection));
                }
            },
            Output::Up(connection, negotiated) => {
                peer.counters.established += 1;
                peer.history = History::WasUp;
                let Some(line) = peer.lines.get_mut(&connection) else { return };
                line.dialect = negotiated.dialect;
                let group = group::key_of(&peer.config, &negotiated, line.local);
                let families = negotiated.families;
                let source =
                    Source { peering: peer.config.peering(), router_id: negotiated.remote_id, address };
                let complete = FamilySet::NONE;
                let up = Up { connection, negotiated: negotiated.clone(), group: group.clone(), complete };
                peer.up = Some(up);
                self.sources.set(id, source);
                self.routes_after_up(id, &negotiated, now);
                self.join_group(group, id, families);
                self.renew_terms(id);
                self.events.push_back(Action::Event(Event::Up(address)));
            }
            Output::Down(_, ended) => {
                peer.last_error = Some(ended.clone());
                let words = ended.to_string();
                if let Some(up) = peer.up.take() {
                    self.leave_group(&up.group, id);
                    self.routes_after_down(id, &up.negotiated, &ended, now);
                }
                self.events.push_back(Action::Event(Event::Down(address, words)));
            }
            Output::Failed(ended) => {
                let words = ended.to_string();
                peer.last_error = Some(ended);
                self.events.push_back(Action::Event(Event::Failed(address, words)));
            }
        }
    }

    fn wake(&mut self, connection: ConnectionId) {
        if self.awake.insert(connection) {
            self.events.push_back(Action::Wake(connection));
        }
    }

    /// Files a peer under its deadline. A deadline that moves away is left where it is and looked at when it comes,
    /// so that a busy session costs nothing here.
    fn file(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(deadline) = peer.deadline() else { return };
        if peer.filed.is_none_or(|filed| deadline < filed) {
            if let Some(filed) = peer.filed.replace(deadline) {
                self.deadlines.remove(&(filed, id));
            }
            self.deadlines.insert((deadline, id));
        }
    }

    fn has_work(&self) -> bool {
        self.deferral.is_none() && (self.choice_changed || self.groups.values().any(Group::has_work))
    }

    /// Ends every call: forgets peers that are gone, and tells what changed when it is time.
    fn advance(&mut self, now: Instant) {
        let by_address = &self.by_address;
        self.peers
            .retain(|id, peer| by_address.get(&peer.config.address) == Some(id) || !peer.lines.is_empty());
        self.check_deferral(now);
        if !self.has_work() || now < self.next_round {
            return;
        }
        self.next_round = now + self.config.batching;
        if std::mem::take(&mut self.choice_changed) {
            self.events.push_back(Action::Event(Event::Routes));
        }
        let world = World {
            rib: &self.rib,
            sources: &self.sources,
            clients: &self.clients,
            cluster: self.config.cluster(),
            default_local_pref: self.config.default_local_pref,
        };
        let mut late = Vec::new();
        let mut waiting = Vec::new();
        for group in self.groups.values_mut() {
            late.extend(group.round(&world));
            waiting.extend(group.members().filter(|member| group.waits_for(*member)));
        }
        for id in waiting {
            if let Some(peer) = self.peers.get_mut(&id)
                && let Some(up) = &peer.up
            {
                let connection = up.connection;
                peer.session.waiting_to_send(connection, now);
                self.wake(connection);
                self.file(id);
            }
        }
        for id in late {
            let why = Notification::new(Notification::OUT_OF_RESOURCES);
            self.session_input(id, Input::Reset(why), now);
        }
    }
}

fn malformed(fault: wire::DecodeError) -> Heard {
    match fault.remedy {
        Remedy::Reset(notification) => Heard::Malformed(notification),
        Remedy::Discard | Remedy::TreatAsWithdraw => Heard::Update,
    }
}

fn new_line(local: IpAddr, config: &PeerConfig) -> Line {
    Line {
        received: Vec::new(),
        control: VecDeque::new(),
        local,
        dialect: Dialect { max_len: MAX_MESSAGE, ..Dialect::plain(config.peering()) },
        closing: Closing::No,
    }
}
