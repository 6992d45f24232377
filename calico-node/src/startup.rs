//! What an agent does once before it begins: it makes the node and the cluster's defaults known.
//!
//! In order: the cluster's own objects (ClusterInformation, tiers), the node's addresses and AS number, the default pools,
//! the default configurations, and last the nodename file, which tells the CNI plugin that this node is set up.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use calico_model::datastore::client::{Client, ClientError};
use calico_model::datastore::{Backoff, CommitError, StoreError};
use calico_model::name::node_configuration_name;
use calico_model::resource::felix::Severity;
use calico_model::resource::{
    BgpConfiguration, ClusterInformation, Document, FelixConfiguration, IpPool, Kind, Node, NodeBgp, Object,
    ObjectId, ReadError, Resource, ResourceKey,
};
use calico_model::{Cidr, Family, InterfaceAddr, Name, NodeName, Snapshot, Update};

use crate::agent::with_causes;
use crate::paths::Paths;
use crate::settings::{Backend, DefaultPool, Detection, HostAddr, NodeAddress, Settings, host_addrs};
use crate::stamp::uuid;

/// The version that is written into ClusterInformation.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// A start that cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartupError {
    /// No address was found and none is stored.
    #[error(
        "no {family} address was found for node {node}: set {variable} to the node's address, such as 10.0.0.1/24"
    )]
    NoAddress {
        /// The node.
        node: NodeName,
        /// The family.
        family: Family,
        /// The variable that sets it.
        variable: &'static str,
    },
    /// Another node has the address.
    #[error(
        "node {other} has the address {addr} already: give {node} another one in IP, or delete node {other} if it is gone"
    )]
    AddressInUse {
        /// This node.
        node: NodeName,
        /// The other.
        other: Name,
        /// The address.
        addr: std::net::IpAddr,
    },
    /// The datastore is locked, as while it is migrated, and the node is not in it yet.
    #[error(
        "node {node} cannot be written into the datastore, which is locked (datastoreReady of ClusterInformation is false): finish \
         the migration that locked it, then `calicoctl datastore migrate unlock`"
    )]
    Locked {
        /// The node.
        node: NodeName,
    },
    /// A route reflector has the name of a node that is none.
    #[error(
        "node {node} is in the datastore and is no stand-alone route reflector: give the reflector another name (--name), or delete \
         node {node} if it is gone"
    )]
    NotReflector {
        /// The node.
        node: NodeName,
    },
    /// An object cannot be read or written.
    #[error("node {node} cannot be set up in the datastore")]
    Client {
        /// The node.
        node: NodeName,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// The host's addresses cannot be read.
    #[error("this host's addresses cannot be read")]
    HostAddrs(#[source] io::Error),
    /// The default pool that the environment describes is none.
    #[error("the pool that CALICO_{family}POOL_CIDR and its like describe is none", family = if *family == Family::V4 { "IPV4" } else { "IPV6" })]
    Pool {
        /// The family.
        family: Family,
        /// What is wrong with it.
        #[source]
        source: ReadError,
    },
    /// The port of BGP cannot be listened on.
    #[error(
        "port {port} on {addr} is taken by another program, or may not be used: stop it, or set listenPort in the BGPConfiguration"
    )]
    Port {
        /// The port.
        port: u16,
        /// The node's address.
        addr: std::net::IpAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StartupError {
    /// Whether the datastore did not answer or is locked, so that the same start may succeed later.
    #[must_use]
    pub fn is_worth_waiting(&self) -> bool {
        if matches!(self, Self::Locked { .. }) {
            return true;
        }
        let Self::Client { source, .. } = self else { return false };
        matches!(
            source,
            ClientError::Store(StoreError::Unavailable { .. })
                | ClientError::Commit {
                    source: CommitError::OutcomeUnknown { .. }
                        | CommitError::Store(StoreError::Unavailable { .. }),
                    ..
                }
        )
    }
}

/// Registers the node as [`register`] does with the addresses that the host has then. Where the settings want it, a
/// datastore that does not answer, or is locked before the node is in it, is asked again until that is over; otherwise it is
/// an error.
///
/// # Errors
/// As [`register`]; [`StartupError::HostAddrs`] when the host's addresses cannot be read.
pub async fn register_in_time(
    client: &Client,
    settings: &Settings,
    paths: &Paths,
) -> Result<(), StartupError> {
    in_time(&settings.node, settings.wait_for_datastore, || async {
        let addrs = host_addrs().map_err(StartupError::HostAddrs)?;
        register(client, settings, &addrs, paths).await
    })
    .await
}

/// Makes an attempt; where it `waits`, again and again until the datastore is there and open.
pub(crate) async fn in_time<F>(
    node: &NodeName,
    waits: bool,
    attempt: impl Fn() -> F,
) -> Result<(), StartupError>
where
    F: Future<Output = Result<(), StartupError>>,
{
    let (first, longest) = (Duration::from_secs(1), Duration::from_secs(10));
    let mut backoff = Backoff::new(crate::agent::seed(node), first, longest);
    let mut is_told = false;
    loop {
        match attempt().await {
            Err(error) if waits && error.is_worth_waiting() => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(error = %with_causes(&error), "waiting for the datastore");
                }
                tokio::time::sleep(backoff.pause()).await;
            }
            done => return done,
        }
    }
}

