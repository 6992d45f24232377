//! The etcd store against real servers: the contract, and everything that can happen to a server.

mod certificates;
mod orphans;
mod secrets;
mod server;
mod silence;
mod tokens;

use std::future::Future;
use std::time::Duration;

use calico_model::datastore::etcd::Pem;
use calico_model::datastore::etcd::local::{LocalCluster, free_port};
use calico_model::datastore::{
    CommitError, Key, Precondition, Prefix, StoreError, Watch, WatchEvent, Write, contract,
};
use calico_model::{Datastore, EtcdConfig, EtcdStore, Revision};
use certificates::Certificates;
use nix::sys::signal::Signal;

async fn cluster(members: usize) -> LocalCluster {
    LocalCluster::start(members, &[]).await.expect("etcd is installed")
}

/// No test may hang, whatever a server does.
async fn within<T>(seconds: u64, what: &str, work: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(Duration::from_secs(seconds), work).await;
    outcome.unwrap_or_else(|_| panic!("{what} took longer than {seconds} s"))
}

fn open(config: &EtcdConfig) -> EtcdStore {
    EtcdStore::new(config.clone()).expect("the configuration is sound")
}

/// Runs the contract suite with a connection for every handle, as different machines would have.
async fn keeps_the_contract(config: &EtcdConfig) {
    for check in contract::Check::ALL {
        within(60, check.promise(), check.run(async || open(config)))
            .await
            .expect("the store keeps its promises");
    }
}

fn put(path: &str, value: &str) -> Write {
    Write::put(key(path), value.into(), Precondition::Any)
}

fn key(path: &str) -> Key {
    path.parse().expect("a sound key")
}

fn folder(path: &str) -> Prefix {
    Prefix::new(path).expect("a sound folder")
}

async fn next_value(watch: &mut Box<dyn Watch>) -> String {
    loop {
        match watch.next().await.expect("the watch goes on") {
            WatchEvent::Put(entry) => return String::from_utf8(entry.value).expect("values are text"),
            WatchEvent::Deleted { .. } | WatchEvent::InSync(_) => {}
        }
    }
}

