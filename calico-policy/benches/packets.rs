//! What policy costs a packet: the first of a flow, and one of a flow that goes on.
//!
//! `cargo bench -p calico-policy --features nft --bench packets`, as root; it works in network namespaces of its own. A workload
//! sends datagrams through a host to another that has 1, 10, 100 or 1,000 policies, of which the last allows them; beside it
//! the same policies laid out the usual way, a chain for each, asked in order. All that the kernel does with a datagram is
//! counted (two interfaces, routing, connection tracking): CPU time of the sender, in whose time all of it happens. The
//! least of several rounds, in which the layouts take turns; each begins with no flows.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

use calico_model::resource::{NetworkPolicy, Object, Policy, PolicyType, Profile, Rule, WorkloadEndpoint};
use calico_model::{NodeName, Snapshot};
use calico_policy::compile;
use calico_policy::nft::{Nft, Transaction, plan};
use nix::sched::{CloneFlags, setns, unshare};
use nix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 7;
const NEW_FLOWS: u16 = 8_000;
const DATAGRAMS: u32 = 40_000;
/// Where the last policy lets datagrams go.
const OPEN: u16 = 20_000;
const ECHO: u16 = 19_999;

fn node() -> NodeName {
    "node-0".parse().expect("a constant name")
}

/// One policy of many: every other names a network, every other a selector that selects nobody here.
fn rule(i: usize, count: usize) -> Rule {
    let mut rule = Rule::allow();
    rule.protocol = Some("UDP".parse().expect("a protocol"));
    let ports =
        if i + 1 == count { format!("{ECHO}:{}", OPEN + NEW_FLOWS) } else { format!("{}", 1_000 + i) };
    rule.destination.ports = vec![ports.parse().expect("ports")];
    if i + 1 == count || i.is_multiple_of(2) {
        let net = if i + 1 == count { "10.0.0.0/24".to_owned() } else { network(i) };
        rule.source.nets = vec![net.parse().expect("a network")];
    } else {
        rule.source.selector = Some(format!("app == 'app{i}'").parse().expect("a selector"));
    }
    rule
}

fn network(i: usize) -> String {
    format!("172.{}.{}.0/24", 16 + (i >> 8), i & 255)
}

fn endpoint(name: &str, interface: &str, addr: &str) -> Object<WorkloadEndpoint> {
    let mut spec = WorkloadEndpoint::on(node());
    spec.interface_name = Some(interface.parse().expect("an interface"));
    spec.ip_networks = vec![addr.parse().expect("an address")];
    spec.profiles = vec!["open".parse().expect("a name")];
    let mut object = Object::new(name.parse().expect("a name"), spec);
    object.metadata.namespace = Some("default".parse().expect("a namespace"));
    object.metadata.labels = [("is".to_owned(), name.to_owned())].into_iter().collect();
    object
}

fn world(policies: usize) -> Snapshot {
    let mut world = Snapshot::default();
    world.insert(Object::new("open".parse().expect("a name"), Profile::allow_all()));
    world.insert(endpoint("client", "cali1", "10.0.0.1"));
    world.insert(endpoint("server", "cali2", "10.0.0.2"));
    for i in 0..policies {
        let mut policy =
            Policy::selecting("is == 'server'".parse().expect("a selector"), vec![PolicyType::Ingress]);
        policy.ingress.push(rule(i, policies));
        let mut object = Object::new(format!("policy{i:04}").parse().expect("a name"), NetworkPolicy(policy));
        object.metadata.namespace = Some("default".parse().expect("a namespace"));
        world.insert(object);
    }
    world
}

