//! DEL: detach a container.

use std::path::Path;

use calico_model::Revision;
use calico_model::datastore::client::{Client, ClientError};
use calico_model::resource::{Object, WorkloadEndpoint};

use super::plugin::{Plugin, Readiness, stored_endpoint};
use super::{CniError, Container, Identity};
use crate::workload::{Netns, WorkloadError, unplug, unplug_host};

/// How often the deletion of an endpoint is tried while others write it.
const ATTEMPTS: usize = 5;

/// Detaches a container: the interface first, so that an address is free only when nobody uses it any more. Goes on past
/// failures and returns them all.
pub(super) async fn del(
    plugin: &Plugin<'_>,
    container: &Container,
    netns: Option<&Path>,
) -> Result<(), CniError> {
    let mut errors = Vec::new();
    // What has no name on this node was never attached to it.
    let identity = plugin.node().ok().and_then(|node| Identity::of(container, node).ok());
    let own = own_endpoint(plugin, identity.as_ref()).await.unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    errors.extend(detach(container, netns).await.err());
    if let Some((client, identity, endpoint)) = &own {
        // The other end goes with the container's; what is left now has lost its namespace.
        errors.extend(unplug_host(&identity.host_interface()).await.err().map(CniError::from));
        errors.extend(delete(client, identity, endpoint.clone()).await.err());
    }
    let released = match plugin.ipam() {
        Ok(ipam) => ipam.command("DEL").await,
        Err(error) => Err(error),
    };
    errors.extend(released.err());
    CniError::joined(errors).map_or(Ok(()), Err)
}

type Own<'i> = (Client, &'i Identity, Object<WorkloadEndpoint>);

/// Finds the container's endpoint; `None` when it has none, or the endpoint is another container's by now.
async fn own_endpoint<'i>(
    plugin: &Plugin<'_>,
    identity: Option<&'i Identity>,
) -> Result<Option<Own<'i>>, CniError> {
    let Some(identity) = identity else { return Ok(None) };
    let Some(client) = plugin.datastore().await? else { return Ok(None) };
    if plugin.readiness(&client).await? == Readiness::Locked {
        let problem = "ClusterInformation says datastoreReady: false, as during an upgrade; try again later";
        return Err(CniError::NotReady { problem: problem.to_owned() });
    }
    let endpoint = stored_endpoint(&client, identity).await?;
    let own = endpoint.filter(|endpoint| is_own(identity, endpoint));
    Ok(own.map(|endpoint| (client, identity, endpoint)))
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

/// Deletes the endpoint as long as it is the container's.
async fn delete(
    client: &Client,
    identity: &Identity,
    mut endpoint: Object<WorkloadEndpoint>,
) -> Result<(), CniError> {
    let id = identity.id();
    let mut attempts = 0;
    loop {
        let revision = endpoint.metadata.resource_version.as_deref().and_then(|text| text.parse().ok());
        match client.of::<WorkloadEndpoint>().delete(&id, revision.map(Revision)).await {
            Ok(()) | Err(ClientError::NotFound { .. }) => return Ok(()),
            Err(ClientError::Conflict { .. }) if attempts < ATTEMPTS => attempts += 1,
            Err(error) => return Err(CniError::datastore(format!("delete WorkloadEndpoint({id})"), error)),
        }
        match stored_endpoint(client, identity).await? {
            Some(newest) if is_own(identity, &newest) => endpoint = newest,
            _ => return Ok(()),
        }
    }
}
