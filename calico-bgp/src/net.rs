//! The tokio driver: it owns the sockets and the clock, and decides nothing.
//!
//! One task owns the [`Speaker`]. Each connection has a task that reads and one that writes; they and the listeners
//! report to the owner through one bounded channel, so a peer that floods us waits in its own socket. The owner's
//! `select!` has only cancel-safe branches: two channel receivers and a sleep.
//!
//! Sockets are made on the threads of the runtime that [`spawn`] is called on, and so in their network namespace.

mod connection;
mod listen;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use calico_model::{Cidr, LearnedRoutes};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub use listen::ListenError;

use crate::session::ConnectionId;
use crate::speaker::{
    Action, Event, Origination, PeerConfig, PeerStatus, RouteStatus, Speaker, SpeakerConfig,
};
use connection::{Connection, Report};
use listen::Listening;

/// A speaker that is gone: its runtime has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the BGP speaker is no longer running")]
pub struct Gone;

enum Command {
    Peers(Vec<PeerConfig>),
    Originate(BTreeMap<Cidr, Origination>),
    Status(oneshot::Sender<Vec<PeerStatus>>),
    Routes(oneshot::Sender<Vec<RouteStatus>>),
    Learned(oneshot::Sender<watch::Receiver<Option<Arc<LearnedRoutes>>>>),
    Reset(IpAddr, String),
    Refresh(IpAddr),
    ShutDown(String, oneshot::Sender<()>),
}

/// Commands a running speaker. When the last handle is dropped, the speaker closes its connections without a
/// NOTIFICATION, so that peers that do graceful restart keep its routes.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
}

impl Handle {
    /// Makes these the peers; see [`Speaker::set_peers`].
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn set_peers(&self, peers: Vec<PeerConfig>) -> Result<(), Gone> {
        self.tell(Command::Peers(peers)).await
    }

    /// Makes these the prefixes that begin here.
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn set_originated(&self, prefixes: BTreeMap<Cidr, Origination>) -> Result<(), Gone> {
        self.tell(Command::Originate(prefixes)).await
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

    /// Ends a peer's session and begins it anew, with a text for the other operator.
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn reset_peer(&self, address: IpAddr, text: &str) -> Result<(), Gone> {
        self.tell(Command::Reset(address, text.to_owned())).await
    }

    /// Asks a peer to tell everything again; see [`Speaker::refresh_peer`].
    ///
    /// # Errors
    /// [`Gone`] when the speaker has ended.
    pub async fn refresh_peer(&self, address: IpAddr) -> Result<(), Gone> {
        self.tell(Command::Refresh(address)).await
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
    // 64 portions of at most 64 KiB bound what is read and not handled yet to 4 MiB for all peers together.
    let (reports, reported) = mpsc::channel(64);
    let listeners =
        listen.iter().map(|address| Listening::start(*address, &reports)).collect::<Result<Vec<_>, _>>()?;
    let speaker = Speaker::new(config, clock());
    // An operator's log that is 1,024 events behind is not being read.
    let (events, _) = broadcast::channel(1024);
    let owner = Owner {
        speaker,
        listeners,
        keyed: BTreeSet::new(),
        distances: BTreeMap::new(),
        connections: BTreeMap::new(),
        reports,
        publish: watch::Sender::new(None),
        publish_due: None,
        publish_rest: clock(),
        events: events.clone(),
    };
    tokio::spawn(owner.run(inbox, reported));
    Ok(Handle { commands, events })
}

#[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
fn clock() -> Instant {
    Instant::now()
}

struct Owner {
    speaker: Speaker,
    listeners: Vec<Listening>,
    keyed: BTreeSet<IpAddr>,
    distances: BTreeMap<IpAddr, crate::speaker::Distance>,
    connections: BTreeMap<ConnectionId, Connection>,
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
            let due = self.speaker.deadline().into_iter().chain(self.publish_due).min();
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
                () = alarm => {}
            }
            let now = clock();
            if self.speaker.deadline().is_some_and(|at| at <= now) {
                self.speaker.timeout(now);
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
        let rest = async {
            while !self.connections.is_empty()
                && let Some(report) = reported.recv().await
            {
                self.report(report);
                self.act();
            }
        };
        let _cut_short = tokio::time::timeout(std::time::Duration::from_secs(2), rest).await;
        let _nobody_waits = answer.send(());
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Peers(peers) => {
                self.key_listeners(&peers);
                self.speaker.set_peers(peers, clock());
            }
            Command::Originate(prefixes) => self.speaker.set_originated(prefixes, clock()),
            Command::Status(answer) => drop(answer.send(self.speaker.status())),
            Command::Routes(answer) => drop(answer.send(self.speaker.routes())),
            Command::Learned(answer) => {
                let learned = self.publish.subscribe();
                self.publish_learned(clock());
                let _nobody_waits = answer.send(learned);
            }
            Command::Reset(address, text) => self.speaker.reset_peer(address, &text, clock()),
            Command::Refresh(address) => self.speaker.refresh_peer(address, clock()),
            Command::ShutDown(..) => {}
        }
    }

