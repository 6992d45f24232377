//! Update groups: peers that are told the same share one Adj-RIB-Out and one encoding.
//!
//! ```text
//! join ──▶ walk: the tables, piece by piece ──┬──▶ stream: what changes, for everybody
//!          ▲                                  │        │
//!          └── walk: how what was missed stands ◀── too slow
//! ```
//!
//! A group keeps a stream of encoded messages. Each member is a position in it, so a message is encoded once and held
//! once however many peers it goes to. Members that are not there yet [walk](walk) first.
//!
//! What a peer told us is not told back to it. A message therefore holds routes of one source only, and that source
//! skips it; when it had been told another speaker's route before, it gets a withdrawal of its own.
//!
//! What was told is not kept: it follows from the tables. A change comes with the path that was there before it, and
//! what the group made of that path is what its members have.

mod member;
mod moving;
mod owed;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use calico_model::Family;

use super::draft::Draft;
use super::export::GroupKey;
use super::journal::{Changes, Journal, PathChange};
use super::run::{Queue, Runs};
use super::world::World;
use crate::family::FamilySet;
use crate::filter::ChangeId;
use crate::rib::{Path, PeerId, Tabled};
use crate::wire::{Nlri, Prefix};
use member::Member;
use owed::Owed;
use walk::{Piece, Reached, Walk, WalkId};

/// A stream longer than this many octets leaves those members behind that are farthest back.
const STREAM_LIMIT: usize = 64 << 20;

/// One update group.
#[derive(Debug)]
pub(crate) struct Group {
    key: GroupKey,
    members: BTreeMap<PeerId, Member>,
    stream: Queue,
    stream_limit: usize,
    /// Whether a member has come to the stream's end since a round dropped what everybody has.
    is_read: bool,
    joining: BTreeMap<PeerId, (FamilySet, Ending)>,
    /// What members that are being told a family have asked to be told once more.
    again: BTreeMap<PeerId, (FamilySet, Ending)>,
    walks: BTreeMap<WalkId, Walk>,
    next_walk: WalkId,
    /// The most paths that there were since somebody walks.
    most_paths: usize,
    walk_limit: usize,
    piece: Piece,
}

/// How a member learns that it was told everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// By End-of-RIB (RFC 4724 section 2).
    EndOfRib,
    /// By marks around it, after which it drops what was not among it (RFC 7313).
    RefreshMarks,
}

/// A family of which groups tell.
pub(crate) trait Grouped: Tabled {
    fn changes(journal: &Journal) -> &Changes<Self>;
    fn owed(owed: &mut Owed) -> &mut BTreeSet<Nlri<Self>>;
    fn reached(reached: &mut Reached) -> &mut Option<Prefix<Self>>;
}

impl Grouped for Ipv4Addr {
    fn changes(journal: &Journal) -> &Changes<Self> {
        &journal.v4
    }

    fn owed(owed: &mut Owed) -> &mut BTreeSet<Nlri<Self>> {
        &mut owed.v4
    }

    fn reached(reached: &mut Reached) -> &mut Option<Prefix<Self>> {
        &mut reached.v4
    }
}

impl Grouped for Ipv6Addr {
    fn changes(journal: &Journal) -> &Changes<Self> {
        &journal.v6
    }

    fn owed(owed: &mut Owed) -> &mut BTreeSet<Nlri<Self>> {
        &mut owed.v6
    }

    fn reached(reached: &mut Reached) -> &mut Option<Prefix<Self>> {
        &mut reached.v6
    }
}

impl Group {
    pub(crate) fn new(key: GroupKey) -> Self {
        Self {
            key,
            members: BTreeMap::new(),
            stream: Queue::default(),
            stream_limit: STREAM_LIMIT,
            is_read: false,
            joining: BTreeMap::new(),
            again: BTreeMap::new(),
            walks: BTreeMap::new(),
            next_walk: 0,
            most_paths: 0,
            walk_limit: walk::WALK_LIMIT,
            piece: Piece::USUAL,
        }
    }

