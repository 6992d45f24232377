//! Everything that is logged, by us or by the libraries below, down to the least severe level.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use calico_model::datastore::etcd::Pem;
use calico_model::datastore::etcd::local::LocalCluster;
use calico_model::{Datastore, EtcdConfig, Revision};
use tracing_subscriber::fmt::MakeWriter;

use super::certificates::Certificates;
use super::server::enable_auth;
use super::{cluster, folder, key, open, put, within};

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panics while writing")).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics while writing").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Log {
    type Writer = Log;

    fn make_writer(&'w self) -> Log {
        self.clone()
    }
}

#[tokio::test]
async fn no_password_and_no_key_is_ever_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    // For this thread, on which the test's runtime runs everything.
    let _guard = tracing::subscriber::set_default(subscriber);

    let cluster = cluster(1).await;
    enable_auth(&cluster, "calico", "hidden-word", "/contract/").await;
    let before = log.text().len();
    let right = EtcdConfig::new(cluster.urls()).with_user("calico", "hidden-word");
    let store = open(&right);
    within(30, "a commit", store.commit(vec![put("/contract/k", "v")])).await.unwrap();
    within(30, "a read", store.get(&key("/contract/k"))).await.unwrap();
    let mut watch = store.watch(&folder("/contract"), Revision(0)).await.unwrap();
    within(30, "a change", watch.next()).await.unwrap();
    let wrong = open(&right.with_user("calico", "wrong-word"));
    within(30, "a refusal", wrong.get(&key("/contract/k"))).await.unwrap_err();

    let certificates = Certificates::make();
    let secured = LocalCluster::start(1, &certificates.server_arguments()).await.expect("etcd is installed");
    let inline = |name: &str| Pem::Inline(std::fs::read(certificates.file(name)).unwrap());
    let secure = EtcdConfig::new(secured.urls())
        .with_ca(inline("ca.pem"))
        .with_client_certificate(inline("client.pem"), inline("client-key.pem"));
    within(30, "a listing", open(&secure).list(&folder("/"))).await.unwrap();

    let text = log.text();
    // The harness says the password itself when it makes the user.
    let ours = &text[before..];
    assert!(ours.contains("TRACE") && ours.contains("127.0.0.1"), "nothing is logged: {} bytes", ours.len());
    for line in ours.lines() {
        assert!(!line.contains("-word"), "{line}");
    }
    let private = std::fs::read_to_string(certificates.file("client-key.pem")).unwrap();
    for part in private.lines().filter(|line| !line.starts_with('-')) {
        assert!(!ours.contains(part), "a part of the key is logged");
    }
}
