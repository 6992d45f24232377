//! What the store holds of a resource: an entry of its own, and for the IPAMConfiguration the settings that IPAM reads.
//!
//! IPAM's settings have a key of their own, which `calicoctl ipam configure` and other Calicos write without asking for a
//! resource. So that key is what counts: the resource is read with its settings, whatever its own entry says, and both are
//! written in one commit.

use serde_json::{Map, Value, json};

use super::{ClientError, constant, read};
use crate::datastore::{Datastore, Entry, Precondition, StoreError, Write};
use crate::resource::block::{StoredIpamConfig, config_key};
use crate::resource::{
    API_VERSION, Document, IpamConfiguration, Kind, ObjectId, ReadError, Resource, ResourceKey,
};
use crate::revision::Revision;

/// The entries of a resource, each absent or at its revision.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// The resource's own.
    pub(super) own: Option<Entry>,
    /// The settings of IPAM.
    settings: Option<Entry>,
}

impl Stored {
    /// Reads what is stored of a resource.
    pub(super) async fn of(store: &dyn Datastore, key: &ResourceKey) -> Result<Self, ClientError> {
        let own = store.get(&key.datastore_key()).await?;
        let settings =
            if key.kind == Kind::IpamConfiguration { store.get(&config_key()).await? } else { None };
        Ok(Self { own, settings })
    }

    /// Returns the revision of the newest entry; `None` when nothing is stored.
    pub(super) fn revision(&self) -> Option<Revision> {
        [&self.own, &self.settings].into_iter().flatten().map(|entry| entry.revision).max()
    }

    /// Returns the resource with that revision; `None` when nothing is stored.
    pub(super) fn document(&self, key: &ResourceKey) -> Result<Option<Document>, ClientError> {
        let Some(revision) = self.revision() else { return Ok(None) };
        let mut document = match &self.own {
            Some(entry) => read(entry)
                .map_err(|source| ClientError::Corrupt { key: entry.key.clone(), source })?
                .at_revision(revision),
            None => nothing_but_a_name(key).at_revision(revision),
        };
        if key.kind == Kind::IpamConfiguration {
            overwrite(&mut document, &self.config()?);
        }
        Ok(Some(document))
    }

    /// Returns the writes that make the resource `document`, provided that nothing was changed meanwhile.
    pub(super) fn puts(&self, key: &ResourceKey, document: &Document) -> Result<Vec<Write>, ClientError> {
        let mut writes =
            vec![Write::put(key.datastore_key(), document.stored_form(), unchanged(self.own.as_ref()))];
        if key.kind != Kind::IpamConfiguration {
            return Ok(writes);
        }
        if let Resource::IpamConfiguration(object) = document.check()? {
            let config = object.spec.stored(self.config()?.unknown);
            let value =
                serde_json::to_vec(&config).expect("a configuration has text keys and writes to memory");
            writes.push(Write::put(config_key(), value, unchanged(self.settings.as_ref())));
        }
        Ok(writes)
    }

    /// Returns the writes that remove the resource, provided that nothing was changed meanwhile.
    pub(super) fn deletes(&self) -> Vec<Write> {
        let entries = [&self.own, &self.settings].into_iter().flatten();
        entries.map(|entry| Write::delete(entry.key.clone(), Precondition::At(entry.revision))).collect()
    }

    /// The settings that IPAM goes by now.
    fn config(&self) -> Result<StoredIpamConfig, ClientError> {
        let Some(entry) = &self.settings else { return Ok(StoredIpamConfig::default()) };
        serde_json::from_slice(&entry.value).map_err(|error| {
            let source =
                ReadError::NotJson { what: "the IPAM configuration".to_owned(), problem: error.to_string() };
            ClientError::Corrupt { key: entry.key.clone(), source }
        })
    }
}

/// Returns the writes of one commit that make IPAM's settings `config`, and the IPAMConfiguration say so, for those who
/// watch it: for programs that change the settings without asking for a resource.
///
/// # Errors
/// When the store cannot be asked.
pub async fn ipam_settings(
    store: &dyn Datastore,
    config: &StoredIpamConfig,
    settings: Option<&Entry>,
) -> Result<Vec<Write>, StoreError> {
    let value = serde_json::to_vec(config).expect("a configuration has text keys and writes to memory");
    let mut writes = vec![Write::put(config_key(), value, unchanged(settings))];
    let key = ipam_configuration();
    let own = store.get(&key.datastore_key()).await?;
    let document = match &own {
        Some(entry) => read(entry).ok(),
        None => Some(nothing_but_a_name(&key)),
    };
    // What is no resource stays until somebody looks at it.
    if let Some(mut document) = document {
        overwrite(&mut document, config);
        writes.push(Write::put(key.datastore_key(), document.stored_form(), unchanged(own.as_ref())));
    }
    Ok(writes)
}

/// The key of the one resource that has settings beside it.
pub(super) fn ipam_configuration() -> ResourceKey {
    let id = ObjectId { namespace: None, name: constant(IpamConfiguration::NAME) };
    ResourceKey { kind: Kind::IpamConfiguration, id }
}

/// A document that says which resource it is and nothing more.
pub(super) fn nothing_but_a_name(key: &ResourceKey) -> Document {
    let value = json!({
        "apiVersion": API_VERSION, "kind": key.kind.as_str(), "metadata": {"name": key.id.name.as_str()},
    });
    let mut document = Document::from_value(value).expect("a known version and kind");
    if let Some(namespace) = &key.id.namespace {
        document.set_metadata("namespace", namespace.as_str());
    }
    document
}

fn unchanged(entry: Option<&Entry>) -> Precondition {
    entry.map_or(Precondition::Absent, |entry| Precondition::At(entry.revision))
}

/// Makes the spec say what the settings do.
fn overwrite(document: &mut Document, config: &StoredIpamConfig) {
    let cooldown = Some(config.ip_cooldown_seconds).filter(|seconds| *seconds > 0);
    let fields = json!({
        "strictAffinity": config.strict_affinity,
        "autoAllocateBlocks": config.auto_allocate_blocks,
        "maxBlocksPerHost": config.max_blocks_per_host,
        "kubeVirtVMAddressPersistence": config.kube_virt_vm_address_persistence,
        "ipCooldownSeconds": cooldown,
    });
    let Some(object) = document.value_mut().as_object_mut() else { return };
    let spec = object.entry("spec").or_insert(Value::Null);
    if !spec.is_object() {
        *spec = Value::Object(Map::new());
    }
    let (Value::Object(spec), Value::Object(fields)) = (spec, fields) else { return };
    spec.extend(fields);
    spec.retain(|_, value| !value.is_null());
}
