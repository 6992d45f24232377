//! ADD: attach a container.
//!
//! Addresses, then the endpoint, then its policy, then the interface: whatever stops an ADD in between, a DEL finds it by
//! the container's name, and no interface is up that the node's rules do not know.

use std::net::IpAddr;
use std::path::Path;

use calico_model::datastore::client::{Client, ClientError};
use calico_model::resource::{Object, ObjectId, Profile, WorkloadEndpoint};
use calico_model::{Cidr, Family, InterfaceAddr, InterfaceName, Name, Revision};

use super::del::release;
use super::plugin::{Plugin, stored_endpoint};
use super::{AddResult, CniError, Config, Container, Identity, ResultInterface, ResultIp, policed};
use crate::workload::{Attachment, HOST_MAC, Netns, differences, host_interface_exists, plug};

/// The MTU that the kernel gives a veth pair when it is told none.
const KERNEL_MTU: u32 = 1500;

/// Attaches a container.
pub(super) async fn add(
    plugin: &Plugin<'_>,
    container: &Container,
    netns: &Path,
) -> Result<AddResult, CniError> {
    let node = plugin.node()?;
    let identity = Identity::of(container, node)?;
    let add = Add { plugin, identity, mtu: plugin.mtu()?, netns: Netns::open(netns)? };
    let client = plugin.ready_datastore().await?;
    let endpoint = match stored_endpoint(&client, &add.identity).await? {
        Some(endpoint) if endpoint.spec.container_id == add.identity.container().as_str() => {
            add.again(&client, endpoint).await?
        }
        before => add.anew(&client, before).await?,
    };
    Ok(add.result(&endpoint, netns))
}

struct Add<'a> {
    plugin: &'a Plugin<'a>,
    identity: Identity,
    mtu: Option<u32>,
    netns: Netns,
}

/// What has been done and would have to be undone.
#[derive(Default)]
struct Done {
    addresses: bool,
    endpoint: Option<(ObjectId, Option<Revision>)>,
}

