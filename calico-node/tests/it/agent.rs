//! The agents of a lab, as an operator meets them.

use std::time::Duration;

use calico_node::lab::{Ending, Lab, Programs, Stopwatch, Verdict};

use crate::article::{Tunnel, interface, tunnel};
use crate::lab::{up, up_with};

const ONE_SUBNET: &str = "
name: agents
subnets:
  - {name: left, cidr: 172.16.6.0/24, gateway: 172.16.6.254}
hosts:
  - {name: node1, address: 172.16.6.47}
  - {name: node2, address: 172.16.6.249}
";

const POOL: &str = "
pools:
  - {cidr: 10.65.0.0/16, vxlanMode: Never}
";

const WORKLOADS: &str = "
workloads:
  - {name: one, host: node1}
  - {name: two, host: node2}
";

/// How long the network may take to become as it should be, where it is emulated or has to wait for others.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Asks until the answer is as wanted; the last answer when patience is over.
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let watch = Stopwatch::start();
    loop {
        let answer = ask();
        if wanted(&answer) || watch.elapsed() > PATIENCE {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn routes(lab: &Lab, host: &str) -> String {
    lab.exec(host, "ip", &["route"]).unwrap().stdout
}

#[test]
fn routes_of_a_pool_without_encapsulation_are_learned_by_bgp_and_outlive_the_agent_that_told_them() {
    let mut lab = up(&[ONE_SUBNET, POOL, WORKLOADS].concat());
    let two = lab.address("two").unwrap();
    // Each learns the other's in its own time, and a ping needs both.
    for (node, other) in [("node1", "via 172.16.6.249 dev eth0"), ("node2", "via 172.16.6.47 dev eth0")] {
        let learned = eventually(|| routes(&lab, node), |routes| routes.contains(other));
        assert!(learned.contains(other), "{node}: {learned}");
    }
    assert_eq!(lab.ping("one", two).unwrap(), Verdict::Allowed);

    // The agent may still be writing what it learned of the workload that came last.
    lab.quiet_kernel_objects("node1", Duration::from_millis(500)).unwrap();
    let before = routes(&lab, "node1");
    let events = lab.kernel_events("node1").unwrap();
    lab.end_agent("node2", Ending::Killed).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(lab.ping("one", two).unwrap(), Verdict::Allowed, "while the agent is dead");
    lab.start_agent("node2").unwrap();
    lab.await_mesh().unwrap();
    assert_eq!(routes(&lab, "node1"), before);
    assert_eq!(events.drain().unwrap(), Vec::<String>::new(), "nothing was written meanwhile");
    lab.down().unwrap();
}

#[test]
fn routes_that_the_kernel_dropped_as_a_link_flapped_are_back_within_a_second() {
    let lab = up(&[ONE_SUBNET, POOL, WORKLOADS].concat());
    let learned = eventually(|| routes(&lab, "node1"), |routes| routes.contains("via 172.16.6.249"));
    let learned = learned.lines().find(|route| route.contains("via 172.16.6.249")).unwrap();
    let remote = learned.split_whitespace().next().unwrap().to_owned();
    let one = lab.address("one").unwrap().to_string();
    let batch = lab.state().folder().join("flap");
    // Like whoever looks after the machine's network: its way out is put back at once.
    let back = "route add default via 172.16.6.254\n";
    for (device, destination, besides) in
        [(interface(&lab, "one"), one, ""), ("eth0".to_owned(), remote, back)]
    {
        let show = || lab.exec("node1", "ip", &["route", "show", &destination]).unwrap().stdout;
        let before = show();
        assert!(before.contains(&device), "{before}");
        let flap =
            format!("link set {device} down\nlink set {device} up\n{besides}route show {destination}\n");
        std::fs::write(&batch, flap).unwrap();
        let mut times = Vec::new();
        let mut dropped = 0;
        for _ in 0..5 {
            lab.quiet_kernel_objects("node1", Duration::from_millis(300)).unwrap();
            let watch = Stopwatch::start();
            let flap = lab.exec("node1", "ip", &["-batch", batch.to_str().unwrap()]).unwrap();
            assert_eq!(flap.stderr, "");
            // Seldom the agent is faster than the question.
            dropped += usize::from(flap.stdout.is_empty());
            let after = eventually(show, |after| *after == before);
            times.push(watch.elapsed());
            assert_eq!(after, before, "{device}");
        }
        assert!(dropped > 0, "{device}: the kernel drops routes as a link goes down");
        times.sort();
        println!("{device}: repaired after {times:?}");
        assert!(times[2] < Duration::from_secs(1), "{device}: {times:?}");
    }
    lab.down().unwrap();
}

#[test]
fn a_pool_that_this_kernel_cannot_serve_is_told_in_words_and_the_rest_works() {
    let pools = "
resources:
  - apiVersion: projectcalico.org/v3
    kind: IPPool
    metadata: {name: plain}
    spec: {cidr: 10.65.0.0/16}
  - apiVersion: projectcalico.org/v3
    kind: IPPool
    metadata: {name: wrapped}
    spec: {cidr: 10.66.0.0/16, ipipMode: Always, allowedUses: [Workload, Tunnel], assignmentMode: Manual}
";
    let lab = up(&[ONE_SUBNET, WORKLOADS, pools].concat());
    // A kernel with the ipip module has the device in every namespace; it serves the pool and has nothing to tell.
    let serves = !lab.exec("node1", "ip", &["link", "show", "tunl0"]).unwrap().stdout.is_empty();
    assert!(serves || tunnel() != Tunnel::Ipip, "this kernel should have IP-in-IP");
    let line = "this kernel cannot make IP-in-IP devices; pool wrapped needs ipipMode Never or a kernel with the ipip \
                module";
    let wanted = if serves { Vec::new() } else { vec![line.to_owned()] };
    // What an agent finds amiss while it comes up goes by itself.
    let problems = eventually(|| lab.status("node1").unwrap().problems, |problems| *problems == wanted);
    assert_eq!(problems, wanted, "one line");
    if serves {
        let status = lab.calicoctl("node1", &["node", "status"], "").unwrap();
        assert!(!status.contains("IP-in-IP"), "{status}");
        assert!(!log_of(&lab, "node1").contains("cannot make IP-in-IP devices"), "{}", log_of(&lab, "node1"));
    } else {
        assert_told_once(&lab, line);
    }
    assert_eq!(lab.ping("one", lab.address("two").unwrap()).unwrap(), Verdict::Allowed);
    lab.down().unwrap();
}

fn log_of(lab: &Lab, host: &str) -> String {
    std::fs::read_to_string(&lab.state().host(host).unwrap().log).unwrap()
}

/// Has node1 tell of something in a line, once in its log and once in its status, however often it finds it.
fn assert_told_once(lab: &Lab, line: &str) {
    let ask = || lab.status("node1").unwrap().problems;
    let found = eventually(ask, |problems| problems.iter().any(|problem| problem == line));
    assert!(found.iter().any(|problem| problem == line), "{line}: {found:?}");
    // Long enough for several passes to find it again.
    lab.exec("node1", "ip", &["route", "add", "192.0.2.1/32", "dev", "eth0"]).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    lab.exec("node1", "ip", &["route", "del", "192.0.2.1/32", "dev", "eth0"]).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(log_of(lab, "node1").matches(line).count(), 1, "{line}: {}", log_of(lab, "node1"));
    let status = lab.calicoctl("node1", &["node", "status"], "").unwrap();
    assert_eq!(status.matches(line).count(), 1, "{status}");
}

/// Something that makes a node unable to serve what the datastore asks for, how to mend it, and the line that tells.
struct Fault {
    /// Arguments of `ip`.
    make: &'static [&'static str],
    mend: &'static [&'static str],
    line: &'static str,
}

