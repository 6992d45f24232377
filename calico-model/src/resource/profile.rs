//! Rules and labels that endpoints inherit.

use super::policy::{PolicyType, Rule};
use crate::label::Labels;
use crate::wire::wire_struct;

/// The name of the profile that allows everything. It always exists and cannot be written.
pub const DEFAULT_ALLOW_PROFILE: &str = "projectcalico-default-allow";

wire_struct! {
    /// A `Profile`: rules for endpoints that no policy selects, and labels that endpoints inherit.
    pub struct Profile {
        /// Rules for traffic to the endpoint, in order.
        ingress: Vec<Rule> = "ingress" empty,
        /// Rules for traffic from the endpoint, in order.
        egress: Vec<Rule> = "egress" empty,
        /// Labels of every endpoint that has this profile, unless it has the label itself.
        labels_to_apply: Labels = "labelsToApply" empty,
    }
}

impl Profile {
    /// Returns the rules of a direction.
    #[must_use]
    pub fn rules(&self, direction: PolicyType) -> &[Rule] {
        match direction {
            PolicyType::Ingress => &self.ingress,
            PolicyType::Egress => &self.egress,
        }
    }

    /// Makes a profile that allows everything.
    #[must_use]
    pub fn allow_all() -> Self {
        Self { ingress: vec![Rule::allow()], egress: vec![Rule::allow()], labels_to_apply: Labels::new() }
    }
}
