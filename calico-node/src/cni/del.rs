//! DEL: detach a container.

use std::path::Path;

use calico_model::datastore::client::{Client, ClientError};
use calico_model::resource::{Object, WorkloadEndpoint};

use super::add::revision;
use super::plugin::{Plugin, stored_endpoint};
use super::{CniError, Container, Identity, policed};
use crate::workload::{Netns, WorkloadError, unplug, unplug_host};

/// How often the deletion of an endpoint is tried while others write it.
const ATTEMPTS: usize = 5;

/// Detaches a container.
///
/// The interface goes first and the addresses last, once nothing has them any more: an address is never given out again
/// while its former workload can still use it. Whatever fails, the rest is tried, and a repeated DEL completes it.
pub(super) async fn del(
    plugin: &Plugin<'_>,
    container: &Container,
    netns: Option<&Path>,
) -> Result<(), CniError> {
    let mut errors = Vec::new();
    let found = match plugin.node_to_clean() {
        // What has no name on this node was never attached to it.
        Ok(node) => find(plugin, Identity::of(container, node).ok().as_ref()).await,
        Err(error) => Err(error),
    };
    let found = found.unwrap_or_else(|error| {
        errors.push(error);
        Found::Nothing
    });
    errors.extend(detach(container, netns).await.err());
    let held = matches!(found, Found::Other);
    if let Found::Own(client, endpoint) = found {
        errors.extend(remove(plugin, &client, *endpoint).await);
    }
    if errors.is_empty() && !held {
        errors.extend(release(plugin).await.err());
    }
    CniError::joined(errors).map_or(Ok(()), Err)
}

/// Has the IPAM plugin release the container's addresses.
pub(super) async fn release(plugin: &Plugin<'_>) -> Result<(), CniError> {
    plugin.ipam()?.command("DEL").await
}

/// What the datastore has of a container.
enum Found {
    /// The endpoint of the very interface.
    Own(Client, Box<Object<WorkloadEndpoint>>),
    /// Not that, but the endpoint of another interface, or of another name of this node, which has the addresses of the
    /// container's handle.
    Other,
    /// Nothing.
    Nothing,
}

async fn find(plugin: &Plugin<'_>, identity: Option<&Identity>) -> Result<Found, CniError> {
    let Some(identity) = identity else { return Ok(Found::Nothing) };
    let Some(client) = plugin.unlocked_datastore().await? else { return Ok(Found::Nothing) };
    let endpoint = stored_endpoint(&client, identity).await?;
    if let Some(endpoint) = endpoint.filter(|endpoint| is_own(identity, endpoint)) {
        return Ok(Found::Own(client, Box::new(endpoint)));
    }
    let endpoints = client.of::<WorkloadEndpoint>().list(Some(&identity.namespace())).await;
    let endpoints = endpoints.map_err(|error| CniError::datastore("list the workload endpoints", error))?;
    Ok(if endpoints.items.iter().any(|endpoint| is_own(identity, endpoint)) {
        Found::Other
    } else {
        Found::Nothing
    })
}

/// Removes what is left of an endpoint: the node's end, should it have outlived the container's, then the endpoint.
pub(super) async fn remove(
    plugin: &Plugin<'_>,
    client: &Client,
    endpoint: Object<WorkloadEndpoint>,
) -> Vec<CniError> {
    let mut errors = Vec::new();
    let interface = endpoint.spec.interface_name.clone();
    if let Some(interface) = &interface {
        errors.extend(unplug_host(interface).await.err().map(CniError::from));
    }
    errors.extend(delete(client, endpoint).await.err());
    if let Some(interface) = &interface {
        policed::forget(plugin, interface);
    }
    errors
}

fn is_own(identity: &Identity, endpoint: &Object<WorkloadEndpoint>) -> bool {
    endpoint.spec.container_id == identity.container().as_str()
}

async fn detach(container: &Container, netns: Option<&Path>) -> Result<(), CniError> {
    let Some(path) = netns else { return Ok(()) };
    match Netns::open(path) {
        Ok(netns) => {
            unplug(&container.interface, &netns).await?;
            Ok(())
        }
        // The namespace is gone and has taken the interface along, or the container never had one of its own.
        Err(
            WorkloadError::NoNamespace { .. }
            | WorkloadError::NotANamespace { .. }
            | WorkloadError::OwnNamespace { .. },
        ) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Deletes the endpoint as long as it is the same container's.
async fn delete(client: &Client, mut endpoint: Object<WorkloadEndpoint>) -> Result<(), CniError> {
    let (endpoints, id) = (client.of::<WorkloadEndpoint>(), endpoint.id());
    let failed = |error| CniError::datastore(format!("delete WorkloadEndpoint({id})"), error);
    let mut attempts = 0;
    loop {
        match endpoints.delete(&id, revision(&endpoint)).await {
            Ok(()) | Err(ClientError::NotFound { .. }) => return Ok(()),
            Err(ClientError::Conflict { .. }) if attempts < ATTEMPTS => attempts += 1,
            Err(error) => return Err(failed(error)),
        }
        match endpoints.get(&id).await {
            Ok(newest) if newest.spec.container_id == endpoint.spec.container_id => endpoint = newest,
            Ok(_) | Err(ClientError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
    }
}
