//! What a container runtime hands to a CNI plugin: the network configuration, and the arguments as text.
#![no_main]

use calico_node::cni::{Args, Config, ContainerId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let args = str::from_utf8(data).ok().and_then(|text| text.parse::<Args>().ok()).unwrap_or_default();
    if let Ok(text) = str::from_utf8(data) {
        let _ = text.parse::<ContainerId>();
    }
    match Config::parse(data) {
        Err(error) => assert!(!error.to_string().is_empty() && error.code() > 0),
        Ok(config) => {
            let _ = config.ipam.requested_with(&args).map_err(|error| error.to_string());
            let _ = config.datastore_var("ETCD_ENDPOINTS");
        }
    }
});
