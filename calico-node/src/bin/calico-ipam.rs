//! `calico-ipam`, the CNI plugin that assigns addresses from Calico's pools.

use std::process::ExitCode;

use calico_node::cni::{Program, main as run};

fn main() -> ExitCode {
    run(Program::Ipam)
}