#[test]
fn what_a_node_cannot_serve_is_one_line_in_the_status_and_one_in_the_log() {
    let cluster = "
name: agents
subnets:
  - {name: left, cidr: 172.16.6.0/24, gateway: 172.16.6.254}
  - {name: right, cidr: 172.16.199.0/24, gateway: 172.16.199.254}
hosts:
  - {name: node1, address: 172.16.6.47}
  - {name: node2, address: 172.16.199.114}
resources:
  - apiVersion: projectcalico.org/v3
    kind: IPPool
    metadata: {name: plain}
    spec: {cidr: 10.65.0.0/16}
  - apiVersion: projectcalico.org/v3
    kind: IPPool
    metadata: {name: wrapped}
    spec: {cidr: 10.66.0.0/16, vxlanMode: Always, allowedUses: [Workload, Tunnel], assignmentMode: Manual}
  - apiVersion: projectcalico.org/v3
    kind: FelixConfiguration
    metadata: {name: default}
    spec: {programClusterRoutes: Enabled}
";
    let six = "
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: six}
spec: {cidr: 'fd00:66::/64', vxlanMode: Always}
";
    let faults = [
        Fault {
            make: &["link", "set", "eth0", "mtu", "600"],
            mend: &["link", "set", "eth0", "mtu", "1500"],
            line: "interface eth0 has an MTU of 600, too small for a tunnel; give it at least 626",
        },
        Fault {
            make: &["route", "del", "default"],
            mend: &["route", "add", "default", "via", "172.16.6.254"],
            line: "the machine has no route to the next hop 172.16.199.114; add one, or let the pool use VXLAN between \
                   subnets",
        },
    ];
    let lab = up(&[cluster, WORKLOADS].concat());
    let problems = || lab.status("node1").unwrap().problems;
    let reached = eventually(|| routes(&lab, "node1"), |routes| routes.contains("10.65."));
    assert!(reached.contains("via 172.16.6.254"), "{reached}");
    for Fault { make, mend, line } in faults {
        lab.exec("node1", "ip", make).unwrap();
        assert_told_once(&lab, line);
        lab.exec("node1", "ip", mend).unwrap();
        assert_eq!(eventually(problems, Vec::is_empty), Vec::<String>::new(), "{line}");
        assert!(log_of(&lab, "node1").contains(&format!("no longer so: {line}")));
    }
    lab.apply(six).unwrap();
    assert_told_once(
        &lab,
        "node node1 has no IPv6 address, so its IPv6 workloads cannot be reached from other nodes; set \
         spec.bgp.ipv6Address of the Node",
    );
    let elsewhere = r#"{"spec":{"bgp":{"ipv4Address":"172.16.6.48/24"}}}"#;
    lab.calicoctl("node1", &["patch", "node", "node1", "-p", elsewhere], "").unwrap();
    assert_told_once(
        &lab,
        "no interface has the node's address 172.16.6.48; add the address, or set spec.bgp of the Node to one that the \
         machine has",
    );
    lab.down().unwrap();
}

