//! Why iptables or ipset could not be read or written.

use std::io;

/// Why iptables or ipset could not be read or written. What was in force before is in force still, but for what an earlier step of
/// the same change had put in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A program is not there.
    #[error(
        "{program} is not installed: install iptables and ipset, or use nftables (nftablesMode: Enabled)"
    )]
    Missing {
        /// The program.
        program: String,
    },
    /// A program could not be run.
    #[error("{program} cannot be run")]
    Broken {
        /// The program.
        program: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Somebody else holds the lock of iptables. Worth another try.
    #[error(
        "somebody else held the lock of iptables for the {seconds} s that {program} waited, so that nothing of the table was \
         changed: `fuser /run/xtables.lock` tells who"
    )]
    Locked {
        /// The program.
        program: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A program did not end and was stopped. Worth another try.
    #[error("{program} did not end within {seconds} s and was stopped")]
    Stuck {
        /// The program.
        program: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// This process may not do it.
    #[error("{program} is not permitted: it needs root, or the capability CAP_NET_ADMIN")]
    NotPermitted {
        /// The program.
        program: String,
    },
    /// A program refused its input.
    #[error("{program} refuses its input: {said}")]
    Refused {
        /// The program.
        program: String,
        /// What it said.
        said: String,
    },
}

impl ApplyError {
    /// Reports whether it is the input that was wrong, so that less of it may be right.
    #[must_use]
    pub fn is_of_the_input(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}
