//! What the agent does in IPAM: the addresses of the node's own tunnel devices, made known in the Node, and upkeep.
//!
//! Upkeep is what no other process does in time: blocks that the node has of pools that do not select it any more are
//! given back once they are empty, and addresses that have cooled down in blocks nobody assigns from become free.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use calico_ipam::{AccessError, AffinityError, AssignError, Ipam, PoolRef, ReleaseError, TunnelKind};
use calico_model::datastore::client::{Client, ClientError};
use calico_model::datastore::{Backoff, Change};
use calico_model::resource::{AllowedUse, EncapMode, Node, ObjectId};
use calico_model::{Datastore, Family, Name, NodeName, Snapshot};
use calico_route::vxlan_mac;
use tokio::sync::watch;

use super::dataplane::with_causes;
use super::is_locked;
use crate::clock;
use crate::ipam::ipam;

/// The tunnels that the pools ask for, and what the node has for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Whether the datastore is in sync and not locked, and the node is in it; else nothing is kept.
    known: bool,
    /// The kinds that some pool asks for, be it disabled or for other nodes: workloads of it may live.
    kinds: BTreeSet<TunnelKind>,
    /// The pools of each kind of tunnel that may serve its address.
    pools: std::collections::BTreeMap<TunnelKind, BTreeSet<Name>>,
    /// The pools that do not select the node: blocks that it has of them are given back once they are empty.
    unselected: BTreeSet<Name>,
    /// The tunnel addresses that the Node tells.
    told: BTreeSet<(TunnelKind, IpAddr)>,
}

/// The kinds of tunnel that we keep; WireGuard's are left alone.
const KINDS: [TunnelKind; 3] = [TunnelKind::Ipip, TunnelKind::Vxlan, TunnelKind::VxlanV6];

impl Wanted {
    /// Works out what is wanted. Pure.
    pub(super) fn of(snapshot: &Snapshot, node: &NodeName) -> Self {
        let mut wanted = Self::default();
        let own = snapshot.nodes.get(&ObjectId::from(Name::from(node.clone())));
        let Some(own) = own.filter(|_| snapshot.in_sync && !is_locked(snapshot)) else { return wanted };
        wanted.known = true;
        let (selected, unselected): (Vec<_>, Vec<_>) =
            snapshot.pools.values().partition(|pool| pool.spec.node_selector.matches(&own.metadata.labels));
        wanted.kinds.extend(snapshot.pools.values().filter_map(|pool| kind_of(pool)));
        wanted.unselected.extend(unselected.iter().map(|pool| pool.metadata.name.clone()));
        for pool in selected.into_iter().filter(|pool| !pool.spec.disabled) {
            let serves = pool.spec.allowed_uses.contains(&AllowedUse::Tunnel);
            if let Some(kind) = kind_of(pool).filter(|_| serves) {
                wanted.pools.entry(kind).or_default().insert(pool.metadata.name.clone());
            }
        }
        wanted.told.extend(KINDS.iter().filter_map(|kind| Some((*kind, told(&own.spec, *kind)?))));
        wanted
    }
}

fn kind_of(pool: &calico_model::resource::Object<calico_model::resource::IpPool>) -> Option<TunnelKind> {
    let pool = &pool.spec;
    match (pool.cidr.family(), pool.vxlan_mode, pool.ipip_mode) {
        (Family::V4, EncapMode::Always | EncapMode::CrossSubnet, _) => Some(TunnelKind::Vxlan),
        (Family::V6, EncapMode::Always | EncapMode::CrossSubnet, _) => Some(TunnelKind::VxlanV6),
        (Family::V4, EncapMode::Never, EncapMode::Always | EncapMode::CrossSubnet) => Some(TunnelKind::Ipip),
        _ => None,
    }
}

fn told(node: &Node, kind: TunnelKind) -> Option<IpAddr> {
    match kind {
        TunnelKind::Ipip => node.bgp.as_ref()?.ipv4_ipip_tunnel_addr.map(IpAddr::V4),
        TunnelKind::Vxlan => node.ipv4_vxlan_tunnel_addr.map(IpAddr::V4),
        TunnelKind::VxlanV6 => node.ipv6_vxlan_tunnel_addr.map(IpAddr::V6),
        TunnelKind::Wireguard | TunnelKind::WireguardV6 | _ => None,
    }
}

