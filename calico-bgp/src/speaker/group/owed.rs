//! Destinations of which members are told how they stand, because they have missed what was said of them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Grouped;
use super::walk::Piece;
use crate::rib::{Path, PeerId};
use crate::speaker::draft::Draft;
use crate::speaker::export::GroupKey;
use crate::speaker::run::Run;
use crate::speaker::world::World;
use crate::wire::update::{MpReach, MpUnreach};
use crate::wire::{self, MessageType, Nlri, Update};

/// Destinations, by family.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owed {
    pub(super) v4: BTreeSet<Nlri<Ipv4Addr>>,
    pub(super) v6: BTreeSet<Nlri<Ipv6Addr>>,
}

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    pub(super) fn add(&mut self, other: &Owed) {
        self.v4.extend(&other.v4);
        self.v6.extend(&other.v6);
    }

    /// Adds everything that was told in some messages, whoever they were for.
    pub(super) fn add_told<'r>(&mut self, runs: impl Iterator<Item = &'r Run>, key: &GroupKey) {
        for message in runs.flat_map(Run::all) {
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

/// Says how the next destinations stand, as many as are left to tell: announced, or withdrawn.
pub(super) fn stand<A: Grouped>(
    key: &GroupKey,
    owed: &mut BTreeSet<Nlri<A>>,
    world: &World<'_>,
    left: &mut Piece,
) -> Draft<A> {
    let mut draft = Draft::<A>::new();
    while left.destinations > 0
        && draft.octets() < left.octets
        && let Some(nlri) = owed.pop_first()
    {
        left.destinations -= 1;
        let mut told = key.told(nlri.prefix, A::table(world.rib).paths(nlri.prefix), world);
        let is_meant = |path: &Path| key.nlri(nlri.prefix, path, world.names) == nlri;
        match told.find(|(path, _)| is_meant(path)) {
            Some(told) => {
                // Who told it is not told it, but may have been told another's.
                let teller = told.0.peer();
                if !key.ids[A::FAMILY] && teller != PeerId::LOCAL {
                    draft.withdraw_from(teller, nlri);
                }
                draft.announce(told, nlri);
            }
            None => draft.withdraw(nlri),
        }
    }
    draft
}
