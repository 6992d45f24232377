//! Why the kernel's table could not be read or written.

use std::io;

/// Why the kernel's table could not be read or written. Of a [`Transaction`](super::Transaction), the parts before the one that
/// failed are in force, and nothing of that one or of those after it is; after [`Broken`](Self::Broken) the one that failed may
/// be, when it was the kernel's answer that was lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The kernel does not let this process touch its tables.
    #[error("not permitted to {doing}: it needs root, or the capability CAP_NET_ADMIN")]
    NotPermitted {
        /// What was attempted.
        doing: &'static str,
    },
    /// The connection to the kernel broke. Worth another try.
    #[error("cannot {doing}: the netlink socket failed")]
    Broken {
        /// What was attempted.
        doing: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Somebody else writes to the kernel's tables without pause. Worth another try.
    #[error("cannot {doing}: somebody else keeps changing the kernel's tables")]
    Busy {
        /// What was attempted.
        doing: &'static str,
    },
    /// The kernel refused.
    #[error("cannot {doing}: the kernel refuses `{operation}`")]
    Refused {
        /// What was attempted.
        doing: &'static str,
        /// What was refused, as nft text.
        operation: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}
