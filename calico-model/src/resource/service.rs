//! Kubernetes' services and their endpoints, as far as policy and BGP look at them.
//!
//! The keys are those under which Calico keeps them: kinds `KubernetesService` and `KubernetesEndpointSlice`, a namespace and
//! a name. They come from manifests (see [`kubernetes`](crate::kubernetes)), or from whoever follows the API server.

use std::net::IpAddr;

use super::{Metadata, Object};
use crate::name::{Namespace, NodeName};
use crate::net::Protocol;
use crate::wire::{wire_enum, wire_struct};

wire_enum! {
    /// How a service is offered.
    pub enum ServiceType {
        /// At an address inside the cluster.
        ClusterIp = "ClusterIP",
        /// At a port of every node too.
        NodePort = "NodePort",
        /// At an address of a load balancer too.
        LoadBalancer = "LoadBalancer",
        /// As another name in DNS; it has no addresses.
        ExternalName = "ExternalName",
    }
}

wire_enum! {
    /// Which nodes take what comes from outside for a service.
    pub enum TrafficPolicy {
        /// Every node.
        Cluster = "Cluster",
        /// The nodes with an endpoint of the service.
        Local = "Local",
    }
}

wire_struct! {
    /// A `KubernetesService`: a Service of Kubernetes, as far as its addresses are told by BGP.
    pub struct KubernetesService {
        /// How it is offered.
        service_type: ServiceType = "type" default(ServiceType::ClusterIp),
        /// Its address inside the cluster; a headless one has none.
        cluster_ip: Option<IpAddr> = "clusterIP" optional,
        /// All its addresses inside the cluster, the first of which is `cluster_ip`: one of each family that it is served in.
        cluster_ips: Vec<IpAddr> = "clusterIPs" empty,
        /// Addresses from outside the cluster that lead to it.
        external_ips: Vec<IpAddr> = "externalIPs" empty,
        /// Which nodes take what comes from outside.
        external_traffic_policy: Option<TrafficPolicy> = "externalTrafficPolicy" optional,
        /// The address that is asked of the load balancer.
        load_balancer_ip: Option<IpAddr> = "loadBalancerIP" optional,
        /// The addresses that the load balancer has given it: Kubernetes has them in the status.
        load_balancer_ips: Vec<IpAddr> = "loadBalancerIPs" empty,
    }
}

wire_struct! {
    /// A `KubernetesEndpointSlice`: an EndpointSlice of Kubernetes, some of the endpoints of the service that its label
    /// `kubernetes.io/service-name` names.
    pub struct KubernetesEndpointSlice {
        /// The endpoints.
        endpoints: Vec<ServiceEndpoint> = "endpoints" empty,
        /// The ports at which each of them serves.
        ports: Vec<ServicePort> = "ports" empty,
    }
}

wire_struct! {
    /// An endpoint of a service.
    pub struct ServiceEndpoint {
        /// Its addresses.
        addresses: Vec<IpAddr> = "addresses" required,
        /// The node it is on.
        node_name: Option<NodeName> = "nodeName" optional,
        /// How it is.
        conditions: EndpointConditions = "conditions" empty,
    }
}

wire_struct! {
    /// How an endpoint of a service is.
    pub struct EndpointConditions {
        /// Whether it serves; `None` is unknown, and counts as ready.
        ready: Option<bool> = "ready" optional,
    }
}

wire_struct! {
    /// A port at which the endpoints of a service serve.
    pub struct ServicePort {
        /// The name.
        name: String = "name" empty,
        /// The protocol.
        protocol: Protocol = "protocol" default(Protocol::TCP),
        /// The number; `None` is left to whoever reads it, and matches no rule.
        port: Option<u16> = "port" optional,
    }
}

impl Default for EndpointConditions {
    /// Nothing is known.
    fn default() -> Self {
        Self { ready: None }
    }
}

/// The label of an EndpointSlice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What names a service: its namespace and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// The namespace.
    pub namespace: Namespace,
    /// The name.
    pub name: Box<str>,
}

impl std::fmt::Display for ServiceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Object<KubernetesEndpointSlice> {
    /// Returns the service whose endpoints these are; `None` when they are nobody's.
    #[must_use]
    pub fn service(&self) -> Option<ServiceId> {
        let Metadata { namespace, labels, .. } = &self.metadata;
        let name = labels.get(SERVICE_NAME)?.into();
        Some(ServiceId { namespace: namespace.clone()?, name })
    }
}

impl KubernetesEndpointSlice {
    /// Makes a slice of endpoints that serve at some ports.
    #[must_use]
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>, ports: &[(Protocol, u16)]) -> Self {
        let endpoint = |address| ServiceEndpoint {
            addresses: vec![address],
            node_name: None,
            conditions: EndpointConditions::default(),
        };
        let port = |(protocol, port): &(Protocol, u16)| ServicePort {
            name: String::new(),
            protocol: *protocol,
            port: Some(*port),
        };
        Self {
            endpoints: addresses.into_iter().map(endpoint).collect(),
            ports: ports.iter().map(port).collect(),
        }
    }

    /// Returns the addresses of all endpoints, ready or not: policy does not ask.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().copied())
    }

    /// Returns the ports that have a number, with their protocols.
    pub fn numbered_ports(&self) -> impl Iterator<Item = (Protocol, u16)> {
        self.ports.iter().filter_map(|port| Some((port.protocol, port.port?)))
    }
}
