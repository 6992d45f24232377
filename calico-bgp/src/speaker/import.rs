//! From UPDATE messages to the tables: what is refused, what is taken, and who has to hear of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use calico_model::{AsNumber, Cidr, Family};

use super::Speaker;
use super::config::{AsSets, Exchange, PeerConfig};
use super::feed::Fed;
use super::group::Group;
use super::journal::{Changes, Detail, Journal};
use super::peer::Peer;
use super::status::Counters;
use crate::filter::{ChangeId, Route, Teller, Verdict};
use crate::rib::{Choice, Effect, Path, PeerId, Tabled};
use crate::session::Peering;
use crate::wire::as_path::SegmentKind;
use crate::wire::attribute::{LLGR_STALE, NO_LLGR};
use crate::wire::open::Role;
use crate::wire::update::{MpReach, MpUnreach};
use crate::wire::{AsPath, Attributes, Nlri, Prefix, Prefixes, Update};

/// A family whose changes are taken down.
pub(super) trait Noted: Tabled {
    fn changes(journal: &mut Journal) -> &mut Changes<Self>;
}

impl Noted for Ipv4Addr {
    fn changes(journal: &mut Journal) -> &mut Changes<Self> {
        &mut journal.v4
    }
}

impl Noted for Ipv6Addr {
    fn changes(journal: &mut Journal) -> &mut Changes<Self> {
        &mut journal.v6
    }
}

/// The mark on routes that are about to go (RFC 8326).
const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;

/// Why a route is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("nobody said which routes of this peer are taken, and it is in another AS (RFC 8212)")]
    NothingIsTaken,
    #[error("our own AS {0} is in the path {1}")]
    OwnAs(AsNumber, AsPath),
    #[error("there is a set in the AS path {0} (RFC 9774)")]
    AsSet(AsPath),
    #[error("we brought the route into the AS ourselves")]
    OwnOriginator,
    #[error("it was reflected through our own cluster {0}")]
    OwnCluster(Ipv4Addr),
    #[error("the next hop {0} is our own address")]
    OwnNextHop(IpAddr),
    #[error("no packets can be sent to {0} by way of a router")]
    Unroutable(Cidr),
    #[error("it is for customers only and must not have come this way (RFC 9234)")]
    Leaked,
}

impl Refusal {
    /// Counts an UPDATE whose routes are not taken for this reason.
    fn count_update(&self, counters: &mut Counters) {
        counters.refused_in += 1;
        match self {
            Self::OwnAs(..) => counters.as_loops_in += 1,
            Self::OwnOriginator => counters.originator_loops_in += 1,
            Self::OwnCluster(_) => counters.cluster_loops_in += 1,
            Self::AsSet(_) => counters.treated_as_withdrawn_in += 1,
            Self::NothingIsTaken | Self::OwnNextHop(_) | Self::Unroutable(_) | Self::Leaked => {}
        }
    }

    /// Counts the prefixes of such an UPDATE.
    fn count_prefixes(&self, prefixes: u64, counters: &mut Counters) {
        match self {
            Self::OwnAs(..) | Self::OwnOriginator | Self::OwnCluster(_) => {}
            Self::AsSet(_) => counters.prefixes_treated_as_withdrawn_in += prefixes,
            Self::NothingIsTaken | Self::OwnNextHop(_) | Self::Unroutable(_) | Self::Leaked => {
                counters.rejected_in += prefixes;
            }
        }
    }
}

/// Reports whether a route must not have come this way (RFC 9234 section 5): a customer or a route server's client passes
/// on what is for customers only, or a peer what is not its own.
fn is_leaked(config: &PeerConfig, only_to_customer: Option<u32>) -> bool {
    match (config.role.filter(|_| config.peering() == Peering::External), only_to_customer) {
        (Some(Role::Provider | Role::RouteServer), Some(_)) => true,
        (Some(Role::Peer), Some(asn)) => asn != config.remote_as.get(),
        _ => false,
    }
}

