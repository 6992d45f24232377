//! Real etcd servers on this machine, for tests, benchmarks and experiments (feature `strategies`).
//!
//! The members listen on free ports of the loopback address and keep their data in a temporary directory; both go when
//! the [`LocalCluster`] is dropped. When the process is killed, so that nothing is dropped, its members still end with it;
//! only their data stays. The program `etcd` has to be installed (on Debian: `apt-get install etcd-server`), and
//! `setpriv` of util-linux, which every distribution has.
//!
//! ```no_run
//! use calico_model::datastore::etcd::{EtcdConfig, EtcdStore, local::LocalCluster};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut cluster = LocalCluster::start(3, &[]).await?;
//! let store = EtcdStore::new(EtcdConfig::new(cluster.urls()))?;
//! if let Some(leader) = cluster.leader().await {
//!     cluster.kill(leader)?;
//!     cluster.revive(leader)?;
//! }
//! # drop(store);
//! # Ok(())
//! # }
//! ```

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use etcd_client::Client;

/// How often a cluster is tried to be started: somebody else may take a free port before a member does.
const ATTEMPTS: u32 = 5;

/// A cluster of etcd servers; they end when it is dropped, and their data goes with them.
#[derive(Debug)]
pub struct LocalCluster {
    members: Vec<Member>,
    directory: PathBuf,
    scheme: &'static str,
}

#[derive(Debug)]
struct Member {
    process: Child,
    /// The thread that started the process ends when this is dropped, and the process must have ended before.
    _parent: mpsc::Sender<()>,
    arguments: Vec<String>,
    client_port: u16,
}

impl LocalCluster {
    /// Starts so many members, each with these arguments as well, and waits until they listen. They serve `https` when
    /// one of the arguments is `--cert-file=...`.
    ///
    /// # Errors
    /// When etcd is not installed, or does not start in fifteen seconds.
    pub async fn start(members: usize, arguments: &[String]) -> io::Result<Self> {
        installed()?;
        for _ in 0..ATTEMPTS {
            let mut cluster = Self::launch(members, arguments)?;
            if cluster.listens().await {
                return Ok(cluster);
            }
        }
        Err(io::Error::new(ErrorKind::TimedOut, format!("etcd did not start in {ATTEMPTS} attempts")))
    }

    fn launch(members: usize, arguments: &[String]) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("calico-etcd-{}-{count}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let secure = arguments.iter().any(|argument| argument.starts_with("--cert-file"));
        let scheme = if secure { "https" } else { "http" };
        let mut cluster = Self { members: Vec::new(), directory, scheme };
        let ports = (0..members)
            .map(|_| Ok((free_port()?, free_port()?)))
            .collect::<io::Result<Vec<(u16, u16)>>>()?;
        let peers: Vec<String> =
            ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}")).collect();
        for (n, (client_port, peer)) in ports.into_iter().enumerate() {
            let mut all = vec![
                format!("--name=m{n}"),
                format!("--data-dir={}", cluster.directory.join(format!("m{n}")).display()),
                format!("--listen-client-urls={scheme}://127.0.0.1:{client_port}"),
                format!("--advertise-client-urls={scheme}://127.0.0.1:{client_port}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster={}", peers.join(",")),
                "--initial-cluster-state=new".to_owned(),
            ];
            all.extend_from_slice(arguments);
            let (process, parent) = spawn(&all, &cluster.directory)?;
            cluster.members.push(Member { process, _parent: parent, arguments: all, client_port });
        }
        Ok(cluster)
    }

    /// A listening port is enough: requests wait, or are asked again, until there is a leader.
    async fn listens(&mut self) -> bool {
        let ended = |member: &mut Member| !matches!(member.process.try_wait(), Ok(None));
        for _ in 0..300 {
            if self.members.iter_mut().any(ended) {
                return false;
            }
            let listens = |member: &Member| TcpStream::connect(("127.0.0.1", member.client_port)).is_ok();
            if self.members.iter().all(listens) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// Returns the members' URLs, those of dead ones included.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let url = |member: &Member| format!("{}://127.0.0.1:{}", self.scheme, member.client_port);
        self.members.iter().map(url).collect()
    }

    /// Returns the process of a member, to send it signals; `None` when there is no such member.
    #[must_use]
    pub fn pid(&self, member: usize) -> Option<u32> {
        self.members.get(member).map(|member| member.process.id())
    }

    /// Ends a member as a power cut would. One that has ended already is no error.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self, member: usize) -> io::Result<()> {
        let Some(member) = self.members.get_mut(member) else { return Err(no_member(member)) };
        member.process.kill()?;
        member.process.wait()?;
        Ok(())
    }

    /// Starts a killed member again with the data it had, and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn revive(&mut self, member: usize) -> io::Result<()> {
        let Some(member) = self.members.get_mut(member) else { return Err(no_member(member)) };
        (member.process, member._parent) = spawn(&member.arguments, &self.directory)?;
        Ok(())
    }

    /// Kills a member, starts it again with the data it had, and waits until all members listen.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn restart(&mut self, member: usize) -> io::Result<()> {
        self.kill(member)?;
        self.revive(member)?;
        if self.listens().await {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::TimedOut, "etcd did not start again"))
    }

    /// Finds the member that leads, by asking those that live; `None` when none does.
    ///
    /// Only for clusters that speak plain `http` to anybody.
    pub async fn leader(&self) -> Option<usize> {
        for (n, url) in self.urls().into_iter().enumerate() {
            let ask = async {
                let mut client = Client::connect([url], None).await.ok()?;
                client.status().await.ok()
            };
            let status = tokio::time::timeout(Duration::from_secs(2), ask).await.ok().flatten();
            let Some(status) = status else { continue };
            if status.header().is_some_and(|header| header.member_id() == status.leader()) {
                return Some(n);
            }
        }
        None
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn installed() -> io::Result<()> {
    let asked = Command::new("etcd").arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status();
    asked.map(drop).map_err(|error| {
        let remedy = "install it, on Debian with `apt-get install etcd-server`";
        io::Error::new(error.kind(), format!("etcd cannot be started ({error}): {remedy}"))
    })
}

/// Starts a member that gets SIGKILL when its parent ends (PR_SET_PDEATHSIG of prctl(2), which `setpriv` sets). To the
/// kernel the parent is the thread that started it, and the caller's may end early: it gets one of its own.
fn spawn(arguments: &[String], directory: &Path) -> io::Result<(Child, mpsc::Sender<()>)> {
    let log = OpenOptions::new().append(true).create(true).open(directory.join("log"))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "etcd"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let (parent, over) = mpsc::channel();
    let (tell, child) = mpsc::sync_channel(1);
    thread::Builder::new().name("etcd-parent".to_owned()).spawn(move || {
        let started = tell.send(command.spawn());
        if started.is_ok() {
            // It never comes: the other end is dropped.
            let _ = over.recv();
        }
    })?;
    let child = child.recv().map_err(io::Error::other)?;
    let child = child.map_err(|error| {
        io::Error::new(error.kind(), format!("setpriv cannot be started ({error}): install util-linux"))
    })?;
    Ok((child, parent))
}

fn no_member(member: usize) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("the cluster has no member {member}"))
}

/// Returns a port of the loopback address that nobody listens on.
///
/// # Errors
/// When there is none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
