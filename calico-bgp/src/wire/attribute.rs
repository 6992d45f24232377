//! Path attributes: what a route is, apart from where it goes (RFC 4271 section 5). Unknown transitive ones are kept
//! and passed on with the partial bit set.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use calico_model::{AsNumber, Community};

use super::as_path::{AsPath, AsWidth};

pub(crate) mod code {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
    pub(crate) const ONLY_TO_CUSTOMER: u8 = 35;
}

pub(crate) mod flag {
    pub(crate) const OPTIONAL: u8 = 0x80;
    pub(crate) const TRANSITIVE: u8 = 0x40;
    pub(crate) const PARTIAL: u8 = 0x20;
    pub(crate) const EXTENDED: u8 = 0x10;
}

/// Where a route began (RFC 4271 section 5.1.1), best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Inside the AS that originated it.
    Igp,
    /// By EGP.
    Egp,
    /// By some other means.
    Incomplete,
}

impl Origin {
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Igp),
            1 => Some(Self::Egp),
            2 => Some(Self::Incomplete),
            _ => None,
        }
    }
}

/// The attributes of a route. Two routes with equal attributes share one copy in the tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// Where the route began.
    pub origin: Origin,
    /// The autonomous systems it came through.
    pub as_path: AsPath,
    /// Where packets go. IPv6 for an IPv4 route where RFC 8950 was agreed.
    pub next_hop: IpAddr,
    /// MULTI_EXIT_DISC, lower is better, compared inside one neighbouring AS only.
    pub med: Option<u32>,
    /// LOCAL_PREF, higher is better, inside the own AS only.
    pub local_pref: Option<u32>,
    extra: Option<Box<Extra>>,
}

/// The attributes that most routes do without.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Extra {
    /// ATOMIC_AGGREGATE is there.
    pub atomic_aggregate: Option<AtomicAggregate>,
    /// Who aggregated the route.
    pub aggregator: Option<(AsNumber, Ipv4Addr)>,
    /// Standard communities (RFC 1997), as numbers.
    pub communities: Box<[u32]>,
    /// Extended communities (RFC 4360), as numbers.
    pub extended_communities: Box<[u64]>,
    /// Large communities (RFC 8092).
    pub large_communities: Box<[[u32; 3]]>,
    /// Who brought the route into the AS, set by a reflector (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// The clusters the route was reflected through, nearest first (RFC 4456).
    pub cluster_list: Box<[Ipv4Addr]>,
    /// Only To Customer (RFC 9234).
    pub only_to_customer: Option<u32>,
    /// Transitive attributes that we do not know, in ascending order of type.
    pub unknown: Box<[UnknownAttribute]>,
    /// Which of the above some speaker before us passed on without knowing it.
    pub partial: Partial,
}

/// The types of attributes that came with the partial bit, which nobody may take from them (RFC 4271 section 5): those of
/// optional transitive ones that we know. The others have their flags beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Partial(u64);

impl Partial {
    /// Marks an attribute by its type.
    #[must_use]
    pub fn and(self, kind: u8) -> Self {
        Self(self.0 | 1u64.checked_shl(kind.into()).unwrap_or(0))
    }

    /// Reports whether the attribute of this type is marked.
    #[must_use]
    pub fn contains(self, kind: u8) -> bool {
        self.0.checked_shr(kind.into()).is_some_and(|marks| marks & 1 != 0)
    }
}

impl Extra {
    /// Takes the marks from attributes that are not there, or keep their own.
    fn forget_marks(&mut self) {
        let there = [
            (code::AGGREGATOR, self.aggregator.is_some()),
            (code::COMMUNITIES, !self.communities.is_empty()),
            (code::EXTENDED_COMMUNITIES, !self.extended_communities.is_empty()),
            (code::LARGE_COMMUNITIES, !self.large_communities.is_empty()),
            (code::ONLY_TO_CUSTOMER, self.only_to_customer.is_some()),
        ];
        let marked = there.iter().filter(|(kind, there)| *there && self.partial.contains(*kind));
        self.partial = marked.fold(Partial::default(), |partial, (kind, _)| partial.and(*kind));
    }

    /// Takes out the extended communities that stay inside the AS (RFC 4360 section 6, RFC 5701 section 2).
    pub(crate) fn leave_as(&mut self) {
        const STAYS: u8 = 0x40;
        let passes = |community: &u64| community.to_be_bytes()[0] & STAYS == 0;
        self.extended_communities = self.extended_communities.iter().copied().filter(passes).collect();
        let is_ipv6 = |attribute: &UnknownAttribute| attribute.kind == code::IPV6_EXTENDED_COMMUNITIES;
        if let Some(at) = self.unknown.iter().position(is_ipv6) {
            let mut all = std::mem::take(&mut self.unknown).into_vec();
            let (communities, _) = all[at].value.as_chunks::<20>();
            let passing: Vec<[u8; 20]> = communities.iter().filter(|c| c[0] & STAYS == 0).copied().collect();
            if passing.is_empty() {
                all.remove(at);
            } else {
                all[at].value = passing.concat().into();
            }
            self.unknown = all.into();
        }
    }
}

