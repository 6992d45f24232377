//! One peer's session as a machine: inputs and the time in, outputs out; no socket, no clock, no table of routes.
//!
//! ```text
//!          Start                 Connected               OPEN                 KEEPALIVE
//!  Idle ──────────▶ Connect ───────────────▶ OpenSent ─────────▶ OpenConfirm ───────────▶ Established
//!    ▲                │ ▲                       ▲
//!    │    refused     ▼ │ retry timer           │ Accepted
//!    │                Active ───────────────────┘
//!    └──────────── any fault, a NOTIFICATION either way, a timer, the end of the connection ───────────┘
//! ```
//!
//! A peer has at most one connection that we dialed and one that we accepted until their OPENs say which one lives
//! ([`collision`]), so Idle, Connect and Active are the session's, while the later states belong to a connection and
//! hold what is true in them: a [`Negotiated`] exists from OpenConfirm on and nowhere else.

pub mod collision;
mod connection;
mod event;
mod negotiate;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use collision::Role;
pub use event::{ConnectionId, Ended, Heard, Initiation, Input, Output, State};
pub use negotiate::{Negotiated, Peering, Roles, Terms};

use crate::jitter::Jitter;
use crate::wire::{self, MessageType, Notification, Open};
use connection::{Arrival, Confirmation, Connection, Stage};
use timers::{Timer, Timers};

/// How long an accepted or dialed connection may take until its OPEN is here (RFC 4271 section 8.2.2 suggests a large
/// value; a minute keeps half-open connections few).
pub const OPEN_WAIT: Duration = Duration::from_secs(60);
/// How long a peer may take nothing of what waits for it, unless twice the hold time is longer (RFC 9687 section 6).
pub const SEND_HOLD: Duration = Duration::from_secs(480);
/// How long an OPEN waits for our KEEPALIVE, unless a third of the hold time is shorter, while a connection that we dialed
/// may still collide with the one that it came on.
pub const CROSSING_WAIT: Duration = Duration::from_secs(1);
/// The longest wait after repeated failures.
pub const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// What the session does about having no connection.
#[derive(Debug, PartialEq, Eq)]
enum Dialing {
    Stopped,
    Waiting(Option<Instant>),
    Under(ConnectionId),
}

/// One peer's state machine.
#[derive(Debug)]
pub struct Session {
    terms: Terms,
    initiation: Initiation,
    retry: Duration,
    jitter: Jitter,
    dialing: Dialing,
    connections: Vec<Connection>,
    outputs: VecDeque<Output>,
    failures: u32,
    next: ConnectionId,
    send_hold: Option<Duration>,
    keepalive: Option<Duration>,
}

impl Session {
    /// Makes a stopped session. `peer` becomes part of its connections' names; `retry` is the time between two
    /// dialings, of which each wait takes 75 to 100 percent.
    #[must_use]
    pub fn new(peer: u32, terms: Terms, initiation: Initiation, retry: Duration, seed: u64) -> Self {
        Self {
            terms,
            initiation,
            retry,
            jitter: Jitter::new(seed),
            dialing: Dialing::Stopped,
            connections: Vec::new(),
            outputs: VecDeque::new(),
            failures: 0,
            next: ConnectionId { peer, serial: 0 },
            send_hold: None,
            keepalive: None,
        }
    }

    /// Returns what we say of ourselves.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Changes what the next OPEN says; connections that exist keep what they said.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// Returns the state: that of the most advanced connection.
    #[must_use]
    pub fn state(&self) -> State {
        let without = match self.dialing {
            Dialing::Stopped => State::Idle,
            Dialing::Waiting(_) => State::Active,
            Dialing::Under(_) => State::Connect,
        };
        self.connections.iter().map(Connection::state).max().unwrap_or(without)
    }

    /// Returns what was agreed on a connection, from OpenConfirm on.
    #[must_use]
    pub fn negotiated(&self, id: ConnectionId) -> Option<&Arc<Negotiated>> {
        self.connections.iter().find(|c| c.id == id).and_then(Connection::negotiated)
    }

