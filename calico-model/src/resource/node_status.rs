//! A request for the status of a node.

use crate::name::NodeName;
use crate::wire::{Path, Report, ToWire, wire_enum, wire_struct};

wire_enum! {
    /// A part of a node's status.
    pub enum NodeStatusClass {
        /// The agents.
        Agent = "Agent",
        /// The BGP sessions.
        Bgp = "BGP",
        /// The routes.
        Routes = "Routes",
    }
}

wire_struct! {
    /// A `CalicoNodeStatus`: a request for a node's status, which the node's agent answers in the `status` field.
    pub struct CalicoNodeStatus {
        /// The node.
        node: NodeName = "node" required,
        /// The parts that are wanted.
        classes: Vec<NodeStatusClass> = "classes" empty,
        /// How often, in seconds from 0 (never) to 86400, the status is written.
        update_period_seconds: Option<u32> = "updatePeriodSeconds" optional,
    }
    check = check;
}

fn check(request: &mut CalicoNodeStatus, at: Path<'_>, report: &mut Report) {
    if let Some(period) = request.update_period_seconds.filter(|period| *period > 86_400) {
        report.fault(at.key("updatePeriodSeconds"), Some(&period.to_wire()), "must be from 0 to 86400");
    }
}
