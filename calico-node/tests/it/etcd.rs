//! `calicoctl` over a real etcd server, chosen by the environment.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use calico_ipam::{AutoAssign, Ipam};
use calico_model::datastore::etcd::local::LocalCluster;
use calico_node::config::DatastoreConfig;
use calico_node::paths::Paths;
use calico_node::status::{self, NodeStatus, Question};
use calico_node::workload::inside;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::agent::eventually;
use crate::namespace::Namespace;

/// Runs a program over the server.
fn run(cluster: &LocalCluster, program: &str, arguments: &[&str]) -> Output {
    command(cluster, program, arguments).output().unwrap()
}

fn command(cluster: &LocalCluster, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("DATASTORE_TYPE", "etcdv3");
    command.env("ETCD_ENDPOINTS", cluster.urls().join(",")).stdin(Stdio::null());
    command
}

#[test]
fn calicoctl_keeps_resources_in_etcd() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let etcd = runtime.block_on(LocalCluster::start(1, &[])).unwrap();
    let file = std::env::temp_dir().join(format!("calico-node-etcd-{}.yaml", std::process::id()));
    let pool =
        "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.0.0.0/16}}";
    std::fs::write(&file, pool).unwrap();
    let calicoctl = env!("CARGO_BIN_EXE_calicoctl");
    let applied = run(&etcd, calicoctl, &["apply", "-f", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let got = run(&etcd, calicoctl, &["get", "ippool", "p", "-o", "yaml"]);
    assert!(String::from_utf8_lossy(&got.stdout).contains("cidr: 10.0.0.0/16"), "{got:?}");
    let twice = run(&etcd, calicoctl, &["get", "ippools"]);
    assert_eq!(
        String::from_utf8_lossy(&twice.stdout).lines().filter(|line| line.starts_with("p ")).count(),
        1
    );
    let calicoctl = |arguments: &[&str]| {
        let answer = run(&etcd, calicoctl, arguments);
        assert_eq!(String::from_utf8_lossy(&answer.stderr), "", "{arguments:?}");
        String::from_utf8(answer.stdout).unwrap()
    };
    let addr = assign(&etcd);
    let shown = calicoctl(&["ipam", "show", "--ip", &addr.to_string()]);
    assert!(shown.contains("Handle ID: k8s-pod-network.a\n"), "{shown}");
    let checked = calicoctl(&["ipam", "check", "--show-problem-ips"]);
    assert!(
        checked.contains(&format!("{addr} is held by \"k8s-pod-network.a\", whose user is gone\n")),
        "{checked}"
    );
    calicoctl(&["ipam", "configure", "--strictaffinity=true"]);
    calicoctl(&["datastore", "migrate", "lock"]);
    calicoctl(&["ipam", "split", "64", "--name", "p"]);
    let names = calicoctl(&["get", "ippools", "-o", "name"]);
    assert_eq!(names.lines().filter(|name| name.starts_with("ippool/split-p-")).count(), 64, "{names}");
    let report = file.with_extension("json");
    let path = report.to_str().unwrap();
    calicoctl(&["ipam", "check", "-o", path]);
    let released = calicoctl(&["ipam", "release", "--from-report", path]);
    std::fs::remove_file(&report).unwrap();
    assert_eq!(released, "Released 1 IPs and mended 0 handles.\n");
}

#[test]
fn a_watch_shows_changes_in_etcd() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let etcd = runtime.block_on(LocalCluster::start(1, &[])).unwrap();
    let calicoctl = env!("CARGO_BIN_EXE_calicoctl");
    let mut watch = command(&etcd, calicoctl, &["get", "tiers", "-w", "-o", "name"]);
    let mut child = watch.stdout(Stdio::piped()).spawn().unwrap();
    let file = std::env::temp_dir().join(format!("calico-node-watch-{}.yaml", std::process::id()));
    std::fs::write(&file, "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: early}}").unwrap();
    let applied = run(&etcd, calicoctl, &["apply", "-f", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    assert!(run(&etcd, calicoctl, &["delete", "tier", "early"]).status.success());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let told: Vec<String> = lines.filter(|line| line.ends_with("/early")).take(2).collect();
    assert_eq!(told, ["ADDED tier/early", "DELETED tier/early"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// An agent in a namespace of its own, as the container runtime starts it.
struct Agent {
    process: Child,
    folder: PathBuf,
}

impl Agent {
    fn start(netns: &Namespace, etcd: &LocalCluster) -> Self {
        let folder = std::env::temp_dir().join(netns.path().file_name().unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = netns.command(env!("CARGO_BIN_EXE_calico-node"));
        command
            .envs([("DATASTORE_TYPE", "etcdv3"), ("WAIT_FOR_DATASTORE", "true"), ("NODENAME", "n1")])
            .envs([("IP", "10.0.0.1/24"), ("CALICO_NETWORKING_BACKEND", "none")])
            .env("ETCD_ENDPOINTS", etcd.urls().join(","))
            .env("CALICO_LIB_DIR", &folder)
            .env("CALICO_RUN_DIR", &folder);
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { process: command.spawn().unwrap(), folder }
    }

    /// Waits until it says that it waits, once.
    fn waits(&self) {
        let log = || std::fs::read_to_string(self.folder.join("log")).unwrap();
        let log = eventually(log, |log| log.contains("waiting for the datastore"));
        assert_eq!(log.matches("waiting for the datastore").count(), 1, "{log}");
    }

    fn ask(&self) -> Option<NodeStatus> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let socket = Paths::from_vars(|_| Some(self.folder.to_str().unwrap().to_owned())).status_socket();
        runtime.block_on(status::ask(&socket, Question::Status)).ok()
    }

    /// Asks it to end, and returns whether it ended well.
    fn end(mut self) -> bool {
        let pid = Pid::from_raw(self.process.id().try_into().unwrap());
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        self.process.wait().unwrap().success()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that has ended is no error, and what stays is a few files in the temporary folder.
        let _ended = self.process.kill().and_then(|()| self.process.wait());
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn an_agent_waits_for_its_datastore_and_can_be_stopped_while_it_does() {
    let netns = Namespace::new("wait");
    netns.ip("link set lo up");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let start = || async {
        let etcd = LocalCluster::start(1, &[]).await.unwrap();
        // Before it leads, its files are not whole, and it would not start again.
        while etcd.leader().await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        etcd
    };
    let mut etcd = runtime.block_on(inside(&netns.open(), start)).unwrap();
    etcd.kill(0).unwrap();
    let agent = Agent::start(&netns, &etcd);
    agent.waits();
    assert!(agent.end(), "it is asked to stop while it waits");

    let agent = Agent::start(&netns, &etcd);
    agent.waits();
    let revive = move || async move { etcd.revive(0).map(|()| etcd) };
    let _etcd = runtime.block_on(inside(&netns.open(), revive)).unwrap().unwrap();
    let is_ready =
        |told: &Option<NodeStatus>| told.as_ref().is_some_and(|told| told.in_sync && told.programmed);
    let told = eventually(|| agent.ask(), is_ready);
    assert!(is_ready(&told), "{told:?}: {}", std::fs::read_to_string(agent.folder.join("log")).unwrap());
    assert!(agent.end());
}

/// Assigns an address to a pod that does not exist, on a node that does not.
fn assign(etcd: &LocalCluster) -> std::net::IpAddr {
    let named = |name: &str| match name {
        "DATASTORE_TYPE" => Some("etcdv3".to_owned()),
        "ETCD_ENDPOINTS" => Some(etcd.urls().join(",")),
        _ => None,
    };
    let loaded = DatastoreConfig::load(None, named, &Paths::from_env()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = calico_node::datastore::open(&loaded.datastore).await.unwrap();
        let mut request = AutoAssign::new("n1".parse().unwrap(), "k8s-pod-network.a");
        request.count.v4 = 1;
        request.attributes.insert("pod".into(), "a".into());
        request.attributes.insert("namespace".into(), "default".into());
        Ipam::new(store).auto_assign(request, now()).await.unwrap().v4[0].addr
    })
}

#[expect(clippy::disallowed_methods, reason = "the programs that run beside it have the world's time")]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
