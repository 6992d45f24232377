//! Does a change of the rules ever let through what both the old and the new deny, or lose what both allow?
//!
//! One workload sends datagrams to another without pause, each the first of a flow of its own: some to ports that are
//! always allowed, as many to ports that never are. Meanwhile the rules between the two are replaced, again and again.
//! What arrives is counted where it arrives, so that nothing depends on how fast an answer is.
//!
//! Packets between namespaces wait in a queue that each CPU has for all namespaces of the machine, a thousand long. On a busy
//! machine it may be full, whatever the rules. What is turned away on the first way is sent again; what is turned away on
//! the second, behind the rules, the kernel counts, and that is not called lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use calico_policy::Ruleset;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, recv, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

use super::super::wait::{Interrupt, Stopwatch};
use super::ask::compiled;
use super::error::ConformanceError;
use super::scene::{End, Network, Placement, Pod, Scene, Seat};
use super::stage::Stage;
use super::{Filter, Hosts};

/// How long what was sent may take to arrive when the last of it is on its way.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two replacements.
const PAUSE: Duration = Duration::from_millis(15);
/// The first of the ports that are allowed, and of those that are denied; a hundred of each.
const ALLOWED: u16 = 8000;
const DENIED: u16 = 9000;
/// Flows to one port, each from a source port of its own.
const PER_PORT: u64 = 60_000;

/// How rules are replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// As the agent does it: what differs, in one transaction of a table.
    #[default]
    Transaction,
    /// All rules are removed, and then the new ones are written. What this loses or leaks shows that the count can see it.
    RemoveThenWrite,
}

/// How often rules are replaced, and under how many flows.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// Whose rules are replaced.
    pub filter: Filter,
    /// How often rules are replaced.
    pub replacements: usize,
    /// New flows of each kind, a second.
    pub flows: u64,
    /// How rules are replaced.
    pub method: Method,
}

/// What arrived of what was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Toll {
    /// How often rules were replaced.
    pub replacements: usize,
    /// Flows that were to arrive.
    pub allowed: u64,
    /// Those of them that did not, though no queue was full.
    pub lost: u64,
    /// Those that a full queue of a CPU turned away.
    pub turned_away: u64,
    /// Flows that were not to arrive.
    pub denied: u64,
    /// Those of them that did.
    pub leaked: u64,
    /// How long it took.
    pub took: Duration,
}

/// What is counted while rules are replaced.
#[derive(Default)]
struct Counts {
    over: AtomicBool,
    heard: AtomicBool,
    allowed: AtomicU64,
    denied: AtomicU64,
    arrived: AtomicU64,
    leaked: AtomicU64,
}

/// Replaces rules under new flows, and counts.
///
/// # Errors
/// When not root, or when namespaces, rules or packets cannot be made.
pub fn storm(storm: &Storm, interrupt: &Interrupt) -> Result<Toll, ConformanceError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(ConformanceError::NotRoot);
    }
    let pods = ["lab/client", "lab/server"].map(str::to_owned);
    let placement = Placement::of(Hosts::One, &pods);
    let ends = [1, 2].map(|last| Ipv4Addr::new(10, 65, 200, last));
    let [client, server] =
        [0, 1].map(|index| End { seat: Seat::Pod { name: pods[index].clone(), host: 0 }, addr: ends[index] });
    let all = BTreeSet::from([client.clone(), server.clone()]);
    let mut stage = Stage::up(storm.filter, &all, &BTreeSet::new(), &placement, interrupt)?;
    let mut rules = Vec::new();
    for version in 0..2 {
        let scene = scene(&ends, version);
        let wrong = |reason| ConformanceError::Case { case: "of atomicity".to_owned(), reason };
        let snapshot = scene.snapshot(&placement).map_err(wrong)?;
        rules.push(compiled(&snapshot, &placement).map_err(wrong)?);
    }
    stage.enforce(rules[0].clone())?;
    let (from, to) = (stage.namespace(&client)?, stage.namespace(&server)?);
    // What is sent before the sockets are open would count as lost.
    let out = within(&from, || outgoing(client.addr)).map_err(ConformanceError::io("send datagrams"))?;
    let into = within(&to, || incoming(server.addr)).map_err(ConformanceError::io("receive datagrams"))?;
    let counts = Counts::default();
    let ways = stage.host_namespaces()?;
    let turned_away = || -> Result<u64, ConformanceError> {
        let each = ways.iter().map(turned_away).sum::<io::Result<u64>>();
        each.map_err(ConformanceError::io("read what interfaces count"))
    };
    let before = turned_away()?;
    let clock = Stopwatch::start();
    let done = thread::scope(|scope| {
        let hearing = scope.spawn(|| hear(&into, &counts));
        let sending = scope.spawn(|| send(&out, server.addr, storm.flows, &counts));
        let replaced = replace(&mut stage, &rules, storm, interrupt, &counts);
        counts.over.store(true, Ordering::SeqCst);
        let join = |done: thread::ScopedJoinHandle<'_, io::Result<()>>| {
            done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let sent = join(sending);
        counts.heard.store(true, Ordering::SeqCst);
        let heard = join(hearing);
        sent.map_err(ConformanceError::io("send datagrams"))?;
        heard.map_err(ConformanceError::io("receive datagrams"))?;
        replaced
    });
    done?;
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let missing = count(&counts.allowed).saturating_sub(count(&counts.arrived));
    let turned_away = turned_away()?.saturating_sub(before).min(missing);
    Ok(Toll {
        replacements: storm.replacements,
        allowed: count(&counts.allowed),
        lost: missing - turned_away,
        turned_away,
        denied: count(&counts.denied),
        leaked: count(&counts.leaked),
        took: clock.elapsed(),
    })
}