impl Speaker {
    /// Takes the routes of an UPDATE.
    pub(super) fn import(&mut self, id: PeerId, update: Update<'_>) {
        let Some(up) = self.peers.get(&id).and_then(|peer| peer.up.as_ref()) else { return };
        let families = up.negotiated.families;
        if families.contains(Family::V4) {
            self.withdraw_all(id, &update.withdrawn);
        }
        match &update.mp_withdrawn {
            Some(MpUnreach::V4(list)) if families.contains(Family::V4) => self.withdraw_all(id, list),
            Some(MpUnreach::V6(list)) if families.contains(Family::V6) => self.withdraw_all(id, list),
            _ => {}
        }
        // The two kinds of announcement each have a next hop of their own, and all else in common.
        let (plain, mp) = match (update.attributes, &update.mp_announced) {
            (attributes, _) if update.announced.is_empty() => (None, attributes),
            (Some(attributes), Some(reach)) => {
                let mut mp = attributes.clone();
                mp.next_hop = reach.next_hop();
                (Some(attributes), Some(mp))
            }
            (attributes, _) => (attributes, None),
        };
        let mut refusal = None;
        if !update.announced.is_empty() && families.contains(Family::V4) {
            refusal = self.take_all(id, &update.announced, plain);
        }
        let of_mp = match &update.mp_announced {
            Some(MpReach::V4(list, _)) if families.contains(Family::V4) => self.take_all(id, list, mp),
            Some(MpReach::V6(list, _)) if families.contains(Family::V6) => self.take_all(id, list, mp),
            _ => None,
        };
        if let (Some(refusal), Some(peer)) = (refusal.or(of_mp), self.peers.get_mut(&id)) {
            refusal.count_update(&mut peer.counters);
            peer.last_refusal = Some(refusal);
        }
        if let Some(end) = update.end_of_rib.filter(|end| families.contains(end.0)) {
            self.end_of_rib(id, end.0);
        }
    }

    /// Says why routes with these attributes are not taken from a peer with these settings, if so.
    pub(super) fn refusal(
        &self,
        peer: &Peer,
        config: &PeerConfig,
        attributes: &Attributes,
    ) -> Option<Refusal> {
        let (extra, path) = (attributes.extra(), &attributes.as_path);
        // The only number that the peer knows us by, whatever the speaker's own is.
        let own = config.local_as;
        let is_loop = path.count(own) > usize::from(config.allow_own_as);
        let has_set = || path.segments().any(|segment| segment.kind == SegmentKind::Set);
        if config.import == Exchange::Unsaid && config.peering() == Peering::External {
            Some(Refusal::NothingIsTaken)
        } else if config.as_sets == AsSets::Refuse && has_set() {
            Some(Refusal::AsSet(path.clone()))
        } else if extra.originator_id == Some(self.config.router_id.addr()) {
            Some(Refusal::OwnOriginator)
        } else if extra.cluster_list.contains(&self.config.cluster()) {
            Some(Refusal::OwnCluster(self.config.cluster()))
        } else if config.other_next_hop == Some(attributes.next_hop)
            || peer.lines.values().any(|line| line.local == attributes.next_hop)
        {
            Some(Refusal::OwnNextHop(attributes.next_hop))
        } else if is_leaked(config, extra.only_to_customer) {
            Some(Refusal::Leaked)
        } else {
            // The last, since it alone may be of a rule's making.
            is_loop.then(|| Refusal::OwnAs(own, path.clone()))
        }
    }

    /// Puts on a route what is ours to say of one from another AS, and a LOCAL_PREF where a peer of the own AS owed it (RFC
    /// 4271 section 5.1.5), so that what others are told is what the route was chosen by.
    fn complete(&self, id: PeerId, attributes: &mut Attributes) {
        let Some(config) = self.peers.get(&id).map(|peer| &peer.config) else { return };
        let usual = config.default_local_pref.unwrap_or(self.config.default_local_pref);
        if config.peering() == Peering::Internal {
            attributes.local_pref.get_or_insert(usual);
            return;
        }
        let leaving = attributes.has_community(GRACEFUL_SHUTDOWN);
        attributes.local_pref = Some(if leaving { 0 } else { usual });
        let from_above = [Role::Customer, Role::Peer, Role::RouteServerClient].map(Some);
        if from_above.contains(&config.role) {
            let asn = config.remote_as.get();
            attributes.change_extra(|extra| {
                extra.only_to_customer.get_or_insert(asn);
            });
        }
    }

