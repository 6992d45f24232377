//! Resources from their JSON: the first byte chooses the kind, the rest is the object.
#![no_main]

use calico_model::datastore::Entry;
use calico_model::resource::{API_VERSION, Document, Kind, Resource};
use calico_model::{Revision, Snapshot, Update, v1};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let Some((first, text)) = data.split_first() else { return };
    let kind = Kind::ALL[usize::from(*first) % Kind::ALL.len()];
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else { return };
    let Some(object) = value.as_object_mut() else { return };
    object.insert("apiVersion".to_owned(), API_VERSION.into());
    object.insert("kind".to_owned(), kind.as_str().into());
    let document = Document::from_value(value).expect("the version and the kind are known");
    stored(&document);
    let _ = document.check_input().map_err(|error| error.to_string());
    let resource = match document.check() {
        Ok(resource) => resource,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let written = Document::from(&resource);
    assert_eq!(written.check(), Ok(resource.clone()), "written as {}", written.value());
    unknown_fields_stay(&document, &resource);
    if let Some(old) = v1::from_v3(&resource) {
        let _ = v1::to_v3(&old).map_err(|error| error.to_string());
    }
});

/// A snapshot takes whatever is stored, and a resource that is sound is in it.
fn stored(document: &Document) {
    let Some(key) = document.key() else { return };
    let entry = Entry { key: key.datastore_key(), value: document.stored_form(), revision: Revision(7) };
    let update = Update::from_entry(&entry).expect("the key of a resource");
    let mut snapshot = Snapshot::default();
    snapshot.apply(update);
    assert_eq!(snapshot.invalid.is_empty(), document.check().is_ok(), "{:?}", snapshot.invalid);
}

/// A read-modify-write keeps what this version does not know.
fn unknown_fields_stay(document: &Document, resource: &Resource) {
    let mut newer = document.clone();
    newer.value_mut()["unknown-to-us"] = json!({"a": [1, null]});
    for part in ["metadata", "spec"] {
        if let Some(part) = newer.value_mut().get_mut(part).and_then(Value::as_object_mut) {
            part.insert("unknown-to-us".to_owned(), json!([{"b": 2}]));
        }
    }
    let merged = newer.merged_with(resource);
    assert_eq!(merged.check().as_ref(), Ok(resource), "merged to {}", merged.value());
    assert_eq!(merged.value().get("unknown-to-us"), newer.value().get("unknown-to-us"));
    for part in ["metadata", "spec"] {
        let field = |document: &Document| document.value().get(part)?.get("unknown-to-us").cloned();
        assert_eq!(field(&merged), field(&newer));
    }
}
