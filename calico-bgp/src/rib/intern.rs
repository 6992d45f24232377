//! Attributes as the tables hold them: equal ones are one copy, so that comparing is comparing addresses, and each
//! takes little more than its octets on the wire.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::decision::DEFAULT_LOCAL_PREF;
use crate::session::Peering;
use crate::wire::{AsWidth, Attributes, Dialect, Origin, attribute, decode};

/// A set of attributes: what every choice looks at, and the whole in its wire form.
#[derive(Debug, PartialEq, Eq)]
pub struct Packed {
    /// LOCAL_PREF, or what counts without one.
    pub(crate) preference: u32,
    /// MULTI_EXIT_DISC, or what counts without one.
    pub(crate) med: u32,
    /// The length of the AS path as it is compared.
    pub(crate) hops: u16,
    /// How many clusters the route was reflected through.
    pub(crate) clusters: u16,
    /// The neighbouring AS; none for routes of the own AS.
    pub(crate) neighbor: Option<NonZeroU32>,
    pub(crate) originator: Option<Ipv4Addr>,
    pub(crate) origin: Origin,
    marks: u8,
    /// The next hop in 4 or 16 octets after their number, then the other attributes as they are on the wire.
    octets: Box<[u8]>,
}

/// What is there or not, each in a bit.
mod mark {
    pub(super) const LOCAL_PREF: u8 = 1;
    pub(super) const NO_EXPORT: u8 = 2;
    pub(super) const NO_ADVERTISE: u8 = 4;
    pub(super) const ONLY_TO_CUSTOMER: u8 = 8;
    pub(super) const LONG_LIVED_STALE: u8 = 16;
}

const NO_EXPORT: u32 = 0xffff_ff01;
const NO_ADVERTISE: u32 = 0xffff_ff02;
const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;

impl Packed {
    fn of(attributes: &Attributes, octets: Box<[u8]>) -> Self {
        let extra = attributes.extra();
        let inside = attributes.has_community(NO_EXPORT) || attributes.has_community(NO_EXPORT_SUBCONFED);
        let marks = [
            (attributes.local_pref.is_some(), mark::LOCAL_PREF),
            (inside, mark::NO_EXPORT),
            (attributes.has_community(NO_ADVERTISE), mark::NO_ADVERTISE),
            (extra.only_to_customer.is_some(), mark::ONLY_TO_CUSTOMER),
            (attributes.is_long_lived_stale(), mark::LONG_LIVED_STALE),
        ];
        Self {
            preference: attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            med: attributes.med.unwrap_or(0),
            hops: u16::try_from(attributes.as_path.hops()).unwrap_or(u16::MAX),
            clusters: u16::try_from(extra.cluster_list.len()).unwrap_or(u16::MAX),
            neighbor: attributes.as_path.neighbor().and_then(NonZeroU32::new),
            originator: extra.originator_id,
            origin: attributes.origin,
            marks: marks.iter().filter(|(there, _)| *there).map(|(_, mark)| mark).sum(),
            octets,
        }
    }

    pub(crate) fn local_pref(&self) -> Option<u32> {
        (self.marks & mark::LOCAL_PREF != 0).then_some(self.preference)
    }

    /// Reports whether the route must not leave the own AS (RFC 1997).
    pub(crate) fn is_for_own_as(&self) -> bool {
        self.marks & mark::NO_EXPORT != 0
    }

    /// Reports whether the route must not be passed on at all (RFC 1997).
    pub(crate) fn is_for_nobody(&self) -> bool {
        self.marks & mark::NO_ADVERTISE != 0
    }

    /// Reports whether the route is for customers only (RFC 9234).
    pub(crate) fn is_for_customers(&self) -> bool {
        self.marks & mark::ONLY_TO_CUSTOMER != 0
    }

    /// Reports whether the route outlives its teller's session by far (RFC 9494).
    pub(crate) fn is_long_lived_stale(&self) -> bool {
        self.marks & mark::LONG_LIVED_STALE != 0
    }

    /// Returns the next hop.
    #[must_use]
    pub fn next_hop(&self) -> IpAddr {
        self.split().0
    }

    /// Returns how many octets they are, about as many as on the wire.
    pub(crate) fn octets(&self) -> usize {
        self.octets.len()
    }

    /// Returns the whole.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        let (next_hop, rest) = self.split();
        // Our own octets, of attributes that were whole: the alternatives cannot be.
        let decoded = decode::attributes(rest, &Dialect::plain(Peering::Internal)).ok();
        let whole = decoded.and_then(|decoded| decoded.assemble(Some(next_hop)).ok());
        whole.unwrap_or_else(|| Attributes::originated(next_hop))
    }

    fn split(&self) -> (IpAddr, &[u8]) {
        match &*self.octets {
            [4, a, b, c, d, rest @ ..] => (Ipv4Addr::new(*a, *b, *c, *d).into(), rest),
            octets => match octets.get(1..).and_then(<[u8]>::split_first_chunk::<16>) {
                Some((address, rest)) => (Ipv6Addr::from(*address).into(), rest),
                None => (Ipv4Addr::UNSPECIFIED.into(), &[]),
            },
        }
    }
}

