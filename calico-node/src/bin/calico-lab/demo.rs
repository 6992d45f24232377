//! `calico-lab demo`: the whole system at work on three hosts of one machine, checked with real packets.
//!
//! What must hold is said here once more and from scratch ([`with_policy`]), so that policy is checked against its
//! wording and not against itself.

mod report;

use std::time::Duration;

use calico_node::lab::{
    Ending, Interrupt, Lab, LabOptions, LabState, Probe, Stopwatch, Topology, Traffic, Verdict, tail,
};

use report::Report;

const TOPOLOGY: &str = include_str!("demo/topology.yaml");
const POLICY: &str = include_str!("demo/policy.yaml");

/// How long the network may take to become as it should be.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(keep: bool, interrupt: &Interrupt) -> anyhow::Result<()> {
    let topology: Topology = TOPOLOGY.parse()?;
    let mut report = Report::start();
    let clock = report.clock();
    let progress = move |phase: &str| report::phase(clock, phase);
    let mut lab = Lab::up(&topology, LabOptions::default().interrupt(interrupt.clone()).progress(progress))?;
    let shown = show(&mut lab, &mut report);
    if shown.is_err() || report.failed() {
        interrupt.check()?;
        for host in &lab.state().hosts {
            println!("\nThe end of the log of {}:\n{}", host.name, tail(&host.log));
        }
        println!("\nThe logs are kept in {}", lab.salvage_logs().display());
    }
    if keep {
        println!("\n{}", super::list::way_around(lab.state()));
        lab.keep();
    } else {
        report::phase(clock, "everything is taken down");
        lab.down()?;
    }
    shown?;
    report.close()
}

fn show(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    report.phase("what there is");
    report.section("Hosts and workloads");
    print!("{}", super::list::members(lab.state()));
    report.section("BGP sessions");
    sessions(lab, report)?;
    report.section("Routes of each host");
    for host in &lab.state().hosts {
        println!("  {}:", host.name);
        report.lines(&lab.exec(&host.name, "ip", &["-4", "route", "show"])?.stdout, "    ");
    }
    report.section("Address blocks");
    report.lines(&lab.calicoctl("node1", &["ipam", "show", "--show-blocks"], "")?, "  ");

    report.phase("who reaches whom, before any policy");
    connectivity(lab, report, "before any policy", |_, _, _| Verdict::Allowed)?;
    report.phase("the policies `database` and `frontend` are applied");
    lab.apply(POLICY)?;
    let state = lab.state().clone();
    let policed = |from: &str, to: &str, probe| with_policy(&state, from, to, probe);
    connectivity(lab, report, "with the policies", policed)?;
    outage(lab, report, &policed)?;
    report.phase("the policies are deleted");
    lab.calicoctl("node1", &["delete", "-f", "-"], POLICY)?;
    connectivity(lab, report, "after the policies were deleted", |_, _, _| Verdict::Allowed)
}

/// What the two policies say: frontends reach databases on tcp 3306 and nothing else, databases reach databases and
/// nothing else, and nothing else reaches databases.
fn with_policy(state: &LabState, from: &str, to: &str, probe: Probe) -> Verdict {
    let role =
        |name: &str| state.workload(name).ok().and_then(|workload| workload.labels.get("role").cloned());
    let (from, to) = (role(from), role(to));
    let passes = match (from.as_deref(), to.as_deref()) {
        (Some("frontend"), Some("database")) => probe == Probe::Tcp(3306),
        (Some("database"), Some("database")) => true,
        (Some("frontend" | "database"), _) | (_, Some("database")) => false,
        _ => true,
    };
    if passes { Verdict::Allowed } else { Verdict::TimedOut }
}

