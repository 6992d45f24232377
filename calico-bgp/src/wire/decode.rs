//! Path attributes as they come in: each fault gets the remedy of RFC 7606 section 7, and never more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use calico_model::{AsNumber, Family};

use super::Dialect;
use super::as_path::{AsPath, AsWidth};
use super::attribute::{AtomicAggregate, Attributes, Extra, Origin, UnknownAttribute, code, flag};
use super::error::{DecodeError, Notification};
use super::nlri::{Address, Prefixes};
use super::reader::Reader;
use super::update::{EndOfRib, MpReach, MpUnreach};
use crate::session::Peering;

/// What the attribute section of an UPDATE says, and what was wrong with it.
pub(crate) struct Decoded<'a> {
    pub(crate) origin: Option<Origin>,
    pub(crate) as_path: Option<AsPath>,
    pub(crate) next_hop: Option<Ipv4Addr>,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) extra: Extra,
    pub(crate) reach: Option<MpReach<'a>>,
    pub(crate) unreach: Option<MpUnreach<'a>>,
    pub(crate) end_of_rib: Option<EndOfRib>,
    pub(crate) faults: Vec<DecodeError>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<(AsNumber, Ipv4Addr)>,
    unknown: Vec<UnknownAttribute>,
    seen: [u64; 4],
}

/// Reads the attribute section.
///
/// # Errors
/// Only what must end the session: a multiprotocol attribute that is there twice or cannot be read.
pub(crate) fn attributes<'a>(octets: &'a [u8], dialect: &Dialect) -> Result<Decoded<'a>, DecodeError> {
    let mut decoded = Decoded {
        origin: None,
        as_path: None,
        next_hop: None,
        med: None,
        local_pref: None,
        extra: Extra::default(),
        reach: None,
        unreach: None,
        end_of_rib: None,
        faults: Vec::new(),
        as4_path: None,
        as4_aggregator: None,
        unknown: Vec::new(),
        seen: [0; 4],
    };
    let mut reader = Reader::new(octets);
    while !reader.is_empty() {
        let Some((flags, kind, value)) = header(&mut reader) else {
            decoded.faults.push(DecodeError::withdraw(None, "the attributes end inside an attribute"));
            break;
        };
        let (word, bit) = (usize::from(kind / 64), 1 << (kind % 64));
        if decoded.seen[word] & bit != 0 {
            if matches!(kind, code::MP_REACH | code::MP_UNREACH) {
                return Err(DecodeError::reset(
                    Notification::MALFORMED_ATTRIBUTE_LIST,
                    "a multiprotocol attribute is there twice",
                ));
            }
            decoded
                .faults
                .push(DecodeError::discard(kind, "the attribute is there twice; the first one counts"));
            continue;
        }
        decoded.seen[word] |= bit;
        if let Err(fault) = decoded.attribute(flags, kind, value, dialect) {
            if matches!(fault.remedy, super::Remedy::Reset(_)) {
                return Err(fault);
            }
            decoded.faults.push(fault);
        }
    }
    decoded.meet_old_speaker(dialect.as_width);
    Ok(decoded)
}

fn header<'a>(reader: &mut Reader<'a>) -> Option<(u8, u8, &'a [u8])> {
    let flags = reader.u8()?;
    let kind = reader.u8()?;
    let len = match flags & flag::EXTENDED {
        0 => usize::from(reader.u8()?),
        _ => usize::from(reader.u16()?),
    };
    Some((flags, kind, reader.take(len)?))
}

/// The flags that RFC 7606 section 3 c compares.
const CLASS: u8 = flag::OPTIONAL | flag::TRANSITIVE;

fn expect_class(flags: u8, class: u8, kind: u8) -> Result<(), DecodeError> {
    if flags & CLASS == class {
        Ok(())
    } else {
        Err(DecodeError::withdraw(Some(kind), "the flags are not those of the attribute"))
    }
}

fn exact<const N: usize>(value: &[u8], kind: u8) -> Result<[u8; N], DecodeError> {
    value.try_into().map_err(|_| DecodeError::withdraw(Some(kind), "the length is wrong"))
}

fn multiple_of<const N: usize>(value: &[u8], kind: u8) -> Result<&[[u8; N]], DecodeError> {
    match value.as_chunks() {
        ([], _) => Err(DecodeError::withdraw(Some(kind), "the list is empty")),
        (chunks, []) => Ok(chunks),
        _ => Err(DecodeError::withdraw(Some(kind), "the length is not a multiple of an entry's")),
    }
}

