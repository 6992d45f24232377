//! What can go wrong between us and a kernel.

use std::io;

use calico_model::{InterfaceName, Name};

const EEXIST: i32 = 17;
const ENODEV: i32 = 19;

/// The kernel cannot be talked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No netlink socket could be had.
    #[error("cannot open a route netlink socket")]
    Socket(#[source] io::Error),
    /// The network namespace could not be looked at or entered.
    #[error("cannot use the network namespace; entering one needs root (CAP_SYS_ADMIN)")]
    Namespace(#[source] io::Error),
}

/// What the kernel holds could not be read. Retryable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The socket failed.
    #[error("cannot read {what} from the kernel")]
    Socket {
        /// What was to be read.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel would not say.
    #[error("the kernel refuses to list {what}: {refusal}")]
    Refused {
        /// What was to be read.
        what: &'static str,
        /// Its answer.
        refusal: Refusal,
    },
    /// What was being read kept changing.
    #[error("the kernel's {what} change faster than they can be read")]
    Unsteady {
        /// What was to be read.
        what: &'static str,
    },
    /// Kernel settings could not be read.
    #[error("cannot read kernel settings")]
    Sysctl(#[source] io::Error),
}

/// One change was not made; the others of the same call are not affected. A later pass tries it again; see
/// [`WriteError::requires_retry`] for whether to hurry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The kernel refused it.
    #[error("the kernel refuses `{change}`: {refusal}")]
    Refused {
        /// The change.
        change: String,
        /// Its answer.
        refusal: Refusal,
    },
    /// The device it needs does not exist. When it was to be made by an earlier change, that one's error says why.
    #[error("interface {device} does not exist; what belongs on it waits for it")]
    NoDevice {
        /// The device.
        device: InterfaceName,
    },
    /// The kernel has no IP-in-IP.
    #[error(
        "this kernel cannot make IP-in-IP devices; {} {} ipipMode Never or a kernel with the ipip module",
        pools_text(pools),
        if pools.len() == 1 { "needs" } else { "need" }
    )]
    NoIpip {
        /// The pools that ask for it.
        pools: Vec<Name>,
    },
    /// The kernel has no VXLAN.
    #[error(
        "this kernel cannot make VXLAN devices; {} {} vxlanMode Never or a kernel with the vxlan module",
        pools_text(pools),
        if pools.len() == 1 { "needs" } else { "need" }
    )]
    NoVxlan {
        /// The pools that ask for it.
        pools: Vec<Name>,
    },
    /// Another VXLAN device has the network and the port.
    #[error(
        "{} {vni} at port {port} already, so {} {} not served; remove it, or set vxlanVNI or vxlanPort of the \
         FelixConfiguration for all nodes",
        holder_text(by.as_ref()),
        pools_text(pools),
        if pools.len() == 1 { "is" } else { "are" }
    )]
    VxlanTaken {
        /// The other device. There is none here where it was made here and moved to another network namespace.
        by: Option<InterfaceName>,
        /// The network identifier.
        vni: u32,
        /// The UDP port.
        port: u16,
        /// The pools that ask for ours.
        pools: Vec<Name>,
    },
    /// A kernel setting could not be written.
    #[error("cannot set {path} to {value}")]
    Sysctl {
        /// The setting's path below `/proc/sys`.
        path: String,
        /// The value.
        value: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The socket failed, so nobody knows whether the change was made. Read again.
    #[error("the kernel's answer to `{change}` was lost")]
    Unanswered {
        /// The change.
        change: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl WriteError {
    /// Reports whether the kernel refused because what was to be added is there already.
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        matches!(self, WriteError::Refused { refusal, .. } if refusal.errno() == EEXIST)
    }

    /// Reports whether the device was gone before the change came.
    #[must_use]
    pub fn is_device_gone(&self) -> bool {
        match self {
            WriteError::NoDevice { .. } => true,
            WriteError::Refused { refusal, .. } => refusal.errno() == ENODEV,
            WriteError::NoIpip { .. }
            | WriteError::NoVxlan { .. }
            | WriteError::VxlanTaken { .. }
            | WriteError::Sysctl { .. }
            | WriteError::Unanswered { .. } => false,
        }
    }

    /// Reports whether trying the change again soon may help. Otherwise somebody has to change a pool, the kernel or a
    /// link first, and each of these brings a pass of its own.
    #[must_use]
    pub fn requires_retry(&self) -> bool {
        match self {
            WriteError::NoDevice { .. }
            | WriteError::NoIpip { .. }
            | WriteError::NoVxlan { .. }
            | WriteError::VxlanTaken { .. } => false,
            WriteError::Refused { .. } | WriteError::Sysctl { .. } | WriteError::Unanswered { .. } => true,
        }
    }
}

fn pools_text(pools: &[Name]) -> String {
    let names: Vec<&str> = pools.iter().map(Name::as_str).collect();
    format!("{} {}", if names.len() == 1 { "pool" } else { "pools" }, names.join(", "))
}

/// Such as Docker's overlay networks, whose devices are made in the node's namespace and moved to their own.
fn holder_text(by: Option<&InterfaceName>) -> String {
    match by {
        Some(device) => format!("the VXLAN device {device} has network identifier"),
        None => "a VXLAN device that is in another network namespace has network identifier".to_owned(),
    }
}

/// A refusal in the kernel's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    errno: i32,
    text: Option<String>,
}

impl Refusal {
    pub(crate) fn new(errno: i32, text: Option<String>) -> Self {
        Self { errno, text }
    }

    /// Returns the error number.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// Returns the kernel's explanation, when it gave one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(text) = &self.text {
            write!(f, "{} ", text.trim_end_matches('.'))?;
            return write!(f, "({})", io::Error::from_raw_os_error(self.errno));
        }
        io::Error::from_raw_os_error(self.errno).fmt(f)
    }
}
