//! What a group of peers is told of a path, if anything (RFC 4271 section 9.2, RFC 4456, RFC 1997).

use std::net::IpAddr;

use calico_model::{AsNumber, Community, Family};

use super::config::{Exchange, NextHopMode, PeerConfig, Reflection};
use super::world::World;
use crate::decision::Source;
use crate::family::{FamilySet, PerFamily};
use crate::filter::{ChangeId, Route, Teller, Verdict};
use crate::rib::names::PathNames;
use crate::rib::{Packed, Path, PeerId};
use crate::session::{Negotiated, Peering};
use crate::wire::open::{Feature, Role};
use crate::wire::{Address, AsWidth, Attributes, Dialect, Nlri, PathIds, Prefix};

/// What peers must have in common to be told the same in the same words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    pub(crate) peering: Peering,
    pub(crate) reflection: Reflection,
    pub(crate) next_hop: NextHopMode,
    pub(crate) local_as: AsNumber,
    pub(crate) local: PerFamily<Option<IpAddr>>,
    pub(crate) families: FamilySet,
    pub(crate) narrow: bool,
    pub(crate) ids: PerFamily<bool>,
    /// Whether an IPv4 route may have an IPv6 next hop (RFC 8950).
    pub(crate) extended_next_hop: bool,
    /// Whether routes that are a last resort may be told (RFC 9494 section 4.3).
    pub(crate) long_lived: bool,
    pub(crate) max_len: usize,
    pub(crate) communities: Vec<Community>,
    pub(crate) export: Exchange,
    pub(crate) role: Option<Role>,
}

impl GroupKey {
    pub(super) fn dialect(&self) -> Dialect {
        let ids = PerFamily::new(|f| if self.ids[f] { PathIds::Present } else { PathIds::Absent });
        Dialect {
            as_width: if self.narrow { AsWidth::Two } else { AsWidth::Four },
            peering: self.peering,
            path_ids_in: ids,
            path_ids_out: ids,
            max_len_in: self.max_len,
            max_len_out: self.max_len,
        }
    }
}

impl GroupKey {
    /// Decides whether a path to a destination is told to this group, and with which change: first what the RFCs say
    /// (RFC 4271 section 9.2, RFC 4456 section 6, RFC 1997), then the policy.
    pub(super) fn telling<A: Address>(
        &self,
        prefix: Prefix<A>,
        path: &Path,
        world: &World<'_>,
    ) -> Option<ChangeId> {
        if !self.may_tell(path, world) {
            return None;
        }
        let ours = path.peer() == PeerId::LOCAL;
        let route = || Route {
            prefix: prefix.cidr(),
            attributes: (&*path.attributes).into(),
            teller: if ours { Teller::Ourselves } else { Teller::Peer },
        };
        match self.export.decide(self.peering, route, world.own) {
            Verdict::Pass(change) => Some(change),
            Verdict::LeaveOut => None,
        }
    }

    fn may_tell(&self, path: &Path, world: &World<'_>) -> bool {
        let attributes = &path.attributes;
        if attributes.is_for_nobody() || !world.sources.reaches(path) {
            return false;
        }
        if attributes.is_long_lived_stale() && !self.long_lived {
            return false;
        }
        // What came from a provider, a peer or a route server goes to customers only (RFC 9234 section 5).
        let upwards = matches!(self.role, Some(Role::Customer | Role::Peer | Role::RouteServerClient));
        if upwards && attributes.is_for_customers() {
            return false;
        }
        match self.peering {
            Peering::External => !attributes.is_for_own_as(),
            Peering::Internal => {
                path.peer() == PeerId::LOCAL
                    || world.sources.get(path.peer()).is_some_and(|s| s.peering == Peering::External)
                    || self.reflection == Reflection::Client
                    || world.clients.contains(&path.peer())
            }
        }
    }