    /// Puts the peers' keys on the listeners before they connect, and takes off those that are gone.
    fn key_listeners(&mut self, peers: &[PeerConfig]) {
        self.distances = peers.iter().map(|peer| (peer.address, peer.distance)).collect();
        let keys: BTreeMap<IpAddr, _> =
            peers.iter().filter_map(|peer| Some((peer.address, peer.password.as_ref()?))).collect();
        for listening in &self.listeners {
            for address in self.keyed.iter().filter(|address| !keys.contains_key(address)) {
                let _other_family = socket::set_md5(&listening.socket, *address, None);
            }
            for (address, key) in &keys {
                let _other_family = socket::set_md5(&listening.socket, *address, Some(*key));
            }
        }
        self.keyed = keys.into_keys().collect();
    }

    fn report(&mut self, report: Report) {
        let now = clock();
        match report {
            Report::Incoming { stream, remote } => self.incoming(stream, remote, now),
            Report::Dialed { connection, stream, remote } => match stream.local_addr() {
                Ok(local) => {
                    let _works_without = stream.set_nodelay(true);
                    let started = Connection::start(connection, stream, &self.reports);
                    self.connections.insert(connection, started);
                    self.speaker.connected(connection, local.ip(), now);
                }
                Err(error) => {
                    self.speaker.refused(connection, format!("cannot connect to {remote}: {error}"), now);
                }
            },
            Report::Undialed { connection, why } => self.speaker.refused(connection, why, now),
            Report::Received { connection, octets } => self.speaker.receive(connection, &octets, now),
            Report::Written { connection, buffer } => {
                if let Some(held) = self.connections.get_mut(&connection) {
                    held.give_back(buffer);
                    self.send(connection);
                }
            }
            Report::Closed { connection, why } => {
                if self.connections.remove(&connection).is_some() {
                    self.speaker.closed(connection, why, now);
                }
            }
        }
    }

    fn incoming(&mut self, stream: TcpStream, remote: SocketAddr, now: Instant) {
        let Ok(local) = stream.local_addr() else { return };
        let from = remote.ip();
        if let Some(distance) = self.distances.get(&from)
            && socket::set_distance(&SockRef::from(&stream), from, *distance).is_err()
        {
            return;
        }
        if let Ok(connection) = self.speaker.accept(from, local.ip(), now) {
            let _works_without = stream.set_nodelay(true);
            let started = Connection::start(connection, stream, &self.reports);
            self.connections.insert(connection, started);
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.speaker.poll() {
            match action {
                Action::Dial { connection, peer } => {
                    tokio::spawn(connection::dial(connection, peer, self.reports.clone()));
                }
                Action::Wake(connection) => self.send(connection),
                Action::Close(connection) => drop(self.connections.remove(&connection)),
                Action::Event(event) => {
                    if matches!(event, Event::Routes | Event::Settled) {
                        self.publish_due = Some(self.publish_rest);
                    }
                    let _nobody_listens = self.events.send(event);
                }
            }
        }
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

    fn send(&mut self, connection: ConnectionId) {
        let Some(held) = self.connections.get_mut(&connection) else { return };
        let Some(mut buffer) = held.take_buffer() else { return };
        self.speaker.transmit(connection, &mut buffer, clock());
        let Some(held) = self.connections.get_mut(&connection) else { return };
        if buffer.is_empty() { held.give_back(buffer) } else { held.send(buffer) }
    }
}
