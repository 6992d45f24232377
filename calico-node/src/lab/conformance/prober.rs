//! Real packets, many at once: every end of the cases sits in its namespace with servers on all ports, and one event loop
//! asks from all of them and answers for all of them.
//!
//! A probe has a flow of its own each time, so that connection tracking never answers for an earlier one: TCP and UDP
//! have a socket each, SCTP a source port each. What is not answered by the time the patience is over was dropped.

mod sctp;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use calico_policy::packet::PortProtocol;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, connect, getsockopt, recv,
    sendto, setsockopt, socket, sockopt,
};

use super::super::probe::Verdict;
use super::super::wait::Stopwatch;
use super::cases::Service;
use sctp::{Chunk, Packet};

/// One probe: from a place to an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shot {
    pub(super) from: usize,
    pub(super) to: Ipv4Addr,
    pub(super) service: Service,
}

/// Asks and answers for all ends.
pub(super) struct Prober {
    home: File,
    epoll: Epoll,
    places: Vec<Place>,
    tag: u32,
}

/// An end in its namespace, with what answers for it.
struct Place {
    netns: File,
    addr: Ipv4Addr,
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    sctp: OwnedFd,
    sctp_ports: BTreeSet<u16>,
}

/// What an event is about; packed into the 64 bits that the kernel gives back with it.
#[derive(Clone, Copy)]
enum Token {
    Shot(usize),
    Tcp(usize, usize),
    Udp(usize, usize),
    Sctp(usize),
}

/// What waits for an answer.
enum Asked {
    Connect(OwnedFd),
    Datagram(UdpSocket, u64),
    Init,
}

/// Probes on their way.
struct Pass<'s> {
    shots: &'s [Shot],
    asked: Vec<Option<Asked>>,
    verdicts: Vec<Option<Verdict>>,
    tags: BTreeMap<u32, usize>,
}

impl Prober {
    /// Sits down in namespaces, each with an address that is there already, and listens on all services.
    pub(super) fn seat(
        seats: impl IntoIterator<Item = (File, Ipv4Addr)>,
        services: &BTreeSet<Service>,
    ) -> io::Result<Self> {
        let home = File::open("/proc/thread-self/ns/net")?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut prober = Self { home, epoll, places: Vec::new(), tag: 1 };
        for (netns, addr) in seats {
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            let place = Place::open(netns, addr, services);
            setns(&prober.home, CloneFlags::CLONE_NEWNET)?;
            prober.listen(place?)?;
        }
        Ok(prober)
    }

    /// Opens the namespace of a place once more.
    pub(super) fn namespace(&self, place: usize) -> io::Result<File> {
        self.places.get(place).ok_or(io::ErrorKind::NotFound)?.netns.try_clone()
    }

    fn listen(&mut self, place: Place) -> io::Result<()> {
        let index = self.places.len();
        for (i, listener) in place.tcp.iter().enumerate() {
            self.watch(listener, Token::Tcp(index, i), EpollFlags::EPOLLIN)?;
        }
        for (i, socket) in place.udp.iter().enumerate() {
            self.watch(socket, Token::Udp(index, i), EpollFlags::EPOLLIN)?;
        }
        self.watch(&place.sctp, Token::Sctp(index), EpollFlags::EPOLLIN)?;
        self.places.push(place);
        Ok(())
    }

