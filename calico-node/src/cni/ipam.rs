//! The commands of `calico-ipam`: addresses from Calico's pools.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use calico_ipam::{AssignAddress, AssignError, AutoAssign, HandleUse, Ipam};
use calico_model::resource::AllowedUse;
use calico_model::{Family, Namespace, NodeName};

use super::plugin::Plugin;
use super::{AddResult, CniError, Config, Container};

/// Assigns the addresses of a container: those asked for, else one of each family that the configuration wants.
///
/// A container whose handle has addresses already gets the same again.
pub(super) async fn add(
    plugin: &Plugin<'_>,
    container: &Container,
    now: SystemTime,
) -> Result<AddResult, CniError> {
    let request = Assignment::of(plugin, container)?;
    let ipam = Ipam::new(plugin.ready_datastore().await?.store().clone());
    let held = ipam.addrs_by_handle(&request.handle, now).await;
    let held = held.map_err(|error| request.failed(error.into()))?;
    let assigned = if held.is_empty() { request.assign(&ipam, now).await } else { request.again(held) };
    assigned.map(AddResult::of_addresses)
}

/// Releases the addresses of a container. One that has none is fine.
pub(super) async fn del(plugin: &Plugin<'_>, container: &Container, now: SystemTime) -> Result<(), CniError> {
    let Some(client) = plugin.unlocked_datastore().await? else { return Ok(()) };
    let ipam = Ipam::new(client.store().clone());
    let mut errors = Vec::new();
    for handle in [handle(plugin, container), legacy_handle(container)] {
        let released = ipam.release_by_handle(&handle, now).await;
        errors.extend(released.err().map(|source| CniError::Release { handle, source: Box::new(source) }));
    }
    CniError::joined(errors).map_or(Ok(()), Err)
}

/// Says whether the container still has the addresses that it was given.
pub(super) async fn check(
    plugin: &Plugin<'_>,
    container: &Container,
    now: SystemTime,
) -> Result<(), CniError> {
    let request = Assignment::of(plugin, container)?;
    let ipam = Ipam::new(plugin.ready_datastore().await?.store().clone());
    let held = ipam.addrs_by_handle(&request.handle, now).await;
    let held = held.map_err(|error| request.failed(error.into()))?;
    let previous = plugin.config.previous.as_ref();
    let told = previous.iter().flat_map(|result| &result.ips).map(|ip| ip.addr.addr());
    let missing = told.filter(|addr| !held.contains(addr));
    let differences: Vec<String> =
        missing.map(|addr| format!("{} does not hold the address {addr}", request.handle)).collect();
    if differences.is_empty() { Ok(()) } else { Err(CniError::Differs { differences }) }
}

/// Says whether an ADD could succeed.
pub(super) async fn status(plugin: &Plugin<'_>) -> Result<(), CniError> {
    plugin.node()?;
    plugin.ready_datastore().await.map(drop)
}

fn handle(plugin: &Plugin<'_>, container: &Container) -> String {
    network_handle(plugin.config, container.id.as_str())
}

/// The handle of a container's addresses in a network.
pub(super) fn network_handle(config: &Config, container: &str) -> String {
    format!("{}.{container}", config.network)
}

/// The handle that Calico's plugins used before version 3.
fn legacy_handle(container: &Container) -> String {
    let args = &container.args;
    match args.value("K8S_POD_NAMESPACE").zip(args.value("K8S_POD_NAME")) {
        Some((namespace, pod)) => format!("{namespace}.{pod}"),
        None => container.id.to_string(),
    }
}

/// What a container is to be given.
struct Assignment<'a> {
    plugin: &'a Plugin<'a>,
    node: NodeName,
    handle: String,
    attributes: BTreeMap<String, String>,
    requested: Vec<IpAddr>,
}

