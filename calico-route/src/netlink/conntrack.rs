//! Tracked connections: listed, marked, and forgotten, each in one sweep of the table for all that are concerned.

use std::collections::BTreeSet;
use std::net::IpAddr;

use calico_model::{Family, Protocol};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::codec::{Batch, Message, address, af, attributes};
use super::namespace::NetworkNamespace;
use super::socket::{DumpError, NetlinkSocket, RECEIVE_BUFFER};
use crate::error::{ConnectError, ReadError, Refusal};

const CTNETLINK: u16 = 1 << 8;
const NEW: u16 = CTNETLINK;
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_TUPLE_MASTER: u16 = 14;
const CTA_ZONE: u16 = 18;
const CTA_MARK_MASK: u16 = 21;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;
const NLA_F_NESTED: u16 = 0x8000;
/// Requests per send.
const BATCH: usize = 256;
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

/// A connection that the kernel tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// Its packets in the direction of the first one, as that was when it came in.
    pub original: Tuple,
    /// Its packets in the other direction, as they come in: what is translated shows here.
    pub reply: Tuple,
    /// The mark, whose bits belong to whoever sets them.
    pub mark: u32,
    /// The zone; packets are of zone 0 unless a rule says otherwise.
    pub zone: u16,
    /// Whether it was expected by another connection (FTP's data by its commands) and let through for that one's sake.
    pub expected: bool,
    key: Key,
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The IP protocol.
    pub protocol: Protocol,
    /// The source and destination port, where the protocol has ports.
    pub ports: Option<(u16, u16)>,
    /// The type and code, for ICMP and ICMPv6.
    pub icmp: Option<(u8, u8)>,
}

