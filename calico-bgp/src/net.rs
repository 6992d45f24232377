//! The tokio driver: it owns the sockets and the clock, and decides nothing.
//!
//! One task owns the [`Speaker`] and every connection, which it serves in turn, so a peer that floods us waits in its
//! own socket. Listeners and dialings report to it through a bounded channel. The owner's `select!` has only
//! cancel-safe branches: two channel receivers, the list of ready connections and a sleep.
//!
//! Sockets are made on the threads of the runtime that [`spawn`] is called on, and so in their network namespace.

mod bfd;
mod bmp;
mod connection;
mod handle;
mod keys;
mod listen;
mod refusals;
mod socket;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use calico_model::LearnedRoutes;
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

pub use bmp::Station;
pub use handle::{Gone, Handle};
pub use listen::ListenError;

use crate::session::ConnectionId;
use crate::speaker::{Action, Event, FeedId, Speaker, SpeakerConfig};
use bfd::{Bfd, Wish};
use bmp::Feeding;
use connection::{Connection, Ready, Report};
use handle::Command;
use keys::Keys;
use listen::Listening;
use refusals::Refusals;

/// Starts a speaker on the current runtime that listens on the given addresses; with none, it only dials.
///
/// # Errors
/// When it cannot listen. Nothing is running then.
///
/// # Panics
/// Outside a tokio runtime.
pub fn spawn(listen: &[SocketAddr], config: SpeakerConfig) -> Result<Handle, ListenError> {
    // Commands are few and each replaces the last of its kind.
    let (commands, inbox) = mpsc::channel(16);
    // Connections that are not taken up yet wait in the listener's backlog.
    let (reports, reported) = mpsc::channel(64);
    let listeners =
        listen.iter().map(|address| Listening::start(*address, &reports)).collect::<Result<Vec<_>, _>>()?;
    let speaker = Speaker::new(config, clock());
    // An operator's log that is 1,024 events behind is not being read.
    let (events, _) = broadcast::channel(1024);
    let owner = Owner {
        speaker,
        listeners,
        keys: Keys::default(),
        connections: BTreeMap::new(),
        dialings: BTreeMap::new(),
        bfd: None,
        refusals: Refusals::default(),
        stations: BTreeMap::new(),
        hungry: BTreeMap::new(),
        statistics_due: None,
        commands: commands.downgrade(),
        ready: Arc::default(),
        incoming: vec![0; PORTION].into(),
        reports,
        publish: watch::Sender::new(None),
        publish_due: None,
        publish_rest: clock(),
        events: events.clone(),
    };
    // It yields by itself. Where tokio counts, every socket behind the first 128 is said to be not ready, and asked again.
    tokio::spawn(tokio::task::unconstrained(owner.run(inbox, reported)));
    Ok(Handle { commands, events })
}

#[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
fn clock() -> Instant {
    Instant::now()
}

/// How many octets are read from a connection, or written to it, before it is another one's turn.
const PORTION: usize = 64 * 1024;

struct Owner {
    speaker: Speaker,
    listeners: Vec<Listening>,
    keys: Keys,
    connections: BTreeMap<ConnectionId, Connection>,
    dialings: BTreeMap<ConnectionId, AbortHandle>,
    bfd: Option<Bfd>,
    refusals: Refusals,
    stations: BTreeMap<Station, Feeding>,
    /// Stations that have heard everything and wait for more.
    hungry: BTreeMap<FeedId, oneshot::Sender<Vec<u8>>>,
    statistics_due: Option<Instant>,
    commands: mpsc::WeakSender<Command>,
    ready: Arc<Ready>,
    /// What was read from a socket: for all connections, one after the other.
    incoming: Box<[u8]>,
    reports: mpsc::Sender<Report>,
    publish: watch::Sender<Option<Arc<LearnedRoutes>>>,
    /// When the choice is to be published, if it has changed, and not before when it may be again.
    publish_due: Option<Instant>,
    publish_rest: Instant,
    events: broadcast::Sender<Event>,
}

