//! What every resource carries beside its spec.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::label::Labels;
use crate::name::{Name, Namespace};
use crate::wire::{LABEL_KEY, Others, Path, Report, Shape, is_label_key, wire_struct};

wire_struct! {
    /// A resource's standard metadata.
    pub struct Metadata {
        /// The name, unique within its kind and namespace.
        name: Name = "name" required,
        /// The namespace; `None` for a kind that belongs to the whole cluster.
        namespace: Option<Namespace> = "namespace" optional,
        /// The labels that selectors look at.
        labels: Labels = "labels" empty,
        /// Free notes, never looked at by selectors.
        annotations: BTreeMap<String, String> = "annotations" empty,
        /// An identifier that no other resource ever has, also not a later one of the same name.
        uid: Option<String> = "uid" optional,
        /// When the resource was created, in RFC 3339.
        creation_timestamp: Option<String> = "creationTimestamp" optional,
        /// The datastore revision this was read at. Never stored; a write presents it to prove that it knows the
        /// newest form.
        resource_version: Option<String> = "resourceVersion" optional,
    }
    also = OF_METADATA;
    check = check;
}

/// What Kubernetes' API server adds to metadata.
const OF_METADATA: Others = &[
    ("deletionGracePeriodSeconds", Shape::Whole),
    ("deletionTimestamp", Shape::Text),
    ("finalizers", Shape::List),
    ("generateName", Shape::Text),
    ("generation", Shape::Whole),
    ("managedFields", Shape::List),
    ("ownerReferences", Shape::List),
    ("selfLink", Shape::Text),
];

impl Metadata {
    /// Makes metadata of a name alone.
    #[must_use]
    pub fn named(name: Name) -> Self {
        Self {
            name,
            namespace: None,
            labels: Labels::new(),
            annotations: BTreeMap::new(),
            uid: None,
            creation_timestamp: None,
            resource_version: None,
        }
    }
}

fn check(metadata: &mut Metadata, at: Path<'_>, report: &mut Report) {
    const LIMIT: usize = 256 * 1024;
    let size: usize = metadata.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > LIMIT {
        report.fault(
            at.key("annotations"),
            None,
            format!("must be at most {LIMIT} bytes in all, but are {size}"),
        );
    }
    let annotations_at = at.key("annotations");
    for key in metadata.annotations.keys().filter(|key| !is_label_key(&key.to_lowercase())) {
        report.fault(annotations_at.key(key), Some(&Value::from(key.as_str())), LABEL_KEY);
    }
    if metadata.resource_version.as_deref().is_some_and(|version| version.parse::<u64>().is_err()) {
        let value = metadata.resource_version.clone().map(Value::String);
        report.fault(at.key("resourceVersion"), value.as_ref(), "must be a revision as a read returned it");
    }
}
