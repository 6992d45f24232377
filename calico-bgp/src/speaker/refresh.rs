//! Tables that peers tell again between two marks: what is not told between them is gone (RFC 7313 section 4).
//!
//! The first mark costs a walk over the table, and so does the second, whatever the peer holds; each is 23 octets long.
//! A family is therefore marked at most once in [`REST`]. What a peer tells between marks that came too early is taken as
//! it comes, and it is asked to tell everything once more: after a longer rest each time that the answer is no better.
//!
//! In the other direction, a peer that asks to be told everything again is told it at most once in that time, and to the end
//! before it is told it once more.

use std::time::{Duration, Instant};

use calico_model::Family;

use super::Speaker;
use super::restart::COMPLETION;
use crate::rib::PeerId;
use crate::session::Output;
use crate::wire::{self, Refresh};

/// The shortest time between two walks over the table that a peer can ask for.
const REST: Duration = Duration::from_secs(1);
/// How often that time is doubled.
const MOST_DOUBLINGS: u32 = 6;

/// What a peer does with one family.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Refreshing {
    /// While it tells everything again, how long that may take.
    pub(super) until: Option<Instant>,
    /// When its next mark counts.
    rests_until: Option<Instant>,
    /// Whether a mark came that did not count.
    missed: bool,
    /// How often in a row the peer was asked without telling everything between two marks.
    asked: u32,
    /// When it may be told everything again.
    tells_from: Option<Instant>,
    /// Whether it asked for that before.
    is_owed: bool,
}

impl Refreshing {
    pub(super) fn deadline(self) -> Option<Instant> {
        self.marks_deadline().into_iter().chain(self.tells_from.filter(|_| self.is_owed)).min()
    }

    fn marks_deadline(self) -> Option<Instant> {
        self.until.or(self.rests_until.filter(|_| self.missed))
    }
}

impl Speaker {
    /// The peer asks to be told everything of a family again.
    pub(super) fn refresh_asked(&mut self, id: PeerId, family: Family, now: Instant) {
        let Some(up) = self.peers.get_mut(&id).and_then(|peer| peer.up.as_mut()) else { return };
        let refresh = &mut up.refresh[family];
        refresh.is_owed = refresh.tells_from.is_some_and(|from| now < from);
        if !refresh.is_owed {
            refresh.tells_from = Some(now + REST);
            self.tell_family_again(id, family);
        }
    }

    /// The peer begins to tell everything of a family again.
    pub(super) fn refresh_begins(&mut self, id: PeerId, family: Family, now: Instant) {
        let Some(up) = self.peers.get_mut(&id).and_then(|peer| peer.up.as_mut()) else { return };
        // Who restarts gracefully has to tell everything once before it can tell it again.
        if up.negotiated.graceful_restart.is_some() && !up.complete.contains(family) {
            return;
        }
        let refresh = &mut up.refresh[family];
        if refresh.until.is_some() || refresh.rests_until.is_some_and(|until| now < until) {
            refresh.missed = true;
            return;
        }
        let rest = REST * (1 << refresh.asked.min(MOST_DOUBLINGS));
        *refresh = Refreshing {
            until: Some(now + COMPLETION),
            rests_until: Some(now + rest),
            missed: false,
            ..*refresh
        };
        self.mark_stale(family, id);
    }

    /// The peer has told everything of a family again.
    pub(super) fn refresh_ends(&mut self, id: PeerId, family: Family) {
        let Some(up) = self.peers.get_mut(&id).and_then(|peer| peer.up.as_mut()) else { return };
        let refresh = &mut up.refresh[family];
        if refresh.until.take().is_some() {
            if !refresh.missed {
                refresh.asked = 0;
            }
            self.drop_stale(family, id);
        }
    }

    /// Tells what was asked for too early, ends what takes too long, and asks for what was told between marks that did not
    /// count.
    pub(super) fn expire_refresh(&mut self, id: PeerId, now: Instant) {
        for family in Family::ALL {
            let Some(up) = self.peers.get_mut(&id).and_then(|peer| peer.up.as_mut()) else { return };
            if up.refresh[family].is_owed {
                self.refresh_asked(id, family, now);
            }
            let Some(up) = self.peers.get_mut(&id).and_then(|peer| peer.up.as_mut()) else { return };
            let refresh = &mut up.refresh[family];
            if refresh.marks_deadline().is_none_or(|at| at > now) {
                continue;
            }
            if refresh.until.is_some() {
                self.refresh_ends(id, family);
            } else {
                refresh.missed = false;
                refresh.asked += 1;
                // Who knows the marks knows the request (RFC 7313 section 3.1), whether or not it said so apart.
                let request = Output::Transmit(up.connection, wire::refresh(Refresh::Request(family)));
                self.carry_out(id, request, now);
            }
        }
    }
}
