//! Socket options that only the kernel's C interface has: TCP MD5 keys (RFC 2385), the least time to live (GTSM,
//! RFC 5082), and the time to live of a received datagram (RFC 5881). The one module with unsafe code, because no safe wrapper of `setsockopt` covers them.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use calico_model::Cidr;
use socket2::{Domain, MaybeUninitSlice, MsgHdrMut, Protocol, SockAddr, SockRef, Socket, Type};

use crate::speaker::{Distance, Password, PeerConfig};

const MAX_KEY: usize = 80;
/// From linux/tcp.h: like TCP_MD5SIG, with the flags and the length of the prefix (Linux 4.13).
const TCP_MD5SIG_EXT: libc::c_int = 32;
const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: i32,
    key: [u8; MAX_KEY],
}

/// What the system says of an error, without its number.
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn set<T>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is a live reference to a `T` of exactly `len` octets, which the kernel only reads during the call.
    let outcome =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Signs and checks every segment to and from `peers`, one or a whole prefix, with a key, or no longer.
pub(crate) fn set_md5(socket: &impl AsRawFd, peers: Cidr, key: Option<&Password>) -> io::Result<()> {
    let address = SockAddr::from(SocketAddr::new(peers.addr(), 0));
    // SAFETY: all octets zero is a valid `sockaddr_storage`: it is integers and padding only.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // SAFETY: `address` holds `len()` initialised octets, never more than a `sockaddr_storage`, and the two do not
    // overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            std::ptr::from_mut(&mut storage).cast::<u8>(),
            address.len() as usize,
        );
    }
    let octets = key.map(Password::as_bytes).unwrap_or_default();
    let mut request = TcpMd5Sig {
        address: storage,
        flags: TCP_MD5SIG_FLAG_PREFIX,
        prefix_len: peers.prefix_len(),
        key_len: octets.len() as u16,
        interface: 0,
        key: [0; MAX_KEY],
    };
    request.key[..octets.len()].copy_from_slice(octets);
    set(socket, libc::IPPROTO_TCP, TCP_MD5SIG_EXT, &request)
}

/// The time to live of a segment that crossed no router.
const FARTHEST: libc::c_int = 255;
/// Whatever the system uses.
const USUAL: libc::c_int = -1;

/// Makes the socket keep to a peer's distance: segments leave with the highest time to live, and those that came from
/// farther away are dropped by the kernel.
pub(crate) fn set_distance(socket: &impl AsRawFd, peer: IpAddr, distance: Distance) -> io::Result<()> {
    let hops = match distance {
        Distance::Any => return set_ttl(socket, peer, USUAL),
        Distance::Within(hops) => libc::c_int::from(hops.max(1)),
    };
    set_ttl(socket, peer, FARTHEST)?;
    let least = FARTHEST + 1 - hops;
    match peer {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &least),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &least),
    }
}

/// Sets the time to live of what leaves a socket of an address's family.
fn set_ttl(socket: &impl AsRawFd, family: IpAddr, ttl: libc::c_int) -> io::Result<()> {
    match family {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_TTL, &ttl),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, &ttl),
    }
}

/// Makes a listening socket. The backlog is long because after a restart all peers connect at once.
///
/// The kernel answers who connects with the listener's time to live, before anybody knows who it is: the highest one, or a
/// peer that keeps to its distance never hears the answer (RFC 5082 section 3).
pub(crate) fn listener(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_ttl(&socket, address.ip(), FARTHEST)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket)
}

/// Makes the socket to dial a peer with.
pub(crate) fn dialer(peer: &PeerConfig) -> io::Result<Socket> {
    let remote = SocketAddr::new(peer.address, peer.port);
    let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(local) = peer.local_address {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    if let Some(key) = &peer.password {
        set_md5(&socket, Cidr::host(peer.address), Some(key))?;
    }
    set_distance(&socket, peer.address, peer.distance)?;
    Ok(socket)
}

/// Makes the socket that BFD's packets arrive at.
pub(crate) fn watch_listener(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_recv_hoplimit_v6(true)?;
    } else {
        let on: libc::c_int = 1;
        set(&socket, libc::IPPROTO_IP, libc::IP_RECVTTL, &on)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Makes the socket that BFD's packets leave from, with one of the source ports of RFC 5881 section 4.
pub(crate) fn watch_sender(local: IpAddr) -> io::Result<Socket> {
    const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;
    let mut last = io::ErrorKind::AddrInUse.into();
    for port in SOURCE_PORTS {
        let address = SocketAddr::new(local, port);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        set_ttl(&socket, local, FARTHEST)?;
        match socket.bind(&address.into()) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Receives one datagram; returns its length, its sender and its time to live.
pub(crate) fn receive_with_ttl(
    socket: &impl AsFd,
    octets: &mut [u8],
) -> io::Result<(usize, Option<IpAddr>, Option<u8>)> {
    let mut payload = [MaybeUninit::new(0u8); 64];
    let room = payload.len().min(octets.len());
    let mut control = [MaybeUninit::new(0u8); 64];
    let mut from = SockAddr::from(SocketAddr::from(([0; 16], 0)));
    let mut parts = [MaybeUninitSlice::new(&mut payload[..room])];
    let mut message =
        MsgHdrMut::new().with_addr(&mut from).with_buffers(&mut parts).with_control(&mut control);
    let len = SockRef::from(socket).recvmsg(&mut message, 0)?.min(room);
    let control_len = message.control_len().min(64);
    // SAFETY: every octet was initialised above, and the kernel only writes octets.
    let (payload, control) = unsafe { (payload.map(|o| o.assume_init()), control.map(|o| o.assume_init())) };
    octets[..len].copy_from_slice(&payload[..len]);
    Ok((len, from.as_socket().map(|from| from.ip().to_canonical()), ttl_in(&control[..control_len])))
}

/// Finds the time to live among control messages: [length, a word] [level, 4] [type, 4] [value], padded to whole words.
fn ttl_in(mut control: &[u8]) -> Option<u8> {
    const WORD: usize = size_of::<usize>();
    loop {
        let (len, rest) = control.split_first_chunk::<WORD>()?;
        let (level, rest) = rest.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let (value, _) = rest.split_first_chunk::<4>()?;
        let name = (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind));
        if name == (libc::IPPROTO_IP, libc::IP_TTL) || name == (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) {
            return u8::try_from(i32::from_ne_bytes(*value)).ok();
        }
        control = control.get(usize::from_ne_bytes(*len).next_multiple_of(WORD).max(WORD)..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn who_connects_from_anywhere_is_answered_with_the_usual_time_to_live_once_known() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listening = TcpListener::from(listener(address.parse().unwrap()).unwrap());
            listening.set_nonblocking(false).unwrap();
            let dialed = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
            let (accepted, remote) = listening.accept().unwrap();
            let ttl = |socket: &TcpStream| match remote {
                SocketAddr::V4(_) => SockRef::from(socket).ttl_v4().unwrap(),
                SocketAddr::V6(_) => SockRef::from(socket).unicast_hops_v6().unwrap(),
            };
            assert_eq!(ttl(&accepted), 255);
            set_distance(&accepted, remote.ip(), Distance::Any).unwrap();
            assert_eq!(ttl(&accepted), ttl(&dialed));
        }
    }
}
