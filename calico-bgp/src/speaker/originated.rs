//! The prefixes that begin here.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use calico_model::{Cidr, Family};

use super::Speaker;
use super::config::{Extent, Origination};
use super::feed::Fed;
use crate::rib::{Path, PeerId};
use crate::wire::{self, Attributes};

impl Speaker {
    /// Makes these the prefixes that begin here.
    pub fn set_originated(&mut self, prefixes: BTreeMap<Cidr, Origination>, now: Instant) {
        if let Some(deferral) = &mut self.deferral {
            deferral.origins_known();
        }
        let blocks = prefixes.iter().filter(|(_, how)| how.extent == Extent::Block);
        self.set_own(blocks.map(|(cidr, _)| *cidr).collect(), now);
        let old = std::mem::replace(&mut self.originated, prefixes);
        for cidr in old.keys().filter(|cidr| !self.originated.contains_key(cidr)).copied().collect::<Vec<_>>()
        {
            match cidr.family() {
                Family::V4 => self.withdraw_own::<Ipv4Addr>(cidr),
                Family::V6 => self.withdraw_own::<Ipv6Addr>(cidr),
            }
        }
        let changed: Vec<(Cidr, Origination)> = self
            .originated
            .iter()
            .filter(|(cidr, how)| old.get(cidr) != Some(how))
            .map(|(cidr, how)| (*cidr, how.clone()))
            .collect();
        for (cidr, how) in changed {
            let unset = Origination::unset_next_hop(cidr.family());
            let mut attributes = Attributes::originated(how.next_hop.unwrap_or(unset));
            attributes.local_pref = Some(how.local_pref);
            attributes.add_communities(&how.communities);
            match cidr.family() {
                Family::V4 => self.announce_own::<Ipv4Addr>(cidr, attributes),
                Family::V6 => self.announce_own::<Ipv6Addr>(cidr, attributes),
            }
        }
        self.advance(now);
    }

    fn announce_own<A: Fed>(&mut self, cidr: Cidr, attributes: Attributes) {
        let Some(prefix) = wire::Prefix::<A>::of(cidr) else { return };
        let Some(attributes) = self.interner.intern(&attributes) else { return self.withdraw_own::<A>(cidr) };
        let path = Path::new(attributes, PeerId::LOCAL, 0);
        let effect = A::table_mut(&mut self.tables.rib).insert(prefix, path, &self.tables.sources);
        self.note(PeerId::LOCAL, prefix, 0, effect);
    }

    fn withdraw_own<A: Fed>(&mut self, cidr: Cidr) {
        let Some(prefix) = wire::Prefix::<A>::of(cidr) else { return };
        let effect =
            A::table_mut(&mut self.tables.rib).remove(prefix, PeerId::LOCAL, 0, &self.tables.sources);
        self.note(PeerId::LOCAL, prefix, 0, effect);
    }
}
