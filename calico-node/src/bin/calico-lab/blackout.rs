//! `calico-lab blackout`: agents are restarted under a steady stream between two hosts, and what is lost is counted.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context, ensure};
use calico_model::Family;
use calico_node::lab::{
    Ending, Interrupt, Lab, LabName, LabOptions, Probe, Stopwatch, StreamCount, Topology, Verdict,
};
use clap::{Args, ValueEnum};

/// What to restart, how often, and under what.
#[derive(Debug, Args)]
pub(crate) struct Blackout {
    /// How often an agent is restarted; the first and the last of every four times by SIGKILL.
    #[arg(long, default_value = "100")]
    restarts: u32,
    /// How many datagrams are sent each second to each host; fails when fewer than nine tenths of them were.
    #[arg(long, default_value = "5000")]
    rate: NonZeroU32,
    /// What is between the hosts.
    #[arg(long, value_enum, default_value = "none")]
    encapsulation: Encapsulation,
    /// The lab's name, so that more than one can be up.
    #[arg(long)]
    name: Option<LabName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Encapsulation {
    /// One subnet; routes are learned by BGP.
    None,
    /// Two subnets and a router that knows no workloads.
    Vxlan,
    /// The same, and a third host in the first's subnet, to which datagrams go as they are.
    VxlanCrossSubnet,
    /// Two subnets; the stream is of IPv6.
    VxlanV6,
    /// Two subnets; needs a kernel with IP-in-IP.
    Ipip,
}

/// The stream's port.
const PORT: u16 = 5001;

/// The path is that of a policed workload: the datagrams must be let out and let in by rules.
const POLICY: &str = "
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: sink, namespace: default}
spec:
  selector: role == 'sink'
  types: [Ingress]
  ingress:
    - {action: Allow, protocol: UDP, source: {selector: role == 'source'}, destination: {ports: [7, 5001]}}
";

pub(crate) fn run(arguments: &Blackout, interrupt: &Interrupt) -> anyhow::Result<()> {
    let encapsulation = arguments.encapsulation;
    let mut topology: Topology = topology(encapsulation).parse()?;
    if let Some(name) = &arguments.name {
        topology = topology.named(name.clone());
    }
    let patience = Duration::from_secs(240);
    let mut lab = Lab::up(&topology, LabOptions::default().interrupt(interrupt.clone()).patience(patience))?;
    lab.apply(POLICY)?;
    let sinks = await_sinks(&lab, encapsulation.family(), patience, interrupt)?;

    let clock = Stopwatch::start();
    let before = carried(&lab, encapsulation)?;
    let mut streams = Vec::new();
    for sink in &sinks {
        streams.push(lab.stream("source", sink, encapsulation.family(), PORT, arguments.rate)?);
    }
    let (mut done, mut failure) = (0, None);
    while done < arguments.restarts && failure.is_none() {
        match restart(&mut lab, done, interrupt) {
            Ok(()) => done += 1,
            // What was counted until then is told all the same.
            Err(error) => failure = Some(error),
        }
    }
    // What an agent does late, as giving up on a peer, is to be seen as well.
    std::thread::sleep(Duration::from_secs(2));
    let counts = streams.into_iter().map(|stream| stream.stop()).collect::<Result<Vec<_>, _>>()?;
    let carried =
        carried(&lab, encapsulation)?.zip(before).map(|(after, before)| after.saturating_sub(before));
    println!(
        "{done} restarts of calico-node in {:.1} s, the first and the last of every four by SIGKILL, with {}:",
        clock.elapsed().as_secs_f64(),
        encapsulation.told(),
    );
    counts.iter().for_each(tell);
    failure.map_or(Ok(()), Err)?;
    lab.down()?;
    counts.iter().try_for_each(|count| judge(count, arguments.rate))?;
    // The first is behind the tunnel, and any other is not.
    if let Some(carried) = carried {
        println!("  {carried} went through {}", encapsulation.device().unwrap_or_default());
        let far = counts[0].sent;
        let all: u64 = counts.iter().map(|count| count.sent).sum();
        ensure!(carried >= far && (far == all || carried < all), "{far} should have gone through the tunnel");
    }
    Ok(())
}

