//! The outside form of a resource: its JSON, kept whole.

use serde_json::{Map, Value, json};

use super::named::check_name;
use super::status::check_status;
use super::{Kind, Metadata, ObjectId, Resource, ResourceKey, Scope};
use crate::name::{Name, Namespace};
use crate::revision::Revision;
use crate::wire::{
    Fault, Faults, FromWire, Path, Report, Rules, SHOWN, ToWire, UnknownField, cut, merge, quoted,
};

/// The API version of every resource.
pub const API_VERSION: &str = "projectcalico.org/v3";

/// A document that is not a resource we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is not JSON at all.
    #[error("{what} is not JSON: {problem}")]
    NotJson {
        /// Which document.
        what: String,
        /// What the parser says.
        problem: String,
    },
    /// Its `apiVersion` is not ours.
    #[error("apiVersion {0} is not known: write projectcalico.org/v3")]
    UnknownVersion(String),
    /// Its `kind` is not one of ours.
    #[error("kind {0} is not known")]
    UnknownKind(String),
    /// It is an object of Kubernetes that means nothing to Calico.
    #[error("{kind} of {version} is a kind of Kubernetes' own and none of Calico's: give it to kubectl")]
    OfKubernetes {
        /// Its `kind`.
        kind: String,
        /// Its `apiVersion`.
        version: String,
    },
    /// It breaks rules.
    #[error("{what} is invalid: {faults}")]
    Invalid {
        /// Which resource.
        what: String,
        /// Everything that is wrong with it.
        faults: Faults,
    },
    /// It has fields that do not exist. Only a user's input is refused for this.
    #[error("{what} has {} that {kind} does not know: {}", if fields.len() == 1 { "a field" } else { "fields" }, shown(fields))]
    UnknownFields {
        /// Which resource.
        what: String,
        /// Its kind.
        kind: Kind,
        /// The fields.
        fields: Vec<UnknownField>,
    },
}

fn shown(fields: &[UnknownField]) -> String {
    let mut paths: Vec<String> = fields.iter().take(SHOWN).map(ToString::to_string).collect();
    if let Some(more) = fields.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        paths.push(format!("and {more} more"));
    }
    paths.join(", ")
}

/// A resource as it is stored and shown: JSON, with every field, known or not.
///
/// # Examples
/// ```
/// use calico_model::resource::{Document, Resource};
/// let text = r#"{"apiVersion": "projectcalico.org/v3", "kind": "IPPool",
///                "metadata": {"name": "default"}, "spec": {"cidr": "192.168.0.0/16"}}"#;
/// let Resource::IpPool(pool) = Document::from_json(text.as_bytes())?.check_input()? else { panic!() };
/// assert_eq!(pool.spec.block_size, 26);
/// # Ok::<(), calico_model::resource::ReadError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    kind: Kind,
    value: Value,
}

impl Document {
    /// Reads JSON text.
    ///
    /// # Errors
    /// When the text is not JSON, or not of a known API version and kind.
    pub fn from_json(text: &[u8]) -> Result<Self, ReadError> {
        let value = serde_json::from_slice(text).map_err(|error| ReadError::NotJson {
            what: "the value".to_owned(),
            problem: error.to_string(),
        })?;
        Self::from_value(value)
    }

    /// Takes a JSON value.
    ///
    /// # Errors
    /// When it is not of a known API version and kind.
    pub fn from_value(value: Value) -> Result<Self, ReadError> {
        let text = |key: &str| value.get(key).map_or_else(|| "(none)".to_owned(), quoted);
        if value.get("apiVersion").and_then(Value::as_str) != Some(API_VERSION) {
            return Err(ReadError::UnknownVersion(text("apiVersion")));
        }
        let kind = value.get("kind").and_then(Value::as_str).and_then(Kind::from_api_name);
        let kind = kind.ok_or_else(|| ReadError::UnknownKind(text("kind")))?;
        Ok(Self { kind, value })
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the JSON.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Returns the JSON, to change it.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.value
    }

