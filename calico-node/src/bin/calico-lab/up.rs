//! `calico-lab up`

use std::path::Path;

use calico_node::lab::{Interrupt, Lab, LabName, LabOptions, Programs, Stopwatch, Topology};

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
