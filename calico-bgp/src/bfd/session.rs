//! One session: inputs and the time in, packets and changes out (RFC 5880 section 6.8).
//!
//! ```text
//!            hears Down                 hears Init or Up
//!   Down ─────────────────▶ Init ───────────────────────▶ Up
//!    ▲ │        hears Init                                ▲ │
//!    │ └──────────────────────────────────────────────────┘ │
//!    └──────── nothing heard for the detection time, or hears Down ─┘
//! ```

use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

use super::BfdConfig;
use super::packet::{Diagnostic, Mode, Packet, Poll, State};
use crate::jitter::Jitter;

/// The shortest interval of sending while a session is not up (RFC 5880 section 6.8.3).
pub const SLOW: Duration = Duration::from_secs(1);

/// The longest goodbye: how long a peer would wait for us is its own word, and what it holds here meanwhile is ours.
const LONGEST_GOODBYE: Duration = Duration::from_secs(30);

/// What a session learns of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Packets pass both ways.
    Up,
    /// They do not any more.
    Down(Diagnostic),
    /// The other side's operator holds the session down, which says nothing of the path (RFC 5882 section 4.2).
    HeldDown,
}

/// What was heard last of the other side.
#[derive(Debug, Clone, Copy)]
struct Remote {
    discriminator: NonZeroU32,
    state: State,
    mode: Mode,
    multiplier: NonZeroU8,
    desired_min_tx: Duration,
    required_min_rx: Duration,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    config: BfdConfig,
    discriminator: NonZeroU32,
    state: State,
    diagnostic: Diagnostic,
    remote: Option<Remote>,
    /// The interval of sending that is in force; a longer one must be agreed on first.
    sending: Duration,
    /// The interval of receiving that is in force; a shorter one must be agreed on first.
    receiving: Duration,
    polling: bool,
    jitter: Jitter,
    send_at: Option<Instant>,
    detect_at: Option<Instant>,
    over_at: Option<Instant>,
    answer: bool,
}

impl Session {
    /// Begins a session that knows nothing of the other side.
    #[must_use]
    pub fn new(config: BfdConfig, discriminator: NonZeroU32, seed: u64, now: Instant) -> Self {
        Self {
            config,
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::None,
            remote: None,
            sending: SLOW.max(config.min_tx),
            receiving: config.min_rx,
            polling: false,
            jitter: Jitter::new(seed),
            send_at: Some(now),
            detect_at: None,
            over_at: None,
            answer: false,
        }
    }

    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns our name for the session.
    #[must_use]
    pub fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    /// Returns how long nothing may be heard until the path is taken for broken (RFC 5880 section 6.8.4).
    #[must_use]
    pub fn detection_time(&self) -> Option<Duration> {
        let remote = self.remote?;
        Some(self.receiving.max(remote.desired_min_tx) * u32::from(remote.multiplier.get()))
    }

    /// Changes how closely the path is watched. While the session is up, slower sending and faster expectation take
    /// effect only when the other side knows of it (RFC 5880 section 6.8.3).
    pub fn set_config(&mut self, config: BfdConfig, now: Instant) {
        if self.config == config || self.state == State::AdminDown {
            return;
        }
        self.config = config;
        if self.state != State::Up {
            self.sending = SLOW.max(config.min_tx);
            self.receiving = config.min_rx;
            return;
        }
        self.sending = self.sending.min(config.min_tx);
        self.receiving = self.receiving.max(config.min_rx);
        self.polling = true;
        self.send_at = Some(now);
    }

