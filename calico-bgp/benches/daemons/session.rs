//! One session of the generator: brings it up, sends octets that were made before, and counts what comes.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use super::daemon::{ADDRESS, ASN, Neighbour};

const HEADER: usize = 19;
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;

/// Puts a header before a body.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend_from_slice(&((HEADER + body.len()) as u16).to_be_bytes());
    message.push(kind);
    message.extend_from_slice(body);
    message
}

/// An UPDATE of withdrawn prefixes, attributes and announced prefixes.
pub(crate) fn update(withdrawn: &[u8], attributes: &[u8], announced: &[u8]) -> Vec<u8> {
    let mut body = (withdrawn.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(withdrawn);
    body.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    body.extend_from_slice(attributes);
    body.extend_from_slice(announced);
    message(UPDATE, &body)
}

fn open(neighbour: Neighbour) -> Vec<u8> {
    let mut body = vec![4];
    body.extend_from_slice(&(neighbour.asn as u16).to_be_bytes());
    body.extend_from_slice(&180_u16.to_be_bytes());
    body.extend_from_slice(&neighbour.address.octets());
    // IPv4 unicast, route refresh, four-octet AS numbers.
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 2, 0, 65, 4];
    capabilities.extend_from_slice(&neighbour.asn.to_be_bytes());
    body.extend_from_slice(&[capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
    body.extend_from_slice(&capabilities);
    message(OPEN, &body)
}

/// What one read brought.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) octets: usize,
    pub(crate) announced: Vec<(Ipv4Addr, u8)>,
    pub(crate) withdrawn: Vec<(Ipv4Addr, u8)>,
}

/// The receiving half of a session.
pub(crate) struct Receiver {
    from: OwnedReadHalf,
    held: Vec<u8>,
}

/// The sending half of a session.
pub(crate) struct Sender {
    to: OwnedWriteHalf,
}

impl Sender {
    pub(crate) async fn send(&mut self, octets: &[u8]) -> Result<()> {
        self.to.write_all(octets).await.context("the daemon takes no more")
    }

    pub(crate) async fn keepalive(&mut self) -> Result<()> {
        self.send(&message(KEEPALIVE, &[])).await
    }
}

/// Connects from the neighbour's address until the session is established; tries again while the daemon starts.
pub(crate) async fn establish(neighbour: Neighbour) -> Result<(Sender, Receiver)> {
    let mut last = None;
    for _ in 0..1_200 {
        match try_establish(neighbour).await {
            Ok(session) => return Ok(session),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(last.context("never tried")?)
}

async fn try_establish(neighbour: Neighbour) -> Result<(Sender, Receiver)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(neighbour.address.into(), 0))?;
    let stream: TcpStream = socket.connect(SocketAddr::new(ADDRESS.into(), 179)).await?;
    stream.set_nodelay(true)?;
    let (from, to) = stream.into_split();
    let (mut sender, mut receiver) = (Sender { to }, Receiver { from, held: Vec::new() });
    sender.send(&open(neighbour)).await?;
    receiver.expect(OPEN).await?;
    sender.keepalive().await?;
    receiver.expect(KEEPALIVE).await?;
    Ok((sender, receiver))
}

impl Receiver {
    async fn expect(&mut self, kind: u8) -> Result<()> {
        loop {
            if let Some((found, body)) = frame(&self.held) {
                let len = HEADER + body.len();
                if found != kind {
                    bail!("message type {found} instead of {kind}: {:?}", &self.held[HEADER..len]);
                }
                self.held.drain(..len);
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Waits for more and returns how many octets it is.
    async fn fill(&mut self) -> Result<usize> {
        self.held.reserve(1 << 18);
        match self.from.read_buf(&mut self.held).await? {
            0 => bail!("the daemon closed the connection"),
            count => Ok(count),
        }
    }

    /// Waits for more and reads all whole messages.
    pub(crate) async fn hear(&mut self) -> Result<Heard> {
        let mut heard = Heard { octets: self.fill().await?, ..Heard::default() };
        let mut used = 0;
        while let Some((kind, body)) = frame(&self.held[used..]) {
            used += HEADER + body.len();
            match kind {
                UPDATE => read_update(body, &mut heard).context("an UPDATE that does not fit itself")?,
                NOTIFICATION => bail!("NOTIFICATION {:?}", &body[..2]),
                _ => {}
            }
        }
        self.held.drain(..used);
        Ok(heard)
    }
}

fn frame(octets: &[u8]) -> Option<(u8, &[u8])> {
    let header = octets.get(..HEADER)?;
    let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
    Some((header[18], octets.get(HEADER..len)?))
}

fn read_update(body: &[u8], heard: &mut Heard) -> Option<()> {
    let (len, rest) = body.split_first_chunk::<2>()?;
    let (withdrawn, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (_attributes, announced) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    read_prefixes(withdrawn, &mut heard.withdrawn)?;
    read_prefixes(announced, &mut heard.announced)
}

fn read_prefixes(mut octets: &[u8], into: &mut Vec<(Ipv4Addr, u8)>) -> Option<()> {
    while let [len, rest @ ..] = octets {
        let (prefix, rest) = rest.split_at_checked(usize::from(*len).div_ceil(8))?;
        let mut address = [0; 4];
        address.get_mut(..prefix.len())?.copy_from_slice(prefix);
        into.push((address.into(), *len));
        octets = rest;
    }
    Some(())
}

/// The neighbour's number in the AS: inside ours, or outside.
pub(crate) fn is_inside(neighbour: Neighbour) -> bool {
    neighbour.asn == ASN
}