    fn withdraw_all<A: Fed>(&mut self, id: PeerId, list: &Prefixes<'_, A>) {
        self.withdraw_each(id, list.iter());
    }

    pub(super) fn withdraw_each<A: Fed>(&mut self, id: PeerId, list: impl Iterator<Item = Nlri<A>>) {
        let detail = self.detail();
        let mut held = 0;
        for nlri in list {
            held += self.withdraw_one(id, nlri, detail);
        }
        self.count::<A>(id, held);
    }

    fn withdraw_one<A: Fed>(&mut self, id: PeerId, nlri: Nlri<A>, detail: Option<Detail>) -> i32 {
        let table = A::table_mut(&mut self.tables.rib);
        let effect = table.remove(nlri.prefix, id, nlri.path_id, &self.tables.sources);
        let held = effect.held;
        self.take_down((id, nlri.path_id), nlri.prefix, effect, detail);
        held
    }

    /// Takes announced prefixes unless they are refused, and returns why; those, and those without attributes, are treated as
    /// withdrawn.
    fn take_all<A: Fed>(
        &mut self,
        id: PeerId,
        list: &Prefixes<'_, A>,
        attributes: Option<Attributes>,
    ) -> Option<Refusal> {
        let peer = self.peers.get(&id)?;
        let refusal = attributes.as_ref().and_then(|told| self.refusal(peer, &peer.config, told));
        if let (Some(mut attributes), None) = (attributes, &refusal) {
            self.complete(id, &mut attributes);
            return self.announce_all(id, list, &attributes);
        }
        self.withdraw_all(id, list);
        let prefixes = list.iter().count() as u64;
        let counters = &mut self.peers.get_mut(&id)?.counters;
        match &refusal {
            None => counters.prefixes_treated_as_withdrawn_in += prefixes,
            Some(why) => why.count_prefixes(prefixes, counters),
        }
        refusal
    }

