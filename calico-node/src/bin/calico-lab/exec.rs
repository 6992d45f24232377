//! `calico-lab exec`

use calico_node::lab::{LabName, LabState};

pub(crate) fn run(name: Option<LabName>, member: &str, command: &[String]) -> anyhow::Result<()> {
    let state = match name {
        Some(name) => LabState::read(&name)?,
        None => lab_with(member)?,
    };
    let programs = std::env::current_exe()?;
    let (program, arguments) =
        command.split_first().ok_or_else(|| anyhow::anyhow!("say which program to run"))?;
    let mut command = state.command(member, programs.parent(), program)?;
    Err(state.become_program(member, command.args(arguments)).into())
}

fn lab_with(member: &str) -> anyhow::Result<LabState> {
    let states = LabState::names()?.into_iter().filter_map(|name| LabState::read(&name).ok());
    let mut states: Vec<_> = states.filter(|state| state.netns(member).is_ok()).collect();
    match states.len() {
        0 => anyhow::bail!("no lab that is up has a host or workload {member}: see `calico-lab list`"),
        1 => Ok(states.remove(0)),
        _ => {
            let labs: Vec<_> = states.iter().map(|state| state.name.as_str()).collect();
            anyhow::bail!("{} all have {member}: say which with --name", labs.join(", "))
        }
    }
}