impl Add<'_> {
    /// The container is attached already: its addresses stay, whatever happens.
    async fn again(
        &self,
        client: &Client,
        mut endpoint: Object<WorkloadEndpoint>,
    ) -> Result<Object<WorkloadEndpoint>, CniError> {
        let profiles = self.identity.profiles(self.plugin.config)?;
        let missing: Vec<Name> =
            profiles.into_iter().filter(|name| !endpoint.spec.profiles.contains(name)).collect();
        if !missing.is_empty() {
            self.ensure_profile(client).await?;
            let (endpoints, id) = (client.of::<WorkloadEndpoint>(), self.identity.id());
            let add_profiles = endpoints.modify(&id, |_, spec| {
                let lacks = |name: &&Name| !spec.profiles.contains(name);
                let lacking: Vec<Name> = missing.iter().filter(lacks).cloned().collect();
                spec.profiles.extend(lacking);
            });
            endpoint = add_profiles.await.map_err(|error| self.unwritten(error))?;
        }
        let attachment = self.attachment(&endpoint);
        // An ADD may have been killed at any step. The MTU file may say something else by now, which is no reason.
        let differences = differences(&Attachment { mtu: None, ..attachment.clone() }, &self.netns).await?;
        if !differences.is_empty() {
            tracing::info!(differences = differences.join("; "), "the container is plugged in anew");
            policed::wait(self.plugin, &attachment.host_interface, revision(&endpoint)).await?;
            plug(&attachment, &self.netns).await?;
        }
        Ok(endpoint)
    }

    async fn anew(
        &self,
        client: &Client,
        before: Option<Object<WorkloadEndpoint>>,
    ) -> Result<Object<WorkloadEndpoint>, CniError> {
        let felix = self.plugin.felix(client, self.identity.node()).await?;
        let prefix = felix.interface_prefixes().first().copied().unwrap_or("cali").to_owned();
        let interface = self.identity.host_interface(&prefix);
        self.refuse_taken(client, &interface).await?;
        let mut done = Done::default();
        match self.attach(client, before, interface, &mut done).await {
            Ok(endpoint) => Ok(endpoint),
            Err(error) => {
                let mut errors = vec![error];
                errors.extend(self.undo(client, done).await);
                Err(CniError::joined(errors).expect("there is at least the first error"))
            }
        }
    }

    async fn attach(
        &self,
        client: &Client,
        before: Option<Object<WorkloadEndpoint>>,
        interface: InterfaceName,
        done: &mut Done,
    ) -> Result<Object<WorkloadEndpoint>, CniError> {
        let addresses = self.plugin.ipam()?.add().await?;
        done.addresses = true;
        let addresses = self.usable(&addresses)?;
        self.ensure_profile(client).await?;
        policed::forget(self.plugin, &interface);
        let mut endpoint = self.identity.endpoint(self.plugin.config, &addresses, interface)?;
        let endpoints = client.of::<WorkloadEndpoint>();
        let written = match before {
            Some(before) => {
                // The pod's sandbox was made anew: the endpoint becomes the new container's.
                endpoint.metadata.resource_version = before.metadata.resource_version;
                endpoints.update(endpoint).await
            }
            None => endpoints.create(endpoint).await,
        };
        if matches!(written, Err(ClientError::AlreadyExists { .. } | ClientError::Conflict { .. })) {
            // Another ADD of this container was faster, and the handle's addresses are its.
            done.addresses = false;
        }
        let endpoint = written.map_err(|error| self.unwritten(error))?;
        done.endpoint = Some((self.identity.id(), revision(&endpoint)));
        let attachment = self.attachment(&endpoint);
        policed::wait(self.plugin, &attachment.host_interface, revision(&endpoint)).await?;
        plug(&attachment, &self.netns).await?;
        Ok(endpoint)
    }

    /// Undoes what was done, last first, and returns what went wrong.
    async fn undo(&self, client: &Client, done: Done) -> Vec<CniError> {
        let mut errors = Vec::new();
        if let Some((id, revision)) = done.endpoint {
            match client.of::<WorkloadEndpoint>().delete(&id, revision).await {
                Ok(()) | Err(ClientError::NotFound { .. }) => {}
                Err(error) => {
                    errors.push(CniError::datastore(format!("delete WorkloadEndpoint({id})"), error))
                }
            }
        }
        // While the endpoint is there its addresses are in use.
        if done.addresses && errors.is_empty() {
            errors.extend(release(self.plugin).await.err());
        }
        errors
    }

    /// A container's second interface, or a pod's of another network, would have the same name on the node.
    async fn refuse_taken(&self, client: &Client, interface: &InterfaceName) -> Result<(), CniError> {
        if !host_interface_exists(interface).await? {
            return Ok(());
        }
        let (own, namespace) = (self.identity.id(), self.identity.namespace());
        let endpoints = client.of::<WorkloadEndpoint>().list(Some(&namespace)).await;
        let endpoints =
            endpoints.map_err(|error| CniError::datastore("list the workload endpoints", error))?.items;
        let owner = endpoints.iter().find(|endpoint| {
            endpoint.spec.interface_name.as_ref() == Some(interface)
                && endpoint.spec.node == *self.identity.node()
                && endpoint.id() != own
        });
        match owner {
            Some(owner) => {
                Err(CniError::InterfaceTaken { interface: interface.clone(), owner: owner.id().to_string() })
            }
            None => Ok(()),
        }
    }

    fn usable(&self, given: &AddResult) -> Result<Vec<IpAddr>, CniError> {
        let plugin = || self.plugin.config.ipam.plugin.clone();
        let addresses: Vec<IpAddr> = given.ips.iter().map(|ip| ip.addr.addr()).collect();
        if addresses.is_empty() {
            return Err(CniError::Unusable { plugin: plugin(), given: "no address".to_owned() });
        }
        match addresses.iter().find(|a| a.is_loopback() || a.is_multicast() || a.is_unspecified()) {
            Some(addr) => Err(CniError::Unusable { plugin: plugin(), given: addr.to_string() }),
            None => Ok(addresses),
        }
    }

    /// Creates the network's profile when it is not there. What is there is the user's and stays.
    async fn ensure_profile(&self, client: &Client) -> Result<(), CniError> {
        let Some(profile) = self.identity.network_profile(self.plugin.config)? else { return Ok(()) };
        let (profiles, id) = (client.of::<Profile>(), profile.id());
        match profiles.get(&id).await {
            Err(ClientError::NotFound { .. }) => {}
            // An invalid profile is the user's too; the agent reports it.
            _ => return Ok(()),
        }
        match profiles.create(profile).await {
            Ok(_) | Err(ClientError::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(CniError::datastore(format!("create Profile({id})"), error)),
        }
    }

    fn unwritten(&self, error: ClientError) -> CniError {
        CniError::datastore(format!("write WorkloadEndpoint({})", self.identity.id()), error)
    }

    fn attachment(&self, endpoint: &Object<WorkloadEndpoint>) -> Attachment {
        self.identity.attachment(endpoint, self.mtu, self.plugin.config)
    }

    fn result(&self, endpoint: &Object<WorkloadEndpoint>, netns: &Path) -> AddResult {
        let attachment = self.attachment(endpoint);
        let host_addr = |addr: &IpAddr| InterfaceAddr::new(*addr, Family::of(*addr).bits());
        let ips = attachment.addresses.iter().filter_map(host_addr);
        AddResult {
            interfaces: vec![
                ResultInterface {
                    name: attachment.host_interface.to_string(),
                    mac: Some(HOST_MAC),
                    mtu: None,
                    sandbox: None,
                },
                ResultInterface {
                    name: attachment.interface.to_string(),
                    mac: Some(attachment.mac),
                    mtu: Some(attachment.mtu.unwrap_or(KERNEL_MTU)),
                    sandbox: Some(netns.display().to_string()),
                },
            ],
            ips: ips.map(|addr| ResultIp { addr, interface: Some(1) }).collect(),
        }
    }
}

pub(super) fn revision(endpoint: &Object<WorkloadEndpoint>) -> Option<Revision> {
    endpoint.metadata.resource_version.as_deref()?.parse().ok().map(Revision)
}

impl Identity {
    /// Says how the container of `endpoint` is attached.
    pub(super) fn attachment(
        &self,
        endpoint: &Object<WorkloadEndpoint>,
        mtu: Option<u32>,
        config: &Config,
    ) -> Attachment {
        let interface = endpoint.spec.interface_name.clone();
        Attachment {
            host_interface: interface.unwrap_or_else(|| self.host_interface("cali")),
            interface: self.interface().clone(),
            mac: endpoint.spec.mac.unwrap_or_else(|| self.mac()),
            addresses: endpoint.spec.ip_networks.iter().map(Cidr::addr).collect(),
            mtu,
            queues: config.queues,
            forwarding: config.forwarding,
        }
    }
}
