//! ICMP echoes over a raw socket.
//!
//! Every socket has an identifier of its own: connection tracking takes echoes of one identifier for one flow, and a
//! flow that was let through before a policy came would be let through after it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const HEADER: usize = 8;

static NEXT_IDENTIFIER: AtomicU16 = AtomicU16::new(0);

/// A socket that sends echo requests and hears their replies.
pub(in crate::lab) struct Echo {
    socket: OwnedFd,
    identifier: u16,
}

impl Echo {
    /// Opens a socket in the thread's network namespace.
    pub(in crate::lab) fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(10))?;
        // The low half of the process id keeps labs of several processes apart.
        let seed = u16::try_from(std::process::id() & 0xffff).unwrap_or(0);
        let identifier = seed.wrapping_mul(257).wrapping_add(NEXT_IDENTIFIER.fetch_add(1, Ordering::Relaxed));
        Ok(Self { socket, identifier })
    }

    /// Sends one request that carries `number`.
    pub(in crate::lab) fn send(&self, to: Ipv4Addr, number: u64) -> io::Result<()> {
        let packet = request(self.identifier, number);
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
        sendto(self.socket.as_raw_fd(), &packet, &to, MsgFlags::empty())?;
        Ok(())
    }

    /// Waits up to ten milliseconds for a reply to a request of this socket; returns who sent it and the number.
    pub(in crate::lab) fn receive(&self) -> io::Result<Option<(Ipv4Addr, u64)>> {
        let mut packet = [0; 256];
        match recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            Ok(length) => Ok(reply(&packet[..length], self.identifier)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Writes an echo request (RFC 792): type, code, checksum, identifier, sequence number, and `number` as data.
fn request(identifier: u16, number: u64) -> [u8; HEADER + 8] {
    let mut packet = [0; HEADER + 8];
    packet[0] = ECHO_REQUEST;
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&(number as u16).to_be_bytes());
    packet[HEADER..].copy_from_slice(&number.to_be_bytes());
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Reads an echo reply out of an IPv4 packet.
fn reply(packet: &[u8], identifier: u16) -> Option<(Ipv4Addr, u64)> {
    let header_length = usize::from(packet.first()? & 0x0f) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let message = packet.get(header_length..)?;
    let ours = message.get(4..6)? == identifier.to_be_bytes();
    let number: [u8; 8] = message.get(HEADER..HEADER + 8)?.try_into().ok()?;
    (*message.first()? == ECHO_REPLY && ours).then(|| (source.into(), u64::from_be_bytes(number)))
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_its_checksum_sums_up_to_nothing() {
        for number in [0, 1, 0xffff, u64::MAX] {
            assert_eq!(checksum(&request(0xbeef, number)), 0);
        }
    }

    #[test]
    fn a_reply_is_known_by_its_identifier() {
        let mut packet = vec![0x45, 0, 0, 36, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend(request(7, 42));
        assert_eq!(reply(&packet, 7), None, "a request is no reply");
        packet[20] = ECHO_REPLY;
        assert_eq!(reply(&packet, 7), Some((Ipv4Addr::new(10, 0, 0, 1), 42)));
        assert_eq!(reply(&packet, 8), None);
        assert_eq!(reply(&packet[..30], 7), None, "a short packet is no reply");
    }
}
