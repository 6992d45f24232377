//! Several paths to one destination, ranked as far as changes need it.
//!
//! ```text
//! [the best] [its rivals, which lose to it only from MULTI_EXIT_DISC on] [the others, in no order]
//! ```
//!
//! A path that joins or leaves the others changes no choice, and one that beats the best makes it alone: each is
//! compared with the best and with nothing else. Only among rivals, which are few, all are looked at.
//!
//! Where no path's next hop can be reached none is the best, and which one is in front means nothing.

use super::{Choice, Path, PeerId};
use crate::decision::{self, Sources, burden_before_med};

/// Paths to one destination, at least one.
#[derive(Debug)]
pub(super) struct Ranked {
    paths: Vec<Path>,
    /// For each path the bit of its peer's number, modulo 64: a peer whose bit is not there need not be looked for.
    tellers: u64,
    /// That of the best path: most paths that come or go are compared with nothing else.
    burden: u64,
}

fn bit(peer: PeerId) -> u64 {
    1 << (peer.0 % 64)
}

impl Ranked {
    pub(super) fn of(path: Path, sources: &Sources) -> Self {
        let (tellers, burden) = (bit(path.peer()), burden_before_med(&path, sources));
        let mut paths = Vec::with_capacity(2);
        paths.push(path);
        Self { paths, tellers, burden }
    }

    pub(super) fn find(&self, peer: PeerId, path_id: u32) -> Option<usize> {
        if self.tellers & bit(peer) == 0 {
            return None;
        }
        self.paths.iter().position(|path| path.is(peer, path_id))
    }

    pub(super) fn as_slice(&self) -> &[Path] {
        &self.paths
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Path] {
        &mut self.paths
    }

    /// Adds a path of which there is none with the same peer and identifier.
    pub(super) fn add(&mut self, path: Path, sources: &Sources) -> Choice {
        self.tellers |= bit(path.peer());
        // Doubling would waste half of what a destination with many paths takes.
        if self.paths.len() == self.paths.capacity() {
            self.paths.reserve_exact((self.paths.len() / 4).max(2));
        }
        let end = self.paths.len();
        let burden = burden_before_med(&path, sources);
        if burden > self.burden {
            self.paths.push(path);
            return Choice::SameOfMore;
        }
        let before = self.paths[0].clone();
        let rivals = if burden < self.burden { 0 } else { self.rivals(sources) };
        self.burden = burden;
        self.paths.push(path);
        self.paths.swap(rivals, end);
        self.choose(rivals + 1, sources, before)
    }

    /// Takes out the path at an index; there must be another one.
    pub(super) fn take(&mut self, at: usize, sources: &Sources) -> (Path, Choice) {
        if burden_before_med(&self.paths[at], sources) > self.burden {
            return (self.drop_at(at), Choice::SameOfMore);
        }
        let before = self.paths[0].clone();
        let left = self.rivals(sources) - 1;
        self.paths.swap(at, left);
        let gone = self.drop_at(left);
        let rivals = if left == 0 { self.gather_rivals(sources) } else { left };
        (gone, self.choose(rivals, sources, before))
    }

    /// Takes out a path, and puts the last one in its place.
    fn drop_at(&mut self, at: usize) -> Path {
        let gone = self.paths.swap_remove(at);
        self.tellers = self.paths.iter().fold(0, |tellers, path| tellers | bit(path.peer()));
        gone
    }

    /// Puts a path in the place of the one at an index, which has the same peer and identifier.
    pub(super) fn replace(&mut self, at: usize, path: Path, sources: &Sources) -> (Path, Choice) {
        let (replaced, left) = self.take(at, sources);
        let joined = self.add(path, sources);
        // What was best before both is what counts.
        let choice = match (left, joined) {
            (Choice::Changed { before }, _) | (_, Choice::Changed { before }) => Choice::Changed { before },
            (Choice::SameBest, _) | (_, Choice::SameBest) => Choice::SameBest,
            (left, _) => left,
        };
        (replaced, choice)
    }

    /// Chooses anew if there is a path of a peer of which something else is known now.
    pub(super) fn rank_again(&mut self, peer: PeerId, sources: &Sources) {
        if self.tellers & bit(peer) != 0 {
            let before = self.paths[0].clone();
            self.choose(self.rivals(sources), sources, before);
        }
    }

    /// Chooses anew among all, of whose next hops something else is known now.
    pub(super) fn choose_again(&mut self, sources: &Sources) {
        let before = self.paths[0].clone();
        let rivals = self.gather_rivals(sources);
        self.choose(rivals, sources, before);
    }

    /// Returns how many paths are the best one and its rivals.
    fn rivals(&self, sources: &Sources) -> usize {
        self.paths.iter().take_while(|path| burden_before_med(path, sources) == self.burden).count()
    }

    /// Brings the paths to the front that no other beats before MULTI_EXIT_DISC; returns how many.
    fn gather_rivals(&mut self, sources: &Sources) -> usize {
        self.burden = u64::MAX;
        let mut count = 0;
        for at in 0..self.paths.len() {
            let burden = burden_before_med(&self.paths[at], sources);
            if burden < self.burden {
                (self.burden, count) = (burden, 0);
            }
            if burden == self.burden {
                self.paths.swap(at, count);
                count += 1;
            }
        }
        count
    }

    /// Brings the best of the rivals, of which there are so many, to the front.
    fn choose(&mut self, rivals: usize, sources: &Sources, before: Path) -> Choice {
        if let Some(best) = decision::best(&self.paths[..rivals], sources) {
            self.paths.swap(0, best);
        }
        if self.paths[0].says_the_same(&before) {
            Choice::SameBest
        } else {
            Choice::Changed { before: Some(before) }
        }
    }
}