    /// Takes announced prefixes one by one, and returns why one was not that no packets can be sent to: such a prefix is
    /// ignored (RFC 4271 section 6.3).
    fn announce_all<A: Fed>(
        &mut self,
        id: PeerId,
        list: &Prefixes<'_, A>,
        attributes: &Attributes,
    ) -> Option<Refusal> {
        self.hear_of(attributes.next_hop);
        let config = self.peers.get(&id).map(|peer| &peer.config)?;
        let (import, peering) = (config.import.clone(), config.peering());
        let mut changed = (ChangeId::NONE, self.interner.intern(attributes));
        let detail = self.detail();
        let (mut held, mut rejected, mut unroutable) = (0, 0, None);
        for nlri in list.iter() {
            if !nlri.prefix.is_routable() {
                rejected += 1;
                unroutable = Some(nlri.prefix);
                continue;
            }
            let route =
                || Route { prefix: nlri.prefix.cidr(), attributes: attributes.into(), teller: Teller::Peer };
            let Verdict::Pass(change) = import.decide(peering, route, &self.tables.own) else {
                rejected += 1;
                held += self.withdraw_one(id, nlri, detail);
                continue;
            };
            if change != changed.0 {
                let mut others = attributes.clone();
                import.apply(change, &mut others);
                changed = (change, self.interner.intern(&others));
            }
            let Some(attributes) = &changed.1 else {
                held += self.withdraw_one(id, nlri, detail);
                continue;
            };
            let path = Path::new(attributes.clone(), id, nlri.path_id);
            self.tables.names.give(id, nlri.path_id);
            let effect = A::table_mut(&mut self.tables.rib).insert(nlri.prefix, path, &self.tables.sources);
            held += effect.held;
            self.take_down((id, nlri.path_id), nlri.prefix, effect, detail);
        }
        self.count::<A>(id, held);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.counters.rejected_in += rejected;
        }
        unroutable.map(|prefix| Refusal::Unroutable(prefix.cidr()))
    }

    pub(super) fn note<A: Fed>(&mut self, id: PeerId, prefix: Prefix<A>, path_id: u32, effect: Effect) {
        self.count::<A>(id, effect.held);
        let detail = self.detail();
        self.take_down((id, path_id), prefix, effect, detail);
    }

    /// Counts paths that a peer told or took back.
    fn count<A: Noted>(&mut self, id: PeerId, held: i32) {
        if let Some(peer) = self.peers.get_mut(&id) {
            let all = &mut peer.held[A::FAMILY];
            *all = all.saturating_add_signed(held);
        }
    }

    /// Returns how much must be known of what changes. While nothing is told, nothing need be known of what was;
    /// whoever joins is told everything.
    fn detail(&self) -> Option<Detail> {
        let tells = self.deferral.is_none() && !self.groups.is_empty();
        let each = tells && self.groups.values().any(Group::tells_every_path);
        tells.then_some(if each { Detail::EachPath } else { Detail::BestPath })
    }

    fn take_down<A: Fed>(
        &mut self,
        path: (PeerId, u32),
        prefix: Prefix<A>,
        effect: Effect,
        detail: Option<Detail>,
    ) {
        if effect.choice == Choice::Same {
            return;
        }
        self.feed_change(path.0, Nlri { prefix, path_id: path.1 });
        self.asked.changed(prefix.cidr());
        self.forget_unreached(prefix, &effect);
        self.choice_changed |= effect.choice != Choice::SameOfMore;
        if let Some(detail) = detail {
            A::changes(&mut self.journal).note(prefix, path, effect, detail);
        }
    }

    pub(super) fn mark_stale(&mut self, family: Family, id: PeerId) {
        if self.peers.get(&id).is_some_and(|peer| peer.held[family] == 0) {
            return;
        }
        match family {
            Family::V4 => Ipv4Addr::table_mut(&mut self.tables.rib).mark_stale(id),
            Family::V6 => Ipv6Addr::table_mut(&mut self.tables.rib).mark_stale(id),
        }
    }

    /// Marks the stale paths of a peer as a last resort (RFC 9494 section 4.2); those that forbid it go.
    pub(super) fn make_long_lived(&mut self, family: Family, id: PeerId) {
        match family {
            Family::V4 => self.make_long_lived_of::<Ipv4Addr>(id),
            Family::V6 => self.make_long_lived_of::<Ipv6Addr>(id),
        }
        self.mark_stale(family, id);
    }

    fn make_long_lived_of<A: Fed>(&mut self, id: PeerId) {
        self.drop_paths_of::<A>(id, |path| path.attributes.attributes().has_community(NO_LLGR));
        let of_peer = |(prefix, paths): (Prefix<A>, &'_ [Path])| {
            let path =
                paths.iter().filter(|path| path.peer() == id && !path.attributes.is_long_lived_stale());
            path.map(|path| (prefix, path.clone())).collect::<Vec<_>>()
        };
        let paths: Vec<_> = A::table(&self.tables.rib).iter().flat_map(of_peer).collect();
        for (prefix, path) in paths {
            let mut attributes = path.attributes.attributes();
            attributes.change_extra(|extra| {
                extra.communities = extra.communities.iter().copied().chain([LLGR_STALE]).collect();
            });
            let table = A::table_mut(&mut self.tables.rib);
            let effect = match self.interner.intern(&attributes) {
                Some(marked) => {
                    table.insert(prefix, Path::new(marked, id, path.path_id), &self.tables.sources)
                }
                None => table.remove(prefix, id, path.path_id, &self.tables.sources),
            };
            self.note(id, prefix, path.path_id, effect);
        }
    }

    /// Takes out the paths of a peer that `goes` picks.
    pub(super) fn drop_paths(&mut self, family: Family, id: PeerId, goes: impl Fn(&Path) -> bool) {
        match family {
            Family::V4 => self.drop_paths_of::<Ipv4Addr>(id, goes),
            Family::V6 => self.drop_paths_of::<Ipv6Addr>(id, goes),
        }
    }

    fn drop_paths_of<A: Fed>(&mut self, id: PeerId, goes: impl Fn(&Path) -> bool) {
        if self.peers.get(&id).is_some_and(|peer| peer.held[A::FAMILY] == 0) {
            return;
        }
        for (prefix, path_id, effect) in
            A::table_mut(&mut self.tables.rib).remove_of(id, goes, &self.tables.sources)
        {
            self.note(id, prefix, path_id, effect);
        }
    }
}
