//! One TCP connection: a task that reads and a task that writes, each with its end of a bounded channel. Dropping the
//! [`Connection`] ends both; what was handed to the writer still goes out.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::socket;
use crate::bfd::Change;
use crate::session::ConnectionId;
use crate::speaker::PeerConfig;

/// How long a peer may take to answer a dial.
const DIAL_PATIENCE: Duration = Duration::from_secs(15);
/// How long a peer may take to hear why its connection ends.
const GOODBYE: Duration = Duration::from_secs(5);
/// How many octets are read at once.
const PORTION: usize = 64 * 1024;

/// What the tasks tell the owner of the speaker.
#[derive(Debug)]
pub(super) enum Report {
    /// Somebody connected.
    Incoming { stream: TcpStream, remote: SocketAddr },
    /// A dialed connection is there.
    Dialed { connection: ConnectionId, stream: TcpStream, remote: IpAddr },
    /// It is not, with the cause in words.
    Undialed { connection: ConnectionId, why: String },
    /// BFD noticed something.
    Path { peer: IpAddr, change: Change },
    /// BFD cannot watch a peer, with the cause in words.
    Unwatched { peer: IpAddr, why: String },
    /// Octets came in.
    Received { connection: ConnectionId, octets: Vec<u8> },
    /// The writer has handed everything to the kernel; here is its buffer back.
    Written { connection: ConnectionId, buffer: Vec<u8> },
    /// The connection ended, with the cause in words.
    Closed { connection: ConnectionId, why: String },
}

#[derive(Debug)]
pub(super) struct Connection {
    writer: mpsc::Sender<Vec<u8>>,
    reader: AbortHandle,
    /// The buffer, while the writer does not have it.
    buffer: Option<Vec<u8>>,
}

impl Connection {
    pub(super) fn start(id: ConnectionId, stream: TcpStream, reports: &mpsc::Sender<Report>) -> Self {
        let (from, to) = stream.into_split();
        // One buffer goes round between the owner and the writer, so one place is enough.
        let (writer, buffers) = mpsc::channel(1);
        let reader = tokio::spawn(read(id, from, reports.clone())).abort_handle();
        tokio::spawn(write(id, to, buffers, reports.clone()));
        Self { writer, reader, buffer: Some(Vec::new()) }
    }

    /// Takes the buffer to fill it, unless the writer has it.
    pub(super) fn take_buffer(&mut self) -> Option<Vec<u8>> {
        self.buffer.take()
    }

    pub(super) fn give_back(&mut self, buffer: Vec<u8>) {
        self.buffer = Some(buffer);
    }

    /// Hands a filled buffer to the writer.
    pub(super) fn send(&mut self, buffer: Vec<u8>) {
        // The place is free because the one buffer was here; a writer that is gone has reported the end already.
        let _gone = self.writer.try_send(buffer);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(connection: ConnectionId, mut from: OwnedReadHalf, reports: mpsc::Sender<Report>) {
    loop {
        let mut octets = Vec::with_capacity(PORTION);
        let why = match from.read_buf(&mut octets).await {
            Ok(0) => "the peer closed the connection".to_owned(),
            Err(error) => error.to_string(),
            Ok(_) => {
                octets.shrink_to_fit();
                if reports.send(Report::Received { connection, octets }).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let _ended = reports.send(Report::Closed { connection, why }).await;
        return;
    }
}

async fn write(
    connection: ConnectionId,
    mut to: OwnedWriteHalf,
    mut buffers: mpsc::Receiver<Vec<u8>>,
    reports: mpsc::Sender<Report>,
) {
    while let Some(mut buffer) = buffers.recv().await {
        let written = {
            let mut writing = pin!(to.write_all(&buffer));
            tokio::select! {
                written = &mut writing => written,
                // Nothing follows while the only buffer is here, so this is the owner's end: what it said last still gets
                // a moment, and a peer that takes nothing does not hold the socket.
                _ = buffers.recv() => {
                    let _cut_short = tokio::time::timeout(GOODBYE, writing).await;
                    return;
                }
            }
        };
        let report = match written {
            Ok(()) => {
                buffer.clear();
                Report::Written { connection, buffer }
            }
            Err(error) => Report::Closed { connection, why: error.to_string() },
        };
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

/// Dials a peer and reports how it went.
pub(super) async fn dial(connection: ConnectionId, peer: Box<PeerConfig>, reports: mpsc::Sender<Report>) {
    let remote = SocketAddr::new(peer.address, peer.port);
    let attempt = async {
        let socket = TcpSocket::from_std_stream(socket::dialer(&peer)?.into());
        socket.connect(remote).await
    };
    let report = match tokio::time::timeout(DIAL_PATIENCE, attempt).await {
        Ok(Ok(stream)) => Report::Dialed { connection, stream, remote: peer.address },
        Ok(Err(error)) => {
            Report::Undialed { connection, why: format!("cannot connect to {remote}: {error}") }
        }
        Err(_) => Report::Undialed {
            connection,
            why: format!("cannot connect to {remote}: no answer for {} s", DIAL_PATIENCE.as_secs()),
        },
    };
    let _ended = reports.send(report).await;
}
