//! Who uses which address, according to the rest of the datastore: workload endpoints, and the nodes' own data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_model::datastore::Entry;
use calico_model::resource::{Document, Kind, Resource, ResourceKey};
use calico_model::{Family, NodeName};

use crate::check::{Held, Liveness};
use crate::error::AccessError;
use crate::ipam::Ipam;

/// Everybody who uses addresses, as far as the datastore knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// Who uses each address: the keys of workload endpoints and nodes.
    pub addrs: BTreeMap<IpAddr, BTreeSet<ResourceKey>>,
    /// The nodes that exist.
    pub nodes: BTreeSet<NodeName>,
    /// What is stored and cannot be read, for people. While there is any, nobody is known to be gone: to go on would take
    /// the addresses from whoever cannot be read.
    pub problems: Vec<String>,
}

impl Users {
    /// Notes whose addresses a stored workload endpoint or node has.
    fn note(&mut self, entry: &Entry) {
        let document = Document::from_json(&entry.value);
        let resource = match document.and_then(|document| document.check()) {
            Ok(resource) => resource,
            Err(error) => {
                let named = ResourceKey::from_datastore_key(&entry.key);
                // What exists is not gone, however badly it is written.
                self.nodes.extend(
                    named.iter().filter(|key| key.kind == Kind::Node).map(|key| key.id.name.clone().into()),
                );
                let named = named.map_or_else(|| entry.key.to_string(), |key| key.to_string());
                self.problems
                    .push(format!("{named} cannot be read, so that no address counts as leaked: {error}"));
                return;
            }
        };
        let key = resource.key();
        let mut addrs: Vec<IpAddr> = Vec::new();
        if let Resource::WorkloadEndpoint(workload) = &resource {
            addrs.extend(workload.spec.ip_networks.iter().map(calico_model::Cidr::addr));
        }
        if let Resource::Node(node) = &resource {
            self.nodes.insert(node.metadata.name.clone().into());
            let bgp = node.spec.bgp.as_ref();
            addrs.extend(
                Family::ALL.into_iter().filter_map(|family| node.spec.addr(family)).map(|addr| addr.addr()),
            );
            addrs.extend(bgp.and_then(|bgp| bgp.ipv4_ipip_tunnel_addr).map(IpAddr::V4));
            addrs.extend(node.spec.ipv4_vxlan_tunnel_addr.map(IpAddr::V4));
            addrs.extend(node.spec.ipv6_vxlan_tunnel_addr.map(IpAddr::V6));
        }
        for addr in addrs {
            self.addrs.entry(addr).or_default().insert(key.clone());
        }
    }

    /// Says whether the holder of an address still lives.
    ///
    /// Only what is known to be a workload's or a tunnel's is ever called gone: WireGuard's addresses, those of services
    /// and those of strangers are not ours to judge.
    #[must_use]
    pub fn judge(&self, held: &Held) -> Liveness {
        if self.addrs.contains_key(&held.addr) {
            return Liveness::Alive;
        }
        if !self.problems.is_empty() {
            return Liveness::Unknown;
        }
        let note = |key: &str| held.attributes.get(key).map(String::as_str);
        match note("type") {
            Some("ipipTunnelAddress" | "vxlanTunnelAddress" | "vxlanV6TunnelAddress") => {
                return Liveness::Gone;
            }
            Some("wireguardTunnelAddress" | "wireguardV6TunnelAddress") => {
                let node = note("node").and_then(|node| node.parse::<NodeName>().ok());
                let exists = node.is_none_or(|node| self.nodes.contains(&node));
                return if exists { Liveness::Unknown } else { Liveness::Gone };
            }
            Some(_) => return Liveness::Unknown,
            None => {}
        }
        if note("pod").is_some() && note("namespace").is_some() { Liveness::Gone } else { Liveness::Unknown }
    }
}

impl Ipam {
    /// Reads who uses which address.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn users(&self) -> Result<Users, AccessError> {
        let mut users = Users::default();
        for kind in [Kind::Node, Kind::WorkloadEndpoint] {
            for entry in &self.list(&kind.datastore_prefix()).await?.entries {
                users.note(entry);
            }
        }
        Ok(users)
    }
}
