//! The BGPConfiguration of a node: its own over the cluster's, where upstream has it so: in the port, in what is added to
//! networks, and in the monitoring stations, for which upstream has no name. All else is the cluster's alone.

use std::net::{IpAddr, SocketAddr};

use calico_model::name::{Name, NodeName};
use calico_model::resource::BgpConfiguration;
use calico_model::resource::bgp::{BindMode, BmpStation, NamedCommunity, PrefixAdvertisement};
use calico_model::snapshot::Snapshot;
use calico_model::{AsNumber, Cidr, Community, Family};

use super::PORT;
use crate::family::PerFamily;

/// What holds for one node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Configuration<'s> {
    cluster: Option<&'s BgpConfiguration>,
    own: Option<&'s BgpConfiguration>,
}

fn named<'s>(snapshot: &'s Snapshot, name: &str) -> Option<&'s BgpConfiguration> {
    let name: Name = name.parse().ok()?;
    snapshot.bgp_configurations.get(&name.into()).map(|configuration| &configuration.spec)
}

/// The AS number of nodes that have none of their own.
pub(super) fn as_number(snapshot: &Snapshot) -> AsNumber {
    let cluster = named(snapshot, BgpConfiguration::DEFAULT);
    cluster.and_then(|cluster| cluster.as_number).unwrap_or(AsNumber::DEFAULT)
}

impl<'s> Configuration<'s> {
    pub(super) fn of(snapshot: &'s Snapshot, node: &NodeName) -> Self {
        let own = named(snapshot, &format!("node.{node}"));
        Self { cluster: named(snapshot, BgpConfiguration::DEFAULT), own }
    }

    /// What only the cluster's configuration may say.
    pub(super) fn cluster(&self) -> Option<&'s BgpConfiguration> {
        self.cluster
    }

    /// Returns what the node's own configuration says of something, or else the cluster's.
    fn first<T>(&self, of: impl Fn(&'s BgpConfiguration) -> Option<T>) -> Option<T> {
        self.own.and_then(&of).or_else(|| self.cluster.and_then(&of))
    }

    pub(super) fn mesh(&self) -> bool {
        self.cluster.and_then(|cluster| cluster.node_to_node_mesh_enabled).unwrap_or(true)
    }

    pub(super) fn listen_port(&self) -> u16 {
        self.first(|c| c.listen_port).unwrap_or(PORT)
    }

    pub(super) fn bind_mode(&self) -> BindMode {
        self.cluster.and_then(|c| c.bind_mode).unwrap_or(BindMode::All)
    }

    /// The metric of an ordinary route.
    pub(super) fn normal_priority(&self) -> PerFamily<u32> {
        PerFamily {
            v4: self.cluster.and_then(|c| c.ipv4_normal_route_priority).unwrap_or(1024),
            v6: self.cluster.and_then(|c| c.ipv6_normal_route_priority).unwrap_or(1024),
        }
    }

    pub(super) fn ignored_interfaces(&self) -> &'s [String] {
        self.cluster.map(|c| c.ignored_interfaces.as_slice()).unwrap_or_default()
    }

    pub(super) fn local_workload_peering(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.cluster?.local_workload_peering_ipv4.map(Into::into),
            Family::V6 => self.cluster?.local_workload_peering_ipv6.map(Into::into),
        }
    }

    /// Where the monitoring stations listen.
    pub(super) fn stations(&self) -> Vec<SocketAddr> {
        let listed = self.first(|c| Some(&c.bmp_stations).filter(|stations| !stations.is_empty()));
        let address =
            |station: &BmpStation| Some(SocketAddr::new(station.address.addr, station.address.port?));
        listed.into_iter().flatten().filter_map(address).collect()
    }

    /// The communities of routes inside networks.
    pub(super) fn advertised_communities(&self) -> Vec<(Cidr, Vec<Community>)> {
        let of = |c: &'s BgpConfiguration| {
            let list: &[PrefixAdvertisement] = &c.prefix_advertisements;
            (!list.is_empty()).then_some((list, c.communities.as_slice()))
        };
        let (list, names) = self.first(of).unwrap_or_default();
        let value = |text: &String| {
            let named = names.iter().find(|community: &&NamedCommunity| community.name == *text);
            named.map(|community| community.value).or_else(|| text.parse().ok())
        };
        list.iter()
            .map(|advertisement| {
                (advertisement.cidr, advertisement.communities.iter().filter_map(value).collect())
            })
            .collect()
    }
}
