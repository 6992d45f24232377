//! Opening the configured datastore.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use calico_model::Datastore;
use calico_model::datastore::StoreError;
use calico_model::datastore::sqlite::SqliteStore;

use crate::config::{DatastoreConfig, EtcdConfig};

/// A datastore that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file that the configuration names cannot be read.
    #[error("the file {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// This program cannot use etcd.
    #[error("this calico was built without etcd: build with --features etcd")]
    WithoutEtcd,
    /// The store itself says no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens the datastore.
///
/// The embedded one is made when it is not there yet.
///
/// # Errors
/// When the file or server cannot be used.
pub async fn open(config: &DatastoreConfig) -> Result<Arc<dyn Datastore>, OpenError> {
    match config {
        DatastoreConfig::Sqlite { path } => open_sqlite(path),
        DatastoreConfig::Etcd(etcd) => open_etcd(etcd).await,
    }
}

fn open_sqlite(path: &Path) -> Result<Arc<dyn Datastore>, OpenError> {
    Ok(Arc::new(SqliteStore::open(path)?))
}

#[cfg(not(feature = "etcd"))]
async fn open_etcd(_: &EtcdConfig) -> Result<Arc<dyn Datastore>, OpenError> {
    Err(OpenError::WithoutEtcd)
}
