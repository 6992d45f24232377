//! The typed client: resources in and out of any [`Datastore`], with the rules that span them.
//!
//! The store below knows keys and bytes. The client knows what a resource must be to be written (its own faults, and
//! what it must not clash with), what may never be written, and what each kind of failure means. It has no clock and no
//! randomness: the identifier and creation time of a new resource come from the caller, as [`Stamp`]s.
//!
//! What is stored beside what this version knows (fields of a newer Calico, a status) survives an update.
//!
//! ```
//! # futures(async {
//! use std::sync::Arc;
//! use calico_model::datastore::client::{Client, Stamp};
//! use calico_model::resource::{IpPool, Object};
//! use calico_model::MemoryStore;
//!
//! let stamps = || Stamp { uid: "11e8f2a4-0000-4000-8000-000000000000".into(), created: "2026-01-01T00:00:00Z".into() };
//! let client = Client::new(Arc::new(MemoryStore::new()), stamps);
//! let pool = Object::new("default-ipv4-ippool".parse()?, IpPool::new("192.168.0.0/16".parse()?));
//! client.of::<IpPool>().create(pool.clone()).await?;
//!
//! let clash = Object::new("second".parse()?, IpPool::new("192.168.7.0/24".parse()?));
//! let refused = client.of::<IpPool>().create(clash).await.unwrap_err();
//! assert!(refused.to_string().contains("default-ipv4-ippool"));
//! # Ok(()) })?;
//! # fn futures(f: impl Future<Output = Result<(), Box<dyn std::error::Error>>>) -> Result<(), Box<dyn std::error::Error>> {
//! #     tokio::runtime::Builder::new_current_thread().build()?.block_on(f)
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod rules;
mod stored;
#[cfg(test)]
mod tests;
mod typed;
mod watch;

use std::sync::Arc;

use serde_json::Value;

use super::{CommitError, Datastore, Entry, Key, Prefix};
use crate::name::{Name, Namespace};
use crate::resource::{
    ClusterInformation, DEFAULT_ALLOW_PROFILE, Document, Kind, Object, ObjectId, Profile, ReadError,
    Resource, ResourceKey, Tier,
};
use crate::revision::Revision;
use crate::wire::merge;

pub use error::ClientError;
pub use stored::ipam_settings;
pub use typed::{Objects, Typed};
pub use watch::{ObjectEvent, ObjectWatch, ResourceEvent, ResourceWatch};

use stored::{Stored, ipam_configuration, nothing_but_a_name};

/// What marks a resource as new and its own: given once, when it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// A UUID that no other resource has.
    pub uid: String,
    /// The time, in RFC 3339.
    pub created: String,
}

/// How often an update that names no revision is tried again when others write at the same time.
const ATTEMPTS: usize = 16;

/// All resources of a kind, or of a kind and namespace, at one revision.
#[derive(Debug, Clone)]
pub struct Documents {
    /// The resources by namespace and name, each with its revision.
    pub items: Vec<Document>,
    /// The entries that are no such resource, and why.
    pub corrupt: Vec<(Key, ReadError)>,
    /// The revision of the store.
    pub revision: Revision,
}

/// A client of a datastore. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    store: Arc<dyn Datastore>,
    stamps: Arc<dyn Fn() -> Stamp + Send + Sync>,
}

impl Client {
    /// Makes a client of `store`; `stamps` is asked once for each resource that is created.
    pub fn new(store: Arc<dyn Datastore>, stamps: impl Fn() -> Stamp + Send + Sync + 'static) -> Self {
        Self { store, stamps: Arc::new(stamps) }
    }

