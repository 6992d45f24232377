//! `calico-lab list`, and how labs are told of elsewhere.

use std::fmt::Write;

use calico_node::lab::{LabState, Process};

pub(crate) fn run() -> anyhow::Result<()> {
    let names = LabState::names()?;
    if names.is_empty() {
        println!("no lab is up");
    }
    for name in names {
        match LabState::read(&name) {
            Ok(state) => print!("{name}\n{}", members(&state)),
            Err(error) => println!("{name}\n  {:#}", anyhow::Error::from(error)),
        }
    }
    Ok(())
}

/// Returns the hosts and workloads, a line for each.
pub(crate) fn members(state: &LabState) -> String {
    let mut text = String::new();
    let widest = state.hosts.iter().map(|host| host.name.len());
    let widest = widest.chain(state.workloads.iter().map(|workload| workload.name.len())).max().unwrap_or(0);
    for host in &state.hosts {
        let agent = match host.agent {
            Some(agent) if agent.runs() => format!("calico-node runs as process {}", Process::pid(agent)),
            Some(_) => "calico-node has ended".to_owned(),
            None => "no calico-node".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<widest$}  {:<16} {agent}", host.name, host.address);
        for workload in state.workloads.iter().filter(|workload| workload.host == host.name) {
            let address = workload.address.map_or("not attached".to_owned(), |address| address.to_string());
            let labels: Vec<_> =
                workload.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let ports: Vec<_> = workload.listen.iter().map(ToString::to_string).collect();
            let ports = if ports.is_empty() { String::new() } else { format!("port {}", ports.join(" ")) };
            let line =
                format!("    {:<widest$}  {address:<16} {:<22} {ports}", workload.name, labels.join(","));
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

/// Says how to look around in a lab, and how to take it down.
pub(crate) fn way_around(state: &LabState) -> String {
    let mut text = String::from("Look around:\n");
    let program = std::env::current_exe().map_or("calico-lab".to_owned(), |path| path.display().to_string());
    if let Some(host) = state.hosts.first() {
        let _ = writeln!(text, "  ip netns exec {} ip route", host.netns);
        let _ = writeln!(text, "  {program} exec {} calicoctl node status", host.name);
        let _ = writeln!(text, "  {program} exec {} calicoctl get workloadendpoints -o wide", host.name);
        let _ = writeln!(text, "  tail -f {}", host.log.display());
    }
    if let (Some(from), Some((name, address))) =
        (state.workloads.last(), state.workloads.first().and_then(|to| Some((&to.name, to.address?))))
    {
        let _ = writeln!(text, "  ip netns exec {} ping {address}    # {name}", from.netns);
    }
    let _ = write!(text, "Take it down:\n  {program} down {}", state.name);
    text
}
