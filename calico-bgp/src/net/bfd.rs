//! Watching peers by BFD: one task that owns a [`Watcher`] and its sockets, apart from the speaker's, so that a large table
//! never holds up a packet. Its `select!` has only cancel-safe branches: a channel, two sockets' readiness and a sleep.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::time::{Duration, Instant};

use calico_model::Family;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::connection::Report;
use super::{clock, socket};
use crate::bfd::{self, BfdConfig, Output, Watcher};
use crate::family::PerFamily;

/// What the speaker wants of the watcher.
#[derive(Debug)]
pub(super) enum Wish {
    Watch { peer: IpAddr, local: IpAddr, config: BfdConfig },
    Unwatch(IpAddr),
}

/// The running task. Dropping it ends the watching without a word.
#[derive(Debug)]
pub(super) struct Bfd {
    wishes: mpsc::UnboundedSender<Wish>,
    task: AbortHandle,
}

impl Bfd {
    pub(super) fn start(reports: mpsc::Sender<Report>) -> Self {
        // One wish for each session that comes, changes or goes: sessions bound them.
        let (wishes, inbox) = mpsc::unbounded_channel();
        let watching = Watching {
            watcher: Watcher::new(seed()),
            unwatched: BTreeMap::new(),
            retry_at: None,
            listening: PerFamily::default(),
            senders: BTreeMap::new(),
            reports,
        };
        Self { wishes, task: tokio::spawn(watching.run(inbox)).abort_handle() }
    }

    pub(super) fn wish(&self, wish: Wish) {
        // The task ends only with the runtime, and then nobody waits for an answer.
        let _gone = self.wishes.send(wish);
    }
}

impl Drop for Bfd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Names of sessions should not be those of an earlier run.
fn seed() -> u32 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    (since.as_millis() as u32).max(1)
}

/// How long it takes until a watch that could not begin is tried again.
const RETRY: Duration = Duration::from_secs(10);

struct Watching {
    watcher: Watcher,
    /// The peers that cannot be watched yet, from where and how closely, and when it is tried again.
    unwatched: BTreeMap<IpAddr, (IpAddr, BfdConfig)>,
    retry_at: Option<Instant>,
    listening: PerFamily<Option<UdpSocket>>,
    senders: BTreeMap<IpAddr, (IpAddr, StdSocket)>,
    reports: mpsc::Sender<Report>,
}

impl Watching {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Wish>) {
        loop {
            let due = self.watcher.deadline().into_iter().chain(self.retry_at).min();
            let alarm = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                wish = inbox.recv() => match wish {
                    Some(wish) => self.take(wish).await,
                    None => return,
                },
                () = readable(self.listening.v4.as_ref()) => self.receive(Family::V4),
                () = readable(self.listening.v6.as_ref()) => self.receive(Family::V6),
                () = alarm => {
                    self.watcher.timeout(clock());
                    self.try_again().await;
                }
            }
            self.act().await;
        }
    }

    async fn take(&mut self, wish: Wish) {
        match wish {
            Wish::Watch { peer, local, config } => {
                let is_known = self.unwatched.remove(&peer).is_some();
                match self.prepare(peer, local) {
                    Ok(()) => self.watcher.watch(peer, local, config, clock()),
                    Err(error) => {
                        self.unwatched.insert(peer, (local, config));
                        self.retry_at.get_or_insert(clock() + RETRY);
                        if !is_known {
                            let why = format!("cannot be watched by BFD: {error}");
                            let _ended = self.reports.send(Report::Unwatched { peer, why }).await;
                        }
                    }
                }
            }
            Wish::Unwatch(peer) => {
                self.unwatched.remove(&peer);
                self.watcher.unwatch(peer, clock());
            }
        }
    }

    /// Watches those that could not be watched, if it is time: whoever has the port may have left it.
    async fn try_again(&mut self) {
        if self.retry_at.is_none_or(|at| at > clock()) {
            return;
        }
        self.retry_at = None;
        for (peer, (local, config)) in self.unwatched.clone() {
            self.take(Wish::Watch { peer, local, config }).await;
        }
    }

    /// Makes the sockets that are needed for a peer.
    fn prepare(&mut self, peer: IpAddr, local: IpAddr) -> io::Result<()> {
        let family = Family::of(peer);
        if self.listening[family].is_none() {
            let any: IpAddr = match family {
                Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
                Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
            };
            let address = SocketAddr::new(any, bfd::PORT);
            let explain = |error: io::Error| {
                io::Error::new(error.kind(), format!("UDP port {} cannot be had: {error}", bfd::PORT))
            };
            let socket = socket::watch_listener(address).map_err(explain)?;
            self.listening[family] = Some(UdpSocket::from_std(socket.into())?);
        }
        if self.senders.get(&peer).is_none_or(|(held, _)| *held != local) {
            self.senders.insert(peer, (local, socket::watch_sender(local)?.into()));
        }
        Ok(())
    }

    fn receive(&mut self, family: Family) {
        // A few at a time, so that a flood does not hold up what is to be sent.
        for _ in 0..64 {
            let Some(socket) = &self.listening[family] else { return };
            let mut octets = [0; 64];
            let heard = socket.try_io(Interest::READABLE, || socket::receive_with_ttl(socket, &mut octets));
            match heard {
                Ok((len, Some(from), Some(ttl))) => {
                    self.watcher.receive(from, ttl, &octets[..len], clock());
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    async fn act(&mut self) {
        while let Some(output) = self.watcher.poll() {
            match output {
                Output::Send { peer, packet, .. } => {
                    if let Some((_, socket)) = self.senders.get(&peer) {
                        // What cannot be sent is lost, which is what BFD is there to notice.
                        let _lost = socket.send_to(&packet, SocketAddr::new(peer, bfd::PORT));
                    }
                }
                Output::Changed(peer, change) => {
                    let _ended = self.reports.send(Report::Path { peer, change }).await;
                }
                Output::Ended(peer) => drop(self.senders.remove(&peer)),
            }
        }
    }
}

async fn readable(socket: Option<&UdpSocket>) {
    match socket {
        Some(socket) => {
            let _ready = socket.readable().await;
        }
        None => std::future::pending().await,
    }
}
