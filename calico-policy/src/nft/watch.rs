//! Changes that somebody else makes to our table, as they happen.
//!
//! The kernel tells of every change in a namespace's tables, and by whose socket it was made. What is not about our table is passed
//! over by its name, unread; what our own socket wrote is no news. A rule is known by the digest it carries, so one that was
//! replaced by another with the same digest cannot be told by reading: here its chain is named, and [`Actual::distrust`] has it
//! written anew. When there was no room for all there was to tell, nothing is trusted.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::encode::kind;
use super::wire::Received;
use super::{ApplyError, Nft, decode};
use crate::ruleset::ChainName;

/// Changes of our table are told to this group (`NFNLGRP_NFTABLES`).
const GROUP: u32 = 7;
const WATCH: &str = "watch the table inet calico";
/// Room for what one large transaction of our own tells.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What somebody else changed in our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Foreign {
    /// Something; of these chains, rules.
    Chains(BTreeSet<ChainName>),
    /// More than there was room to tell: it may be anything.
    Anything,
}

/// A subscription to the changes of our table, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    own: u32,
}

impl Watch {
    /// Begins to watch; what `nft` writes is not told.
    ///
    /// # Errors
    /// When the kernel does not permit it.
    pub fn open(nft: &mut Nft) -> Result<Self, ApplyError> {
        let own = nft.port()?;
        let broken = |source| ApplyError::Broken { doing: WATCH, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(broken)?;
        socket.bind_auto().map_err(broken)?;
        // Only root may exceed the system's limit; with less room there is more that is read again.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        socket.set_non_blocking(true).map_err(broken)?;
        socket.add_membership(GROUP).map_err(broken)?;
        Ok(Self { socket, own })
    }

    /// Waits until somebody else changes something, and returns it.
    ///
    /// # Errors
    /// When the socket fails, after which it tells nothing any more.
    pub fn wait(&mut self) -> Result<Foreign, ApplyError> {
        loop {
            if let Some(foreign) = self.changes()? {
                return Ok(foreign);
            }
            let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut sockets, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(ApplyError::Broken { doing: WATCH, source: error.into() }),
            }
        }
    }

    /// Returns what somebody else changed since this was last called, `None` for nothing. Does not wait.
    ///
    /// # Errors
    /// When the socket fails, after which it tells nothing any more.
    pub fn changes(&mut self) -> Result<Option<Foreign>, ApplyError> {
        let mut foreign = None;
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => {
                    for message in Received::all(&datagram) {
                        self.notice(&message, &mut foreign);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(foreign),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    foreign = Some(Foreign::Anything);
                }
                Err(source) => return Err(ApplyError::Broken { doing: WATCH, source }),
            }
        }
    }

    fn notice(&self, message: &Received<'_>, foreign: &mut Option<Foreign>) {
        let Some(kind) = message.of_our_family() else { return };
        if message.port == self.own || kind == kind::NEW_GENERATION || !decode::is_ours(message.attributes())
        {
            return;
        }
        let Foreign::Chains(chains) = foreign.get_or_insert_with(|| Foreign::Chains(BTreeSet::new())) else {
            return;
        };
        if matches!(kind, kind::NEW_RULE | kind::DEL_RULE) {
            chains.extend(message.attributes().text(2).map(ChainName::read));
        }
    }
}
