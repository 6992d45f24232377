//! `calico-lab drift`: somebody else changes what an agent laid, at random, and the agent puts it right.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use calico_node::lab::{Interrupt, KernelObjects, Lab, LabOptions, Stopwatch, Topology, Verdict};
use clap::Args;

/// For how long, and what is drawn.
#[derive(Debug, Args)]
pub(crate) struct Drift {
    /// For how many seconds things are changed.
    #[arg(long, default_value = "120")]
    seconds: u64,
    /// The number from which the changes are drawn; the same one draws the same changes.
    #[arg(long)]
    seed: Option<u64>,
}

/// The first host has a neighbour, reached by plain routes, and one behind a router, reached by tunnels.
const TOPOLOGY: &str = "
name: drift
subnets:
  - {name: left, cidr: 172.16.6.0/24, gateway: 172.16.6.254, cidr6: '2001:db8:6::/64', gateway6: '2001:db8:6::254'}
  - {name: right, cidr: 172.16.199.0/24, gateway: 172.16.199.254, cidr6: '2001:db8:199::/64', gateway6: '2001:db8:199::254'}
hosts:
  - {name: node1, address: 172.16.6.47, address6: '2001:db8:6::47'}
  - {name: node2, address: 172.16.199.114, address6: '2001:db8:199::114'}
  - {name: node3, address: 172.16.6.48, address6: '2001:db8:6::48'}
pools:
  - {cidr: 192.168.0.0/16, vxlanMode: CrossSubnet}
  - {cidr: 'fd00:10::/48', vxlanMode: CrossSubnet}
workloads:
  - {name: near, host: node1}
  - {name: far, host: node2}
  - {name: beside, host: node3}
";

/// What others have on the host.
const FOREIGN: [&str; 9] = [
    "ip route add 10.200.0.0/16 via 172.16.6.254 proto static",
    "ip -6 route add 2001:db8:ffff::/48 via 2001:db8:6::254 proto static",
    "ip neigh add 172.16.6.99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
    "ip neigh add 2001:db8:6::99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
    "ip nexthop add id 7 via 172.16.6.9 fdb",
    "ip nexthop add id 8 group 7 fdb",
    "nft add table inet others",
    "nft add chain inet others forward { type filter hook forward priority 5 ; }",
    "nft add rule inet others forward accept",
];

