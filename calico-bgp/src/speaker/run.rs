//! Encoded messages, one after the other in one piece of memory, each with whom it is for.

use std::collections::VecDeque;

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

    /// Returns all messages, whoever they are for.
    pub(super) fn all(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.messages.iter().map(|(_, end)| *end));
        begins.zip(&self.messages).map(|(begin, (_, end))| &self.octets[begin..*end])
    }
}

/// Runs that members take at their own pace, numbered from the first that ever was.
#[derive(Debug, Default)]
pub(super) struct Queue {
    runs: VecDeque<Run>,
    base: u64,
    octets: usize,
}

impl Queue {
    /// Returns the number that the next run gets.
    pub(super) fn end(&self) -> u64 {
        self.base + self.runs.len() as u64
    }

    /// Returns how many octets all messages are.
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// Returns how many octets the messages from one run up to another are.
    pub(super) fn octets_between(&self, from: u64, to: u64) -> usize {
        self.from(from).take(to.saturating_sub(from) as usize).map(Run::len).sum()
    }

    pub(super) fn get(&self, at: u64) -> Option<&Run> {
        self.runs.get(usize::try_from(at.checked_sub(self.base)?).ok()?)
    }

    /// Returns the runs from one on.
    pub(super) fn from(&self, at: u64) -> impl Iterator<Item = &Run> {
        self.runs.iter().skip(at.saturating_sub(self.base) as usize)
    }

    pub(super) fn extend(&mut self, runs: Vec<Run>) {
        self.octets += runs.iter().map(Run::len).sum::<usize>();
        self.runs.extend(runs);
    }

    /// Drops the runs before one.
    pub(super) fn drop_before(&mut self, at: u64) {
        while self.base < at
            && let Some(run) = self.runs.pop_front()
        {
            self.octets -= run.len();
            self.base += 1;
        }
    }
}

/// A run ends when it has this many octets, so that a long table is dropped piece by piece.
const ENOUGH: usize = 256 * 1024;

/// Runs as they are written.
#[derive(Debug, Default)]
pub(super) struct Runs {
    done: Vec<Run>,
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
    pub(super) fn finish(mut self) -> Vec<Run> {
        self.end_run();
        self.done
    }

    fn end_run(&mut self) {
        let mut run = std::mem::take(&mut self.current);
        if !run.messages.is_empty() {
            run.octets.shrink_to_fit();
            run.messages.shrink_to_fit();
            self.done.push(run);
        }
    }
}
