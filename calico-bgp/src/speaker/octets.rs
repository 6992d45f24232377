//! Octets in and out: messages found and read, and handed to whom they concern; what waits, handed out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use super::group::Group;
use super::peer::{Closing, Line};
use super::{Action, PeerConfig, Speaker};
use crate::rib::PeerId;
use crate::session::{ConnectionId, Heard, Input};
use crate::wire::open::Feature;
use crate::wire::{self, Dialect, MessageType, Open, Refresh, Remedy, Update};

/// How many octets one [`Speaker::transmit`] hands out, about.
const ENOUGH: usize = 64 * 1024;

impl Speaker {
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
        // Who sends a message in many small pieces does not have it copied for each.
        let rest = if used == 0 && !pending.is_empty() { pending } else { whole[used..].to_vec() };
        if let Some(line) = self.peers.get_mut(&id).and_then(|peer| peer.lines.get_mut(&connection)) {
            line.received = rest;
        }
        self.forget_if_gone(id, now);
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
            let heard = match wire::frame(&octets[used..], dialect.max_len_in) {
                Ok(None) => return used,
                Err(fault) => malformed(fault),
                Ok(Some(frame)) => {
                    used += frame.len;
                    peer.counters.messages_in += 1;
                    match frame.kind {
                        MessageType::Open => match Open::decode(frame.body) {
                            Ok(open) => {
                                if let Some(line) = peer.lines.get_mut(&connection) {
                                    line.open_in = octets[used - frame.len..used].into();
                                }
                                Heard::Open(Box::new(open))
                            }
                            Err(fault) => malformed(fault),
                        },
                        MessageType::Keepalive => Heard::Keepalive,
                        MessageType::Notification => Heard::Notification(wire::read_notification(frame.body)),
                        MessageType::RouteRefresh => match wire::read_refresh(frame.body) {
                            Ok(refresh) => self.refresh(id, connection, refresh, now),
                            Err(fault) => malformed(fault),
                        },
                        MessageType::Update => self.update(id, connection, frame.body, &dialect, now),
                    }
                }
            };
            self.session_input(id, Input::Heard(connection, heard), now);
        }
    }

    fn update(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        body: &[u8],
        dialect: &Dialect,
        now: Instant,
    ) -> Heard {
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
                let withdraws = update.faults.iter().any(|fault| fault.remedy == Remedy::TreatAsWithdraw);
                peer.counters.treated_as_withdrawn_in += u64::from(withdraws);
                if let Some(fault) = update.faults.last() {
                    peer.last_fault = Some(fault.to_string());
                }
                self.import(id, update);
                self.check_limit(id, now);
                Heard::Update
            }
        }
    }

    fn refresh(&mut self, id: PeerId, connection: ConnectionId, refresh: Refresh, now: Instant) -> Heard {
        let up = self.peers.get(&id).and_then(|peer| peer.up.as_ref());
        let Some(up) = up.filter(|up| up.connection == connection) else { return Heard::Refresh };
        let spoken = up.negotiated.families;
        let marked = up.negotiated.features.contains(&Feature::EnhancedRouteRefresh);
        match refresh {
            Refresh::Request(family) if spoken.contains(family) => self.refresh_asked(id, family, now),
            Refresh::Begin(family) if marked && spoken.contains(family) => {
                self.refresh_begins(id, family, now)
            }
            Refresh::End(family) if marked && spoken.contains(family) => self.refresh_ends(id, family),
            Refresh::Request(_) | Refresh::Begin(_) | Refresh::End(_) | Refresh::Unknown => {}
        }
        Heard::Refresh
    }

    /// Appends what is to be sent on a connection, about 64 KiB at most, to `out`. Nothing appended means nothing
    /// waits: the next octets are announced by [`Action::Wake`], or the connection is to be closed.
    pub fn transmit(&mut self, connection: ConnectionId, out: &mut Vec<u8>, now: Instant) {
        self.offer(connection, now, |octets| {
            out.extend_from_slice(octets);
            octets.len()
        });
    }

    /// Does the same for a socket that may take less than it is offered: `take` returns how many octets it took, and the
    /// others stay here, where they are shared with other peers, and are offered again. Returns how many were offered.
    pub fn offer(
        &mut self,
        connection: ConnectionId,
        now: Instant,
        take: impl FnOnce(&[u8]) -> usize,
    ) -> usize {
        let id = PeerId(connection.peer);
        let Some(peer) = self.peers.get_mut(&id) else { return 0 };
        let Some(line) = peer.lines.get_mut(&connection) else { return 0 };
        let up = peer.up.as_ref().filter(|up| up.connection == connection && line.closing == Closing::No);
        let mut group = up.and_then(|up| self.groups.get_mut(&up.group));
        self.offered.clear();
        line.offer(&mut self.offered, ENOUGH);
        if let Some(group) = &group {
            group.offer(id, &mut self.offered, ENOUGH);
        }
        let offered = self.offered.len();
        let taken = if offered == 0 { 0 } else { take(&self.offered).min(offered) };
        let (of_routes, begun) = line.take(taken);
        peer.counters.messages_out += begun;
        if let Some(group) = &mut group {
            let taken = group.take(id, of_routes);
            if of_routes > 0 {
                line.rest = taken.rest;
            }
            peer.counters.messages_out += taken.messages;
            peer.counters.updates_out += taken.messages;
        }
        if taken > 0 {
            peer.session.has_taken(connection, now);
        }
        if offered == 0 {
            self.drained(id, connection, now);
        }
        offered
    }

    /// Returns how many octets are held that peers have not taken yet; what several peers are to take counts once.
    #[must_use]
    pub fn octets_held(&self) -> usize {
        let of_lines = self.peers.values().flat_map(|peer| peer.lines.values()).map(Line::octets);
        of_lines.chain(self.groups.values().map(Group::octets)).sum()
    }

    /// A connection has nothing more to say for now, or for good.
    fn drained(&mut self, id: PeerId, connection: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let is_closing = |line: &Line| line.closing != Closing::No;
        self.awake.remove(&connection);
        if peer.lines.get(&connection).is_some_and(is_closing) {
            peer.lines.remove(&connection);
            self.events.push_back(Action::Close(connection));
            self.forget_if_gone(id, now);
            return self.advance(now);
        }
        self.session_input(id, Input::Drained(connection), now);
    }
}

fn malformed(fault: wire::DecodeError) -> Heard {
    match fault.remedy {
        Remedy::Reset(notification) => Heard::Malformed(notification),
        Remedy::Discard | Remedy::TreatAsWithdraw => Heard::Update,
    }
}

pub(super) fn new_line(local: IpAddr, config: &PeerConfig) -> Line {
    Line {
        received: Vec::new(),
        rest: Vec::new(),
        control: VecDeque::new(),
        open_out: Box::default(),
        open_in: Box::default(),
        local,
        ports: (0, config.port),
        dialect: Dialect::plain(config.peering()),
        closing: Closing::No,
    }
}
