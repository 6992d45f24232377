//! What a monitoring station is told (RFC 7854): messages as octets, and nothing else. Which of them are due, and when,
//! is told by [`Speaker::feed`](crate::Speaker::feed).
//!
//! ```text
//! [version 3, 1] [length of the whole message, 4] [type, 1] [body]
//! peer header: [type, 1] [flags, 1] [distinguisher, 8] [address, 16] [AS, 4] [identifier, 4] [seconds, 4] [microseconds, 4]
//! ```
//!
//! Routes are those that were taken from a peer, after what is refused was refused (the "post-policy" view).

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use calico_model::{AsNumber, Family, RouterId};

use crate::wire;
use crate::wire::open::afi;

const VERSION: u8 = 3;

mod kind {
    pub(super) const ROUTE_MONITORING: u8 = 0;
    pub(super) const STATISTICS: u8 = 1;
    pub(super) const PEER_DOWN: u8 = 2;
    pub(super) const PEER_UP: u8 = 3;
    pub(super) const INITIATION: u8 = 4;
    pub(super) const TERMINATION: u8 = 5;
}

/// Whom a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerHeader {
    /// The peer's address.
    pub address: IpAddr,
    /// Its AS number.
    pub asn: AsNumber,
    /// Its identifier.
    pub router_id: RouterId,
    /// When it happened, since 1970; zero says that nobody knows.
    pub at: Duration,
}

/// Why a session is over (RFC 7854 section 4.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerDown<'m> {
    /// We closed it with this NOTIFICATION message.
    Sent(&'m [u8]),
    /// The peer closed it with this NOTIFICATION message.
    Received(&'m [u8]),
    /// The connection went away without a word.
    Lost,
}

/// One counter or gauge (RFC 7854 section 4.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// Prefixes that what is taken from the peer leaves out: a counter of type 0.
    Rejected(u32),
    /// UPDATE messages with our own cluster in CLUSTER_LIST: a counter of type 3.
    ClusterLoops(u32),
    /// UPDATE messages with our own AS in AS_PATH: a counter of type 4.
    AsLoops(u32),
    /// UPDATE messages with our own identifier in ORIGINATOR_ID: a counter of type 5.
    OriginatorLoops(u32),
    /// UPDATE messages whose routes were treated as withdrawn: a counter of type 11.
    TreatedAsWithdraw(u32),
    /// Prefixes in them that were: a counter of type 12.
    PrefixesTreatedAsWithdraw(u32),
    /// Routes held from the peer: a gauge of type 7.
    Held(u64),
    /// The same for one family: a gauge of type 9.
    HeldOf(Family, u64),
}

/// Says who we are: the first message to a station.
#[must_use]
pub fn initiation(description: &str, name: &str) -> Vec<u8> {
    let mut message = begin(kind::INITIATION);
    put_information(1, description, &mut message);
    put_information(2, name, &mut message);
    finish(message)
}

/// Says goodbye: the operator ends the feed.
#[must_use]
pub fn termination(why: &str) -> Vec<u8> {
    let mut message = begin(kind::TERMINATION);
    put_information(0, why, &mut message);
    message.extend_from_slice(&[0, 1, 0, 2, 0, 0]);
    finish(message)
}

/// A session is established. The two OPENs are whole messages.
#[must_use]
pub fn peer_up(peer: &PeerHeader, local: IpAddr, ports: (u16, u16), sent: &[u8], received: &[u8]) -> Vec<u8> {
    let mut message = begin_about(kind::PEER_UP, peer);
    message.extend_from_slice(&sixteen(local));
    message.extend_from_slice(&ports.0.to_be_bytes());
    message.extend_from_slice(&ports.1.to_be_bytes());
    message.extend_from_slice(sent);
    message.extend_from_slice(received);
    finish(message)
}

/// A session is over.
#[must_use]
pub fn peer_down(peer: &PeerHeader, why: PeerDown<'_>) -> Vec<u8> {
    let mut message = begin_about(kind::PEER_DOWN, peer);
    match why {
        PeerDown::Sent(notification) => {
            message.push(1);
            message.extend_from_slice(notification);
        }
        PeerDown::Received(notification) => {
            message.push(3);
            message.extend_from_slice(notification);
        }
        PeerDown::Lost => message.push(4),
    }
    finish(message)
}

/// Routes of a peer, as a whole UPDATE message with four-octet AS numbers.
#[must_use]
pub fn route_monitoring(peer: &PeerHeader, update: &[u8]) -> Vec<u8> {
    let mut message = begin_about(kind::ROUTE_MONITORING, peer);
    message.extend_from_slice(update);
    finish(message)
}

