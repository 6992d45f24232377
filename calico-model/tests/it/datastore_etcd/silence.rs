//! A server that is there and whose packets are not: a network namespace of the test's own, whose firewall drops
//! everything without a word. Needs root.

use std::process::Command;
use std::time::{Duration, Instant};

use calico_model::datastore::StoreError;
use calico_model::{Datastore, EtcdConfig, Revision};
use nix::sched::{CloneFlags, unshare};

use super::{cluster, folder, key, next_value, open, put, read_patiently, within};

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {arguments:?}");
}

/// Runs a test on a thread that has a network of its own; the programs that it starts are in there too.
fn in_a_namespace(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        run("ip", &["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the promise is in seconds")]
fn a_connection_into_a_black_hole_is_noticed_within_30_seconds_and_mended_afterwards() {
    in_a_namespace(async || {
        let cluster = cluster(1).await;
        let store = open(&EtcdConfig::new(cluster.urls()));
        store.commit(vec![put("/k", "1")]).await.unwrap();
        let mut watch = store.watch(&folder("/"), Revision(0)).await.unwrap();
        assert_eq!(next_value(&mut watch).await, "1");
        within(30, "the mark", watch.next()).await.unwrap();

        let hook = "type filter hook input priority 0; policy drop;";
        run("nft", &[&format!("add table inet silence {{ chain input {{ {hook} }}; }}")]);
        let begin = Instant::now();
        let lost = within(60, "the watch's notice", watch.next()).await.unwrap_err();
        assert!(lost.to_string().contains("watching /"), "{lost}");
        assert!(begin.elapsed() < Duration::from_secs(30), "noticed after {:?}", begin.elapsed());
        let error = within(30, "the read's deadline", store.get(&key("/k"))).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");

        run("nft", &["delete table inet silence"]);
        let entry = within(60, "the recovery", read_patiently(&store, "/k")).await;
        assert_eq!(entry.unwrap().value, b"1");
    });
}
