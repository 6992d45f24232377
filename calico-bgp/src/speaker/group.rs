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
//! what the group made of that path is what its members have. A member that is too slow for the stream is remembered
//! with the destinations it missed, and told how they stand once it has caught up: memory follows the number of
//! destinations, not how often they change.

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
use crate::wire::update::{MpReach, MpUnreach};
use crate::wire::{self, MessageType, Nlri, Prefix, Refresh, Update, update};

/// Where a member is.
#[derive(Debug, Default)]
struct Member {
    /// What it gets before it goes on with the stream; a part may be shared with others.
    backlog: VecDeque<Arc<Run>>,
    /// How many messages of the run it is in, of the backlog or else of the stream, it has.
    taken: usize,
    /// Its run in the stream; none while it is too slow for it.
    position: Option<u64>,
    /// What it must be told of once it has taken its backlog, because it was too slow.
    owed: Owed,
}

/// Destinations of which a member is told how they stand.
#[derive(Debug, Default)]
pub(super) struct Owed {
    v4: BTreeSet<Nlri<Ipv4Addr>>,
    v6: BTreeSet<Nlri<Ipv6Addr>>,
}

impl Owed {
    /// Adds everything that was told in some messages.
    fn add_told<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>, key: &GroupKey) {
        for message in messages {
            let Ok(Some(frame)) = wire::frame(message, key.max_len) else { continue };
            if frame.kind != MessageType::Update {
                continue;
            }
            let Ok(update) = Update::decode(frame.body, &key.dialect()) else { continue };
            self.v4.extend(update.withdrawn.iter().chain(update.announced.iter()));
            match update.mp_withdrawn {
                Some(MpUnreach::V4(list)) => self.v4.extend(list.iter()),
                Some(MpUnreach::V6(list)) => self.v6.extend(list.iter()),
                None => {}
            }
            match update.mp_announced {
                Some(MpReach::V4(list, _)) => self.v4.extend(list.iter()),
                Some(MpReach::V6(list, _)) => self.v6.extend(list.iter()),
                None => {}
            }
        }
    }
}

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

    /// Takes in a member of another group, whose session goes on: it is told of every path that the other group told in
    /// another way, or not at all, or alone.
    pub(crate) fn take_over(&mut self, member: PeerId, old: &GroupKey, mut owed: Owed, world: &World<'_>) {
        self.owe_differences::<Ipv4Addr>(old, &mut owed, world);
        self.owe_differences::<Ipv6Addr>(old, &mut owed, world);
        self.members.insert(member, Member { owed, ..Member::default() });
        self.behind.insert(member);
    }

    fn owe_differences<A: Grouped>(&self, old: &GroupKey, owed: &mut Owed, world: &World<'_>) {
        if self.key.families.contains(A::FAMILY) {
            let key = &self.key;
            let says = |key: &GroupKey, prefix: Prefix<A>, path: &Path| {
                let change = key.telling(prefix, path, world)?;
                key.fit(&path.attributes, A::FAMILY, (path.peer(), change), world)
            };
            let nlri = |(prefix, paths): (Prefix<A>, &'_ [Path])| {
                let paths = if key.ids[A::FAMILY] { paths } else { &paths[..1] };
                let differs = |path: &&Path| says(old, prefix, path) != says(key, prefix, path);
                let nlri = |path: &Path| key.nlri(prefix, path, world.names);
                paths.iter().filter(differs).map(nlri).collect::<Vec<_>>()
            };
            A::owed(owed).extend(A::table(world.rib).iter().flat_map(nlri));
        }
    }

    /// Takes a member out.
    pub(crate) fn leave(&mut self, member: PeerId) {
        self.joining.remove(&member);
        self.members.remove(&member);
        self.behind.remove(&member);
    }

    /// Takes a member out whose session goes on in another group; returns what it has not been told, or `None` when it
    /// was told nothing yet.
    pub(crate) fn hand_over(&mut self, member: PeerId) -> Option<Owed> {
        let unread = self.unread(member);
        self.joining.remove(&member);
        self.behind.remove(&member);
        let state = self.members.remove(&member)?;
        let mut owed = state.owed;
        let runs = state.backlog.iter().chain(&unread).enumerate();
        let taken = |at| if at == 0 { state.taken } else { 0 };
        owed.add_told(runs.flat_map(|(at, run)| run.messages(taken(at), member)), &self.key);
        Some(owed)
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

    /// Reports whether something waits for a member.
    pub(crate) fn waits_for(&self, member: PeerId) -> bool {
        let end = self.end();
        self.members
            .get(&member)
            .is_some_and(|m| !m.backlog.is_empty() || m.position.is_some_and(|position| position < end))
    }

    /// Appends a member's next messages to `out` until it holds `enough` octets; returns how many messages.
    pub(crate) fn take(&mut self, member: PeerId, out: &mut Vec<u8>, enough: usize) -> u64 {
        let Some(state) = self.members.get_mut(&member) else { return 0 };
        let mut count = 0;
        while out.len() < enough {
            let in_stream = |position: u64| self.stream.get((position - self.base) as usize);
            let Some(run) = state.backlog.front().or_else(|| state.position.and_then(in_stream)) else {
                break;
            };
            match run.message(state.taken, member) {
                Some(message) => {
                    state.taken += 1;
                    count += u64::from(!message.is_empty());
                    out.extend_from_slice(message);
                }
                None => {
                    state.taken = 0;
                    if state.backlog.pop_front().is_none() {
                        state.position = state.position.map(|position| position + 1);
                    }
                }
            }
        }
        count
    }

    fn end(&self) -> u64 {
        self.base + self.stream.len() as u64
    }

    /// Returns the runs of the stream that a member has not, or not wholly, taken.
    fn unread(&self, member: PeerId) -> Vec<Arc<Run>> {
        let Some(position) = self.members.get(&member).and_then(|m| m.position) else { return Vec::new() };
        self.stream.range((position - self.base) as usize..).cloned().collect()
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

    /// Lets members that were too slow go on with the stream once they have taken all they had.
    fn catch_up(&mut self, world: &World<'_>) {
        let end = self.end();
        self.behind.retain(|id| {
            let Some(member) = self.members.get_mut(id) else { return false };
            if !member.has_caught_up() {
                return true;
            }
            let owed = std::mem::take(&mut member.owed);
            let mut runs = Runs::default();
            stand(&self.key, *id, &owed.v4, world, &mut runs);
            stand(&self.key, *id, &owed.v6, world, &mut runs);
            member.backlog.extend(runs.finish());
            member.position = Some(end);
            false
        });
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
            let unread = self.unread(id);
            let is_new = !self.members.contains_key(&id);
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

    /// Drops what every member has, and leaves the slowest behind when the stream is too long.
    fn trim(&mut self) {
        loop {
            let reached = self.members.values().filter_map(|m| m.position).min().unwrap_or(self.end());
            while self.base < reached
                && let Some(run) = self.stream.pop_front()
            {
                self.stream_len -= run.len();
                self.base += 1;
            }
            if self.stream_len <= self.stream_limit {
                return;
            }
            for (id, member) in self.members.iter_mut().filter(|(_, m)| m.position == Some(self.base)) {
                member.position = None;
                self.behind.insert(*id);
                // It may be in the middle of the first run, unless it is still at its backlog.
                let taken = if member.backlog.is_empty() { std::mem::take(&mut member.taken) } else { 0 };
                let runs = self.stream.iter().enumerate();
                let taken = |at| if at == 0 { taken } else { 0 };
                member.owed.add_told(runs.flat_map(|(at, run)| run.messages(taken(at), *id)), &self.key);
            }
        }
    }
}

impl Member {
    fn has_caught_up(&self) -> bool {
        self.position.is_none() && self.backlog.is_empty()
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

/// Says how some destinations stand: announced to the member, or withdrawn.
fn stand<A: Grouped>(
    key: &GroupKey,
    member: PeerId,
    owed: &BTreeSet<Nlri<A>>,
    world: &World<'_>,
    runs: &mut Runs,
) {
    let mut draft = Draft::<A>::new();
    for nlri in owed {
        let mut told = key.told(nlri.prefix, A::table(world.rib).paths(nlri.prefix), world);
        let is_meant =
            |path: &Path| path.peer() != member && key.nlri(nlri.prefix, path, world.names) == *nlri;
        match told.find(|(path, _)| is_meant(path)) {
            Some(told) => draft.announce(told, *nlri),
            None => draft.withdraw(*nlri),
        }
    }
    draft.write(key, world, runs);
}

#[cfg(test)]
mod tests;
