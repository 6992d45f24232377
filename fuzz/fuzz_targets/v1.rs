//! Resources of the v1 dialect: the first byte chooses the kind, the rest is the object as JSON.
#![no_main]

use calico_model::{Name, v1};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const KINDS: [&str; 7] =
    ["bgpPeer", "hostEndpoint", "ipPool", "node", "policy", "profile", "workloadEndpoint"];

fuzz_target!(|data: &[u8]| {
    let Some((first, text)) = data.split_first() else { return };
    if let Ok(name) = str::from_utf8(text) {
        normalized(name);
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else { return };
    let Some(object) = value.as_object_mut() else { return };
    object.insert("apiVersion".to_owned(), v1::API_VERSION_V1.into());
    object.insert("kind".to_owned(), KINDS[usize::from(*first) % KINDS.len()].into());
    assert!(v1::is_v1(&value));
    match v1::to_v3(&value) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(document) => match document.check_input() {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(resource) => {
                let _ = v1::from_v3(&resource);
            }
        },
    }
});

/// A name that was made sound stays as it is.
fn normalized(name: &str) {
    let made = v1::normalized(name);
    if made.parse::<Name>().is_ok() {
        assert_eq!(v1::normalized(&made), made);
    }
}
