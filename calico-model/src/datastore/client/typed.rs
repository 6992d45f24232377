//! The client for checked objects of one kind.

use std::marker::PhantomData;

use super::{ATTEMPTS, Author, Client, ClientError};
use crate::datastore::Key;
use crate::name::Namespace;
use crate::resource::{Document, Metadata, Object, ObjectId, ReadError, Resource, ResourceKey, Spec};
use crate::revision::Revision;

/// A [`Client`] for one kind: see [`Client::of`].
#[derive(Debug, Clone, Copy)]
pub struct Typed<'c, S> {
    pub(super) client: &'c Client,
    kind: PhantomData<fn() -> S>,
}

/// All objects of a kind, or of a kind and namespace, at one revision.
#[derive(Debug, Clone)]
pub struct Objects<S> {
    /// The objects that are sound, by namespace and name.
    pub items: Vec<Object<S>>,
    /// The entries that are not, and why.
    pub invalid: Vec<(Key, ReadError)>,
    /// The revision of the store.
    pub revision: Revision,
}

impl<'c, S: Spec> Typed<'c, S> {
    pub(super) fn new(client: &'c Client) -> Self {
        Self { client, kind: PhantomData }
    }

    /// Writes an object that must not exist yet; see [`Client::create`].
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn create(&self, object: Object<S>) -> Result<Object<S>, ClientError> {
        object_of(&self.client.create(&document(object)).await?)
    }

    /// Writes an object that exists; see [`Client::update`]. What is stored and not a field of the object's type stays.
    ///
    /// # Errors
    /// As [`Client::update`].
    pub async fn update(&self, object: Object<S>) -> Result<Object<S>, ClientError> {
        object_of(&self.client.update_from(&document(object), Author::Program).await?)
    }

    /// Writes an object whether or not it exists; see [`Client::apply`].
    ///
    /// # Errors
    /// As [`Client::apply`].
    pub async fn apply(&self, object: Object<S>) -> Result<Object<S>, ClientError> {
        object_of(&self.client.apply_from(&document(object), Author::Program).await?)
    }

    /// Changes an object that exists, again and again until no other writer comes between; `change` sees the newest form.
    ///
    /// # Errors
    /// As [`Client::update`]; [`ClientError::Conflict`] only when others write all the time.
    pub async fn modify(
        &self,
        id: &ObjectId,
        mut change: impl FnMut(&mut Metadata, &mut S),
    ) -> Result<Object<S>, ClientError> {
        for _ in 1..ATTEMPTS {
            match self.modify_once(id, &mut change).await {
                Err(ClientError::Conflict { .. }) => {}
                done => return done,
            }
        }
        self.modify_once(id, &mut change).await
    }

    async fn modify_once(
        &self,
        id: &ObjectId,
        change: &mut impl FnMut(&mut Metadata, &mut S),
    ) -> Result<Object<S>, ClientError> {
        let before = self.get(id).await?;
        let mut after = before.clone();
        change(&mut after.metadata, &mut after.spec);
        if after == before { Ok(before) } else { self.update(after).await }
    }

    /// Deletes an object; see [`Client::delete`].
    ///
    /// # Errors
    /// As [`Client::delete`].
    pub async fn delete(&self, id: &ObjectId, at: Option<Revision>) -> Result<(), ClientError> {
        self.client.delete(&key::<S>(id), at).await.map(|_| ())
    }

    /// Reads an object, with its revision in the metadata.
    ///
    /// # Errors
    /// As [`Client::get`]; [`ClientError::Invalid`] when what is stored breaks the rules of its kind.
    pub async fn get(&self, id: &ObjectId) -> Result<Object<S>, ClientError> {
        object_of(&self.client.get(&key::<S>(id)).await?)
    }

    /// Reads an object, if there is one.
    ///
    /// # Errors
    /// As [`Typed::get`], but for [`ClientError::NotFound`].
    pub async fn find(&self, id: &ObjectId) -> Result<Option<Object<S>>, ClientError> {
        self.client.find(&key::<S>(id)).await?.as_ref().map(object_of).transpose()
    }

    /// Reads all objects of one namespace, or of all.
    ///
    /// # Errors
    /// When the store cannot be asked. Entries that are not sound are set apart and end nothing.
    pub async fn list(&self, namespace: Option<&Namespace>) -> Result<Objects<S>, ClientError> {
        let documents = self.client.list(S::KIND, namespace).await?;
        let mut objects =
            Objects { items: Vec::new(), invalid: documents.corrupt, revision: documents.revision };
        for document in &documents.items {
            match document.check().map(S::from_resource) {
                Ok(Some(object)) => objects.items.push(object),
                Ok(None) => {}
                Err(error) => {
                    objects.invalid.extend(document.key().map(|key| (key.datastore_key(), error)));
                }
            }
        }
        Ok(objects)
    }
}

fn key<S: Spec>(id: &ObjectId) -> ResourceKey {
    ResourceKey { kind: S::KIND, id: id.clone() }
}

fn document<S: Spec>(object: Object<S>) -> Document {
    let resource: Resource = S::into_resource(object);
    Document::from(&resource)
}

fn object_of<S: Spec>(document: &Document) -> Result<Object<S>, ClientError> {
    let resource = document.check()?;
    S::from_resource(resource).ok_or_else(|| ReadError::UnknownKind(document.kind().to_string()).into())
}