#[test]
fn rel07_an_agent_that_could_not_follow_the_kernel_reads_it_anew_and_says_so() {
    // More than 16 MiB of what the kernel has to say, of which a route is some hundred bytes with all that holds it.
    const ROUTES: u32 = 60_000;
    let lab = up(&[ONE_SUBNET, POOL, WORKLOADS].concat());
    let learned = eventually(|| routes(&lab, "node1"), |routes| routes.contains("via 172.16.6.249"));
    let learned = learned.lines().find(|route| route.contains("via 172.16.6.249")).unwrap().to_owned();
    let batch = lab.state().folder().join("routes");
    let commands = |verb: &str, with: &str| {
        let lines = (0..ROUTES).map(|number| {
            format!(
                "route {verb} {}/32 {with}\n",
                std::net::Ipv4Addr::from((198 << 24) + (18 << 16) + number)
            )
        });
        lines.collect::<String>()
    };
    let run = |commands: String| {
        std::fs::write(&batch, commands).unwrap();
        let answer = lab.exec("node1", "ip", &["-batch", batch.to_str().unwrap()]).unwrap();
        assert!(answer.stderr.is_empty(), "{}", answer.stderr);
    };
    assert_eq!(lab.status("node1").unwrap().kernel_overruns, 0);

    let pid =
        nix::unistd::Pid::from_raw(lab.state().host("node1").unwrap().agent.unwrap().pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    run(commands("add", "dev eth0 proto static"));
    let destination = learned.split_whitespace().next().unwrap();
    run(format!("route del {destination} via 172.16.6.249\n"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();

    let watch = Stopwatch::start();
    let repaired = eventually(
        || lab.exec("node1", "ip", &["route", "show", destination]).unwrap().stdout,
        |found| found.contains("via 172.16.6.249"),
    );
    assert!(repaired.contains("via 172.16.6.249"), "{repaired}");
    assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
    let overruns = eventually(|| lab.status("node1").unwrap().kernel_overruns, |overruns| *overruns > 0);
    assert!(overruns > 0);
    let said = lab.calicoctl("node1", &["node", "status"], "").unwrap();
    assert!(said.contains("The kernel changed faster than could be followed, and was read anew:"), "{said}");
    let foreign = lab.exec("node1", "ip", &["route", "show", "proto", "static"]).unwrap().stdout;
    assert_eq!(foreign.lines().filter(|route| route.starts_with("198.18.")).count() as u32, ROUTES);
    lab.down().unwrap();
}

#[test]
fn what_an_earlier_speaker_learned_stays_until_there_is_news_and_what_the_datastore_told_does_not() {
    let pools = "
pools:
  - {cidr: 10.65.0.0/16, vxlanMode: CrossSubnet}
";
    let mut lab = up(&[ONE_SUBNET, pools, WORKLOADS].concat());
    // With nobody there to tell anything, the agent waits for a while.
    for host in ["node1", "node2"] {
        lab.end_agent(host, Ending::Killed).unwrap();
    }
    for destination in ["10.65.99.0/26", "198.51.100.0/24"] {
        let route = ["route", "add", destination, "via", "172.16.6.249", "proto", "80", "metric", "1024"];
        assert_eq!(lab.exec("node1", "ip", &route).unwrap().stderr, "");
    }
    lab.start_agent("node1").unwrap();
    let left = eventually(|| routes(&lab, "node1"), |routes| !routes.contains("10.65.99.0/26"));
    assert!(!left.contains("10.65.99.0/26") && left.contains("198.51.100.0/24"), "{left}");
    lab.down().unwrap();
}

#[test]
fn pe63_the_connections_of_an_address_end_with_its_workload() {
    let mut lab = up(&[ONE_SUBNET, POOL, WORKLOADS].concat());
    let two = lab.address("two").unwrap().to_string();
    let tracked = |lab: &Lab| lab.exec("node2", "conntrack", &["-L", "-f", "ipv4"]).unwrap().stdout;
    for (source, destination) in [("198.51.100.7", two.as_str()), (two.as_str(), "198.51.100.7")] {
        let flow = [
            "-I",
            "-p",
            "udp",
            "-s",
            source,
            "-d",
            destination,
            "--sport",
            "4000",
            "--dport",
            "53",
            "-t",
            "600",
        ];
        lab.exec("node2", "conntrack", &flow).unwrap();
    }
    let other = [
        "-I",
        "-p",
        "udp",
        "-s",
        "198.51.100.7",
        "-d",
        "198.51.100.8",
        "--sport",
        "1",
        "--dport",
        "2",
        "-t",
        "600",
    ];
    lab.exec("node2", "conntrack", &other).unwrap();
    let of = |text: &str, addr: &str| {
        text.split_whitespace().any(|word| word.split('=').next_back() == Some(addr))
    };
    assert!(of(&tracked(&lab), &two), "{}", tracked(&lab));
    lab.detach("two").unwrap();
    let left = eventually(|| tracked(&lab), |left| !of(left, &two));
    assert!(!of(&left, &two) && of(&left, "198.51.100.8"), "{left}");
    lab.down().unwrap();
}

#[test]
fn an_interface_that_no_endpoint_names_neither_sends_nor_receives() {
    let mut lab = up(&[ONE_SUBNET, POOL, WORKLOADS].concat());
    let netns = lab.state().netns("two").unwrap().to_owned();
    lab.detach("two").unwrap();
    // What a runtime would do that forgets to tell the datastore, down to the routes.
    let host = |arguments: &[&str]| {
        let answer = lab.exec("node2", "ip", arguments).unwrap();
        assert!(answer.stderr.is_empty(), "{arguments:?}: {}", answer.stderr);
    };
    host(&["link", "add", "caliunknown", "type", "veth", "peer", "name", "eth0", "netns", &netns]);
    host(&["link", "set", "caliunknown", "up"]);
    host(&["route", "add", "192.168.99.9/32", "dev", "caliunknown"]);
    for arguments in [
        &["address", "add", "192.168.99.9/32", "dev", "eth0"][..],
        &["link", "set", "eth0", "up"],
        &["route", "add", "172.16.6.249/32", "dev", "eth0"],
    ] {
        lab.exec("two", "ip", arguments).unwrap();
    }
    assert_eq!(lab.ping("two", "172.16.6.249".parse().unwrap()).unwrap(), Verdict::TimedOut);
    // A sender on the host itself is told at once that its packet was dropped.
    let dropped = |verdict| matches!(verdict, Verdict::TimedOut | Verdict::Unreachable);
    let target = "192.168.99.9".parse().unwrap();
    assert!(dropped(lab.ping("node2", target).unwrap()));
    lab.end_agent("node2", Ending::Killed).unwrap();
    assert!(dropped(lab.ping("node2", target).unwrap()), "without an agent");
    lab.down().unwrap();
}

#[test]
fn rel06_what_somebody_else_changes_in_the_rules_is_put_right() {
    let lab = up(&[ONE_SUBNET, POOL, WORKLOADS].concat());
    let rules = || lab.exec("node1", "nft", &["list", "table", "inet", "calico"]).unwrap().stdout;
    let addresses = ["one", "two"].map(|workload| lab.address(workload).unwrap().to_string());
    let before = eventually(rules, |rules| addresses.iter().all(|address| rules.contains(address)));
    for change in ["add rule inet calico cali-forward-to accept", "flush chain inet calico cali-source"] {
        lab.exec("node1", "nft", &change.split(' ').collect::<Vec<_>>()).unwrap();
        let after = eventually(rules, |rules| *rules == before);
        assert_eq!(after, before, "{change}");
    }
    lab.down().unwrap();
}

#[test]
fn a_clean_up_takes_away_what_is_ours_alone_and_an_agent_brings_it_back() {
    let tunnel = tunnel();
    let mode = if tunnel == Tunnel::Ipip { "ipipMode" } else { "vxlanMode" };
    let wrapped = format!("\npools:\n  - {{cidr: 10.65.0.0/16, {mode}: Always}}\n");
    let mut lab = up(&[ONE_SUBNET, &wrapped, WORKLOADS].concat());
    let two = lab.address("two").unwrap();
    assert_eq!(eventually(|| lab.ping("one", two).unwrap(), |v| *v == Verdict::Allowed), Verdict::Allowed);
    let host = |lab: &Lab, command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        let answer = lab.exec("node1", words[0], &words[1..]).unwrap();
        assert_eq!(answer.code, Some(0), "{command}: {}", answer.stderr);
        answer.stdout
    };
    host(&lab, "ip route add 10.200.0.0/16 via 172.16.6.254 proto static");
    host(&lab, "nft add table inet others");
    if tunnel == Tunnel::Ipip {
        host(&lab, "ip address add 10.99.0.1/32 dev tunl0");
        let ask = || host(&lab, "ip address show dev tunl0");
        let adopted = eventually(ask, |device| device.contains("tunl0:cali"));
        assert!(adopted.contains("inet 10.65.") && host(&lab, "ip route").contains("dev tunl0"), "{adopted}");
    }
    let before = lab.quiet_kernel_objects("node1", Duration::from_millis(500)).unwrap().without_numbers();
    lab.end_agent("node1", Ending::Asked).unwrap();
    host(&lab, concat!(env!("CARGO_BIN_EXE_calico-node"), " cleanup"));
    assert!(!host(&lab, "ip link").contains("vxlan.calico"));
    if tunnel == Tunnel::Ipip {
        let device = host(&lab, "ip address show dev tunl0");
        assert!(device.contains("inet 10.99.0.1/32") && !device.contains("10.65."), "{device}");
    }
    assert_eq!(host(&lab, "nft list tables").trim(), "table inet others");
    let left = host(&lab, "ip route");
    assert!(!left.contains("10.65.") && !left.contains("cali"), "{left}");
    assert!(left.contains("10.200.0.0/16 via 172.16.6.254") && left.contains("default via"), "{left}");
    // Of interfaces with another prefix it has to be told.
    host(&lab, "ip link add tap9 type veth peer name tap9far");
    host(&lab, "ip neigh add 10.65.9.9 lladdr 02:00:00:00:00:09 dev tap9 nud permanent");
    for (prefixes, held) in [("cali", true), ("cali,tap", false)] {
        host(&lab, &format!("{} cleanup --interface-prefix {prefixes}", env!("CARGO_BIN_EXE_calico-node")));
        assert_eq!(host(&lab, "ip neigh show dev tap9").contains("10.65.9.9"), held, "{prefixes}");
    }
    host(&lab, "ip link del tap9");
    lab.start_agent("node1").unwrap();
    let after = eventually(|| lab.kernel_objects("node1").unwrap().without_numbers(), |now| *now == before);
    assert_eq!(before.difference(&after), Vec::<String>::new());
    lab.down().unwrap();
}

#[test]
fn a_second_agent_on_a_host_and_one_on_a_taken_port_say_so_in_one_sentence() {
    let lab = up(ONE_SUBNET);
    let second = lab.exec("node1", env!("CARGO_BIN_EXE_calico-node"), &["run"]);
    let said = complaint(second);
    assert!(said.contains("another calico-node already runs on this host"), "{said}");
    lab.down().unwrap();

    let lab = up_with(ONE_SUBNET, Programs::None);
    let netns = lab.state().netns("node1").unwrap().to_owned();
    let taker = std::thread::spawn(move || {
        let file = std::fs::File::open(format!("/run/netns/{netns}")).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        std::net::TcpListener::bind("0.0.0.0:179").unwrap()
    });
    let _taken = taker.join().unwrap();
    let said = complaint(lab.exec("node1", env!("CARGO_BIN_EXE_calico-node"), &["run"]));
    assert!(said.contains("179") && said.contains("taken"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let rules = lab.exec("node1", "nft", &["list", "ruleset"]).unwrap().stdout;
    assert!(!rules.contains("calico"), "nothing was written: {rules}");
    assert_eq!(lab.calicoctl("node1", &["get", "nodes", "-o", "name"], "").unwrap_or_default().trim(), "");
    lab.down().unwrap();
}

/// What a program that failed said last.
fn complaint<E: std::fmt::Display>(answer: Result<calico_node::lab::Answer, E>) -> String {
    let text = match answer {
        Ok(answer) => answer.stderr,
        Err(error) => error.to_string(),
    };
    let plain: Vec<&str> = text.lines().filter(|line| !line.contains(" INFO ")).collect();
    plain.join("\n")
}

#[test]
fn without_root_the_agent_and_the_lab_say_so_in_one_sentence() {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    for (program, arguments) in
        [(env!("CARGO_BIN_EXE_calico-node"), &["run"][..]), (env!("CARGO_BIN_EXE_calico-lab"), &["demo"])]
    {
        // Nobody may not look into root's folders, so the program is run by a name that is open already.
        let file = std::fs::File::open(program).unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let mut command = std::process::Command::new(path);
        let answer = command.args(arguments).env_clear().uid(NOBODY).gid(NOBODY).output().unwrap();
        let said = String::from_utf8(answer.stderr).unwrap();
        assert_eq!(answer.status.code(), Some(1), "{program}: {said}");
        assert!(said.contains("root") && said.trim_end().lines().count() == 1, "{program}: {said}");
    }
}

/// What of ours each packet filter of a host holds: nftables, iptables legacy, iptables over nf_tables, ipset.
fn filters(lab: &Lab, host: &str) -> [bool; 4] {
    let holds = |program: &str, arguments: &[&str]| {
        lab.exec(host, program, arguments).unwrap().stdout.contains("cali-")
    };
    [
        holds("nft", &["list", "table", "inet", "calico"]),
        holds("iptables-legacy-save", &[]) || holds("ip6tables-legacy-save", &[]),
        holds("iptables-nft-save", &[]) || holds("ip6tables-nft-save", &[]),
        holds("ipset", &["list", "-name"]),
    ]
}

#[test]
fn rel18_the_configuration_chooses_the_packet_filter_and_a_switch_leaves_nothing_behind() {
    let lab = up(&[ONE_SUBNET, POOL, WORKLOADS].concat());
    let (one, two) = (lab.address("one").unwrap(), lab.address("two").unwrap());
    let policy = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: ping-one-way}
spec:
  selector: all()
  types: [Ingress]
  ingress:
    - {action: Deny, protocol: ICMP, source: {nets: [SOURCE/32]}}
    - {action: Allow}
";
    let policy = policy.replace("SOURCE", &two.to_string());
    lab.calicoctl("node1", &["apply", "-f", "-"], &policy).unwrap();
    for (mode, backend, held) in [
        ("Disabled", "Legacy", [false, true, false, true]),
        ("Disabled", "NFT", [false, false, true, true]),
        ("Auto", "Auto", [true, false, false, false]),
    ] {
        let felix = format!(
            "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\n\
             spec: {{nftablesMode: {mode}, iptablesBackend: {backend}}}\n"
        );
        lab.calicoctl("node1", &["apply", "-f", "-"], &felix).unwrap();
        for host in ["node1", "node2"] {
            assert_eq!(
                eventually(|| filters(&lab, host), |now| *now == held),
                held,
                "{mode} {backend} on {host}"
            );
        }
        assert_eq!(lab.ping("one", two).unwrap(), Verdict::Allowed, "{mode} {backend}");
        assert_eq!(lab.ping("two", one).unwrap(), Verdict::TimedOut, "{mode} {backend}");
    }
    lab.down().unwrap();
}