/// Replaces one version of the rules by the other, once datagrams arrive.
fn replace(
    stage: &mut Stage,
    rules: &[Vec<(calico_model::NodeName, Ruleset)>],
    storm: &Storm,
    interrupt: &Interrupt,
    counts: &Counts,
) -> Result<(), ConformanceError> {
    let clock = Stopwatch::start();
    while counts.arrived.load(Ordering::SeqCst) == 0 {
        interrupt.check()?;
        if clock.elapsed() > PATIENCE {
            return Err(ConformanceError::io("see any datagram arrive")(io::ErrorKind::TimedOut));
        }
        thread::sleep(Duration::from_millis(5));
    }
    for round in 1..=storm.replacements {
        interrupt.check()?;
        if storm.method == Method::RemoveThenWrite {
            stage.remove_rules()?;
        }
        stage.enforce(rules[round % rules.len()].clone())?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Opens a socket to send datagrams from an address.
fn outgoing(from: Ipv4Addr) -> io::Result<OwnedFd> {
    let out = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Udp)?;
    bind(out.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    // Without it the kernel does not say that a datagram was turned away before it left (raw(7)).
    setsockopt(&out, sockopt::Ipv4RecvErr, &true)?;
    Ok(out)
}

/// Opens a socket that hears the datagrams to an address.
fn incoming(addr: Ipv4Addr) -> io::Result<OwnedFd> {
    let into = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Udp)?;
    // Room for several seconds of datagrams, so that a machine that is slow for a while loses none.
    setsockopt(&into, sockopt::RcvBufForce, &(64 << 20))?;
    setsockopt(&into, sockopt::ReceiveTimeout, &TimeVal::new(0, 100_000))?;
    bind(into.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(addr, 0)))?;
    Ok(into)
}