/// What somebody may do to what is ours: delete it, change it, replace it, add to it.
const DRIFTS: [&str; 74] = [
    "ip route del REMOTE metric 1024",
    "ip route replace REMOTE via 172.16.6.77 metric 1024 proto 80",
    "ip route append REMOTE via 172.16.6.77 metric 1024 proto 80",
    "ip route add REMOTE via 172.16.6.77 metric 5 proto 80",
    "ip route del BESIDE metric 1024",
    "ip route replace BESIDE via 172.16.6.77 metric 1024 proto 80",
    "ip route replace blackhole BESIDE metric 1024 proto 80",
    "ip route del blackhole OWN metric 1024",
    "ip route replace ADDRESS dev eth0 metric 1024 proto 80",
    "ip route flush proto 80",
    "ip route add 192.168.255.0/26 dev vxlan.calico",
    "ip link del vxlan.calico",
    "ip link set vxlan.calico down",
    "ip link set vxlan.calico mtu 1300",
    "ip link set vxlan.calico address 02:00:00:00:00:07",
    "ip address flush dev vxlan.calico",
    "ip address add 10.1.2.3/32 dev vxlan.calico",
    "ip neigh flush dev vxlan.calico nud permanent",
    "ip neigh replace PEER lladdr 02:00:00:00:00:07 dev vxlan.calico nud permanent",
    "ip neigh replace 192.168.255.9 lladdr 02:00:00:00:00:07 dev vxlan.calico nud permanent",
    "ip neigh replace PEER dev vxlan.calico nud stale",
    "ip neigh replace ADDRESS lladdr POD dev CALI nud reachable",
    "ip neigh replace ADDRESS lladdr 02:00:00:00:00:07 dev CALI nud permanent",
    "ip route add REMOTE tos 8 via 172.16.6.254 metric 1024 proto 80",
    "bridge fdb append 02:00:00:00:00:08 dev vxlan.calico dst 172.16.6.9 port 9999 self permanent",
    "ip route append unreachable REMOTE metric 1024 proto 80",
    "ip route append REMOTE via 172.16.6.254 metric 1024 proto 80 src 172.16.6.47",
    "bridge fdb replace MAC dev vxlan.calico dst 172.16.199.114 port 9999 self permanent",
    "bridge fdb append 02:00:00:00:00:07 dev vxlan.calico dst 172.16.6.9 self permanent",
    "bridge fdb append 02:00:00:00:00:08 dev vxlan.calico nhid 8 self permanent",
    "bridge fdb del MAC dev vxlan.calico dst 172.16.199.114 self",
    "bridge fdb replace MAC dev vxlan.calico dst 172.16.6.99 self permanent",
    "ip -6 route del REMOTE_V6 metric 1024",
    "ip -6 route replace REMOTE_V6 via 2001:db8:6::77 metric 1024 proto 80",
    "ip -6 route append REMOTE_V6 via 2001:db8:6::77 dev eth0 metric 1024 proto 80",
    "ip -6 route append unreachable REMOTE_V6 metric 1024 proto 80",
    "ip -6 route add REMOTE_V6 via 2001:db8:6::77 metric 5 proto 80",
    "ip -6 route del PEER_V6 dev vxlan-v6.calico",
    "ip -6 route del BESIDE_V6 metric 1024",
    "ip -6 route replace BESIDE_V6 via 2001:db8:6::77 metric 1024 proto 80",
    "ip -6 route append blackhole BESIDE_V6 metric 1024 proto 80",
    "ip -6 route del blackhole OWN_V6 metric 1024",
    "ip -6 route replace ADDRESS_V6 dev eth0 metric 1024 proto 80",
    "ip -6 route flush proto 80",
    "ip -6 route add fd00:10:0:ffff::/122 dev vxlan-v6.calico",
    "ip link del vxlan-v6.calico",
    "ip link set vxlan-v6.calico down",
    "ip link set vxlan-v6.calico mtu 1300",
    "ip link set vxlan-v6.calico address 02:00:00:00:00:07",
    "ip -6 address flush dev vxlan-v6.calico",
    "ip -6 address add fd00:11::3/128 dev vxlan-v6.calico nodad",
    "ip -6 neigh flush dev vxlan-v6.calico nud permanent",
    "ip -6 neigh replace PEER_V6 lladdr 02:00:00:00:00:07 dev vxlan-v6.calico nud permanent",
    "ip -6 neigh replace PEER_V6 dev vxlan-v6.calico nud stale",
    "ip -6 neigh replace ADDRESS_V6 lladdr POD dev CALI nud reachable",
    "ip -6 neigh replace ADDRESS_V6 lladdr 02:00:00:00:00:07 dev CALI nud permanent",
    "bridge fdb append 02:00:00:00:00:07 dev vxlan-v6.calico dst 2001:db8:6::9 self permanent",
    "bridge fdb del MAC_V6 dev vxlan-v6.calico dst 2001:db8:199::114 self",
    "bridge fdb replace MAC_V6 dev vxlan-v6.calico dst 2001:db8:6::99 self permanent",
    "sysctl -qw net.ipv6.conf.vxlan-v6/calico.disable_ipv6=1",
    "sysctl -qw net.ipv6.conf.all.forwarding=0",
    "sysctl -qw net.ipv6.conf.CALI.disable_ipv6=1",
    "sysctl -qw net.ipv4.conf.CALI.proxy_arp=0",
    "sysctl -qw net.ipv4.conf.CALI.rp_filter=0",
    "sysctl -qw net.ipv4.ip_forward=0",
    "sysctl -qw net.ipv4.conf.CALI.forwarding=0",
    "sysctl -qw net.ipv4.neigh.CALI.proxy_delay=80",
    "sysctl -qw net.ipv6.conf.CALI.accept_ra=2",
    "nft add rule inet calico cali-forward-to accept",
    "nft insert rule inet calico cali-egress accept",
    "nft flush chain inet calico cali-source",
    "nft flush set inet calico cali-workloads",
    "nft add element inet calico cali-workloads { cali9 }",
    "nft delete table inet calico",
];

const SYSCTLS: [&str; 10] = [
    "net.ipv4.conf.CALI.proxy_arp",
    "net.ipv4.conf.CALI.rp_filter",
    "net.ipv4.ip_forward",
    "net.ipv4.conf.CALI.forwarding",
    "net.ipv4.neigh.CALI.proxy_delay",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.CALI.accept_ra",
    "net.ipv6.conf.CALI.disable_ipv6",
    "net.ipv6.conf.CALI.proxy_ndp",
    "net.ipv6.conf.vxlan-v6/calico.disable_ipv6",
];

/// How soon everything has to be as it was.
const SOON: Duration = Duration::from_secs(5);

