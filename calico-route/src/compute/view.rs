//! What is known as one node looks at it, with the look-ups that every part needs.

use std::net::IpAddr;

use calico_model::resource::{FelixConfiguration, ProgramClusterRoutes};
use calico_model::{Cidr, Family, LearnedRoutes, NodeName};

use super::Peering;
use super::known::{Known, Place, Site};
use crate::desired::Problem;
use crate::encap::Pools;
use crate::ownership::Ownership;

/// The metric of ordinary routes when the configuration names none.
const NORMAL_PRIORITY: u32 = 1024;
/// The metric of the route to a machine where it is active, while it migrates, when the configuration names none.
const ELEVATED_PRIORITY: u32 = 512;

pub(super) struct View<'k> {
    pub(super) known: &'k Known,
    pub(super) learned: &'k LearnedRoutes,
    pub(super) peering: &'k Peering,
    pub(super) own: Option<&'k Site>,
    pub(super) settings: FelixConfiguration,
    pub(super) pools: Pools<'k>,
    pub(super) ownership: Ownership,
}

impl<'k> View<'k> {
    pub(super) fn new(known: &'k Known, learned: &'k LearnedRoutes, peering: &'k Peering) -> Self {
        let settings = known.settings();
        Self {
            known,
            learned,
            peering,
            own: known.nodes.get(&known.node),
            ownership: Ownership::of(&settings),
            settings,
            pools: Pools::of(&known.rules),
        }
    }

    /// Walks everything that can be worked out; some of it twice, which gives the same.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        let addresses = self.known.claims.keys().chain(self.known.lent.keys());
        let prefixes = addresses.map(|addr| Cidr::host(*addr));
        prefixes
            .chain(self.known.blocks.keys().copied())
            .chain(self.learned.keys().copied())
            .chain(self.known.tunnel_addresses.keys().map(|addr| Cidr::host(*addr)))
            .chain(self.peering.gateways.keys().map(|peer| Cidr::host(*peer)))
            .map(Place::Prefix)
            .chain(self.known.interfaces.keys().cloned().map(Place::Interface))
            .chain(self.known.nodes.keys().cloned().map(Place::Peer))
    }

    /// Walks the families that are served.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> + use<> {
        let v6 = self.settings.ipv6_support.unwrap_or(true);
        Family::ALL.into_iter().filter(move |family| *family == Family::V4 || v6)
    }

    pub(super) fn serves(&self, family: Family) -> bool {
        self.families().any(|served| served == family)
    }

    /// Reports whether anything here has addresses of the family. IPv6 forwarding is not switched on for nothing: a
    /// host that forwards stops listening to router advertisements.
    pub(super) fn uses(&self, family: Family) -> bool {
        family == Family::V4
            || self.known.rules.pools.values().any(|pool| pool.spec.cidr.family() == family)
            || self.known.claims.keys().next_back().is_some_and(IpAddr::is_ipv6)
    }

    pub(super) fn priority(&self, family: Family) -> u32 {
        let setting = match family {
            Family::V4 => self.settings.ipv4_normal_route_priority,
            Family::V6 => self.settings.ipv6_normal_route_priority,
        };
        setting.unwrap_or(NORMAL_PRIORITY)
    }

    /// Returns the metric of the route to a destination on a node. While a machine migrates, both its nodes have routes to
    /// its address: that to where it is active wins, on both and on every other.
    pub(super) fn priority_to(&self, prefix: Cidr, node: &NodeName) -> u32 {
        let family = prefix.family();
        if !prefix.is_host() || self.known.moving_to(prefix.addr()) != Some(node) {
            return self.priority(family);
        }
        let setting = match family {
            Family::V4 => self.settings.ipv4_elevated_route_priority,
            Family::V6 => self.settings.ipv6_elevated_route_priority,
        };
        setting.unwrap_or(ELEVATED_PRIORITY)
    }

    pub(super) fn cluster_routes(&self) -> ProgramClusterRoutes {
        self.settings.program_cluster_routes.unwrap_or(ProgramClusterRoutes::IpipOnly)
    }

    pub(super) fn is_own(&self, addr: IpAddr) -> bool {
        let own = self.own.and_then(|own| own.side(Family::of(addr)).addr);
        own.is_some_and(|own| own.addr() == addr)
    }

    /// Reports whether an address is in the subnet of the node's own address, by the node's own prefix length.
    pub(super) fn is_same_subnet(&self, addr: IpAddr) -> bool {
        let own = self.own.and_then(|own| own.side(Family::of(addr)).addr);
        own.is_some_and(|own| own.subnet().contains(addr))
    }

    /// Returns the node that has an address; of several, the last by name.
    pub(super) fn node_at(&self, addr: IpAddr) -> Option<&'k NodeName> {
        self.known.node_addresses.get(&addr)?.last()
    }

    /// Says which node a route to a block would cut off, because its address is in there: one other than this, whose own
    /// addresses are found before all routes.
    pub(super) fn cuts_off(&self, block: Cidr) -> Option<Problem> {
        let mut inside = self.known.node_addresses.range(block.addr()..=block.last());
        inside.find_map(|(address, names)| {
            let node = names.iter().find(|name| **name != self.known.node)?.clone();
            Some(Problem::BlockHoldsNode { block, node, address: *address })
        })
    }
}
