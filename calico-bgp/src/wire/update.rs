//! UPDATE: routes withdrawn and routes announced (RFC 4271 section 4.3, RFC 4760).
//!
//! ```text
//! [withdrawn length, 2] [withdrawn IPv4 prefixes] [attributes length, 2] [attributes] [announced IPv4 prefixes]
//! ```
//!
//! IPv6 prefixes, and IPv4 prefixes with an IPv6 next hop, travel inside two of the attributes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use calico_model::Family;

use super::attribute::{Attributes, NextHopAttribute, code, flag};
use super::decode;
use super::error::{DecodeError, Notification, Remedy};
use super::nlri::{Address, Nlri, PathIds, Prefixes};
use super::reader::Reader;
use super::{Dialect, HEADER_LEN, MessageType, begin_message, finish_message};

/// The announced prefixes of a multiprotocol attribute and their next hop.
#[derive(Debug, Clone, Copy)]
pub enum MpReach<'a> {
    /// IPv4 prefixes.
    V4(Prefixes<'a, Ipv4Addr>, IpAddr),
    /// IPv6 prefixes.
    V6(Prefixes<'a, Ipv6Addr>, IpAddr),
}

impl MpReach<'_> {
    pub(crate) fn next_hop(&self) -> IpAddr {
        match self {
            Self::V4(_, next_hop) | Self::V6(_, next_hop) => *next_hop,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::V4(prefixes, _) => prefixes.is_empty(),
            Self::V6(prefixes, _) => prefixes.is_empty(),
        }
    }
}

/// The withdrawn prefixes of a multiprotocol attribute.
#[derive(Debug, Clone, Copy)]
pub enum MpUnreach<'a> {
    /// IPv4 prefixes.
    V4(Prefixes<'a, Ipv4Addr>),
    /// IPv6 prefixes.
    V6(Prefixes<'a, Ipv6Addr>),
}

/// The mark that the first table is complete (RFC 4724 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOfRib(pub Family);

/// A received UPDATE, its prefixes still inside the message.
#[derive(Debug)]
pub struct Update<'a> {
    /// IPv4 prefixes that can no longer be reached.
    pub withdrawn: Prefixes<'a, Ipv4Addr>,
    /// The same from MP_UNREACH_NLRI.
    pub mp_withdrawn: Option<MpUnreach<'a>>,
    /// IPv4 prefixes with the attributes below.
    pub announced: Prefixes<'a, Ipv4Addr>,
    /// Prefixes from MP_REACH_NLRI with the attributes below, except for the next hop.
    pub mp_announced: Option<MpReach<'a>>,
    /// What the announced routes are; `None` when nothing is announced, or when the routes must be treated as
    /// withdrawn.
    pub attributes: Option<Attributes>,
    /// The first table is complete.
    pub end_of_rib: Option<EndOfRib>,
    /// What was wrong with the message and was survived.
    pub faults: Vec<DecodeError>,
}