pub(crate) fn run(arguments: &Drift, interrupt: &Interrupt) -> anyhow::Result<()> {
    let topology: Topology = TOPOLOGY.parse()?;
    let patience = Duration::from_secs(60);
    let lab = Lab::up(&topology, LabOptions::default().interrupt(interrupt.clone()).patience(patience))?;
    let matrix = lab.observe(&lab.expect(|_, _, _| Verdict::Allowed), patience)?;
    ensure!(matrix.is_as_expected(), "the network is not as it should be:\n{matrix}");
    lab.quiet_kernel_objects("node1", Duration::from_secs(1))?;
    let victim = Victim::of(&lab)?;
    for command in FOREIGN {
        ensure!(victim.change(command)?, "`{command}` failed");
    }
    lab.quiet_kernel_objects("node1", Duration::from_secs(1))?;
    let before = victim.state()?;

    let seed = arguments.seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("{} s of drift on a host with an agent, seed {seed}", arguments.seconds);
    let mut draw = seed;
    let mut next = |below: usize| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draw >> 33) as usize % below
    };
    let clock = Stopwatch::start();
    let (mut changes, mut bursts, mut longest) = (0, 0, Duration::ZERO);
    let mut kinds = BTreeSet::new();
    while clock.elapsed() < Duration::from_secs(arguments.seconds) {
        interrupt.check()?;
        let mut burst = Vec::new();
        for _ in 0..=next(5) {
            let command = DRIFTS[next(DRIFTS.len())];
            // What is gone cannot be changed; the next command may.
            if victim.change(command)? {
                burst.push(command);
            }
        }
        let repaired = victim.await_repair(&before).with_context(|| format!("after {burst:?}"))?;
        longest = longest.max(repaired);
        changes += burst.len();
        kinds.extend(burst);
        bursts += 1;
    }
    println!(
        "{changes} changes of {} kinds to routes, devices, neighbours, forwarding entries, settings and rules in {bursts} \
         bursts, all put right;\nthe longest took {:.1} s; nothing of others' was touched",
        kinds.len(),
        longest.as_secs_f64()
    );
    lab.down()?;
    Ok(())
}

/// The host on which things are changed, and how they are called there.
struct Victim<'l> {
    lab: &'l Lab,
    names: Vec<(String, String)>,
}

impl<'l> Victim<'l> {
    fn of(lab: &'l Lab) -> anyhow::Result<Self> {
        let cali = |line: &str| line.contains(" dev cali") && !line.starts_with("fe80");
        let mut names = Vec::new();
        // Those of IPv6 first: their names begin with those of IPv4.
        for (suffix, family, device, beside, far) in [
            ("_V6", "-6", "vxlan-v6.calico", "2001:db8:6::48", "2001:db8:199::114"),
            ("", "-4", "vxlan.calico", "172.16.6.48", "172.16.199.114"),
        ] {
            let ask = |program: &str, arguments: &[&str]| lab.exec("node1", program, arguments);
            let routes = ask("ip", &[family, "route"])?.stdout;
            let fdb = ask("bridge", &["fdb", "show", "dev", device])?.stdout;
            let neighbours = ask("ip", &[family, "neigh", "show", "nud", "permanent"])?.stdout;
            let remote = |line: &str| line.contains(" via ") && line.contains(device);
            for (name, value) in [
                ("REMOTE", word(&routes, remote, 0)?),
                ("PEER", word(&routes, remote, 2)?),
                ("BESIDE", word(&routes, |line| line.contains(&format!(" via {beside} ")), 0)?),
                ("OWN", word(&routes, |line| line.starts_with("blackhole"), 1)?),
                ("ADDRESS", word(&routes, cali, 0)?),
                ("MAC", word(&fdb, |line| line.contains(far), 0)?),
                ("CALI", word(&routes, cali, 2)?),
                ("POD", word(&neighbours, cali, 4)?),
            ] {
                names.push((format!("{name}{suffix}"), value));
            }
        }
        Ok(Self { lab, names })
    }

    fn named(&self, words: &str) -> String {
        self.names.iter().fold(words.to_owned(), |words, (name, value)| words.replace(name, value))
    }

    /// Runs a command, and reports whether it succeeded.
    fn change(&self, command: &str) -> anyhow::Result<bool> {
        let command = self.named(command);
        let (program, arguments) = split(&command);
        Ok(self.lab.exec("node1", program, &arguments)?.code == Some(0))
    }

    fn state(&self) -> anyhow::Result<(KernelObjects, String)> {
        let settings = SYSCTLS.map(|setting| self.named(setting));
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let settings = self.lab.exec("node1", "sysctl", &settings)?.stdout;
        Ok((self.lab.kernel_objects("node1")?.without_numbers(), settings))
    }

    fn await_repair(&self, before: &(KernelObjects, String)) -> anyhow::Result<Duration> {
        let clock = Stopwatch::start();
        loop {
            let late = clock.elapsed() > SOON;
            let now = self.state()?;
            if now == *before {
                return Ok(clock.elapsed());
            }
            if late {
                let differences = before.0.difference(&now.0).join("\n");
                bail!("not as before after {SOON:?}: settings {:?}\n{differences}", now.1);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn split(words: &str) -> (&str, Vec<&str>) {
    let mut words = words.split(' ');
    (words.next().unwrap_or_default(), words.collect())
}

/// Returns a word of the line that fits.
fn word(text: &str, fits: impl Fn(&str) -> bool, at: usize) -> anyhow::Result<String> {
    let line = text.lines().find(|line| fits(line)).with_context(|| format!("not found in {text}"))?;
    let word = line.split_whitespace().nth(at).with_context(|| format!("too short: {line}"))?;
    Ok(word.to_owned())
}
