//! Live flows, asked about again when policy has changed.
//!
//! A flow is judged as if it began now: the packet that began it is run through the rules once more. What is denied is not
//! cut here: whoever asked says so to connection tracking, by the mark [`WITHDRAWN_MARK`](crate::WITHDRAWN_MARK) that rules
//! look at.

use std::collections::BTreeSet;
use std::net::IpAddr;

use calico_model::resource::endpoint::HostInterface;
use calico_model::{InterfaceName, NodeName, Snapshot};

use crate::packet::{Destination, Packet, Transport, Verdict};
use crate::ruleset::Ruleset;
use crate::simulate::Simulator;
use crate::way::Homes;

/// A flow that connection tracking knows, as its first packet was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Where it came from.
    pub source: IpAddr,
    /// Where it went, after the translation of its destination.
    pub destination: IpAddr,
    /// The destination before its translation, when that was another.
    pub original_destination: Option<Destination>,
    /// What it carries.
    pub transport: Transport,
}

/// Judges the flows of one node by its rules.
#[derive(Debug)]
pub struct FlowJudge<'s> {
    homes: Homes<'s>,
    node: NodeName,
    rules: Simulator<'s>,
    uplinks: Vec<InterfaceName>,
}

impl<'s> FlowJudge<'s> {
    /// Makes a judge by a node's rules, which are those of the snapshot.
    #[must_use]
    pub fn new(snapshot: &'s Snapshot, node: NodeName, ruleset: &'s Ruleset) -> Self {
        let uplinks = uplinks(snapshot, &node);
        Self { homes: Homes::of(snapshot), uplinks, node, rules: Simulator::new(ruleset) }
    }

    /// Tells the judge the addresses that the node has. Of what it sends itself from an address that neither they nor resources
    /// name, a judge holds that it was forwarded.
    #[must_use]
    pub fn with_addresses(self, addrs: BTreeSet<IpAddr>) -> Self {
        Self { homes: self.homes.with_own(self.node.clone(), addrs), ..self }
    }

    /// Returns what would become of the flow if it began now; `None` when it is none of this node's endpoints'.
    ///
    /// By which of the host's interfaces a flow comes or goes is not known. It is denied only if it would be by every one
    /// that a host endpoint names and by one that none does, so that no flow is ever stopped wrongly.
    #[must_use]
    pub fn verdict(&self, flow: &Flow) -> Option<Verdict> {
        let mut seen = self.uplinks.iter().filter_map(|uplink| self.packet(flow, uplink)).peekable();
        seen.peek()?;
        let denied = seen.all(|packet| self.rules.run(&packet).verdict == Verdict::Deny);
        Some(if denied { Verdict::Deny } else { Verdict::Allow })
    }

    /// The flow's first packet as this node sees it.
    fn packet(&self, flow: &Flow, uplink: &InterfaceName) -> Option<Packet> {
        let way = self.homes.way(flow.source, flow.destination, flow.transport, uplink);
        // What the node forwards from elsewhere to elsewhere has no way here: nobody's policy is about it.
        let packet = way.into_iter().find(|packet| packet.node == self.node)?;
        Some(Packet { original_destination: flow.original_destination, ..packet })
    }
}

/// The interfaces that a node's packets may come or go by, as far as host endpoints tell them apart.
fn uplinks(snapshot: &Snapshot, node: &NodeName) -> Vec<InterfaceName> {
    let own = snapshot.hosts.values().filter(|host| host.spec.node == *node);
    let named: BTreeSet<InterfaceName> = own
        .filter_map(|host| match &host.spec.interface_name {
            Some(HostInterface::Named(name)) => Some(name.clone()),
            Some(HostInterface::All) | None => None,
        })
        .collect();
    let others = (0..).filter_map(|number| format!("uplink{number}").parse().ok());
    let mut others = others.filter(|name: &InterfaceName| !named.contains(name));
    named.iter().cloned().chain(others.next()).collect()
}