impl<'a> Update<'a> {
    /// Reads the body of an UPDATE, without its header.
    ///
    /// When [`Update::attributes`] is `None`, the announced prefixes are to be treated as withdrawn; what made them so
    /// is among the faults.
    ///
    /// # Errors
    /// What must end the session: the error's remedy is [`Remedy::Reset`].
    pub fn decode(body: &'a [u8], dialect: &Dialect) -> Result<Self, DecodeError> {
        let malformed = || {
            DecodeError::reset(Notification::MALFORMED_ATTRIBUTE_LIST, "the lengths in UPDATE do not fit it")
        };
        let mut reader = Reader::new(body);
        let withdrawn_len = reader.u16().ok_or_else(malformed)?;
        let withdrawn = reader.take(usize::from(withdrawn_len)).ok_or_else(malformed)?;
        let attributes_len = reader.u16().ok_or_else(malformed)?;
        let attributes = reader.take(usize::from(attributes_len)).ok_or_else(malformed)?;
        let ids = dialect.path_ids_in[Family::V4];
        let withdrawn = Prefixes::decode(withdrawn, ids)?;
        let announced = Prefixes::<Ipv4Addr>::decode(reader.rest(), ids)?;
        if attributes.is_empty() && withdrawn.is_empty() && announced.is_empty() {
            return Ok(Self { end_of_rib: Some(EndOfRib(Family::V4)), ..Self::nothing() });
        }

        let mut decoded = decode::attributes(attributes, dialect)?;
        let mut faults = std::mem::take(&mut decoded.faults);
        if announced.is_empty() && decoded.reach.is_some() {
            // Of use to nobody, and so not to be looked at (RFC 4760 section 3).
            faults.retain(|fault| fault.attribute != Some(code::NEXT_HOP));
        }
        let announces = !announced.is_empty() || decoded.reach.is_some();
        let must_withdraw = faults.iter().position(|fault| fault.remedy == Remedy::TreatAsWithdraw);
        if let Some(at) = must_withdraw
            && announced.is_empty()
            && decoded.may_have_lost_prefixes(&faults)
        {
            let remedy = Remedy::Reset(Notification::new(Notification::MALFORMED_ATTRIBUTE_LIST));
            return Err(DecodeError { remedy, ..faults.swap_remove(at) });
        }
        let next_hop = if announced.is_empty() {
            decoded.reach.as_ref().map(MpReach::next_hop)
        } else {
            decoded.next_hop.map(IpAddr::V4)
        };
        let (mp_withdrawn, mp_announced) = (decoded.unreach, decoded.reach);
        let end_of_rib = decoded.end_of_rib.filter(|_| !announces && withdrawn.is_empty());
        let attributes = if announces && must_withdraw.is_none() {
            decoded.assemble(next_hop).map_err(|fault| faults.push(fault)).ok()
        } else {
            None
        };
        Ok(Self { withdrawn, mp_withdrawn, announced, mp_announced, attributes, end_of_rib, faults })
    }

    fn nothing() -> Self {
        Self {
            withdrawn: Prefixes::none(),
            mp_withdrawn: None,
            announced: Prefixes::none(),
            mp_announced: None,
            attributes: None,
            end_of_rib: None,
            faults: Vec::new(),
        }
    }
}

/// Attributes too long for a message: the routes cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path attributes leave no room for a prefix in a message of {limit} octets")]
pub struct TooLong {
    /// The longest message of the session.
    pub limit: usize,
}

/// Packs announced prefixes that share their attributes into as few messages as fit, each handed to `emit`.
///
/// # Errors
/// [`TooLong`] when not even one prefix fits beside the attributes; nothing was emitted then.
pub fn announce<A: Address>(
    attributes: &Attributes,
    prefixes: &[Nlri<A>],
    dialect: &Dialect,
    mut emit: impl FnMut(Vec<u8>, &[Nlri<A>]),
) -> Result<(), TooLong> {
    let ids = dialect.path_ids_out[A::FAMILY];
    let classic = A::FAMILY == Family::V4 && attributes.next_hop.is_ipv4();
    let mut shared = Vec::with_capacity(64);
    let next_hop = if classic { NextHopAttribute::Write } else { NextHopAttribute::Omit };
    attributes.encode(dialect.as_width, next_hop, &mut shared);
    let mp_head = mp_reach_head::<A>(attributes.next_hop);
    let overhead = HEADER_LEN + 4 + shared.len() + if classic { 0 } else { 4 + mp_head.len() };
    let limit = dialect.max_len_out;
    let longest = usize::from(A::BITS) / 8 + 1 + if ids == PathIds::Present { 4 } else { 0 };
    let Some(room) = limit.checked_sub(overhead).filter(|room| *room >= longest) else {
        return Err(TooLong { limit });
    };
    for chunk in (Chunks { rest: prefixes, room, ids }) {
        let mut message = begin_message(MessageType::Update);
        message.extend_from_slice(&[0, 0]);
        if classic {
            message.extend_from_slice(&(shared.len() as u16).to_be_bytes());
            message.extend_from_slice(&shared);
            chunk.iter().for_each(|nlri| nlri.encode(ids, &mut message));
        } else {
            let nlri_len: usize = chunk.iter().map(|nlri| nlri.encoded_len(ids)).sum();
            let mp_len = mp_head.len() + nlri_len;
            message.extend_from_slice(&((4 + mp_len + shared.len()) as u16).to_be_bytes());
            message.extend_from_slice(&[flag::OPTIONAL | flag::EXTENDED, code::MP_REACH]);
            message.extend_from_slice(&(mp_len as u16).to_be_bytes());
            message.extend_from_slice(&mp_head);
            chunk.iter().for_each(|nlri| nlri.encode(ids, &mut message));
            message.extend_from_slice(&shared);
        }
        emit(finish_message(message), chunk);
    }
    Ok(())
}

