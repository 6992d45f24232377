//! What sessions want, carried out.

use std::time::{Duration, Instant};

use super::export;
use super::group::Group;
use super::peer::{Closing, History, Up};
use super::{Action, Event, Speaker};
use crate::decision::Source;
use crate::family::{FamilySet, PerFamily};
use crate::rib::PeerId;
use crate::session::{ConnectionId, Input, Output};
use crate::wire::Notification;

/// How long a peer may take to hear why its connection ends.
const GOODBYE: Duration = Duration::from_secs(5);

impl Speaker {
    /// Gives a session an input and carries out what it wants.
    pub(super) fn session_input(&mut self, id: PeerId, input: Input, now: Instant) {
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

    pub(super) fn carry_out(&mut self, id: PeerId, output: Output, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let address = peer.config.address;
        match output {
            Output::Dial(connection) => {
                let peer = Box::new(peer.config.clone());
                self.events.push_back(Action::Dial { connection, peer });
            }
            Output::Transmit(connection, message) => {
                if let Some(line) = peer.lines.get_mut(&connection) {
                    if line.open_out.is_empty() {
                        line.open_out = message.as_slice().into();
                    }
                    line.control.push_back(message);
                    self.wake(connection);
                }
            }
            Output::Close(connection) => match peer.lines.get_mut(&connection) {
                Some(line) if line.has_words() => {
                    line.closing = Closing::WhenSent(now + GOODBYE);
                    self.wake(connection);
                }
                _ => {
                    peer.lines.remove(&connection);
                    self.awake.remove(&connection);
                    self.events.push_back(Action::Close(connection));
                }
            },
            Output::Up(connection, negotiated) => {
                peer.counters.established += 1;
                // A session that replaces another leaves no time between them.
                (peer.since, peer.turned) = (now, now);
                peer.history = peer.history.max(History::WasUp);
                let Some(line) = peer.lines.get_mut(&connection) else { return };
                line.dialect = negotiated.dialect;
                let group = export::key_of(&peer.config, &negotiated, line.local);
                let families = negotiated.families;
                let source =
                    Source { peering: peer.config.peering(), router_id: negotiated.remote_id, address };
                let complete = FamilySet::NONE;
                let up = Up {
                    connection,
                    negotiated: negotiated.clone(),
                    group: group.clone(),
                    complete,
                    refresh: PerFamily::default(),
                };
                peer.up = Some(up);
                self.set_source(id, source, now);
                self.routes_after_up(id, &negotiated, now);
                self.join_group(group, id, families);
                self.renew_terms(id);
                self.feed_session(id, None);
                self.renew_watch(id);
                self.events.push_back(Action::Event(Event::Up(address)));
            }
            Output::Down(_, ended) => {
                peer.note_end(&ended);
                let words = ended.to_string();
                if let Some(up) = peer.up.take() {
                    self.leave_group(&up.group, id);
                    self.feed_end(id, &up, &ended);
                    self.renew_watch(id);
                    self.routes_after_down(id, &up.negotiated, &ended, now);
                }
                self.events.push_back(Action::Event(Event::Down(address, words)));
            }
            Output::Failed(ended) => {
                let words = ended.to_string();
                peer.note_end(&ended);
                self.events.push_back(Action::Event(Event::Failed(address, words)));
            }
        }
    }

    /// Ends the sessions of those who take nothing while destinations come and go: what they are owed is withdrawals of what
    /// no longer is, without bound.
    pub(super) fn give_up(&mut self, now: Instant) {
        if !self.groups.values().any(Group::has_walks) {
            return;
        }
        let held = self.peers.values().flat_map(|peer| [peer.held.v4, peer.held.v6]);
        let paths = self.originated.len() + held.map(|held| held as usize).sum::<usize>();
        let behind: Vec<PeerId> = self.groups.values_mut().flat_map(|group| group.given_up(paths)).collect();
        for id in behind {
            let why = Notification::new(Notification::OUT_OF_RESOURCES);
            self.session_input(id, Input::Reset(why), now);
        }
    }

    /// Closes the connections whose peers do not take the last words.
    pub(super) fn cut_short(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (events, awake) = (&mut self.events, &mut self.awake);
        peer.lines.retain(|connection, line| {
            let cut = matches!(line.closing, Closing::WhenSent(until) if until <= now);
            if cut {
                awake.remove(connection);
                events.push_back(Action::Close(*connection));
            }
            !cut
        });
    }

    pub(super) fn wake(&mut self, connection: ConnectionId) {
        if self.awake.insert(connection) {
            self.events.push_back(Action::Wake(connection));
        }
    }

    /// Files a peer under its deadline. A deadline that moves away is left where it is and looked at when it comes,
    /// so that a busy session costs nothing here.
    pub(super) fn file(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(deadline) = peer.deadline() else { return };
        if peer.filed.is_none_or(|filed| deadline < filed) {
            if let Some(filed) = peer.filed.replace(deadline) {
                self.deadlines.remove(&(filed, id));
            }
            self.deadlines.insert((deadline, id));
        }
    }
}
