//! Live flows when policy changes: those that it denies stop, whoever speaks, and the others notice nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use calico_node::lab::{Lab, Stopwatch};
use nix::sched::{CloneFlags, setns};

use crate::agent::eventually;
use crate::lab::up;

const TOPOLOGY: &str = "
name: any
subnets:
  - {name: left, cidr: 172.16.6.0/24, gateway: 172.16.6.254}
hosts:
  - {name: node1, address: 172.16.6.47}
  - {name: node2, address: 172.16.6.249}
pools:
  - {cidr: 10.65.0.0/16, vxlanMode: Never}
workloads:
  - {name: db, host: node1, labels: {app: db}}
  - {name: mate, host: node1, labels: {app: mate}}
  - {name: guest, host: node1, labels: {app: guest}}
  - {name: far, host: node2, labels: {app: far}}
";

const BASE: &str = "
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: base, namespace: default}
spec:
  selector: app == 'db'
  types: [Ingress]
  ingress:
    - {action: Allow, source: {selector: app == 'mate'}}
    - {action: Allow, source: {selector: is == 'friends'}}
";

fn guests(port: u16) -> String {
    ["TCP", "UDP"].map(|protocol| format!("    - {{action: Allow, protocol: {protocol}, source: {{selector: app == 'guest'}}, destination: {{ports: [{port}]}}}}\n")).concat()
}

fn guests_policy(port: u16) -> String {
    format!(
        "
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: guests, namespace: default}}
spec:
  selector: app == 'db'
  types: [Ingress]
  ingress:
{}",
        guests(port)
    )
}

fn friends(net: &str) -> String {
    format!(
        "
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {{name: friends, namespace: default, labels: {{is: friends}}}}
spec: {{nets: [{net}]}}
"
    )
}

const PORT: u16 = 7000;
const PACE: Duration = Duration::from_millis(20);

/// What the server has received, by sender.
type Seen = Arc<Mutex<BTreeMap<SocketAddr, u64>>>;