/// Makes the node known, and the cluster's defaults if they are missing. Several nodes may do so at once. While the datastore is
/// locked nothing of it is written: a node that is in it already goes on as it is there.
///
/// # Errors
/// When the node has no address or that of another, the datastore fails or is locked before the node is in it, or a file cannot be
/// written.
pub async fn register(
    client: &Client,
    settings: &Settings,
    addrs: &[HostAddr],
    paths: &Paths,
) -> Result<(), StartupError> {
    let failed = |source| StartupError::Client { node: settings.node.clone(), source };
    // Everything that the user may have got wrong is found before the first write.
    check_pools(settings)?;
    check_port(client, settings, addrs).await?;
    if is_locked(client).await.map_err(failed)? {
        let id = Name::from(settings.node.clone()).into();
        if client.of::<Node>().find(&id).await.map_err(failed)?.is_none() {
            return Err(StartupError::Locked { node: settings.node.clone() });
        }
        tracing::warn!(
            "the datastore is locked: the node begins as it is there; what its settings say counts after a restart"
        );
        return write_file(paths.nodename_file(), settings.node.as_str());
    }
    client.ensure_initialized(VERSION, &uuid().replace('-', "")).await.map_err(failed)?;
    let cluster = ClusterInformation::NAME.parse::<Name>().expect("a constant name");
    let cluster = client.of::<ClusterInformation>().get(&cluster.into()).await.map_err(failed)?;
    register_node(client, settings, addrs).await?;
    make_pools(client, settings, &cluster.spec.cluster_guid).await.map_err(failed)?;
    let default: Name = "default".parse().expect("a constant name");
    let felix = FelixConfiguration { log_severity_screen: Some(Severity::Info), ..FelixConfiguration::new() };
    create_if_missing(client, Object::new(default.clone(), felix)).await.map_err(failed)?;
    create_if_missing(client, Object::new(default, BgpConfiguration::new())).await.map_err(failed)?;
    write_file(paths.nodename_file(), settings.node.as_str())
}

/// Reads whether the datastore is locked.
pub(crate) async fn is_locked(client: &Client) -> Result<bool, ClientError> {
    let cluster = ClusterInformation::NAME.parse::<Name>().expect("a constant name");
    let cluster = client.of::<ClusterInformation>().find(&cluster.into()).await?;
    Ok(cluster.is_some_and(|cluster| cluster.spec.datastore_ready == Some(false)))
}

/// Checks the pools that would be made; the network of an IPv6 pool that names none is not known yet, and always sound.
fn check_pools(settings: &Settings) -> Result<(), StartupError> {
    const ANY_CLUSTER: &str = "0123456789";
    for (family, pool) in [(Family::V4, &settings.ipv4_pool), (Family::V6, &settings.ipv6_pool)] {
        let Some(spec) = pool.as_ref().and_then(|pool| default_pool(family, pool, ANY_CLUSTER)) else {
            continue;
        };
        let pool: Resource = Object::new("default".parse().expect("a constant name"), spec).into();
        Document::from(&pool).check_input().map_err(|source| StartupError::Pool { family, source })?;
    }
    Ok(())
}

