//! A steady stream of numbered datagrams: what was lost of it is known by its number, and for how long nothing came.
//!
//! Every hundredth datagram comes from another port: to connection tracking the stream is many short flows, each of
//! which the rules have to let through.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use calico_model::Family;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use super::error::LabError;
use super::wait::{Interrupt, Stopwatch};
use super::{Lab, netns};

/// A stream that goes on.
#[derive(Debug)]
pub struct Stream {
    end: Interrupt,
    sender: JoinHandle<Result<Sent, LabError>>,
    receiver: JoinHandle<Result<Received, LabError>>,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCount {
    /// How many datagrams were sent.
    pub sent: u64,
    /// How many of them arrived.
    pub received: u64,
    /// How long they were sent.
    pub duration: Duration,
    /// The longest time in which none arrived.
    pub longest_gap: Duration,
    /// The longest time in which none was sent, since a machine that is busy lets the sender wait.
    pub longest_pause: Duration,
}

impl StreamCount {
    /// Returns how many datagrams were sent each second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.duration.is_zero() { 0.0 } else { self.sent as f64 / self.duration.as_secs_f64() }
    }
}

#[derive(Debug)]
struct Sent {
    count: u64,
    duration: Duration,
    longest_pause: Duration,
}

#[derive(Debug)]
struct Received {
    count: u64,
    longest_gap: Duration,
}

impl Lab {
    /// Starts a stream from a workload to a port of another's address in a family, of `rate` datagrams a second, or as many as the machine
    /// manages; [`StreamCount::rate`] tells how many those were.
    ///
    /// # Errors
    /// When there is no such workload, it has no address, or the port is taken.
    pub fn stream(
        &self,
        from: &str,
        to: &str,
        family: Family,
        port: u16,
        rate: NonZeroU32,
    ) -> Result<Stream, LabError> {
        let target = SocketAddr::new(self.address_in(to, family)?, port);
        let listener = netns::within(self.state.netns(to)?, || listen(target))?;
        let listener = listener.map_err(LabError::io(format!("listen on {target}")))?;
        let (end, total) = (Interrupt::default(), Arc::new(OnceLock::new()));
        let receiver = thread::spawn({
            let total = Arc::clone(&total);
            move || receive(&listener, &total).map_err(LabError::io(format!("receive on {target}")))
        });
        let (netns, until) = (self.state.netns(from)?.to_owned(), end.clone());
        let sender = thread::spawn(move || {
            let sent = netns::within(&netns, || send(target, rate, &until))?;
            let sent = sent.map_err(LabError::io(format!("send from {netns} to {target}")));
            // The receiver must come to its end also when nothing could be sent.
            let _ = total.set(sent.as_ref().map_or(0, |sent| sent.count));
            sent
        });
        Ok(Stream { end, sender, receiver })
    }
}

impl Stream {
    /// Ends the stream, waits for what is on its way, and counts.
    ///
    /// # Errors
    /// When it could not be sent or received.
    pub fn stop(self) -> Result<StreamCount, LabError> {
        self.end.raise();
        let sent = self.sender.join().unwrap_or(Err(LabError::Interrupted))?;
        let received = self.receiver.join().unwrap_or(Err(LabError::Interrupted))?;
        Ok(StreamCount {
            sent: sent.count,
            received: received.count,
            duration: sent.duration,
            longest_gap: received.longest_gap,
            longest_pause: sent.longest_pause,
        })
    }
}

/// How often the receiver looks whether there is more to come.
const LOOK: Duration = Duration::from_millis(100);

fn listen(at: SocketAddr) -> io::Result<UdpSocket> {
    /// Room for seconds in which the receiver has to wait for the processor, which are no loss of the network.
    const ROOM: usize = 32 << 20;
    let socket = UdpSocket::bind(at)?;
    setsockopt(&socket, RcvBufForce, &ROOM)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

fn receive(socket: &UdpSocket, total: &OnceLock<u64>) -> io::Result<Received> {
    /// What has not come so long after the last was sent, or came, does not come any more.
    const LATE: Duration = Duration::from_secs(2);
    let mut seen: Vec<bool> = Vec::new();
    let mut received = Received { count: 0, longest_gap: Duration::ZERO };
    let mut number = [0; 8];
    let mut since_last: Option<Stopwatch> = None;
    let mut quiet = Stopwatch::start();
    while total.get().is_none_or(|total| received.count < *total && quiet.elapsed() < LATE) {
        match socket.recv(&mut number) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                if total.get().is_none() {
                    quiet = Stopwatch::start();
                }
                continue;
            }
            Err(error) => return Err(error),
        }
        let gap = since_last.map_or(Duration::ZERO, |last| last.elapsed());
        received.longest_gap = received.longest_gap.max(gap);
        quiet = Stopwatch::start();
        since_last = Some(quiet);
        let index = u64::from_be_bytes(number) as usize;
        seen.resize(seen.len().max(index + 1), false);
        received.count += u64::from(!std::mem::replace(&mut seen[index], true));
    }
    Ok(received)
}

fn send(to: SocketAddr, rate: NonZeroU32, end: &Interrupt) -> io::Result<Sent> {
    /// How many come from one port.
    const FROM_ONE_PORT: u64 = 100;
    /// A sender that had to wait catches up by so many at once, or by what is owed of 20 ms where that is more: any queue on the
    /// way has room for them.
    const BURST: u64 = 100;
    // The longest pause that it makes up for, so that a low rate is kept on a busy machine.
    let burst = (Duration::from_secs(BURST) / rate.get()).max(Duration::from_millis(20));
    let clock = Stopwatch::start();
    let mut sent = Sent { count: 0, duration: Duration::ZERO, longest_pause: Duration::ZERO };
    let mut socket = connect(to)?;
    let mut skipped = Duration::ZERO;
    let mut last = clock.elapsed();
    while end.check().is_ok() {
        thread::sleep(Duration::from_micros(500));
        let now = clock.elapsed();
        let behind = (now - last).saturating_sub(burst);
        sent.longest_pause = sent.longest_pause.max(now - last);
        skipped += behind;
        last = now;
        let due = (now - skipped).as_micros() as u64 * u64::from(rate.get()) / 1_000_000;
        while sent.count < due {
            if sent.count.is_multiple_of(FROM_ONE_PORT) {
                socket = connect(to)?;
            }
            // A datagram that the kernel does not take, since it was told that an earlier one was lost, is lost as well.
            drop(socket.send(&sent.count.to_be_bytes()));
            sent.count += 1;
        }
    }
    sent.duration = clock.elapsed();
    Ok(sent)
}

fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: std::net::IpAddr = match to {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket)
}
