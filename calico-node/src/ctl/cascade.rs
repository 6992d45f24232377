//! What goes with a resource when it is deleted.
//!
//! A pool is closed first, so that nobody assigns from it any more once all have read that, and its blocks are taken back,
//! which must be empty: a pool with addresses in use stays, closed. A node takes with it what only made sense on it: its endpoints and their addresses, its tunnels' addresses, its blocks, its own
//! settings, its BGP peers and its guarded interfaces. Each step may be repeated: after a crash the same deletion goes on.

use std::sync::Arc;
use std::time::SystemTime;

use calico_ipam::{AffinityError, Assignment, Release, ReleaseError, SETTINGS_MAX_AGE, TunnelKind};
use calico_model::datastore::client::{Client, ClientError};
use calico_model::resource::{
    BgpConfiguration, BgpPeer, FelixConfiguration, HostEndpoint, IpPool, Kind, ObjectId, ResourceKey, Spec,
    WorkloadEndpoint,
};
use calico_model::{Cidr, Name, NodeName, Revision};

/// Something that goes with a resource and could not be removed; the resource is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CascadeError {
    /// Another resource could not be read, changed or deleted.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A pool's blocks could not be taken back, so that the pool stays, closed.
    #[error("IPPool({pool}) takes no new addresses any more, but cannot be deleted yet")]
    Pool {
        /// The pool.
        pool: ObjectId,
        /// Why.
        #[source]
        source: AffinityError,
    },
    /// A node's blocks could not be taken back.
    #[error("the blocks of Node({node}) cannot be taken back")]
    Blocks {
        /// The node.
        node: NodeName,
        /// Why.
        #[source]
        source: AffinityError,
    },
    /// Addresses could not be released.
    #[error("the addresses of {what} cannot be released")]
    Release {
        /// Whose.
        what: String,
        /// Why.
        #[source]
        source: ReleaseError,
    },
}

/// Removes what goes with a resource, which can be deleted afterwards. With a revision, only while that is the newest; then
/// the revision is returned at which the resource is to be deleted.
///
/// # Errors
/// [`ClientError::Conflict`] before anything is removed, when the revision is stale; otherwise at the first thing that
/// cannot be removed.
#[expect(clippy::wildcard_enum_match_arm, reason = "nothing goes with the other kinds")]
pub async fn before_deletion(
    client: &Client,
    key: &ResourceKey,
    at: Option<Revision>,
    now: SystemTime,
) -> Result<Option<Revision>, CascadeError> {
    if let Some(at) = at {
        let newest = match client.get(key).await {
            Ok(document) => revision(document.metadata("resourceVersion")),
            // Whether it is the newest is seen when it is deleted.
            Err(ClientError::Corrupt { .. }) => Some(at),
            Err(error) => return Err(error.into()),
        };
        if newest != Some(at) {
            return Err(ClientError::Conflict { key: key.clone() }.into());
        }
    }
    match key.kind {
        Kind::IpPool => return close_pool(client, &key.id, at, now).await,
        Kind::Node => clear_node(client, &NodeName::from(key.id.name.clone()), now).await?,
        Kind::WorkloadEndpoint => release_endpoint(client, &key.id, now).await?,
        _ => {}
    }
    Ok(at)
}

fn revision(resource_version: Option<&str>) -> Option<Revision> {
    resource_version?.parse().ok().map(Revision)
}

/// Closes a pool and takes its blocks back. Returns its new revision, if one was given.
async fn close_pool(
    client: &Client,
    id: &ObjectId,
    at: Option<Revision>,
    now: SystemTime,
) -> Result<Option<Revision>, CascadeError> {
    let pools = client.of::<IpPool>();
    let closed = match at {
        None => pools.modify(id, |_, pool| pool.disabled = true).await,
        Some(at) => match pools.get(id).await {
            Ok(mut pool) => {
                pool.metadata.resource_version = Some(at.0.to_string());
                if std::mem::replace(&mut pool.spec.disabled, true) {
                    Ok(pool)
                } else {
                    pools.update(pool).await
                }
            }
            Err(error) => Err(error),
        },
    };
    let closed = match closed {
        Ok(pool) => pool,
        // A pool that cannot be read serves nobody.
        Err(ClientError::Invalid(_) | ClientError::Corrupt { .. }) => return Ok(at),
        Err(error) => return Err(error.into()),
    };
    // Whoever assigns may go by what it has read before; a block that is empty now need not be so then.
    tokio::time::sleep(SETTINGS_MAX_AGE * 2).await;
    let ipam = crate::ipam::ipam(Arc::clone(client.store()));
    let taken = ipam.release_pool_affinities(&closed.spec.cidr, now).await;
    taken.map_err(|source| CascadeError::Pool { pool: id.clone(), source })?;
    Ok(at.and(revision(closed.metadata.resource_version.as_deref())))
}

