//! Everything that is told from, and what follows when something of it changes besides the routes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use super::Speaker;
use super::config::SpeakerConfig;
use super::journal::Journal;
use crate::decision::Sources;
use crate::filter::PrefixSet;
use crate::rib::names::PathNames;
use crate::rib::{PeerId, Rib};

/// Everything that is told from, and by which.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) rib: Rib,
    pub(super) sources: Sources,
    pub(super) names: PathNames,
    pub(super) clients: BTreeSet<PeerId>,
    /// The blocks of this node.
    pub(super) own: PrefixSet,
    pub(super) cluster: Ipv4Addr,
    pub(super) default_local_pref: u32,
}

impl Tables {
    pub(super) fn new(config: &SpeakerConfig) -> Self {
        Self {
            rib: Rib::default(),
            sources: Sources::default(),
            names: PathNames::default(),
            clients: BTreeSet::new(),
            own: PrefixSet::default(),
            cluster: config.cluster(),
            default_local_pref: config.default_local_pref,
        }
    }

    pub(super) fn world(&self) -> World<'_> {
        World {
            rib: &self.rib,
            sources: &self.sources,
            names: &self.names,
            clients: &self.clients,
            own: &self.own,
            cluster: self.cluster,
            default_local_pref: self.default_local_pref,
        }
    }
}

/// Everything that telling depends on besides the group.
#[derive(Clone, Copy)]
pub(crate) struct World<'w> {
    pub(crate) rib: &'w Rib,
    pub(crate) sources: &'w Sources,
    pub(crate) names: &'w PathNames,
    pub(crate) clients: &'w BTreeSet<PeerId>,
    pub(crate) own: &'w PrefixSet,
    pub(crate) cluster: Ipv4Addr,
    pub(crate) default_local_pref: u32,
}

/// Something that telling depends on, as it was.
#[derive(Debug)]
pub(super) enum Former {
    Sources(Sources),
    Clients(BTreeSet<PeerId>),
    Own(PrefixSet),
}

impl Former {
    /// Returns the world in which it still was as it was.
    fn in_place<'w>(&'w self, now: World<'w>) -> World<'w> {
        match self {
            Self::Sources(sources) => World { sources, ..now },
            Self::Clients(clients) => World { clients, ..now },
            Self::Own(own) => World { own, ..now },
        }
    }
}

impl Speaker {
    /// Changes something that telling depends on besides the routes, and tells what follows. `change` returns it as it was,
    /// and the destinations it matters to, which were told by what it was.
    pub(super) fn change_world(
        &mut self,
        change: impl FnOnce(&mut Tables) -> (Former, Journal),
        now: Instant,
    ) {
        self.tell_until_now(now);
        let (former, touched) = change(&mut self.tables);
        if self.deferral.is_some() || touched.is_empty() {
            return;
        }
        // Choices look at where paths came from and how their next hops stand, not at whom they may be told.
        self.choice_changed |= matches!(former, Former::Sources(_));
        let after = self.tables.world();
        let before = former.in_place(after);
        self.groups.values_mut().for_each(|group| group.round(&touched, &before, &after));
        self.wake_waiting(now);
    }
}
