//! Watching resources: the store's events as documents, or as checked objects of one kind.

use std::marker::PhantomData;

use super::{Client, Typed, folder, read};
use crate::datastore::{Key, Watch, WatchError, WatchEvent};
use crate::name::Namespace;
use crate::resource::{Document, Kind, Object, ObjectId, ReadError, ResourceKey, Spec};
use crate::revision::Revision;

/// One thing that a watch of resources reports.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ResourceEvent {
    /// A resource was created or changed: this is its form, with its revision.
    Put(Document),
    /// A resource was deleted.
    Deleted {
        /// Which.
        key: ResourceKey,
        /// The revision at which it was.
        revision: Revision,
    },
    /// What was written is no resource. The watch goes on.
    Corrupt {
        /// Where it is stored.
        key: Key,
        /// What is wrong with it.
        source: ReadError,
    },
    /// Everything up to this revision, which was the newest when the watch began, has been told. Comes once.
    InSync(Revision),
}

/// A running watch of resources: see [`Client::watch`]. Dropping it ends it.
pub struct ResourceWatch {
    events: Box<dyn Watch>,
}

impl Client {
    /// Begins to watch the resources of a kind, of one namespace or of all: every change after `from`, which is the revision
    /// of a [listing](Client::list), once and in order.
    ///
    /// The built-in profile never changes, and the IPAMConfiguration is told of when it is changed as a resource or by
    /// `calicoctl ipam configure`.
    ///
    /// # Errors
    /// [`WatchError::TooOld`] when changes since `from` are no longer kept: list again. Otherwise the store's failure.
    pub async fn watch(
        &self,
        kind: Kind,
        namespace: Option<&Namespace>,
        from: Revision,
    ) -> Result<ResourceWatch, WatchError> {
        let events = self.store().watch(&folder(kind, namespace), from).await?;
        Ok(ResourceWatch { events })
    }
}

impl ResourceWatch {
    /// Waits for the next event. Cancel-safe, as the store's own watch is.
    ///
    /// # Errors
    /// When the watch has ended: watch again from the last revision seen, or list again, as the error says.
    pub async fn next(&mut self) -> Result<ResourceEvent, WatchError> {
        loop {
            match self.events.next().await? {
                WatchEvent::InSync(revision) => return Ok(ResourceEvent::InSync(revision)),
                WatchEvent::Put(entry) => {
                    return Ok(match read(&entry) {
                        Ok(document) => ResourceEvent::Put(document),
                        Err(source) => ResourceEvent::Corrupt { key: entry.key, source },
                    });
                }
                WatchEvent::Deleted { key, revision } => {
                    // What is not where a resource can be was told as corrupt, and its end is nobody's news.
                    if let Some(key) = ResourceKey::from_datastore_key(&key) {
                        return Ok(ResourceEvent::Deleted { key, revision });
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for ResourceWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResourceWatch").finish_non_exhaustive()
    }
}

/// One thing that a watch of objects reports.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ObjectEvent<S> {
    /// An object was created or changed: this is its form, with its revision.
    Put(Object<S>),
    /// An object was deleted.
    Deleted {
        /// Which.
        id: ObjectId,
        /// The revision at which it was.
        revision: Revision,
    },
    /// What was written is no object of the kind. The watch goes on.
    Invalid {
        /// Where it is stored.
        key: Key,
        /// What is wrong with it.
        source: ReadError,
    },
    /// Everything up to this revision, which was the newest when the watch began, has been told. Comes once.
    InSync(Revision),
}

/// A running watch of objects: see [`Typed::watch`]. Dropping it ends it.
pub struct ObjectWatch<S> {
    events: Box<dyn Watch>,
    kind: PhantomData<fn() -> S>,
}

impl<S: Spec> Typed<'_, S> {
    /// Begins to watch the objects of one namespace, or of all; see [`Client::watch`].
    ///
    /// # Errors
    /// As [`Client::watch`].
    pub async fn watch(
        &self,
        namespace: Option<&Namespace>,
        from: Revision,
    ) -> Result<ObjectWatch<S>, WatchError> {
        let ResourceWatch { events } = self.client.watch(S::KIND, namespace, from).await?;
        Ok(ObjectWatch { events, kind: PhantomData })
    }
}

impl<S: Spec> ObjectWatch<S> {
    /// Waits for the next event; see [`ResourceWatch::next`].
    ///
    /// # Errors
    /// As [`ResourceWatch::next`].
    pub async fn next(&mut self) -> Result<ObjectEvent<S>, WatchError> {
        loop {
            match self.events.next().await? {
                WatchEvent::InSync(revision) => return Ok(ObjectEvent::InSync(revision)),
                WatchEvent::Put(entry) => {
                    return Ok(match read(&entry).and_then(|document| object_of(&document)) {
                        Ok(object) => ObjectEvent::Put(object),
                        Err(source) => ObjectEvent::Invalid { key: entry.key, source },
                    });
                }
                WatchEvent::Deleted { key, revision } => {
                    if let Some(key) = ResourceKey::from_datastore_key(&key) {
                        return Ok(ObjectEvent::Deleted { id: key.id, revision });
                    }
                }
            }
        }
    }
}

impl<S> std::fmt::Debug for ObjectWatch<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectWatch").finish_non_exhaustive()
    }
}

fn object_of<S: Spec>(document: &Document) -> Result<Object<S>, ReadError> {
    S::from_resource(document.check()?).ok_or_else(|| ReadError::UnknownKind(document.kind().to_string()))
}