async fn release_endpoint(client: &Client, id: &ObjectId, now: SystemTime) -> Result<(), CascadeError> {
    let endpoint = match client.of::<WorkloadEndpoint>().get(id).await {
        Ok(endpoint) => endpoint,
        Err(ClientError::Invalid(_) | ClientError::Corrupt { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let what = || format!("WorkloadEndpoint({id})");
    let ipam = crate::ipam::ipam(Arc::clone(client.store()));
    let mut releases = Vec::new();
    for addr in endpoint.spec.ip_networks.iter().map(Cidr::addr) {
        let held = ipam.attributes(addr, now).await;
        let held = held.map_err(|source| CascadeError::Release { what: what(), source: source.into() })?;
        releases.extend(held.filter(|held| is_of(held, &endpoint.spec)).map(|held| Release {
            addr,
            handle: held.handle,
            sequence: held.sequence,
        }));
    }
    ipam.release(&releases, now).await.map_err(|source| CascadeError::Release { what: what(), source })?;
    Ok(())
}

/// Whether an address is held for this endpoint, and not for another that has it by now.
fn is_of(held: &Assignment, endpoint: &WorkloadEndpoint) -> bool {
    let node = held.attributes.get("node").is_none_or(|node| node == endpoint.node.as_str());
    let handle = held.handle.as_deref().unwrap_or_default();
    node && (endpoint.container_id.is_empty() || handle.ends_with(&endpoint.container_id))
}

async fn clear_node(client: &Client, node: &NodeName, now: SystemTime) -> Result<(), CascadeError> {
    for endpoint in client.of::<WorkloadEndpoint>().list(None).await?.items {
        if endpoint.spec.node == *node {
            release_endpoint(client, &endpoint.id(), now).await?;
            delete::<WorkloadEndpoint>(client, &endpoint.id()).await?;
        }
    }
    let ipam = crate::ipam::ipam(Arc::clone(client.store()));
    for tunnel in TunnelKind::ALL {
        let what = || format!("the tunnels of Node({node})");
        let released = ipam.release_tunnel_address(node, tunnel, now).await;
        released.map_err(|source| CascadeError::Release { what: what(), source })?;
    }
    let taken = ipam.remove_host(node, now).await;
    taken.map_err(|source| CascadeError::Blocks { node: node.clone(), source })?;
    for endpoint in client.of::<HostEndpoint>().list(None).await?.items {
        if endpoint.spec.node == *node {
            delete::<HostEndpoint>(client, &endpoint.id()).await?;
        }
    }
    for peer in client.of::<BgpPeer>().list(None).await?.items {
        if peer.spec.node.as_ref() == Some(node) {
            delete::<BgpPeer>(client, &peer.id()).await?;
        }
    }
    if let Ok(own) = format!("node.{node}").parse::<Name>() {
        delete::<FelixConfiguration>(client, &own.clone().into()).await?;
        delete::<BgpConfiguration>(client, &own.into()).await?;
    }
    Ok(())
}

/// Deletes an object that may be gone already.
async fn delete<S: Spec>(client: &Client, id: &ObjectId) -> Result<(), CascadeError> {
    match client.of::<S>().delete(id, None).await {
        Ok(()) | Err(ClientError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use calico_ipam::{AutoAssign, Ipam};
    use calico_model::MemoryStore;
    use calico_model::resource::block::{all_affinities_prefixes, all_blocks_prefix};
    use calico_model::resource::{Node, Object};

    use super::*;

    async fn cluster() -> (Client, Ipam) {
        let client = Client::new(Arc::new(MemoryStore::new()), crate::stamp::stamp);
        let pool = IpPool::new("10.0.0.0/24".parse().unwrap());
        client.of::<IpPool>().create(Object::new("p".parse().unwrap(), pool)).await.unwrap();
        client.of::<Node>().create(Object::new("n1".parse().unwrap(), Node::new())).await.unwrap();
        let ipam = crate::ipam::ipam(Arc::clone(client.store()));
        let mut request = AutoAssign::new("n1".parse().unwrap(), "vxlan-tunnel-addr-n1");
        request.count.v4 = 1;
        ipam.auto_assign(request, UNIX_EPOCH).await.unwrap();
        (client, ipam)
    }

    fn key(kind: Kind, name: &str) -> ResourceKey {
        ResourceKey { kind, id: name.parse::<Name>().unwrap().into() }
    }

    async fn keys_in_ipam(client: &Client) -> usize {
        let [hosts, others] = all_affinities_prefixes();
        let mut count = 0;
        for prefix in [all_blocks_prefix(), hosts, others] {
            count += client.store().list(&prefix).await.unwrap().entries.len();
        }
        count
    }

    #[tokio::test]
    async fn a_pool_in_use_is_closed_and_goes_once_its_addresses_are_released() {
        let (client, ipam) = cluster().await;
        let pool = key(Kind::IpPool, "p");
        let refused = before_deletion(&client, &pool, None, UNIX_EPOCH).await.unwrap_err();
        assert!(matches!(refused, CascadeError::Pool { .. }), "{refused}");
        assert!(client.of::<IpPool>().get(&pool.id).await.unwrap().spec.disabled);
        ipam.release_by_handle("vxlan-tunnel-addr-n1", UNIX_EPOCH).await.unwrap();
        before_deletion(&client, &pool, None, UNIX_EPOCH).await.unwrap();
        assert_eq!(keys_in_ipam(&client).await, 0);
    }

    #[tokio::test]
    async fn a_node_gives_back_its_tunnel_address_and_its_blocks() {
        let (client, _) = cluster().await;
        before_deletion(&client, &key(Kind::Node, "n1"), None, UNIX_EPOCH).await.unwrap();
        assert_eq!(keys_in_ipam(&client).await, 0);
    }
}
