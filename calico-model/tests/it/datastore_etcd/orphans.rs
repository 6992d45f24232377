//! A cluster whose process is killed, and one whose thread ends.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use calico_model::{Datastore, EtcdConfig};

use super::{cluster, key, open, within};

/// The environment variable that makes the test below the process that is killed.
const OWNER: &str = "CALICO_TEST_CLUSTER_OWNER";

/// What precedes the numbers of the members' processes in its output.
const MARK: &str = "members:";

/// Started by itself it starts this binary once more, with a cluster, and kills it.
#[tokio::test]
async fn members_end_with_a_process_that_is_killed() {
    if std::env::var_os(OWNER).is_some() {
        let cluster = cluster(2).await;
        let pids: Vec<String> = (0..2).filter_map(|member| Some(cluster.pid(member)?.to_string())).collect();
        let mut output = std::io::stdout();
        writeln!(output, "{MARK}{}", pids.join(" ")).and_then(|()| output.flush()).unwrap();
        std::future::pending::<()>().await;
    }
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "datastore_etcd::orphans::members_end_with_a_process_that_is_killed",
        ])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The harness may have begun the line with the name of the test.
    let said = lines.filter_map(|line| Some(line.split_once(MARK)?.1.to_owned())).next();
    owner.kill().unwrap();
    owner.wait().unwrap();
    let _ = std::fs::remove_dir_all(std::env::temp_dir().join(format!("calico-etcd-{}-0", owner.id())));
    let pids = said.expect("the cluster starts");
    let pids: Vec<&str> = pids.split_whitespace().collect();
    assert_eq!(pids.len(), 2);
    let ended = async {
        while pids.iter().any(|pid| runs_etcd(pid)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(60, "the end of the members", ended).await;
}

/// A process that has ended has no command line, also when nobody has waited for it yet.
fn runs_etcd(pid: &str) -> bool {
    let command = std::fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
    command.starts_with(b"etcd\0")
}

#[tokio::test]
async fn members_outlive_the_thread_that_started_them() {
    let started = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(cluster(1))
    });
    let cluster = started.join().unwrap();
    let store = open(&EtcdConfig::new(cluster.urls()));
    let read = within(60, "reading", store.get(&key("/test/absent"))).await;
    assert_eq!(read.unwrap(), None);
}
