//! `calico-lab throughput`: TCP between workloads on two hosts, beside the same path with no agent: with one rule that asks
//! connection tracking, as every stateful filter has, and with no rules.

use std::time::Duration;

use anyhow::{Context, ensure};
use calico_node::lab::{
    Answer, Interrupt, Lab, LabError, LabOptions, Probe, Programs, Stopwatch, Topology, Verdict,
};
use clap::Args;
use serde_json::Value;

/// How long, and how often.
#[derive(Debug, Args)]
pub(crate) struct Throughput {
    /// How many seconds each run takes.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// How many runs there are of each path, by turns.
    #[arg(long, default_value = "12", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

const TOPOLOGY: &str = "
name: throughput
subnets:
  - {name: only, cidr: 172.16.6.0/24, gateway: 172.16.6.254}
hosts:
  - {name: node1, address: 172.16.6.47}
  - {name: node2, address: 172.16.6.249}
pools:
  - {cidr: 192.168.0.0/16}
workloads:
  - {name: client, host: node1, address: 192.168.1.1, labels: {role: client}}
  - {name: server, host: node2, address: 192.168.2.1, labels: {role: server}, listen: [7]}
";

/// With rules on both ends of the path.
const POLICY: &str = "
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: server, namespace: default}
spec:
  selector: role == 'server'
  types: [Ingress]
  ingress:
    - {action: Allow, protocol: TCP, source: {selector: role == 'client'}, destination: {ports: [7, 5201]}}
";

/// The least that a filter can do that lets answers pass.
const TRACKED: &str = "table inet tracked {
    chain forward { type filter hook forward priority filter; ct state established,related accept; }
}";

/// How long programs may take to become ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one run came to.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    megabits_per_second: f64,
    /// Processor time of both ends, and of what the kernel does for them.
    seconds_per_gigabyte: f64,
}

/// What stands in the hosts between the two ends.
#[derive(Debug, Clone, Copy)]
enum Path {
    Agent,
    Tracked,
    Nothing,
}

impl Path {
    const ALL: [Self; 3] = [Self::Agent, Self::Tracked, Self::Nothing];
}

/// What the three paths came to in one round.
type Round = [Run; 3];

pub(crate) fn run(arguments: &Throughput, interrupt: &Interrupt) -> anyhow::Result<()> {
    let topology: Topology = TOPOLOGY.parse()?;
    let options = || LabOptions::default().interrupt(interrupt.clone()).patience(PATIENCE);
    let with_agent = Lab::up(&topology, options())?;
    with_agent.apply(POLICY)?;
    let policed = |_: &str, to: &str, probe| match (to, probe) {
        ("server", Probe::Ping) => Verdict::TimedOut,
        _ => Verdict::Allowed,
    };
    let matrix = with_agent.observe(&with_agent.expect(policed), PATIENCE)?;
    ensure!(matrix.is_as_expected(), "the network is not as it should be:\n{matrix}");
    let mut plain = Lab::up(&topology.named("plain".parse()?), options().programs(Programs::None))?;
    plain.attach_plainly()?;

    println!("iperf3 between two workloads on two hosts, no encapsulation, {} s each:", arguments.seconds);
    println!("  {:>14} {:>14} {:>14}   CPU s/GB", "with the agent", "one ct rule", "no rules");
    let mut rounds: Vec<Round> = Vec::new();
    for number in 0..arguments.rounds as usize {
        let mut round = Round::default();
        // None is always the one that comes when the machine is warm.
        for turn in 0..Path::ALL.len() {
            let path = Path::ALL[(number + turn) % Path::ALL.len()];
            round[path as usize] = match path {
                Path::Agent => measure(&with_agent, arguments.seconds)?,
                Path::Tracked => {
                    on_hosts(&plain, TRACKED)?;
                    let run = measure(&plain, arguments.seconds)?;
                    on_hosts(&plain, "delete table inet tracked")?;
                    run
                }
                Path::Nothing => measure(&plain, arguments.seconds)?,
            };
        }
        let [agent, tracked, nothing] = round;
        println!(
            "  {:>7.0} Mbit/s {:>7.0} Mbit/s {:>7.0} Mbit/s   {:.3}, {:.3} and {:.3}",
            agent.megabits_per_second,
            tracked.megabits_per_second,
            nothing.megabits_per_second,
            agent.seconds_per_gigabyte,
            tracked.seconds_per_gigabyte,
            nothing.seconds_per_gigabyte,
        );
        rounds.push(round);
    }
    report(&rounds);
    with_agent.down()?;
    plain.down()?;
    Ok(())
}

fn report(rounds: &[Round]) {
    println!(
        "throughput (median of the rounds' ratios; the goal is 0.97 of no rules, and 0.951 was published):"
    );
    let ratio = |one: Path, other: Path, of: fn(&Run) -> f64| {
        median(rounds.iter().map(|round| of(&round[one as usize]) / of(&round[other as usize])))
    };
    for (words, one, other) in [
        ("with the agent, of that with no rules", Path::Agent, Path::Nothing),
        ("with the agent, of that with one rule that asks connection tracking", Path::Agent, Path::Tracked),
        ("with that rule, of that with no rules", Path::Tracked, Path::Nothing),
    ] {
        let throughput = ratio(one, other, |run| run.megabits_per_second);
        let cost = ratio(one, other, |run| run.seconds_per_gigabyte);
        println!("  {words}: {throughput:.3}; CPU for each byte: {cost:.3}");
    }
}

/// Has each host's nft carry out a command.
fn on_hosts(lab: &Lab, command: &str) -> anyhow::Result<()> {
    for host in ["node1", "node2"] {
        let answer = lab.exec(host, "nft", &[command])?;
        ensure!(answer.code == Some(0), "nft on {host} said {}", answer.stderr);
    }
    Ok(())
}

fn measure(lab: &Lab, seconds: u32) -> anyhow::Result<Run> {
    let seconds = seconds.to_string();
    let server = lab.address("server")?.to_string();
    let arguments = ["--client", &server, "--time", &seconds, "--omit", "1", "--json"];
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| lab.exec("server", "iperf3", &["--server", "--one-off"]));
        let clock = Stopwatch::start();
        let run = loop {
            let answer = lab.exec("client", "iperf3", &arguments)?;
            let run = read(&answer).with_context(|| format!("iperf3 said {}", answer.stdout));
            // Until the server listens the client is refused, with a report of that and the status of a success.
            if run.is_ok() || clock.elapsed() > PATIENCE || serving.is_finished() {
                break run;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let served: Result<Answer, LabError> =
            serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let run = run?;
        served?;
        Ok(run)
    })
}

fn read(answer: &Answer) -> anyhow::Result<Run> {
    let report: Value = serde_json::from_str(&answer.stdout)?;
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64).context("a figure is missing");
    let (bytes, seconds) = (number("/end/sum_received/bytes")?, number("/end/sum_received/seconds")?);
    let busy = number("/end/cpu_utilization_percent/host_total")?
        + number("/end/cpu_utilization_percent/remote_total")?;
    Ok(Run {
        megabits_per_second: bytes * 8.0 / seconds / 1e6,
        seconds_per_gigabyte: busy / 100.0 * seconds / (bytes / 1e9),
    })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
    f64::midpoint(values[low], values[high])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}
