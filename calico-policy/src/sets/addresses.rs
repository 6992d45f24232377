//! The addresses that several members may hold at once, some inside others.
//!
//! A kernel's interval set takes no two intervals that overlap. So a network inside another of the set is hidden, and shown when
//! the wider one leaves. As long as all are single addresses nothing can overlap, and the set is a hash set.

use std::collections::{BTreeMap, BTreeSet};

use calico_model::{Cidr, Family};

use crate::output::Output;
use crate::ruleset::{Element, Elements, Set, SetKind, SetName};

#[derive(Debug)]
pub(super) struct Addresses {
    family: Family,
    /// How often a network is held beyond once.
    more: BTreeMap<Cidr, u32>,
    /// What is held inside something wider.
    hidden: BTreeSet<Cidr>,
    /// How many different networks are held that are no single address.
    networks: usize,
    /// Whether the set is an interval set.
    intervals: bool,
}

impl Addresses {
    /// Makes the set of some networks, each as often as it is held.
    pub(super) fn of(mut nets: Vec<Cidr>, family: Family) -> (Self, Set) {
        nets.sort_unstable();
        let mut addresses =
            Self { family, more: BTreeMap::new(), hidden: BTreeSet::new(), networks: 0, intervals: false };
        let mut distinct = nets.clone();
        distinct.dedup();
        if distinct.len() < nets.len() {
            for pair in nets.windows(2).filter(|pair| pair[0] == pair[1]) {
                *addresses.more.entry(pair[0]).or_default() += 1;
            }
        }
        addresses.networks = distinct.iter().filter(|net| !net.is_host()).count();
        let set = addresses.rebuilt(distinct);
        (addresses, set)
    }

    /// Returns the set anew from what is held, as the kind that it has to be now.
    pub(super) fn set(&mut self, name: &SetName, out: &Output) -> Set {
        let shown = out.set(name).map(|set| &set.elements).into_iter().flatten().filter_map(cidr);
        let mut distinct: Vec<Cidr> = shown.chain(self.hidden.iter().copied()).collect();
        distinct.sort_unstable();
        self.rebuilt(distinct)
    }

    fn rebuilt(&mut self, distinct: Vec<Cidr>) -> Set {
        self.intervals = self.networks > 0;
        if !self.intervals {
            self.hidden.clear();
            let elements = distinct.into_iter().map(|net| Element::Address(net.addr())).collect();
            return Set { kind: SetKind::Address(self.family), elements };
        }
        let set = Set::networks(self.family, distinct.iter().copied());
        self.hidden =
            distinct.into_iter().filter(|net| !set.elements.contains(&Element::Network(*net))).collect();
        set
    }

    /// Adds a network. Reports whether the set has to become another kind of set.
    pub(super) fn add(&mut self, name: &SetName, net: Cidr, out: &mut Output) -> bool {
        if self.hidden.contains(&net) || self.shows(name, net, out) {
            *self.more.entry(net).or_default() += 1;
            return false;
        }
        self.networks += usize::from(!net.is_host());
        if self.intervals == (self.networks > 0) && !self.is_covered(name, net, out) {
            let inside = self.shown_inside(name, net, out);
            for inner in inside {
                out.remove_element(name, &Element::Network(inner));
                self.hidden.insert(inner);
            }
            out.insert_element(name, self.element(net));
        } else {
            // Under the new name everything is sorted out again.
            self.hidden.insert(net);
        }
        self.intervals != (self.networks > 0)
    }

    /// Removes a network. Reports whether the set has to become another kind of set.
    pub(super) fn remove(&mut self, name: &SetName, net: Cidr, out: &mut Output) -> bool {
        match self.more.get_mut(&net) {
            Some(1) => {
                self.more.remove(&net);
                return false;
            }
            Some(count) => {
                *count -= 1;
                return false;
            }
            None => {}
        }
        self.networks -= usize::from(!net.is_host());
        if !self.hidden.remove(&net) {
            out.remove_element(name, &self.element(net));
            let inside: Vec<Cidr> =
                self.hidden.range(net..).copied().take_while(|inner| net.covers(inner)).collect();
            let mut wider: Option<Cidr> = None;
            for inner in inside {
                if wider.is_none_or(|wider| !wider.covers(&inner)) {
                    self.hidden.remove(&inner);
                    out.insert_element(name, self.element(inner));
                    wider = Some(inner);
                }
            }
        }
        self.intervals != (self.networks > 0)
    }

    fn element(&self, net: Cidr) -> Element {
        if self.intervals { Element::Network(net) } else { Element::Address(net.addr()) }
    }

    fn shows(&self, name: &SetName, net: Cidr, out: &Output) -> bool {
        (self.intervals || net.is_host())
            && out.set(name).is_some_and(|set| set.elements.contains(&self.element(net)))
    }

    /// Reports whether something wider is shown: of what is apart, only the last that begins before it can be.
    fn is_covered(&self, name: &SetName, net: Cidr, out: &Output) -> bool {
        let elements = |set: &Set| set.elements.range(..Element::Network(net)).next_back().and_then(cidr);
        self.intervals && out.set(name).and_then(elements).is_some_and(|wider| wider.covers(&net))
    }

    fn shown_inside(&self, name: &SetName, net: Cidr, out: &Output) -> Vec<Cidr> {
        if !self.intervals {
            return Vec::new();
        }
        let inside = |elements: &Elements| -> Vec<Cidr> {
            let from = elements.range(Element::Network(net)..).filter_map(cidr);
            from.take_while(|inner| net.covers(inner)).collect()
        };
        out.set(name).map(|set| inside(&set.elements)).unwrap_or_default()
    }
}

fn cidr(element: &Element) -> Option<Cidr> {
    match element {
        Element::Address(addr) => Some(Cidr::host(*addr)),
        Element::Network(net) => Some(*net),
        Element::Socket(..)
        | Element::Flow(..)
        | Element::ProtocolPort(..)
        | Element::Ports(..)
        | Element::Interface(_)
        | Element::InterfaceAddress(..) => None,
    }
}
