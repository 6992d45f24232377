//! Encoded messages, one after the other in one piece of memory, each with whom it is for.

use std::sync::Arc;

use crate::rib::PeerId;

/// Who a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    All,
    AllBut(PeerId),
    Only(PeerId),
}

impl Audience {
    fn has(self, member: PeerId) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(peer) => peer != member,
            Self::Only(peer) => peer == member,
        }
    }
}

/// Messages that members take one by one, and that are dropped together.
#[derive(Debug, Default)]
pub(super) struct Run {
    octets: Vec<u8>,
    /// Whom each message is for, and where it ends.
    messages: Vec<(Audience, usize)>,
}

impl Run {
    /// Returns how many octets all messages are.
    pub(super) fn len(&self) -> usize {
        self.octets.len()
    }

    /// Returns one message, if there are so many, or nothing in its place when it is not for the member.
    pub(super) fn message(&self, at: usize, member: PeerId) -> Option<&[u8]> {
        let (audience, end) = *self.messages.get(at)?;
        let begin = if at == 0 { 0 } else { self.messages[at - 1].1 };
        Some(if audience.has(member) { &self.octets[begin..end] } else { &[] })
    }

    /// Returns the messages for a member from one on.
    pub(super) fn messages(&self, from: usize, member: PeerId) -> impl Iterator<Item = &[u8]> {
        let messages = (from..self.messages.len()).filter_map(move |at| self.message(at, member));
        messages.filter(|message| !message.is_empty())
    }
}

/// A run ends when it has this many octets, so that a long table is dropped piece by piece.
const ENOUGH: usize = 256 * 1024;

/// Runs as they are written.
#[derive(Debug, Default)]
pub(super) struct Runs {
    done: Vec<Arc<Run>>,
    current: Run,
}

impl Runs {
    pub(super) fn push(&mut self, audience: Audience, message: &[u8]) {
        self.current.octets.extend_from_slice(message);
        self.current.messages.push((audience, self.current.octets.len()));
        if self.current.len() >= ENOUGH {
            self.end_run();
        }
    }

    /// Returns what was written.
    pub(super) fn finish(mut self) -> Vec<Arc<Run>> {
        self.end_run();
        self.done
    }

    fn end_run(&mut self) {
        let mut run = std::mem::take(&mut self.current);
        if !run.messages.is_empty() {
            run.octets.shrink_to_fit();
            run.messages.shrink_to_fit();
            self.done.push(Arc::new(run));
        }
    }
}