    /// Returns when [`Session::timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.send_at.into_iter().chain(self.detect_at).chain(self.over_at).min()
    }

    /// A deadline has passed.
    pub fn timeout(&mut self, now: Instant) -> Option<Change> {
        if self.detect_at.is_none_or(|at| at > now) {
            return None;
        }
        self.detect_at = None;
        // Its name may be another when it comes back (RFC 5880 section 6.8.1).
        self.remote = None;
        match self.state {
            State::Init | State::Up => self.leave(Diagnostic::DetectionTimeExpired, now),
            State::AdminDown | State::Down => None,
        }
    }

    /// Returns the packet that is due, if one is.
    pub fn packet(&mut self, now: Instant) -> Option<Packet> {
        if std::mem::take(&mut self.answer) {
            return Some(self.make(Poll::Final));
        }
        if self.send_at.is_none_or(|at| at > now) {
            return None;
        }
        self.send_at = self.interval().map(|interval| now + self.jittered(interval));
        let poll = if self.polling { Poll::Poll } else { Poll::No };
        Some(self.make(poll))
    }

    /// Ends the session because the operator wants so, which the other side must not take for a broken path. It is said at
    /// the pace that the other side knows for as long as it would wait for us, so that it is heard although packets get lost
    /// (RFC 5880 section 6.8.16), but for 30 s at most. Section 6.8.7 would have it said once a second, which most others
    /// would hear once or not at all.
    pub fn disable(&mut self, now: Instant) {
        if self.state == State::AdminDown {
            return;
        }
        self.polling = false;
        self.state = State::AdminDown;
        let needed = self.interval().unwrap_or_default() * u32::from(self.config.multiplier.get());
        let needed = needed.min(LONGEST_GOODBYE);
        self.diagnostic = Diagnostic::AdminDown;
        self.over_at = Some(now + needed);
        self.send_at = Some(now);
    }

    /// Reports whether the session was ended and nothing is left to say.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.over_at.is_some_and(|at| at <= now)
    }

    /// Takes a packet of the other side (RFC 5880 section 6.8.6).
    pub fn receive(&mut self, packet: &Packet, now: Instant) -> Option<Change> {
        self.remote = Some(Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            mode: packet.mode,
            multiplier: packet.multiplier,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
        });
        if packet.poll == Poll::Final && self.polling {
            self.polling = false;
            if self.state == State::Up {
                self.sending = self.config.min_tx;
                self.receiving = self.config.min_rx;
            }
        }
        let change = self.meet(packet.state, now);
        self.detect_at = self.detection_time().map(|time| now + time);
        if packet.poll == Poll::Poll {
            self.answer = true;
        }
        self.pace(now);
        change
    }

    fn meet(&mut self, theirs: State, now: Instant) -> Option<Change> {
        match (self.state, theirs) {
            (State::Init | State::Up, State::AdminDown) => {
                self.leave(Diagnostic::NeighborDown, now).map(|_| Change::HeldDown)
            }
            (State::Down, State::Down) => {
                self.state = State::Init;
                self.send_at = Some(now);
                None
            }
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.state = State::Up;
                self.diagnostic = Diagnostic::None;
                // From now on the intervals are the configured ones, which the other side must be told.
                self.sending = self.config.min_tx;
                self.receiving = self.config.min_rx;
                self.polling = true;
                self.send_at = Some(now);
                Some(Change::Up)
            }
            (State::Up, State::Down) => self.leave(Diagnostic::NeighborDown, now),
            _ => None,
        }
    }

    fn leave(&mut self, why: Diagnostic, now: Instant) -> Option<Change> {
        let was_up = self.state == State::Up;
        self.state = State::Down;
        self.diagnostic = why;
        self.polling = false;
        self.sending = SLOW.max(self.config.min_tx);
        self.receiving = self.config.min_rx;
        self.send_at = Some(now);
        was_up.then_some(Change::Down(why))
    }

    /// Returns the time between two packets, or `None` while the other side wants none (RFC 5880 section 6.8.7).
    fn interval(&self) -> Option<Duration> {
        let Some(remote) = self.remote else { return Some(self.sending) };
        let demanded = remote.mode == Mode::Demand && remote.state == State::Up && self.state == State::Up;
        if (remote.required_min_rx.is_zero() || demanded) && !self.polling {
            return None;
        }
        Some(self.sending.max(remote.required_min_rx))
    }

    /// Brings the next packet forward, or makes one due, as the other side wants it now.
    fn pace(&mut self, now: Instant) {
        match self.interval() {
            None => self.send_at = None,
            Some(interval) => {
                let latest = now + self.jittered(interval);
                self.send_at = Some(self.send_at.map_or(latest, |at| at.min(latest)));
            }
        }
    }

    /// Up to a quarter less; with a multiplier of one at least a tenth less (RFC 5880 section 6.8.7).
    fn jittered(&mut self, interval: Duration) -> Duration {
        let jittered = self.jitter.of(interval);
        if self.config.multiplier.get() == 1 { jittered.min(interval * 9 / 10) } else { jittered }
    }

    fn make(&self, poll: Poll) -> Packet {
        let desired = if self.state == State::Up { self.config.min_tx } else { SLOW.max(self.config.min_tx) };
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll,
            mode: Mode::Asynchronous,
            multiplier: self.config.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.map(|remote| remote.discriminator),
            desired_min_tx: desired,
            required_min_rx: self.config.min_rx,
        }
    }
}