    fn watch(&self, fd: impl AsFd, token: Token, flags: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(flags, token.pack()))?)
    }

    /// Sends all probes and returns what came of each, in their order, once all are answered or `patience` has passed since
    /// the last was sent.
    pub(super) fn pass(&mut self, shots: &[Shot], patience: Duration) -> io::Result<Vec<Verdict>> {
        let mut pass = Pass {
            shots,
            asked: shots.iter().map(|_| None).collect(),
            verdicts: vec![None; shots.len()],
            tags: BTreeMap::new(),
        };
        let mut by_place: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, shot) in shots.iter().enumerate() {
            by_place.entry(shot.from).or_default().push(index);
        }
        for (place, indices) in by_place {
            setns(&self.places[place].netns, CloneFlags::CLONE_NEWNET)?;
            let sent = indices.into_iter().try_for_each(|index| self.send(index, &mut pass));
            setns(&self.home, CloneFlags::CLONE_NEWNET)?;
            sent?;
            // Answers do not pile up while more is sent.
            self.serve(&mut pass, Duration::ZERO)?;
        }
        let clock = Stopwatch::start();
        loop {
            let left = patience.saturating_sub(clock.elapsed());
            if left.is_zero() || pass.verdicts.iter().all(Option::is_some) {
                break;
            }
            self.serve(&mut pass, left)?;
        }
        Ok(pass.verdicts.into_iter().map(|verdict| verdict.unwrap_or(Verdict::TimedOut)).collect())
    }

    fn send(&mut self, index: usize, pass: &mut Pass<'_>) -> io::Result<()> {
        let shot = pass.shots[index];
        let from = self.places[shot.from].addr;
        let to = SocketAddrV4::new(shot.to, shot.service.port);
        let asked = match shot.service.protocol {
            PortProtocol::Tcp => connecting(from, to).map(Asked::Connect),
            PortProtocol::Udp => {
                self.tag += 1;
                datagram(from, to, self.tag.into()).map(|socket| Asked::Datagram(socket, self.tag.into()))
            }
            PortProtocol::Sctp => {
                self.tag += 1;
                pass.tags.insert(self.tag, index);
                self.places[shot.from].init(to, self.tag).map(|()| Asked::Init)
            }
        };
        match asked {
            Ok(asked) => {
                match &asked {
                    Asked::Connect(fd) => self.watch(fd, Token::Shot(index), EpollFlags::EPOLLOUT)?,
                    Asked::Datagram(socket, _) => {
                        self.watch(socket, Token::Shot(index), EpollFlags::EPOLLIN)?
                    }
                    Asked::Init => {}
                }
                pass.asked[index] = Some(asked);
            }
            Err(error) => pass.verdicts[index] = Some(refusal(&error).ok_or(error)?),
        }
        Ok(())
    }

    /// Handles what has happened, after waiting at most so long for something to.
    fn serve(&mut self, pass: &mut Pass<'_>, wait: Duration) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        // At least a millisecond when there is time left, so that the loop never spins.
        let wait =
            if wait.is_zero() { 0 } else { u16::try_from(wait.as_millis()).unwrap_or(u16::MAX).max(1) };
        let count = match self.epoll.wait(&mut events, wait) {
            Err(Errno::EINTR) => 0,
            waited => waited?,
        };
        for event in &events[..count] {
            match Token::unpack(event.data()) {
                Token::Shot(index) => pass.settle(index),
                Token::Tcp(place, i) => while self.places[place].tcp[i].accept().is_ok() {},
                Token::Udp(place, i) => echo(&self.places[place].udp[i]),
                Token::Sctp(place) => self.places[place].hear(pass),
            }
        }
        Ok(())
    }
}

impl Pass<'_> {
    fn settle(&mut self, index: usize) {
        let verdict = match &self.asked[index] {
            Some(Asked::Connect(fd)) => match getsockopt(fd, sockopt::SocketError) {
                Ok(0) => Some(Verdict::Allowed),
                Ok(errno) => refusal(&io::Error::from_raw_os_error(errno)),
                Err(errno) => refusal(&errno.into()),
            },
            Some(Asked::Datagram(socket, nonce)) => {
                let mut answer = [0; 8];
                match socket.recv(&mut answer) {
                    Ok(_) if answer == nonce.to_be_bytes() => Some(Verdict::Allowed),
                    Ok(_) => None,
                    Err(error) => refusal(&error),
                }
            }
            Some(Asked::Init) | None => None,
        };
        if verdict.is_some() {
            self.verdicts[index] = verdict;
            // Closing the socket ends its events.
            self.asked[index] = None;
        }
    }
}

impl Place {
    /// Opens the servers, in the thread's namespace.
    fn open(netns: File, addr: Ipv4Addr, services: &BTreeSet<Service>) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let sctp = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Sctp)?;
        bind(sctp.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(addr, 0)))?;
        let mut place =
            Self { netns, addr, tcp: Vec::new(), udp: Vec::new(), sctp, sctp_ports: BTreeSet::new() };
        for service in services {
            match service.protocol {
                PortProtocol::Tcp => {
                    let listener = TcpListener::bind((addr, service.port))?;
                    listener.set_nonblocking(true)?;
                    place.tcp.push(listener);
                }
                PortProtocol::Udp => {
                    let socket = UdpSocket::bind((addr, service.port))?;
                    socket.set_nonblocking(true)?;
                    place.udp.push(socket);
                }
                PortProtocol::Sctp => drop(place.sctp_ports.insert(service.port)),
            }
        }
        Ok(place)
    }

    /// Asks for an association. Each has a source port of its own, below those that sockets are given.
    fn init(&self, to: SocketAddrV4, tag: u32) -> io::Result<()> {
        const FIRST: u32 = 1024;
        let source = u16::try_from(FIRST + tag % 30_000).unwrap_or(u16::MAX);
        self.send(Packet { source, destination: to.port(), chunk: Chunk::Init { tag } }, *to.ip())
    }

    fn send(&self, packet: Packet, to: Ipv4Addr) -> io::Result<()> {
        let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
        sendto(self.sctp.as_raw_fd(), &packet.encode(), &to, MsgFlags::empty())?;
        Ok(())
    }

    /// Answers what others ask for, and notes what was answered.
    fn hear(&self, pass: &mut Pass<'_>) {
        let mut buffer = [0; 256];
        while let Ok(length) = recv(self.sctp.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            let bytes = &buffer[..length];
            let Some(packet) = Packet::decode_ipv4(bytes) else { continue };
            let from = Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]);
            let verdict = match packet.chunk {
                Chunk::Init { .. } => {
                    let answer = packet.answer(self.sctp_ports.contains(&packet.destination));
                    // An answer that cannot be sent is one that is not received.
                    drop(answer.map(|answer| self.send(answer, from)));
                    continue;
                }
                Chunk::InitAck { tag } => (tag, Verdict::Allowed),
                Chunk::Abort { tag } => (tag, Verdict::Refused),
            };
            if let Some(index) = pass.tags.get(&verdict.0)
                && pass.shots[*index].to == from
            {
                pass.verdicts[*index] = Some(verdict.1);
            }
        }
    }
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, place, index) = match self {
            Self::Shot(index) => (0, 0, index),
            Self::Tcp(place, index) => (1, place, index),
            Self::Udp(place, index) => (2, place, index),
            Self::Sctp(place) => (3, place, 0),
        };
        kind << 60 | (place as u64) << 32 | index as u64
    }

    fn unpack(bits: u64) -> Self {
        let part = |bits: u64| usize::try_from(bits).unwrap_or(usize::MAX);
        let (place, index) = (part(bits >> 32 & 0x0fff_ffff), part(bits & 0xffff_ffff));
        match bits >> 60 {
            1 => Self::Tcp(place, index),
            2 => Self::Udp(place, index),
            3 => Self::Sctp(place),
            _ => Self::Shot(index),
        }
    }
}