impl<'a> Decoded<'a> {
    fn attribute(
        &mut self,
        flags: u8,
        kind: u8,
        value: &'a [u8],
        dialect: &Dialect,
    ) -> Result<(), DecodeError> {
        let withdraw = |problem| DecodeError::withdraw(Some(kind), problem);
        let discard = |problem| DecodeError::discard(kind, problem);
        let external = dialect.peering == Peering::External;
        match kind {
            code::ORIGIN => {
                expect_class(flags, flag::TRANSITIVE, kind)?;
                let [origin] = exact(value, kind)?;
                self.origin =
                    Some(Origin::from_code(origin).ok_or(withdraw("the origin is not one of three"))?);
            }
            code::AS_PATH => {
                expect_class(flags, flag::TRANSITIVE, kind)?;
                let path = AsPath::decode(value, dialect.as_width).map_err(withdraw)?;
                if external && path.is_empty() {
                    return Err(withdraw("the AS path from another AS is empty"));
                }
                self.as_path = Some(path);
            }
            code::NEXT_HOP => {
                expect_class(flags, flag::TRANSITIVE, kind)?;
                let addr = Ipv4Addr::from(exact::<4>(value, kind)?);
                if !is_next_hop(addr.into()) {
                    return Err(withdraw("the next hop is not an address of a host"));
                }
                self.next_hop = Some(addr);
            }
            code::MED => {
                expect_class(flags, flag::OPTIONAL, kind)?;
                self.med = Some(u32::from_be_bytes(exact(value, kind)?));
            }
            code::LOCAL_PREF if external => return Err(discard("it has no meaning between two ASes")),
            code::LOCAL_PREF => {
                expect_class(flags, flag::TRANSITIVE, kind)?;
                self.local_pref = Some(u32::from_be_bytes(exact(value, kind)?));
            }
            code::ATOMIC_AGGREGATE if value.is_empty() => {
                expect_class(flags, flag::TRANSITIVE, kind)?;
                self.extra.atomic_aggregate = Some(AtomicAggregate);
            }
            code::ATOMIC_AGGREGATE => return Err(discard("the length is wrong")),
            code::AGGREGATOR if flags & CLASS != CLASS => expect_class(flags, CLASS, kind)?,
            code::AGGREGATOR => self.extra.aggregator = Some(aggregator(value, kind, dialect.as_width)?),
            code::COMMUNITIES => {
                expect_class(flags, flag::OPTIONAL | flag::TRANSITIVE, kind)?;
                self.extra.communities =
                    multiple_of(value, kind)?.iter().map(|c| u32::from_be_bytes(*c)).collect();
            }
            code::ORIGINATOR_ID | code::CLUSTER_LIST if external => {
                return Err(discard("it has no meaning between two ASes"));
            }
            code::ORIGINATOR_ID => {
                expect_class(flags, flag::OPTIONAL, kind)?;
                self.extra.originator_id = Some(exact::<4>(value, kind)?.into());
            }
            code::CLUSTER_LIST => {
                expect_class(flags, flag::OPTIONAL, kind)?;
                self.extra.cluster_list =
                    multiple_of::<4>(value, kind)?.iter().map(|id| Ipv4Addr::from(*id)).collect();
            }
            code::MP_REACH => self.mp_reach(flags, value, dialect)?,
            code::MP_UNREACH => self.mp_unreach(flags, value, dialect)?,
            code::EXTENDED_COMMUNITIES => {
                expect_class(flags, flag::OPTIONAL | flag::TRANSITIVE, kind)?;
                self.extra.extended_communities =
                    multiple_of(value, kind)?.iter().map(|c| u64::from_be_bytes(*c)).collect();
            }
            code::AS4_PATH | code::AS4_AGGREGATOR if dialect.as_width == AsWidth::Four => {
                return Err(discard("it is for speakers with two-octet AS numbers"));
            }
            code::AS4_PATH => {
                self.as4_path = Some(AsPath::decode_through_old(value).map_err(discard)?);
            }
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(aggregator(value, kind, AsWidth::Four)?),
            code::IPV6_EXTENDED_COMMUNITIES => {
                expect_class(flags, flag::OPTIONAL | flag::TRANSITIVE, kind)?;
                multiple_of::<20>(value, kind)?;
                self.keep_unknown(flags, kind, value);
            }
            code::LARGE_COMMUNITIES => {
                expect_class(flags, flag::OPTIONAL | flag::TRANSITIVE, kind)?;
                let mut list: Vec<[u32; 3]> = multiple_of::<12>(value, kind)?.iter().map(large).collect();
                list.sort_unstable();
                list.dedup();
                self.extra.large_communities = list.into();
            }
            code::ONLY_TO_CUSTOMER => {
                expect_class(flags, flag::OPTIONAL | flag::TRANSITIVE, kind)?;
                self.extra.only_to_customer = Some(u32::from_be_bytes(exact(value, kind)?));
            }
            _ if flags & flag::OPTIONAL == 0 => {
                return Err(withdraw("it is marked well-known and nobody knows it"));
            }
            _ if flags & flag::TRANSITIVE != 0 => self.keep_unknown(flags, kind, value),
            _ => {}
        }
        if flags & flag::PARTIAL != 0 {
            self.extra.partial = self.extra.partial.and(kind);
        }
        Ok(())
    }

