//! How a lab is made.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::error::LabError;
use super::wait::Interrupt;

/// Where the lab finds the programs.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Programs {
    /// Beside the running program.
    #[default]
    Beside,
    /// In a folder.
    In(PathBuf),
    /// Nowhere: only namespaces and wires are made.
    None,
}

/// How a lab is made.
#[derive(Clone)]
pub struct LabOptions {
    pub(super) programs: Programs,
    pub(super) interrupt: Interrupt,
    pub(super) patience: Duration,
    pub(super) progress: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Programs {
    pub(super) fn resolve(self) -> Self {
        let beside = || std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
        match self {
            Self::Beside => beside().map_or(Self::None, Self::In),
            other @ (Self::In(_) | Self::None) => other,
        }
    }

    pub(super) fn folder(&self) -> Option<&Path> {
        match self {
            Self::In(folder) => Some(folder),
            Self::Beside | Self::None => None,
        }
    }

    /// Refuses a folder that lacks a program.
    pub(super) fn check(&self) -> Result<(), LabError> {
        let Some(folder) = self.folder() else { return Ok(()) };
        for program in ["calico-node", "calicoctl", "calico", "calico-ipam", "calico-lab"] {
            if !folder.join(program).is_file() {
                let remedy = format!(
                    "it is looked for in {}; build all programs with `cargo build`",
                    folder.display()
                );
                return Err(LabError::MissingProgram { program: program.to_owned(), remedy });
            }
        }
        Ok(())
    }
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            programs: Programs::Beside,
            interrupt: Interrupt::default(),
            patience: Duration::from_secs(30),
            progress: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for LabOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LabOptions").field("programs", &self.programs).finish_non_exhaustive()
    }
}

impl LabOptions {
    /// Says where the programs are.
    #[must_use]
    pub fn programs(mut self, programs: Programs) -> Self {
        self.programs = programs;
        self
    }

    /// Makes the lab stop when `interrupt` is raised.
    #[must_use]
    pub fn interrupt(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// Says how long agents may take to become ready.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Tells `progress` of each phase as it begins.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(progress);
        self
    }
}