/// Connections could not be changed or forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConntrackError {
    /// There was no socket for it.
    #[error("cannot talk to connection tracking")]
    Connect(#[from] ConnectError),
    /// The connections could not be listed.
    #[error("cannot list tracked connections")]
    Read(#[from] ReadError),
    /// The socket failed while connections were being changed.
    #[error("cannot change tracked connections")]
    Write(#[source] std::io::Error),
    /// The kernel would not change a connection.
    #[error("the kernel refuses to change a tracked connection: {0}")]
    Refused(Refusal),
}

/// Lists the connections that are wanted.
pub(super) async fn list(
    namespace: &NetworkNamespace,
    mut wanted: impl FnMut(&Connection) -> bool,
) -> Result<Vec<Connection>, ConntrackError> {
    let mut socket = open(namespace)?;
    let mut found = Vec::new();
    for family in Family::ALL {
        found.extend(list_family(&mut socket, family, &mut wanted).await?);
    }
    Ok(found)
}

/// Deletes every connection that one of the addresses has a part in, in either direction; returns how many.
pub(super) async fn forget(
    namespace: &NetworkNamespace,
    addresses: &BTreeSet<IpAddr>,
) -> Result<usize, ConntrackError> {
    let mut socket = open(namespace)?;
    let mut tally = Tally::default();
    for family in Family::ALL {
        if addresses.iter().any(|addr| Family::of(*addr) == family) {
            let has_part =
                |tuple: &Tuple| addresses.contains(&tuple.source) || addresses.contains(&tuple.destination);
            let mut wanted = |found: &Connection| has_part(&found.original) || has_part(&found.reply);
            let found = list_family(&mut socket, family, &mut wanted).await?;
            change(&mut socket, DELETE, &found, |_| {}, &mut tally).await?;
        }
    }
    tally.result()
}

/// Sets or clears bits of connections' marks; returns of how many.
pub(super) async fn mark(
    namespace: &NetworkNamespace,
    connections: &[Connection],
    mask: u32,
    bits: u32,
) -> Result<usize, ConntrackError> {
    let mut socket = open(namespace)?;
    let add = |batch: &mut Batch| {
        batch.attribute(CTA_MARK, &bits.to_be_bytes());
        batch.attribute(CTA_MARK_MASK, &mask.to_be_bytes());
    };
    let mut tally = Tally::default();
    change(&mut socket, NEW, connections, add, &mut tally).await?;
    tally.result()
}

fn open(namespace: &NetworkNamespace) -> Result<NetlinkSocket, ConnectError> {
    NetlinkSocket::open(NETLINK_NETFILTER, namespace, &[], RECEIVE_BUFFER)
}

/// What names a connection: attributes as the kernel gave them.
type Key = Vec<(u16, Vec<u8>)>;

async fn list_family(
    socket: &mut NetlinkSocket,
    family: Family,
    wanted: &mut impl FnMut(&Connection) -> bool,
) -> Result<Vec<Connection>, ReadError> {
    let what = "tracked connections";
    let mut found = Vec::new();
    let each = |message: &Message<'_>| {
        if message.kind == NEW {
            found.extend(connection(message.body).filter(|connection| wanted(connection)));
        }
    };
    match socket.dump(GET, &header(family), |_| {}, each).await {
        // One that came or went meanwhile is seen by whoever looks next.
        Ok(()) | Err(DumpError::Interrupted) => Ok(found),
        // A kernel that does not track connections has none.
        Err(DumpError::Refused(refusal)) if [EINVAL, EOPNOTSUPP].contains(&refusal.errno()) => Ok(Vec::new()),
        Err(DumpError::Refused(refusal)) => Err(ReadError::Refused { what, refusal }),
        Err(DumpError::Socket(source)) => Err(ReadError::Socket { what, source }),
    }
}

/// Sends a request about each connection, whatever becomes of the others.
async fn change(
    socket: &mut NetlinkSocket,
    kind: u16,
    connections: &[Connection],
    add: impl Fn(&mut Batch),
    tally: &mut Tally,
) -> Result<(), ConntrackError> {
    for some in connections.chunks(BATCH) {
        let mut batch = Batch::default();
        for connection in some {
            let family = Family::of(connection.original.source);
            let open = batch.begin(kind, 0, socket.next_sequence(), &header(family));
            connection.key.iter().for_each(|(kind, value)| batch.attribute(*kind, value));
            add(&mut batch);
            batch.end(open);
        }
        let refusals = socket.transact(&mut batch).await.map_err(ConntrackError::Write)?;
        tally.add(some.len(), refusals.into_iter().map(|(_, refusal)| refusal));
    }
    Ok(())
}

/// What became of requests.
#[derive(Debug, Default)]
struct Tally {
    done: usize,
    refused: Option<Refusal>,
}

impl Tally {
    fn add(&mut self, asked: usize, refusals: impl Iterator<Item = Refusal>) {
        self.done += asked;
        for refusal in refusals {
            self.done -= 1;
            // A connection that ended by itself meanwhile needs nothing any more.
            if refusal.errno() != ENOENT {
                self.refused.get_or_insert(refusal);
            }
        }
    }

    /// Returns how many were done, unless one was refused.
    fn result(self) -> Result<usize, ConntrackError> {
        self.refused.map_or(Ok(self.done), |refusal| Err(ConntrackError::Refused(refusal)))
    }
}

/// `struct nfgenmsg`.
fn header(family: Family) -> [u8; 4] {
    [af(family), 0, 0, 0]
}

fn connection(body: &[u8]) -> Option<Connection> {
    let (mut original, mut reply, mut key) = (None, None, Key::new());
    let (mut mark, mut zone, mut expected) = (0, 0, false);
    for (kind, value) in attributes(body.get(4..)?) {
        match kind {
            CTA_TUPLE_ORIG => {
                original = tuple(value);
                key.push((kind | NLA_F_NESTED, value.to_vec()));
            }
            CTA_TUPLE_REPLY => reply = tuple(value),
            CTA_MARK => mark = u32::from_be_bytes(value.try_into().ok()?),
            CTA_TUPLE_MASTER => expected = true,
            CTA_ZONE => {
                zone = u16::from_be_bytes(value.try_into().ok()?);
                key.push((kind, value.to_vec()));
            }
            // The number of the connection: a later one of the same tuple is another one.
            CTA_ID => key.push((kind, value.to_vec())),
            _ => {}
        }
    }
    Some(Connection { original: original?, reply: reply?, mark, zone, expected, key })
}

fn tuple(value: &[u8]) -> Option<Tuple> {
    let nested = |wanted: u16| attributes(value).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // The source comes before the destination.
    let mut addresses = attributes(nested(CTA_TUPLE_IP)?).filter_map(|(_, value)| address(value));
    let (source, destination) = (addresses.next()?, addresses.next()?);
    let port = |value: &[u8]| value.try_into().ok().map(u16::from_be_bytes);
    let (mut number, mut ports, mut icmp) = (None, (None, None), (None, None));
    for (kind, value) in attributes(nested(CTA_TUPLE_PROTO)?) {
        match kind {
            CTA_PROTO_NUM => number = value.first().copied(),
            CTA_PROTO_SRC_PORT => ports.0 = port(value),
            CTA_PROTO_DST_PORT => ports.1 = port(value),
            CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => icmp.0 = value.first().copied(),
            CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => icmp.1 = value.first().copied(),
            _ => {}
        }
    }
    Some(Tuple {
        source,
        destination,
        protocol: Protocol::from_number(number?),
        ports: ports.0.zip(ports.1),
        icmp: icmp.0.zip(icmp.1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn of_tuple(kind: u16, addrs: [[u8; 4]; 2], protocol: &[Vec<u8>]) -> Vec<u8> {
        let ip = [attribute(1, &addrs[0]), attribute(2, &addrs[1])].concat();
        let nested = [
            attribute(CTA_TUPLE_IP | NLA_F_NESTED, &ip),
            attribute(CTA_TUPLE_PROTO | NLA_F_NESTED, &protocol.concat()),
        ];
        attribute(kind | NLA_F_NESTED, &nested.concat())
    }

    #[test]
    fn a_connection_is_read_with_its_translation_mark_and_name() {
        let tcp = |source: u16, destination: u16| {
            vec![
                attribute(CTA_PROTO_NUM, &[6]),
                attribute(CTA_PROTO_SRC_PORT, &source.to_be_bytes()),
                attribute(CTA_PROTO_DST_PORT, &destination.to_be_bytes()),
            ]
        };
        let (client, service, pod) = ([10, 0, 0, 1], [10, 96, 0, 1], [10, 0, 0, 2]);
        let original = of_tuple(CTA_TUPLE_ORIG, [client, service], &tcp(40_000, 80));
        let id = attribute(CTA_ID, &[1, 2, 3, 4]);
        let body = [
            vec![2, 0, 0, 0],
            original,
            of_tuple(CTA_TUPLE_REPLY, [pod, client], &tcp(8_080, 40_000)),
            attribute(CTA_MARK, &0x8000_0001u32.to_be_bytes()),
            id,
        ];
        let found = connection(&body.concat()).unwrap();
        assert_eq!((found.original.ports, found.reply.ports), (Some((40_000, 80)), Some((8_080, 40_000))));
        assert_eq!((found.original.destination, found.reply.source), (service.into(), pod.into()));
        assert_eq!((found.mark, found.zone, found.expected), (0x8000_0001, 0, false));
        assert_eq!(found.key.len(), 2, "its original tuple and its number");
        let ping = [
            attribute(CTA_PROTO_NUM, &[1]),
            attribute(CTA_PROTO_ICMP_TYPE, &[8]),
            attribute(CTA_PROTO_ICMP_CODE, &[0]),
        ];
        let bytes = of_tuple(CTA_TUPLE_ORIG, [client, pod], &ping);
        let (_, value) = attributes(&bytes).next().unwrap();
        assert_eq!(tuple(value).unwrap().icmp, Some((8, 0)));
    }

    #[test]
    fn a_refusal_is_told_and_a_connection_that_has_ended_is_none() {
        let refusal = |errno| Refusal::new(errno, None);
        let mut tally = Tally::default();
        tally.add(3, [refusal(ENOENT)].into_iter());
        tally.add(2, std::iter::empty());
        assert_eq!(tally.done, 4);
        tally.add(3, [ENOENT, EINVAL, EOPNOTSUPP].into_iter().map(refusal));
        tally.add(5, std::iter::empty());
        assert_eq!(tally.done, 9, "the others are done nevertheless");
        let told = tally.result();
        assert!(matches!(&told, Err(ConntrackError::Refused(first)) if first.errno() == EINVAL), "{told:?}");
    }

    #[test]
    fn what_is_cut_off_anywhere_is_no_connection_and_no_panic() {
        let body = [vec![2, 0, 0, 0], of_tuple(CTA_TUPLE_ORIG, [[10, 0, 0, 1]; 2], &[])].concat();
        for length in 0..=body.len() {
            assert_eq!(connection(&body[..length]), None);
        }
    }
}
