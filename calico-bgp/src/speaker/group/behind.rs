//! Members that are not in the stream: what they have missed, as destinations, and how they get back.
//!
//! A member that is too slow for the stream is remembered with the destinations it missed, and told how they stand once
//! it has taken what it was given: memory follows the number of destinations, not how often they change.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Group, Grouped, Member};
use crate::rib::{Path, PeerId};
use crate::speaker::draft::Draft;
use crate::speaker::export::{GroupKey, World};
use crate::speaker::run::Runs;
use crate::wire::update::{MpReach, MpUnreach};
use crate::wire::{self, MessageType, Nlri, Prefix, Update};

/// Destinations of which a member is told how they stand.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    pub(super) v4: BTreeSet<Nlri<Ipv4Addr>>,
    pub(super) v6: BTreeSet<Nlri<Ipv6Addr>>,
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

impl Group {
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

    /// Takes a member out whose session goes on in another group; returns what it has not been told, or `None` when it
    /// was told nothing yet.
    pub(crate) fn hand_over(&mut self, member: PeerId) -> Option<Owed> {
        self.joining.remove(&member);
        self.behind.remove(&member);
        let mut state = self.members.remove(&member)?;
        let mut owed = std::mem::take(&mut state.owed);
        let runs = state.backlog.iter().chain(self.unread(&state)).enumerate();
        let taken = |at| if at == 0 { state.taken } else { 0 };
        owed.add_told(runs.flat_map(|(at, run)| run.messages(taken(at), member)), &self.key);
        Some(owed)
    }

    /// Lets members that were too slow go on with the stream once they have taken all they had.
    pub(super) fn catch_up(&mut self, world: &World<'_>) {
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

    /// Drops what every member has, and leaves the slowest behind when the stream is too long.
    pub(super) fn trim(&mut self) {
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
