//! A request for the status of a node.

use crate::name::NodeName;
use crate::wire::{Limit, wire_enum, wire_struct};

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
        /// How often, in seconds, the status is written; 0 is never.
        update_period_seconds: Option<u32> = "updatePeriodSeconds" optional [Limit::Range(0, 86_400)],
    }
}
