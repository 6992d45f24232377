//! The TCP connections. All of them are served by the task that owns the speaker, through one buffer each way: a
//! session costs what its routes cost, and nothing for a task, a channel or a buffer of its own.
//!
//! A socket that can be read or written again rings its [`Bell`], which puts the connection on the list of those to
//! serve. Each is served one portion in turn, so that a peer that floods us waits for the others.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};

use super::socket;
use crate::bfd::Change;
use crate::session::ConnectionId;
use crate::speaker::PeerConfig;

/// How long a peer may take at least to answer a dial.
const DIAL_PATIENCE: Duration = Duration::from_secs(1);

/// What tasks tell the owner of the speaker.
#[derive(Debug)]
pub(super) enum Report {
    /// Somebody connected.
    Incoming { stream: TcpStream, remote: SocketAddr },
    /// A dialed connection is there.
    Dialed { connection: ConnectionId, stream: TcpStream, remote: SocketAddr },
    /// It is not, with the cause in words.
    Undialed { connection: ConnectionId, why: String },
    /// BFD noticed something.
    Path { peer: IpAddr, change: Change },
    /// BFD cannot watch a peer, with the cause in words.
    Unwatched { peer: IpAddr, why: String },
}

/// How many connections are served before timers and other tasks have their turn: with a portion each, that is about a
/// millisecond.
const TURN: usize = 32;

/// The connections that wait to be served.
#[derive(Debug, Default)]
pub(super) struct Ready {
    waiting: Mutex<VecDeque<Arc<Bell>>>,
    some: Notify,
}

impl Ready {
    /// Waits until there may be one.
    pub(super) async fn some(&self) {
        self.some.notified().await;
    }

    /// Hands out those that have waited longest, as many as are served in one turn.
    pub(super) fn take(&self) -> Vec<ConnectionId> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(TURN);
        let bells: Vec<Arc<Bell>> = waiting.drain(..count).collect();
        if !waiting.is_empty() {
            self.some.notify_one();
        }
        drop(waiting);
        bells.iter().for_each(|bell| bell.rung.store(false, Ordering::Release));
        bells.iter().map(|bell| bell.connection).collect()
    }
}

/// Puts its connection on the list, once until it is served.
#[derive(Debug)]
struct Bell {
    connection: ConnectionId,
    rung: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let ready = self.ready.clone();
        let mut waiting = ready.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            ready.some.notify_one();
        }
        waiting.push_back(self);
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    waker: Waker,
    sending: bool,
}

impl Connection {
    pub(super) fn start(connection: ConnectionId, stream: TcpStream, ready: &Arc<Ready>) -> Self {
        let _works_without = stream.set_nodelay(true);
        let bell = Bell { connection, rung: AtomicBool::new(false), ready: ready.clone() };
        let waker = Waker::from(Arc::new(bell));
        waker.wake_by_ref();
        Self { stream, waker, sending: false }
    }

    /// Puts the connection on the list of those to serve.
    pub(super) fn serve_again(&self) {
        self.waker.wake_by_ref();
    }

    /// Puts the connection on the list because more waits to be sent.
    pub(super) fn send_later(&mut self) {
        self.sending = true;
        self.serve_again();
    }

    /// Reports whether more may wait to be sent.
    pub(super) fn is_sending(&self) -> bool {
        self.sending
    }

    /// Reads what is there into a buffer; nothing read means that it rings when something comes.
    pub(super) fn receive<'b>(&mut self, octets: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let mut buffer = ReadBuf::new(octets);
        let mut context = Context::from_waker(&self.waker);
        let count = match Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer) {
            Poll::Pending => 0,
            Poll::Ready(outcome) => match outcome.map(|()| buffer.filled().len())? {
                0 => return Err(io::Error::other("the peer closed the connection")),
                count => count,
            },
        };
        Ok(&octets[..count])
    }

    /// Reads what is there into a buffer, also when it has not rung yet: what came in front of a reset, or while nobody looked.
    pub(super) fn receive_now<'b>(&mut self, octets: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let socket = SockRef::from(&self.stream);
        match (&*socket).read(octets) {
            Ok(count) => Ok(&octets[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(&[]),
            Err(error) => Err(error),
        }
    }

    /// Reports whether the socket takes octets; if not, it rings when it does.
    pub(super) fn is_writable(&mut self) -> io::Result<bool> {
        match self.stream.poll_write_ready(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(outcome) => outcome.map(|()| true),
            Poll::Pending => {
                self.sending = true;
                Ok(false)
            }
        }
    }

    /// Writes as much as the socket takes, which may be nothing; returns how much.
    pub(super) fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self.stream.try_write(octets) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            outcome => outcome,
        }
    }

    /// Notes that nothing waits to be sent.
    pub(super) fn has_sent_all(&mut self) {
        self.sending = false;
    }
}

/// Dials a peer and reports how it went. A dial that is not answered is given up when it is time for another one (RFC 4271
/// section 8.2.2, the ConnectRetryTimer in Connect): of a network that drops much, each of them is a new chance.
pub(super) async fn dial(connection: ConnectionId, peer: Box<PeerConfig>, reports: mpsc::Sender<Report>) {
    let remote = SocketAddr::new(peer.address, peer.port);
    let attempt = async {
        let socket = TcpSocket::from_std_stream(socket::dialer(&peer)?.into());
        socket.connect(remote).await
    };
    let patience = peer.connect_retry.max(DIAL_PATIENCE);
    let report = match tokio::time::timeout(patience, attempt).await {
        Ok(Ok(stream)) => Report::Dialed { connection, stream, remote },
        Ok(Err(error)) => {
            let why = format!("cannot connect to {remote}: {}", socket::words(&error));
            Report::Undialed { connection, why }
        }
        Err(_) => Report::Undialed {
            connection,
            why: format!("cannot connect to {remote}: no answer for {} s", patience.as_secs()),
        },
    };
    let _ended = reports.send(report).await;
}