#[tokio::test]
async fn a_plain_server_keeps_the_contract() {
    let cluster = cluster(1).await;
    let config = EtcdConfig::new(cluster.urls());
    keeps_the_contract(&config).await;
    let store = open(&config);
    let compact = async |revision| store.compact(revision).await.unwrap();
    within(60, "compaction", contract::verify_compaction(&store, compact)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_wants_client_certificates_keeps_the_contract() {
    let certificates = Certificates::make();
    let cluster = LocalCluster::start(1, &certificates.server_arguments()).await.expect("etcd is installed");
    let from_files = EtcdConfig::new(cluster.urls())
        .with_ca(Pem::File(certificates.file("ca.pem")))
        .with_client_certificate(
            Pem::File(certificates.file("client.pem")),
            Pem::File(certificates.file("client-key.pem")),
        );
    keeps_the_contract(&from_files).await;

    let inline = |name: &str| Pem::Inline(std::fs::read(certificates.file(name)).unwrap());
    let from_text = EtcdConfig::new(cluster.urls())
        .with_ca(inline("ca.pem"))
        .with_client_certificate(inline("client.pem"), inline("client-key.pem"));
    open(&from_text).list(&folder("/")).await.unwrap();

    let without = EtcdConfig::new(cluster.urls()).with_ca(inline("ca.pem"));
    let error = within(30, "a refusal", open(&without).get(&key("/k"))).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");

    let stranger = Certificates::make();
    let untrusting = EtcdConfig::new(cluster.urls()).with_ca(Pem::File(stranger.file("ca.pem")));
    let error = within(30, "a refusal", open(&untrusting).get(&key("/k"))).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    let text = format!("{error:?}");
    assert!(text.contains("certificate"), "{text}");
}

#[tokio::test]
async fn a_server_with_users_keeps_the_contract_and_tells_nobody_the_password() {
    let mut cluster = cluster(1).await;
    server::enable_auth(&cluster, "calico", "hidden-word", "/contract/").await;
    let config = EtcdConfig::new(cluster.urls()).with_user("calico", "hidden-word");
    // A listing of "/" is beyond this user's rights, and the only one in the suite.
    for check in contract::Check::ALL {
        if check != contract::Check::ListIsOneFolderInOrder {
            within(60, check.promise(), check.run(async || open(&config))).await.unwrap();
        }
    }

    let store = open(&config);
    let commit = store.commit(vec![put("/elsewhere", "v")]).await.unwrap_err();
    assert!(matches!(commit, CommitError::Store(StoreError::Unauthorized { .. })), "{commit:?}");
    let beyond = [
        store.get(&key("/elsewhere")).await.unwrap_err(),
        store.list(&folder("/")).await.unwrap_err(),
        open(&EtcdConfig::new(cluster.urls())).get(&key("/contract/k")).await.unwrap_err(),
        open(&config.clone().with_user("calico", "wrong-word")).get(&key("/contract/k")).await.unwrap_err(),
    ];
    for error in beyond {
        assert!(matches!(error, StoreError::Unauthorized { .. }), "{error:?}");
        let text = format!("{error} {error:?} {store:?}");
        assert!(!text.contains("-word"), "{text}");
    }

    // A server forgets its tokens when it restarts.
    let mut watch = store.watch(&folder("/contract/token"), Revision(0)).await.unwrap();
    within(30, "the mark", watch.next()).await.unwrap();
    cluster.restart(0).await.unwrap();
    within(60, "a commit with a new token", async {
        store.commit(vec![put("/contract/token/k", "1")]).await.unwrap();
        assert_eq!(next_value(&mut watch).await, "1");
    })
    .await;
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let cluster = cluster(1).await;
    let mut urls = vec![format!("http://127.0.0.1:{}", free_port().unwrap())];
    urls.extend(cluster.urls());
    let config = EtcdConfig::new(urls);
    for _ in 0..5 {
        let store = open(&config);
        within(10, "a commit past the dead one", store.commit(vec![put("/k", "1")])).await.unwrap();
        within(10, "a read past the dead one", store.get(&key("/k"))).await.unwrap();
        within(10, "a watch past the dead one", store.watch(&folder("/"), Revision(0))).await.unwrap();
    }
}

#[tokio::test]
async fn three_members_keep_the_contract_and_lose_their_leader_without_a_gap() {
    const BEFORE: usize = 20;
    const AFTER: usize = 20;
    let mut cluster = cluster(3).await;
    let config = EtcdConfig::new(cluster.urls());
    keeps_the_contract(&config).await;

    let store = open(&config);
    let from = store.list(&folder("/steps")).await.unwrap().revision;
    let mut watch = store.watch(&folder("/steps"), from).await.unwrap();
    for step in 0..BEFORE {
        store.commit(vec![put("/steps/k", &step.to_string())]).await.unwrap();
    }
    let leader = cluster.leader().await.expect("a member leads");
    cluster.kill(leader).unwrap();
    let step_on = async {
        for step in BEFORE..BEFORE + AFTER {
            let value = step.to_string();
            loop {
                let Some(entry) = read_patiently(&store, "/steps/k").await else {
                    panic!("the key vanished")
                };
                if entry.value == value.as_bytes() {
                    // A commit whose answer was lost had happened.
                    break;
                }
                let write =
                    Write::put(key("/steps/k"), value.clone().into(), Precondition::At(entry.revision));
                match store.commit(vec![write]).await {
                    Ok(_) => break,
                    Err(
                        CommitError::OutcomeUnknown { .. }
                        | CommitError::Conflict { .. }
                        | CommitError::Store(_),
                    ) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
    };
    within(60, "going on without the leader", step_on).await;
    for step in 0..BEFORE + AFTER {
        assert_eq!(within(30, "the watch", next_value(&mut watch)).await, step.to_string());
    }
}

async fn read_patiently(store: &EtcdStore, path: &str) -> Option<calico_model::datastore::Entry> {
    loop {
        if let Ok(entry) = store.get(&key(path)).await {
            return entry;
        }
    }
}

#[tokio::test]
async fn a_watch_survives_a_restart_of_its_server() {
    let mut cluster = cluster(1).await;
    let store = open(&EtcdConfig::new(cluster.urls()));
    let from = store.commit(vec![put("/steps/k", "start")]).await.unwrap();
    let mut watch = store.watch(&folder("/steps"), from).await.unwrap();
    for round in 0..3 {
        let value = round.to_string();
        within(30, "a commit", store.commit(vec![put("/steps/k", &value)])).await.unwrap();
        assert_eq!(within(30, "the watch", next_value(&mut watch)).await, value);
        cluster.restart(0).await.unwrap();
        // The first request after a restart may meet the broken connection.
        within(30, "a read", read_patiently(&store, "/steps/k")).await;
    }
}

#[tokio::test]
async fn a_frozen_server_is_noticed_and_found_again() {
    let cluster = cluster(1).await;
    let store = open(&EtcdConfig::new(cluster.urls()).with_deadline(Duration::from_secs(2)));
    store.commit(vec![put("/k", "1")]).await.unwrap();
    let mut watch = store.watch(&folder("/"), Revision(0)).await.unwrap();
    assert_eq!(next_value(&mut watch).await, "1");
    within(10, "the mark", watch.next()).await.unwrap();

    server::signal(&cluster, 0, Signal::SIGSTOP);
    let lost = within(30, "the watch's notice", watch.next()).await.unwrap_err();
    assert!(lost.to_string().contains("watching /"), "{lost}");
    let error = within(15, "the read's deadline", store.get(&key("/k"))).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    let error = within(15, "the commit's deadline", store.commit(vec![put("/k", "2")])).await.unwrap_err();
    assert!(matches!(error, CommitError::Store(_) | CommitError::OutcomeUnknown { .. }), "{error:?}");

    server::signal(&cluster, 0, Signal::SIGCONT);
    within(30, "the recovery", read_patiently(&store, "/k")).await;
}

#[tokio::test]
async fn a_history_larger_than_a_message_is_replayed() {
    let cluster = cluster(1).await;
    let store = open(&EtcdConfig::new(cluster.urls()));
    let large = "v".repeat(900_000);
    for n in 0..12 {
        store.commit(vec![put(&format!("/large/{n:02}"), &large)]).await.unwrap();
    }
    let mut watch = store.watch(&folder("/large"), Revision(0)).await.unwrap();
    for n in 0..12 {
        let event = within(30, "the replay", watch.next()).await.unwrap();
        assert!(matches!(event, WatchEvent::Put(entry) if entry.key == key(&format!("/large/{n:02}"))));
    }
    let mark = within(30, "the mark", watch.next()).await.unwrap();
    assert!(matches!(mark, WatchEvent::InSync(_)));
    assert_eq!(store.list(&folder("/large")).await.unwrap().entries.len(), 12);
}
