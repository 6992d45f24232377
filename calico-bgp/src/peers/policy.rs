//! What each peer is told and believed.

use std::collections::BTreeMap;

use calico_model::name::Name;
use calico_model::resource::bgp::ServiceNetwork;
use calico_model::resource::filter::FilterRule;
use calico_model::resource::{BgpFilter, Node, Object};
use calico_model::snapshot::Snapshot;
use calico_model::{Cidr, Family};

use super::configuration::Configuration;
use super::services::is_excluded;
use super::{Problem, cluster_id, is_standalone};
use crate::filter::{Export, Facts, Import, Policy, PrefixSet, Program, is_like};
use crate::session::Peering;
use crate::speaker::Exchange;

/// Who a peer is to this node, as far as policy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// A node of the cluster.
    Inside,
    /// A workload of this node.
    Workload,
    /// Somebody else.
    Outside,
}

/// Compiles policies; peers with the same filters share one.
pub(super) struct Policies<'s> {
    snapshot: &'s Snapshot,
    local: &'s Object<Node>,
    configuration: Configuration<'s>,
    compiled: BTreeMap<(Vec<Name>, Peering, Standing), (Policy, Policy)>,
}

impl<'s> Policies<'s> {
    pub(super) fn new(
        snapshot: &'s Snapshot,
        local: &'s Object<Node>,
        configuration: Configuration<'s>,
    ) -> Self {
        Self { snapshot, local, configuration, compiled: BTreeMap::new() }
    }

    /// Returns what is taken from a peer and what it is told.
    pub(super) fn of(
        &mut self,
        filters: &[Name],
        peering: Peering,
        standing: Standing,
        problems: &mut Vec<Problem>,
    ) -> (Exchange, Exchange) {
        let key = (filters.to_vec(), peering, standing);
        if !self.compiled.contains_key(&key) {
            let both = self.compile(filters, peering, standing, problems);
            self.compiled.insert(key.clone(), both);
        }
        let (import, export) = &self.compiled[&key];
        (Exchange::Filtered(import.clone()), Exchange::Filtered(export.clone()))
    }

    fn compile(
        &self,
        names: &[Name],
        peering: Peering,
        standing: Standing,
        problems: &mut Vec<Problem>,
    ) -> (Policy, Policy) {
        let mut filters: Vec<&BgpFilter> = Vec::new();
        for name in names {
            match self.snapshot.bgp_filters.get(&name.clone().into()) {
                Some(filter) => filters.push(&filter.spec),
                None => problems.push(Problem::NoFilter(name.clone())),
            }
        }
        if filters.len() < names.len() {
            return (Policy::new(Program::closed()), Policy::new(Program::closed()));
        }
        let facts = Facts { peering, interfaces: self.interfaces() };
        let imported = |family: Family| -> Vec<&FilterRule> {
            let of = |filter: &&'s BgpFilter| match family {
                Family::V4 => filter.import_v4.iter(),
                Family::V6 => filter.import_v6.iter(),
            };
            filters.iter().flat_map(of).collect()
        };
        let exported = |family: Family| -> Vec<&FilterRule> {
            let of = |filter: &&'s BgpFilter| match family {
                Family::V4 => filter.export_v4.iter(),
                Family::V6 => filter.export_v6.iter(),
            };
            filters.iter().flat_map(of).collect()
        };
        let refused = match (peering, standing) {
            (_, Standing::Workload) => self.around().collect(),
            (Peering::External, Standing::Outside) => self.around().chain(self.between_nodes()).collect(),
            (Peering::Internal, Standing::Outside) | (_, Standing::Inside) => PrefixSet::default(),
        };
        let import = Program::import(imported, &facts, Import { refused });
        let export = Program::export(exported, &facts, self.export());
        (Policy::new(import), Policy::new(export))
    }

    fn export(&self) -> Export {
        let pools = || self.snapshot.pools.values().map(|pool| &pool.spec);
        let services = self.configuration.cluster().filter(|_| cluster_id(&self.local.spec).is_some());
        // A node accepts for its peers whatever is inside the cluster networks that it tells itself.
        let tells = !is_excluded(self.local);
        let services = services.into_iter().flat_map(|cluster| {
            let inner = cluster.service_cluster_ips.iter().filter(move |_| tells);
            cluster.service_load_balancer_ips.iter().chain(&cluster.service_external_ips).chain(inner)
        });
        let services = services.map(|network: &ServiceNetwork| network.cidr);
        Export {
            closed: pools().filter(|pool| pool.disable_bgp_export).map(|pool| pool.cidr).collect(),
            open: pools().map(|pool| pool.cidr).chain(services).collect(),
            communities: self.configuration.advertised_communities(),
            normal_priority: self.configuration.normal_priority(),
        }
    }

    /// The networks of which nothing is taken from outside the cluster, nor from a workload, which is no more trusted: this
    /// node's own blocks and the subnet it is in, and the addresses of other nodes.
    fn around(&self) -> impl Iterator<Item = Cidr> + 's {
        let (snapshot, local) = (self.snapshot, self.local);
        let node = local.metadata.name.as_str();
        let blocks = snapshot.blocks.values();
        let own = blocks.filter(move |block| block.host().is_some_and(|host| host.as_str() == node));
        let addresses = |node: &'s Node| Family::ALL.into_iter().filter_map(|family| node.addr(family));
        let nodes = snapshot.nodes.values().flat_map(move |other| addresses(&other.spec));
        own.map(|block| block.cidr)
            .chain(addresses(&local.spec).map(|address| address.subnet()))
            .chain(nodes.map(|address| Cidr::host(address.addr())))
    }

    /// The networks that nodes tell one another of, while they are in a mesh: inside a pool nothing is taken from outside
    /// then; without the mesh the fabric between them may carry it. A workload may be the router of a pool's networks.
    fn between_nodes(&self) -> impl Iterator<Item = Cidr> + 's {
        let mesh = self.configuration.mesh();
        self.snapshot.pools.values().filter(move |_| mesh).map(|pool| pool.spec.cidr)
    }

    /// The node's interfaces and their networks, without those that are ignored; `None` for a stand-alone reflector.
    fn interfaces(&self) -> Option<Vec<(String, Vec<Cidr>)>> {
        if is_standalone(self.local) {
            return None;
        }
        let ignored = self.configuration.ignored_interfaces();
        let counts = |name: &str| !ignored.iter().any(|pattern| is_like(pattern, name));
        let interfaces = self.local.spec.interfaces.iter().filter(|interface| counts(&interface.name));
        let networks = interfaces.map(|interface| {
            let networks = interface.addresses.iter().map(|address| address.subnet()).collect();
            (interface.name.clone(), networks)
        });
        Some(networks.collect())
    }
}
