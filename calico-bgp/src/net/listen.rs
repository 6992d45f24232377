//! Listening: sockets that take connections, and why one could not be had.

use std::io;
use std::net::SocketAddr;

use socket2::Socket;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::connection::Report;
use super::socket;

/// Why a speaker cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another program has the port.
    #[error(
        "port {} on {} is taken by another program: stop it or set listenPort",
        .address.port(), .address.ip()
    )]
    Taken {
        /// Where we wanted to listen.
        address: SocketAddr,
    },
    /// The program may not use ports below 1024.
    #[error(
        "listening on port {} of {} is not permitted: run as root, grant CAP_NET_BIND_SERVICE or set listenPort",
        .address.port(), .address.ip()
    )]
    NotPermitted {
        /// Where we wanted to listen.
        address: SocketAddr,
    },
    /// No interface has the address.
    #[error("cannot listen on {}: no interface has this address", .address.ip())]
    NoAddress {
        /// Where we wanted to listen.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}")]
    Failed {
        /// Where we wanted to listen.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Neither where it was wanted, nor any longer where it was before.
    #[error("{wanted}; and no longer where it was before: {before}")]
    Neither {
        /// Why not where it was wanted.
        wanted: Box<ListenError>,
        /// Why no longer where it was before.
        before: Box<ListenError>,
    },
}

impl ListenError {
    /// Adds why it does not go on where it was before either.
    pub(super) fn and(self, before: Self) -> Self {
        Self::Neither { wanted: Box::new(self), before: Box::new(before) }
    }
}

/// A listening socket. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) address: SocketAddr,
    /// The same socket once more, to set peers' keys on.
    pub(super) socket: Socket,
    task: tokio::task::AbortHandle,
}

impl Listening {
    pub(super) fn start(address: SocketAddr, reports: &mpsc::Sender<Report>) -> Result<Self, ListenError> {
        let explain = |source: io::Error| {
            let kind = source.kind();
            if kind == io::ErrorKind::AddrInUse {
                ListenError::Taken { address }
            } else if kind == io::ErrorKind::PermissionDenied {
                ListenError::NotPermitted { address }
            } else if kind == io::ErrorKind::AddrNotAvailable {
                ListenError::NoAddress { address }
            } else {
                ListenError::Failed { address, source }
            }
        };
        let socket = socket::listener(address).map_err(explain)?;
        let copy = socket.try_clone().map_err(explain)?;
        let listener = TcpListener::from_std(copy.into()).map_err(explain)?;
        let task = tokio::spawn(accept(listener, reports.clone())).abort_handle();
        Ok(Self { address, socket, task })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        // The task lets go of its descriptor later; the address must be free at once.
        let _closed_already = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

async fn accept(listener: TcpListener, reports: mpsc::Sender<Report>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if reports.send(Report::Incoming { stream, remote }).await.is_err() {
                    return;
                }
            }
            // Out of descriptors, or a connection that ended before it was taken: neither may end the listening.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}
