//! A datastore as one text, to be put into another one.
//!
//! The text has two parts with a line `===` between them: all resources as a YAML list, as `calicoctl get` shows them, and what IPAM
//! has stored, as JSON by key. Everything is carried over as it is stored, unknown fields, UIDs and times included.

use std::collections::BTreeMap;

use calico_model::datastore::{Entry, Key};
use calico_model::manifest;
use calico_model::resource::{API_VERSION, Document, ResourceKey};
use serde_json::{Map, Value, json};

const BETWEEN: &str = "===";

/// A datastore or a text that cannot be carried over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// What is stored is not JSON.
    #[error("{key} holds no JSON: mend or delete it first")]
    Stored {
        /// Its key.
        key: Key,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The text has not two parts.
    #[error("this is no export: it has no line {BETWEEN:?}")]
    NoExport,
    /// A resource of the text is wrong.
    #[error("the resources cannot be read: {0}")]
    Resource(String),
    /// What IPAM had stored is wrong.
    #[error("what IPAM has stored cannot be read")]
    Ipam(#[source] serde_json::Error),
    /// A key of IPAM's part is none of IPAM's.
    #[error("{0} is no key of IPAM")]
    Foreign(String),
}

/// Writes the entries of a datastore as a text.
///
/// # Errors
/// At the first that is not JSON.
pub fn export(entries: &[Entry]) -> Result<String, MigrateError> {
    let (mut resources, mut ipam) = (Vec::new(), Map::new());
    for entry in entries {
        let read = serde_json::from_slice(&entry.value);
        let value: Value = read.map_err(|source| MigrateError::Stored { key: entry.key.clone(), source })?;
        if ResourceKey::from_datastore_key(&entry.key).is_some() {
            resources.push(value);
        } else if is_ipam(entry.key.as_str()) {
            ipam.insert(entry.key.to_string(), value);
        }
    }
    let list = json!({"apiVersion": API_VERSION, "kind": "List", "items": resources});
    Ok(format!("{}{BETWEEN}\n{:#}\n", manifest::to_yaml(&list), Value::Object(ipam)))
}

/// Reads a text back into keys and values.
///
/// # Errors
/// When it is no export, or any part of it is wrong.
pub fn import(text: &str) -> Result<BTreeMap<Key, Vec<u8>>, MigrateError> {
    let (resources, ipam) = text.split_once(&format!("\n{BETWEEN}\n")).ok_or(MigrateError::NoExport)?;
    let mut all = BTreeMap::new();
    for document in manifest::parse(resources.as_bytes()) {
        let document: Document = document.map_err(|error| MigrateError::Resource(error.to_string()))?;
        let key = document.key().ok_or_else(|| {
            MigrateError::Resource(format!("a {} has no name, or one that cannot be", document.kind()))
        })?;
        all.insert(key.datastore_key(), document.value().to_string().into_bytes());
    }
    let ipam: Map<String, Value> = serde_json::from_str(ipam).map_err(MigrateError::Ipam)?;
    for (key, value) in ipam {
        let known = key.parse::<Key>().ok().filter(|_| is_ipam(&key));
        all.insert(known.ok_or(MigrateError::Foreign(key))?, value.to_string().into_bytes());
    }
    Ok(all)
}

fn is_ipam(key: &str) -> bool {
    key.starts_with("/calico/ipam/v2/")
}