/// The agent's end of the keeper.
pub(super) struct Tunnels {
    wanted: watch::Sender<Wanted>,
    problem: watch::Receiver<Option<String>>,
    ipam: Ipam,
}

impl Tunnels {
    /// Tells IPAM what the datastore says, so that it need not list blocks.
    pub(super) fn observe(&self, change: &Change, now: SystemTime) {
        self.ipam.observe(change, now);
    }

    /// Tells the keeper what is wanted now.
    pub(super) fn want(&self, newest: Wanted) {
        self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, newest.clone()) != newest);
    }

    /// Waits until there is another answer to [`Tunnels::problem`]. Cancel-safe.
    pub(super) async fn trouble(&mut self) {
        if self.problem.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns why a tunnel has no address, when one has none.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }
}

/// Upkeep comes at least this often, and at most twice as often: no two nodes are to meet each time.
const UPKEEP: Duration = Duration::from_secs(600);

/// Another try after a failure comes this late, and then twice as late each time up to the longest, unless something changes before.
const RETRY: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);

/// Starts the keeper, which ends with the runtime.
pub(super) fn spawn(node: NodeName, client: Client, store: Arc<dyn Datastore>, seed: u64) -> Tunnels {
    let (upkeep, retry) = (Backoff::new(seed, UPKEEP, UPKEEP), Backoff::new(seed, RETRY, LONGEST));
    spawn_with(node, client, store, upkeep, retry)
}

