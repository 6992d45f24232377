//! Other people's BGP daemons: what each is told, how it is started and asked, and what its Debian version lacks.
//!
//! A test says what a peer shall be in neutral words, a [`Setup`]; each [`Daemon`] puts it into its own.

mod bird;
mod exabgp;
mod frr;
mod gobgp;

use std::fmt::Write;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use calico_model::Community;

use crate::lab::Namespace;

pub(crate) use bird::Bird2;
pub(crate) use exabgp::Exabgp;
pub(crate) use frr::Frr;
pub(crate) use gobgp::Gobgp;

/// All of them, in the order of the README's table.
pub(crate) const DAEMONS: [&dyn Daemon; 4] = [&Bird2, &Frr, &Gobgp, &Exabgp];

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// What a peer shall be.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Its address, which is also its router id when it is an IPv4 address.
    pub(crate) address: IpAddr,
    pub(crate) router_id: String,
    pub(crate) asn: u32,
    /// Whom it peers with: address and AS number.
    pub(crate) neighbors: Vec<(IpAddr, u32)>,
    pub(crate) password: Option<&'static str>,
    /// Its neighbours are one hop away, checked by the time to live.
    pub(crate) one_hop: bool,
    /// Its address of the other family, if both are exchanged: what routes of that family lead to.
    pub(crate) other_address: Option<IpAddr>,
    /// What it tells, with the communities [`TOLD`] and the route target [`TARGET`] on each route.
    pub(crate) routes: Vec<String>,
}

/// What every daemon puts on its routes.
pub(crate) const TOLD: [Community; 2] = [Community::Standard(65000, 7), Community::Large(1, 2, 3)];

/// The extended community that every daemon puts on its routes, a route target.
pub(crate) const TARGET: (u16, u16) = (65000, 8);

impl Setup {
    /// Returns its address of each family that is exchanged.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [self.address].into_iter().chain(self.other_address)
    }

    /// Returns the routes of the family of an address of its.
    pub(crate) fn routes_by(&self, address: IpAddr) -> impl Iterator<Item = &String> {
        self.routes.iter().filter(move |route| is_v6(route) == address.is_ipv6())
    }
}

/// Whether a destination is of IPv6.
fn is_v6(prefix: &str) -> bool {
    prefix.contains(':')
}

/// What can work with a daemon or not: the rows of the README's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    Ipv4AndIpv6,
    BothFamilies,
    InternalAndExternal,
    Md5,
    Gtsm,
    WideAs,
    Reflection,
    OurRestart,
    TheirRestart,
    AddPath,
    ExtendedMessages,
    ShutdownText,
    OurShutdownText,
    RouteRefresh,
    TheirRefresh,
    EnhancedRefresh,
    MaxPrefixes,
    Communities,
    LargeUpdates,
}

impl Feature {
    pub(crate) const ALL: [(Feature, &'static str); 19] = [
        (Self::Ipv4AndIpv6, "sessions over IPv4 and IPv6"),
        (Self::BothFamilies, "both families on one session (RFC 4760)"),
        (Self::InternalAndExternal, "iBGP and eBGP"),
        (Self::Md5, "TCP MD5, over IPv4 and IPv6 (RFC 2385)"),
        (Self::Gtsm, "GTSM (RFC 5082)"),
        (Self::WideAs, "4-octet AS numbers (RFC 6793)"),
        (Self::Reflection, "route reflection, racks of article 004 (RFC 4456)"),
        (Self::OurRestart, "graceful restart of ours (RFC 4724)"),
        (Self::TheirRestart, "graceful restart of theirs (RFC 4724)"),
        (Self::AddPath, "two paths of one prefix, both ways (RFC 7911)"),
        (Self::ExtendedMessages, "extended messages (RFC 8654)"),
        (Self::ShutdownText, "their shutdown texts, as we read them (RFC 9003)"),
        (Self::OurShutdownText, "our shutdown texts, as they read them (RFC 9003)"),
        (Self::RouteRefresh, "route refresh that we ask for (RFC 2918)"),
        (Self::TheirRefresh, "route refresh that they ask for (RFC 2918)"),
        (Self::EnhancedRefresh, "enhanced route refresh (RFC 7313)"),
        (Self::MaxPrefixes, "our limit of prefixes"),
        (Self::Communities, "communities kept through us: standard, extended, large (RFC 1997, 4360, 8092)"),
        (Self::LargeUpdates, "large updates, 3,000 routes"),
    ];
}

/// A BGP daemon.
pub(crate) trait Daemon: Sync {
    /// Its name and the version that Debian 12 has.
    fn name(&self) -> &'static str;

