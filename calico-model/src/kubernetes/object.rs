//! What every Kubernetes object has.

use std::collections::BTreeMap;

use crate::label::Labels;
use crate::wire::wire_struct;

wire_struct! {
    /// A Kubernetes object of which only the metadata counts.
    pub(super) struct Named {
        /// The metadata.
        metadata: ObjectMeta = "metadata" required,
    }
}

wire_struct! {
    /// A Kubernetes object's metadata.
    pub(super) struct ObjectMeta {
        /// The name.
        name: String = "name" required,
        /// The namespace; empty means `default`.
        namespace: String = "namespace" empty,
        /// The labels.
        labels: Labels = "labels" empty,
        /// The annotations.
        annotations: BTreeMap<String, String> = "annotations" empty,
        /// The uid.
        uid: Option<String> = "uid" optional,
        /// When it was created.
        creation_timestamp: Option<String> = "creationTimestamp" optional,
        /// When it is to be deleted.
        deletion_timestamp: Option<String> = "deletionTimestamp" optional,
    }
}

impl ObjectMeta {
    /// Returns the namespace, `default` when none is given.
    pub(super) fn namespace(&self) -> &str {
        if self.namespace.is_empty() { "default" } else { &self.namespace }
    }
}
