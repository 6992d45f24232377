//! Pods as workload endpoints.

use std::net::IpAddr;

use serde_json::Value;

use super::object::ObjectMeta;
use super::{ConversionError, NAMESPACE_LABEL, ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL, metadata_of, read};
use crate::name::{NodeName, pod_interface_name, workload_endpoint_name};
use crate::net::{Cidr, Protocol};
use crate::resource::{EndpointPort, Metadata, Object, WorkloadEndpoint};
use crate::wire::wire_struct;

wire_struct! {
    /// A pod.
    pub(super) struct Source {
        /// The metadata.
        metadata: ObjectMeta = "metadata" required,
        /// The spec.
        spec: Spec = "spec" required,
        /// The status.
        status: Status = "status" default(Status { phase: String::new(), pod_ip: String::new(), pod_ips: Vec::new() }),
    }
}

wire_struct! {
    /// A pod's spec.
    pub(super) struct Spec {
        /// The node it is scheduled on; empty while it is not.
        node_name: String = "nodeName" empty,
        /// Whether it shares the node's network.
        host_network: bool = "hostNetwork" empty,
        /// Its service account.
        service_account_name: String = "serviceAccountName" empty,
        /// Its containers.
        containers: Vec<Container> = "containers" empty,
        /// Its init containers, which may go on running.
        init_containers: Vec<Container> = "initContainers" empty,
    }
}

wire_struct! {
    /// A container.
    pub(super) struct Container {
        /// Its ports.
        ports: Vec<ContainerPort> = "ports" empty,
    }
}

wire_struct! {
    /// A port of a container.
    pub(super) struct ContainerPort {
        /// The name.
        name: String = "name" empty,
        /// The protocol; TCP when absent.
        protocol: Option<Protocol> = "protocol" optional,
        /// The number.
        container_port: u16 = "containerPort" required,
        /// The node's port that leads to it.
        host_port: Option<u16> = "hostPort" optional,
        /// The address of the node at which it does.
        host_ip: Option<String> = "hostIP" optional,
    }
}

wire_struct! {
    /// A pod's status.
    pub(super) struct Status {
        /// How far the pod has come in its life.
        phase: String = "phase" empty,
        /// Its address.
        pod_ip: String = "podIP" empty,
        /// Its addresses.
        pod_ips: Vec<PodIp> = "podIPs" empty,
    }
}

wire_struct! {
    /// An address of a pod.
    pub(super) struct PodIp {
        /// The address.
        ip: String = "ip" empty,
    }
}

/// Converts a Pod; `None` when it has no endpoint: it shares its node's network or is not scheduled.
///
/// A pod that has finished keeps its endpoint and loses its addresses, which may live elsewhere already. Ports that
/// rules cannot name, and addresses that are none, are left out.
///
/// # Errors
/// When the object is not a Pod, or its names cannot be those of an endpoint.
pub fn pod(value: &Value) -> Result<Option<Object<WorkloadEndpoint>>, ConversionError> {
    const KIND: &str = "Pod";
    let source: Source = read(KIND, value)?;
    let (meta, spec) = (&source.metadata, &source.spec);
    if spec.host_network || spec.node_name.is_empty() {
        return Ok(None);
    }
    let named = |source| ConversionError::Name { kind: KIND, source };
    let node: NodeName = spec.node_name.parse().map_err(named)?;
    let name = workload_endpoint_name(&[node.as_str(), "k8s", &meta.name, "eth0"]).map_err(named)?;
    let mut metadata = Metadata::named(name);
    metadata.namespace = Some(meta.namespace().parse().map_err(named)?);
    metadata_of(meta, &mut metadata);
    metadata.labels = meta.labels.clone();
    metadata.labels.insert(NAMESPACE_LABEL, meta.namespace());
    metadata.labels.insert(ORCHESTRATOR_LABEL, "k8s");
    let account = &spec.service_account_name;
    if !account.is_empty() && account.len() < 63 {
        metadata.labels.insert(SERVICE_ACCOUNT_LABEL, account.as_str());
    }

    let mut endpoint = WorkloadEndpoint::on(node);
    endpoint.orchestrator = "k8s".to_owned();
    endpoint.pod.clone_from(&meta.name);
    endpoint.endpoint = "eth0".to_owned();
    endpoint.service_account_name.clone_from(account);
    let container = meta.annotations.get("cni.projectcalico.org/containerID");
    endpoint.container_id = container.filter(|id| is_word(id, 1024)).cloned().unwrap_or_default();
    endpoint.interface_name = Some(pod_interface_name(meta.namespace(), &meta.name));
    endpoint.profiles.push(format!("kns.{}", meta.namespace()).parse().map_err(named)?);
    if !account.is_empty() {
        endpoint.profiles.push(format!("ksa.{}.{account}", meta.namespace()).parse().map_err(named)?);
    }
    endpoint.ip_networks = if has_finished(&source) { Vec::new() } else { addresses(&source) };
    let containers = spec.containers.iter().chain(&spec.init_containers);
    endpoint.ports = containers.flat_map(|container| &container.ports).filter_map(port).collect();
    Ok(Some(Object { metadata, spec: endpoint }))
}

fn has_finished(pod: &Source) -> bool {
    let done = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed" | "Completed");
    let released = pod.metadata.annotations.get("cni.projectcalico.org/podIP").is_some_and(String::is_empty);
    done || (pod.metadata.deletion_timestamp.is_some() && released)
}

/// The status knows best; the annotations are what the CNI plugin wrote before the status did.
fn addresses(pod: &Source) -> Vec<Cidr> {
    let annotation = |key: &str| pod.metadata.annotations.get(key).map(String::as_str).unwrap_or_default();
    let several: Vec<&str> = pod.status.pod_ips.iter().map(|one| one.ip.as_str()).collect();
    let candidates = [
        several,
        vec![pod.status.pod_ip.as_str()],
        annotation("cni.projectcalico.org/podIPs").split(',').collect(),
        vec![annotation("cni.projectcalico.org/podIP")],
    ];
    let host = |text: &&str| {
        let addr = text.split_once('/').map_or(*text, |(addr, _)| addr);
        addr.parse::<IpAddr>().ok().map(Cidr::host)
    };
    let read = candidates.iter().map(|texts| texts.iter().filter_map(host).collect::<Vec<_>>());
    read.into_iter().find(|addrs| !addrs.is_empty()).unwrap_or_default()
}

fn port(port: &ContainerPort) -> Option<EndpointPort> {
    let protocol = port.protocol.unwrap_or(Protocol::TCP);
    let usable = protocol.has_ports() && port.container_port != 0;
    let name = if is_word(&port.name, 128) { &*port.name } else { "" };
    let wanted = !name.is_empty() || port.host_port.is_some();
    (usable && wanted).then(|| EndpointPort {
        host_port: port.host_port,
        host_ip: port.host_ip.as_ref().and_then(|addr| addr.parse().ok()),
        ..EndpointPort::named(name, protocol, port.container_port)
    })
}

/// Reports whether text can name a container or a port of an endpoint.
fn is_word(text: &str, longest: usize) -> bool {
    text.len() <= longest
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}
