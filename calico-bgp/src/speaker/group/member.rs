//! Where a member is in what waits for it, and how it goes on.

use std::collections::VecDeque;
use std::sync::Arc;

use super::behind::Owed;
use super::{Group, Run};
use crate::rib::PeerId;

/// One member of a group.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// What it gets before it goes on with the stream; a part may be shared with others.
    pub(super) backlog: VecDeque<Arc<Run>>,
    /// How many messages of the run it is in, of the backlog or else of the stream, it has.
    pub(super) taken: usize,
    /// Its run in the stream; none while it is too slow for it.
    pub(super) position: Option<u64>,
    /// What it must be told of once it has taken its backlog, because it was too slow.
    pub(super) owed: Owed,
}

impl Member {
    pub(super) fn has_caught_up(&self) -> bool {
        self.position.is_none() && self.backlog.is_empty()
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
        let end = self.end();
        self.members
            .get(&member)
            .is_some_and(|m| !m.backlog.is_empty() || m.position.is_some_and(|position| position < end))
    }

    /// Appends a member's next messages to `out` until it holds `enough` octets. They are offered again until the member
    /// has [taken](Self::take) them.
    pub(crate) fn offer(&self, member: PeerId, out: &mut Vec<u8>, enough: usize) {
        let Some(state) = self.members.get(&member) else { return };
        let mut from = state.taken;
        for run in state.backlog.iter().chain(self.unread(state)) {
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
        loop {
            let in_stream = |position: u64| self.stream.get((position - self.base) as usize);
            let Some(run) = state.backlog.front().or_else(|| state.position.and_then(in_stream)) else {
                return taken;
            };
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
                    if state.backlog.pop_front().is_none() {
                        state.position = state.position.map(|position| position + 1);
                    }
                }
            }
        }
    }

    /// Returns the runs of the stream that a member has not, or not wholly, taken.
    pub(super) fn unread(&self, member: &Member) -> impl Iterator<Item = &Arc<Run>> {
        let from = member.position.map_or(self.stream.len(), |position| (position - self.base) as usize);
        self.stream.range(from..)
    }
}
