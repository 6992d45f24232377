//! May this pass? Asked with real packets: TCP connects, UDP datagrams, and ICMP echoes made here rather than by `ping`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use super::error::LabError;
use super::wait::Stopwatch;
use super::{Lab, netns};

pub(super) mod icmp;

use icmp::Echo;

/// After how long without an answer a probe counts as dropped.
pub(super) const PATIENCE: Duration = Duration::from_millis(400);

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// A TCP connect to a port.
    Tcp(u16),
    /// A UDP datagram to a port.
    Udp(u16),
    /// An ICMP echo request.
    Ping,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Verdict {
    /// It was answered.
    Allowed,
    /// It came through, and nothing listens there.
    Refused,
    /// It was not answered: dropped on its way, there or back.
    TimedOut,
    /// The kernel or a router knows no way.
    Unreachable,
}

impl Lab {
    /// Connects from a host or workload to a TCP port.
    ///
    /// # Errors
    /// When there is no such host or workload, or its namespace cannot be entered.
    pub fn probe_tcp(&self, from: &str, to: IpAddr, port: u16) -> Result<Verdict, LabError> {
        self.probe(from, to, Probe::Tcp(port))
    }

    /// Pings from a host or workload.
    ///
    /// # Errors
    /// When there is no such host or workload, or its namespace cannot be entered.
    pub fn ping(&self, from: &str, to: IpAddr) -> Result<Verdict, LabError> {
        self.probe(from, to, Probe::Ping)
    }

    /// Sends many probes at once, each given as where from, where to and what, and returns their verdicts in that order.
    /// Drops are waited for together.
    ///
    /// # Errors
    /// When there is no such host or workload, or its namespace cannot be entered.
    pub fn probe_all(&self, probes: &[(&str, IpAddr, Probe)]) -> Result<Vec<Verdict>, LabError> {
        let mut sources: BTreeMap<&str, Vec<(usize, IpAddr, Probe)>> = BTreeMap::new();
        for (index, (from, to, probe)) in probes.iter().enumerate() {
            sources.entry(self.state.netns(from)?).or_default().push((index, *to, *probe));
        }
        let answers = thread::scope(|scope| {
            let threads: Vec<_> = sources
                .into_iter()
                .map(|(netns, batch)| scope.spawn(move || from_one(netns, &batch)))
                .collect();
            let joined =
                threads.into_iter().map(|thread| thread.join().unwrap_or(Err(LabError::Interrupted)));
            joined.collect::<Result<Vec<_>, _>>()
        })?;
        let mut verdicts = vec![Verdict::TimedOut; probes.len()];
        for (index, verdict) in answers.into_iter().flatten() {
            verdicts[index] = verdict;
        }
        Ok(verdicts)
    }

    fn probe(&self, from: &str, to: IpAddr, probe: Probe) -> Result<Verdict, LabError> {
        let verdicts = self.probe_all(&[(from, to, probe)])?;
        Ok(verdicts.first().copied().unwrap_or(Verdict::TimedOut))
    }
}

fn from_one(netns: &str, batch: &[(usize, IpAddr, Probe)]) -> Result<Vec<(usize, Verdict)>, LabError> {
    let mut asked = Vec::new();
    let mut pings = Vec::new();
    for (index, to, probe) in batch {
        match (probe, to) {
            (Probe::Tcp(port), to) => asked.push((*index, Asked::Connect(SocketAddr::new(*to, *port)))),
            (Probe::Udp(port), to) => asked.push((*index, Asked::Datagram(SocketAddr::new(*to, *port)))),
            (Probe::Ping, IpAddr::V4(to)) => pings.push((*index, *to)),
            (Probe::Ping, IpAddr::V6(_)) => {
                let source = io::Error::new(io::ErrorKind::Unsupported, "only IPv4 is pinged");
                return Err(LabError::Io { attempt: format!("ping {to}"), source });
            }
        }
    }
    netns::within(netns, || {
        thread::scope(|scope| {
            let pings = scope.spawn(|| ping_all(&pings));
            let mut verdicts = ask_all(&asked).map_err(LabError::io(format!("probe from {netns}")))?;
            let pinged = pings.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            verdicts.extend(pinged.map_err(LabError::io(format!("ping from {netns}")))?);
            Ok(verdicts)
        })
    })?
}

#[derive(Clone, Copy)]
enum Asked {
    Connect(SocketAddr),
    Datagram(SocketAddr),
}

fn ask_all(asked: &[(usize, Asked)]) -> io::Result<Vec<(usize, Verdict)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let attempts = asked.iter().map(|(index, asked)| async move {
        let verdict = match asked {
            Asked::Connect(to) => connect(*to).await,
            Asked::Datagram(to) => converse(*to).await,
        };
        (*index, verdict)
    });
    Ok(runtime.block_on(futures_util::future::join_all(attempts)))
}

/// Connects once. A connection that is reset afterwards was let through all the same.
pub(super) async fn connect(to: SocketAddr) -> Verdict {
    verdict(tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(to)).await)
}

/// Sends one datagram and waits for the answer.
pub(super) async fn converse(to: SocketAddr) -> Verdict {
    let exchange = async {
        let from: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
        let socket = tokio::net::UdpSocket::bind((from, 0)).await?;
        socket.connect(to).await?;
        socket.send(b"?").await?;
        socket.recv(&mut [0; 64]).await
    };
    verdict(tokio::time::timeout(PATIENCE, exchange).await)
}

fn verdict<T, E>(outcome: Result<io::Result<T>, E>) -> Verdict {
    match outcome {
        Err(_) => Verdict::TimedOut,
        Ok(Ok(_)) => Verdict::Allowed,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Verdict::Refused,
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Verdict::TimedOut,
        Ok(Err(_)) => Verdict::Unreachable,
    }
}

fn ping_all(pings: &[(usize, Ipv4Addr)]) -> io::Result<Vec<(usize, Verdict)>> {
    if pings.is_empty() {
        return Ok(Vec::new());
    }
    let echo = Echo::open()?;
    let mut verdicts = BTreeMap::new();
    for (index, to) in pings {
        let sent = echo.send(*to, *index as u64);
        verdicts.insert(*index, if sent.is_ok() { Verdict::TimedOut } else { Verdict::Unreachable });
    }
    let clock = Stopwatch::start();
    while clock.elapsed() < PATIENCE && verdicts.values().any(|verdict| *verdict == Verdict::TimedOut) {
        if let Some((_, number)) = echo.receive()?
            && let Some(verdict) = usize::try_from(number).ok().and_then(|index| verdicts.get_mut(&index))
        {
            *verdict = Verdict::Allowed;
        }
    }
    Ok(verdicts.into_iter().collect())
}
