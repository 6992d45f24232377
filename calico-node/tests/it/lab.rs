//! The lab itself: its wires, its names, and that nothing of it stays.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use calico_node::lab::{
    self, Interrupt, Lab, LabError, LabName, LabOptions, LabState, Probe, Programs, Topology, Verdict,
};

use crate::agent::PATIENCE;

const WIRES: &str = "
name: wires
subnets:
  - {name: left, cidr: 172.16.6.0/24, gateway: 172.16.6.254}
  - {name: right, cidr: 172.16.199.0/24, gateway: 172.16.199.254}
hosts:
  - {name: node1, address: 172.16.6.47}
  - {name: node2, address: 172.16.6.249}
  - {name: node3, address: 172.16.199.114}
workloads:
  - {name: web, host: node1}
";

/// A name that no other test and no other process takes.
pub(crate) fn fresh_name() -> LabName {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    name.parse().unwrap()
}

fn wires(name: &LabName) -> Topology {
    WIRES.parse::<Topology>().unwrap().named(name.clone())
}

/// A lab under a fresh name, with the programs that were built with this test.
pub(crate) fn up(topology: &str) -> Lab {
    let beside = Path::new(env!("CARGO_BIN_EXE_calico-node")).parent().unwrap();
    up_with(topology, Programs::In(beside.to_owned()))
}

pub(crate) fn up_with(topology: &str, programs: Programs) -> Lab {
    let topology = topology.parse::<Topology>().unwrap().named(fresh_name());
    Lab::up(&topology, LabOptions::default().programs(programs).patience(PATIENCE)).unwrap()
}

fn up_wires(name: &LabName) -> Lab {
    Lab::up(&wires(name), LabOptions::default().programs(Programs::None)).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Everything that bears the lab's name: namespaces and its folder.
fn traces(name: &LabName) -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["/run/netns", "/run/calico-lab"] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        names.extend(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    }
    names
        .into_iter()
        .filter(|found| found == name.as_str() || found.starts_with(&format!("{name}-")))
        .collect()
}

/// Interfaces without those that the kernel puts into every namespace once it has the module of a tunnel.
fn made(interfaces: &str) -> Vec<&str> {
    interfaces.split_whitespace().filter(|name| !["tunl0", "sit0", "ip6tnl0"].contains(name)).collect()
}

#[test]
fn hosts_reach_one_another_within_a_subnet_and_across_the_router() {
    let lab = up_wires(&fresh_name());
    assert_eq!(lab.ping("node1", address("172.16.6.249")).unwrap(), Verdict::Allowed);
    assert_eq!(lab.ping("node1", address("172.16.199.114")).unwrap(), Verdict::Allowed);
    assert_eq!(lab.probe_tcp("node3", address("172.16.6.47"), 179).unwrap(), Verdict::Refused);
    assert_eq!(lab.ping("node1", address("172.16.6.99")).unwrap(), Verdict::TimedOut);
    assert_eq!(
        lab.ping("web", address("172.16.6.47")).unwrap(),
        Verdict::Unreachable,
        "it has no interface yet"
    );
}

#[test]
fn the_router_knows_its_subnets_and_nothing_else() {
    let lab = up_wires(&fresh_name());
    let routes = Command::new("ip").args(["-n", &lab.state().router, "route"]).output().unwrap();
    let routes = String::from_utf8(routes.stdout).unwrap();
    let known: Vec<_> = routes.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(known, ["172.16.6.0/24", "172.16.199.0/24"]);
}

#[test]
fn a_program_on_a_host_sees_the_hosts_interfaces_and_environment() {
    let lab = up_wires(&fresh_name());
    let interfaces = lab.exec("node1", "ls", &["/sys/class/net"]).unwrap();
    assert_eq!(made(&interfaces.stdout), ["eth0", "lo"]);
    let environment = lab.exec("node1", "env", &[]).unwrap().stdout;
    assert!(
        environment.contains("NODENAME=node1\n") && environment.contains("IP=172.16.6.47/24\n"),
        "{environment}"
    );
}

#[test]
fn labs_of_one_topology_are_up_side_by_side() {
    let names = [fresh_name(), fresh_name()];
    let labs = names.each_ref().map(up_wires);
    for lab in &labs {
        assert_eq!(lab.ping("node2", address("172.16.199.114")).unwrap(), Verdict::Allowed);
    }
    let [first, second] = labs;
    first.down().unwrap();
    assert!(traces(&names[0]).is_empty());
    assert_eq!(second.ping("node2", address("172.16.199.114")).unwrap(), Verdict::Allowed);
}

#[test]
fn a_name_that_is_taken_is_refused_and_its_lab_left_alone() {
    let name = fresh_name();
    let lab = up_wires(&name);
    let refused = Lab::up(&wires(&name), LabOptions::default().programs(Programs::None)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("the lab {name} is up already: take it down with `calico-lab down {name}`")
    );
    assert_eq!(lab.ping("node1", address("172.16.199.114")).unwrap(), Verdict::Allowed);
}