/// Does work inside a namespace, on a thread of its own.
fn within<T: Send + 'static>(netns: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let door = File::open(Path::new("/run/netns").join(netns)).unwrap();
    thread::spawn(move || {
        setns(&door, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

/// Serves for ever: of those that begin with `e` everything is sent back, those that begin with `p` are sent to.
fn serve(seen: &Seen) {
    let (listener, socket) =
        (TcpListener::bind(("0.0.0.0", PORT)).unwrap(), UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    let note = |seen: &Seen, from| *seen.lock().unwrap().entry(from).or_default() += 1;
    let of_tcp = Arc::clone(seen);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen) = (stream.unwrap(), Arc::clone(&of_tcp));
            thread::spawn(move || {
                let (peer, mut byte) = (stream.peer_addr().unwrap(), [0]);
                while stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    note(&seen, peer);
                    while byte == *b"p" && stream.write_all(b"x").is_ok() {
                        thread::sleep(PACE);
                    }
                    if stream.write_all(&byte).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let of_udp = Arc::clone(seen);
    thread::spawn(move || {
        let mut byte = [0];
        loop {
            let Ok((_, from)) = socket.recv_from(&mut byte) else { continue };
            note(&of_udp, from);
            if byte == *b"p" {
                let socket = socket.try_clone().unwrap();
                thread::spawn(move || {
                    loop {
                        // What is dropped on its way is what this is about.
                        drop(socket.send_to(b"x", from));
                        thread::sleep(PACE);
                    }
                });
            } else {
                drop(socket.send_to(&byte, from));
            }
        }
    });
}

/// A flow that goes on.
struct Flow {
    name: String,
    local: SocketAddr,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Socket {
    fn send(&mut self, bytes: &[u8]) {
        // A TCP stream that is stopped keeps what is written; a datagram may be refused once an earlier one was.
        match self {
            Socket::Tcp(stream) => stream.write_all(bytes).unwrap(),
            Socket::Udp(socket) => drop(socket.send(bytes)),
        }
    }

    fn receive(&mut self) -> u64 {
        let mut buffer = [0; 512];
        let received = match self {
            Socket::Tcp(stream) => stream.read(&mut buffer),
            Socket::Udp(socket) => socket.recv(&mut buffer),
        };
        match received {
            Ok(count) => count as u64,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Begins a flow; `stop` ends its questions, not its answers.
fn begin(lab: &Lab, from: &str, to: IpAddr, what: &str, stop: &Arc<AtomicBool>) -> Flow {
    begin_at(lab, from, "0.0.0.0", to, what, stop)
}

/// Begins a flow; one of UDP comes from the address.
fn begin_at(lab: &Lab, from: &str, at: &str, to: IpAddr, what: &str, stop: &Arc<AtomicBool>) -> Flow {
    let at: IpAddr = at.parse().unwrap();
    let (sent, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (netns, to) = (lab.state().netns(from).unwrap().to_owned(), SocketAddr::new(to, PORT));
    let (is_tcp, asks) = (what.starts_with("tcp"), what.ends_with("echo"));
    let made = within(&netns, move || {
        if is_tcp {
            let stream = TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PACE)).unwrap();
            return (stream.local_addr().unwrap(), Socket::Tcp(stream));
        }
        let socket = UdpSocket::bind((at, 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PACE)).unwrap();
        (socket.local_addr().unwrap(), Socket::Udp(socket))
    });
    let (local, mut socket) = made.join().unwrap();
    let counters = (Arc::clone(&sent), Arc::clone(&received), Arc::clone(stop));
    thread::spawn(move || {
        let (sent, received, stop) = counters;
        if !asks {
            socket.send(b"p");
        }
        loop {
            if asks && !stop.load(SeqCst) {
                socket.send(b"e");
                sent.fetch_add(1, SeqCst);
            }
            let tick = Stopwatch::start();
            while tick.elapsed() < PACE {
                received.fetch_add(socket.receive(), SeqCst);
            }
        }
    });
    Flow { name: format!("{what} of {from}"), local, sent, received }
}

/// How much of a flow has arrived, at either end.
fn progress(flow: &Flow, seen: &Seen) -> u64 {
    flow.received.load(SeqCst) + seen.lock().unwrap().get(&flow.local).copied().unwrap_or_default()
}

fn all_go_on(flows: &[Flow], seen: &Seen) {
    for flow in flows {
        let before = progress(flow, seen);
        let now = eventually(|| progress(flow, seen), |now| *now > before + 2);
        assert!(now > before + 2, "{} does not go on", flow.name);
    }
}

/// Waits until nothing of the flows has arrived for a while, and says when the last thing did.
fn all_stop(flows: &[Flow], seen: &Seen, change: &str) {
    /// Longer than any pause of a flow that goes on, also on a busy machine.
    const QUIET: Duration = Duration::from_millis(800);
    let progress = || flows.iter().map(|flow| progress(flow, seen)).collect::<Vec<_>>();
    let (clock, mut last, mut since) = (Stopwatch::start(), progress(), Duration::ZERO);
    while clock.elapsed() - since < QUIET {
        assert!(clock.elapsed() < Duration::from_secs(8), "after {change}, flows go on");
        thread::sleep(Duration::from_millis(5));
        let now = progress();
        if now != last {
            (last, since) = (now, clock.elapsed());
        }
    }
    println!("after {change}, the last of {} flows stopped within {since:?}", flows.len());
    assert!(since < Duration::from_secs(3), "after {change}, flows went on for {since:?}");
}

/// What `calicoctl plan` tells of a change on the host whose agent runs.
fn plan(lab: &Lab, manifest: &str) -> serde_json::Value {
    let file = std::env::temp_dir().join(format!("calico-flows-{}.yaml", std::process::id()));
    std::fs::write(&file, manifest).unwrap();
    let planned =
        lab.exec("node1", "calicoctl", &["plan", "-f", file.to_str().unwrap(), "-o", "json"]).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(planned.code, Some(2), "{}", planned.stderr);
    serde_json::from_str(&planned.stdout).unwrap()
}

#[test]
fn pe61_flows_that_policy_denies_stop_whoever_speaks_and_a_hundred_others_lose_nothing() {
    let lab = up(TOPOLOGY);
    let db = lab.address("db").unwrap();
    let far_net = format!("{}/32", lab.address("far").unwrap());
    let endpoint = {
        let listed = lab.calicoctl("node1", &["get", "workloadendpoint", "-o", "name"], "").unwrap();
        let of_guest = |line: &&str| line.contains("guest");
        listed.lines().find(of_guest).unwrap().rsplit('/').next().unwrap().to_owned()
    };
    let seen = Seen::default();
    let of_server = Arc::clone(&seen);
    within(lab.state().netns("db").unwrap(), move || serve(&of_server)).join().unwrap();
    lab.apply(&[BASE, &guests_policy(PORT), &friends(&far_net)].join("---")).unwrap();
    eventually(|| lab.ping("mate", db).unwrap(), |verdict| *verdict == calico_node::lab::Verdict::Allowed);

    let stop = Arc::new(AtomicBool::new(false));
    let kinds = ["tcp echo", "tcp push", "udp echo", "udp push"];
    let of = |from: &str| kinds.map(|kind| begin(&lab, from, db, kind, &stop));
    let (guest, far) = (of("guest"), of("far"));
    let mates: Vec<Flow> =
        (0..100).map(|i| begin(&lab, "mate", db, ["tcp echo", "udp echo"][i % 2], &stop)).collect();
    // No resource names this address of the node.
    lab.exec("node1", "ip", &["addr", "add", "172.16.9.47/32", "dev", "eth0"]).unwrap();
    let node = ["udp echo", "udp push"].map(|kind| begin_at(&lab, "node1", "172.16.9.47", db, kind, &stop));
    all_go_on(&guest, &seen);
    all_go_on(&far, &seen);
    all_go_on(&node, &seen);

    let label = |value: &str| {
        let label = format!("app={value}");
        let words = ["label", "workloadendpoint", &endpoint, &label, "--overwrite"];
        lab.calicoctl("node1", &words, "").unwrap();
    };
    let planned = plan(&lab, &guests_policy(1));
    let connections = &planned["connections"];
    assert_eq!(
        (&connections["node"], &connections["stopped"]),
        (&"node1".into(), &true.into()),
        "{planned:#}"
    );
    assert_eq!(connections["denied"].as_array().map(Vec::len), Some(guest.len()), "{connections:#}");
    all_go_on(&guest, &seen);
    lab.apply(&guests_policy(1)).unwrap();
    all_stop(&guest, &seen, "a policy that is tighter");
    all_go_on(&node, &seen);
    lab.apply(&guests_policy(PORT)).unwrap();
    all_go_on(&guest, &seen);

    label("stranger");
    all_stop(&guest, &seen, "other labels");
    label("guest");
    all_go_on(&guest, &seen);

    lab.calicoctl("node1", &["delete", "networkpolicy", "guests"], "").unwrap();
    all_stop(&guest, &seen, "the end of a policy");
    lab.apply(&guests_policy(PORT)).unwrap();
    all_go_on(&guest, &seen);

    lab.apply(&friends("192.0.2.0/24")).unwrap();
    all_stop(&far, &seen, "another set");
    lab.apply(&friends(&far_net)).unwrap();
    all_go_on(&far, &seen);

    stop.store(true, SeqCst);
    for flow in &mates {
        let sent = flow.sent.load(SeqCst);
        assert!(sent > 50, "{} sent {sent}", flow.name);
        let received =
            eventually(|| flow.received.load(SeqCst), |received| *received >= flow.sent.load(SeqCst));
        assert_eq!(received, flow.sent.load(SeqCst), "{}", flow.name);
    }
    lab.down().unwrap();
}
