//! The addresses of services that a node tells by BGP.

use std::net::IpAddr;

use calico_model::name::NodeName;
use calico_model::resource::bgp::ServiceNetwork;
use calico_model::resource::ipam::Switch;
use calico_model::resource::service::{ServiceEndpoint, ServiceId, ServiceType, TrafficPolicy};
use calico_model::resource::{BgpConfiguration, KubernetesService, Object};
use calico_model::snapshot::Snapshot;
use calico_model::{Cidr, Family};

use super::configuration::Configuration;
use super::object;

/// The label of a node that takes nothing for services from outside the cluster, when it is "true".
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Decides what a node tells for services: the networks that are advertised, and single addresses of services that not
/// every node serves, or that are advertised one by one.
pub(super) fn told(snapshot: &Snapshot, node: &NodeName) -> Vec<Cidr> {
    let excluded =
        object(snapshot, node).is_some_and(|node| node.metadata.labels.get(EXCLUDED) == Some("true"));
    let configuration = Configuration::of(snapshot, node);
    let Some(cluster) = configuration.cluster().filter(|_| !excluded) else { return Vec::new() };
    let balanced = cluster.service_load_balancer_ips.iter().filter(|_| aggregated(cluster));
    let networks = cluster.service_cluster_ips.iter().chain(&cluster.service_external_ips).chain(balanced);
    let services = snapshot.services.values().filter(|service| is_told(snapshot, cluster, service, node));
    let single = services.flat_map(|service| addresses(cluster, &service.spec)).map(Cidr::host);
    networks.map(|network| network.cidr).chain(single).collect()
}

fn aggregated(cluster: &BgpConfiguration) -> bool {
    cluster.service_load_balancer_aggregation == Switch::Enabled
}

/// Decides whether a node tells the addresses of a service one by one.
fn is_told(
    snapshot: &Snapshot,
    cluster: &BgpConfiguration,
    object: &Object<KubernetesService>,
    node: &NodeName,
) -> bool {
    let service = &object.spec;
    let Some(cluster_ip) = service.cluster_ip else { return false };
    if service.service_type == ServiceType::ExternalName {
        return false;
    }
    let family = Family::of(cluster_ip);
    match service.external_traffic_policy {
        Some(TrafficPolicy::Local) => {
            has_endpoint(snapshot, object, family, |endpoint| endpoint.node_name.as_ref() == Some(node))
        }
        policy => {
            let single = policy.is_some() && is_single(cluster, service);
            single || !aggregated(cluster) && has_endpoint(snapshot, object, family, |_| true)
        }
    }
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

/// Tells whether a service has an endpoint that is ready, of a family and where it is wanted.
fn has_endpoint(
    snapshot: &Snapshot,
    service: &Object<KubernetesService>,
    family: Family,
    wanted: impl Fn(&ServiceEndpoint) -> bool,
) -> bool {
    let of = |id: ServiceId| {
        Some(&id.namespace) == service.metadata.namespace.as_ref()
            && *id.name == *service.metadata.name.as_str()
    };
    let slices = snapshot.endpoint_slices.values().filter(|slice| slice.service().is_some_and(of));
    slices.flat_map(|slice| &slice.spec.endpoints).any(|endpoint| {
        endpoint.conditions.ready.unwrap_or(true)
            && endpoint.addresses.iter().any(|addr| Family::of(*addr) == family)
            && wanted(endpoint)
    })
}

/// The addresses of a service that may be told.
fn addresses<'s>(
    cluster: &'s BgpConfiguration,
    service: &'s KubernetesService,
) -> impl Iterator<Item = IpAddr> + 's {
    let inside = |networks: &'s [ServiceNetwork]| {
        move |addr: &&IpAddr| networks.iter().any(|network| network.cidr.contains(**addr))
    };
    let cluster_ip = service.cluster_ip.iter().filter(|_| !cluster.service_cluster_ips.is_empty());
    let external = service.external_ips.iter().filter(inside(&cluster.service_external_ips));
    let balanced = service.load_balancer_ips.iter().filter(inside(&cluster.service_load_balancer_ips));
    cluster_ip.chain(external).chain(balanced).copied()
}
