//! One netlink socket: requests in batches, and lists.
//!
//! Of a batch only the last message asks for an answer; the kernel answers a message that fails in any case. So a batch
//! costs one answer, and every error still finds its message, by the sequence number. Batches are not overlapped: the answer
//! of one is read before the next is sent. The kernel does the work while it is being sent, so that the answer is there at
//! once, and refusals of one batch at most have to fit into the receive buffer.

use std::io;

use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use tokio::io::unix::AsyncFd;

use super::codec::{
    Batch, Message, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE,
    NLMSG_ERROR, NLMSGERR_ATTR_MSG, attributes, messages, u32_at,
};
use super::namespace::NetworkNamespace;
use crate::error::{ConnectError, Refusal};

/// Room in bytes for what the kernel sends while nobody reads.
pub(super) const RECEIVE_BUFFER: usize = 16 << 20;
/// The kernel sends lists in pieces of at most this size.
const DATAGRAM: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct NetlinkSocket {
    fd: AsyncFd<Socket>,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Why a list could not be had.
#[derive(Debug)]
pub(super) enum DumpError {
    Socket(io::Error),
    Refused(Refusal),
    Interrupted,
}

impl From<io::Error> for DumpError {
    fn from(error: io::Error) -> Self {
        DumpError::Socket(error)
    }
}

impl NetlinkSocket {
    /// Opens a socket in a namespace, subscribed to groups, with room in bytes for what nobody has read yet. Must be
    /// called within a tokio runtime.
    pub(super) fn open(
        protocol: isize,
        namespace: &NetworkNamespace,
        groups: &[u32],
        room: usize,
    ) -> Result<Self, ConnectError> {
        let opened = namespace.run(|| open(protocol, groups, room)).map_err(ConnectError::Namespace)?;
        let (socket, port) = opened.map_err(ConnectError::Socket)?;
        let fd = register(socket).map_err(ConnectError::Socket)?;
        Ok(Self { fd, port, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Returns the number by which the kernel names this socket as the cause of a change.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Subscribes to one more group.
    pub(super) fn join(&mut self, group: u32) -> io::Result<()> {
        self.fd.get_mut().add_membership(group)
    }

    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends a batch and returns the refusals, by sequence number; what is not among them was done.
    ///
    /// Cancel-safe in that nothing is lost but the answers: the next call skips those it did not ask for.
    pub(super) async fn transact(&mut self, batch: &mut Batch) -> io::Result<Vec<(u32, Refusal)>> {
        let Some((first, last)) = batch.sequences() else { return Ok(Vec::new()) };
        batch.ask_for_answer();
        self.send(batch.bytes()).await?;
        let mut refusals = Vec::new();
        loop {
            let bytes = self.receive().await?;
            for message in messages(bytes).filter(|message| message.kind == NLMSG_ERROR) {
                if message.sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                    continue;
                }
                if let Some(refusal) = refusal(&message) {
                    refusals.push((message.sequence, refusal));
                }
                if message.sequence == last {
                    return Ok(refusals);
                }
            }
        }
    }

    /// Asks for one thing and hands what is answered to `each`.
    pub(super) async fn get(
        &mut self,
        kind: u16,
        header: &[u8],
        filter: impl FnOnce(&mut Batch),
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<(), DumpError> {
        let sequence = self.ask(kind, NLM_F_ACK, header, filter).await?;
        loop {
            let bytes = self.receive().await?;
            for message in messages(bytes).filter(|message| message.sequence == sequence) {
                if message.kind == NLMSG_ERROR {
                    return refusal(&message).map_or(Ok(()), |refused| Err(DumpError::Refused(refused)));
                }
                each(&message);
            }
        }
    }

    /// Asks for a list and hands each of its messages to `each`.
    pub(super) async fn dump(
        &mut self,
        kind: u16,
        header: &[u8],
        filter: impl FnOnce(&mut Batch),
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<(), DumpError> {
        let sequence = self.ask(kind, NLM_F_DUMP, header, filter).await?;
        let mut interrupted = false;
        loop {
            let bytes = self.receive().await?;
            for message in messages(bytes).filter(|message| message.sequence == sequence) {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE if interrupted => return Err(DumpError::Interrupted),
                    NLMSG_DONE => {
                        return refusal(&message).map_or(Ok(()), |refused| Err(DumpError::Refused(refused)));
                    }
                    NLMSG_ERROR => {
                        return refusal(&message).map_or(Ok(()), |refused| Err(DumpError::Refused(refused)));
                    }
                    _ => each(&message),
                }
            }
        }
    }

    /// Sends one request, and returns its sequence number.
    async fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8],
        filter: impl FnOnce(&mut Batch),
    ) -> io::Result<u32> {
        let sequence = self.next_sequence();
        let mut batch = Batch::default();
        let open = batch.begin(kind, flags, sequence, header);
        filter(&mut batch);
        batch.end(open);
        self.send(batch.bytes()).await?;
        Ok(sequence)
    }

    /// Receives one datagram. Cancel-safe.
    pub(super) async fn receive(&mut self) -> io::Result<&[u8]> {
        let buffer = &mut self.buffer;
        let len = loop {
            let mut ready = self.fd.readable().await?;
            let received = ready.try_io(|fd| fd.get_ref().recv(&mut &mut buffer[..], 0));
            if let Ok(received) = received {
                break received?;
            }
        };
        Ok(&self.buffer[..len.min(DATAGRAM)])
    }

    /// Receives what is there already, without waiting.
    pub(super) fn receive_now(&mut self) -> Option<io::Result<&[u8]>> {
        match self.fd.get_ref().recv(&mut &mut self.buffer[..], 0) {
            Ok(len) => Some(Ok(&self.buffer[..len.min(DATAGRAM)])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(error)),
        }
    }

    async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = SocketAddr::new(0, 0);
        loop {
            let mut ready = self.fd.writable().await?;
            if let Ok(sent) = ready.try_io(|fd| fd.get_ref().send_to(bytes, &kernel, 0)) {
                return sent.map(|_| ());
            }
        }
    }
}

fn open(protocol: isize, groups: &[u32], room: usize) -> io::Result<(Socket, u32)> {
    let mut socket = Socket::new(protocol)?;
    let port = socket.bind_auto()?.port_number();
    socket.set_non_blocking(true)?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    socket.set_netlink_get_strict_chk(true)?;
    // Beyond the system's limit only with CAP_NET_ADMIN; without it, as much as the limit allows.
    if setsockopt(&socket, RcvBufForce, &room).is_err() {
        socket.set_rx_buf_sz(i32::try_from(room).unwrap_or(i32::MAX))?;
    }
    groups.iter().try_for_each(|group| socket.add_membership(*group))?;
    Ok((socket, port))
}

#[expect(unsafe_code, reason = "tokio has no other way to wait for a socket that is not its own")]
fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the descriptor that `as_raw_fd` returns is the one the `Socket` owns; it never changes and is closed only
    // when the `Socket` is dropped, which the `AsyncFd` does after it has let go of it.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}

/// Reads the answer to a request: nothing for success, the kernel's error and explanation otherwise.
fn refusal(message: &Message<'_>) -> Option<Refusal> {
    let code = i32::from_ne_bytes(message.body.get(..4)?.try_into().ok()?);
    if code == 0 || message.kind == NLMSG_DONE && code > 0 {
        return None;
    }
    let repeated = match (message.kind, message.flags & NLM_F_CAPPED != 0) {
        (NLMSG_DONE, _) => 0,
        (_, true) => 16,
        (_, false) => usize::try_from(u32_at(message.body, 4)?).ok()?.next_multiple_of(4),
    };
    let extra = (message.flags & NLM_F_ACK_TLVS != 0).then(|| message.body.get(4 + repeated..)).flatten();
    let text = extra
        .and_then(|extra| attributes(extra).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG))
        .and_then(|(_, value)| super::codec::text(value).map(str::to_owned));
    Some(Refusal::new(-code, text))
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;
    use nix::sys::socket::{getsockopt, sockopt::RcvBuf};

    use super::*;

    #[test]
    fn there_is_room_for_16_mib_whatever_the_systems_limit() {
        let (socket, _) = open(NETLINK_ROUTE, &[], RECEIVE_BUFFER).unwrap();
        // The kernel tells twice what it was asked for: its own share included.
        assert_eq!(getsockopt(&socket, RcvBuf).unwrap(), 2 * 16 * 1024 * 1024);
    }
}