/// Begins to connect. The connection is reset when it is closed, so that no port stays taken.
fn connecting(from: Ipv4Addr, to: SocketAddrV4) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    match connect(fd.as_raw_fd(), &SockaddrIn::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        Err(errno) => Err(errno.into()),
    }
}

fn datagram(from: Ipv4Addr, to: SocketAddrV4, nonce: u64) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    socket.send(&nonce.to_be_bytes())?;
    Ok(socket)
}

fn echo(socket: &UdpSocket) {
    let mut datagram = [0; 64];
    while let Ok((length, from)) = socket.recv_from(&mut datagram) {
        // One who has gone again needs no answer.
        drop(socket.send_to(&datagram[..length], from));
    }
}

/// What an error of a connection or datagram says about the way; `None` when it says nothing.
fn refusal(error: &io::Error) -> Option<Verdict> {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
    let kind = error.kind();
    if kind == ConnectionRefused {
        Some(Verdict::Refused)
    } else if kind == ConnectionReset {
        // Whoever resets a connection has answered first.
        Some(Verdict::Allowed)
    } else if kind == TimedOut {
        Some(Verdict::TimedOut)
    } else if kind == HostUnreachable || kind == NetworkUnreachable {
        Some(Verdict::Unreachable)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use super::*;

    #[test]
    fn answers_refusals_and_silence_are_told_apart() {
        assert!(nix::unistd::geteuid().is_root(), "this test makes a network namespace: run it as root");
        let verdicts = thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let ip = |arguments: &str| {
                assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success());
            };
            ip("link set lo up");
            // A neighbour that answers nothing, not even where it is.
            ip("link add quiet type veth peer name end");
            ip("link set quiet up");
            ip("link set end up");
            ip("addr add 10.9.9.1/24 dev quiet");
            ip("neigh add 10.9.9.2 lladdr 02:00:00:00:00:01 dev quiet");
            let service = |protocol, port| Service { protocol, port };
            let open: BTreeSet<Service> =
                PortProtocol::ALL.into_iter().map(|protocol| service(protocol, 80)).collect();
            let netns = File::open("/proc/thread-self/ns/net").unwrap();
            let mut prober = Prober::seat([(netns, Ipv4Addr::new(10, 9, 9, 1))], &open).unwrap();
            let shots: Vec<Shot> = [(1, 80), (1, 81), (2, 80)]
                .into_iter()
                .flat_map(|(last, port)| {
                    PortProtocol::ALL.map(|protocol| Shot {
                        from: 0,
                        to: Ipv4Addr::new(10, 9, 9, last),
                        service: service(protocol, port),
                    })
                })
                .chain([Shot {
                    from: 0,
                    to: Ipv4Addr::new(192, 0, 2, 1),
                    service: service(PortProtocol::Tcp, 80),
                }])
                .collect();
            prober.pass(&shots, Duration::from_millis(500)).unwrap()
        });
        let mut expected = [Verdict::Allowed; 3].to_vec();
        expected.extend([Verdict::Refused; 3]);
        expected.extend([Verdict::TimedOut; 3]);
        expected.push(Verdict::Unreachable);
        assert_eq!(verdicts.join().unwrap(), expected);
    }
}