    /// Returns a field of the metadata that is text.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.value.get("metadata")?.get(key)?.as_str()
    }

    /// Sets a field of the metadata.
    pub fn set_metadata(&mut self, key: &str, text: &str) {
        if let Some(metadata) = self.value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert(key.to_owned(), Value::String(text.to_owned()));
        }
    }

    /// Removes a field of the metadata.
    pub fn remove_metadata(&mut self, key: &str) {
        if let Some(metadata) = self.value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove(key);
        }
    }

    /// Returns the key, when the name and namespace are sound.
    #[must_use]
    pub fn key(&self) -> Option<ResourceKey> {
        let name: Name = self.metadata("name")?.parse().ok()?;
        let namespace: Option<Namespace> = match self.kind.scope() {
            Scope::Cluster => None,
            Scope::Namespaced => Some(self.metadata("namespace")?.parse().ok()?),
        };
        Some(ResourceKey { kind: self.kind, id: ObjectId { namespace, name } })
    }

    /// Checks a document from the datastore: fields that we do not know are let be.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] with every fault.
    pub fn check(&self) -> Result<Resource, ReadError> {
        self.read().map(|(resource, _)| resource)
    }

    /// Checks a document that a user wrote: a field that we do not know is an error too.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] with every fault, or [`ReadError::UnknownFields`].
    pub fn check_input(&self) -> Result<Resource, ReadError> {
        let mut report = Report::default();
        let resource = self.read_into(&mut report);
        // A name that is no name at all is told of already.
        if let Some(name) = self.metadata("name").filter(|name| name.parse::<Name>().is_ok()) {
            check_name(self.kind, name, &mut report);
        }
        resource.check_for_name(Rules::of_document(&self.value, &mut report));
        if let Some(status) = self.value.get("status").filter(|status| !status.is_null()) {
            check_status(self.kind, status, &mut report);
        }
        if !report.faults.is_empty() {
            return Err(ReadError::Invalid { what: self.label(), faults: Faults(report.faults) });
        }
        if report.unknown.is_empty() {
            return Ok(resource);
        }
        let unknown = report.unknown;
        Err(ReadError::UnknownFields { what: self.label(), kind: self.kind, fields: unknown })
    }

    /// Returns the part of a sound document that a user of this version can have written: all but the fields that no rule
    /// knows, and the status.
    pub(crate) fn understood(&self) -> Option<Value> {
        let (_, unknown) = self.read().ok()?;
        let mut value = self.value.clone();
        for field in &unknown {
            remove(&mut value, &field.path);
        }
        value.as_object_mut()?.remove("status");
        Some(value)
    }

    /// Returns the faults that a check finds.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let mut report = Report::default();
        self.read_into(&mut report);
        report.faults
    }

    fn read(&self) -> Result<(Resource, Vec<UnknownField>), ReadError> {
        let mut report = Report::default();
        let resource = self.read_into(&mut report);
        if report.faults.is_empty() {
            return Ok((resource, report.unknown));
        }
        Err(ReadError::Invalid { what: self.label(), faults: Faults(report.faults) })
    }

    /// Reads what can be read: the resource is one only when there are no faults.
    fn read_into(&self, report: &mut Report) -> Resource {
        let empty = Value::Object(Map::new());
        let metadata_at = Path::root("metadata");
        let metadata_value = self.value.get("metadata").unwrap_or(&empty);
        let metadata = Metadata::in_part(metadata_value, metadata_at, report);
        let mut rules = Rules::of(metadata_value, metadata_at, report);
        match (self.kind.scope(), metadata.namespace.is_some()) {
            (Scope::Cluster, true) => {
                let rule = format!("must be absent: a {} belongs to the whole cluster", self.kind);
                rules.broken("namespace", &[], rule);
            }
            (Scope::Namespaced, false) => {
                rules.broken("namespace", &[], format!("is required: a {} lives in one", self.kind));
            }
            (Scope::Cluster, false) | (Scope::Namespaced, true) => {}
        }
        if let Some(object) = self.value.as_object() {
            const KNOWN: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
            let unknown = object.keys().filter(|key| !KNOWN.contains(&key.as_str()));
            report.unknown.extend(unknown.map(|key| UnknownField::new(key.clone(), key, KNOWN)));
        }
        let spec = self.value.get("spec").filter(|spec| !spec.is_null()).unwrap_or(&empty);
        Resource::spec_in_part(self.kind, metadata, spec, Path::root("spec"), report)
    }

    fn label(&self) -> String {
        match self.metadata("name") {
            Some(name) => format!("{} {:?}", self.kind, cut(name)),
            None => format!("{} without a name", self.kind),
        }
    }

    /// Returns this document with `resource` written over it: what is not understood stays.
    #[must_use]
    pub fn merged_with(&self, resource: &Resource) -> Document {
        let before = self.check().map_or(Value::Null, |before| Document::from(&before).value);
        Document { kind: self.kind, value: merge(&self.value, &before, &Document::from(resource).value) }
    }

    /// Returns the bytes that the datastore keeps: JSON without `resourceVersion`, which the datastore's own revision
    /// stands for.
    #[must_use]
    pub fn stored_form(&self) -> Vec<u8> {
        let mut copy = self.clone();
        copy.remove_metadata("resourceVersion");
        copy.value.to_string().into_bytes()
    }

    /// Returns the document with the revision it was read at.
    #[must_use]
    pub fn at_revision(mut self, revision: Revision) -> Self {
        self.set_metadata("resourceVersion", &revision.to_string());
        self
    }
}

/// Removes the field at a path as a [`Report`] writes it; a key may have dots of its own.
fn remove(value: &mut Value, path: &str) {
    if let Value::Array(items) = value {
        let inner = path.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        if let Some((index, rest)) = inner {
            let item = index.parse::<usize>().ok().and_then(|index| items.get_mut(index));
            if let Some(item) = item {
                remove(item, rest.strip_prefix('.').unwrap_or(rest));
            }
        }
        return;
    }
    let Value::Object(object) = value else { return };
    if object.remove(path).is_some() {
        return;
    }
    for (key, inner) in object {
        let rest = path.strip_prefix(key.as_str());
        let below =
            rest.and_then(|rest| rest.strip_prefix('.').or_else(|| rest.starts_with('[').then_some(rest)));
        if let Some(below) = below {
            remove(inner, below);
        }
    }
}

impl From<&Resource> for Document {
    fn from(resource: &Resource) -> Self {
        let value = json!({
            "apiVersion": API_VERSION,
            "kind": resource.kind().as_str(),
            "metadata": resource.metadata().to_wire(),
            "spec": resource.spec_to_wire(),
        });
        Self { kind: resource.kind(), value }
    }
}
