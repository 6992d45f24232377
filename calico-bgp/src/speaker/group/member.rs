//! Where a member is in what waits for it, and how it goes on.

use super::Group;
use super::walk::WalkId;
use crate::rib::PeerId;
use crate::speaker::run::{Queue, Run};

/// Which run a member is in, and how many of its messages it has.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) place: Place,
    pub(super) taken: usize,
}

/// A run, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Of what is told to everybody.
    Stream(u64),
    /// Of what is told to those who are not there yet.
    Walk(WalkId, u64),
}

impl Member {
    pub(super) fn at(place: Place) -> Self {
        Self { place, taken: 0 }
    }
}

/// What a member took of what it was offered.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// How many messages, the one that is taken in part among them.
    pub(crate) messages: u64,
    /// What is left of that one.
    pub(crate) rest: Vec<u8>,
}

impl Group {
    /// Reports whether something waits for a member.
    pub(crate) fn waits_for(&self, member: PeerId) -> bool {
        self.members.get(&member).is_some_and(|member| self.unread(member).next().is_some())
    }

    /// Appends a member's next messages to `out` until it holds `enough` octets. They are offered again until the member
    /// has [taken](Self::take) them.
    pub(crate) fn offer(&self, member: PeerId, out: &mut Vec<u8>, enough: usize) {
        let Some(state) = self.members.get(&member) else { return };
        let mut from = state.taken;
        for run in self.unread(state) {
            for message in run.messages(std::mem::take(&mut from), member) {
                if out.len() >= enough {
                    return;
                }
                out.extend_from_slice(message);
            }
        }
    }

    /// Moves a member on by so many octets of its messages, and by what is not for it behind them. The rest of a message of
    /// which it took a part is no longer the group's to keep.
    pub(crate) fn take(&mut self, member: PeerId, mut octets: usize) -> Taken {
        let mut taken = Taken::default();
        let Some(state) = self.members.get_mut(&member) else { return taken };
        let (queue, at) = match &mut state.place {
            Place::Stream(at) => (&self.stream, at),
            Place::Walk(id, at) => match self.walks.get(id) {
                Some(walk) => (&walk.queue, at),
                None => return taken,
            },
        };
        let begin = *at;
        while let Some(run) = queue.get(*at) {
            match run.message(state.taken, member) {
                Some([]) => state.taken += 1,
                Some(_) if octets == 0 => return taken,
                Some(message) => {
                    let part = octets.min(message.len());
                    octets -= part;
                    taken.messages += 1;
                    taken.rest = message[part..].to_vec();
                    state.taken += 1;
                }
                None => {
                    state.taken = 0;
                    *at += 1;
                }
            }
        }
        match state.place {
            Place::Stream(end) => self.is_read |= end > begin,
            Place::Walk(id, _) => {
                if let Some(walk) = self.walks.get_mut(&id) {
                    walk.is_awaited = true;
                }
            }
        }
        taken
    }

    /// Returns the runs that a member has not, or not wholly, taken.
    pub(super) fn unread(&self, member: &Member) -> impl Iterator<Item = &Run> {
        let queue = self.queue(member.place);
        let (Place::Stream(at) | Place::Walk(_, at)) = member.place;
        queue.into_iter().flat_map(move |queue| queue.from(at))
    }

    fn queue(&self, place: Place) -> Option<&Queue> {
        match place {
            Place::Stream(_) => Some(&self.stream),
            Place::Walk(id, _) => self.walks.get(&id).map(|walk| &walk.queue),
        }
    }
}
