//! Kubernetes objects as they stand in manifests.

use serde_json::Value;

use super::{
    ConversionError, Converted, cluster_network_policy, endpoint_slice, namespace, network_policy, pod,
    service, service_account,
};
use crate::resource::{Document, Object, ReadError, Resource, Spec};
use crate::wire::{Fault, Faults, quoted};

/// Reports whether a document is of an API of Kubernetes: its core (`v1`), a group without a domain (`apps`) or one of
/// `k8s.io`.
#[must_use]
pub fn is_kubernetes(value: &Value) -> bool {
    let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    match version.split_once('/') {
        Some((group, _)) => group.ends_with(".k8s.io") || !group.contains('.') && !group.is_empty(),
        None => version == "v1",
    }
}

/// Converts a Kubernetes object into the resource that it means to Calico.
///
/// # Errors
/// [`ReadError::OfKubernetes`] for a kind that means nothing to Calico, and [`ReadError::Invalid`] with every fault: a
/// user's object of which a part cannot be converted is refused whole.
pub fn to_v3(value: &Value) -> Result<Document, ReadError> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        ("networking.k8s.io/v1" | "extensions/v1beta1", "NetworkPolicy") => {
            network_policy(value).map_err(ReadError::from).and_then(whole)
        }
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy") => {
            cluster_network_policy(value).map_err(ReadError::from).and_then(whole)
        }
        ("v1", "Namespace") => Ok(document(namespace(value)?)),
        ("v1", "ServiceAccount") => Ok(document(service_account(value)?)),
        ("v1", "Service") => Ok(document(service(value)?)),
        ("discovery.k8s.io/v1", "EndpointSlice") => Ok(document(endpoint_slice(value)?)),
        ("v1", "Pod") => match pod(value)? {
            Some(endpoint) => Ok(document(endpoint)),
            None => {
                let rule = "is required, and spec.hostNetwork must not be true: a pod that is not scheduled, or has its node's network, has no endpoint";
                Err(invalid("Pod", vec![fault("spec.nodeName", None, rule.to_owned())]))
            }
        },
        (version, kind) => {
            let quoted = |text: &str| quoted(&Value::from(text)).trim_matches('"').to_owned();
            Err(ReadError::OfKubernetes { kind: quoted(kind), version: quoted(version) })
        }
    }
}

fn document<S: Spec>(object: Object<S>) -> Document {
    Document::from(&S::into_resource(object))
}

fn whole<S: Spec>(converted: Converted<Object<S>>) -> Result<Document, ReadError> {
    if converted.faults.is_empty() {
        return Ok(document(converted.object));
    }
    let resource: Resource = S::into_resource(converted.object);
    Err(invalid(resource.metadata().name.as_str(), converted.faults))
}

fn invalid(what: &str, faults: Vec<Fault>) -> ReadError {
    ReadError::Invalid { what: format!("Kubernetes {what}"), faults: Faults(faults) }
}

fn fault(path: &str, value: Option<String>, rule: String) -> Fault {
    Fault { path: path.to_owned(), value, rule, snippet: None }
}

impl From<ConversionError> for ReadError {
    fn from(error: ConversionError) -> Self {
        match error {
            ConversionError::Name { kind, source } => {
                let value = quoted(&Value::from(source.value.as_str()));
                invalid(kind, vec![fault("metadata.name", Some(value), source.to_string())])
            }
            ConversionError::Invalid { kind, faults } => {
                let of_root = format!("{kind}.");
                let faults = faults.0.into_iter().map(|fault| Fault {
                    path: fault.path.strip_prefix(&of_root).unwrap_or(&fault.path).to_owned(),
                    ..fault
                });
                invalid(kind, faults.collect())
            }
        }
    }
}
