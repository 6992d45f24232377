//! The memory store under the contract suite.

use calico_model::datastore::faulty::FaultyStore;
use calico_model::datastore::{Atomicity, MemoryStore, contract};

#[tokio::test]
async fn the_memory_store_keeps_the_contract() {
    let store = MemoryStore::new();
    contract::verify(async || store.clone()).await.unwrap();
    contract::verify_compaction(&store, async |revision| store.compact(revision)).await.unwrap();
}

#[tokio::test]
async fn a_store_that_applies_in_order_keeps_the_contract_as_well() {
    let store = FaultyStore::new(MemoryStore::new(), Atomicity::InOrder);
    contract::verify(async || store.clone()).await.unwrap();
}