/// Sends datagrams of both kinds at an even pace until the replacing is over.
fn send(out: &OwnedFd, to: Ipv4Addr, flows: u64, counts: &Counts) -> io::Result<()> {
    let clock = Stopwatch::start();
    let mut sent = 0;
    while !counts.over.load(Ordering::SeqCst) {
        let due = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_mul(flows) / 1000;
        // After a pause that was not ours, the pace is kept and not made up for.
        let due = due.min(sent + flows / 50);
        while sent < due {
            for (first, counter) in [(ALLOWED, &counts.allowed), (DENIED, &counts.denied)] {
                let port = first + u16::try_from(sent / PER_PORT % 100).unwrap_or(0);
                let source = 2000 + u16::try_from(sent % PER_PORT).unwrap_or(0);
                datagram(out, source, port, to)?;
                counter.fetch_add(1, Ordering::SeqCst);
            }
            sent += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Sends a datagram of four bytes. Its header (RFC 768): ports, length, and no checksum.
fn datagram(out: &OwnedFd, source: u16, port: u16, to: Ipv4Addr) -> io::Result<()> {
    let mut bytes = [0; 12];
    bytes[..2].copy_from_slice(&source.to_be_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes[4..6].copy_from_slice(&12_u16.to_be_bytes());
    let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
    loop {
        match sendto(out.as_raw_fd(), &bytes, &to, MsgFlags::empty()) {
            Err(Errno::ENOBUFS | Errno::EINTR) => thread::sleep(Duration::from_millis(1)),
            // What became of an earlier one: nobody but the counter listens there.
            Err(Errno::ECONNREFUSED) => {}
            sent => return Ok(sent.map(drop)?),
        }
    }
}

/// How many packets the interfaces of a namespace could not hand to their other ends, because the queue there was full. What
/// rules drop is not among them.
fn turned_away(netns: &File) -> io::Result<u64> {
    /// The place of the packets that were dropped on sending, among what `/proc/net/dev` tells of an interface.
    const DROPPED: usize = 11;
    within(netns, || {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
        let interfaces = text.lines().filter_map(|line| line.split_once(':'));
        let dropped = interfaces.filter_map(|(_, counts)| counts.split_whitespace().nth(DROPPED));
        Ok(dropped.filter_map(|count| count.parse::<u64>().ok()).sum())
    })
}

/// Does something on a thread of its own in a namespace.
fn within<T: Send>(netns: &File, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let inside = || setns(netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from).and_then(|()| act());
    thread::scope(|scope| scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// Counts what arrives, until all that was sent has, or nothing more comes.
fn hear(into: &OwnedFd, counts: &Counts) -> io::Result<()> {
    let mut buffer = [0; 64];
    let mut silence: Option<Stopwatch> = None;
    loop {
        match recv(into.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) if length >= 24 => {
                silence = None;
                let port = u16::from_be_bytes([buffer[22], buffer[23]]);
                let counter = if port >= DENIED { &counts.leaked } else { &counts.arrived };
                counter.fetch_add(1, Ordering::SeqCst);
            }
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if counts.heard.load(Ordering::SeqCst) {
            let waited = silence.get_or_insert_with(Stopwatch::start).elapsed();
            let all = counts.arrived.load(Ordering::SeqCst) >= counts.allowed.load(Ordering::SeqCst);
            if all && waited > Duration::from_millis(200) || waited > Duration::from_secs(3) {
                return Ok(());
            }
        }
    }
}

/// Two workloads and the policy between them. Both versions allow and deny the same, by other rules in another order.
fn scene(ends: &[Ipv4Addr; 2], version: u8) -> Scene {
    let pod = |name: &str, addr: Ipv4Addr| Pod {
        namespace: "lab".to_owned(),
        name: name.to_owned(),
        labels: json!({"app": name}),
        network: Network::Own(addr),
        ports: Vec::new(),
    };
    let mut scene = Scene::default();
    scene.set_namespace("lab", &json!({}));
    scene.pods = BTreeMap::from([
        ("lab/client".to_owned(), pod("client", ends[0])),
        ("lab/server".to_owned(), pod("server", ends[1])),
    ]);
    let elsewhere = |index: u8| {
        json!({"action": "Allow", "protocol": "UDP", "source": {"nets": [format!("203.0.{version}.{index}/32")]},
               "destination": {"ports": [u16::from(index) + 100 * (u16::from(version) + 1)]}})
    };
    let ports = [format!("{ALLOWED}:{}", ALLOWED + 99)];
    let ours = json!({"action": "Allow", "protocol": "UDP", "source": {"selector": "app == 'client'"},
                      "destination": {"ports": ports}});
    let mut rules: Vec<Value> = (0..200).map(elsewhere).collect();
    rules.insert(if version == 0 { 0 } else { 200 }, ours);
    scene.put(&json!({
        "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
        "metadata": {"name": "storm", "namespace": "lab"},
        "spec": {"selector": "app == 'server'", "types": ["Ingress"], "ingress": rules},
    }));
    scene
}

impl fmt::Display for Toll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replacements, allowed, lost, turned_away, denied, leaked, took } = self;
        let seconds = took.as_secs_f64();
        // As good as exact, for rates that people read.
        let rate = |count: u64| count.checked_div(took.as_secs().max(1)).unwrap_or(0);
        writeln!(f, "{replacements} replacements in {seconds:.1} s")?;
        write!(f, "allowed: {allowed} flows ({} a second), {lost} lost", rate(*allowed))?;
        writeln!(
            f,
            "{}",
            if *turned_away > 0 {
                format!(", {turned_away} turned away by a full queue")
            } else {
                String::new()
            }
        )?;
        write!(f, "denied:  {denied} flows ({} a second), {leaked} leaked", rate(*denied))
    }
}
