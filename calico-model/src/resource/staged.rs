//! Policies that are written down and not in force.

use std::ops::Deref;

use serde_json::Value;

use super::policy::{GlobalNetworkPolicy, NetworkPolicy};
use crate::wire::{FromWire, Path, Report, Rules, ToWire, wire_enum, wire_struct};

wire_enum! {
    /// What would become of the policy of the same name, were the staged one in force.
    pub enum StagedAction {
        /// It would be set to the staged one.
        Set = "Set",
        /// It would be deleted.
        Delete = "Delete",
        /// The staged one is a suggestion that was learned.
        Learn = "Learn",
        /// The staged one is ignored.
        Ignore = "Ignore",
    }
}

wire_struct! {
    /// What only staged policies have.
    pub struct StagedPart {
        /// What would be done.
        staged_action: StagedAction = "stagedAction" default(StagedAction::Set),
    }
}

macro_rules! staged {
    ($($(#[$meta:meta])* $name:ident of $policy:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            /// The policy as it would be.
            pub policy: $policy,
            /// What would be done with it.
            pub staged: StagedPart,
        }

        impl Deref for $name {
            type Target = $policy;

            fn deref(&self) -> &$policy {
                &self.policy
            }
        }

        impl FromWire for $name {
            fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
                crate::wire::whole(value, at, report)
            }

            fn in_part(value: &Value, at: Path<'_>, report: &mut Report) -> Self {
                let (policy, staged) = crate::wire::two_tables::<$policy, StagedPart>(value, at, report);
                check_deletion(staged.staged_action, value, Rules::of(value, at, report));
                Self { policy, staged }
            }

            fn stand_in() -> Self {
                Self { policy: FromWire::stand_in(), staged: FromWire::stand_in() }
            }

            fn schema(schemas: &mut crate::wire::Schemas) -> Value {
                schemas.of_two::<$policy, StagedPart>(stringify!($name))
            }
        }

        impl ToWire for $name {
            fn to_wire(&self) -> Value {
                let value = crate::wire::joined(self.policy.to_wire(), self.staged.to_wire());
                match (self.staged.staged_action, value) {
                    (StagedAction::Delete, Value::Object(mut object)) => {
                        object.retain(|key, _| OF_A_DELETION.contains(&key.as_str()));
                        Value::Object(object)
                    }
                    (_, value) => value,
                }
            }
        }
    )*};
}

staged! {
    /// A `StagedNetworkPolicy`.
    StagedNetworkPolicy of NetworkPolicy;
    /// A `StagedGlobalNetworkPolicy`.
    StagedGlobalNetworkPolicy of GlobalNetworkPolicy;
}

const OF_A_DELETION: [&str; 2] = ["tier", "stagedAction"];

fn check_deletion(action: StagedAction, value: &Value, mut rules: Rules<'_, '_, '_>) {
    if action != StagedAction::Delete {
        return;
    }
    for key in value.as_object().into_iter().flat_map(|object| object.keys()) {
        if !OF_A_DELETION.contains(&key.as_str()) {
            rules.broken(key, &["stagedAction"], "must be absent when stagedAction is Delete");
        }
    }
}

wire_struct! {
    /// A `StagedKubernetesNetworkPolicy`: a Kubernetes policy, in Kubernetes' own shape, that is not in force.
    pub struct StagedKubernetesNetworkPolicy {
        /// What would be done.
        staged_action: StagedAction = "stagedAction" default(StagedAction::Set),
        /// The pods it would apply to, a Kubernetes label selector.
        pod_selector: Option<Value> = "podSelector" optional,
        /// Its ingress rules, in Kubernetes' shape.
        ingress: Vec<Value> = "ingress" empty,
        /// Its egress rules, in Kubernetes' shape.
        egress: Vec<Value> = "egress" empty,
        /// The directions it would apply to.
        policy_types: Vec<super::PolicyType> = "policyTypes" empty,
    }
    check = check_kubernetes;
}

fn check_kubernetes(policy: &mut StagedKubernetesNetworkPolicy, mut rules: Rules<'_, '_, '_>) {
    let empty = policy.pod_selector.is_none()
        && policy.ingress.is_empty()
        && policy.egress.is_empty()
        && policy.policy_types.is_empty();
    if policy.staged_action == StagedAction::Delete {
        if !empty {
            rules.wrong("stagedAction", "must not be Delete when any other field is given");
        }
        return;
    }
    if policy.policy_types.is_empty() {
        policy.policy_types.push(super::PolicyType::Ingress);
        if !policy.egress.is_empty() {
            policy.policy_types.push(super::PolicyType::Egress);
        }
    }
}
