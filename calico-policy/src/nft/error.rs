//! Why the kernel's table could not be read or written.

use std::io;

/// Why the kernel's table could not be read or written. What was in force before is in force still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The `nft` program could not be started.
    #[error("cannot start {program}: install the package nftables")]
    NoProgram {
        /// The program.
        program: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The kernel does not let this process touch its tables.
    #[error("not permitted to {doing}: it needs root, or the capability CAP_NET_ADMIN")]
    NotPermitted {
        /// What was attempted.
        doing: &'static str,
    },
    /// The connection to the program broke. Worth another try.
    #[error("cannot {doing}: the connection to nft broke")]
    Broken {
        /// What was attempted.
        doing: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The kernel or the program refused.
    #[error("cannot {doing}: {problem}")]
    Refused {
        /// What was attempted.
        doing: &'static str,
        /// What nft says, on one line.
        problem: String,
    },
    /// What the program printed is not what it is known to print.
    #[error("cannot read the table inet calico: {problem}")]
    Unreadable {
        /// What is wrong with it.
        problem: String,
    },
}