/// The same policies as one chain for each, asked in order, as nft text.
fn usual(policies: usize) -> String {
    let mut text = String::from(
        "table inet usual {\nmap from { type ifname : verdict; }\nmap to { type ifname : verdict; }\n",
    );
    let mut jumps = String::new();
    for i in 0..policies {
        let rule = rule(i, policies);
        let ports = rule.destination.ports[0].to_string().replace(':', "-");
        let source = if rule.source.selector.is_some() {
            let _ = writeln!(text, "set app{i} {{ type ipv4_addr; }}");
            format!("@app{i}")
        } else {
            rule.source.nets[0].to_string()
        };
        let _ = writeln!(
            text,
            "chain policy{i} {{ meta nfproto ipv4 meta l4proto udp ip saddr {source} th dport {ports} accept; }}"
        );
        let _ = writeln!(jumps, "jump policy{i}");
    }
    let tracked = "ct state established,related accept\nct state invalid drop";
    let end = if policies == 0 { "accept" } else { "drop" };
    let _ = write!(
        text,
        "chain server {{ {tracked}\n{jumps}{end}; }}\nchain client {{ {tracked}\naccept; }}\n\
         chain a {{ type filter hook forward priority 0; iifname vmap @from; }}\n\
         chain b {{ type filter hook forward priority 1; oifname vmap @to; }}\n}}\n\
         add element inet usual from {{ \"cali1\" : goto client }}\nadd element inet usual to {{ \"cali2\" : goto server }}\n"
    );
    text
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip starts");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn nft_program(input: &str) {
    use std::io::Write as _;
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads its input");
    assert!(child.wait().expect("it ends").success(), "nft refuses\n{input}");
}

/// A thread's way into a namespace of its own, whose file stays open.
fn namespace() -> std::fs::File {
    unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
    here()
}

fn here() -> std::fs::File {
    std::fs::File::open("/proc/thread-self/ns/net").expect("proc is mounted")
}

/// A host with two workloads.
struct Lab {
    client: std::fs::File,
    host: std::fs::File,
}

impl Lab {
    fn new() -> Self {
        let (client, server, host) = (namespace(), namespace(), namespace());
        for (guest, interface, addr) in [(&client, "cali1", "10.0.0.1"), (&server, "cali2", "10.0.0.2")] {
            setns(guest, CloneFlags::CLONE_NEWNET).expect("its own namespace");
            ip("link set lo up");
            ip("link add eth0 address 02:00:00:00:00:02 type veth peer name outer address 02:00:00:00:00:01");
            ip("link set eth0 up");
            ip(&format!("addr add {addr}/32 dev eth0"));
            ip("neigh add 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent");
            ip("route add 169.254.1.1 dev eth0");
            ip("route add default via 169.254.1.1 dev eth0");
            // The host's end moves by the id of a process that is there: a `sleep` in the host's namespace.
            setns(&host, CloneFlags::CLONE_NEWNET).expect("its own namespace");
            let mut there = Command::new("sleep").arg("60").spawn().expect("sleep starts");
            setns(guest, CloneFlags::CLONE_NEWNET).expect("its own namespace");
            ip(&format!("link set outer netns {} name {interface}", there.id()));
            setns(&host, CloneFlags::CLONE_NEWNET).expect("its own namespace");
            there.kill().and_then(|()| there.wait()).expect("it ends");
            ip(&format!("link set {interface} up"));
            ip(&format!("neigh add {addr} lladdr 02:00:00:00:00:02 dev {interface} nud permanent"));
            ip(&format!("route add {addr}/32 dev {interface}"));
        }
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a setting of the namespace");
        setns(&server, CloneFlags::CLONE_NEWNET).expect("its own namespace");
        // Nothing answers at the open ports, not even that nothing is there.
        nft_program(&format!(
            "table inet t {{\nchain c {{ type filter hook prerouting priority -400; udp dport {OPEN}-65535 drop; }}\n}}"
        ));
        let echo = UdpSocket::bind(("10.0.0.2", ECHO)).expect("a free port");
        std::thread::spawn(move || {
            let mut first = true;
            let mut bytes = [0; 64];
            while let Ok((count, from)) = echo.recv_from(&mut bytes) {
                // One answer makes the flow one that goes on.
                if std::mem::take(&mut first) || bytes[0] == b'?' {
                    let _ = echo.send_to(&bytes[..count], from);
                }
            }
        });
        setns(&host, CloneFlags::CLONE_NEWNET).expect("its own namespace");
        Self { client, host }
    }