impl Owner {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, mut reported: mpsc::Receiver<Report>) {
        loop {
            self.act();
            let due = self.speaker.deadline();
            let due = due.into_iter().chain(self.publish_due).chain(self.statistics_due).min();
            let alarm = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::ShutDown(text, answer)) => return self.shut_down(&text, answer, reported).await,
                    Some(command) => self.command(command),
                    None => return,
                },
                Some(report) = reported.recv() => self.report(report),
                () = self.ready.some() => self.serve().await,
                () = alarm => {}
            }
            let now = clock();
            if self.speaker.deadline().is_some_and(|at| at <= now) {
                self.hear_the_silent(now);
                self.speaker.timeout(now);
            }
            if self.statistics_due.is_some_and(|at| at <= now) {
                self.speaker.feed_statistics();
                self.statistics_due = self.speaker.has_feeds().then(|| now + bmp::STATISTICS);
            }
            if self.publish_due.is_some_and(|at| at <= now) {
                self.publish_learned(now);
            }
        }
    }

    /// Says goodbye to everybody, for two seconds at most.
    async fn shut_down(
        mut self,
        text: &str,
        answer: oneshot::Sender<()>,
        mut reported: mpsc::Receiver<Report>,
    ) {
        self.listeners.clear();
        self.speaker.shut_down(text, clock());
        self.act();
        let feeds: Vec<_> = std::mem::take(&mut self.stations).into_values().map(Feeding::end).collect();
        let rest = async {
            while !self.connections.is_empty() {
                tokio::select! {
                    Some(report) = reported.recv() => self.report(report),
                    () = self.ready.some() => self.serve().await,
                }
                self.act();
            }
            for feed in feeds {
                let _ended = feed.await;
            }
        };
        let _cut_short = tokio::time::timeout(std::time::Duration::from_secs(2), rest).await;
        let _nobody_waits = answer.send(());
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Peers(peers) => {
                self.keys.set_peers(&peers);
                self.key_listeners();
                self.speaker.set_peers(peers, clock());
            }
            Command::DynamicPeers(ranges) => {
                self.keys.set_ranges(&ranges);
                self.key_listeners();
                self.speaker.set_dynamic_peers(ranges, clock());
            }
            Command::Listen(addresses, answer) => drop(answer.send(self.listen(&addresses))),
            Command::Config(config) => self.speaker.set_config(config, clock()),
            Command::Originate(prefixes) => self.speaker.set_originated(prefixes, clock()),
            Command::Reachability(known) => self.speaker.set_reachability(known, clock()),
            Command::Status(answer) => drop(answer.send(self.speaker.status())),
            Command::Routes(answer) => drop(answer.send(self.speaker.routes())),
            Command::RoutesTo(prefix, answer) => drop(answer.send(self.speaker.routes_to(prefix))),
            Command::Unreached(answer) => drop(answer.send(self.speaker.unreached())),
            Command::Learned(answer) => {
                let learned = self.publish.subscribe();
                self.publish_learned(clock());
                let _nobody_waits = answer.send(learned);
            }
            Command::Stations(wanted) => {
                self.stations.retain(|station, _| wanted.contains(station));
                for station in wanted {
                    let feeding = || Feeding::start(station.clone(), self.commands.clone());
                    self.stations.entry(station.clone()).or_insert_with(feeding);
                }
            }
            Command::OpenFeed(name, answer) => {
                let description = concat!("calico-bgp ", env!("CARGO_PKG_VERSION"));
                let _gone = answer.send(self.speaker.open_feed(description, &name));
                self.statistics_due.get_or_insert(clock() + bmp::STATISTICS);
            }
            // One that was cut off while its station was written to is told so by having no answer.
            Command::Feed(id, answer) if self.speaker.has_feed(id) => {
                self.hungry.insert(id, answer);
                self.feed(id);
            }
            Command::Feed(..) => {}
            Command::CloseFeed(id) => {
                self.hungry.remove(&id);
                self.speaker.close_feed(id);
            }
            Command::Reset(address, text) => self.speaker.reset_peer(address, &text, clock()),
            Command::Refresh(address) => self.speaker.refresh_peer(address, clock()),
            Command::ShutDown(..) => {}
        }
    }

    /// Puts the peers' keys on the listeners, and says whose could not be.
    fn key_listeners(&mut self) {
        let refused = self.keys.lay(&self.listeners);
        if let Some((peers, error)) = refused.first() {
            let why = keys::refusal(*peers, refused.len() - 1, error);
            let _nobody_listens = self.events.send(Event::Warning(peers.addr(), why));
        }
    }

    /// Listens on these addresses, or goes on where it did.
    fn listen(&mut self, addresses: &[SocketAddr]) -> Result<(), ListenError> {
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut self.listeners)
            .into_iter()
            .partition(|listening| addresses.contains(&listening.address));
        self.listeners = stay;
        let before: Vec<SocketAddr> = go.iter().map(|listening| listening.address).collect();
        // First, because an address and "any address" cannot both be listened on.
        drop(go);
        let held: Vec<SocketAddr> = self.listeners.iter().map(|listening| listening.address).collect();
        let new: Result<Vec<Listening>, ListenError> = addresses
            .iter()
            .filter(|address| !held.contains(address))
            .map(|address| Listening::start(*address, &self.reports))
            .collect();
        let outcome = match new {
            Ok(new) => {
                self.listeners.extend(new);
                Ok(())
            }
            Err(error) => {
                let (mut error, reports) = (error, &self.reports);
                for address in before {
                    match Listening::start(address, reports) {
                        Ok(again) => self.listeners.push(again),
                        Err(also) => error = error.and(also),
                    }
                }
                Err(error)
            }
        };
        self.key_listeners();
        outcome
    }

    fn report(&mut self, report: Report) {
        let now = clock();
        if let Report::Dialed { connection, .. } | Report::Undialed { connection, .. } = &report {
            self.dialings.remove(connection);
        }
        match report {
            Report::Incoming { stream, remote } => self.incoming(stream, remote, now),
            Report::Dialed { connection, stream, remote } => match stream.local_addr() {
                Ok(local) => {
                    self.start(connection, stream);
                    self.speaker.connected(connection, local.ip(), now);
                    self.speaker.note_ports(connection, (local.port(), remote.port()));
                }
                Err(error) => {
                    self.speaker.refused(connection, format!("cannot connect to {remote}: {error}"), now);
                }
            },
            Report::Undialed { connection, why } => self.speaker.refused(connection, why, now),
            Report::Path { peer, change } => self.speaker.path_changed(peer, change, now),
            Report::Unwatched { peer, why } => {
                let _nobody_listens = self.events.send(Event::Warning(peer, why));
            }
        }
    }

    fn start(&mut self, connection: ConnectionId, stream: TcpStream) {
        self.connections.insert(connection, Connection::start(connection, stream, &self.ready));
    }

    /// Reads a portion of each connection that is ready, and goes on with sending where something waits. Timers and other
    /// tasks are looked at before those that have more to say.
    async fn serve(&mut self) {
        for connection in self.ready.take() {
            let Some(held) = self.connections.get_mut(&connection) else { continue };
            match held.receive(&mut self.incoming) {
                Ok([]) => {}
                Ok(octets) => {
                    held.serve_again();
                    self.speaker.receive(connection, octets, clock());
                    self.act();
                }
                Err(error) => self.closed(connection, &error),
            }
            if self.connections.get(&connection).is_some_and(Connection::is_sending) {
                self.send(connection);
            }
        }
        tokio::task::yield_now().await;
    }

    /// Hears those whose hold time is over by the clock, while it may be us who did not look: a command took long, or the
    /// machine stood still.
    fn hear_the_silent(&mut self, now: Instant) {
        for connection in self.speaker.silent(now) {
            self.hear_now(connection);
        }
    }

    /// Hears what is in a connection's socket, a portion at most; reports whether there was something.
    fn hear_now(&mut self, connection: ConnectionId) -> bool {
        let Some(held) = self.connections.get_mut(&connection) else { return false };
        let Ok(octets @ [_, ..]) = held.receive_now(&mut self.incoming) else { return false };
        self.speaker.receive(connection, octets, clock());
        self.act();
        true
    }

    fn closed(&mut self, connection: ConnectionId, why: &std::io::Error) {
        self.connections.remove(&connection);
        self.speaker.closed(connection, why.to_string(), clock());
    }

    fn incoming(&mut self, stream: TcpStream, remote: SocketAddr, now: Instant) {
        let Ok(local) = stream.local_addr() else { return };
        let from = remote.ip();
        let Some(distance) = self.speaker.expected(from).map(|peer| peer.distance) else {
            return refusals::reject(stream);
        };
        if !self.keys.let_in(from) || socket::set_distance(&stream, from, distance).is_err() {
            return;
        }
        match self.speaker.accept(from, local.ip(), now) {
            Ok(connection) => {
                self.speaker.note_ports(connection, (local.port(), remote.port()));
                self.start(connection, stream);
            }
            Err(refused) => {
                refusals::reject(stream);
                let warning = self.refusals.told(refused, now).map(|why| Event::Warning(from, why));
                let _nobody_listens = warning.map(|warning| self.events.send(warning));
            }
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.speaker.poll() {
            match action {
                Action::Dial { connection, peer } => {
                    let dialing = connection::dial(connection, peer, self.reports.clone());
                    self.dialings.insert(connection, tokio::spawn(dialing).abort_handle());
                }
                Action::Wake(connection) => {
                    if let Some(held) = self.connections.get_mut(&connection) {
                        held.send_later();
                    }
                }
                Action::WakeFeed(id) => self.feed(id),
                Action::CloseFeed(id) => drop(self.hungry.remove(&id)),
                Action::Watch { peer, local, config } => self.watch(Wish::Watch { peer, local, config }),
                Action::Unwatch(peer) => self.watch(Wish::Unwatch(peer)),
                Action::Close(connection) => {
                    self.connections.remove(&connection);
                    if let Some(dialing) = self.dialings.remove(&connection) {
                        dialing.abort();
                    }
                }
                Action::Event(event) => {
                    if matches!(event, Event::Routes | Event::Settled) {
                        self.publish_due = Some(self.publish_rest);
                    }
                    let _nobody_listens = self.events.send(event);
                }
            }
        }
    }

    /// Answers a station that waits, if there is something to tell.
    fn feed(&mut self, id: FeedId) {
        let Some(answer) = self.hungry.remove(&id) else { return };
        let mut octets = Vec::new();
        let at = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.speaker.feed(id, &mut octets, at);
        if octets.is_empty() {
            self.hungry.insert(id, answer);
        } else {
            let _gone = answer.send(octets);
        }
    }

    /// Watching begins with the first peer that wants it.
    fn watch(&mut self, wish: Wish) {
        let bfd = self.bfd.get_or_insert_with(|| Bfd::start(self.reports.clone()));
        bfd.wish(wish);
    }

    /// Publishes the choice, then rests nine times as long as that took: a large table that keeps changing is
    /// published less often, and the first change at once.
    fn publish_learned(&mut self, now: Instant) {
        self.publish_due = None;
        if self.publish.receiver_count() == 0 {
            return;
        }
        let learned = self.speaker.learned().map(Arc::new);
        self.publish.send_if_modified(|held| {
            let changed = *held != learned;
            if changed {
                *held = learned;
            }
            changed
        });
        let end = clock();
        self.publish_rest = end + (end - now) * 9;
    }

    /// Sends what waits for a connection, until the socket takes no more or others have waited long enough.
    fn send(&mut self, connection: ConnectionId) {
        let Some(held) = self.connections.get_mut(&connection) else { return };
        let mut sent = 0;
        let error = loop {
            match held.is_writable() {
                Ok(true) if sent < PORTION => {}
                Ok(true) => return held.send_later(),
                Ok(false) => return,
                Err(error) => break error,
            }
            let mut written = Ok(0);
            let offered = self.speaker.offer(connection, clock(), |octets| {
                written = held.write(octets);
                *written.as_ref().unwrap_or(&0)
            });
            match written {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
            if offered == 0 {
                return held.has_sent_all();
            }
        };
        // Who closes without having read everything resets the connection behind its last words.
        while self.hear_now(connection) {}
        self.closed(connection, &error);
    }
}
