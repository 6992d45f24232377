//! A datastore as one text, to be put into another one.
//!
//! The text has two parts with a line `===` between them: all resources as JSON, a line each, and what IPAM has stored, as
//! JSON by key. Everything is carried over as it is stored, unknown fields, UIDs and times included, but for the status that
//! Calico's Felix keeps below `/calico/felix/` and writes anew. Unlike a manifest the text may be of any size: there is no larger
//! unit in it than a resource.

use std::fmt::Write;

use calico_model::Name;
use calico_model::datastore::{Entry, Key};
use calico_model::resource::{ClusterInformation, Document, Kind, ResourceKey};
use serde_json::{Map, Value};

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
    /// What is stored is neither a resource of its key nor IPAM's.
    #[error("{key} holds nothing that can be carried over: delete it first, if nothing needs it")]
    Unknown {
        /// Its key.
        key: Key,
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
/// At the first that is not JSON, or not of a kind that is known.
pub fn export(entries: &[Entry]) -> Result<String, MigrateError> {
    let (mut text, mut ipam) = (String::new(), Map::new());
    for entry in entries.iter().filter(|entry| !entry.key.as_str().starts_with("/calico/felix/")) {
        let read = serde_json::from_slice(&entry.value);
        let value: Value = read.map_err(|source| MigrateError::Stored { key: entry.key.clone(), source })?;
        if is_ipam(entry.key.as_str()) {
            ipam.insert(entry.key.to_string(), value);
            continue;
        }
        let of_key = ResourceKey::from_datastore_key(&entry.key);
        match Document::from_value(value) {
            // Writing to a string does not fail.
            Ok(document) if of_key.is_some() && document.key() == of_key => {
                let _ = writeln!(text, "{}", document.value());
            }
            Ok(_) | Err(_) => return Err(MigrateError::Unknown { key: entry.key.clone() }),
        }
    }
    // Writing to a string does not fail.
    let _ = writeln!(text, "{BETWEEN}\n{:#}", Value::Object(ipam));
    Ok(text)
}

/// Reads a text back into keys and values, in the order in which they are to be written: the ClusterInformation comes first,
/// so that no agent or plugin takes up a datastore that is half full.
///
/// # Errors
/// When it is no export, or any part of it is wrong.
pub fn import(text: &str) -> Result<Vec<(Key, Vec<u8>)>, MigrateError> {
    let parts = match text.strip_prefix(&format!("{BETWEEN}\n")) {
        Some(ipam) => Some(("", ipam)),
        None => text.split_once(&format!("\n{BETWEEN}\n")),
    };
    let (resources, ipam) = parts.ok_or(MigrateError::NoExport)?;
    let mut all = Vec::new();
    for line in resources.lines() {
        let read = Document::from_json(line.as_bytes());
        let document = read.map_err(|error| MigrateError::Resource(error.to_string()))?;
        let key = document.key().ok_or_else(|| {
            MigrateError::Resource(format!("a {} has no name, or one that cannot be", document.kind()))
        })?;
        all.push((key.datastore_key(), document.value().to_string().into_bytes()));
    }
    let name: Name = ClusterInformation::NAME.parse().expect("a constant name");
    let lock = ResourceKey { kind: Kind::ClusterInformation, id: name.into() }.datastore_key();
    all.sort_by_key(|(key, _)| *key != lock);
    let ipam: Map<String, Value> = serde_json::from_str(ipam).map_err(MigrateError::Ipam)?;
    for (key, value) in ipam {
        let known = key.parse::<Key>().ok().filter(|_| is_ipam(&key));
        all.push((known.ok_or(MigrateError::Foreign(key))?, value.to_string().into_bytes()));
    }
    Ok(all)
}

fn is_ipam(key: &str) -> bool {
    key.starts_with("/calico/ipam/v2/")
}

#[cfg(test)]
mod tests {
    use calico_model::manifest;
    use calico_model::{Namespace, Revision};
    use serde_json::json;

    use super::*;

    fn entry(kind: Kind, namespace: Option<&str>, name: &str, note: &str) -> Entry {
        let namespace: Option<Namespace> = namespace.map(|namespace| namespace.parse().unwrap());
        let id =
            calico_model::resource::ObjectId { namespace: namespace.clone(), name: name.parse().unwrap() };
        let mut metadata = json!({ "name": name, "annotations": { "note": note } });
        if let Some(namespace) = namespace {
            metadata["namespace"] = namespace.as_str().into();
        }
        let stored = json!({
            "apiVersion": calico_model::resource::API_VERSION, "kind": kind.as_str(), "metadata": metadata,
            "spec": {}, "unknown": [1],
        });
        let key = ResourceKey { kind, id }.datastore_key();
        Entry { key, value: stored.to_string().into_bytes(), revision: Revision(1) }
    }

    #[test]
    fn an_export_larger_than_any_manifest_is_read_back_the_lock_first() {
        const MIB: usize = 1 << 20;
        let note = "x".repeat(MIB);
        let mut entries: Vec<Entry> = (0..=manifest::MAX_BYTES / MIB)
            .map(|n| entry(Kind::NetworkSet, Some("default"), &format!("n{n:03}"), &note))
            .collect();
        entries.push(entry(Kind::ClusterInformation, None, "default", ""));
        let text = export(&entries).unwrap();
        assert!(text.len() > manifest::MAX_BYTES);
        let read = import(&text).unwrap();
        assert_eq!(read[0].0, entries.last().unwrap().key);
        let mut read: Vec<(Key, Value)> =
            read.into_iter().map(|(key, value)| (key, serde_json::from_slice(&value).unwrap())).collect();
        read.rotate_left(1);
        let stored = |entry: &Entry| (entry.key.clone(), serde_json::from_slice(&entry.value).unwrap());
        assert!(read == entries.iter().map(stored).collect::<Vec<(Key, Value)>>());
    }

    #[test]
    fn what_would_be_lost_is_refused() {
        let at =
            |key: &str| Entry { key: key.parse().unwrap(), value: b"{}".to_vec(), revision: Revision(1) };
        export(&[at("/calico/felix/v2/no-region/host/n1/status")]).unwrap();
        let refused = export(&[at("/calico/dhcp/v1/subnet/10.0.0.0-24")]).unwrap_err();
        assert!(refused.to_string().starts_with("/calico/dhcp/v1/subnet/10.0.0.0-24 holds"), "{refused}");
        let mut astray = entry(Kind::NetworkSet, Some("default"), "one", "");
        astray.key = entry(Kind::NetworkSet, Some("default"), "two", "").key;
        assert!(matches!(export(&[astray]), Err(MigrateError::Unknown { .. })));
    }
}
