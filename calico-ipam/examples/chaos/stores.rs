//! The two stores, and what both begin with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use calico_model::datastore::etcd::local::LocalCluster;
use calico_model::datastore::etcd::{EtcdConfig, EtcdStore};
use calico_model::datastore::sqlite::SqliteStore;
use calico_model::datastore::{Datastore, Precondition, Write};
use calico_model::resource::{Document, IpPool, Object, Resource};

use crate::Failure;

/// The pool: 32 blocks of eight addresses, which is too few for sixteen clients.
pub(crate) const POOL: &str = "10.0.0.0/24";
pub(crate) const BLOCK_SIZE: u8 = 29;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Etcd,
}

/// Starts what the store needs: three servers, or nothing.
pub(crate) async fn servers(kind: Kind) -> Result<Option<LocalCluster>, Failure> {
    match kind {
        Kind::Sqlite => Ok(None),
        Kind::Etcd => {
            // The history of a million operations does not fit into a server's quota.
            let compaction = ["--auto-compaction-mode=revision", "--auto-compaction-retention=10000"];
            Ok(Some(LocalCluster::start(3, &compaction.map(str::to_owned)).await?))
        }
    }
}

/// Opens the store that clients are told of as `place`: a file's path, or URLs.
pub(crate) fn open(place: &str) -> Result<Arc<dyn Datastore>, Failure> {
    if place.starts_with("http") {
        let config = EtcdConfig::new(place.split(',')).with_deadline(Duration::from_secs(2));
        return Ok(Arc::new(EtcdStore::new(config)?));
    }
    Ok(Arc::new(SqliteStore::open(Path::new(place))?))
}

/// Puts the pool there.
pub(crate) async fn furnish(store: &dyn Datastore) -> Result<(), Failure> {
    let spec = IpPool { block_size: BLOCK_SIZE, ..IpPool::new(POOL.parse()?) };
    let pool: Resource = Object::new("p".parse()?, spec).into();
    let value = Document::from(&pool).stored_form();
    store.commit(vec![Write::put(pool.key().datastore_key(), value, Precondition::Any)]).await?;
    Ok(())
}
