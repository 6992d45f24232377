//! Network namespaces joined by wires, and the programs in them, all gone when a test ends, however it ends.

use std::fs::File;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use calico_bgp::net::Handle;
use calico_bgp::session::State;
use calico_bgp::{PeerStatus, RouteStatus};
use calico_model::LearnedRoutes;
use nix::sched::{CloneFlags, setns};
use nix::unistd::geteuid;

/// How long something may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A network namespace whose name holds the process and a counter, so that tests run side by side.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        assert!(geteuid().is_root(), "tests against real peers make network namespaces: run them as root");
        let name = format!("cbgp-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    pub(crate) fn ip(&self, arguments: &str) {
        let words: Vec<&str> = ["-n", &self.name].into_iter().chain(arguments.split(' ')).collect();
        run("ip", &words);
    }

    /// Joins two namespaces by a wire; each end gets the addresses given for it.
    pub(crate) fn wire(&self, ours: &[&str], other: &Namespace, theirs: &[&str]) {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let (a, b) = (format!("w{number}a"), format!("w{number}b"));
        self.ip(&format!("link add {a} type veth peer name {b} netns {}", other.name));
        for (namespace, end, addresses) in [(self, a, ours), (other, b, theirs)] {
            for address in addresses {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                namespace.ip(&format!("addr add {address} dev {end}{nodad}"));
            }
            namespace.ip(&format!("link set {end} up"));
        }
    }

    /// Runs `act` on a thread of its own inside, with a runtime whose sockets are all in the namespace.
    pub(crate) fn block_on<T: Send>(&self, act: impl Future<Output = T> + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                runtime().block_on(act)
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace has a file");
        setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
    }

    /// Joins another namespace to the bridge `hub` of this one.
    pub(crate) fn plug(&self, other: &Namespace, address: &str) {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let (a, b) = (format!("w{number}a"), format!("w{number}b"));
        self.ip(&format!("link add {a} type veth peer name {b} netns {}", other.name));
        self.ip(&format!("link set {a} master hub up"));
        other.ip(&format!("addr add {address} dev {b}"));
        other.ip(&format!("link set {b} up"));
    }

    /// Waits until the kernel has a route to a network.
    pub(crate) fn await_route(&self, network: &str) {
        for _ in 0..200 {
            let shown = self.command("ip").args(["route", "show", network]).output().expect("iproute2");
            if !shown.stdout.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("no route to {network}");
    }

    /// Sends a stream of echo requests, a hundred a second, until it is ended.
    pub(crate) fn ping(&self, address: &str) -> Stream<'_> {
        let mut command = self.command("ping");
        command.args(["-n", "-q", "-i", "0.01", address]).stdout(Stdio::null()).stderr(Stdio::null());
        let before = self.echoes();
        Stream { from: self, before, process: command.spawn().expect("ping is installed") }
    }

    /// Returns how many echo requests the kernel has sent, and how many answers it got.
    fn echoes(&self) -> (u64, u64) {
        let output = self.command("cat").arg("/proc/net/snmp").output().expect("iproute2 is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Icmp: "));
        let mut line = || lines.next().unwrap_or_default().split(' ');
        let counts: Vec<(&str, u64)> = line().zip(line().filter_map(|count| count.parse().ok())).collect();
        let count = |name| counts.iter().find(|(of, _)| *of == name).map_or(0, |(_, count)| *count);
        (count("OutEchos"), count("InEchoReps"))
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

/// A stream of echo requests.
pub(crate) struct Stream<'n> {
    from: &'n Namespace,
    before: (u64, u64),
    process: Child,
}

impl Stream<'_> {
    /// Ends it; returns how many requests were sent, and how many of them were not answered, as the kernel counts: ping
    /// itself may have been too slow to see an answer.
    pub(crate) fn end(mut self) -> (u64, u64) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let mut counts = (0, 0);
        for _ in 0..20 {
            let (sent, answered) = self.from.echoes();
            counts = (sent - self.before.0, answered - self.before.1);
            if counts.0 == counts.1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        (counts.0, counts.0 - counts.1)
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A panic while panicking would hide the first.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("iproute2 is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {error}", arguments.join(" "));
}

/// A BIRD in a namespace.
pub(crate) struct Bird<'n> {
    namespace: &'n Namespace,
    folder: PathBuf,
    process: Child,
}

