//! Update groups: peers that are told the same share one Adj-RIB-Out and one encoding.
//!
//! A group keeps what it has told for each prefix and a stream of encoded messages. Each member is a position in that
//! stream, so a message is encoded once and held once however many peers it goes to. A member that joins first gets
//! everything told so far from a backlog, which members that join together share too.
//!
//! What a peer told us is not told back to it. A message therefore holds routes of one source only, and that source
//! skips it; when it had been told another speaker's route before, it gets a withdrawal of its own.
//!
//! What was told is not kept: it follows from the tables. A change comes with the path that was there before it, and
//! what the group made of that path is what its members have.

mod behind;
mod member;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use calico_model::Family;

use super::draft::Draft;
use super::export::{GroupKey, World};
use super::journal::{Changes, Journal, PathChange};
use super::run::{Audience, Run, Runs};
use crate::family::FamilySet;
use crate::filter::ChangeId;
use crate::rib::{Path, PeerId, Tabled};
use crate::wire::{self, Nlri, Prefix, Refresh, update};
pub(super) use behind::Owed;
use member::Member;

/// A stream longer than this many octets leaves those members behind that are farthest back.
const STREAM_LIMIT: usize = 64 << 20;

/// One update group.
#[derive(Debug)]
pub(crate) struct Group {
    key: GroupKey,
    stream: VecDeque<Arc<Run>>,
    stream_len: usize,
    stream_limit: usize,
    base: u64,
    members: BTreeMap<PeerId, Member>,
    /// The members that are too slow for the stream.
    behind: BTreeSet<PeerId>,
    joining: BTreeMap<PeerId, (FamilySet, Ending)>,
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
}

impl Grouped for Ipv4Addr {
    fn changes(journal: &Journal) -> &Changes<Self> {
        &journal.v4
    }

    fn owed(owed: &mut Owed) -> &mut BTreeSet<Nlri<Self>> {
        &mut owed.v4
    }
}

impl Grouped for Ipv6Addr {
    fn changes(journal: &Journal) -> &Changes<Self> {
        &journal.v6
    }

    fn owed(owed: &mut Owed) -> &mut BTreeSet<Nlri<Self>> {
        &mut owed.v6
    }
}

impl Group {
    pub(crate) fn new(key: GroupKey) -> Self {
        Self {
            key,
            stream: VecDeque::new(),
            stream_len: 0,
            stream_limit: STREAM_LIMIT,
            base: 0,
            members: BTreeMap::new(),
            behind: BTreeSet::new(),
            joining: BTreeMap::new(),
        }
    }

    /// Takes a member in with the next round, or has it told the families again.
    pub(crate) fn join(&mut self, member: PeerId, families: FamilySet, ending: Ending) {
        let (asked, first) = self.joining.entry(member).or_insert((FamilySet::NONE, ending));
        *asked = families.iter().chain(asked.iter()).collect();
        *first = ending.min(*first);
    }

    /// Takes a member out.
    pub(crate) fn leave(&mut self, member: PeerId) {
        self.joining.remove(&member);
        self.members.remove(&member);
        self.behind.remove(&member);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.joining.is_empty()
    }

    pub(crate) fn tells_every_path(&self) -> bool {
        Family::ALL.into_iter().any(|family| self.key.ids[family])
    }

    /// Reports whether a round would do something although no route has changed.
    pub(crate) fn has_work(&self) -> bool {
        let caught_up = |id| self.members.get(id).is_some_and(Member::has_caught_up);
        !self.joining.is_empty() || self.behind.iter().any(caught_up)
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
        self.catch_up(now);
        self.admit(now);
        self.trim();
    }

    /// Returns how many members there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.members.keys().copied()
    }

    fn end(&self) -> u64 {
        self.base + self.stream.len() as u64
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
        for id in &self.behind {
            if let Some(member) = self.members.get_mut(id) {
                A::owed(&mut member.owed).extend(&changed);
            }
        }
        let mut runs = Runs::default();
        draft.write(&self.key, now, &mut runs);
        for run in runs.finish() {
            self.stream_len += run.len();
            self.stream.push_back(run);
        }
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
                (Some(old), Some(new)) if is_the_same(old, new) => continue,
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
                (Some(old), Some(new)) if is_the_same(old, new) => {}
                (_, Some(new)) => {
                    let nlri = self.key.nlri(*prefix, new.0, now.names);
                    draft.announce(new, nlri);
                    changed.push(nlri);
                }
            }
        }
        (draft, changed)
    }

    /// Gives members that join everything told so far.
    fn admit(&mut self, world: &World<'_>) {
        let end = self.end();
        let mut shared: BTreeMap<(FamilySet, Ending), Vec<Arc<Run>>> = BTreeMap::new();
        for (id, (families, ending)) in std::mem::take(&mut self.joining) {
            let everything = shared.entry((families, ending)).or_insert_with(|| {
                let mut runs = Runs::default();
                for family in families.iter() {
                    if ending == Ending::RefreshMarks {
                        runs.push(Audience::All, &wire::refresh(Refresh::Begin(family)));
                    }
                    match family {
                        Family::V4 => self.tell_all::<Ipv4Addr>(world, &mut runs),
                        Family::V6 => self.tell_all::<Ipv6Addr>(world, &mut runs),
                    }
                    let end = match ending {
                        Ending::EndOfRib => update::end_of_rib(family),
                        Ending::RefreshMarks => wire::refresh(Refresh::End(family)),
                    };
                    runs.push(Audience::All, &end);
                }
                runs.finish()
            });
            let everything: Vec<Arc<Run>> = everything.clone();
            let is_new = !self.members.contains_key(&id);
            let unread: Vec<_> =
                self.members.get(&id).map(|m| self.unread(m).cloned().collect()).unwrap_or_default();
            let member = self.members.entry(id).or_default();
            member.backlog.extend(unread);
            member.backlog.extend(everything);
            if is_new || member.position.is_some() {
                member.position = Some(end);
            }
        }
    }

    fn tell_all<A: Grouped>(&self, world: &World<'_>, runs: &mut Runs) {
        let mut draft = Draft::<A>::new();
        for (prefix, paths) in A::table(world.rib).iter() {
            for told in self.key.told(prefix, paths, world) {
                draft.announce(told, self.key.nlri(prefix, told.0, world.names));
            }
        }
        draft.write(&self.key, world, runs);
    }
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

fn is_the_same((old, before): (&Path, ChangeId), (new, now): (&Path, ChangeId)) -> bool {
    old.says_the_same(new) && before == now
}