    fn in_client<T>(&self, act: impl FnOnce() -> T) -> T {
        setns(&self.client, CloneFlags::CLONE_NEWNET).expect("its own namespace");
        let result = act();
        setns(&self.host, CloneFlags::CLONE_NEWNET).expect("its own namespace");
        result
    }

    /// Returns what the first datagram of a flow costs.
    fn new_flow(&self) -> Duration {
        // However many flows others made: what finds no place in a full table is dropped, and what finds one finds it later.
        let forgotten = Command::new("conntrack").arg("-F").stderr(Stdio::null()).status();
        assert!(forgotten.expect("conntrack starts").success(), "the flows are forgotten");
        self.in_client(|| {
            let socket = UdpSocket::bind(("10.0.0.1", 0)).expect("a free port");
            let began = cpu();
            for port in OPEN..OPEN + NEW_FLOWS {
                socket.send_to(b".", ("10.0.0.2", port)).expect("it is sent");
            }
            (cpu() - began) / u32::from(NEW_FLOWS)
        })
    }

    /// Returns what a datagram of a flow that goes on costs.
    fn established(&self) -> Duration {
        self.in_client(|| {
            let socket = UdpSocket::bind(("10.0.0.1", 0)).expect("a free port");
            socket.connect(("10.0.0.2", ECHO)).expect("an address");
            socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time");
            socket.send(b"?").expect("it is sent");
            socket.recv(&mut [0; 8]).expect("the policies let it through");
            let began = cpu();
            (0..DATAGRAMS).for_each(|_| drop(socket.send(b".")));
            (cpu() - began) / DATAGRAMS
        })
    }
}

/// The CPU time of this thread.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock that is there").into()
}

#[derive(Clone, Copy, PartialEq)]
enum Rules {
    None,
    Ours(usize),
    Usual(usize),
}

fn put(rules: Rules, nft: &mut Nft) {
    nft.apply(&Transaction::removal()).expect("the kernel takes it");
    nft_program("add table inet usual\ndelete table inet usual\n");
    match rules {
        Rules::None => {}
        Rules::Ours(policies) => {
            let ruleset = compile(&world(policies), &node());
            let transaction = plan(&ruleset, &nft.read().expect("the kernel answers"));
            nft.apply(&transaction).expect("the kernel takes it");
        }
        Rules::Usual(policies) => nft_program(&usual(policies)),
    }
}

fn main() {
    let lab = Lab::new();
    let mut nft = Nft::new();
    let counts = [0, 1, 10, 100, 1_000];
    let all: Vec<Rules> = std::iter::once(Rules::None)
        .chain(counts.into_iter().flat_map(|count| [Rules::Ours(count), Rules::Usual(count)]))
        .collect();
    let mut least = vec![(Duration::MAX, Duration::MAX); all.len()];
    for _ in 0..ROUNDS {
        for (rules, (new, going)) in all.iter().zip(&mut least) {
            put(*rules, &mut nft);
            *new = (*new).min(lab.new_flow());
            *going = (*going).min(lab.established());
        }
    }
    let of = |rules: Rules| all.iter().position(|r| *r == rules).map(|place| least[place]).expect("measured");
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let (free, _) = of(Rules::None);
    println!("A datagram through a host, without rules: {:.2} us for the first of a flow", micros(free));
    println!(
        "  policies  first: ours     usual   1 /    above no rules: 1 /    going on: ours  against no policy"
    );
    let (_, no_policy) = of(Rules::Ours(0));
    for count in counts {
        let ((ours, going), (usual, _)) = (of(Rules::Ours(count)), of(Rules::Usual(count)));
        let above = micros(usual.saturating_sub(free)) / micros(ours.saturating_sub(free)).max(0.001);
        println!(
            "  {count:8} {:9.2} us {:6.2} us {:5.1} {above:22.1} {:15.2} us {:+17.1} %",
            micros(ours),
            micros(usual),
            micros(usual) / micros(ours),
            micros(going),
            (micros(going) / micros(no_policy) - 1.0) * 100.0,
        );
    }
}
