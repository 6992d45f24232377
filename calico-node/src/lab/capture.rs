//! What goes over a wire: the headers of the packets that an interface of a host sent and received.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
};

use super::error::LabError;
use super::{Lab, netns};

/// The protocol number of IP in IP (RFC 2003).
pub const IPIP: u8 = 4;
/// The protocol number of UDP.
pub const UDP: u8 = 17;

/// A record of what goes over one interface. The kernel keeps up to 16 MiB of it until it is read.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    interface: usize,
    attempt: String,
}

/// An IPv4 packet in its Ethernet frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The link-layer address that the frame goes to.
    pub hop: [u8; 6],
    /// The header that routers see.
    pub outer: IpHeader,
    /// The header inside, of a packet in an IPIP or VXLAN tunnel.
    pub inner: Option<IpHeader>,
}

/// What of an IPv4 header tells where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpHeader {
    /// Where it comes from.
    pub source: Ipv4Addr,
    /// Where it goes.
    pub destination: Ipv4Addr,
    /// The number of what is inside: 1 is ICMP, 4 IPIP, 6 TCP, 17 UDP.
    pub protocol: u8,
}

impl Lab {
    /// Starts to record what a host or workload sends and receives over an interface.
    ///
    /// # Errors
    /// When there is no such member or interface.
    pub fn capture(&self, member: &str, interface: &str) -> Result<Capture, LabError> {
        let netns = self.state.netns(member)?;
        let attempt = format!("listen to {interface} of {member}");
        let opened = netns::within(netns, || Capture::open(interface, &attempt))?;
        opened.map_err(LabError::io(attempt.clone()))
    }
}

impl Capture {
    fn open(interface: &str, attempt: &str) -> io::Result<Self> {
        const ROOM: usize = 16 << 20;
        let interface = if_nametoindex(interface)? as usize;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // packet(7): only who asks for every protocol also gets what is sent.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        setsockopt(&socket, RcvBufForce, &ROOM)?;
        Ok(Self { socket, interface, attempt: attempt.to_owned() })
    }

    /// Returns the IPv4 packets since the last call, in their order.
    ///
    /// # Errors
    /// When the socket cannot be read.
    pub fn drain(&self) -> Result<Vec<Packet>, LabError> {
        let mut packets = Vec::new();
        let mut frame = [0; 2048];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut frame) {
                Ok((length, Some(link))) if link.ifindex() == self.interface => {
                    packets.extend(Packet::parse(&frame[..length]));
                }
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(packets),
                Err(errno) => return Err(LabError::io(self.attempt.clone())(errno)),
            }
        }
    }
}

impl Packet {
    /// Reads an Ethernet frame; `None` when it carries no IPv4.
    fn parse(frame: &[u8]) -> Option<Self> {
        let (hop, rest) = frame.split_first_chunk::<6>()?;
        let (outer, payload) = ethernet(rest)?;
        let inner = match outer.protocol {
            IPIP => ip(payload).map(|(header, _)| header),
            UDP => vxlan(payload),
            _ => None,
        };
        Some(Self { hop: *hop, outer, inner })
    }

    /// Returns the header that the sender wrote: the inner one in a tunnel, else the only one.
    #[must_use]
    pub fn innermost(&self) -> IpHeader {
        self.inner.unwrap_or(self.outer)
    }
}

/// Reads on from the source address of an Ethernet header.
fn ethernet(rest: &[u8]) -> Option<(IpHeader, &[u8])> {
    const IPV4: [u8; 2] = [0x08, 0x00];
    let (kind, packet) = rest.get(6..)?.split_first_chunk::<2>()?;
    if *kind == IPV4 { ip(packet) } else { None }
}

fn ip(packet: &[u8]) -> Option<(IpHeader, &[u8])> {
    let length = usize::from(packet.first()? & 0x0f) * 4;
    let address = |at| packet.get(at..)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes));
    let header = IpHeader { source: address(12)?, destination: address(16)?, protocol: *packet.get(9)? };
    Some((header, packet.get(length..)?))
}

/// Reads what a UDP datagram to the port of VXLAN (RFC 7348) carries.
fn vxlan(datagram: &[u8]) -> Option<IpHeader> {
    const PORT: [u8; 2] = 4789_u16.to_be_bytes();
    /// Of UDP and of VXLAN, and the inner destination address.
    const HEADERS: usize = 8 + 8 + 6;
    if datagram.get(2..4)? != PORT {
        return None;
    }
    ethernet(datagram.get(HEADERS..)?).map(|(header, _)| header)
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.outer)?;
        self.inner.map_or(Ok(()), |inner| write!(f, " [{inner}]"))
    }
}

impl fmt::Display for IpHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} protocol {}", self.source, self.destination, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&HOP[..], &[2, 0, 0, 0, 0, 1, 0x08, 0x00], payload].concat()
    }

    fn packet(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let start = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        [&start[..], &source, &destination, payload].concat()
    }

    #[test]
    fn a_packet_is_read_bare_in_ipip_and_in_vxlan() {
        let bare = packet([192, 168, 0, 1], [192, 168, 0, 2], 1, b"echo");
        let read = Packet::parse(&frame(&bare)).unwrap();
        assert_eq!(read.hop, HOP);
        assert_eq!(read.to_string(), "192.168.0.1 > 192.168.0.2 protocol 1");

        let ipip = packet([10, 0, 0, 1], [10, 0, 0, 2], IPIP, &bare);
        let wrapped = Packet::parse(&frame(&ipip)).unwrap();
        assert_eq!(wrapped.innermost(), read.outer);
        assert_eq!(
            wrapped.to_string(),
            "10.0.0.1 > 10.0.0.2 protocol 4 [192.168.0.1 > 192.168.0.2 protocol 1]"
        );

        let header = [0xc0, 0, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0x10, 0, 0];
        let udp = packet([10, 0, 0, 1], [10, 0, 0, 2], UDP, &[&header[..], &frame(&bare)].concat());
        assert_eq!(Packet::parse(&frame(&udp)).unwrap().innermost(), read.outer);
        let other_port = packet([10, 0, 0, 1], [10, 0, 0, 2], UDP, &[0, 53, 0, 53, 0, 0, 0, 0]);
        assert_eq!(Packet::parse(&frame(&other_port)).unwrap().inner, None);
    }

    #[test]
    fn a_frame_that_is_cut_short_or_carries_something_else_is_no_packet() {
        let whole = frame(&packet([10, 0, 0, 1], [10, 0, 0, 2], 1, b""));
        for length in 0..whole.len() {
            assert_eq!(Packet::parse(&whole[..length]), None, "{length} bytes");
        }
        let mut arp = whole;
        arp[13] = 6;
        assert_eq!(Packet::parse(&arp), None);
    }
}
