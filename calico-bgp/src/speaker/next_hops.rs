//! Next hops that can be reached or not, by what whoever embeds the speaker tells of the machine.
//!
//! ```text
//!   routes of others, links ─ Reachability ─┐
//!                                           ├─▶ what is known of each next hop ─▶ the choice, and what is told
//!   all paths that cover it, chosen or not ─┘
//! ```
//!
//! What is known of a next hop does not depend on what was chosen, or a choice would undo itself. A next hop is asked about
//! before the first path by way of it is taken in, so none is told that has to be taken back. Of those that the machine's own
//! routes do not lead to, a path that comes or goes has only the ones asked about again that it covers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use calico_model::Cidr;

use super::Speaker;
use super::journal::{Changes, Journal};
use super::world::{Former, Tables};
use crate::decision::{NextHop, NextHops, Reachability, Sources};
use crate::rib::{Path, PeerId, Tabled};
use crate::wire::Prefix;

/// Which next hops were asked about, and which are to be asked about again. Empty as long as there is nobody to ask.
#[derive(Debug, Default)]
pub(super) struct Asked {
    reachability: Option<Reachability>,
    /// Those that the machine's own routes lead to, and those of which nothing can be said.
    led: BTreeSet<IpAddr>,
    /// Those that a path has to lead to.
    lost: BTreeSet<IpAddr>,
    /// Those of the latter that are covered by a path which came or went.
    due: BTreeSet<IpAddr>,
    /// At how many next hops those are forgotten that no path has any more.
    sweep_at: usize,
}

/// Forgetting is not worth it below this many.
const SMALLEST_SWEEP: usize = 1024;

impl Asked {
    pub(super) fn has_work(&self) -> bool {
        !self.due.is_empty()
    }

    /// Reports whether there are next hops that the machine's own routes do not lead to.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Notes that a path to a destination came or went.
    pub(super) fn changed(&mut self, destination: Cidr) {
        if !self.lost.is_empty() {
            self.due.extend(self.lost.range(destination.addr()..=destination.last()));
        }
    }

    /// Asks about a next hop anew.
    fn ask(&mut self, hop: IpAddr) -> NextHop {
        let reachability = self.reachability.as_ref().filter(|_| is_judged(hop));
        let way = reachability.map_or(NextHop::ON_LINK, |reachability| reachability.of(hop));
        match way {
            NextHop::Unreachable => self.lost.insert(hop),
            NextHop::Cost(_) => self.led.insert(hop),
        };
        way
    }
}

/// Reports whether something can be said of a next hop: which link the link-local ones are on nobody knows.
fn is_judged(hop: IpAddr) -> bool {
    match hop {
        IpAddr::V4(v4) => !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_unicast_link_local(),
    }
}

impl Speaker {
    /// Judges next hops by where the machine's own routes lead from now on; without a word on that, all can be reached.
    ///
    /// A next hop to which none of those leads can be reached all the same where a path in the tables covers it, chosen or
    /// not, to whose own next hop one of them leads: one step and no further, at the cost of
    /// [`BEHIND_GATEWAY`](NextHop::BEHIND_GATEWAY). Paths by way of a next hop that cannot be reached stay in the tables, but
    /// are neither chosen nor told until it can be (RFC 4271 section 9.1.2.1); of paths that are as good otherwise, the one
    /// whose next hop is nearer is chosen (9.1.2.2 e). Routes that begin here are not judged, and neither are link-local and
    /// unspecified next hops.
    ///
    /// What `reachability` says must not depend on what this speaker chose. It is asked about every next hop before a path by
    /// way of it is chosen, and about all again when this is called; no session notices.
    pub fn set_reachability(&mut self, reachability: Option<Reachability>, now: Instant) {
        let hops = if reachability.is_some() { self.interner.next_hops() } else { BTreeSet::new() };
        self.asked = Asked { reachability, sweep_at: hops.len() * 2, ..Asked::default() };
        let mut known: NextHops = hops.into_iter().map(|hop| (hop, self.asked.ask(hop))).collect();
        self.asked.lost.iter().for_each(|hop| known.set(*hop, self.tables.over_paths(*hop, &self.asked.led)));
        self.know(known, now);
    }

    /// Asks about a next hop of which nothing is known yet; no path has it.
    pub(super) fn hear_of(&mut self, hop: IpAddr) {
        let asked = &mut self.asked;
        if asked.reachability.is_none() || asked.led.contains(&hop) || asked.lost.contains(&hop) {
            return;
        }
        if asked.led.len() + asked.lost.len() >= asked.sweep_at.max(SMALLEST_SWEEP) {
            let used = self.interner.next_hops();
            [&mut asked.led, &mut asked.lost, &mut asked.due]
                .into_iter()
                .for_each(|hops| hops.retain(|hop| used.contains(hop)));
            self.tables.sources.next_hops.keep(&used);
            asked.sweep_at = used.len() * 2;
        }
        let way = match asked.ask(hop) {
            NextHop::Unreachable => self.tables.over_paths(hop, &asked.led),
            way @ NextHop::Cost(_) => way,
        };
        self.tables.sources.next_hops.set(hop, way);
    }

    /// Asks again about the next hops that are covered by paths which came or went.
    pub(super) fn ask_about_covered(&mut self, now: Instant) {
        let due = std::mem::take(&mut self.asked.due);
        if !due.is_empty() {
            let mut known = self.tables.sources.next_hops.clone();
            due.into_iter().for_each(|hop| known.set(hop, self.tables.over_paths(hop, &self.asked.led)));
            self.know(known, now);
        }
    }

    /// Chooses and tells by what is known of next hops now.
    fn know(&mut self, next_hops: NextHops, now: Instant) {
        let changed = next_hops.differences(&self.tables.sources.next_hops);
        if changed.is_empty() {
            return;
        }
        self.unreached.take();
        let change = |tables: &mut Tables| {
            let (before, touched) = tables.set_next_hops(next_hops, &changed);
            (Former::Sources(before), touched)
        };
        self.change_world(change, now);
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

    /// Says whether a next hop can be reached by way of a path that covers it and whose own next hop is led to.
    fn over_paths(&self, hop: IpAddr, led: &BTreeSet<IpAddr>) -> NextHop {
        let covered = match hop {
            IpAddr::V4(v4) => self.is_covered(v4, led),
            IpAddr::V6(v6) => self.is_covered(v6, led),
        };
        if covered { NextHop::BEHIND_GATEWAY } else { NextHop::Unreachable }
    }

    fn is_covered<A: Tabled>(&self, hop: A, led: &BTreeSet<IpAddr>) -> bool {
        let table = A::table(&self.rib);
        let leads = |path: &Path| {
            let by = path.attributes.next_hop();
            path.peer() != PeerId::LOCAL && led.contains(&by) && is_judged(by)
        };
        let mut around = (0..=A::BITS).rev().filter_map(|len| Prefix::of(Cidr::holding(hop.into(), len)?));
        around.any(|prefix| table.paths(prefix).iter().any(leads))
    }
}