fn spawn_with(
    node: NodeName,
    client: Client,
    store: Arc<dyn Datastore>,
    mut upkeep: Backoff,
    mut retry: Backoff,
) -> Tunnels {
    let (wanted, mut newest) = watch::channel(Wanted::default());
    let (tell, problem) = watch::channel(None);
    let ipam = ipam(store);
    let keeper = Keeper { node, client, ipam: ipam.clone() };
    tokio::spawn(async move {
        let mut upkeep_due = clock::now();
        loop {
            let wanted = newest.borrow_and_update().clone();
            if !wanted.known {
                tell.send_if_modified(|told| told.take().is_some());
                upkeep_due = clock::now();
                if newest.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let mut outcome = keeper.keep_tunnels(&wanted, clock::wall()).await;
            // A tunnel that gets no address is tried again often; what costs a look at all blocks is not.
            if clock::now() >= upkeep_due {
                let kept = keeper.keep_blocks(&wanted, clock::wall()).await;
                // Where it fails, it is part of the next try.
                upkeep_due = clock::now() + if kept.is_ok() { upkeep.pause() } else { Duration::ZERO };
                outcome = outcome.and(kept);
            }
            let text = outcome.as_ref().err().map(|error| with_causes(error));
            tell.send_if_modified(|told| std::mem::replace(told, text.clone()) != text);
            let next = if outcome.is_err() {
                clock::now() + retry.pause()
            } else {
                retry.reset();
                upkeep_due
            };
            match tokio::time::timeout_at(next.into(), newest.changed()).await {
                Ok(Err(_)) => return,
                // What is selected may be others by now.
                Ok(Ok(())) => {
                    retry.reset();
                    upkeep_due = clock::now();
                }
                Err(_) => {}
            }
        }
    });
    Tunnels { wanted, problem, ipam }
}

/// A tunnel address that could not be kept.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("the node's {kind:?} tunnel has no address")]
    Assign {
        kind: TunnelKind,
        #[source]
        source: AssignError,
    },
    #[error("the node's {kind:?} tunnel address cannot be given back")]
    Release {
        kind: TunnelKind,
        #[source]
        source: ReleaseError,
    },
    #[error("the node's empty blocks of pools that do not select it cannot be given back")]
    GiveBack(#[source] AffinityError),
    #[error("addresses that have cooled down cannot be freed")]
    Thaw(#[source] AccessError),
    #[error("the node's tunnel addresses cannot be made known")]
    Tell(#[source] ClientError),
}

struct Keeper {
    node: NodeName,
    client: Client,
    ipam: Ipam,
}

impl Keeper {
    /// Keeps each tunnel's address, whatever becomes of the others'; of several failures the first is told.
    async fn keep_tunnels(&self, wanted: &Wanted, now: SystemTime) -> Result<(), KeepError> {
        let mut outcome = Ok(());
        for kind in KINDS {
            outcome = outcome.and(self.keep_tunnel(kind, wanted, now).await);
        }
        outcome
    }

    async fn keep_tunnel(&self, kind: TunnelKind, wanted: &Wanted, now: SystemTime) -> Result<(), KeepError> {
        let told = wanted.told.iter().find(|(of, _)| *of == kind).map(|(_, addr)| *addr);
        if let Some(pools) = wanted.pools.get(&kind) {
            let pools: Vec<PoolRef> = pools.iter().cloned().map(PoolRef::Name).collect();
            let assigned = self.ipam.tunnel_address(&self.node, kind, &pools, now).await;
            let addr = assigned.map_err(|source| KeepError::Assign { kind, source })?;
            if told != Some(addr) {
                tracing::info!(?kind, %addr, "tunnel address");
                self.tell(kind, Some(addr)).await?;
            }
            // Only now the Node tells of the former one no more.
            let released = self.ipam.release_other_tunnel_addresses(&self.node, kind, addr, now).await;
            return released.map(|_| ()).map_err(|source| KeepError::Release { kind, source });
        }
        // No pool serves a new address, and yet the one that there is carries the packets of workloads.
        if wanted.kinds.contains(&kind) {
            if told.is_none() {
                let held = self.ipam.addrs_by_handle(&kind.handle(&self.node), now).await;
                let held = held.map_err(|source| KeepError::Assign { kind, source: source.into() })?;
                if let Some(addr) = held.first() {
                    self.tell(kind, Some(*addr)).await?;
                }
            }
            return Ok(());
        }
        // First nobody uses it any more, then it is given back, also where an earlier try came only half the way.
        if told.is_some() {
            self.tell(kind, None).await?;
        }
        let released = self.ipam.release_tunnel_address(&self.node, kind, now).await;
        released.map(|_| ()).map_err(|source| KeepError::Release { kind, source })
    }

    async fn keep_blocks(&self, wanted: &Wanted, now: SystemTime) -> Result<(), KeepError> {
        if !wanted.unselected.is_empty() {
            let given_back = self.ipam.release_unselected_affinities(&self.node, now).await;
            for block in given_back.map_err(KeepError::GiveBack)? {
                tracing::info!(%block, "an empty block of a pool that does not select the node is given back");
            }
        }
        let freed = self.ipam.free_cooled(now).await.map_err(KeepError::Thaw)?;
        if freed > 0 {
            tracing::debug!(freed, "addresses have cooled down");
        }
        Ok(())
    }

    async fn tell(&self, kind: TunnelKind, addr: Option<IpAddr>) -> Result<(), KeepError> {
        let id = ObjectId::from(Name::from(self.node.clone()));
        let (v4, v6) = match addr {
            Some(IpAddr::V4(v4)) => (Some(v4), None),
            Some(IpAddr::V6(v6)) => (None, Some(v6)),
            None => (None, None),
        };
        let mac = |family| addr.map(|_| vxlan_mac(&self.node, family));
        let write = |_: &mut _, node: &mut Node| match kind {
            TunnelKind::Vxlan => {
                node.ipv4_vxlan_tunnel_addr = v4;
                node.vxlan_tunnel_mac = mac(Family::V4);
            }
            TunnelKind::VxlanV6 => {
                node.ipv6_vxlan_tunnel_addr = v6;
                node.vxlan_tunnel_mac_v6 = mac(Family::V6);
            }
            TunnelKind::Ipip => {
                if let Some(bgp) = &mut node.bgp {
                    bgp.ipv4_ipip_tunnel_addr = v4;
                }
            }
            TunnelKind::Wireguard | TunnelKind::WireguardV6 | _ => {}
        };
        self.client.of::<Node>().modify(&id, write).await.map(|_| ()).map_err(KeepError::Tell)
    }
}

#[cfg(test)]
mod tests;
