//! `calico`, the CNI plugin that attaches containers to the network.

use std::process::ExitCode;

use calico_node::cni::{Program, main as run};

fn main() -> ExitCode {
    run(Program::Calico)
}
