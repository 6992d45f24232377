//! GC: clean up after containers that the runtime no longer knows.
//!
//! Only what is surely the network's is touched: endpoints of this node whose container holds addresses under the
//! network's handle or that have the network's profile, and handles of this network and node.

use std::collections::BTreeSet;
use std::time::SystemTime;

use calico_ipam::Ipam;
use calico_model::datastore::client::Client;
use calico_model::resource::block::handles_prefix;
use calico_model::resource::{Object, WorkloadEndpoint};

use super::del::remove;
use super::ipam::network_handle;
use super::plugin::Plugin;
use super::{CniError, Config};
use crate::ipam::ipam;

/// Removes the endpoints of containers that are no more, then has the IPAM plugin do its part. Goes on past failures and
/// returns them all.
pub(super) async fn calico(plugin: &Plugin<'_>, now: SystemTime) -> Result<(), CniError> {
    let valid = valid(plugin.config)?;
    let mut errors = Vec::new();
    if let Some(client) = plugin.unlocked_datastore().await? {
        let node = plugin.node()?;
        let ipam = ipam(client.store().clone());
        let listed = client.of::<WorkloadEndpoint>().list(None).await;
        let listed = listed.map_err(|error| CniError::datastore("list the workload endpoints", error))?;
        let gone = |endpoint: &Object<WorkloadEndpoint>| {
            let spec = &endpoint.spec;
            let orchestrated = matches!(spec.orchestrator.as_str(), "cni" | "k8s");
            let named = (spec.container_id.as_str(), spec.endpoint.as_str());
            spec.node == node && orchestrated && !named.0.is_empty() && !valid.contains(&named)
        };
        for endpoint in listed.items.into_iter().filter(gone) {
            match is_of_network(plugin.config, &ipam, &endpoint, now).await {
                Ok(true) => errors.extend(remove(plugin, &client, endpoint).await),
                Ok(false) => {}
                Err(error) => errors.push(error),
            }
        }
    }
    if errors.is_empty() {
        errors.extend(plugin.ipam()?.command("GC").await.err());
    }
    CniError::joined(errors).map_or(Ok(()), Err)
}

async fn is_of_network(
    config: &Config,
    ipam: &Ipam,
    endpoint: &Object<WorkloadEndpoint>,
    now: SystemTime,
) -> Result<bool, CniError> {
    if endpoint.spec.profiles.iter().any(|profile| profile.as_str() == config.network) {
        return Ok(true);
    }
    let handle = network_handle(config, &endpoint.spec.container_id);
    match ipam.addrs_by_handle(&handle, now).await {
        Ok(held) => Ok(endpoint.spec.ip_networks.iter().any(|net| held.contains(&net.addr()))),
        Err(source) => Err(CniError::Release { handle, source: Box::new(source) }),
    }
}

/// Releases the addresses of containers that are no more.
pub(super) async fn calico_ipam(plugin: &Plugin<'_>, now: SystemTime) -> Result<(), CniError> {
    let valid: BTreeSet<&str> = valid(plugin.config)?.into_iter().map(|(container, _)| container).collect();
    let Some(client) = plugin.unlocked_datastore().await? else { return Ok(()) };
    let ipam = ipam(client.store().clone());
    let mut errors = Vec::new();
    for handle in handles(plugin.config, &client).await? {
        let container = handle.rsplit_once('.').map_or(handle.as_str(), |(_, container)| container);
        if valid.contains(container) {
            continue;
        }
        let released = release_own(plugin, &ipam, &handle, now).await;
        errors.extend(released.err().map(|source| CniError::Release { handle, source }));
    }
    CniError::joined(errors).map_or(Ok(()), Err)
}

/// Lists the handles of the network. Those of containers whose ID has a dot are left out: they cannot be told from those
/// of a network whose name goes on with a dot.
async fn handles(config: &Config, client: &Client) -> Result<Vec<String>, CniError> {
    let prefix = handles_prefix();
    let listing = client.store().list(&prefix).await;
    let listing = listing.map_err(|error| CniError::datastore("list the handles", error.into()))?;
    let of_network =
        |handle: &&str| handle.rsplit_once('.').is_some_and(|(network, _)| network == config.network);
    let handles = listing.entries.iter().filter_map(|entry| entry.key.as_str().strip_prefix(prefix.as_str()));
    Ok(handles.filter(of_network).map(str::to_owned).collect())
}

/// Releases a handle when its addresses were given out on this node.
async fn release_own(
    plugin: &Plugin<'_>,
    ipam: &Ipam,
    handle: &str,
    now: SystemTime,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let node = plugin.node()?;
    for addr in ipam.addrs_by_handle(handle, now).await? {
        let assignment = ipam.attributes(addr, now).await?;
        let owner = assignment.and_then(|assignment| assignment.attributes.get("node").cloned());
        if owner.as_deref() != Some(node.as_str()) {
            return Ok(());
        }
    }
    ipam.release_by_handle(handle, now).await?;
    Ok(())
}

/// The containers and interfaces that the runtime still has.
fn valid(config: &Config) -> Result<BTreeSet<(&str, &str)>, CniError> {
    let valid = config.valid_attachments.as_ref().ok_or_else(|| CniError::Config {
        key: "cni.dev/valid-attachments",
        problem: "is missing, and GC removes what it does not name".to_owned(),
    })?;
    Ok(valid.iter().map(|(container, interface)| (container.as_str(), interface.as_str())).collect())
}