#[test]
fn a_namespace_of_somebody_else_is_refused_and_left_alone() {
    let name = fresh_name();
    let netns = format!("{name}-node2");
    assert!(Command::new("ip").args(["netns", "add", &netns]).status().unwrap().success());
    let refused = Lab::up(&wires(&name), LabOptions::default().programs(Programs::None));
    let left = traces(&name);
    assert!(Command::new("ip").args(["netns", "del", &netns]).status().unwrap().success());
    assert!(matches!(refused, Err(LabError::NetnsTaken { netns: taken }) if taken == netns));
    assert_eq!(left, [netns]);
}

#[test]
fn nothing_is_left_behind_even_by_a_panic() {
    let name = fresh_name();
    let panicked = std::panic::catch_unwind(|| {
        let _lab = up_wires(&name);
        assert_eq!(traces(&name).len(), 6, "four members, the router and the folder");
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    assert!(traces(&name).is_empty());
}

#[test]
fn what_a_crash_left_is_taken_down_by_name_with_whatever_still_runs_there() {
    let name = fresh_name();
    let lab = up_wires(&name);
    let netns = lab.state().host("node3").unwrap().netns.clone();
    lab.keep();
    let mut sleeper = Command::new("ip").args(["netns", "exec", &netns, "sleep", "1000"]).spawn().unwrap();
    // Half of it is gone already.
    assert!(Command::new("ip").args(["netns", "del", &format!("{name}-node1")]).status().unwrap().success());
    while fs::read_to_string(format!("/proc/{}/comm", sleeper.id())).unwrap() != "sleep\n" {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(LabState::names().unwrap().contains(&name));
    lab::down(&name).unwrap();
    assert!(!sleeper.wait().unwrap().success());
    assert!(traces(&name).is_empty());
    assert!(matches!(lab::down(&name), Err(LabError::NoSuchLab { .. })));
}

#[test]
fn a_lab_that_was_never_more_than_a_folder_is_removed_and_one_that_cannot_be_read_is_not() {
    let name = fresh_name();
    let folder = Path::new("/run/calico-lab").join(name.as_str());
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("lab.json"), "{").unwrap();
    assert!(lab::down(&name).unwrap_err().to_string().starts_with("cannot read /run/calico-lab/"));
    fs::remove_file(folder.join("lab.json")).unwrap();
    lab::down(&name).unwrap();
    assert!(traces(&name).is_empty());
}

#[test]
fn logs_are_kept_in_a_folder_that_nobody_could_have_prepared() {
    use std::os::unix::fs::PermissionsExt;
    let lab = up_wires(&fresh_name());
    fs::write(&lab.state().host("node1").unwrap().log, "said").unwrap();
    let folders = [lab.salvage_logs(), lab.salvage_logs()];
    assert_ne!(folders[0], folders[1]);
    for folder in folders {
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(folder.join("node1.log")).unwrap(), "said");
        fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn an_interrupt_stops_the_making_and_takes_down_what_was_made() {
    let name = fresh_name();
    let interrupt = Interrupt::default();
    interrupt.raise();
    let options = LabOptions::default().programs(Programs::None).interrupt(interrupt);
    assert!(matches!(Lab::up(&wires(&name), options), Err(LabError::Interrupted)));
    assert!(traces(&name).is_empty());
}

#[test]
fn writes_to_the_kernel_are_seen_and_told_apart() {
    let lab = up_wires(&fresh_name());
    let (before, events) = (lab.kernel_objects("node1").unwrap(), lab.kernel_events("node1").unwrap());
    assert_eq!(lab.ping("node1", address("172.16.6.249")).unwrap(), Verdict::Allowed);
    assert_eq!(before.difference(&lab.kernel_objects("node1").unwrap()), Vec::<String>::new());
    assert_eq!(events.drain().unwrap(), Vec::<String>::new(), "traffic alone is no write");

    let run = |words: &[&str]| {
        assert_eq!(lab.exec("node1", words[0], &words[1..]).unwrap().code, Some(0), "{words:?}")
    };
    run(&["ip", "route", "add", "blackhole", "192.168.0.0/26"]);
    run(&["nft", "add", "table", "inet", "calico"]);
    let told = events.drain().unwrap();
    assert!(told.contains(&"RTM_NEWROUTE".to_owned()), "{told:?}");
    assert!(told.iter().any(|write| write.starts_with("nftables")), "{told:?}");
    for (write, message) in [
        ("ip -6 address add 2001:db8::1/128 dev lo nodad", "RTM_NEWADDR"),
        ("ip -6 route add blackhole 2001:db8:1::/64", "RTM_NEWROUTE"),
        ("ip -6 rule add to 2001:db8:1::/64 lookup 100", "RTM_NEWRULE"),
    ] {
        run(&write.split(' ').collect::<Vec<_>>());
        let told = events.drain().unwrap();
        assert!(!told.is_empty() && told.iter().all(|told| told == message), "{write}: {told:?}");
    }
    let difference = before.difference(&lab.kernel_objects("node1").unwrap());
    assert!(difference.iter().any(|line| line.contains("blackhole 192.168.0.0/26")), "{difference:?}");
    assert!(difference.iter().any(|line| line.contains("\"name\":\"calico\"")), "{difference:?}");

    // The same rule made anew is another rule: its handle tells.
    run(&["nft", "add", "chain", "inet", "calico", "c"]);
    run(&["nft", "add", "rule", "inet", "calico", "c", "accept"]);
    let first = lab.kernel_objects("node1").unwrap();
    run(&["nft", "flush", "chain", "inet", "calico", "c"]);
    run(&["nft", "add", "rule", "inet", "calico", "c", "accept"]);
    assert_eq!(first.difference(&lab.kernel_objects("node1").unwrap()).len(), 2);
}

#[test]
fn lost_traffic_is_counted() {
    let lab = up_wires(&fresh_name());
    let run = |words: &[&str]| {
        assert_eq!(lab.exec("node3", words[0], &words[1..]).unwrap().code, Some(0), "{words:?}")
    };
    let flows =
        [("node1", address("172.16.199.114"), Probe::Ping), ("node1", address("172.16.6.249"), Probe::Ping)];
    let traffic = lab.traffic(&flows).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    run(&["ip", "link", "set", "eth0", "down"]);
    std::thread::sleep(Duration::from_millis(100));
    let counts = traffic.stop().unwrap();
    assert!(counts[0].answered > 0 && counts[0].answered < counts[0].sent, "{counts:?}");
    assert_eq!(counts[1].answered, counts[1].sent, "{counts:?}");
}

/// Runs the program with a topology in a file of its own.
fn calico_lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_calico-lab"));
    command.args(arguments);
    command
}

#[test]
fn the_program_makes_a_lab_lists_it_enters_it_and_takes_it_down() {
    let name = fresh_name();
    let file = std::env::temp_dir().join(format!("{name}.yaml"));
    fs::write(&file, WIRES).unwrap();
    let run = |arguments: &[&str]| {
        let answer = calico_lab(arguments).output().unwrap();
        assert!(answer.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stdout).unwrap()
    };
    run(&["up", file.to_str().unwrap(), "--name", name.as_str(), "--wires-only"]);
    fs::remove_file(&file).unwrap();
    assert!(run(&["list"]).contains(name.as_str()));
    let entered = calico_lab(&["exec", "--name", name.as_str(), "node1", "--", "ls", "/sys/class/net"])
        .output()
        .unwrap();
    assert_eq!(made(&String::from_utf8_lossy(&entered.stdout)), ["eth0", "lo"], "{entered:?}");
    run(&["down", name.as_str()]);
    assert!(traces(&name).is_empty());
}

/// Few datagrams, since the machine may be busy. The program itself compares them with what went through the tunnel.
fn assert_nothing_is_lost_over_restarts(encapsulation: &str, streams: usize) {
    let name = fresh_name();
    let few = ["--restarts", "2", "--rate", "200"];
    let choice = ["blackout", "--name", name.as_str(), "--encapsulation", encapsulation];
    let answer = calico_lab(&[&choice[..], &few].concat()).output().unwrap();
    let told = String::from_utf8_lossy(&answer.stdout);
    assert!(answer.status.success(), "{told}{}", String::from_utf8_lossy(&answer.stderr));
    assert!(told.starts_with("2 restarts") && told.matches(" 0 lost").count() == streams, "{told}");
    assert!(told.contains("went through vxlan"), "{told}");
    assert!(traces(&name).is_empty());
}

#[test]
fn nothing_is_lost_over_restarts_with_vxlan_over_ipv6() {
    assert_nothing_is_lost_over_restarts("vxlan-v6", 1);
}

#[test]
fn nothing_is_lost_over_restarts_with_vxlan_across_subnets_and_none_within_one() {
    assert_nothing_is_lost_over_restarts("vxlan-cross-subnet", 2);
}

#[test]
fn an_interrupt_of_the_program_takes_down_what_it_had_begun() {
    let name = fresh_name();
    let file = std::env::temp_dir().join(format!("{name}.yaml"));
    fs::write(&file, WIRES).unwrap();
    let mut program = calico_lab(&["up", file.to_str().unwrap(), "--name", name.as_str()]).spawn().unwrap();
    while traces(&name).len() < 5 {
        assert!(program.try_wait().unwrap().is_none(), "it ended before it was interrupted");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(program.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(program.wait().unwrap().code(), Some(1));
    fs::remove_file(&file).unwrap();
    assert!(traces(&name).is_empty(), "{:?}", traces(&name));
}
