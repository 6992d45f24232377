//! The addresses of the nodes' own tunnel devices: assigned once, then kept.

use std::net::IpAddr;
use std::time::SystemTime;

use calico_model::resource::AllowedUse;
use calico_model::{Cidr, Family, NodeName};

use crate::error::{AccessError, AssignError, ReleaseError};
use crate::ipam::Ipam;
use crate::pool::PoolRef;
use crate::request::{AutoAssign, HandleUse, Release, Released};
use crate::retry::MAX_ATTEMPTS;

/// A tunnel device that has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TunnelKind {
    /// IP-in-IP.
    Ipip,
    /// VXLAN.
    Vxlan,
    /// VXLAN for IPv6.
    VxlanV6,
    /// WireGuard.
    Wireguard,
    /// WireGuard for IPv6.
    WireguardV6,
}

impl TunnelKind {
    /// Every kind.
    pub const ALL: [TunnelKind; 5] = [
        TunnelKind::Ipip,
        TunnelKind::Vxlan,
        TunnelKind::VxlanV6,
        TunnelKind::Wireguard,
        TunnelKind::WireguardV6,
    ];

    /// Returns the family of the address.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            TunnelKind::Ipip | TunnelKind::Vxlan | TunnelKind::Wireguard => Family::V4,
            TunnelKind::VxlanV6 | TunnelKind::WireguardV6 => Family::V6,
        }
    }

    /// Returns the handle that holds a node's address, such as `vxlan-tunnel-addr-node1`.
    #[must_use]
    pub fn handle(self, node: &NodeName) -> String {
        format!("{}-tunnel-addr-{node}", self.words().0)
    }

    /// Returns the handle's first word and the note `type` of the address.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            TunnelKind::Ipip => ("ipip", "ipipTunnelAddress"),
            TunnelKind::Vxlan => ("vxlan", "vxlanTunnelAddress"),
            TunnelKind::VxlanV6 => ("vxlan-v6", "vxlanV6TunnelAddress"),
            TunnelKind::Wireguard => ("wireguard", "wireguardTunnelAddress"),
            TunnelKind::WireguardV6 => ("wireguard-v6", "wireguardV6TunnelAddress"),
        }
    }
}

impl Ipam {
    /// Returns the address of a node's tunnel device; assigns one when there is none, or when the one there is lies
    /// outside the pools named. Two calls at once return the same address where there was none.
    ///
    /// Where no pool is named every pool that allows tunnels may serve, and any address is kept. The one outside the pools stays
    /// the node's until [`Ipam::release_other_tunnel_addresses`] gives it back: the others still lead by it, and there may be
    /// no other to be had.
    ///
    /// # Errors
    /// As for [`Ipam::auto_assign`].
    pub async fn tunnel_address(
        &self,
        node: &NodeName,
        kind: TunnelKind,
        pools: &[PoolRef],
        now: SystemTime,
    ) -> Result<IpAddr, AssignError> {
        let handle = kind.handle(node);
        let networks = self.networks(pools, now).await?;
        let mut attempts = self.attempts();
        for _ in 0..MAX_ATTEMPTS {
            let held = self.addrs_by_handle(&handle, now).await?;
            let fits = |addr: &IpAddr| pools.is_empty() || networks.iter().any(|net| net.contains(*addr));
            if let Some(addr) = held.iter().find(|addr| fits(addr)) {
                return Ok(*addr);
            }
            let mut request = AutoAssign::new(node.clone(), handle.clone());
            if held.is_empty() {
                request.handle_use = HandleUse::New;
                // A handle that a crash left counting what was never assigned must go before a new one can be made. Nothing is
                // released: another process of the node may have assigned the address since.
                let counts = self.read_handle(&handle).await?.value;
                for cidr in counts.iter().flat_map(|counts| counts.block.keys()) {
                    self.recount(&handle, cidr, now).await?;
                }
            }
            *request.count.of_mut(kind.family()) = 1;
            *request.pools.of_mut(kind.family()) = pools.to_vec();
            request.attributes.insert("type".to_owned(), kind.words().1.to_owned());
            request.intended_use = AllowedUse::Tunnel;
            match self.auto_assign(request, now).await {
                Ok(assigned) => {
                    if let Some(allocation) = assigned.allocations().next() {
                        return Ok(allocation.addr);
                    }
                }
                Err(AssignError::HandleInUse { .. }) => {}
                Err(error) => return Err(error),
            }
            attempts.pause().await;
        }
        let key = crate::ipam::key_of_handle(&handle)?;
        Err(AccessError::Contended { key, attempts: MAX_ATTEMPTS }.into())
    }

    /// Releases the address of a node's tunnel device, if it has one.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn release_tunnel_address(
        &self,
        node: &NodeName,
        kind: TunnelKind,
        now: SystemTime,
    ) -> Result<Released, ReleaseError> {
        self.release_by_handle(&kind.handle(node), now).await
    }

    /// Releases the addresses that a node's tunnel device had before the one it has now.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn release_other_tunnel_addresses(
        &self,
        node: &NodeName,
        kind: TunnelKind,
        kept: IpAddr,
        now: SystemTime,
    ) -> Result<Released, ReleaseError> {
        let handle = kind.handle(node);
        let others = self.addrs_by_handle(&handle, now).await?.into_iter().filter(|addr| *addr != kept);
        let release = |addr| Release { handle: Some(handle.clone()), ..Release::of(addr) };
        let releases: Vec<Release> = others.map(release).collect();
        self.release(&releases, now).await
    }

    async fn networks(&self, pools: &[PoolRef], now: SystemTime) -> Result<Vec<Cidr>, AccessError> {
        let settings = self.settings(now).await?;
        let named = pools.iter().filter_map(|wanted| match wanted {
            PoolRef::Cidr(cidr) => Some(*cidr),
            PoolRef::Name(name) => {
                let pool = settings.pools.iter().find(|pool| pool.metadata.name == *name)?;
                Some(pool.spec.cidr)
            }
        });
        Ok(named.collect())
    }
}
