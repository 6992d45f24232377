//! Which policies apply to an endpoint.

use calico_model::resource::{DefaultAction, PolicyType};
use calico_model::{LabelSource, Name, Selector};

use crate::labels::NAMESPACE;
use crate::order::{OrderedTier, PolicyRef};

/// The policies of one tier that apply to an endpoint in one direction: at least one.
#[derive(Debug, Clone)]
pub(crate) struct ActiveTier<'t, 's> {
    pub(crate) name: &'s Name,
    pub(crate) default_action: DefaultAction,
    pub(crate) policies: Vec<&'t PolicyRef<'s>>,
}

/// What kind of policy is asked for: the place in a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    /// To and from the endpoint itself.
    Normal,
    /// From the host endpoint itself, where the translation of a destination has chosen another route.
    Translated,
    /// Through a host endpoint's interface.
    Forward,
    /// Before the destination is translated.
    PreDnat,
    /// Before connection tracking.
    Untracked,
}

impl Stage {
    /// Reports whether what no rule decides is decided by the end of its tier. Early stages leave it to later ones.
    pub(crate) fn decides(self) -> bool {
        matches!(self, Stage::Normal | Stage::Translated | Stage::Forward)
    }

    fn holds(self, policy: &PolicyRef<'_>) -> bool {
        let Some(global) = policy.global else {
            return matches!(self, Stage::Normal | Stage::Translated);
        };
        match self {
            Stage::Untracked => global.do_not_track,
            Stage::PreDnat => global.pre_dnat && !global.do_not_track,
            Stage::Forward => global.apply_on_forward && !global.pre_dnat && !global.do_not_track,
            Stage::Normal | Stage::Translated => !global.pre_dnat && !global.do_not_track,
        }
    }
}

/// Returns the tiers that count for an endpoint in one direction. A tier none of whose policies applies does not.
pub(crate) fn active<'t, 's>(
    tiers: &'t [OrderedTier<'s>],
    labels: &impl LabelSource,
    direction: PolicyType,
    stage: Stage,
) -> Vec<ActiveTier<'t, 's>> {
    counting(tiers, direction, stage, |policy| selects(policy, labels))
}

/// Returns the tiers that count in one direction for an endpoint that all their policies select.
pub(crate) fn active_of_selecting<'t, 's>(
    tiers: &'t [OrderedTier<'s>],
    direction: PolicyType,
    stage: Stage,
) -> Vec<ActiveTier<'t, 's>> {
    counting(tiers, direction, stage, |_| true)
}

fn counting<'t, 's>(
    tiers: &'t [OrderedTier<'s>],
    direction: PolicyType,
    stage: Stage,
    selects: impl Fn(&PolicyRef<'s>) -> bool,
) -> Vec<ActiveTier<'t, 's>> {
    let mut active = Vec::new();
    for tier in tiers {
        let policies: Vec<_> = tier
            .policies
            .iter()
            .filter(|policy| policy.policy.applies_to(direction) && stage.holds(policy))
            .filter(|policy| selects(policy))
            .collect();
        if !policies.is_empty() {
            active.push(ActiveTier { name: tier.name, default_action: tier.default_action, policies });
        }
    }
    active
}

/// Returns the selector of what a policy selects: a namespaced policy only what is in its own namespace.
pub(crate) fn whole_selector(policy: &PolicyRef<'_>) -> Selector {
    let namespace = policy.namespace().map(|namespace| {
        Selector::equals(NAMESPACE, namespace.as_str()).expect("a namespace holds no quotes")
    });
    let accounts = policy.policy.service_account_selector.as_ref().map(Selector::for_service_accounts);
    let namespaces = policy.global.and_then(|global| global.namespace_selector.as_ref());
    [namespace, accounts, namespaces.map(Selector::for_namespaces)]
        .into_iter()
        .flatten()
        .fold(policy.policy.selector.clone(), |all, term| all.and(&term))
}

/// Reports whether a policy selects an endpoint: a namespaced policy only one of its own namespace.
pub(crate) fn selects(policy: &PolicyRef<'_>, labels: &impl LabelSource) -> bool {
    let in_scope = policy.namespace().is_none_or(|ns| labels.label(NAMESPACE) == Some(ns.as_str()));
    let accounts = policy.policy.service_account_selector.as_ref();
    let namespaces = policy.global.and_then(|global| global.namespace_selector.as_ref());
    in_scope
        && policy.policy.selector.matches(labels)
        && accounts.is_none_or(|selector| selector.for_service_accounts().matches(labels))
        && namespaces.is_none_or(|selector| selector.for_namespaces().matches(labels))
}