fn pack(attributes: &Attributes, octets: &mut Vec<u8>) {
    match attributes.next_hop {
        IpAddr::V4(v4) => {
            octets.push(4);
            octets.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            octets.push(16);
            octets.extend_from_slice(&v6.octets());
        }
    }
    attributes.encode(AsWidth::Four, attribute::NextHopAttribute::Omit, octets);
}

/// A held set, found by its octets.
#[derive(Debug)]
struct Key(Arc<Packed>);

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0.octets
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.octets.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.octets == other.0.octets
    }
}

impl Eq for Key {}

/// Every set of attributes in use.
#[derive(Debug, Default)]
pub struct Interner {
    held: HashSet<Key>,
    sweep_at: usize,
    scratch: Vec<u8>,
}

/// Sweeping is not worth it below this many.
const SMALLEST_SWEEP: usize = 1024;

impl Interner {
    /// Returns the one copy of these attributes, or `None` when one of them is longer than any message can tell.
    pub fn intern(&mut self, attributes: &Attributes) -> Option<Arc<Packed>> {
        self.scratch.clear();
        pack(attributes, &mut self.scratch);
        if self.scratch.len() > usize::from(u16::MAX) && attributes.overflow() {
            return None;
        }
        if let Some(held) = self.held.get(&self.scratch[..]) {
            return Some(held.0.clone());
        }
        if self.held.len() >= self.sweep_at.max(SMALLEST_SWEEP) {
            self.sweep();
        }
        let packed = Arc::new(Packed::of(attributes, self.scratch[..].into()));
        self.held.insert(Key(packed.clone()));
        Some(packed)
    }

    /// Forgets what nobody uses any more; the next sweep is due when twice as many are held.
    fn sweep(&mut self) {
        self.held.retain(|key| Arc::strong_count(&key.0) > 1);
        self.sweep_at = self.held.len() * 2;
    }

    /// Returns the next hops of all sets that are used: few beside the routes that have them.
    pub(crate) fn next_hops(&self) -> BTreeSet<IpAddr> {
        let used = self.held.iter().filter(|key| Arc::strong_count(&key.0) > 1);
        used.map(|key| key.0.next_hop()).collect()
    }

    /// Returns how many sets are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Reports whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use calico_model::AsNumber;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::AsPath;
    use crate::wire::tests::any_attributes;

    fn attributes(med: u32) -> Attributes {
        let mut attributes = Attributes::originated("10.0.0.1".parse().unwrap());
        attributes.med = Some(med);
        attributes
    }

    #[test]
    fn equal_attributes_are_one_copy_and_unused_ones_do_not_pile_up() {
        let mut interner = Interner::default();
        let kept = interner.intern(&attributes(1)).unwrap();
        for med in 0..100_000 {
            let again = interner.intern(&attributes(1)).unwrap();
            assert!(Arc::ptr_eq(&kept, &again));
            interner.intern(&attributes(med));
        }
        assert!(interner.len() <= 2 * SMALLEST_SWEEP);
    }

    #[test]
    fn attributes_longer_than_any_message_can_tell_are_not_taken() {
        let mut interner = Interner::default();
        let mut long = attributes(1);
        let numbers: Vec<AsNumber> = (1..=64 * 255).filter_map(AsNumber::new).collect();
        long.as_path = AsPath::sequence(&numbers);
        assert_eq!(interner.intern(&long).unwrap().attributes(), long, "64 segments of 1,022 octets");
        long.change_extra(|extra| extra.communities = (0..16_383).collect());
        assert_eq!(interner.intern(&long).unwrap().attributes(), long, "each attribute for itself");
        let mut more = long.clone();
        more.change_extra(|extra| extra.communities = (0..16_384).collect());
        assert!(interner.intern(&more).is_none());
        let one = AsNumber::new(1).unwrap();
        let prepended = |path: &AsPath, times| (0..times).fold(path.clone(), |path, _| path.prepend(one));
        long.as_path = prepended(&long.as_path, 31);
        assert_eq!(interner.intern(&long).unwrap().attributes(), long, "and one more segment of 126 octets");
        long.as_path = prepended(&long.as_path, 1);
        assert!(interner.intern(&long).is_none());
    }

    #[test]
    fn a_set_is_as_small_as_the_memory_budget_says() {
        assert!(size_of::<Packed>() <= 40);
    }

    fn any_next_hop() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<Ipv4Addr>().prop_map(IpAddr::V4), any::<Ipv6Addr>().prop_map(IpAddr::V6)]
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(attributes in any_next_hop().prop_flat_map(any_attributes)) {
            let packed = Interner::default().intern(&attributes).unwrap();
            prop_assert_eq!(packed.next_hop(), attributes.next_hop);
            prop_assert_eq!(packed.attributes(), attributes);
        }
    }
}
