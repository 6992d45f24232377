//! `calicoctl` over a real etcd server, chosen by the environment.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use calico_node::lab::Stopwatch;

/// A server of this test's own; it and its data go when this is dropped.
struct Etcd {
    process: Child,
    data: PathBuf,
    url: String,
}

impl Etcd {
    fn start() -> Self {
        let ports = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [client, peer] = ports.map(|port| format!("http://{}", port.local_addr().unwrap()));
        let data = std::env::temp_dir().join(format!("calico-node-etcd-{}", std::process::id()));
        let process = Command::new("etcd")
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--data-dir", data.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd cannot be started: install the package etcd-server");
        Self { process, data, url: client }
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", &self.url);
        command.stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

#[test]
fn calicoctl_keeps_resources_in_etcd() {
    let etcd = Etcd::start();
    let file = std::env::temp_dir().join(format!("calico-node-etcd-{}.yaml", std::process::id()));
    let pool =
        "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.0.0.0/16}}";
    std::fs::write(&file, pool).unwrap();
    let calicoctl = env!("CARGO_BIN_EXE_calicoctl");
    let watch = Stopwatch::start();
    let applied = loop {
        let answer = etcd.run(calicoctl, &["apply", "-f", file.to_str().unwrap()]);
        if answer.status.success() || watch.elapsed() > Duration::from_secs(20) {
            break answer;
        }
    };
    std::fs::remove_file(&file).unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let got = etcd.run(calicoctl, &["get", "ippool", "p", "-o", "yaml"]);
    assert!(String::from_utf8_lossy(&got.stdout).contains("cidr: 10.0.0.0/16"), "{got:?}");
    let twice = etcd.run(calicoctl, &["get", "ippools"]);
    assert_eq!(
        String::from_utf8_lossy(&twice.stdout).lines().filter(|line| line.starts_with("p ")).count(),
        1
    );
}