    /// Takes a member in with the next round, or has it told the families again.
    pub(crate) fn join(&mut self, member: PeerId, families: FamilySet, ending: Ending) {
        ask_of(&mut self.joining, member, (families, ending));
    }

    /// Takes a member out.
    pub(crate) fn leave(&mut self, member: PeerId) {
        self.joining.remove(&member);
        self.again.remove(&member);
        // What only this one had not taken is to be dropped.
        self.members.remove(&member);
        self.is_read = true;
        self.walks.retain(|_, walk| !walk.members.remove(&member) || !walk.members.is_empty());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.joining.is_empty()
    }

    pub(crate) fn tells_every_path(&self) -> bool {
        Family::ALL.into_iter().any(|family| self.key.ids[family])
    }

    /// Reports whether a round would do something although no route has changed.
    pub(crate) fn has_work(&self) -> bool {
        self.is_read || !self.joining.is_empty() || self.walks.values().any(|walk| walk.is_awaited)
    }

    /// Reports whether a member is told what it has missed.
    pub(crate) fn has_walks(&self) -> bool {
        !self.walks.is_empty()
    }

    /// Returns the members that are owed far more destinations than there are, of a table with so many paths.
    pub(crate) fn given_up(&mut self, paths: usize) -> Vec<PeerId> {
        self.most_paths = if self.walks.is_empty() { 0 } else { self.most_paths.max(paths) };
        let most = walk::LEEWAY + 2 * self.most_paths;
        let behind = self.walks.values().filter(|walk| walk.owed.len() > most);
        behind.flat_map(|walk| walk.members.iter().copied()).collect()
    }

    /// Counts the prefixes or paths of a family that the members have been told.
    pub(crate) fn told(&self, family: Family, world: &World<'_>) -> Counted {
        match family {
            Family::V4 => self.count::<Ipv4Addr>(world),
            Family::V6 => self.count::<Ipv6Addr>(world),
        }
    }

    fn count<A: Grouped>(&self, world: &World<'_>) -> Counted {
        let mut counted = Counted::default();
        if self.key.families.contains(A::FAMILY) {
            for (prefix, paths) in A::table(world.rib).iter() {
                for (path, _) in self.key.told(prefix, paths, world) {
                    counted.all += 1;
                    *counted.of.entry(path.peer()).or_default() += 1;
                }
            }
        }
        counted
    }

    /// One round: tells what changed, lets joining members in, drops what everybody has. What was told before follows
    /// from the world as it was `before`.
    pub(crate) fn round(&mut self, journal: &Journal, before: &World<'_>, now: &World<'_>) {
        self.tell::<Ipv4Addr>(journal, before, now);
        self.tell::<Ipv6Addr>(journal, before, now);
        self.admit();
        self.walk_on(now);
        self.trim();
        self.is_read = false;
    }

    /// Returns how many octets of messages are held, each once however many members have not taken it.
    pub(crate) fn octets(&self) -> usize {
        self.stream.octets() + self.walks.values().map(|walk| walk.queue.octets()).sum::<usize>()
    }