impl<'a> Assignment<'a> {
    fn of(plugin: &'a Plugin<'a>, container: &Container) -> Result<Self, CniError> {
        let node = plugin.node()?;
        let mut attributes = BTreeMap::from([("node".to_owned(), node.to_string())]);
        let args = &container.args;
        if let Some((namespace, pod)) = args.value("K8S_POD_NAMESPACE").zip(args.value("K8S_POD_NAME")) {
            attributes.insert("namespace".to_owned(), namespace.to_owned());
            attributes.insert("pod".to_owned(), pod.to_owned());
        } else {
            attributes.insert("namespace".to_owned(), Namespace::default_namespace().to_string());
        }
        attributes.insert("timestamp".to_owned(), crate::stamp::stamp().created);
        let requested = plugin.config.ipam.requested_with(args)?;
        Ok(Self { plugin, node, handle: handle(plugin, container), attributes, requested })
    }

    fn failed(&self, source: AssignError) -> CniError {
        CniError::Assign { node: self.node.clone(), source: Box::new(source) }
    }

    /// Returns the addresses that the handle has, if they are what is asked for.
    fn again(&self, held: Vec<IpAddr>) -> Result<Vec<IpAddr>, CniError> {
        let in_use = || self.failed(AssignError::HandleInUse { handle: self.handle.clone() });
        let fits = if self.requested.is_empty() {
            let config = &self.plugin.config.ipam;
            let wanted = [(Family::V4, config.assign_ipv4), (Family::V6, config.assign_ipv6)];
            let count = |family| held.iter().filter(|addr| Family::of(**addr) == family).count();
            wanted.into_iter().all(|(family, wanted)| count(family) == usize::from(wanted))
        } else {
            held.len() == self.requested.len() && self.requested.iter().all(|addr| held.contains(addr))
        };
        if fits { Ok(held) } else { Err(in_use()) }
    }

    async fn assign(&self, ipam: &Ipam, now: SystemTime) -> Result<Vec<IpAddr>, CniError> {
        let assigned = if self.requested.is_empty() {
            self.assign_any(ipam, now).await
        } else {
            self.assign_requested(ipam, now).await
        };
        match assigned {
            Ok(addresses) => Ok(addresses),
            // Another ADD of the same container holds the handle's addresses, and keeps them.
            Err(error @ AssignError::HandleInUse { .. }) => Err(self.failed(error)),
            Err(error) => {
                let mut errors = vec![self.failed(error)];
                let handle = self.handle.clone();
                let released = ipam.release_by_handle(&handle, now).await;
                errors.extend(
                    released.err().map(|source| CniError::Release { handle, source: Box::new(source) }),
                );
                Err(CniError::joined(errors).expect("there is at least the first error"))
            }
        }
    }

    async fn assign_any(&self, ipam: &Ipam, now: SystemTime) -> Result<Vec<IpAddr>, AssignError> {
        let config = &self.plugin.config.ipam;
        let mut request = AutoAssign::new(self.node.clone(), &self.handle);
        request.attributes = self.attributes.clone();
        request.count.v4 = usize::from(config.assign_ipv4);
        request.count.v6 = usize::from(config.assign_ipv6);
        request.pools.v4 = config.ipv4_pools.clone();
        request.pools.v6 = config.ipv6_pools.clone();
        request.handle_use = HandleUse::New;
        let assigned = ipam.auto_assign(request, now).await?;
        if !assigned.is_complete() {
            return Err(AssignError::Exhausted(assigned.shortages));
        }
        Ok(assigned.allocations().map(|allocation| allocation.addr).collect())
    }

    async fn assign_requested(&self, ipam: &Ipam, now: SystemTime) -> Result<Vec<IpAddr>, AssignError> {
        for addr in &self.requested {
            let mut request = AssignAddress::new(*addr, self.node.clone(), &self.handle);
            request.attributes = self.attributes.clone();
            request.intended_use = Some(AllowedUse::Workload);
            ipam.assign(request, now).await?;
        }
        Ok(self.requested.clone())
    }
}