impl<'n> Bird<'n> {
    pub(crate) fn start(namespace: &'n Namespace, configuration: &str) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("cbgp-bird-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for BIRD");
        let head = "log stderr all;\nprotocol device {}\n";
        std::fs::write(folder.join("bird.conf"), format!("{head}{configuration}"))
            .expect("BIRD's configuration");
        let process = Self::spawn(namespace, &folder, &[]);
        Self { namespace, folder, process }
    }

    fn spawn(namespace: &Namespace, folder: &std::path::Path, flags: &[&str]) -> Child {
        let found = ["/usr/sbin/bird", "/sbin/bird", "/usr/local/sbin/bird"]
            .iter()
            .any(|path| std::path::Path::new(path).exists());
        assert!(found, "the tests against BIRD need the program bird: apt-get install bird2");
        let log = File::create(folder.join("log")).expect("BIRD's log");
        namespace
            .command("bird")
            .arg("-f")
            .args(flags)
            .arg("-c")
            .arg(folder.join("bird.conf"))
            .arg("-s")
            .arg(folder.join("ctl"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("ip netns exec starts")
    }

    /// Kills BIRD without a word.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("BIRD is running");
        self.process.wait().expect("BIRD ends");
    }

    /// Stops it where it stands: its kernel still answers, and it does not.
    pub(crate) fn freeze(&self) {
        run("kill", &["-STOP", &self.process.id().to_string()]);
    }

    /// Starts it again as one that recovers from a crash.
    pub(crate) fn start_again(&mut self) {
        self.process = Self::spawn(self.namespace, &self.folder, &["-R"]);
    }

    /// Asks BIRD something.
    pub(crate) fn ask(&self, question: &str) -> String {
        let output = self
            .namespace
            .command("birdc")
            .arg("-s")
            .arg(self.folder.join("ctl"))
            .args(question.split(' '))
            .output()
            .expect("ip netns exec starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until an answer contains a word.
    pub(crate) async fn wait_for(&self, question: &str, word: &str) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let answer = self.ask(question);
            if answer.contains(word) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        panic!("{question}: no {word} in\n{}\nlog:\n{log}", self.ask(question));
    }
}

impl Drop for Bird<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Waits until a peer's status is as wanted.
pub(crate) async fn wait_for_peer(
    handle: &Handle,
    address: &str,
    wanted: impl Fn(&PeerStatus) -> bool,
) -> PeerStatus {
    let address: IpAddr = address.parse().unwrap();
    let mut last = None;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        last = handle.status().await.unwrap().into_iter().find(|status| status.address == address);
        if let Some(status) = last.as_ref().filter(|status| wanted(status)) {
            return status.clone();
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the peer never got there: {last:#?}");
}

pub(crate) async fn wait_until_up(handle: &Handle, address: &str) -> PeerStatus {
    wait_for_peer(handle, address, |status| status.state == State::Established).await
}

/// Waits until the learned routes are as wanted.
pub(crate) async fn wait_for_routes(
    handle: &Handle,
    wanted: impl Fn(&LearnedRoutes) -> bool,
) -> LearnedRoutes {
    let mut learned = handle.learned().await.unwrap();
    let arrived = tokio::time::timeout(
        PATIENCE,
        learned.wait_for(|routes| routes.as_ref().is_some_and(|routes| wanted(routes))),
    )
    .await
    .map(|routes| routes.expect("the speaker runs").as_deref().cloned());
    match arrived {
        Ok(routes) => routes.expect("routes are known"),
        Err(_) => panic!("the routes never came: {:?}", *handle.learned().await.unwrap().borrow()),
    }
}

pub(crate) async fn paths(handle: &Handle, prefix: &str) -> Vec<RouteStatus> {
    let prefix = prefix.parse().unwrap();
    handle.routes().await.unwrap().into_iter().filter(|route| route.prefix == prefix).collect()
}

/// Waits until there are this many paths to a destination.
pub(crate) async fn wait_for_paths(handle: &Handle, prefix: &str, wanted: usize) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while paths(handle, prefix).await.len() != wanted {
        assert!(tokio::time::Instant::now() < deadline, "not {wanted}: {:?}", paths(handle, prefix).await);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
