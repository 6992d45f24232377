//! When what changed is told: at once, and then in rounds, so that what changes between two of them is told together.

use std::time::{Duration, Instant};

use super::group::Group;
use super::members::Departed;
use super::{Action, Event, Speaker};
use crate::rib::PeerId;

/// How much longer a round is put off for each established peer: to write to one costs a few microseconds.
const FOR_EACH_PEER: Duration = Duration::from_micros(25);

impl Speaker {
    /// Reports whether a round would do something.
    pub(super) fn has_work(&self) -> bool {
        self.deferral.is_none()
            && (self.choice_changed
                || !self.journal.is_empty()
                || !self.departed.is_empty()
                || self.asked.has_work()
                || self.groups.values().any(Group::has_work))
    }

    /// Ends every call: forgets peers that are gone, and tells what changed when it is time.
    pub(super) fn advance(&mut self, now: Instant) {
        self.forget_those_who_left();
        self.check_deferral(now);
        if self.has_work() && now >= self.next_round {
            self.ask_about_covered(now);
        }
        if self.has_work() && now >= self.next_round {
            self.round(now);
            // Not in each round: what it changes has to be told by what is known then.
            self.give_up(now);
        }
    }

    /// Tells what changed.
    fn round(&mut self, now: Instant) {
        let told: usize = self.groups.values().map(Group::len).sum();
        self.next_round = now + self.config.batching + FOR_EACH_PEER * told as u32;
        if std::mem::take(&mut self.choice_changed) {
            self.events.push_back(Action::Event(Event::Routes));
        }
        let journal = self.journal.take();
        let world = self.tables.world();
        self.groups.values_mut().for_each(|group| group.round(&journal, &world, &world));
        for Departed { id, vacant } in std::mem::take(&mut self.departed) {
            self.tables.sources.remove(id);
            self.tables.clients.remove(&id);
            self.feeds.forget(id);
            self.vacant.extend(vacant);
        }
        self.tables.names.sweep(&self.tables.rib);
        self.wake_waiting(now);
    }

    /// Wakes everybody that something waits for.
    pub(super) fn wake_waiting(&mut self, now: Instant) {
        let waiting: Vec<PeerId> = self
            .groups
            .values()
            .flat_map(|group| group.members().filter(|member| group.waits_for(*member)))
            .collect();
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
    }

    /// Tells what changed until now, before it would be told in another way.
    pub(super) fn tell_until_now(&mut self, now: Instant) {
        if self.deferral.is_none() {
            self.round(now);
        }
    }
}
