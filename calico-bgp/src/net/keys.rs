//! The peers' keys (RFC 2385) on the listening sockets, where they must be before the peers connect.
//!
//! The kernel has room for so many on a socket (`net.core.optmem_max`), and may have been built without them. Who connects
//! from where a key could not be laid is not let in: the kernel would not have asked for a signature.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use calico_model::Cidr;

use super::listen::Listening;
use super::socket;
use crate::speaker::{DynamicPeers, Password, PeerConfig};

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Laid {
    /// Every listener of the family has it.
    Yes,
    /// A listener has not.
    No,
}

/// Which keys are wanted, and which are there.
#[derive(Debug, Default)]
pub(super) struct Keys {
    peers: Vec<(Cidr, Password)>,
    ranges: Vec<(Cidr, Password)>,
    laid: BTreeMap<Cidr, Laid>,
}

impl Keys {
    /// Makes these the configured peers.
    pub(super) fn set_peers(&mut self, peers: &[PeerConfig]) {
        let key = |peer: &PeerConfig| Some((Cidr::host(peer.address), peer.password.clone()?));
        self.peers = peers.iter().filter_map(key).collect();
    }

    /// Makes these the prefixes that peers may come from.
    pub(super) fn set_ranges(&mut self, ranges: &[DynamicPeers]) {
        let key = |range: &DynamicPeers| Some((range.prefix, range.settings.password.clone()?));
        self.ranges = ranges.iter().filter_map(key).collect();
    }

    /// Puts the keys on the listeners, and takes off those that are gone. Returns, for each key that did not fail before,
    /// why it could not be laid.
    pub(super) fn lay(&mut self, listeners: &[Listening]) -> Vec<(Cidr, io::Error)> {
        let wanted: BTreeMap<Cidr, &Password> =
            self.ranges.iter().chain(&self.peers).map(|(peers, key)| (*peers, key)).collect();
        let set = |peers: Cidr, key| {
            let of_family = |listening: &&Listening| listening.address.is_ipv4() == peers.addr().is_ipv4();
            listeners
                .iter()
                .filter(of_family)
                .map(|listening| socket::set_md5(&listening.socket, peers, key))
                .fold(Ok(()), io::Result::and)
        };
        for peers in self.laid.keys().filter(|peers| !wanted.contains_key(peers)) {
            let _was_not_there = set(*peers, None);
        }
        let mut failed = Vec::new();
        let laid = wanted.into_iter().map(|(peers, key)| match set(peers, Some(key)) {
            Ok(()) => (peers, Laid::Yes),
            Err(error) => {
                if self.laid.get(&peers) != Some(&Laid::No) {
                    failed.push((peers, error));
                }
                (peers, Laid::No)
            }
        });
        self.laid = laid.collect();
        failed
    }

    /// Reports whether the kernel asked who connects from an address for a signature, where there should be one. Of
    /// several prefixes the longest counts, as in the kernel.
    pub(super) fn let_in(&self, from: IpAddr) -> bool {
        let of_address = self.laid.iter().filter(|(peers, _)| peers.contains(from));
        of_address.max_by_key(|(peers, _)| peers.prefix_len()).is_none_or(|(_, laid)| *laid == Laid::Yes)
    }
}

/// Says in words that a key could not be laid, and so many others.
pub(super) fn refusal(peers: Cidr, others: usize, error: &io::Error) -> String {
    let others = if others == 0 { String::new() } else { format!(", and {others} others neither") };
    let no_room = error.kind() == io::ErrorKind::OutOfMemory;
    let bound = if no_room { "; net.core.optmem_max bounds how many" } else { "" };
    let words = socket::words(error);
    format!("may not connect to us{others}: the kernel takes no TCP MD5 key for {peers} ({words}{bound})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_want_of_room_is_laid_at_the_bound() {
        for (errno, bound) in [(libc::ENOMEM, true), (libc::ENOPROTOOPT, false), (libc::EINVAL, false)] {
            let said = refusal("10.0.0.0/8".parse().unwrap(), 2, &io::Error::from_raw_os_error(errno));
            assert_eq!(said.contains("optmem_max"), bound, "{said}");
            assert!(said.contains("10.0.0.0/8") && said.contains("2 others"), "{said}");
        }
    }
}