    fn keep_unknown(&mut self, flags: u8, kind: u8, value: &[u8]) {
        let known = kind == code::IPV6_EXTENDED_COMMUNITIES;
        let partial = if known { flags & flag::PARTIAL } else { flag::PARTIAL };
        self.unknown.push(UnknownAttribute { flags: CLASS | partial, kind, value: value.into() });
    }

    fn mp_reach(&mut self, flags: u8, value: &'a [u8], dialect: &Dialect) -> Result<(), DecodeError> {
        let broken = |problem| DecodeError {
            attribute: Some(code::MP_REACH),
            problem,
            remedy: super::Remedy::Reset(
                Notification::new(Notification::OPTIONAL_ATTRIBUTE).with_data(&[flags, code::MP_REACH]),
            ),
        };
        let mut reader = Reader::new(value);
        let (Some(afi), Some(safi), Some(len)) = (reader.u16(), reader.u8(), reader.u8()) else {
            return Err(broken("MP_REACH_NLRI is cut short"));
        };
        let (Some(next_hop), Some(_reserved)) = (reader.take(usize::from(len)), reader.u8()) else {
            return Err(broken("MP_REACH_NLRI is cut short"));
        };
        let Some(family) = family(afi, safi) else { return Ok(()) };
        let next_hop = match (family, next_hop.len()) {
            (Family::V4, 4) => first_address::<Ipv4Addr>(next_hop),
            (_, 16 | 32) => first_address::<Ipv6Addr>(next_hop),
            _ => return Err(broken("the next hop of MP_REACH_NLRI has an impossible length")),
        };
        let ids = dialect.path_ids_in[family];
        self.reach = Some(match family {
            Family::V4 => MpReach::V4(Prefixes::decode(reader.rest(), ids)?, next_hop),
            Family::V6 => MpReach::V6(Prefixes::decode(reader.rest(), ids)?, next_hop),
        });
        if !is_next_hop(next_hop) {
            return Err(DecodeError::withdraw(
                Some(code::MP_REACH),
                "the next hop is not an address of a host",
            ));
        }
        expect_class(flags, flag::OPTIONAL, code::MP_REACH)
    }

    fn mp_unreach(&mut self, flags: u8, value: &'a [u8], dialect: &Dialect) -> Result<(), DecodeError> {
        let mut reader = Reader::new(value);
        let (Some(afi), Some(safi)) = (reader.u16(), reader.u8()) else {
            return Err(DecodeError {
                attribute: Some(code::MP_UNREACH),
                problem: "MP_UNREACH_NLRI is cut short",
                remedy: super::Remedy::Reset(
                    Notification::new(Notification::OPTIONAL_ATTRIBUTE).with_data(&[flags, code::MP_UNREACH]),
                ),
            });
        };
        let Some(family) = family(afi, safi) else { return Ok(()) };
        if reader.is_empty() {
            self.end_of_rib = Some(EndOfRib(family));
        }
        let ids = dialect.path_ids_in[family];
        self.unreach = Some(match family {
            Family::V4 => MpUnreach::V4(Prefixes::decode(reader.rest(), ids)?),
            Family::V6 => MpUnreach::V6(Prefixes::decode(reader.rest(), ids)?),
        });
        expect_class(flags, flag::OPTIONAL, code::MP_UNREACH)
    }

