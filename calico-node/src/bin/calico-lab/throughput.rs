//! `calico-lab throughput`: TCP between workloads on two hosts, beside the same path with no agent and no rules.

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
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..=20))]
    seconds: u32,
    /// How many runs there are of each path, by turns.
    #[arg(long, default_value = "6", value_parser = clap::value_parser!(u32).range(1..))]
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

/// How long programs may take to become ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one run came to.
#[derive(Debug, Clone, Copy)]
struct Run {
    megabits_per_second: f64,
    /// Processor time of both ends, and of what the kernel does for them.
    seconds_per_gigabyte: f64,
}

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
    println!("  {:>16} {:>16} {:>8}   CPU s/GB", "with the agent", "without", "ratio");
    let mut runs = Vec::new();
    for round in 0..arguments.rounds {
        let measure = |lab| measure(lab, arguments.seconds);
        // Neither is always the one that comes when the machine is warm.
        let (agent, none) = if round % 2 == 0 {
            let agent = measure(&with_agent)?;
            (agent, measure(&plain)?)
        } else {
            let none = measure(&plain)?;
            (measure(&with_agent)?, none)
        };
        println!(
            "  {:>9.0} Mbit/s {:>9.0} Mbit/s {:>8.3}   {:.3} and {:.3}",
            agent.megabits_per_second,
            none.megabits_per_second,
            agent.megabits_per_second / none.megabits_per_second,
            agent.seconds_per_gigabyte,
            none.seconds_per_gigabyte,
        );
        runs.push((agent, none));
    }
    let throughput = median(runs.iter().map(|(a, n)| a.megabits_per_second / n.megabits_per_second));
    let cost = median(runs.iter().map(|(a, n)| a.seconds_per_gigabyte / n.seconds_per_gigabyte));
    println!(
        "throughput with the agent, of that without: {throughput:.3} (median; the goal is 0.97, and 0.951 was published)"
    );
    println!("CPU for each byte with the agent, of that without: {cost:.3} (median)");
    with_agent.down()?;
    plain.down()?;
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
