//! `calico-lab down`

use calico_node::lab::{self, LabName, LabState};

pub(crate) fn run(name: Option<LabName>) -> anyhow::Result<()> {
    let name = match name {
        Some(name) => name,
        None => only_one()?,
    };
    lab::down(&name)?;
    println!("the lab {name} is gone");
    Ok(())
}

fn only_one() -> anyhow::Result<LabName> {
    let mut names = LabState::names()?;
    match names.len() {
        0 => anyhow::bail!("no lab is up"),
        1 => Ok(names.remove(0)),
        _ => {
            let names: Vec<_> = names.iter().map(LabName::as_str).collect();
            anyhow::bail!("more than one lab is up: say which, one of {}", names.join(", "))
        }
    }
}
