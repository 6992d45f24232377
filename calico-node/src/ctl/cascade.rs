//! What goes with a resource when it is deleted.
//!
//! A pool is closed and the blocks in it lose their hosts first, so that nobody assigns from it any more. A node takes
//! with it what only made sense on it: its endpoints and their addresses, its tunnels' addresses, its own settings, its
//! BGP peers and its guarded interfaces. Each step may be repeated: after a crash the same deletion goes on.

use std::sync::Arc;
use std::time::SystemTime;

use calico_ipam::{Ipam, Release, ReleaseError};
use calico_model::datastore::client::{Client, ClientError};
use calico_model::resource::{
    BgpConfiguration, BgpPeer, FelixConfiguration, HostEndpoint, IpPool, Kind, ObjectId, ResourceKey, Spec,
    WorkloadEndpoint,
};
use calico_model::{Cidr, Name, NodeName};

/// Something that goes with a resource and could not be removed; the resource is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CascadeError {
    /// Another resource could not be read, changed or deleted.
    #[error(transparent)]
    Client(#[from] ClientError),
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

/// Removes what goes with a resource, which can be deleted afterwards.
///
/// # Errors
/// At the first thing that cannot be removed.
#[expect(clippy::wildcard_enum_match_arm, reason = "nothing goes with the other kinds")]
pub async fn before_deletion(
    client: &Client,
    key: &ResourceKey,
    now: SystemTime,
) -> Result<(), CascadeError> {
    match key.kind {
        Kind::IpPool => close_pool(client, &key.id).await,
        Kind::Node => clear_node(client, &NodeName::from(key.id.name.clone()), now).await,
        Kind::WorkloadEndpoint => release_endpoint(client, &key.id, now).await,
        _ => Ok(()),
    }
}

async fn close_pool(client: &Client, id: &ObjectId) -> Result<(), CascadeError> {
    let closed = client.of::<IpPool>().modify(id, |_, pool| pool.disabled = true).await;
    match closed {
        // A pool that cannot be read serves nobody.
        Ok(_) | Err(ClientError::Invalid(_) | ClientError::Corrupt { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn release_endpoint(client: &Client, id: &ObjectId, now: SystemTime) -> Result<(), CascadeError> {
    let endpoint = match client.of::<WorkloadEndpoint>().get(id).await {
        Ok(endpoint) => endpoint,
        Err(ClientError::Invalid(_) | ClientError::Corrupt { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let releases: Vec<Release> = endpoint.spec.ip_networks.iter().map(Cidr::addr).map(Release::of).collect();
    let ipam = Ipam::new(Arc::clone(client.store()));
    let what = || format!("WorkloadEndpoint({id})");
    ipam.release(&releases, now).await.map_err(|source| CascadeError::Release { what: what(), source })?;
    Ok(())
}

async fn clear_node(client: &Client, node: &NodeName, now: SystemTime) -> Result<(), CascadeError> {
    for endpoint in client.of::<WorkloadEndpoint>().list(None).await?.items {
        if endpoint.spec.node == *node {
            release_endpoint(client, &endpoint.id(), now).await?;
            delete::<WorkloadEndpoint>(client, &endpoint.id()).await?;
        }
    }
    let ipam = Ipam::new(Arc::clone(client.store()));
    for tunnel in [
        "ipip-tunnel-addr",
        "vxlan-tunnel-addr",
        "vxlan-v6-tunnel-addr",
        "wireguard-tunnel-addr",
        "wireguard-v6-tunnel-addr",
    ] {
        let what = || format!("the tunnels of Node({node})");
        let released = ipam.release_by_handle(&format!("{tunnel}-{node}"), now).await;
        released.map_err(|source| CascadeError::Release { what: what(), source })?;
    }
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