/// Tries the port that the speaker will listen on.
async fn check_port(client: &Client, settings: &Settings, addrs: &[HostAddr]) -> Result<(), StartupError> {
    let NodeAddress::Given { addr, .. } = settings.ipv4 else { return Ok(()) };
    let ours = addrs.iter().any(|host| host.addr.addr() == addr.addr());
    if settings.backend == Backend::None || !ours {
        return Ok(());
    }
    let configured = configured_port(client, settings).await?;
    let (port, addr) = (configured.unwrap_or(calico_bgp::peers::PORT), addr.addr());
    std::net::TcpListener::bind((addr, port)).map(|_| ()).map_err(|source| StartupError::Port {
        port,
        addr,
        source,
    })
}

/// Reads the port that the node's own configuration says, or else the cluster's. Of one that does not validate what is sound
/// counts, as to the agent.
async fn configured_port(client: &Client, settings: &Settings) -> Result<Option<u16>, StartupError> {
    let cluster = BgpConfiguration::DEFAULT.parse::<Name>().expect("a constant name");
    let mut known = Snapshot::default();
    let mut port = None;
    for name in node_configuration_name(&settings.node).ok().into_iter().chain([cluster]) {
        let key = ResourceKey { kind: Kind::BgpConfiguration, id: name.into() };
        let stored = client.store().get(&key.datastore_key()).await;
        let stored = stored
            .map_err(|source| StartupError::Client { node: settings.node.clone(), source: source.into() })?;
        if let Some(update) = stored.as_ref().and_then(Update::from_entry) {
            known.apply(update);
        }
        port = port.or(known.bgp_configurations.get(&key.id).and_then(|found| found.spec.listen_port));
    }
    Ok(port)
}