    /// Reports whether a fault may have hidden prefixes that the message announces: it has other attributes than withdrawn
    /// prefixes, and no prefix among them. To treat what was announced as withdrawn is impossible then (RFC 7606 section
    /// 5.2).
    pub(crate) fn may_have_lost_prefixes(&self, faults: &[DecodeError]) -> bool {
        let is_cut_short = faults.iter().any(|fault| fault.attribute.is_none());
        let withdraws_only = self.seen == [1 << code::MP_UNREACH, 0, 0, 0] && !is_cut_short;
        // Without a `reach`, those of the attribute are of a family that we do not speak.
        let has_reach = self.seen[0] & 1 << code::MP_REACH != 0;
        !withdraws_only && self.reach.as_ref().map_or(!has_reach, MpReach::is_empty)
    }

    /// Puts back what a two-octet speaker could not say (RFC 6793 section 4.2.3).
    fn meet_old_speaker(&mut self, width: AsWidth) {
        self.unknown.sort_by_key(|attribute| attribute.kind);
        self.extra.unknown = std::mem::take(&mut self.unknown).into();
        if width == AsWidth::Four {
            return;
        }
        match (self.extra.aggregator, self.as4_aggregator) {
            (Some((narrow, _)), Some(_)) if narrow != AsNumber::TRANS => return,
            (Some(_), Some(wide)) => self.extra.aggregator = Some(wide),
            _ => {}
        }
        if let (Some(path), Some(wide)) = (&self.as_path, &self.as4_path) {
            let merged = path.merged_with(wide);
            if merged.is_too_long() {
                self.faults
                    .push(DecodeError::withdraw(Some(code::AS4_PATH), "the whole AS path is too long"));
            }
            self.as_path = Some(merged);
        }
    }

    /// Puts the attributes together, or says which mandatory one is missing.
    pub(crate) fn assemble(self, next_hop: Option<IpAddr>) -> Result<Attributes, DecodeError> {
        let missing = |kind| DecodeError::withdraw(Some(kind), "the attribute is mandatory and missing");
        let mut attributes = Attributes::originated(next_hop.ok_or(missing(code::NEXT_HOP))?);
        attributes.origin = self.origin.ok_or(missing(code::ORIGIN))?;
        attributes.as_path = self.as_path.ok_or(missing(code::AS_PATH))?;
        attributes.med = self.med;
        attributes.local_pref = self.local_pref;
        attributes.change_extra(|extra| *extra = self.extra);
        Ok(attributes)
    }
}

fn family(afi: u16, safi: u8) -> Option<Family> {
    match (afi, safi) {
        (1, 1) => Some(Family::V4),
        (2, 1) => Some(Family::V6),
        _ => None,
    }
}

fn first_address<A: Address>(octets: &[u8]) -> IpAddr {
    A::from_octets(octets, A::BITS).into()
}

fn large(octets: &[u8; 12]) -> [u32; 3] {
    let mut reader = Reader::new(octets);
    std::array::from_fn(|_| reader.u32().unwrap_or_default())
}

fn aggregator(value: &[u8], kind: u8, width: AsWidth) -> Result<(AsNumber, Ipv4Addr), DecodeError> {
    let mut reader = Reader::new(value);
    let asn = match width {
        AsWidth::Two => reader.u16().map(u32::from),
        AsWidth::Four => reader.u32(),
    };
    let fault = |problem| DecodeError::discard(kind, problem);
    match (asn, reader.array::<4>(), reader.is_empty()) {
        (Some(asn), Some(addr), true) => {
            Ok((AsNumber::new(asn).ok_or(fault("the aggregator is AS 0"))?, addr.into()))
        }
        _ => Err(fault("the length is wrong")),
    }
}

/// Reports whether packets can be sent to the address at all (RFC 4271 section 6.3). A link-local one without its interface
/// is no address to route to, whoever it is told on to; it may only follow a global one (RFC 2545 section 3).
fn is_next_hop(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_routable(<Ipv4Addr as Address>::BITS),
        IpAddr::V6(v6) => v6.is_routable(<Ipv6Addr as Address>::BITS),
    }
}