/// Waits until datagrams of the stream's family are let through, and nothing else is, to every workload but the source;
/// returns those.
fn await_sinks(
    lab: &Lab,
    family: Family,
    patience: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<String>> {
    let policed = |_: &str, to: &str, probe| match (to, probe) {
        ("source", _) | (_, Probe::Udp(_)) => Verdict::Allowed,
        _ => Verdict::TimedOut,
    };
    let mut expected = lab.expect(policed);
    expected.retain(|probe| probe.from == "source" || probe.to == "source");
    let matrix = lab.observe(&expected, patience)?;
    let problems = lab.status("node1")?.problems.join("; ");
    ensure!(matrix.is_as_expected(), "not everything arrives ({problems}):\n{matrix}");
    let names = lab.state().workloads.iter().map(|workload| workload.name.clone());
    let sinks: Vec<String> = names.filter(|name| name != "source").collect();
    let clock = Stopwatch::start();
    for sink in &sinks {
        let to = lab.address_in(sink, family)?;
        while lab.probe_all(&[("source", to, Probe::Udp(7))])? != [Verdict::Allowed] {
            interrupt.check()?;
            ensure!(clock.elapsed() < patience, "nothing arrives at {to} ({problems})");
        }
    }
    Ok(sinks)
}

/// Returns how many packets the tunnel of the first host has sent.
fn carried(lab: &Lab, encapsulation: Encapsulation) -> anyhow::Result<Option<u64>> {
    let Some(device) = encapsulation.device() else { return Ok(None) };
    let path = format!("/sys/class/net/{device}/statistics/tx_packets");
    let answer = lab.exec("node1", "cat", &[&path])?;
    answer.stdout.trim().parse().map(Some).with_context(|| format!("read {path}: {}", answer.stderr))
}

/// Ends one of the agents and waits until its successor has its sessions.
fn restart(lab: &mut Lab, number: u32, interrupt: &Interrupt) -> anyhow::Result<()> {
    interrupt.check()?;
    let hosts = &lab.state().hosts;
    let host = hosts[number as usize % hosts.len()].name.clone();
    let ending = if (number + number / 2).is_multiple_of(2) { Ending::Killed } else { Ending::Asked };
    lab.end_agent(&host, ending)?;
    // Some of the stream goes by while nobody is there.
    std::thread::sleep(Duration::from_millis(300));
    lab.start_agent(&host)?;
    lab.await_mesh()?;
    Ok(())
}

fn tell(count: &StreamCount) {
    let lost = count.sent - count.received;
    println!("  {} sent, {:.0} a second; {} received, {lost} lost", count.sent, count.rate(), count.received);
    println!(
        "  longest gap {} ms; the sender's longest pause {} ms",
        count.longest_gap.as_millis(),
        count.longest_pause.as_millis()
    );
}

/// Nothing may be lost, and of a stream that is thinner than was asked for that would say too little.
fn judge(count: &StreamCount, asked: NonZeroU32) -> anyhow::Result<()> {
    /// How much of the rate that was asked for must be reached.
    const ENOUGH: f64 = 0.9;
    ensure!(count.sent > 0 && count.received == count.sent, "not all that was sent arrived");
    let reached = count.rate();
    ensure!(
        reached >= ENOUGH * f64::from(asked.get()),
        "FAILED: this machine sent {reached:.0} datagrams a second, and {asked} were asked for; ask for fewer with `--rate`"
    );
    Ok(())
}

impl Encapsulation {
    fn told(self) -> &'static str {
        match self {
            Self::None => "no encapsulation",
            Self::Vxlan => "VXLAN",
            Self::VxlanCrossSubnet => "VXLAN across subnets, and none within one",
            Self::VxlanV6 => "VXLAN over IPv6",
            Self::Ipip => "IP-in-IP",
        }
    }

    /// The tunnel of a host.
    fn device(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Vxlan | Self::VxlanCrossSubnet => Some("vxlan.calico"),
            Self::VxlanV6 => Some("vxlan-v6.calico"),
            Self::Ipip => Some("tunl0"),
        }
    }

    fn family(self) -> Family {
        if self == Self::VxlanV6 { Family::V6 } else { Family::V4 }
    }
}

fn topology(encapsulation: Encapsulation) -> String {
    let (mode, second) = match encapsulation {
        Encapsulation::None => ("vxlanMode: Never", "172.16.6.249"),
        Encapsulation::Vxlan | Encapsulation::VxlanV6 => ("vxlanMode: Always", "172.16.199.114"),
        Encapsulation::VxlanCrossSubnet => ("vxlanMode: CrossSubnet", "172.16.199.114"),
        Encapsulation::Ipip => ("ipipMode: Always", "172.16.199.114"),
    };
    let six = |text| if encapsulation.family() == Family::V6 { text } else { "" };
    let (left, right) = (
        six(", cidr6: '2001:db8:6::/64', gateway6: '2001:db8:6::254'"),
        six(", cidr6: '2001:db8:199::/64', gateway6: '2001:db8:199::254'"),
    );
    let (first_six, second_six) =
        (six(", address6: '2001:db8:6::47'"), six(", address6: '2001:db8:199::114'"));
    let pool_six = six("\n  - {cidr: 'fd00:10::/48', vxlanMode: Always}");
    let near = |text| if encapsulation == Encapsulation::VxlanCrossSubnet { text } else { "" };
    let near_host = near("\n  - {name: node3, address: 172.16.6.48}");
    let near_sink = near("\n  - {name: near, host: node3, labels: {role: sink}, listen: [7/udp]}");
    format!(
        "
name: blackout
subnets:
  - {{name: left, cidr: 172.16.6.0/24, gateway: 172.16.6.254{left}}}
  - {{name: right, cidr: 172.16.199.0/24, gateway: 172.16.199.254{right}}}
hosts:
  - {{name: node1, address: 172.16.6.47{first_six}}}
  - {{name: node2, address: {second}{second_six}}}{near_host}
pools:
  - {{cidr: 192.168.0.0/16, {mode}}}{pool_six}
workloads:
  - {{name: source, host: node1, labels: {{role: source}}}}
  - {{name: sink, host: node2, labels: {{role: sink}}, listen: [7/udp]}}{near_sink}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(sent: u64, received: u64) -> Option<String> {
        let (duration, none) = (Duration::from_secs(10), Duration::ZERO);
        let count = StreamCount { sent, received, duration, longest_gap: none, longest_pause: none };
        judge(&count, NonZeroU32::new(5000).unwrap()).err().map(|error| error.to_string())
    }

    #[test]
    fn nothing_may_be_lost_and_nine_tenths_of_the_rate_must_be_reached() {
        assert_eq!(judged(50_000, 50_000), None);
        assert_eq!(judged(45_000, 45_000), None);
        let thin = "FAILED: this machine sent 500 datagrams a second, and 5000 were asked for; ask for fewer with `--rate`";
        assert_eq!(judged(5_000, 5_000).as_deref(), Some(thin));
        assert!(judged(44_990, 44_990).is_some());
        assert_eq!(judged(50_000, 49_999).as_deref(), Some("not all that was sent arrived"));
        assert!(judged(0, 0).is_some());
    }
}
