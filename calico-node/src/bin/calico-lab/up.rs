//! `calico-lab up`

use std::path::Path;

use calico_node::lab::{Interrupt, Lab, LabName, LabOptions, Programs, Stopwatch, Topology};

/// What the help shows.
pub(crate) const EXAMPLE: &str = "\
A topology:

  name: office                   # names of namespaces begin with it: office-node1
  bareNames: false               # true: node1 instead; one such lab at a time
  subnets:                       # each is a bridge of the lab's router
    - {name: first, cidr: 10.1.0.0/24, gateway: 10.1.0.254}
    - {name: second, cidr: 10.2.0.0/24, gateway: 10.2.0.254}
  hosts:
    - {name: node1, address: 10.1.0.1}
    - {name: node2, address: 10.2.0.1, as: 64513}
  pools:
    - {cidr: 192.168.0.0/16, vxlanMode: CrossSubnet, blockSize: 26, natOutgoing: true}
  workloads:                     # address: the one it must get, ipipMode: instead of vxlanMode
    - {name: web, host: node1, address: 192.168.3.7, labels: {app: web}, listen: [80, 53/udp]}
    - {name: client, host: node2}
  resources:                     # files for `calicoctl apply`, or resources
    - {apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: none}}
";

pub(crate) fn run(
    topology: &Path,
    name: Option<LabName>,
    wires_only: bool,
    interrupt: Interrupt,
) -> anyhow::Result<()> {
    let mut topology = Topology::read(topology)?;
    if let Some(name) = name {
        topology = topology.named(name);
    }
    let clock = Stopwatch::start();
    let progress = move |phase: &str| println!("[{:5.1} s] {phase}", clock.elapsed().as_secs_f64());
    let programs = if wires_only { Programs::None } else { Programs::Beside };
    let options = LabOptions::default().interrupt(interrupt).programs(programs).progress(progress);
    let lab = Lab::up(&topology, options)?;
    let (members, way_around) = (super::list::members(lab.state()), super::list::way_around(lab.state()));
    // From here on it is the user's, whatever becomes of the terminal.
    lab.keep();
    println!("[{:5.1} s] the lab {} is up", clock.elapsed().as_secs_f64(), topology.name());
    println!("{members}{way_around}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topology_of_the_help_is_one() {
        let yaml = EXAMPLE.split_once("\n\n").unwrap().1;
        assert_eq!(yaml.parse::<Topology>().unwrap().name().as_str(), "office");
    }
}
