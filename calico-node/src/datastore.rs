//! Opening the configured datastore.

use std::path::Path;
use std::sync::Arc;

use calico_model::Datastore;
use calico_model::datastore::StoreError;
use calico_model::datastore::sqlite::SqliteStore;

#[cfg(feature = "etcd")]
use crate::config::Pem;
use crate::config::{DatastoreConfig, EtcdConfig};

/// A datastore that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
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

#[cfg(feature = "etcd")]
async fn open_etcd(config: &EtcdConfig) -> Result<Arc<dyn Datastore>, OpenError> {
    use calico_model::datastore::etcd::{self, EtcdStore};
    let pem = |pem: &Pem| match pem {
        Pem::File(path) => etcd::Pem::File(path.clone()),
        Pem::Inline(text) => etcd::Pem::Inline(text.expose().as_bytes().to_vec()),
    };
    let mut settings = etcd::EtcdConfig::new(config.endpoints.iter().cloned());
    if let Some((name, password)) = &config.user {
        settings = settings.with_user(name, password.expose());
    }
    if let Some(ca) = &config.ca {
        settings = settings.with_ca(pem(ca));
    }
    if let Some((certificate, key)) = &config.certificate {
        settings = settings.with_client_certificate(pem(certificate), pem(key));
    }
    Ok(Arc::new(EtcdStore::new(settings)?))
}
