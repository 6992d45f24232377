//! Kubernetes objects as Calico's resources, purely.
//!
//! | object | becomes |
//! |---|---|
//! | Namespace | [`Profile`] `kns.NAME`: allows everything, and gives its pods the labels `pcns.KEY` |
//! | ServiceAccount | [`Profile`] `ksa.NAMESPACE.NAME`: gives its pods the labels `pcsa.KEY` |
//! | Pod | [`WorkloadEndpoint`](crate::resource::WorkloadEndpoint) |
//! | Service | [`KubernetesService`](crate::resource::KubernetesService) |
//! | EndpointSlice (`discovery.k8s.io/v1`) | [`KubernetesEndpointSlice`](crate::resource::KubernetesEndpointSlice) |
//! | NetworkPolicy (`networking.k8s.io/v1`, `extensions/v1beta1`) | [`NetworkPolicy`](crate::resource::NetworkPolicy) `knp.default.NAME`, order 1000 |
//! | ClusterNetworkPolicy (`policy.networking.k8s.io/v1alpha2`) | [`GlobalNetworkPolicy`](crate::resource::GlobalNetworkPolicy) in tier `kube-admin` or `kube-baseline` |
//!
//! [`to_v3`] does so for an object of a user's manifest, whatever its kind.
//!
//! A rule that cannot be converted is reported in [`Converted::faults`] and never widens what may pass: an allowing
//! rule is left out, and one that denies or passes on becomes a rule that denies everything.

mod cluster_policy;
mod manifest;
mod object;
mod pod;
mod policy;
mod selector;
mod service;

use serde_json::Value;

pub use cluster_policy::cluster_network_policy;
pub use manifest::{is_kubernetes, to_v3};
pub use pod::pod;
pub use policy::network_policy;
pub use service::{endpoint_slice, service};

use crate::label::Labels;
use crate::name::Name;
use crate::net::ParseError;
use crate::resource::policy::Rule;
use crate::resource::{Object, Profile};
use crate::wire::{Fault, Faults, FromWire, Path, Report};

use object::ObjectMeta;

/// The label of a workload that says which orchestrator runs it.
pub const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";
/// The label of a workload that says which namespace it is in.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
/// The label of a workload that says which service account it runs under.
pub const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// What a Kubernetes object became.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted<T> {
    /// The resource.
    pub object: T,
    /// What could not be converted and was left out or closed.
    pub faults: Vec<Fault>,
}

/// A Kubernetes object that cannot become a resource at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// Its name cannot be that of a resource.
    #[error("the Kubernetes {kind} cannot be named in Calico")]
    Name {
        /// The kind of object.
        kind: &'static str,
        /// What is wrong with the name.
        #[source]
        source: ParseError,
    },
    /// It breaks the rules of its own kind.
    #[error("the Kubernetes {kind} is invalid: {faults}")]
    Invalid {
        /// The kind of object.
        kind: &'static str,
        /// Everything that is wrong with it.
        faults: Faults,
    },
}

/// Reads a Kubernetes object by its table; fields that the table does not know are let be.
fn read<T: FromWire>(kind: &'static str, value: &Value) -> Result<T, ConversionError> {
    let mut report = Report::default();
    // The root has no name, and every path of a fault begins with a field of it.
    let read = T::from_wire(value, Path::root(kind), &mut report);
    read.ok_or(ConversionError::Invalid { kind, faults: Faults(report.faults) })
}

fn name(kind: &'static str, text: &str) -> Result<Name, ConversionError> {
    text.parse().map_err(|source| ConversionError::Name { kind, source })
}

fn prefixed(prefix: &str, labels: &Labels) -> Labels {
    labels.iter().map(|(key, value)| (format!("{prefix}{key}"), value)).collect()
}

/// Converts a Namespace into the profile that its pods have.
///
/// # Errors
/// When the object is not a Namespace with a name.
pub fn namespace(value: &Value) -> Result<Object<Profile>, ConversionError> {
    let meta = read::<object::Named>("Namespace", value)?.metadata;
    let mut labels = prefixed(crate::selector::NAMESPACE_PREFIX, &meta.labels);
    labels.insert("pcns.projectcalico.org/name", meta.name.as_str());
    // Kubernetes' API server gives every namespace this label, whatever a manifest says, and takes no name that is too long for it.
    if meta.name.len() <= 63 {
        labels.insert("pcns.kubernetes.io/metadata.name", meta.name.as_str());
    }
    let profile =
        Profile { ingress: vec![Rule::allow()], egress: vec![Rule::allow()], labels_to_apply: labels };
    Ok(Object::new(name("Namespace", &format!("kns.{}", meta.name))?, profile))
}

/// Converts a ServiceAccount into the profile that its pods have.
///
/// # Errors
/// When the object is not a ServiceAccount with a name and namespace.
pub fn service_account(value: &Value) -> Result<Object<Profile>, ConversionError> {
    let meta = read::<object::Named>("ServiceAccount", value)?.metadata;
    let mut labels = prefixed(crate::selector::SERVICE_ACCOUNT_PREFIX, &meta.labels);
    labels.insert("pcsa.projectcalico.org/name", meta.name.as_str());
    let profile = Profile { ingress: Vec::new(), egress: Vec::new(), labels_to_apply: labels };
    Ok(Object::new(name("ServiceAccount", &format!("ksa.{}.{}", meta.namespace(), meta.name))?, profile))
}

/// Converts the uid of a Kubernetes object into that of the resource derived from it: its bits reversed, except those
/// of bytes 6 and 8 that say which version of uid it is, so that the two are never the same. Text that is no uid is
/// kept.
#[must_use]
pub fn derived_uid(uid: &str) -> String {
    let hex: String = uid.chars().filter(|c| *c != '-').collect();
    let bytes: Option<Vec<u8>> = (hex.len() == 32 && hex.is_ascii())
        .then(|| (0..16).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()).collect())
        .flatten();
    let Some(bytes) = bytes else { return uid.to_owned() };
    let derived: Vec<String> = bytes
        .iter()
        .enumerate()
        .map(|(i, byte)| if i == 6 || i == 8 { *byte } else { byte.reverse_bits() })
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let part = |range: std::ops::Range<usize>| derived[range].concat();
    [part(0..4), part(4..6), part(6..8), part(8..10), part(10..16)].join("-")
}

fn metadata_of(meta: &ObjectMeta, object: &mut crate::resource::Metadata) {
    object.uid = meta.uid.as_deref().map(derived_uid);
    object.creation_timestamp.clone_from(&meta.creation_timestamp);
}

#[cfg(test)]
mod tests;
