//! Tracked connections of addresses that have left, forgotten in one sweep of the table for all of them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use calico_model::Family;
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
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const NLA_F_NESTED: u16 = 0x8000;
/// Deletions per send.
const BATCH: usize = 256;
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

/// Connections could not be forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForgetError {
    /// There was no socket for it.
    #[error("cannot talk to connection tracking")]
    Connect(#[from] ConnectError),
    /// The connections could not be listed.
    #[error("cannot list tracked connections")]
    Read(#[from] ReadError),
    /// The socket failed while connections were being deleted.
    #[error("cannot delete tracked connections")]
    Delete(#[source] std::io::Error),
    /// The kernel would not delete a connection.
    #[error("the kernel refuses to delete a tracked connection: {0}")]
    Refused(Refusal),
}

/// Deletes every connection that one of the addresses has a part in, in either direction; returns how many.
pub(super) async fn forget(
    namespace: &NetworkNamespace,
    addresses: &BTreeSet<IpAddr>,
) -> Result<usize, ForgetError> {
    let mut socket = NetlinkSocket::open(NETLINK_NETFILTER, namespace, &[], RECEIVE_BUFFER)?;
    let mut forgotten = 0;
    for family in Family::ALL {
        if addresses.iter().any(|addr| Family::of(*addr) == family) {
            let found = list(&mut socket, family, addresses).await?;
            for keys in found.chunks(BATCH) {
                forgotten += delete(&mut socket, family, keys).await?;
            }
        }
    }
    Ok(forgotten)
}

/// What names a connection: attributes as the kernel gave them.
type Key = Vec<(u16, Vec<u8>)>;

async fn list(
    socket: &mut NetlinkSocket,
    family: Family,
    addresses: &BTreeSet<IpAddr>,
) -> Result<Vec<Key>, ReadError> {
    let what = "tracked connections";
    let mut found = Vec::new();
    let each = |message: &Message<'_>| {
        if message.kind == NEW {
            found.extend(key_of_one(message.body, addresses));
        }
    };
    match socket.dump(GET, &header(family), |_| {}, each).await {
        // One that came or went meanwhile is not one of an address that has left.
        Ok(()) | Err(DumpError::Interrupted) => Ok(found),
        // A kernel that does not track connections has none to forget.
        Err(DumpError::Refused(refusal)) if [EINVAL, EOPNOTSUPP].contains(&refusal.errno()) => Ok(Vec::new()),
        Err(DumpError::Refused(refusal)) => Err(ReadError::Refused { what, refusal }),
        Err(DumpError::Socket(source)) => Err(ReadError::Socket { what, source }),
    }
}

async fn delete(socket: &mut NetlinkSocket, family: Family, keys: &[Key]) -> Result<usize, ForgetError> {
    let mut batch = Batch::default();
    for key in keys {
        let open = batch.begin(DELETE, 0, socket.next_sequence(), &header(family));
        key.iter().for_each(|(kind, value)| batch.attribute(*kind, value));
        batch.end(open);
    }
    let refusals = socket.transact(&mut batch).await.map_err(ForgetError::Delete)?;
    // One that ended by itself meanwhile is gone as well.
    let gone = refusals.iter().filter(|(_, refusal)| refusal.errno() == ENOENT).count();
    match refusals.into_iter().find(|(_, refusal)| refusal.errno() != ENOENT) {
        Some((_, refusal)) => Err(ForgetError::Refused(refusal)),
        None => Ok(keys.len() - gone),
    }
}

/// `struct nfgenmsg`.
fn header(family: Family) -> [u8; 4] {
    [af(family), 0, 0, 0]
}

fn key_of_one(body: &[u8], addresses: &BTreeSet<IpAddr>) -> Option<Key> {
    let mut key = Key::new();
    let mut concerns = false;
    for (kind, value) in attributes(body.get(4..)?) {
        match kind {
            CTA_TUPLE_ORIG => {
                concerns |= names_one(value, addresses);
                key.push((kind | NLA_F_NESTED, value.to_vec()));
            }
            CTA_TUPLE_REPLY => concerns |= names_one(value, addresses),
            // The number of the connection: a later one of the same tuple is another one.
            CTA_ZONE | CTA_ID => key.push((kind, value.to_vec())),
            _ => {}
        }
    }
    concerns.then_some(key)
}

fn names_one(tuple: &[u8], addresses: &BTreeSet<IpAddr>) -> bool {
    attributes(tuple)
        .filter(|(kind, _)| *kind == CTA_TUPLE_IP)
        .flat_map(|(_, ip)| attributes(ip))
        .any(|(_, value)| address(value).is_some_and(|addr| addresses.contains(&addr)))
}
