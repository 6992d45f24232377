//! Next hops that can be reached or not, as whoever embeds the speaker tells.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use super::Speaker;
use super::export::{Tables, World};
use super::journal::{Changes, Journal};
use crate::decision::{NextHops, Sources};
use crate::rib::{Path, Tabled};

impl Speaker {
    /// Makes this what is known of next hops. Routes by way of one that cannot be reached stay in the tables, but are neither
    /// chosen nor told until it can be (RFC 4271 section 9.1.2.1); of routes that are as good otherwise, the one whose next
    /// hop is nearer is chosen (9.1.2.2 e). Routes that begin here are not judged.
    ///
    /// What is said must not depend on what was chosen, or a choice undoes itself: it is to be about the next hops of all
    /// [`Speaker::routes`], not of [`Speaker::learned`] alone, by routes that did not come from this speaker. The addresses
    /// of the machine itself can be reached.
    pub fn set_next_hops(&mut self, next_hops: NextHops, now: Instant) {
        let changed = next_hops.differences(&self.tables.sources.next_hops);
        if changed.is_empty() {
            return;
        }
        if self.deferral.is_none() {
            self.round(now);
        }
        let (before, touched) = self.tables.set_next_hops(next_hops, &changed);
        if self.deferral.is_some() || touched.is_empty() {
            return;
        }
        self.choice_changed = true;
        let after = self.tables.world();
        let before = World { sources: &before, ..after };
        self.groups.values_mut().for_each(|group| group.round(&touched, &before, &after));
        self.wake_waiting(now);
    }
}

impl Tables {
    /// Chooses by what is known now; returns what was known until now, and the destinations with paths by way of next hops
    /// of which something else is known.
    pub(super) fn set_next_hops(
        &mut self,
        next_hops: NextHops,
        changed: &BTreeSet<IpAddr>,
    ) -> (Sources, Journal) {
        let leads_by = |path: &Path| changed.contains(&path.attributes.next_hop());
        let touched = Journal::of(&self.rib, |_, paths| paths.iter().any(leads_by));
        let before = self.sources.clone();
        self.sources.next_hops = next_hops;
        self.choose_again::<Ipv4Addr>(&touched.v4);
        self.choose_again::<Ipv6Addr>(&touched.v6);
        (before, touched)
    }

    fn choose_again<A: Tabled>(&mut self, touched: &Changes<A>) {
        let table = A::table_mut(&mut self.rib);
        touched.best.iter().for_each(|(prefix, _)| table.choose_again(*prefix, &self.sources));
    }
}
