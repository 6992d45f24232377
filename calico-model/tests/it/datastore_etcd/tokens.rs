//! Servers that sign their tokens (JWT) and remember none.

use std::fs;

use calico_model::datastore::etcd::local::LocalCluster;
use calico_model::{Datastore, EtcdConfig, Revision};

use super::{folder, key, next_value, open, put, server, within};
use crate::scratch::Scratch;

/// Such a token names the revision of the users and roles that it was made at. The server refuses it after any change of
/// them, for as long as it lives.
#[tokio::test]
async fn a_change_of_users_locks_nobody_out() {
    let scratch = Scratch::new();
    let signing = scratch.file("signing.key");
    fs::write(&signing, "what only this server knows").expect("the directory is writable");
    let tokens = format!("--auth-token=jwt,priv-key={},sign-method=HS256,ttl=10m", signing.display());
    let cluster = LocalCluster::start(1, &[tokens]).await.expect("etcd is installed");
    server::enable_auth(&cluster, "calico", "hidden-word", "/tokens/").await;
    let store = open(&EtcdConfig::new(cluster.urls()).with_user("calico", "hidden-word"));
    within(30, "a first commit", store.commit(vec![put("/tokens/k", "1")])).await.unwrap();

    server::add_user(&cluster, "second").await;
    let entry = within(30, "a read", store.get(&key("/tokens/k"))).await.unwrap().expect("it was written");
    assert_eq!(entry.value, b"1");
    server::add_user(&cluster, "third").await;
    within(30, "a commit", store.commit(vec![put("/tokens/k", "2")])).await.unwrap();
    server::add_user(&cluster, "fourth").await;
    within(30, "a watch", async {
        let from = Revision(entry.revision.0);
        let mut watch = store.watch(&folder("/tokens"), from).await.unwrap();
        server::add_user(&cluster, "fifth").await;
        assert_eq!(next_value(&mut watch).await, "2");
    })
    .await;
}
