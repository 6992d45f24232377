//! The wires: a bridge of the router for each subnet, and an `eth0` on every host.
//!
//! The router forwards and knows its own subnets, and nothing of workloads: whatever passes between hosts must do so
//! by itself, as on a network that one does not own.

use std::fmt::Write;
use std::fs;

use super::error::LabError;
use super::state::LabState;
use super::topology::Topology;
use super::{command, netns};

/// Makes every namespace of the lab and wires hosts and router.
pub(super) fn build(topology: &Topology, state: &LabState) -> Result<(), LabError> {
    netns::create(state.namespaces())?;
    command::ip_batch(Some(&state.router), &router(topology, state))?;
    netns::within(&state.router, || {
        let attempt = "let the router forward";
        let is_dual = topology.subnets.iter().any(|subnet| subnet.ipv6.is_some());
        let settings =
            ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].into_iter().take(1 + usize::from(is_dual));
        let written = settings.map(|setting| fs::write(format!("/proc/sys/net/{setting}"), "1"));
        written.collect::<Result<(), _>>().map_err(LabError::io(attempt))
    })??;
    for (host, planned) in topology.hosts.iter().zip(&state.hosts) {
        let mut lines = format!(
            "addr add {} dev eth0\nlink set eth0 up\nroute add default via {}\n",
            host.address, host.gateway
        );
        if let Some((address, gateway)) = host.ipv6 {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "addr add {address} dev eth0 nodad\nroute add default via {gateway}");
        }
        command::ip_batch(Some(&planned.netns), &lines)?;
    }
    Ok(())
}

fn router(topology: &Topology, state: &LabState) -> String {
    let mut lines = String::new();
    // Writing to a String cannot fail.
    for (index, subnet) in topology.subnets.iter().enumerate() {
        let (gateway, length) = (subnet.gateway, subnet.cidr.prefix_len());
        let _ = writeln!(lines, "link add br.{index} type bridge");
        let _ = writeln!(lines, "link property add dev br.{index} altname subnet-{}", subnet.name.as_str());
        let _ = writeln!(lines, "addr add {gateway}/{length} dev br.{index}");
        if let Some((cidr, gateway)) = subnet.ipv6 {
            let _ = writeln!(lines, "addr add {gateway}/{} dev br.{index} nodad", cidr.prefix_len());
        }
        let _ = writeln!(lines, "link set br.{index} up");
    }
    for (host, planned) in topology.hosts.iter().zip(&state.hosts) {
        let port = host.name.as_str();
        let _ = writeln!(lines, "link add {port} type veth peer name eth0 netns {}", planned.netns);
        let _ = writeln!(lines, "link set {port} master br.{} up", host.subnet);
    }
    lines
}