/// The mark that more specific routes were left out (RFC 4271 section 5.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AtomicAggregate;

/// A transitive attribute of a type that we do not know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnknownAttribute {
    /// The flags to send: optional, transitive, and partial once it passed us.
    pub flags: u8,
    /// The type.
    pub kind: u8,
    /// The value.
    pub value: Box<[u8]>,
}

/// The mark on routes that outlived the restart time of whoever told them (RFC 9494 section 4.3).
pub(crate) const LLGR_STALE: u32 = 0xffff_0006;
/// The mark on routes that must not (RFC 9494 section 4.4).
pub(crate) const NO_LLGR: u32 = 0xffff_0007;

static NOTHING: LazyLock<Extra> = LazyLock::new(Extra::default);

impl Attributes {
    /// Makes the attributes of a route that begins here.
    #[must_use]
    pub fn originated(next_hop: IpAddr) -> Self {
        Self {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            next_hop,
            med: None,
            local_pref: None,
            extra: None,
        }
    }

    /// Returns the rarer attributes.
    #[must_use]
    pub fn extra(&self) -> &Extra {
        self.extra.as_deref().unwrap_or(&NOTHING)
    }

    /// Changes the rarer attributes.
    pub fn change_extra(&mut self, change: impl FnOnce(&mut Extra)) {
        let mut extra = self.extra.take().unwrap_or_default();
        change(&mut extra);
        extra.forget_marks();
        self.extra = (*extra != *NOTHING).then_some(extra);
    }

    /// Returns the standard and large communities in ascending order.
    #[must_use]
    pub fn communities(&self) -> Vec<Community> {
        let extra = self.extra();
        let standard =
            extra.communities.iter().map(|c| Community::Standard((c >> 16) as u16, (c & 0xffff) as u16));
        let large = extra.large_communities.iter().map(|[a, b, c]| Community::Large(*a, *b, *c));
        let mut all: Vec<Community> = standard.chain(large).collect();
        all.sort_unstable();
        all
    }

    /// Adds communities that are not there yet.
    pub fn add_communities(&mut self, communities: &[Community]) {
        if communities.is_empty() {
            return;
        }
        self.change_extra(|extra| {
            let mut standard = extra.communities.to_vec();
            let mut large = extra.large_communities.to_vec();
            for community in communities {
                match *community {
                    Community::Standard(a, b) => standard.push(u32::from(a) << 16 | u32::from(b)),
                    Community::Large(a, b, c) => large.push([a, b, c]),
                }
            }
            extra.communities = sorted(standard);
            extra.large_communities = sorted(large);
        });
    }

    /// Reports whether a standard or large community is there.
    #[must_use]
    pub fn carries(&self, community: Community) -> bool {
        match community {
            Community::Standard(a, b) => self.has_community(u32::from(a) << 16 | u32::from(b)),
            Community::Large(a, b, c) => self.extra().large_communities.contains(&[a, b, c]),
        }
    }

    /// Reports whether a standard community is there.
    #[must_use]
    pub fn has_community(&self, community: u32) -> bool {
        self.extra().communities.contains(&community)
    }