    /// Returns how many members there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.members.keys().copied()
    }

    fn tell<A: Grouped>(&mut self, journal: &Journal, before: &World<'_>, now: &World<'_>) {
        let changes = A::changes(journal);
        if self.members.is_empty() || !self.key.families.contains(A::FAMILY) || self.key.export.is_closed() {
            return;
        }
        let (draft, changed) = if self.key.ids[A::FAMILY] {
            self.each_path(changes, before, now)
        } else {
            self.best_path(changes, before, now)
        };
        self.walks.values_mut().for_each(|walk| walk.owe::<A>(&changed));
        let mut runs = Runs::default();
        draft.write(&self.key, now, &mut runs);
        self.stream.extend(runs.finish());
    }

    /// Returns a path with the change it is told with, if it is.
    fn telling<'p, A: Grouped>(
        &self,
        prefix: Prefix<A>,
        path: &'p Path,
        world: &World<'_>,
    ) -> Option<(&'p Path, ChangeId)> {
        Some((path, self.key.telling(prefix, path, world)?))
    }

    /// What is new for members that are told one path for each destination.
    fn best_path<A: Grouped>(
        &self,
        changes: &Changes<A>,
        before: &World<'_>,
        now: &World<'_>,
    ) -> (Draft<A>, Vec<Nlri<A>>) {
        let mut draft = Draft::new();
        let mut changed = Vec::new();
        let changes = changes.best.iter().map(|(prefix, old)| (*prefix, old.as_ref()));
        for (prefix, old, new) in A::table(now.rib).bests(changes) {
            let nlri = Nlri { prefix, path_id: 0 };
            let old = old.and_then(|path| self.telling(prefix, path, before));
            let new = new.and_then(|path| self.telling(prefix, path, now));
            match (old, new) {
                (None, None) => continue,
                (Some(_), None) => draft.withdraw(nlri),
                (Some(old), Some(new)) if is_the_same(old, new, before, now) => continue,
                (old, Some(new)) => {
                    let teller = new.0.peer();
                    if old.is_some_and(|(old, _)| old.peer() != teller) && teller != PeerId::LOCAL {
                        draft.withdraw_from(teller, nlri);
                    }
                    draft.announce(new, nlri);
                }
            }
            changed.push(nlri);
        }
        (draft, changed)
    }

    /// What is new for members that are told every path.
    fn each_path<A: Grouped>(
        &self,
        changes: &Changes<A>,
        before: &World<'_>,
        now: &World<'_>,
    ) -> (Draft<A>, Vec<Nlri<A>>) {
        let mut draft = Draft::new();
        let mut changed = Vec::new();
        for PathChange { prefix, peer, path_id, before: old } in &changes.each {
            let old = old.as_ref().and_then(|path| self.telling(*prefix, path, before));
            let new = A::table(now.rib).path(*prefix, *peer, *path_id);
            let new = new.and_then(|path| self.telling(*prefix, path, now));
            match (old, new) {
                (None, None) => {}
                (Some((old, _)), None) => {
                    let nlri = self.key.nlri(*prefix, old, now.names);
                    draft.withdraw(nlri);
                    changed.push(nlri);
                }
                (Some(old), Some(new)) if is_the_same(old, new, before, now) => {}
                (_, Some(new)) => {
                    let nlri = self.key.nlri(*prefix, new.0, now.names);
                    draft.announce(new, nlri);
                    changed.push(nlri);
                }
            }
        }
        (draft, changed)
    }
}

/// Takes down what a member asks for besides what it asked for already.
fn ask_of(
    all: &mut BTreeMap<PeerId, (FamilySet, Ending)>,
    member: PeerId,
    (families, ending): (FamilySet, Ending),
) {
    let (asked, first) = all.entry(member).or_insert((FamilySet::NONE, ending));
    *asked = families.iter().chain(asked.iter()).collect();
    *first = ending.min(*first);
}

/// How much a group has told.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    all: usize,
    of: BTreeMap<PeerId, usize>,
}

impl Counted {
    /// Returns how much a member has been told: what it told us itself is not among it.
    pub(crate) fn to(&self, member: PeerId) -> usize {
        self.all - self.of.get(&member).copied().unwrap_or(0)
    }
}

fn is_the_same(
    (old, was): (&Path, ChangeId),
    (new, is): (&Path, ChangeId),
    before: &World<'_>,
    now: &World<'_>,
) -> bool {
    // What is told of a path names the speaker that it came from (RFC 4456 section 8).
    let told_by = |world: &World<'_>| world.sources.get(new.peer()).copied();
    old.says_the_same(new) && was == is && told_by(before) == told_by(now)
}
