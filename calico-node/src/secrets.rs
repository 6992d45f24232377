//! The passwords of BGP sessions, from files: `NAME/KEY` for the entry `KEY` of the Secret `NAME`, as Kubernetes mounts it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use calico_bgp::peers::{Secrets, wanted_secrets};
use calico_bgp::speaker::Password;
use calico_model::Snapshot;

/// The passwords that were read. One that can no longer be read stays as it was: a session that is up must not end
/// because a file is being replaced.
#[derive(Debug)]
pub(crate) struct SecretFiles {
    folder: PathBuf,
    held: BTreeMap<(String, String), Password>,
}

impl SecretFiles {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, held: BTreeMap::new() }
    }

    /// Reads what the resources refer to.
    pub(crate) fn read(&mut self, snapshot: &Snapshot) -> Secrets {
        let wanted = wanted_secrets(snapshot);
        self.held.retain(|secret, _| wanted.contains(secret));
        for (name, key) in wanted {
            if let Some(password) = read(&self.folder, &name, &key) {
                self.held.insert((name, key), password);
            }
        }
        self.held.clone().into_iter().collect()
    }
}

fn read(folder: &Path, name: &str, key: &str) -> Option<Password> {
    let is_plain = |part: &str| !part.is_empty() && !part.contains('/') && part != "." && part != "..";
    if !is_plain(name) || !is_plain(key) {
        return None;
    }
    let text = std::fs::read_to_string(folder.join(name).join(key)).ok()?;
    Password::new(text.trim_end_matches('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_file_of_its_folder_and_nothing_outside() {
        let folder = std::env::temp_dir().join(format!("calico-secrets-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("bgp")).unwrap();
        std::fs::write(folder.join("bgp/rack"), "one\n").unwrap();
        std::fs::write(folder.join("outside"), "two").unwrap();
        assert_eq!(read(&folder, "bgp", "rack"), Password::new("one"));
        for (name, key) in [("bgp", "none"), ("bgp", "../outside"), ("..", "outside"), ("", "outside")] {
            assert_eq!(read(&folder, name, key), None, "{name} {key}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
