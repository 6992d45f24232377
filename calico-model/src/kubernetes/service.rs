//! Services and their endpoints.

use serde_json::Value;

use super::object::{Named, ObjectMeta};
use super::{ConversionError, metadata_of, name, read};
use crate::resource::{KubernetesEndpointSlice, KubernetesService, Metadata, Object};
use crate::wire::wire_struct;

wire_struct! {
    /// What of a Service is not in its spec.
    pub(super) struct Source {
        /// The spec.
        spec: KubernetesService = "spec" required,
        /// The status.
        status: Status = "status" default(Status { load_balancer: LoadBalancer { ingress: Vec::new() } }),
    }
}

wire_struct! {
    /// A service's status.
    pub(super) struct Status {
        /// What the load balancer says.
        load_balancer: LoadBalancer = "loadBalancer" default(LoadBalancer { ingress: Vec::new() }),
    }
}

wire_struct! {
    /// What a load balancer says of a service.
    pub(super) struct LoadBalancer {
        /// Where it is reached.
        ingress: Vec<Ingress> = "ingress" empty,
    }
}

wire_struct! {
    /// Where a load balancer is reached.
    pub(super) struct Ingress {
        /// The address; absent when it has a name instead.
        ip: Option<std::net::IpAddr> = "ip" optional,
    }
}

/// Converts a Service. What policy and BGP do not look at is left out.
///
/// # Errors
/// When the object is not a Service, or its name cannot be that of a resource.
pub fn service(value: &Value) -> Result<Object<KubernetesService>, ConversionError> {
    const KIND: &str = "Service";
    let meta = read::<Named>(KIND, value)?.metadata;
    let mut given = value.clone();
    if let Some(spec) = given.get_mut("spec").and_then(Value::as_object_mut) {
        // What Kubernetes writes for no address at all.
        let none = |value: &Value| matches!(value.as_str(), Some("" | "None"));
        spec.retain(|key, value| !(["clusterIP", "loadBalancerIP"].contains(&key.as_str()) && none(value)));
        if let Some(addresses) = spec.get_mut("clusterIPs").and_then(Value::as_array_mut) {
            addresses.retain(|address| !none(address));
        }
    }
    let Source { mut spec, status } = read(KIND, &given)?;
    spec.load_balancer_ips = status.load_balancer.ingress.into_iter().filter_map(|one| one.ip).collect();
    Ok(Object { metadata: metadata(KIND, &meta)?, spec })
}

/// Converts an EndpointSlice. One of names instead of addresses has no endpoints that could be looked at.
///
/// # Errors
/// When the object is not an EndpointSlice, or its name cannot be that of a resource.
pub fn endpoint_slice(value: &Value) -> Result<Object<KubernetesEndpointSlice>, ConversionError> {
    const KIND: &str = "EndpointSlice";
    let meta = read::<Named>(KIND, value)?.metadata;
    let mut given = value.clone();
    if let Some(slice) =
        given.as_object_mut().filter(|slice| slice.get("addressType") == Some(&"FQDN".into()))
    {
        slice.remove("endpoints");
    }
    Ok(Object { metadata: metadata(KIND, &meta)?, spec: read(KIND, &given)? })
}

fn metadata(kind: &'static str, meta: &ObjectMeta) -> Result<Metadata, ConversionError> {
    let mut metadata = Metadata::named(name(kind, &meta.name)?);
    let named = |source| ConversionError::Name { kind, source };
    metadata.namespace = Some(meta.namespace().parse().map_err(named)?);
    metadata.labels = meta.labels.clone();
    metadata_of(meta, &mut metadata);
    Ok(metadata)
}