/// Packs withdrawn prefixes into as few messages as fit, each handed to `emit`.
pub fn withdraw<A: Address>(
    prefixes: &[Nlri<A>],
    dialect: &Dialect,
    mut emit: impl FnMut(Vec<u8>, &[Nlri<A>]),
) {
    let ids = dialect.path_ids_out[A::FAMILY];
    let room = dialect.max_len_out - HEADER_LEN - 4 - 7;
    for chunk in (Chunks { rest: prefixes, room, ids }) {
        let nlri_len: usize = chunk.iter().map(|nlri| nlri.encoded_len(ids)).sum();
        let mut message = begin_message(MessageType::Update);
        match A::FAMILY {
            Family::V4 => {
                message.extend_from_slice(&(nlri_len as u16).to_be_bytes());
                chunk.iter().for_each(|nlri| nlri.encode(ids, &mut message));
                message.extend_from_slice(&[0, 0]);
            }
            Family::V6 => {
                message.extend_from_slice(&[0, 0]);
                message.extend_from_slice(&((nlri_len + 7) as u16).to_be_bytes());
                message.extend_from_slice(&[flag::OPTIONAL | flag::EXTENDED, code::MP_UNREACH]);
                message.extend_from_slice(&((nlri_len + 3) as u16).to_be_bytes());
                message.extend_from_slice(&[0, 2, 1]);
                chunk.iter().for_each(|nlri| nlri.encode(ids, &mut message));
            }
        }
        emit(finish_message(message), chunk);
    }
}

/// Makes the End-of-RIB of a family (RFC 4724 section 2).
#[must_use]
pub fn end_of_rib(family: Family) -> Vec<u8> {
    let mut message = begin_message(MessageType::Update);
    match family {
        Family::V4 => message.extend_from_slice(&[0, 0, 0, 0]),
        Family::V6 => {
            message.extend_from_slice(&[0, 0, 0, 6, flag::OPTIONAL, code::MP_UNREACH, 3, 0, 2, 1]);
        }
    }
    finish_message(message)
}

fn mp_reach_head<A: Address>(next_hop: IpAddr) -> Vec<u8> {
    let mut head = vec![0, super::open::afi(A::FAMILY), 1];
    match next_hop {
        IpAddr::V4(v4) if A::FAMILY == Family::V4 => {
            head.push(4);
            head.extend_from_slice(&v4.octets());
        }
        IpAddr::V4(v4) => {
            head.push(16);
            head.extend_from_slice(&v4.to_ipv6_mapped().octets());
        }
        IpAddr::V6(v6) => {
            head.push(16);
            head.extend_from_slice(&v6.octets());
        }
    }
    head.push(0);
    head
}

struct Chunks<'p, A> {
    rest: &'p [Nlri<A>],
    room: usize,
    ids: PathIds,
}

impl<'p, A: Address> Iterator for Chunks<'p, A> {
    type Item = &'p [Nlri<A>];

    fn next(&mut self) -> Option<Self::Item> {
        let mut room = self.room;
        let fits = self.rest.iter().take_while(|nlri| match room.checked_sub(nlri.encoded_len(self.ids)) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        });
        let (chunk, rest) = self.rest.split_at(fits.count());
        self.rest = rest;
        (!chunk.is_empty()).then_some(chunk)
    }
}
