//! `calico-lab blackout`: agents are restarted under a steady stream between two hosts, and what is lost is counted.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::ensure;
use calico_node::lab::{
    Ending, Interrupt, Lab, LabOptions, Probe, Stopwatch, StreamCount, Topology, Verdict,
};
use clap::{Args, ValueEnum};

/// What to restart, how often, and under what.
#[derive(Debug, Args)]
pub(crate) struct Blackout {
    /// How often an agent is restarted; the first two of every four times by SIGKILL.
    #[arg(long, default_value = "100")]
    restarts: u32,
    /// How many datagrams are sent each second; fails when fewer than nine tenths of them were.
    #[arg(long, default_value = "5000")]
    rate: NonZeroU32,
    /// What is between the hosts.
    #[arg(long, value_enum, default_value = "none")]
    encapsulation: Encapsulation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Encapsulation {
    /// One subnet; routes are learned by BGP.
    None,
    /// Two subnets and a router that knows no workloads.
    Vxlan,
    /// The same; needs a kernel with IP-in-IP.
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
    let topology: Topology = topology(arguments.encapsulation).parse()?;
    let patience = Duration::from_secs(240);
    let mut lab = Lab::up(&topology, LabOptions::default().interrupt(interrupt.clone()).patience(patience))?;
    lab.apply(POLICY)?;
    let policed = |_: &str, to: &str, probe| match (to, probe) {
        ("sink", Probe::Ping) => Verdict::TimedOut,
        _ => Verdict::Allowed,
    };
    let matrix = lab.observe(&lab.expect(policed), patience)?;
    let problems = lab.status("node1")?.problems.join("; ");
    ensure!(matrix.is_as_expected(), "not everything arrives ({problems}):\n{matrix}");

    let clock = Stopwatch::start();
    let stream = lab.stream("source", "sink", PORT, arguments.rate)?;
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
    let count = stream.stop()?;
    println!(
        "{done} restarts of calico-node in {:.1} s, the first two of every four by SIGKILL, with {}:",
        clock.elapsed().as_secs_f64(),
        arguments.encapsulation.told(),
    );
    tell(&count);
    failure.map_or(Ok(()), Err)?;
    lab.down()?;
    judge(&count, arguments.rate)
}

/// Ends one of the two agents and waits until its successor has its sessions.
fn restart(lab: &mut Lab, number: u32, interrupt: &Interrupt) -> anyhow::Result<()> {
    interrupt.check()?;
    let host = ["node1", "node2"][number as usize % 2];
    let ending = if (number / 2).is_multiple_of(2) { Ending::Killed } else { Ending::Asked };
    lab.end_agent(host, ending)?;
    // Some of the stream goes by while nobody is there.
    std::thread::sleep(Duration::from_millis(300));
    lab.start_agent(host)?;
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
            Self::Ipip => "IP-in-IP",
        }
    }
}

fn topology(encapsulation: Encapsulation) -> String {
    let (mode, second) = match encapsulation {
        Encapsulation::None => ("vxlanMode: Never", "172.16.6.249"),
        Encapsulation::Vxlan => ("vxlanMode: Always", "172.16.199.114"),
        Encapsulation::Ipip => ("ipipMode: Always", "172.16.199.114"),
    };
    format!(
        "
name: blackout
subnets:
  - {{name: left, cidr: 172.16.6.0/24, gateway: 172.16.6.254}}
  - {{name: right, cidr: 172.16.199.0/24, gateway: 172.16.199.254}}
hosts:
  - {{name: node1, address: 172.16.6.47}}
  - {{name: node2, address: {second}}}
pools:
  - {{cidr: 192.168.0.0/16, {mode}}}
workloads:
  - {{name: source, host: node1, labels: {{role: source}}}}
  - {{name: sink, host: node2, labels: {{role: sink}}, listen: [7/udp]}}
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
