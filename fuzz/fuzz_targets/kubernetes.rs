//! Kubernetes objects as JSON, each by every conversion: what they become is sound.
#![no_main]

use calico_model::kubernetes;
use calico_model::resource::{Document, Resource};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &[u8]| {
    let Ok(value) = serde_json::from_slice::<Value>(text) else { return };
    let converted = [
        kubernetes::namespace(&value).map(|object| Some(Resource::from(object))),
        kubernetes::service_account(&value).map(|object| Some(object.into())),
        kubernetes::pod(&value).map(|object| object.map(Resource::from)),
        kubernetes::network_policy(&value).map(|converted| Some(converted.object.into())),
        kubernetes::cluster_network_policy(&value).map(|converted| Some(converted.object.into())),
    ];
    for converted in converted {
        match converted {
            Ok(Some(resource)) => {
                let written = Document::from(&resource);
                let read =
                    written.check().unwrap_or_else(|error| panic!("{error}: written as {}", written.value()));
                // A policy without rules is of no direction; once written, that means the usual one.
                if !matches!(&resource, Resource::GlobalNetworkPolicy(policy) if policy.spec.types.is_empty())
                {
                    assert_eq!(read, resource, "written as {}", written.value());
                }
            }
            Ok(None) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    if let Some(uid) = value.as_str() {
        let _ = kubernetes::derived_uid(uid);
    }
});
