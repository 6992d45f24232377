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
}

impl Users {
    /// Notes whose addresses a stored workload endpoint or node has.
    ///
    /// # Errors
    /// When it cannot be read: to go on would take its addresses from it.
    fn note(&mut self, entry: &Entry) -> Result<(), AccessError> {
        let unreadable = |problem: String| AccessError::Unreadable { key: entry.key.clone(), problem };
        let document = Document::from_json(&entry.value).map_err(|error| unreadable(error.to_string()))?;
        let resource = document.check().map_err(|error| unreadable(error.to_string()))?;
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
        Ok(())
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
    /// When the store cannot be used, or a workload endpoint or node cannot be read.
    pub async fn users(&self) -> Result<Users, AccessError> {
        let mut users = Users::default();
        for kind in [Kind::Node, Kind::WorkloadEndpoint] {
            for entry in &self.list(&kind.datastore_prefix()).await?.entries {
                users.note(entry)?;
            }
        }
        Ok(users)
    }
}
