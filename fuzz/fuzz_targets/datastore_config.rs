//! The datastore's configuration: `calicoctl.cfg` in both forms, and the environment. No secret is ever in what is said.
#![no_main]

use std::fmt::Debug;
use std::path::Path;

use calico_node::config::DatastoreConfig;
use calico_node::paths::Paths;
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "unspeakable-0451";

fuzz_target!(|data: &[u8]| {
    let paths = Paths::from_vars(|_| None);
    said(&DatastoreConfig::from_file(Path::new("/etc/calico/calicoctl.cfg"), data, &paths), data);
    let Ok(text) = str::from_utf8(data) else { return };
    let var = |name: &str| match name {
        "ETCD_PASSWORD" => Some(SECRET.to_owned()),
        "ETCD_KEY" => Some(SECRET.to_owned()),
        _ => text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)),
    };
    said(&DatastoreConfig::from_vars(var, &paths), data);
});

/// Looks for the secret in all that a user may be shown, unless they wrote it where it is none.
fn said<T: Debug, E: std::error::Error>(outcome: &Result<T, E>, data: &[u8]) {
    let mut text = format!("{outcome:?}");
    if let Err(error) = outcome {
        text += &error.to_string();
    }
    assert!(!text.contains(SECRET) || data.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()));
}
