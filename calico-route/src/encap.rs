//! How packets to the addresses of a pool travel between two nodes.

use calico_model::resource::{EncapMode, IpPool, Object, ProgramClusterRoutes};
use calico_model::{Cidr, Snapshot};

use crate::device::Tunnel;

/// What a pool says of the packets to its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encap {
    /// They are never wrapped.
    None,
    /// They are wrapped: always, or only between subnets.
    In(Tunnel, Scope),
}

/// Between which nodes packets are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All.
    Always,
    /// Nodes of different subnets.
    CrossSubnet,
}

impl Encap {
    /// Reads a pool.
    #[must_use]
    pub fn of(pool: &IpPool) -> Self {
        let scope = |mode| match mode {
            EncapMode::Never => None,
            EncapMode::Always => Some(Scope::Always),
            EncapMode::CrossSubnet => Some(Scope::CrossSubnet),
        };
        if let Some(scope) = scope(pool.vxlan_mode) {
            return Encap::In(Tunnel::Vxlan(pool.cidr.family()), scope);
        }
        scope(pool.ipip_mode).map_or(Encap::None, |scope| Encap::In(Tunnel::Ipip, scope))
    }

    /// Reports who writes the routes to remote blocks of such pools: VXLAN's always come from the datastore, the others
    /// as the one setting says.
    #[must_use]
    pub fn source(self, setting: ProgramClusterRoutes) -> Source {
        let from_datastore = match self {
            Encap::In(Tunnel::Vxlan(_), _) => true,
            Encap::In(Tunnel::Ipip, _) => {
                matches!(setting, ProgramClusterRoutes::Enabled | ProgramClusterRoutes::IpipOnly)
            }
            Encap::None => {
                matches!(setting, ProgramClusterRoutes::Enabled | ProgramClusterRoutes::NoEncapOnly)
            }
        };
        if from_datastore { Source::Datastore } else { Source::Bgp }
    }

    fn precedence(self) -> u8 {
        match self {
            Encap::In(Tunnel::Vxlan(_), _) => 0,
            Encap::In(Tunnel::Ipip, _) => 1,
            Encap::None => 2,
        }
    }
}

/// Where the routes to remote blocks come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The blocks in the datastore.
    Datastore,
    /// What BGP peers announce.
    Bgp,
}

/// The pools with what they say, those that win where pools overlap first.
#[derive(Debug)]
pub(crate) struct Pools<'s>(Vec<(&'s Object<IpPool>, Encap)>);

impl<'s> Pools<'s> {
    pub(crate) fn of(snapshot: &'s Snapshot) -> Self {
        let mut pools: Vec<(&Object<IpPool>, Encap)> =
            snapshot.pools.values().map(|pool| (pool.as_ref(), Encap::of(&pool.spec))).collect();
        pools.sort_by_key(|(_, encap)| encap.precedence());
        Self(pools)
    }

    /// Returns what the pool that holds a network says of it.
    pub(crate) fn encap(&self, cidr: &Cidr) -> Option<Encap> {
        self.0.iter().find(|(pool, _)| pool.spec.cidr.covers(cidr)).map(|(_, encap)| *encap)
    }

    /// Reports whether a pool has its packets go through a tunnel between all nodes.
    pub(crate) fn always(&self, tunnel: Tunnel) -> bool {
        self.0.iter().any(|(_, encap)| *encap == Encap::In(tunnel, Scope::Always))
    }

    /// Walks the pools whose packets may go through a tunnel.
    pub(crate) fn with(&self, tunnel: Tunnel) -> impl Iterator<Item = &'s Object<IpPool>> {
        self.0
            .iter()
            .filter(move |(_, encap)| matches!(encap, Encap::In(its, _) if *its == tunnel))
            .map(|(pool, _)| *pool)
    }
}
