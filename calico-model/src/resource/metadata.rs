//! What every resource carries beside its spec.

use std::collections::BTreeMap;

use crate::label::Labels;
use crate::name::{Name, Namespace};
use crate::wire::{LABEL_KEY, Others, Rules, Shape, is_label_key, wire_struct};

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

fn check(metadata: &mut Metadata, mut rules: Rules<'_, '_, '_>) {
    const LIMIT: usize = 256 * 1024;
    let size: usize = metadata.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > LIMIT {
        let rule = format!("must be at most {LIMIT} bytes in all, but are {size}");
        rules.broken("annotations", &[], rule);
    }
    for key in metadata.annotations.keys().filter(|key| !is_label_key(&key.to_lowercase())) {
        rules.wrong_key("annotations", key, LABEL_KEY);
    }
    if metadata.resource_version.as_deref().is_some_and(|version| version.parse::<u64>().is_err()) {
        rules.wrong("resourceVersion", "must be a revision as a read returned it");
    }
}
