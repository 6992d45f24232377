//! CHECK and STATUS: is a container attached as it was, and could one be?

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use super::plugin::{Plugin, stored_endpoint};
use super::{CniError, Container, Identity, policed};
use crate::workload::{Netns, differences};

/// Says what is not as the ADD left it.
pub(super) async fn check(plugin: &Plugin<'_>, container: &Container, netns: &Path) -> Result<(), CniError> {
    let previous = plugin.config.previous.as_ref().ok_or_else(|| CniError::Config {
        key: "prevResult",
        problem: "is missing, and CHECK compares with it".to_owned(),
    })?;
    let identity = Identity::of(container, plugin.node()?)?;
    let mtu = plugin.mtu()?;
    let client = plugin.ready_datastore().await?;
    let Some(endpoint) = stored_endpoint(&client, &identity).await? else {
        let differences = vec![format!("WorkloadEndpoint({}) does not exist", identity.id())];
        return Err(CniError::Differs { differences });
    };
    let mut found = Vec::new();
    if endpoint.spec.container_id != identity.container().as_str() {
        let owner = &endpoint.spec.container_id;
        found.push(format!("WorkloadEndpoint({}) belongs to the container {owner}", identity.id()));
    }
    let told: BTreeSet<IpAddr> = previous.ips.iter().map(|ip| ip.addr.addr()).collect();
    let stored: BTreeSet<IpAddr> = endpoint.spec.ip_networks.iter().map(|net| net.addr()).collect();
    for addr in told.difference(&stored) {
        found.push(format!("WorkloadEndpoint({}) does not have the address {addr}", identity.id()));
    }
    for addr in stored.difference(&told) {
        found.push(format!(
            "WorkloadEndpoint({}) has the address {addr}, and prevResult has not",
            identity.id()
        ));
    }
    // The MTU file may have changed since; what the ADD told is what counts.
    let inner = previous.interfaces.iter().find(|interface| interface.sandbox.is_some());
    let mtu = inner.and_then(|interface| interface.mtu).or(mtu.filter(|_| plugin.config.mtu.is_some()));
    let attachment = identity.attachment(&endpoint, mtu, plugin.config);
    found.extend(differences(&attachment, &Netns::open(netns)?).await?);
    if !found.is_empty() {
        return Err(CniError::Differs { differences: found });
    }
    plugin.ipam()?.command("CHECK").await
}

/// Says whether an ADD could succeed.
pub(super) async fn status(plugin: &Plugin<'_>) -> Result<(), CniError> {
    let available = async {
        plugin.node()?;
        plugin.mtu()?;
        plugin.ready_datastore().await?;
        // Where it cannot be seen an ADD may still succeed: it goes by what the agent tells it of the endpoint.
        if matches!(policed::rules_in_force(), Ok(false)) {
            return Err(CniError::NoRules);
        }
        plugin.ipam()?.command("STATUS").await
    };
    available.await.map_err(CniError::unavailable)
}
