//! A network without any agent: what an agent's network is compared to.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;

use super::error::LabError;
use super::state::{HostState, WorkloadState};
use super::{Lab, command, netns};

/// The link-layer address of the host's end of every workload's wire, so that workloads need not ask for it.
const HOST_END: &str = "ee:ee:ee:ee:ee:ee";

impl Lab {
    /// Attaches every workload by hand, and joins the hosts by static routes: the same wires as with agents, and no rules.
    /// Every workload must have been given an address.
    ///
    /// # Errors
    /// When a workload was given no address, or something cannot be made.
    pub fn attach_plainly(&mut self) -> Result<(), LabError> {
        let mut addresses = Vec::new();
        for workload in &self.state.workloads {
            let missing = || LabError::NotAttached { workload: workload.name.clone() };
            addresses.push((workload, workload.wanted_address.ok_or_else(missing)?));
        }
        for host in &self.state.hosts {
            let attempt = format!("let {} forward", host.name);
            netns::within(&host.netns, || {
                fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(LabError::io(attempt))
            })??;
            command::ip_batch(Some(&host.netns), &host_lines(host, &addresses, &self.state.hosts))?;
        }
        for (workload, address) in addresses {
            let lines = format!(
                "address add {address}/32 dev eth0\nlink set eth0 up\nroute add 169.254.1.1 dev eth0\n\
                 neighbour add 169.254.1.1 lladdr {HOST_END} dev eth0 nud permanent\nroute add default via 169.254.1.1\n"
            );
            command::ip_batch(Some(&workload.netns), &lines)?;
        }
        self.change(|state| {
            for workload in &mut state.workloads {
                workload.address = workload.wanted_address;
            }
        })
    }
}

fn host_lines(host: &HostState, addresses: &[(&WorkloadState, IpAddr)], hosts: &[HostState]) -> String {
    let mut lines = String::new();
    // Writing to a String cannot fail.
    for (number, (workload, address)) in addresses.iter().enumerate() {
        if workload.host == host.name {
            let netns = &workload.netns;
            let _ = writeln!(
                lines,
                "link add plain{number} address {HOST_END} type veth peer name eth0 netns {netns}"
            );
            let _ = writeln!(lines, "link set plain{number} up");
            let _ = writeln!(lines, "route add {address} dev plain{number}");
        } else if let Some(other) = hosts.iter().find(|other| other.name == workload.host) {
            let _ = writeln!(lines, "route add {address} via {}", other.address);
        }
    }
    lines
}
