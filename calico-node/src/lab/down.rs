//! Taking a lab down: on past failures, and all of them told.

use super::error::LabError;
use super::netns;
use super::process::{self, Process};
use super::state::{self, LabState};
use super::topology::LabName;

/// Takes down the lab called `name`, whoever made it, also what a crash left of it.
///
/// # Errors
/// [`LabError::NoSuchLab`], or [`LabError::LeftBehind`] with all that could not be removed.
pub fn down(name: &LabName) -> Result<(), LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    match LabState::read(name) {
        Ok(state) => state.take_down(),
        // The folder is made first, then the lab is written down, and only then made: so there is nothing else.
        Err(LabError::NotWrittenDown { .. }) => state::remove_folder(name),
        Err(error) => Err(error),
    }
}

impl LabState {
    /// Ends every process of the lab, also what a user started in its namespaces, and removes all that it made.
    pub(super) fn take_down(&self) -> Result<(), LabError> {
        let mut failures = Vec::new();
        let mut processes: Vec<Process> = self.processes().collect();
        for netns in self.namespaces() {
            match netns::processes(netns) {
                Ok(inside) => processes.extend(inside.into_iter().filter_map(Process::find)),
                Err(error) => failures.push(error),
            }
        }
        processes.sort_unstable();
        processes.dedup();
        failures.extend(process::end_all(&processes));
        failures.extend(self.namespaces().filter_map(|netns| netns::delete(netns).err()));
        if failures.is_empty() {
            let name = self.name.parse::<LabName>()?;
            failures.extend(state::remove_folder(&name).err());
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(LabError::LeftBehind { name: self.name.clone(), failures })
        }
    }
}