    /// Picks the paths of a destination, the best one first, that the group is told, with the change of each.
    pub(super) fn told<'p, A: Address>(
        &'p self,
        prefix: Prefix<A>,
        paths: &'p [Path],
        world: &'p World<'_>,
    ) -> impl Iterator<Item = (&'p Path, ChangeId)> {
        let candidates = if self.ids[A::FAMILY] { paths } else { &paths[..paths.len().min(1)] };
        candidates.iter().filter_map(move |path| Some((path, self.telling(prefix, path, world)?)))
    }

    /// Names a path as the group knows it.
    pub(super) fn nlri<A: Address>(&self, prefix: Prefix<A>, path: &Path, names: &PathNames) -> Nlri<A> {
        let path_id = if self.ids[A::FAMILY] { names.of(path) } else { 0 };
        Nlri { prefix, path_id }
    }

    /// Makes attributes fit for the group, or `None` when there is no next hop to tell.
    pub(super) fn fit(
        &self,
        attributes: &Packed,
        family: Family,
        (source, change): (PeerId, ChangeId),
        world: &World<'_>,
    ) -> Option<Attributes> {
        let mut fit = attributes.attributes();
        self.export.apply(change, &mut fit);
        let from: Option<&Source> = world.sources.get(source).filter(|_| source != PeerId::LOCAL);
        let reflected =
            self.peering == Peering::Internal && from.is_some_and(|s| s.peering == Peering::Internal);
        let own = match self.next_hop {
            _ if fit.next_hop.is_unspecified() => true,
            NextHopMode::Keep => false,
            NextHopMode::Own => true,
            NextHopMode::Auto => self.peering == Peering::External,
        };
        if own {
            fit.next_hop = self.local[family]?;
        }
        if Family::of(fit.next_hop) != family && !(family == Family::V4 && self.extended_next_hop) {
            return None;
        }
        fit.add_communities(&self.communities);
        match self.peering {
            Peering::External => {
                fit.as_path = fit.as_path.prepend(self.local_as);
                fit.local_pref = None;
                if from.is_some() {
                    fit.med = None;
                }
                let downwards = matches!(self.role, Some(Role::Provider | Role::Peer | Role::RouteServer));
                fit.change_extra(|extra| {
                    extra.leave_as();
                    extra.originator_id = None;
                    extra.cluster_list = Box::default();
                    if downwards {
                        extra.only_to_customer.get_or_insert(self.local_as.get());
                    }
                });
            }
            Peering::Internal => {
                fit.local_pref = fit.local_pref.or(Some(world.default_local_pref));
            }
        }
        if let (true, Some(from)) = (reflected, from) {
            fit.change_extra(|extra| {
                extra.originator_id = extra.originator_id.or(Some(from.router_id.addr()));
                let mut list = vec![world.cluster];
                list.extend_from_slice(&extra.cluster_list);
                extra.cluster_list = list.into();
            });
        }
        Some(fit)
    }
}

/// Makes the key of the group a peer belongs to.
pub(crate) fn key_of(config: &PeerConfig, negotiated: &Negotiated, local: IpAddr) -> GroupKey {
    let dialect = negotiated.dialect;
    let extended_next_hop = negotiated.features.contains(&Feature::ExtendedNextHop);
    let of_family = |family| {
        let same =
            [Some(local), config.other_next_hop].into_iter().flatten().find(|a| Family::of(*a) == family);
        same.or(Some(local).filter(|_| family == Family::V4 && extended_next_hop))
    };
    GroupKey {
        peering: config.peering(),
        reflection: config.reflection,
        next_hop: config.next_hop,
        local_as: config.local_as,
        local: PerFamily::new(of_family),
        families: negotiated.families,
        narrow: dialect.as_width == AsWidth::Two,
        ids: PerFamily::new(|family| dialect.path_ids_out[family] == PathIds::Present),
        extended_next_hop,
        long_lived: negotiated.long_lived.is_some(),
        max_len: dialect.max_len_out,
        communities: config.add_communities.clone(),
        export: config.export.clone(),
        role: config.role.filter(|_| config.peering() == Peering::External),
    }
}