    /// What that version lacks, and why.
    fn lacks(&self) -> &'static [(Feature, &'static str)];

    /// Writes its configuration into the folder, and returns the program to run and its arguments.
    fn prepare(&self, setup: &Setup, folder: &Path) -> Vec<String>;

    /// Returns the program that it needs beside it, which goes on while it is killed and started again.
    fn beside(&self, _: &Path) -> Option<Vec<String>> {
        None
    }

    /// The arguments of a start that recovers from a crash.
    fn recovering(&self) -> &'static [&'static str] {
        &[]
    }

    /// What must be said to it once it runs.
    fn begin(&self, _: &Running<'_>) {}

    /// Returns what it says of a destination that it was told a route to, or `None` when it has none.
    fn heard(&self, running: &Running<'_>, prefix: &str) -> Option<String>;

    /// Counts the paths that it has to a destination that it was told.
    fn paths(&self, running: &Running<'_>, prefix: &str) -> usize;

    /// Returns how it writes a community.
    fn community(&self, community: Community) -> String {
        community.to_string()
    }

    /// Returns how it writes the route target [`TARGET`].
    fn target(&self) -> &'static str;

    /// Has it end the session with a text.
    fn shut_down(&self, running: &Running<'_>, text: &str);

    /// Has it ask its first neighbour for everything again.
    fn refresh(&self, running: &Running<'_>);
}

pub(crate) fn works(daemon: &dyn Daemon, feature: Feature) -> bool {
    !daemon.lacks().iter().any(|(lacking, _)| *lacking == feature)
}

/// Draws the README's table.
pub(crate) fn table() -> String {
    let mut text = String::from("| |");
    DAEMONS.iter().for_each(|daemon| write!(text, " {} |", daemon.name()).unwrap());
    text.push_str("\n|---|");
    DAEMONS.iter().for_each(|_| text.push_str("---|"));
    for (feature, words) in Feature::ALL {
        write!(text, "\n| {words} |").unwrap();
        for daemon in DAEMONS {
            let lack = daemon.lacks().iter().find(|(lacking, _)| *lacking == feature);
            write!(text, " {} |", lack.map_or("yes", |(_, why)| why)).unwrap();
        }
    }
    text.push('\n');
    text
}

/// A daemon that runs in a namespace; gone when this is dropped.
pub(crate) struct Running<'n> {
    pub(crate) daemon: &'static dyn Daemon,
    pub(crate) namespace: &'n Namespace,
    pub(crate) folder: PathBuf,
    pub(crate) setup: Setup,
    command: Vec<String>,
    process: Child,
    beside: Option<Child>,
}

impl<'n> Running<'n> {
    pub(crate) fn start(daemon: &'static dyn Daemon, namespace: &'n Namespace, setup: Setup) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("cbgp-peer-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the daemon");
        let command = daemon.prepare(&setup, &folder);
        let beside = daemon.beside(&folder).map(|command| spawn(namespace, &folder, &command, &[]));
        let process = spawn(namespace, &folder, &command, &[]);
        let running = Self { daemon, namespace, folder, setup, command, process, beside };
        daemon.begin(&running);
        running
    }

    /// Kills it without a word.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("the daemon is running");
        self.process.wait().expect("the daemon ends");
    }

    /// Starts it again as one that recovers from a crash.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(self.namespace, &self.folder, &self.command, self.daemon.recovering());
        self.daemon.begin(self);
    }

    /// Runs a program beside it and returns what it printed.
    pub(crate) fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.namespace.command(program).args(arguments).output().expect("ip netns exec starts");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    pub(crate) fn heard(&self, prefix: &str) -> Option<String> {
        self.daemon.heard(self, prefix)
    }

    /// Waits until it has, or has not, a route.
    pub(crate) async fn wait_for(&self, prefix: &str, wanted: bool) -> String {
        for _ in 0..300 {
            let heard = self.heard(prefix);
            if heard.is_some() == wanted {
                return heard.unwrap_or_default();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{}: {prefix} is never {wanted}; log:\n{}", self.daemon.name(), self.log());
    }

    /// Waits until it has this many paths to a destination.
    pub(crate) async fn wait_for_paths(&self, prefix: &str, wanted: usize) {
        let mut paths = 0;
        for _ in 0..300 {
            paths = self.daemon.paths(self, prefix);
            if paths == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let heard = self.heard(prefix);
        panic!("{}: {paths} paths, not {wanted}: {heard:?}; log:\n{}", self.daemon.name(), self.log());
    }

    /// Waits until it has written some words into its log.
    pub(crate) async fn wait_for_words(&self, words: &str) {
        for _ in 0..300 {
            if self.log().contains(words) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{}: no {words} in\n{}", self.daemon.name(), self.log());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        for process in [Some(&mut self.process), self.beside.as_mut()].into_iter().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn spawn(namespace: &Namespace, folder: &Path, command: &[String], more: &[&str]) -> Child {
    let (program, arguments) = command.split_first().expect("a program to run");
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("the daemon's log");
    namespace
        .command(program)
        .args(arguments)
        .args(more)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the daemon's log"))
        .stderr(log)
        .spawn()
        .expect("ip netns exec starts")
}

/// Finds a program, which Debian may have put where an ordinary PATH does not look.
fn program(name: &str, package: &str) -> String {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/lib/frr", "/usr/local/sbin", "/usr/local/bin"];
    let found = folders.iter().map(|folder| format!("{folder}/{name}")).find(|path| Path::new(path).exists());
    found.unwrap_or_else(|| panic!("the tests against real peers need {name}: apt-get install {package}"))
}

/// Tries a question until it is answered: a daemon that was just started may not listen yet.
fn until_answered(mut ask: impl FnMut() -> bool) {
    for _ in 0..200 {
        if ask() {
            return;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}
