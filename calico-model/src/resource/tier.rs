//! Groups of policies, one after the other.

use crate::wire::{wire_enum, wire_struct};

wire_enum! {
    /// What becomes of traffic that a tier's policies select but none of their rules decides.
    pub enum DefaultAction {
        /// It is dropped.
        Deny = "Deny",
        /// The next tier decides.
        Pass = "Pass",
    }
}

wire_struct! {
    /// A `Tier`: a group of policies that is evaluated as a whole before the next.
    pub struct Tier {
        /// The tier's place: lower is earlier, `None` is last.
        order: Option<f64> = "order" optional,
        /// What happens to traffic that the tier's policies select and do not decide.
        default_action: DefaultAction = "defaultAction" default(DefaultAction::Deny),
    }
}

impl Tier {
    /// The tier that a policy is in when it names none.
    pub const DEFAULT: &'static str = "default";

    /// Returns the tiers that every cluster has, with their fixed orders and actions.
    #[must_use]
    pub fn reserved() -> [(&'static str, Tier); 3] {
        let tier = |order, default_action| Tier { order: Some(order), default_action };
        [
            ("kube-admin", tier(1_000.0, DefaultAction::Pass)),
            (Self::DEFAULT, tier(1_000_000.0, DefaultAction::Deny)),
            ("kube-baseline", tier(10_000_000.0, DefaultAction::Pass)),
        ]
    }
}
