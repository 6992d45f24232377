//! Socket options that only the kernel's C interface has: TCP MD5 keys (RFC 2385) and the least time to live (GTSM,
//! RFC 5082). The one module with unsafe code, because no safe wrapper of `setsockopt` covers them.
#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::speaker::{Distance, Password, PeerConfig};

const MAX_KEY: usize = 80;

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

fn set<T>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is a live reference to a `T` of exactly `len` octets, which the kernel only reads during the call.
    let outcome =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Signs and checks every segment to and from `peer` with a key, or no longer.
pub(crate) fn set_md5(socket: &impl AsRawFd, peer: IpAddr, key: Option<&Password>) -> io::Result<()> {
    let address = SockAddr::from(SocketAddr::new(peer, 0));
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
        flags: 0,
        prefix_len: 0,
        key_len: octets.len() as u16,
        interface: 0,
        key: [0; MAX_KEY],
    };
    request.key[..octets.len()].copy_from_slice(octets);
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &request)
}

/// Makes the socket keep to a peer's distance: segments leave with the highest time to live, and those that came from
/// farther away are dropped by the kernel.
pub(crate) fn set_distance(socket: &Socket, peer: IpAddr, distance: Distance) -> io::Result<()> {
    let Distance::Within(hops) = distance else { return Ok(()) };
    let least = libc::c_int::from(u8::MAX) + 1 - libc::c_int::from(hops.max(1));
    match peer {
        IpAddr::V4(_) => {
            socket.set_ttl_v4(255)?;
            set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &least)
        }
        IpAddr::V6(_) => {
            socket.set_unicast_hops_v6(255)?;
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &least)
        }
    }
}

/// Makes a listening socket. The backlog is long because after a restart all peers connect at once.
pub(crate) fn listener(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
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
        set_md5(&socket, peer.address, Some(key))?;
    }
    set_distance(&socket, peer.address, peer.distance)?;
    Ok(socket)
}
