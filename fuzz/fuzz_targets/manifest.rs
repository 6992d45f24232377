//! Manifests: the bytes of a file, as calicoctl is given them.
#![no_main]

use calico_model::manifest;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &[u8]| {
    for (position, value) in manifest::values(text) {
        let _ = position.to_string();
        match value {
            Ok(value) => reads_back(&value),
            Err(error) => assert!(!error.to_string().contains('\0')),
        }
    }
    for document in manifest::parse(text) {
        match document {
            Ok(document) => {
                let _ = document.check_input().map_err(|error| error.to_string());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});

/// What is written as YAML is read as the same.
fn reads_back(value: &Value) {
    let written = manifest::to_yaml(value);
    let listed = value.is_array()
        || value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    if listed || value.is_null() {
        return;
    }
    let read: Vec<_> = manifest::values(written.as_bytes()).into_iter().map(|(_, value)| value).collect();
    assert_eq!(read, [Ok(value.clone())], "written as {written:?}");
}
