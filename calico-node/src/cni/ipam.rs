//! The commands of `calico-ipam`: addresses from Calico's pools.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use calico_ipam::{Allocation, AssignAddress, AssignError, AutoAssign, HandleUse, Ipam, Release};
use calico_model::resource::AllowedUse;
use calico_model::{Family, Namespace, NodeName};

use super::plugin::Plugin;
use super::{AddResult, CniError, Config, Container};
use crate::ipam::ipam;

/// The addresses that an ADD gives.
pub(super) struct Given {
    ipam: Ipam,
    addresses: Vec<IpAddr>,
    /// How to release what was assigned just now, and nothing that was assigned later.
    fresh: Vec<Release>,
}

impl Given {
    pub(super) fn result(&self) -> AddResult {
        AddResult::of_addresses(self.addresses.iter().copied())
    }

    fn take(&mut self, handle: &str, allocation: &Allocation) {
        self.addresses.push(allocation.addr);
        self.fresh.push(Release {
            addr: allocation.addr,
            handle: Some(handle.to_owned()),
            sequence: Some(allocation.sequence),
        });
    }

    /// Releases what was assigned just now.
    pub(super) async fn take_back(self, now: SystemTime) -> Result<(), CniError> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let handle = self.fresh.iter().find_map(|release| release.handle.clone()).unwrap_or_default();
        let released = self.ipam.release(&self.fresh, now).await;
        released.map(drop).map_err(|source| CniError::Release { handle, source: Box::new(source) })
    }
}

/// Assigns the addresses of a container: those asked for, else one of each family that the configuration wants.
///
/// A container whose handle has addresses already gets the same again.
pub(super) async fn add(
    plugin: &Plugin<'_>,
    container: &Container,
    now: SystemTime,
) -> Result<Given, CniError> {
    let request = Assignment::of(plugin, container)?;
    let ipam = ipam(plugin.ready_datastore().await?.store().clone());
    let held = ipam.addrs_by_handle(&request.handle, now).await;
    let held = held.map_err(|error| request.failed(error.into()))?;
    if !held.is_empty() {
        return Ok(Given { ipam, addresses: request.again(held)?, fresh: Vec::new() });
    }
    let mut given = Given { ipam, addresses: Vec::new(), fresh: Vec::new() };
    match request.assign(&mut given, now).await {
        Ok(()) => Ok(given),
        Err(error) => {
            // Only what this ADD was given: another one of the same container may hold addresses by now.
            let mut errors = vec![request.failed(error)];
            errors.extend(given.take_back(now).await.err());
            Err(CniError::joined(errors).expect("there is at least the first error"))
        }
    }
}

/// Releases the addresses of a container. One that has none is fine.
pub(super) async fn del(plugin: &Plugin<'_>, container: &Container, now: SystemTime) -> Result<(), CniError> {
    let Some(client) = plugin.unlocked_datastore().await? else { return Ok(()) };
    let ipam = ipam(client.store().clone());
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
    let ipam = ipam(plugin.ready_datastore().await?.store().clone());
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
    plugin.node().map_err(CniError::unavailable)?;
    plugin.ready_datastore().await.map(drop).map_err(CniError::unavailable)
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

    async fn assign(&self, given: &mut Given, now: SystemTime) -> Result<(), AssignError> {
        if !self.requested.is_empty() {
            for addr in &self.requested {
                let mut request = AssignAddress::new(*addr, self.node.clone(), &self.handle);
                request.attributes = self.attributes.clone();
                request.intended_use = Some(AllowedUse::Workload);
                let allocation = given.ipam.assign(request, now).await?;
                given.take(&self.handle, &allocation);
            }
            return Ok(());
        }
        let config = &self.plugin.config.ipam;
        let mut request = AutoAssign::new(self.node.clone(), &self.handle);
        request.attributes = self.attributes.clone();
        request.count.v4 = usize::from(config.assign_ipv4);
        request.count.v6 = usize::from(config.assign_ipv6);
        request.pools.v4 = config.ipv4_pools.clone();
        request.pools.v6 = config.ipv6_pools.clone();
        request.handle_use = HandleUse::New;
        let assigned = given.ipam.auto_assign(request, now).await?;
        assigned.allocations().for_each(|allocation| given.take(&self.handle, allocation));
        if assigned.is_complete() { Ok(()) } else { Err(AssignError::Exhausted(assigned.shortages)) }
    }
}
