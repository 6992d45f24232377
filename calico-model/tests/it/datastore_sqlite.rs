//! The SQLite store: the contract, and many processes on one file.

use calico_model::datastore::{SqliteStore, contract};

use crate::scratch::Scratch;

#[tokio::test]
async fn the_sqlite_store_keeps_the_contract() {
    let scratch = Scratch::new();
    let path = scratch.file("calico.db");
    contract::verify(async || SqliteStore::open(&path).unwrap()).await.unwrap();
    let store = SqliteStore::open(&path).unwrap();
    contract::verify_compaction(&store, async |revision| store.compact(revision).await.unwrap())
        .await
        .unwrap();
}