    /// Reports whether the route outlived the restart time of whoever told it (RFC 9494 section 4.3).
    #[must_use]
    pub fn is_long_lived_stale(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.communities.contains(&LLGR_STALE))
    }

    /// Reports whether a list is longer than an attribute's length can say. What comes in is not, and what is added to it can
    /// make it so.
    pub(crate) fn overflow(&self) -> bool {
        let extra = self.extra();
        let most = usize::from(u16::MAX);
        self.as_path.is_too_long()
            || size_of_val(&*extra.communities) > most
            || size_of_val(&*extra.large_communities) > most
            || size_of_val(&*extra.extended_communities) > most
            || size_of_val(&*extra.cluster_list) > most
            || extra.unknown.iter().any(|unknown| unknown.value.len() > most)
    }

    /// Appends the wire form without the multiprotocol attributes, in ascending order of type.
    pub(crate) fn encode(&self, width: AsWidth, next_hop: NextHopAttribute, out: &mut Vec<u8>) {
        use code::*;
        use flag::*;
        let extra = self.extra();
        let passed_on = |kind| OPTIONAL | TRANSITIVE | if extra.partial.contains(kind) { PARTIAL } else { 0 };
        put(out, TRANSITIVE, ORIGIN, &[self.origin as u8]);
        put_with(out, TRANSITIVE, AS_PATH, |out| self.as_path.encode(width, out));
        if let (NextHopAttribute::Write, IpAddr::V4(next_hop)) = (next_hop, self.next_hop) {
            put(out, TRANSITIVE, NEXT_HOP, &next_hop.octets());
        }
        if let Some(med) = self.med {
            put(out, OPTIONAL, MED, &med.to_be_bytes());
        }
        if let Some(local_pref) = self.local_pref {
            put(out, TRANSITIVE, LOCAL_PREF, &local_pref.to_be_bytes());
        }
        if extra.atomic_aggregate.is_some() {
            put(out, TRANSITIVE, ATOMIC_AGGREGATE, &[]);
        }
        let narrow_aggregator = extra.aggregator.map(|(asn, _)| u16::try_from(asn.get()));
        if let Some((asn, addr)) = extra.aggregator {
            put_with(out, passed_on(AGGREGATOR), AGGREGATOR, |out| {
                match width {
                    AsWidth::Four => out.extend_from_slice(&asn.get().to_be_bytes()),
                    AsWidth::Two => {
                        let narrow = u16::try_from(asn.get()).unwrap_or(AsNumber::TRANS.get() as u16);
                        out.extend_from_slice(&narrow.to_be_bytes());
                    }
                }
                out.extend_from_slice(&addr.octets());
            });
        }
        put_list(out, passed_on(COMMUNITIES), COMMUNITIES, &extra.communities, |c, out| {
            out.extend_from_slice(&c.to_be_bytes());
        });
        if let Some(originator) = extra.originator_id {
            put(out, OPTIONAL, ORIGINATOR_ID, &originator.octets());
        }
        if !extra.cluster_list.is_empty() {
            put_with(out, OPTIONAL, CLUSTER_LIST, |out| {
                extra.cluster_list.iter().for_each(|id| out.extend_from_slice(&id.octets()));
            });
        }
        put_list(
            out,
            passed_on(EXTENDED_COMMUNITIES),
            EXTENDED_COMMUNITIES,
            &extra.extended_communities,
            |c, out| {
                out.extend_from_slice(&c.to_be_bytes());
            },
        );
        if width == AsWidth::Two && self.as_path.has_wide_numbers() {
            put_with(out, OPTIONAL | TRANSITIVE, AS4_PATH, |out| self.as_path.encode(AsWidth::Four, out));
        }
        if let (AsWidth::Two, Some(Err(_)), Some((asn, addr))) = (width, narrow_aggregator, extra.aggregator)
        {
            put_with(out, OPTIONAL | TRANSITIVE, AS4_AGGREGATOR, |out| {
                out.extend_from_slice(&asn.get().to_be_bytes());
                out.extend_from_slice(&addr.octets());
            });
        }
        put_list(
            out,
            passed_on(LARGE_COMMUNITIES),
            LARGE_COMMUNITIES,
            &extra.large_communities,
            |parts, out| {
                parts.iter().for_each(|part| out.extend_from_slice(&part.to_be_bytes()));
            },
        );
        if let Some(asn) = extra.only_to_customer {
            put(out, passed_on(ONLY_TO_CUSTOMER), ONLY_TO_CUSTOMER, &asn.to_be_bytes());
        }
        for unknown in &extra.unknown {
            put(out, unknown.flags, unknown.kind, &unknown.value);
        }
    }
}

/// Whether the NEXT_HOP attribute is written, or the next hop goes into MP_REACH_NLRI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextHopAttribute {
    Write,
    Omit,
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Box<[T]> {
    values.sort_unstable();
    values.dedup();
    values.into()
}

fn put_list<T>(out: &mut Vec<u8>, flags: u8, kind: u8, values: &[T], write: impl Fn(&T, &mut Vec<u8>)) {
    if !values.is_empty() {
        put_with(out, flags, kind, |out| values.iter().for_each(|v| write(v, out)));
    }
}

/// Appends an attribute; the extended length is used only when it is needed.
pub(crate) fn put(out: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(len) => out.extend_from_slice(&[flags & !flag::EXTENDED, kind, len]),
        Err(_) => {
            out.extend_from_slice(&[flags | flag::EXTENDED, kind]);
            out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(value);
}

fn put_with(out: &mut Vec<u8>, flags: u8, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[flags, kind, 0]);
    write(out);
    let len = out.len() - start - 3;
    match u8::try_from(len) {
        Ok(len) => out[start + 2] = len,
        Err(_) => {
            out[start] |= flag::EXTENDED;
            let [high, low] = (len as u16).to_be_bytes();
            out[start + 2] = high;
            out.insert(start + 3, low);
        }
    }
}
