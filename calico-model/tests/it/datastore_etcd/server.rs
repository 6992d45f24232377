//! Real etcd servers on free ports, in a directory of their own.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::{Client, Permission, PermissionType};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scratch::Scratch;

pub(super) struct Cluster {
    members: Vec<Member>,
    scratch: Scratch,
}

struct Member {
    process: Child,
    arguments: Vec<String>,
    client_port: u16,
}

impl Cluster {
    /// Starts so many members, each with these arguments as well, and waits until they serve.
    pub(super) async fn start(members: usize, arguments: &[String]) -> Self {
        // Between finding a free port and using it somebody else may take it: then everything is tried again.
        for _ in 0..5 {
            let mut cluster = Self::launch(members, arguments);
            if cluster.is_up().await {
                return cluster;
            }
        }
        panic!("etcd did not start in five attempts");
    }

    fn launch(members: usize, arguments: &[String]) -> Self {
        let scratch = Scratch::new();
        let ports: Vec<_> = (0..members).map(|_| (free_port(), free_port())).collect();
        let peers: Vec<_> =
            ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}")).collect();
        let scheme = if arguments.is_empty() { "http" } else { "https" };
        let members = ports.iter().enumerate().map(|(n, (client, peer))| {
            let mut all = vec![
                format!("--name=m{n}"),
                format!("--data-dir={}", scratch.file(&format!("m{n}")).display()),
                format!("--listen-client-urls={scheme}://127.0.0.1:{client}"),
                format!("--advertise-client-urls={scheme}://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster={}", peers.join(",")),
                "--initial-cluster-state=new".to_owned(),
            ];
            all.extend_from_slice(arguments);
            Member { process: spawn(&all, &scratch), arguments: all, client_port: *client }
        });
        let members = members.collect();
        Self { members, scratch }
    }

    async fn is_up(&mut self) -> bool {
        for _ in 0..300 {
            if self
                .members
                .iter_mut()
                .any(|member| member.process.try_wait().is_ok_and(|status| status.is_some()))
            {
                return false;
            }
            // A listening port is enough: requests wait, or are asked again, until there is a leader.
            let mut listening = true;
            for member in &self.members {
                listening &= tokio::net::TcpStream::connect(("127.0.0.1", member.client_port)).await.is_ok();
            }
            if listening {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    pub(super) fn urls(&self, scheme: &str) -> Vec<String> {
        self.members.iter().map(|member| format!("{scheme}://127.0.0.1:{}", member.client_port)).collect()
    }

    pub(super) fn signal(&self, member: usize, signal: Signal) {
        let pid = Pid::from_raw(self.members[member].process.id().cast_signed());
        kill(pid, signal).expect("the member runs");
    }

    pub(super) fn kill(&mut self, member: usize) {
        let process = &mut self.members[member].process;
        process.kill().expect("the member runs");
        process.wait().expect("a killed member ends");
    }

    /// Kills a member and starts it again with the data it had.
    pub(super) async fn restart(&mut self, member: usize) {
        self.kill(member);
        let arguments = &self.members[member].arguments;
        self.members[member].process = spawn(arguments, &self.scratch);
        assert!(self.is_up().await, "etcd did not start again");
    }

    /// Finds the member that leads.
    pub(super) async fn leader(&self) -> usize {
        for (n, url) in self.urls("http").into_iter().enumerate() {
            let mut client = Client::connect([url], None).await.expect("a member answers");
            let status = client.status().await.expect("a member answers");
            if status.header().is_some_and(|header| header.member_id() == status.leader()) {
                return n;
            }
        }
        panic!("no member leads");
    }

    /// Demands users from now on: `root`, and one who may read and write a folder.
    pub(super) async fn enable_auth(&self, user: &str, password: &str, folder: &str) {
        let mut client = Client::connect(self.urls("http"), None).await.expect("a member answers");
        let end = format!("{}0", folder.trim_end_matches('/'));
        let permission = Permission::new(PermissionType::Readwrite, folder).with_range_end(end);
        let set_up = async {
            client.role_add("root").await?;
            client.user_add("root", "root", None).await?;
            client.user_grant_role("root", "root").await?;
            client.role_add("reader").await?;
            client.role_grant_permission("reader", permission).await?;
            client.user_add(user, password, None).await?;
            client.user_grant_role(user, "reader").await?;
            client.auth_enable().await
        };
        let outcome: Result<_, etcd_client::Error> = set_up.await;
        outcome.expect("a new server takes users");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
    }
}

fn spawn(arguments: &[String], scratch: &Scratch) -> Child {
    let log = File::create(scratch.file("log")).expect("the directory is writable");
    let child =
        Command::new("etcd").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    child.unwrap_or_else(|error| {
        panic!("etcd cannot be started ({error}): install it, on Debian with `apt-get install etcd-server`")
    })
}

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there are free ports");
    listener.local_addr().expect("a bound socket has an address").port()
}