    /// Returns the store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Datastore> {
        &self.store
    }

    /// Returns the same client for checked objects of one kind.
    #[must_use]
    pub fn of<S: crate::resource::Spec>(&self) -> Typed<'_, S> {
        Typed::new(self)
    }

    /// Writes a resource that must not exist yet, and returns it as stored.
    ///
    /// # Errors
    /// [`ClientError::AlreadyExists`], [`ClientError::Invalid`] when it or what it would clash with forbids it,
    /// [`ClientError::Forbidden`] for what may never be written, or the store's own failure.
    pub async fn create(&self, document: &Document) -> Result<Document, ClientError> {
        let mut new = self.prepare(document)?;
        if let Some(version) = &new.resource.metadata().resource_version {
            let rule = "must be absent from a new resource";
            return Err(rules::fault(
                &new.key,
                "metadata.resourceVersion",
                Some(version.clone().into()),
                rule,
            ));
        }
        rules::create(self.store.as_ref(), &new.key, &new.resource).await?;
        self.stamp(&mut new.document);
        let nothing = Stored::default();
        match self.put(&new.key, new.document, &nothing).await {
            Err(ClientError::Conflict { key }) => Err(ClientError::AlreadyExists { key }),
            done => done,
        }
    }

    /// Writes a resource that exists, and returns it as stored.
    ///
    /// Labels, annotations and every field of the spec become what `document` says; a known field that it does not have
    /// is removed. When it has a `resourceVersion` that is no longer the newest the update fails; without one it is made
    /// to whatever is newest.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Conflict`] when the revision is stale, and otherwise as
    /// [`Client::create`].
    pub async fn update(&self, document: &Document) -> Result<Document, ClientError> {
        self.update_from(document, Author::User).await
    }

    async fn update_from(&self, document: &Document, author: Author) -> Result<Document, ClientError> {
        let new = self.prepare(document)?;
        let asked = new.resource.metadata().resource_version.as_deref().and_then(|v| v.parse().ok());
        let asked: Option<Revision> = asked.map(Revision);
        for _ in 0..ATTEMPTS {
            let entries = Stored::of(self.store.as_ref(), &new.key).await?;
            let stored = entries.document(&new.key)?;
            let stored = stored.ok_or_else(|| ClientError::NotFound { key: new.key.clone() })?;
            if asked.is_some() && asked != entries.revision() {
                break;
            }
            let readable = stored.check().ok();
            if let Some(before) = &readable {
                rules::update(self.store.as_ref(), &new.key, before, &new.resource).await?;
            }
            let before = match author {
                Author::User => stored.understood(),
                Author::Program => readable.as_ref().map(|before| Document::from(before).value().clone()),
            };
            let mut next = overlay(&stored, before.as_ref(), &new.document);
            if next.metadata("uid").is_none() {
                self.stamp(&mut next);
            }
            match self.put(&new.key, next, &entries).await {
                Err(ClientError::Conflict { .. }) => {}
                done => return done,
            }
        }
        Err(ClientError::Conflict { key: new.key })
    }

    /// Creates the resource, or updates it when it exists.
    ///
    /// # Errors
    /// As [`Client::create`] and [`Client::update`], except for existing or not existing.
    pub async fn apply(&self, document: &Document) -> Result<Document, ClientError> {
        self.apply_from(document, Author::User).await
    }

    async fn apply_from(&self, document: &Document, author: Author) -> Result<Document, ClientError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.update_from(document, author).await {
                Err(ClientError::NotFound { .. }) => {}
                done => return done,
            }
            let mut fresh = document.clone();
            for key in ["resourceVersion", "uid", "creationTimestamp"] {
                fresh.remove_metadata(key);
            }
            match self.create(&fresh).await {
                Err(error @ ClientError::AlreadyExists { .. }) => last = Some(error),
                done => return done,
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Busy { attempts: ATTEMPTS }))
    }

    /// Deletes a resource and returns what it was; with a revision, only when that is still the newest.
    ///
    /// A pool's blocks and a node's endpoints and addresses are left: releasing them first is the caller's part.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Conflict`], or [`ClientError::Forbidden`] for what every cluster has
    /// and for a tier that has policies.
    pub async fn delete(&self, key: &ResourceKey, at: Option<Revision>) -> Result<Document, ClientError> {
        rules::writable(key)?;
        for _ in 0..ATTEMPTS {
            let stored = Stored::of(self.store.as_ref(), key).await?;
            let Some(revision) = stored.revision() else {
                return Err(ClientError::NotFound { key: key.clone() });
            };
            if at.is_some_and(|at| at != revision) {
                break;
            }
            rules::delete(self.store.as_ref(), key).await?;
            match self.store.commit(stored.deletes()).await {
                Ok(_) => {
                    let was = stored.document(key).ok().flatten();
                    return Ok(was.unwrap_or_else(|| nothing_but_a_name(key)));
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(ClientError::from_commit(key, error)),
            }
        }
        Err(ClientError::Conflict { key: key.clone() })
    }

    /// Reads a resource, with its revision as `resourceVersion`.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Corrupt`] when what is stored is no resource, or the store's failure.
    pub async fn get(&self, key: &ResourceKey) -> Result<Document, ClientError> {
        self.find(key).await?.ok_or_else(|| ClientError::NotFound { key: key.clone() })
    }

    /// Reads a resource, if there is one.
    ///
    /// # Errors
    /// As [`Client::get`], but for [`ClientError::NotFound`].
    pub async fn find(&self, key: &ResourceKey) -> Result<Option<Document>, ClientError> {
        if is_built_in(key) {
            return Ok(Some(built_in_profile()));
        }
        Stored::of(self.store.as_ref(), key).await?.document(key)
    }

    /// Reads all resources of a kind, of one namespace or of all. The built-in profile is among the profiles.
    ///
    /// # Errors
    /// When the store cannot be asked. What is stored and no resource is set apart and ends nothing.
    pub async fn list(&self, kind: Kind, namespace: Option<&Namespace>) -> Result<Documents, ClientError> {
        let listing = self.store.list(&folder(kind, namespace)).await?;
        let mut items = Vec::with_capacity(listing.entries.len());
        let mut corrupt = Vec::new();
        for entry in &listing.entries {
            match read(entry) {
                Ok(document) => items.push(document),
                Err(error) => corrupt.push((entry.key.clone(), error)),
            }
        }
        if kind == Kind::Profile {
            items.retain(|document| document.metadata("name") != Some(DEFAULT_ALLOW_PROFILE));
            let at =
                items.partition_point(|document| document.metadata("name") < Some(DEFAULT_ALLOW_PROFILE));
            items.insert(at, built_in_profile());
        }
        if kind == Kind::IpamConfiguration {
            let key = ipam_configuration();
            items.retain(|document| document.key().as_ref() != Some(&key));
            match self.find(&key).await {
                Ok(document) => items.extend(document),
                Err(ClientError::Corrupt { key, source }) => corrupt = vec![(key, source)],
                Err(error) => return Err(error),
            }
        }
        Ok(Documents { items, corrupt, revision: listing.revision })
    }

    /// Makes the datastore a cluster's: the ClusterInformation (with `cluster_guid`, when it is new) and the tiers that
    /// every cluster has. What is there already stays as it is.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn ensure_initialized(&self, version: &str, cluster_guid: &str) -> Result<(), ClientError> {
        let information = ClusterInformation {
            cluster_guid: cluster_guid.to_owned(),
            cluster_type: String::new(),
            calico_version: version.to_owned(),
            datastore_ready: Some(true),
            variant: "Calico".to_owned(),
        };
        let mut wanted = vec![Resource::from(Object::new(constant(ClusterInformation::NAME), information))];
        wanted.extend(Tier::reserved().map(|(name, tier)| Object::new(constant(name), tier).into()));
        for resource in wanted {
            if self.store.get(&resource.key().datastore_key()).await?.is_some() {
                continue;
            }
            match self.create(&Document::from(&resource)).await {
                Ok(_) | Err(ClientError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Checks what can be checked without the store, and gives the document its defaults and forced labels.
    fn prepare(&self, document: &Document) -> Result<Prepared, ClientError> {
        let document = rules::named(document);
        let mut resource = document.check()?;
        let key = resource.key();
        rules::writable(&key)?;
        rules::alone(&key, &resource)?;
        rules::force_labels(&mut resource);
        Ok(Prepared { document: completed(&document, &resource), resource, key })
    }

    async fn put(
        &self,
        key: &ResourceKey,
        document: Document,
        over: &Stored,
    ) -> Result<Document, ClientError> {
        match self.store.commit(over.puts(key, &document)?).await {
            Ok(revision) => Ok(document.at_revision(revision)),
            Err(error) => Err(ClientError::from_commit(key, error)),
        }
    }

    fn stamp(&self, document: &mut Document) {
        let stamp = (self.stamps)();
        document.set_metadata("uid", &stamp.uid);
        document.set_metadata("creationTimestamp", &stamp.created);
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// Who wrote the new form, which decides what it means that a field is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Author {
    /// A user, who sees every field that is known: the field is to be removed.
    User,
    /// A program, which only has the fields of its types: a field that it does not have stays.
    Program,
}

struct Prepared {
    document: Document,
    resource: Resource,
    key: ResourceKey,
}

/// The document as its author wrote it, with the defaults and forced labels that `resource`, which it was read as, has.
fn completed(document: &Document, resource: &Resource) -> Document {
    let whole = Document::from(resource);
    let mut completed = document.clone();
    fill(completed.value_mut(), whole.value());
    let labels = whole.value().get("metadata").and_then(|metadata| metadata.get("labels"));
    if let (Some(labels), Some(metadata)) = (labels, completed.value_mut().get_mut("metadata")) {
        metadata["labels"] = labels.clone();
    }
    completed
}

/// Gives `value` what `whole` has and it has not; null counts as nothing.
fn fill(value: &mut Value, whole: &Value) {
    match (value, whole) {
        (Value::Object(object), Value::Object(whole)) => {
            object.retain(|_, value| !value.is_null());
            for (key, part) in whole {
                fill(object.entry(key).or_insert_with(|| part.clone()), part);
            }
        }
        (Value::Array(items), Value::Array(whole)) if items.len() == whole.len() => {
            items.iter_mut().zip(whole).for_each(|(item, part)| fill(item, part));
        }
        _ => {}
    }
}

/// Writes `new` over `stored`: what is in `before` and no longer in `new` goes, everything else that `new` does not have
/// stays, and so do the identifier and the creation time. Without `before` nothing that was stored is worth keeping.
fn overlay(stored: &Document, before: Option<&Value>, new: &Document) -> Document {
    let mut next = new.clone();
    if let Some(before) = before {
        *next.value_mut() = merge(stored.value(), before, new.value());
    }
    for key in ["uid", "creationTimestamp"] {
        match stored.metadata(key) {
            Some(text) => next.set_metadata(key, text),
            None => next.remove_metadata(key),
        }
    }
    next
}

fn read(entry: &Entry) -> Result<Document, ReadError> {
    Document::from_json(&entry.value).map(|document| document.at_revision(entry.revision))
}

fn folder(kind: Kind, namespace: Option<&Namespace>) -> Prefix {
    let whole = kind.datastore_prefix();
    match namespace {
        Some(namespace) => Prefix::new(&format!("{whole}{namespace}"))
            .expect("a namespace has no slash and no control character"),
        None => whole,
    }
}

fn is_built_in(key: &ResourceKey) -> bool {
    key.kind == Kind::Profile && key.id.name.as_str() == DEFAULT_ALLOW_PROFILE
}

fn built_in_profile() -> Document {
    let profile: Resource = Object::new(constant(DEFAULT_ALLOW_PROFILE), Profile::allow_all()).into();
    Document::from(&profile).at_revision(Revision(1))
}

fn constant(name: &str) -> Name {
    name.parse().expect("a constant name")
}

/// Makes an id of a name and the namespace it may be in.
impl From<(Option<Namespace>, Name)> for ObjectId {
    fn from((namespace, name): (Option<Namespace>, Name)) -> Self {
        Self { namespace, name }
    }
}
