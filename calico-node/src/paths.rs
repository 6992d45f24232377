//! Where the programs of one host meet: files and sockets with fixed names.

use std::path::{Path, PathBuf};

/// The folders that the programs of one host share. Several nodes on one machine (a lab) each have their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    run: PathBuf,
    lib: PathBuf,
}

impl Paths {
    /// Takes the folders from `CALICO_RUN_DIR` (`/var/run/calico`) and `CALICO_LIB_DIR` (`/var/lib/calico`), as `var`
    /// gives them. An empty variable counts as unset.
    #[must_use]
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let folder = |name: &str, default: &str| {
            PathBuf::from(var(name).filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned()))
        };
        Self {
            run: folder("CALICO_RUN_DIR", "/var/run/calico"),
            lib: folder("CALICO_LIB_DIR", "/var/lib/calico"),
        }
    }

    /// Takes the folders from this process's environment.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// Returns the folder for what lives as long as the machine is up.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Returns the folder for what outlives a reboot.
    #[must_use]
    pub fn lib_dir(&self) -> &Path {
        &self.lib
    }

    /// Returns the agent's local socket, over which `calicoctl node status` asks.
    #[must_use]
    pub fn status_socket(&self) -> PathBuf {
        self.run.join("calico-node.sock")
    }

    /// Returns the file in which the agent leaves the node's name for the CNI plugin.
    #[must_use]
    pub fn nodename_file(&self) -> PathBuf {
        self.lib.join("nodename")
    }

    /// Returns the file in which the agent leaves the workloads' MTU for the CNI plugin.
    #[must_use]
    pub fn mtu_file(&self) -> PathBuf {
        self.lib.join("mtu")
    }

    /// Returns the folder of the passwords that resources refer to: `NAME/KEY` for the entry `KEY` of the Secret `NAME`.
    #[must_use]
    pub fn secrets_dir(&self) -> PathBuf {
        self.lib.join("secrets")
    }

    /// Returns the embedded datastore's file when `CALICO_DATASTORE_PATH` names no other.
    #[must_use]
    pub fn default_datastore(&self) -> PathBuf {
        self.lib.join("calico.db")
    }

    /// Returns the folder in which the agent marks endpoints whose policy is in force: a file for each interface, which
    /// holds the revision of its endpoint. The CNI plugin waits for it.
    #[must_use]
    pub fn endpoint_status_dir(&self) -> PathBuf {
        self.run.join("endpoint-status")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let paths = Paths::from_vars(|name| (name == "CALICO_RUN_DIR").then(String::new));
        assert_eq!(paths.status_socket(), Path::new("/var/run/calico/calico-node.sock"));
        let paths = Paths::from_vars(|name| (name == "CALICO_LIB_DIR").then(|| "/tmp/x".to_owned()));
        assert_eq!(paths.nodename_file(), Path::new("/tmp/x/nodename"));
    }
}
