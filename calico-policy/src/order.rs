//! Tiers and policies in the order in which they are asked.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use calico_model::resource::policy::GlobalPart;
use calico_model::resource::{DefaultAction, Kind, Policy, ResourceKey, Tier};
use calico_model::{Name, Namespace, Snapshot};

/// A tier with its policies, all in order.
#[derive(Debug, Clone)]
pub(crate) struct OrderedTier<'s> {
    pub(crate) name: &'s Name,
    pub(crate) default_action: DefaultAction,
    pub(crate) policies: Vec<PolicyRef<'s>>,
}

/// A policy of either kind.
#[derive(Debug, Clone)]
pub(crate) struct PolicyRef<'s> {
    pub(crate) key: ResourceKey,
    pub(crate) policy: &'s Policy,
    /// What only a global policy has; `None` for a namespaced one.
    pub(crate) global: Option<&'s GlobalPart>,
}

impl PolicyRef<'_> {
    pub(crate) fn namespace(&self) -> Option<&Namespace> {
        self.key.id.namespace.as_ref()
    }

    /// Returns which policy it is, and whom it applies to.
    pub(crate) fn applies_to(&self) -> String {
        let Policy { selector, types, service_account_selector, .. } = self.policy;
        format!("{} {:?}", self.key, (selector, types, service_account_selector, self.global))
    }
}

/// Returns all tiers that hold policies.
///
/// Tiers go by order, then name, those without an order last, and those that only policies name after all others.
/// Policies go by order, those without one last, then by name, namespace and kind.
pub(crate) fn tiers(snapshot: &Snapshot) -> Vec<OrderedTier<'_>> {
    let namespaced = snapshot.policies.values().map(|object| PolicyRef {
        key: object.key(),
        policy: &object.spec.0,
        global: None,
    });
    let global = snapshot.global_policies.values().map(|object| PolicyRef {
        key: object.key(),
        policy: &object.spec.policy,
        global: Some(&object.spec.global),
    });
    tiers_of(snapshot, namespaced.chain(global))
}

/// Returns a policy, which is of either kind.
pub(crate) fn policy<'s>(snapshot: &'s Snapshot, key: &ResourceKey) -> Option<PolicyRef<'s>> {
    let namespaced = || {
        let object = snapshot.policies.get(&key.id)?;
        Some(PolicyRef { key: key.clone(), policy: &object.spec.0, global: None })
    };
    let global = || {
        let object = snapshot.global_policies.get(&key.id)?;
        Some(PolicyRef { key: key.clone(), policy: &object.spec.policy, global: Some(&object.spec.global) })
    };
    if key.kind == Kind::NetworkPolicy { namespaced() } else { global() }
}

/// Returns the tiers of some policies, all in order.
pub(crate) fn tiers_of<'s>(
    snapshot: &'s Snapshot,
    policies: impl Iterator<Item = PolicyRef<'s>>,
) -> Vec<OrderedTier<'s>> {
    let mut by_tier: BTreeMap<&Name, Vec<PolicyRef<'_>>> = BTreeMap::new();
    for policy in policies {
        by_tier.entry(&policy.policy.tier).or_default().push(policy);
    }
    let mut tiers: Vec<(Rank, OrderedTier<'_>)> = by_tier
        .into_iter()
        .map(|(name, mut policies)| {
            policies.sort_by(compare_policies);
            let (rank, default_action) = rank(snapshot, name);
            (rank, OrderedTier { name, default_action, policies })
        })
        .collect();
    tiers.sort_by(|(a, left), (b, right)| a.compare(*b).then_with(|| left.name.cmp(right.name)));
    tiers.into_iter().map(|(_, tier)| tier).collect()
}

/// A place among tiers: those that exist, then by order.
#[derive(Clone, Copy)]
struct Rank {
    missing: bool,
    order: f64,
}

impl Rank {
    fn compare(self, other: Self) -> Ordering {
        self.missing.cmp(&other.missing).then_with(|| compare_orders(self.order, other.order))
    }
}

/// A tier that policies name and nobody made is last and denies.
fn rank(snapshot: &Snapshot, name: &Name) -> (Rank, DefaultAction) {
    let reserved = || Tier::reserved().into_iter().find(|(reserved, _)| *reserved == name.as_str());
    let tier = snapshot
        .tiers
        .get(&name.clone().into())
        .map(|tier| tier.spec.clone())
        .or_else(|| reserved().map(|(_, tier)| tier));
    match tier {
        Some(tier) => (Rank { missing: false, order: order_or_last(tier.order) }, tier.default_action),
        None => (Rank { missing: true, order: f64::INFINITY }, DefaultAction::Deny),
    }
}

fn order_or_last(order: Option<f64>) -> f64 {
    order.filter(|order| !order.is_nan()).unwrap_or(f64::INFINITY)
}

/// Orders are never NaN here; the two zeros are one order.
fn compare_orders(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

fn compare_policies(a: &PolicyRef<'_>, b: &PolicyRef<'_>) -> Ordering {
    compare_orders(order_or_last(a.policy.order), order_or_last(b.policy.order))
        .then_with(|| a.key.id.name.cmp(&b.key.id.name))
        .then_with(|| a.key.id.namespace.cmp(&b.key.id.namespace))
        .then_with(|| a.key.kind.as_str().cmp(b.key.kind.as_str()))
}