/// What was counted of a peer.
#[must_use]
pub fn statistics(peer: &PeerHeader, statistics: &[Statistic]) -> Vec<u8> {
    let mut message = begin_about(kind::STATISTICS, peer);
    message.extend_from_slice(&(statistics.len() as u32).to_be_bytes());
    for statistic in statistics {
        let (kind, value): (u16, Vec<u8>) = match *statistic {
            Statistic::Rejected(count) => (0, count.to_be_bytes().into()),
            Statistic::ClusterLoops(count) => (3, count.to_be_bytes().into()),
            Statistic::AsLoops(count) => (4, count.to_be_bytes().into()),
            Statistic::OriginatorLoops(count) => (5, count.to_be_bytes().into()),
            Statistic::TreatedAsWithdraw(count) => (11, count.to_be_bytes().into()),
            Statistic::PrefixesTreatedAsWithdraw(count) => (12, count.to_be_bytes().into()),
            Statistic::Held(count) => (7, count.to_be_bytes().into()),
            Statistic::HeldOf(family, count) => {
                (9, [&[0, afi(family), 1][..], &count.to_be_bytes()].concat())
            }
        };
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&(value.len() as u16).to_be_bytes());
        message.extend_from_slice(&value);
    }
    finish(message)
}

/// Sets the time of a message about a peer.
pub(crate) fn stamp(message: &mut [u8], at: Duration) {
    if let Some([_, _, _, _, _, kind::STATISTICS | kind::PEER_DOWN | kind::PEER_UP]) =
        message.first_chunk::<6>()
        && let Some(time) = message.get_mut(40..48)
    {
        time[..4].copy_from_slice(&(at.as_secs() as u32).to_be_bytes());
        time[4..].copy_from_slice(&at.subsec_micros().to_be_bytes());
    }
}

fn begin(kind: u8) -> Vec<u8> {
    vec![VERSION, 0, 0, 0, 0, kind]
}

fn begin_about(kind: u8, peer: &PeerHeader) -> Vec<u8> {
    const IPV6: u8 = 0x80;
    const POST_POLICY: u8 = 0x40;
    let mut message = begin(kind);
    let family = if peer.address.is_ipv6() { IPV6 } else { 0 };
    let policy = if kind == kind::ROUTE_MONITORING { POST_POLICY } else { 0 };
    message.extend_from_slice(&[0, family | policy]);
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&sixteen(peer.address));
    message.extend_from_slice(&peer.asn.get().to_be_bytes());
    message.extend_from_slice(&peer.router_id.addr().octets());
    message.extend_from_slice(&(peer.at.as_secs() as u32).to_be_bytes());
    message.extend_from_slice(&peer.at.subsec_micros().to_be_bytes());
    message
}

fn finish(mut message: Vec<u8>) -> Vec<u8> {
    let len = (message.len() as u32).to_be_bytes();
    message[1..5].copy_from_slice(&len);
    message
}

/// An IPv4 address stands at the end of the sixteen octets.
fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => Ipv6Addr::from(u128::from(u32::from(v4))).octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn put_information(kind: u16, text: &str, message: &mut Vec<u8>) {
    let mut end = text.len().min(wire::MAX_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&(end as u16).to_be_bytes());
    message.extend_from_slice(&text.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> PeerHeader {
        PeerHeader {
            address: address.parse().unwrap(),
            asn: AsNumber::new(65002).unwrap(),
            router_id: "10.0.0.2".parse().unwrap(),
            at: Duration::new(0x0102_0304, 5_000),
        }
    }

    #[test]
    fn each_message_is_as_rfc_7854_draws_it() {
        assert_eq!(
            initiation("us", "n1"),
            [3, 0, 0, 0, 18, 4, 0, 1, 0, 2, b'u', b's', 0, 2, 0, 2, b'n', b'1']
        );
        assert_eq!(termination("x"), [3, 0, 0, 0, 17, 5, 0, 0, 0, 1, b'x', 0, 1, 0, 2, 0, 0]);
        let header_v4 = [
            &[0, 0][..],
            &[0; 8],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2],
            &[0, 0, 0xfd, 0xea, 10, 0, 0, 2, 1, 2, 3, 4, 0, 0, 0, 5],
        ]
        .concat();
        let down = peer_down(&peer("10.0.0.2"), PeerDown::Lost);
        assert_eq!(down, [&[3, 0, 0, 0, 49, 2][..], &header_v4, &[4]].concat());
        let up = peer_up(&peer("10.0.0.2"), "10.0.0.1".parse().unwrap(), (179, 4000), b"SENT", b"RECEIVED");
        assert_eq!(up.len(), 48 + 20 + 12);
        assert_eq!(&up[48..68], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1, 0, 179, 15, 160]);
        assert_eq!(&up[68..], b"SENTRECEIVED");
        let routes = route_monitoring(&peer("fd00::2"), b"UPDATE");
        assert_eq!((routes[5], routes[7], &routes[48..]), (0, 0xc0, &b"UPDATE"[..]));
        assert_eq!(routes[16..32], "fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        let counted =
            statistics(&peer("10.0.0.2"), &[Statistic::Rejected(7), Statistic::HeldOf(Family::V6, 9)]);
        assert_eq!(
            counted[48..],
            [0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 7, 0, 9, 0, 11, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 9]
        );
    }
}
