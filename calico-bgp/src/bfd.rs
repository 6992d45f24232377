//! Bidirectional forwarding detection of neighbours on the same link (RFC 5880, RFC 5881), asynchronous mode without
//! authentication or echoes.
//!
//! A [`Watcher`] holds the [sessions](session::Session) with all neighbours. It owns no socket and reads no clock:
//! packets, the time and wishes go in; packets, deadlines and changes come out. Whoever drives it sends what
//! [`Watcher::poll`] hands out from a port of 49152 or above to [`PORT`] with a time to live of 255, and passes on what
//! arrives at that port.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use calico_bgp::bfd::{BfdConfig, Output, State, Watcher};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (a, b) = ("10.0.0.1".parse()?, "10.0.0.2".parse()?);
//! let mut now = Instant::now();
//! let mut ends = [Watcher::new(1), Watcher::new(2)];
//! ends[0].watch(b, a, BfdConfig::default(), now);
//! ends[1].watch(a, b, BfdConfig::default(), now);
//! for _ in 0..8 {
//!     for (here, there, from) in [(0, 1, a), (1, 0, b)] {
//!         ends[here].timeout(now);
//!         while let Some(output) = ends[here].poll() {
//!             if let Output::Send { packet, .. } = output {
//!                 ends[there].receive(from, 255, &packet, now);
//!             }
//!         }
//!     }
//!     now += Duration::from_secs(1);
//! }
//! assert_eq!(ends[0].state(b), Some(State::Up));
//! # Ok(())
//! # }
//! ```

pub mod packet;
pub mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

pub use packet::{Diagnostic, PACKET_LEN, State};
pub use session::Change;

use packet::Packet;
use session::Session;

/// Where control packets go (RFC 5881 section 4).
pub const PORT: u16 = 3784;

/// How closely a peer is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BfdConfig {
    /// The shortest time between two packets that we want to send.
    pub min_tx: Duration,
    /// The shortest time between two packets that we can take.
    pub min_rx: Duration,
    /// After how many lost packets the peer takes the path for broken.
    pub multiplier: NonZeroU8,
    /// What becomes of the peer's routes when the path is broken.
    pub when_broken: WhenBroken,
}

/// What becomes of a peer's routes when BFD finds the path to it broken (RFC 5882 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenBroken {
    /// They go at once, also when it does graceful restart.
    #[default]
    Drop,
    /// They are kept as after any other loss of the connection: for peers whose BFD restarts together with their BGP, so
    /// that silence may be a restart.
    Restart,
}

impl Default for BfdConfig {
    /// Three packets lost of one each 300 ms.
    fn default() -> Self {
        Self {
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(300),
            multiplier: NonZeroU8::MIN.saturating_add(2),
            when_broken: WhenBroken::Drop,
        }
    }
}

/// What a watcher wants done, or has noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this packet.
    Send {
        /// To whom.
        peer: IpAddr,
        /// From which of our addresses.
        local: IpAddr,
        /// The packet.
        packet: [u8; PACKET_LEN],
    },
    /// The path to a peer is another than it was.
    Changed(IpAddr, Change),
    /// A peer is no longer watched: nothing more is sent to it.
    Ended(IpAddr),
}

/// The sessions with all neighbours.
#[derive(Debug)]
pub struct Watcher {
    sessions: BTreeMap<IpAddr, (IpAddr, Session)>,
    names: BTreeMap<NonZeroU32, IpAddr>,
    next: NonZeroU32,
    outputs: VecDeque<Output>,
}

impl Watcher {
    /// Makes a watcher that watches nobody. The seed makes the names of sessions and the jitter repeatable.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        Self {
            sessions: BTreeMap::new(),
            names: BTreeMap::new(),
            next: NonZeroU32::new(seed).unwrap_or(NonZeroU32::MIN),
            outputs: VecDeque::new(),
        }
    }

    /// Watches a peer from our address `local`, or changes how closely.
    pub fn watch(&mut self, peer: IpAddr, local: IpAddr, config: BfdConfig, now: Instant) {
        match self.sessions.get_mut(&peer) {
            Some((held, session)) if *held == local && session.state() != State::AdminDown => {
                return session.set_config(config, now);
            }
            // From another address it is another session, and one that ends does not come back.
            Some((_, session)) => {
                self.names.remove(&session.discriminator());
                session.disable(now);
                self.send_due(peer, now);
            }
            None => {}
        }
        while self.names.contains_key(&self.next) {
            self.next = self.next.checked_add(1).unwrap_or(NonZeroU32::MIN);
        }
        let session = Session::new(config, self.next, u64::from(self.next.get()) << 7, now);
        self.names.insert(self.next, peer);
        self.sessions.insert(peer, (local, session));
        self.next = self.next.checked_add(1).unwrap_or(NonZeroU32::MIN);
    }

    /// Watches a peer no longer, and says so to it for as long as it takes to be heard ([`Session::disable`]).
    pub fn unwatch(&mut self, peer: IpAddr, now: Instant) {
        if let Some((_, session)) = self.sessions.get_mut(&peer) {
            session.disable(now);
            self.send_due(peer, now);
        }
    }

    /// Returns what is believed of the path to a peer, if it is watched; [`State::AdminDown`] while it is told that it is not
    /// any more.
    #[must_use]
    pub fn state(&self, peer: IpAddr) -> Option<State> {
        self.sessions.get(&peer).map(|(_, session)| session.state())
    }

    /// Takes what arrived from an address with the given time to live. What is not for us, or came from farther away
    /// than the next system (RFC 5881 section 5), changes nothing.
    pub fn receive(&mut self, from: IpAddr, ttl: u8, octets: &[u8], now: Instant) {
        let Ok(packet) = Packet::decode(octets) else { return };
        let peer = match packet.your_discriminator {
            Some(name) => self.names.get(&name).copied().filter(|peer| *peer == from),
            None => Some(from),
        };
        let Some((peer, (_, session))) = peer.and_then(|peer| Some((peer, self.sessions.get_mut(&peer)?)))
        else {
            return;
        };
        if ttl != u8::MAX {
            return;
        }
        if let Some(change) = session.receive(&packet, now) {
            self.outputs.push_back(Output::Changed(peer, change));
        }
        self.send_due(peer, now);
    }

    /// Returns when [`Watcher::timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.sessions.values().filter_map(|(_, session)| session.deadline()).min()
    }

    /// A deadline has passed.
    pub fn timeout(&mut self, now: Instant) {
        let due = |(peer, (_, session)): (&IpAddr, &(IpAddr, Session))| {
            session.deadline().is_some_and(|at| at <= now).then_some(*peer)
        };
        for peer in self.sessions.iter().filter_map(due).collect::<Vec<_>>() {
            if let Some((_, session)) = self.sessions.get_mut(&peer)
                && let Some(change) = session.timeout(now)
            {
                self.outputs.push_back(Output::Changed(peer, change));
            }
            self.send_due(peer, now);
            let over = self.sessions.get(&peer).filter(|(_, session)| session.is_over(now));
            if let Some(name) = over.map(|(_, session)| session.discriminator()) {
                self.sessions.remove(&peer);
                self.names.remove(&name);
                self.outputs.push_back(Output::Ended(peer));
            }
        }
    }

    fn send_due(&mut self, peer: IpAddr, now: Instant) {
        let Some((local, session)) = self.sessions.get_mut(&peer) else { return };
        while let Some(packet) = session.packet(now) {
            self.outputs.push_back(Output::Send { peer, local: *local, packet: packet.encode() });
        }
    }

    /// Takes the next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