async fn register_node(client: &Client, settings: &Settings, addrs: &[HostAddr]) -> Result<(), StartupError> {
    let failed = |source| StartupError::Client { node: settings.node.clone(), source };
    let nodes = client.of::<Node>();
    let known = nodes.list(None).await.map_err(failed)?.items;
    let name = Name::from(settings.node.clone());
    let id = ObjectId::from(name.clone());
    let stored = known.iter().find(|node| node.metadata.name == name).map(|node| node.spec.clone());
    let wanted = described(stored.clone().unwrap_or_default(), settings, addrs)?;
    if !settings.skip_address_check {
        refuse_shared_address(&wanted, &name, settings, &known)?;
    }
    if stored.is_none() {
        match nodes.create(Object::new(name, wanted.clone())).await {
            Ok(_) => return Ok(()),
            Err(ClientError::AlreadyExists { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    // Only what this agent knows best is written: others may have changed the rest in the meantime.
    let write = |_: &mut _, node: &mut Node| {
        let bgp = node.bgp.get_or_insert_with(|| wanted.bgp.clone().unwrap_or_else(empty_bgp));
        if let Some(found) = &wanted.bgp {
            bgp.ipv4_address = found.ipv4_address;
            bgp.ipv6_address = found.ipv6_address;
            bgp.as_number = found.as_number;
        }
    };
    nodes.modify(&id, write).await.map(|_| ()).map_err(failed)
}

fn empty_bgp() -> NodeBgp {
    NodeBgp {
        as_number: None,
        ipv4_address: None,
        ipv6_address: None,
        ipv4_ipip_tunnel_addr: None,
        route_reflector_cluster_id: None,
    }
}

fn refuse_shared_address(
    wanted: &Node,
    name: &Name,
    settings: &Settings,
    known: &[Object<Node>],
) -> Result<(), StartupError> {
    for addr in Family::ALL.iter().filter_map(|family| wanted.addr(*family)).map(|addr| addr.addr()) {
        let has = |node: &&Object<Node>| {
            Family::ALL.iter().any(|f| node.spec.addr(*f).map(|a| a.addr()) == Some(addr))
        };
        if let Some(other) = known.iter().filter(|node| node.metadata.name != *name).find(has) {
            let other = other.metadata.name.clone();
            return Err(StartupError::AddressInUse { node: settings.node.clone(), other, addr });
        }
    }
    Ok(())
}

/// Returns the node with its addresses and AS number as the settings and the machine say. Pure.
///
/// # Errors
/// When an address is wanted and none is found or stored.
pub fn described(mut node: Node, settings: &Settings, addrs: &[HostAddr]) -> Result<Node, StartupError> {
    let stored = |family| node.addr(family);
    let v4 =
        address(Family::V4, &settings.ipv4, &settings.ipv4_detection, stored(Family::V4), settings, addrs)?;
    let v6 = match &settings.ipv6 {
        Some(wanted) => {
            address(Family::V6, wanted, &settings.ipv6_detection, stored(Family::V6), settings, addrs)?
        }
        None => stored(Family::V6),
    };
    let bgp = node.bgp.get_or_insert_with(empty_bgp);
    bgp.ipv4_address = v4;
    bgp.ipv6_address = v6;
    bgp.as_number = settings.as_number.or(bgp.as_number);
    Ok(node)
}

fn address(
    family: Family,
    wanted: &NodeAddress,
    detection: &Detection,
    stored: Option<InterfaceAddr>,
    settings: &Settings,
    addrs: &[HostAddr],
) -> Result<Option<InterfaceAddr>, StartupError> {
    let detected = || {
        let variable = if family == Family::V4 { "IP" } else { "IP6" };
        let missing = || StartupError::NoAddress { node: settings.node.clone(), family, variable };
        detection.choose(family, addrs).ok_or_else(missing).map(Some)
    };
    match wanted {
        NodeAddress::Given { addr, has_prefix: true } => Ok(Some(*addr)),
        NodeAddress::Given { addr, has_prefix: false } => {
            let on_interface = addrs.iter().map(|host| host.addr).find(|host| host.addr() == addr.addr());
            Ok(Some(on_interface.unwrap_or(*addr)))
        }
        NodeAddress::None => Ok(stored),
        NodeAddress::Autodetect => detected(),
        NodeAddress::Keep => stored.map_or_else(detected, |stored| Ok(Some(stored))),
    }
}

async fn make_pools(client: &Client, settings: &Settings, cluster_guid: &str) -> Result<(), ClientError> {
    for (family, pool, name) in [
        (Family::V4, &settings.ipv4_pool, "default-ipv4-ippool"),
        (Family::V6, &settings.ipv6_pool, "default-ipv6-ippool"),
    ] {
        let Some(pool) = pool else { continue };
        let existing = client.of::<IpPool>().list(None).await?.items;
        if existing.iter().any(|pool| pool.spec.cidr.family() == family) {
            continue;
        }
        if let Some(spec) = default_pool(family, pool, cluster_guid) {
            create_if_missing(client, Object::new(name.parse().expect("a constant name"), spec)).await?;
        }
    }
    Ok(())
}

fn default_pool(family: Family, pool: &DefaultPool, cluster_guid: &str) -> Option<IpPool> {
    let cidr = match (pool.cidr, family) {
        (Some(cidr), _) => cidr,
        (None, Family::V4) => return None,
        (None, Family::V6) => unique_local(cluster_guid)?,
    };
    let mut spec = IpPool::new(cidr);
    spec.block_size = pool.block_size.unwrap_or(spec.block_size);
    spec.ipip_mode = pool.ipip_mode;
    spec.vxlan_mode = pool.vxlan_mode;
    spec.nat_outgoing = pool.nat_outgoing;
    spec.disable_bgp_export = pool.disable_bgp_export;
    spec.node_selector = pool.node_selector.clone();
    Some(spec)
}

/// A unique local network (RFC 4193) that is the same for all nodes of a cluster and differs between clusters: `fd`, then
/// the first 40 bits of the cluster's own identifier.
fn unique_local(cluster_guid: &str) -> Option<Cidr> {
    let bits = u64::from_str_radix(cluster_guid.get(..10)?, 16).ok()?;
    let network = (0xfd_u128 << 120) | (u128::from(bits) << 80);
    Cidr::holding(std::net::Ipv6Addr::from(network).into(), 48)
}

async fn create_if_missing<S: calico_model::resource::Spec>(
    client: &Client,
    object: Object<S>,
) -> Result<(), ClientError>
where
    calico_model::resource::Resource: From<Object<S>>,
{
    match client.of::<S>().create(object).await {
        Ok(_) | Err(ClientError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a small file whole or not at all, also when the host loses its power.
pub(crate) fn write_file(path: PathBuf, text: &str) -> Result<(), StartupError> {
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let fresh = path.with_extension("new");
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)
    };
    write().map_err(|source| StartupError::File { path: path.clone(), source })
}

#[cfg(test)]
mod tests;
