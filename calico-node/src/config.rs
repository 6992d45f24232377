//! Which datastore to use: what the user wrote, then what the program needs.
//!
//! Calico's users write it into the environment (`DATASTORE_TYPE`, `ETCD_ENDPOINTS`, ...) or into a file
//! (`/etc/calico/calicoctl.cfg`, in the form of `projectcalico.org/v3` or of `v1`). A file that is there is all that
//! counts; the environment is not mixed in. With nothing written at all it is the embedded datastore.

mod file;
mod secret;
#[cfg(test)]
mod tests;
mod written;

use std::io;
use std::path::{Path, PathBuf};

use crate::paths::Paths;

pub use secret::Secret;
use written::Written;

/// Where the configuration file is when none is named.
pub const DEFAULT_FILE: &str = "/etc/calico/calicoctl.cfg";

/// Which datastore to open, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatastoreConfig {
    /// The embedded one: one SQLite file.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
    /// A cluster of etcd servers.
    Etcd(EtcdConfig),
}

/// How to reach etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// The servers, as `https://host:port`. Never empty.
    pub endpoints: Vec<String>,
    /// The user and the password, when etcd asks for them.
    pub user: Option<(String, Secret)>,
    /// The authorities that may have signed the servers' certificates.
    pub ca: Option<Pem>,
    /// Our own certificate and its key.
    pub certificate: Option<(Pem, Pem)>,
}

/// A certificate or key in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    /// It is in a file.
    File(PathBuf),
    /// It was written into the configuration itself.
    Inline(Secret),
}

/// A configuration, and what a user should know about what they wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The datastore.
    pub datastore: DatastoreConfig,
    /// Sentences for the user; nothing is wrong.
    pub warnings: Vec<String>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what a configuration file is.
    #[error("the configuration file {} is wrong: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A setting has a value that it cannot have.
    #[error("{name} is {value:?}, but must be {expected}")]
    Value {
        /// The variable, or the field of a file.
        name: String,
        /// Its value.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// A setting is missing that another one needs.
    #[error("{name} is not set, but {because}")]
    Missing {
        /// The variable, or the field of a file.
        name: String,
        /// What needs it.
        because: String,
    },
    /// A setting asks for something that there is not.
    #[error("{name} is not supported: {remedy}")]
    Unsupported {
        /// The variable with its value, or the field of a file.
        name: String,
        /// What to do instead.
        remedy: &'static str,
    },
}

impl DatastoreConfig {
    /// Finds the configuration: `file` when one is named, else [`DEFAULT_FILE`] when it exists, else the variables
    /// that `var` gives.
    ///
    /// # Errors
    /// When the file cannot be read, or what is written cannot be used.
    pub fn load(
        file: Option<&Path>,
        var: impl Fn(&str) -> Option<String>,
        paths: &Paths,
    ) -> Result<Loaded, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read(path) {
            Ok(text) => Self::from_file(path, &text, paths),
            Err(error) if file.is_none() && error.kind() == io::ErrorKind::NotFound => {
                Self::from_vars(var, paths)
            }
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// Takes the configuration from variables, as `var` gives them. Each may have `CALICO_` before its name; one that is
    /// empty counts as unset.
    ///
    /// # Errors
    /// When what is written cannot be used.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>, paths: &Paths) -> Result<Loaded, ConfigError> {
        Written::from_vars(var).resolve(paths)
    }

    /// Takes the configuration from the text of a file; `path` is for errors.
    ///
    /// # Errors
    /// When the text is not a configuration, has a field that none has, or cannot be used.
    pub fn from_file(path: &Path, text: &[u8], paths: &Paths) -> Result<Loaded, ConfigError> {
        file::read(path, text)?.resolve(paths)
    }

    /// Returns the datastore's name for people, without secrets.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Sqlite { path } => path.display().to_string(),
            Self::Etcd(etcd) => etcd.endpoints.join(","),
        }
    }
}