/// Kills the agent of `node1` under traffic, and starts it again: nothing may be lost or leak, and the kernel's objects
/// may not change on any host.
fn outage(
    lab: &mut Lab,
    report: &mut Report,
    policed: &dyn Fn(&str, &str, Probe) -> Verdict,
) -> anyhow::Result<()> {
    let hosts: Vec<String> = lab.state().hosts.iter().map(|host| host.name.clone()).collect();
    let mut before = Vec::new();
    for host in &hosts {
        before.push((lab.quiet_kernel_objects(host, Duration::from_millis(200))?, lab.kernel_events(host)?));
    }
    report.phase("calico-node on node1 is killed (SIGKILL), under traffic");
    let traffic = Flows::start(lab)?;
    std::thread::sleep(Duration::from_millis(300));
    lab.end_agent("node1", Ending::Killed)?;
    let down = Stopwatch::start();
    std::thread::sleep(Duration::from_secs(1));
    connectivity(lab, report, "while the agent is dead", policed)?;
    report.phase("calico-node on node1 is started again");
    lab.start_agent("node1")?;
    lab.await_mesh()?;
    println!("  ready again {:.1} s after it was killed", down.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(1));
    traffic.stop(report)?;
    for (host, (objects, events)) in hosts.iter().zip(&before) {
        let mut changes = objects.difference(&lab.kernel_objects(host)?);
        changes.extend(events.drain()?);
        let claim =
            format!("{host}: {} kernel objects are the same, and nothing was written", objects.count());
        report.check(&claim, changes.is_empty());
        for change in changes.iter().take(10) {
            println!("      {change:.100}");
        }
    }
    sessions(lab, report)
}

/// The traffic of the outage: what is allowed must all pass, what is not must never.
struct Flows {
    names: Vec<(String, Verdict)>,
    traffic: Traffic,
}

impl Flows {
    fn start(lab: &Lab) -> anyhow::Result<Self> {
        let flows = [
            ("db1", "db2", Probe::Ping, Verdict::Allowed),
            ("db2", "db1", Probe::Ping, Verdict::Allowed),
            ("fe1", "db1", Probe::Tcp(3306), Verdict::Allowed),
            ("fe2", "db1", Probe::Tcp(3306), Verdict::Allowed),
            ("fe1", "db2", Probe::Tcp(3306), Verdict::Allowed),
            ("app2", "db1", Probe::Tcp(3306), Verdict::TimedOut),
        ];
        let mut started = Vec::new();
        for (from, to, probe, _) in flows {
            started.push((from, lab.address(to)?, probe));
        }
        let names = flows.map(|(from, to, probe, verdict)| (format!("{from} to {to}, {probe}"), verdict));
        Ok(Self { names: names.to_vec(), traffic: lab.traffic(&started)? })
    }

    fn stop(self, report: &mut Report) -> anyhow::Result<()> {
        for ((name, verdict), count) in self.names.iter().zip(self.traffic.stop()?) {
            if *verdict == Verdict::Allowed {
                let lost = count.sent - count.answered;
                report.check(&format!("{name}: {} sent, {lost} lost", count.sent), lost == 0);
            } else {
                let claim = format!("{name}: {} sent, {} leaked", count.sent, count.answered);
                report.check(&claim, count.answered == 0);
            }
        }
        Ok(())
    }
}

fn connectivity(
    lab: &Lab,
    report: &mut Report,
    when: &str,
    verdict: impl Fn(&str, &str, Probe) -> Verdict,
) -> anyhow::Result<()> {
    let matrix = lab.observe(&lab.expect(verdict), PATIENCE)?;
    println!("  tcp 3306, tcp 8080, ping:  . answered  X dropped  ! not as expected");
    println!("{matrix}");
    report.check(&format!("connectivity {when}"), matrix.is_as_expected());
    Ok(())
}

fn sessions(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    for host in &lab.state().hosts {
        let bgp = lab.status(&host.name)?.bgp;
        let peers = bgp.map_or(Vec::new(), |bgp| bgp.peers);
        let up: Vec<_> = peers.iter().filter(|peer| peer.state == "up").collect();
        for peer in &peers {
            println!(
                "  {} to {:<15} {:<5} {:<12} {} received, {} sent",
                host.name, peer.address, peer.state, peer.info, peer.routes_received, peer.routes_sent
            );
        }
        let wanted = lab.state().hosts.len() - 1;
        report.check(
            &format!("{}: {} of {wanted} BGP sessions are up", host.name, up.len()),
            up.len() == wanted,
        );
    }
    Ok(())
}