    /// Makes a name for a connection that the peer opened, or `None` while the session is stopped. Whoever takes a
    /// name goes on with [`Input::Accepted`].
    pub fn next_connection(&mut self) -> Option<ConnectionId> {
        (self.dialing != Dialing::Stopped).then(|| self.allocate())
    }

    /// Returns the name that the next connection gets.
    pub(crate) fn next(&self) -> ConnectionId {
        self.next
    }

    /// Goes on with names where another session ended.
    pub(crate) fn go_on_from(&mut self, next: ConnectionId) {
        self.next = next;
    }

    /// Returns when [`Input::Timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let dialing = match self.dialing {
            Dialing::Waiting(at) => at,
            Dialing::Stopped | Dialing::Under(_) => None,
        };
        self.connections.iter().filter_map(|c| c.timers.next()).chain(dialing).min()
    }

    /// Returns the connections that end at the next [`Input::Timeout`] because nothing was heard on them for so long.
    pub fn silent(&self, now: Instant) -> impl Iterator<Item = ConnectionId> {
        self.connections.iter().filter(move |c| c.timers.is_due(Timer::Hold, now)).map(|c| c.id)
    }

    /// Takes the next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes one input. Inputs about connections that are over change nothing.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Start if self.dialing == Dialing::Stopped => self.dial_or_wait(now),
            Input::Start => {}
            Input::Stop(why) => self.stop(why),
            Input::Reset(why) => {
                if self.dialing != Dialing::Stopped {
                    self.stop(why);
                    self.dial_or_wait(now);
                }
            }
            Input::Initiate(initiation, retry) => {
                (self.initiation, self.retry) = (initiation, retry);
                // Who waited for the peer has no time to dial yet.
                if self.dialing == Dialing::Waiting(None) && self.connections.is_empty() {
                    self.dial_or_wait(now);
                }
            }
            Input::Connected(id) if self.dialing == Dialing::Under(id) => {
                self.dialing = Dialing::Waiting(None);
                self.connected(id, Role::Dialed, now);
            }
            Input::Connected(id) => self.outputs.push_back(Output::Close(id)),
            Input::Refused(id, why) if self.dialing == Dialing::Under(id) => {
                self.dialing = Dialing::Waiting(None);
                self.outputs.push_back(Output::Failed(Ended::Undialed(why)));
                self.retry_later(now);
            }
            Input::Refused(..) => {}
            Input::Accepted(id) if self.dialing == Dialing::Stopped => {
                self.outputs.push_back(Output::Close(id));
            }
            Input::Accepted(id) => self.accepted(id, now),
            Input::Heard(id, heard) => self.heard(id, heard, now),
            Input::Drained(id) => {
                if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) {
                    connection.timers.set(Timer::SendHold, None);
                }
            }
            Input::Timeout => self.timeout(now),
        }
        self.confirm_uncrossed(now);
    }

    /// Tells the session that routes wait for the peer on a connection, so that the send hold time runs.
    pub fn waiting_to_send(&mut self, id: ConnectionId, now: Instant) {
        if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id)
            && !connection.timers.is_set(Timer::SendHold)
        {
            connection.timers.set(Timer::SendHold, Some(now + connection.send_hold(self.send_hold)));
        }
    }

    /// Tells the session that the peer took some of what waited for it, so that the send hold time begins anew.
    pub fn has_taken(&mut self, id: ConnectionId, now: Instant) {
        if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) {
            connection.timers.set(Timer::SendHold, Some(now + connection.send_hold(self.send_hold)));
        }
    }

    /// Changes how long the peer may take nothing, from the next time it takes something on.
    pub fn set_send_hold(&mut self, send_hold: Option<Duration>) {
        self.send_hold = send_hold;
    }

    /// Changes how often the peer hears that we are alive, from the next time on; without a time, and at the least, a
    /// third of the hold time.
    pub fn set_keepalive(&mut self, keepalive: Option<Duration>) {
        self.keepalive = keepalive;
    }

    /// When the next KEEPALIVE is due on a session with these terms.
    fn keepalive_due(&mut self, negotiated: &Negotiated, now: Instant) -> Option<Instant> {
        let most = negotiated.keepalive()?;
        let every = self.keepalive.map_or(most, |wanted| wanted.min(most));
        Some(now + self.jitter.of(every))
    }

    fn allocate(&mut self) -> ConnectionId {
        self.next.serial = self.next.serial.wrapping_add(1);
        self.next
    }

    fn stop(&mut self, why: Notification) {
        self.dialing = Dialing::Stopped;
        self.failures = 0;
        for connection in std::mem::take(&mut self.connections) {
            self.end(connection, Ended::Sent(why.clone()));
        }
    }

    fn dial_or_wait(&mut self, now: Instant) {
        match self.initiation {
            Initiation::Passive => self.dialing = Dialing::Waiting(None),
            Initiation::Active if self.connections.is_empty() => {
                let id = self.allocate();
                self.dialing = Dialing::Under(id);
                self.outputs.push_back(Output::Dial(id));
            }
            Initiation::Active => self.dialing = Dialing::Waiting(Some(now + self.jitter.of(self.retry))),
        }
    }

    fn retry_later(&mut self, now: Instant) {
        if self.initiation == Initiation::Active && matches!(self.dialing, Dialing::Waiting(_)) {
            let patience = self.retry * (1 << self.failures.min(8));
            let wait = self.jitter.of(patience.min(LONGEST_RETRY.max(self.retry)));
            self.dialing = Dialing::Waiting(Some(now + wait));
        }
    }

    fn connected(&mut self, id: ConnectionId, role: Role, now: Instant) {
        let mut timers = Timers::default();
        timers.set(Timer::Hold, Some(now + OPEN_WAIT));
        let up = self.state() == State::Established;
        let arrival = if up && role == Role::Accepted { Arrival::During } else { Arrival::Before };
        self.connections.push(Connection { id, role, arrival, stage: Stage::OpenSent, timers });
        self.transmit(id, self.terms.open().encode(), now);
    }

    fn accepted(&mut self, id: ConnectionId, now: Instant) {
        let older = self
            .connections
            .iter()
            .position(|c| c.role == Role::Accepted && c.state() != State::Established)
            .map(|at| self.connections.remove(at));
        if let Some(older) = older {
            self.end(older, Ended::Sent(Notification::new(Notification::COLLISION)));
        }
        self.connected(id, Role::Accepted, now);
    }

    fn transmit(&mut self, id: ConnectionId, message: Vec<u8>, now: Instant) {
        self.waiting_to_send(id, now);
        self.outputs.push_back(Output::Transmit(id, message));
    }

    /// Ends a connection that is already out of the list.
    fn end(&mut self, connection: Connection, why: Ended) {
        let id = connection.id;
        if let Ended::Sent(notification) = &why {
            let said = match connection.negotiated() {
                Some(negotiated) => negotiated.as_said(notification),
                None => notification.unwrapped(),
            };
            self.outputs.push_back(Output::Transmit(id, wire::notification(&said)));
        }
        self.outputs.push_back(Output::Close(id));
        self.outputs.push_back(match connection.stage {
            Stage::Established(_) => Output::Down(id, why),
            Stage::OpenSent | Stage::OpenConfirm(..) => Output::Failed(why),
        });
    }

    /// Ends a connection for a fault; when it was the last one, the next dialing waits, longer each time.
    fn fail(&mut self, id: ConnectionId, why: Ended, now: Instant) {
        let Some(at) = self.connections.iter().position(|c| c.id == id) else { return };
        let connection = self.connections.remove(at);
        let was_up = connection.state() == State::Established;
        let collided = matches!(&why, Ended::Received(n) if n.kind() == Notification::COLLISION);
        self.end(connection, why);
        if !self.connections.is_empty() {
            return;
        }
        if was_up || collided {
            self.failures = 0;
        }
        self.retry_later(now);
        if !was_up && !collided {
            self.failures = self.failures.saturating_add(1);
        }
    }

    fn heard(&mut self, id: ConnectionId, heard: Heard, now: Instant) {
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) else { return };
        match (heard, &connection.stage) {
            (Heard::Closed(why), _) => self.fail(id, Ended::Lost(why), now),
            (Heard::Notification(what), _) => self.fail(id, Ended::Received(what), now),
            (Heard::Malformed(answer), _) => self.fail(id, Ended::Sent(answer), now),
            (Heard::Open(open), Stage::OpenSent) => self.opened(id, &open, now),
            (Heard::Keepalive, Stage::OpenConfirm(negotiated, confirmed)) => {
                let (negotiated, confirmed) = (negotiated.clone(), *confirmed);
                connection.hear(now);
                match confirmed {
                    Confirmation::Said => self.establish(id, negotiated),
                    Confirmation::Awaited | Confirmation::Heard => {
                        connection.stage = Stage::OpenConfirm(negotiated, Confirmation::Heard);
                    }
                }
            }
            (Heard::Keepalive | Heard::Update | Heard::Refresh, Stage::Established(_)) => {
                connection.hear(now)
            }
            (heard, stage) => {
                let kind = match stage {
                    Stage::OpenSent => Notification::UNEXPECTED_IN_OPEN_SENT,
                    Stage::OpenConfirm(..) => Notification::UNEXPECTED_IN_OPEN_CONFIRM,
                    Stage::Established(_) => Notification::UNEXPECTED_IN_ESTABLISHED,
                };
                // The data says which message it was (RFC 6608 section 4).
                let data: Vec<u8> = heard.message().map(MessageType::code).into_iter().collect();
                self.fail(id, Ended::Sent(Notification::new(kind).with_data(&data)), now);
            }
        }
    }

    fn expired(&mut self, id: ConnectionId, kind: (u8, u8), now: Instant) {
        self.fail(id, Ended::Sent(Notification::new(kind)), now);
    }

    fn opened(&mut self, id: ConnectionId, open: &Open, now: Instant) {
        let negotiated = match self.terms.meet(open) {
            Ok(negotiated) => Arc::new(negotiated),
            Err(refusal) => return self.fail(id, Ended::Sent(refusal), now),
        };
        if !self.wins_collisions(id, open, now) {
            return;
        }
        let withheld = now + negotiated.keepalive().map_or(CROSSING_WAIT, |most| most.min(CROSSING_WAIT));
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) else { return };
        connection.stage = Stage::OpenConfirm(negotiated, Confirmation::Awaited);
        connection.hear(now);
        connection.timers.set(Timer::Keepalive, Some(withheld));
    }

    /// Sends the KEEPALIVEs that were withheld until a connection that we dialed, if there is one, met its collision.
    ///
    /// The peer's system may have taken that connection up before the peer itself does, and BIRD 2 takes one that it
    /// finds after its session is established for our restart (RFC 4724 section 5): it would end a session that was
    /// just made.
    fn confirm_uncrossed(&mut self, now: Instant) {
        let dialed = |c: &Connection| c.role == Role::Dialed && matches!(c.stage, Stage::OpenSent);
        if matches!(self.dialing, Dialing::Under(_)) || self.connections.iter().any(dialed) {
            return;
        }
        let ids: Vec<ConnectionId> =
            self.connections.iter().filter(|c| c.withholds()).map(|c| c.id).collect();
        ids.into_iter().for_each(|id| self.send_keepalive(id, now));
    }

    /// Sends a KEEPALIVE, the first of which confirms the peer's OPEN.
    fn send_keepalive(&mut self, id: ConnectionId, now: Instant) {
        let Some(at) = self.connections.iter().position(|c| c.id == id) else { return };
        let Some(negotiated) = self.connections[at].negotiated().cloned() else { return };
        let due = self.keepalive_due(&negotiated, now);
        self.connections[at].timers.set(Timer::Keepalive, due);
        self.transmit(id, wire::keepalive(), now);
        match self.connections[at].stage {
            Stage::OpenConfirm(_, Confirmation::Awaited) => {
                self.connections[at].stage = Stage::OpenConfirm(negotiated, Confirmation::Said);
            }
            Stage::OpenConfirm(_, Confirmation::Heard) => self.establish(id, negotiated),
            Stage::OpenSent | Stage::OpenConfirm(_, Confirmation::Said) | Stage::Established(_) => return,
        }
        // It had its time to collide.
        if let Dialing::Under(dialed) = self.dialing {
            self.dialing = Dialing::Waiting(None);
            self.outputs.push_back(Output::Close(dialed));
        }
    }

    /// Makes a connection the session. A peer that does graceful restart, and comes this far on a new connection, has lost
    /// the old one (RFC 4724 section 5). Its OPEN alone may just have crossed ours.
    fn establish(&mut self, id: ConnectionId, negotiated: Arc<Negotiated>) {
        let old = |c: &Connection| c.id != id && c.state() == State::Established;
        if let Some(at) = self.connections.iter().position(old) {
            let old = self.connections.remove(at);
            self.end(old, Ended::Replaced);
        }
        if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) {
            if negotiated.hold_time.interval().is_none() {
                connection.timers.set(Timer::Hold, None);
            }
            connection.stage = Stage::Established(negotiated.clone());
            self.failures = 0;
            self.outputs.push_back(Output::Up(id, negotiated));
        }
    }

    /// Settles an OPEN against the session's other connections; reports whether its own connection lives.
    fn wins_collisions(&mut self, id: ConnectionId, open: &Open, now: Instant) -> bool {
        let Some((role, arrival)) = self.connections.iter().find(|c| c.id == id).map(|c| (c.role, c.arrival))
        else {
            return false;
        };
        let others: Vec<ConnectionId> = self.connections.iter().map(|c| c.id).filter(|o| *o != id).collect();
        let collision = || Ended::Sent(Notification::new(Notification::COLLISION));
        for other in others {
            let Some(at) = self.connections.iter().position(|c| c.id == other) else { continue };
            let loser = match &self.connections[at].stage {
                Stage::OpenSent => continue,
                Stage::Established(n) if n.graceful_restart.is_some() && arrival == Arrival::During => {
                    continue;
                }
                Stage::Established(_) => id,
                Stage::OpenConfirm(..) => {
                    let local = (self.terms.local_id, self.terms.local_as);
                    if collision::survivor(local, (open.router_id, open.asn)) == role { other } else { id }
                }
            };
            self.fail(loser, collision(), now);
            if loser == id {
                return false;
            }
        }
        true
    }

    fn timeout(&mut self, now: Instant) {
        if let Dialing::Waiting(Some(at)) = self.dialing
            && at <= now
        {
            self.dialing = Dialing::Waiting(None);
            if self.connections.is_empty() {
                self.dial_or_wait(now);
            }
        }
        let ids: Vec<ConnectionId> = self.connections.iter().map(|c| c.id).collect();
        for id in ids {
            while let Some(connection) = self.connections.iter_mut().find(|c| c.id == id)
                && let Some(timer) = connection.timers.take_due(now)
            {
                match timer {
                    Timer::Hold => self.expired(id, Notification::HOLD_TIMER_EXPIRED, now),
                    Timer::SendHold => self.expired(id, Notification::SEND_HOLD_TIMER_EXPIRED, now),
                    Timer::Keepalive => self.send_keepalive(id, now),
                }
            }
        }
    }
}
