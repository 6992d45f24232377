//! The addresses of services that a node tells by BGP.
//!
//! The networks of services are told by every node, and so is a single address of one that every node takes packets for.
//! No address is told that is in none of the networks which are advertised for its kind: services are written by more people
//! than what routers are told is.
//! A service with the traffic policy `Local` is told only where an endpoint of it is ready: its addresses one by one, those of
//! each family where it is served in that family, because a packet to another one would find nobody there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use calico_model::name::NodeName;
use calico_model::resource::bgp::ServiceNetwork;
use calico_model::resource::ipam::Switch;
use calico_model::resource::service::{ServiceId, ServiceType, TrafficPolicy};
use calico_model::resource::{BgpConfiguration, KubernetesService, Node, Object};
use calico_model::snapshot::Snapshot;
use calico_model::{Cidr, Family};

use super::configuration::Configuration;
use super::object;

/// The label of a node that takes nothing for services from outside the cluster, when it is "true".
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Decides what a node tells for services: the networks that are advertised, and single addresses of services that not
/// every node serves, or that are advertised one by one.
pub(super) fn told(snapshot: &Snapshot, node: &NodeName) -> Vec<Cidr> {
    let local = object(snapshot, node);
    let excluded = local.is_some_and(is_excluded);
    let configuration = Configuration::of(snapshot, node);
    let advertising = |cluster: &&BgpConfiguration| !excluded && cluster.service_networks().next().is_some();
    let Some(cluster) = configuration.cluster().filter(advertising) else { return Vec::new() };
    let balanced = cluster.service_load_balancer_ips.iter().filter(|_| aggregated(cluster));
    // An entry that is one address is told for the service that has it, where that is to be told.
    let outside = cluster.service_external_ips.iter().chain(balanced).filter(|entry| !entry.cidr.is_host());
    let networks = cluster.service_cluster_ips.iter().chain(outside).map(|entry| entry.cidr);
    let served = Served::of(snapshot, local.map_or(node.as_str(), called));
    let services = snapshot.services.values();
    let single = services.flat_map(|service| addresses(cluster, &served, service)).map(Cidr::host);
    networks.chain(single).collect()
}

/// Reports whether a node tells nothing for services.
pub(super) fn is_excluded(local: &Object<Node>) -> bool {
    local.metadata.labels.get(EXCLUDED) == Some("true")
}

/// What Kubernetes calls a node.
fn called(node: &Object<Node>) -> &str {
    let kubernetes = node.spec.orch_refs.iter().find(|reference| reference.orchestrator == "k8s");
    let named = kubernetes.and_then(|reference| reference.node_name.as_deref());
    named.unwrap_or(node.metadata.name.as_str())
}

/// The services with an endpoint that is ready, each with the family of the endpoint's address.
struct Served {
    anywhere: BTreeSet<(ServiceId, Family)>,
    /// Those with an endpoint on this node.
    here: BTreeSet<(ServiceId, Family)>,
}

impl Served {
    fn of(snapshot: &Snapshot, node: &str) -> Self {
        let mut served = Self { anywhere: BTreeSet::new(), here: BTreeSet::new() };
        for slice in snapshot.endpoint_slices.values() {
            let Some(service) = slice.service() else { continue };
            let ready =
                slice.spec.endpoints.iter().filter(|endpoint| endpoint.conditions.ready.unwrap_or(true));
            for endpoint in ready {
                let is_here = endpoint.node_name.as_ref().is_some_and(|name| name.as_str() == node);
                for family in endpoint.addresses.iter().map(|addr| Family::of(*addr)) {
                    served.anywhere.insert((service.clone(), family));
                    if is_here {
                        served.here.insert((service.clone(), family));
                    }
                }
            }
        }
        served
    }
}

fn aggregated(cluster: &BgpConfiguration) -> bool {
    cluster.service_load_balancer_aggregation == Switch::Enabled
}

/// The addresses of a service that a node tells one by one.
fn addresses(cluster: &BgpConfiguration, served: &Served, object: &Object<KubernetesService>) -> Vec<IpAddr> {
    let service = &object.spec;
    let Some(namespace) = object.metadata.namespace.clone().filter(|_| has_address(service)) else {
        return Vec::new();
    };
    let id = ServiceId { namespace, name: object.metadata.name.as_str().into() };
    let everywhere =
        service.external_traffic_policy == Some(TrafficPolicy::Cluster) && is_single(cluster, service);
    let one_by_one = !aggregated(cluster) && service.service_type == ServiceType::LoadBalancer;
    let is_told = |family: Family| match service.external_traffic_policy {
        Some(TrafficPolicy::Local) => served.here.contains(&(id.clone(), family)),
        Some(TrafficPolicy::Cluster) | None => {
            everywhere || one_by_one && served.anywhere.contains(&(id.clone(), family))
        }
    };
    let families: Vec<Family> = Family::ALL.into_iter().filter(|family| is_told(*family)).collect();
    let inside = |networks: &[ServiceNetwork], addr: &IpAddr| networks.iter().any(|n| n.cidr.contains(*addr));
    let inner = service.cluster_ip.iter().chain(&service.cluster_ips);
    let inner = inner.filter(|addr| inside(&cluster.service_cluster_ips, addr));
    let external = service.external_ips.iter().filter(|addr| inside(&cluster.service_external_ips, addr));
    let balanced = service.load_balancer_ips.iter();
    let balanced = balanced.filter(|addr| inside(&cluster.service_load_balancer_ips, addr));
    let all = inner.chain(external).chain(balanced).copied();
    all.filter(|addr| families.contains(&Family::of(*addr))).collect()
}

/// Reports whether a service has addresses at all: it is neither headless nor only a name.
fn has_address(service: &KubernetesService) -> bool {
    service.cluster_ip.is_some() && service.service_type != ServiceType::ExternalName
}

/// Tells whether an address of a service is advertised by an entry of its own.
fn is_single(cluster: &BgpConfiguration, service: &KubernetesService) -> bool {
    let entry = |networks: &[ServiceNetwork], addr: &IpAddr| {
        networks.iter().any(|network| network.cidr == Cidr::host(*addr))
    };
    let mut balanced = service.load_balancer_ip.iter().chain(&service.load_balancer_ips);
    service.service_type == ServiceType::LoadBalancer
        && balanced.any(|addr| entry(&cluster.service_load_balancer_ips, addr))
        || service.external_ips.iter().any(|addr| entry(&cluster.service_external_ips, addr))
}
