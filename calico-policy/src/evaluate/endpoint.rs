//! An endpoint's policy: tiers, policies, profiles.

use calico_model::resource::Object;
use calico_model::resource::{
    Action, DefaultAction, Kind, ObjectId, PolicyType, ResourceKey, Rule, WorkloadEndpoint,
};
use calico_model::{LabelSource, Name, Namespace};

use super::{Evaluation, LocalWorkload, Reason, Subject};
use crate::active::{ActiveTier, Stage, active};
use crate::closed::enforced_action;
use crate::labels::SystemLabels;
use crate::packet::{ConnectionState, Verdict};

impl<'e> Evaluation<'e> {
    /// Asks a workload's policy about a packet from it or to it.
    pub(super) fn workload(&mut self, workload: &LocalWorkload<'e>, direction: PolicyType) -> Verdict {
        let endpoint: &'e Object<WorkloadEndpoint> = workload.endpoint;
        let subject = Subject::Endpoint(endpoint.key(), direction);
        if let Some(verdict) = self.by_state(&subject) {
            return verdict;
        }
        if direction == PolicyType::Egress && self.is_tunnel_from_workload() {
            return self.settle(subject, Reason::TunnelFromWorkload, Verdict::Deny);
        }
        let labels = SystemLabels::of_workload(self.snapshot, endpoint);
        self.policy(&subject, &labels, direction, Stage::Normal, &endpoint.spec.profiles)
    }

    /// Only the first packet of a flow is asked about.
    pub(super) fn by_state(&mut self, subject: &Subject) -> Option<Verdict> {
        let check_invalid = !self.felix.disable_conntrack_invalid_check.unwrap_or(false);
        match self.state {
            ConnectionState::Established => {
                Some(self.settle(subject.clone(), Reason::Established, Verdict::Allow))
            }
            ConnectionState::Withdrawn => {
                Some(self.settle(subject.clone(), Reason::Withdrawn, Verdict::Deny))
            }
            ConnectionState::Invalid if check_invalid => {
                Some(self.settle(subject.clone(), Reason::Invalid, Verdict::Deny))
            }
            ConnectionState::Invalid | ConnectionState::New | ConnectionState::Untracked => None,
        }
    }

    /// Asks an endpoint's tiers, then its profiles, after which nothing is allowed.
    pub(super) fn policy(
        &mut self,
        subject: &Subject,
        labels: &impl LabelSource,
        direction: PolicyType,
        stage: Stage,
        profiles: &[Name],
    ) -> Verdict {
        if let Some(verdict) = self.tiers(subject, labels, direction, stage) {
            return verdict;
        }
        for name in profiles {
            let Some(profile) = self.snapshot.profile(name) else {
                return self.settle(subject.clone(), Reason::MissingProfile(name.clone()), Verdict::Deny);
            };
            let owner = ResourceKey { kind: Kind::Profile, id: ObjectId::from(name.clone()) };
            let scope = Owner { key: &owner, tier: None, namespace: None };
            // Pass has no meaning in a profile.
            let rules = profile.rules(direction).iter().enumerate();
            let rules = rules.filter(|(_, rule)| rule.action != Action::Pass);
            if let Some(Decision::Final(verdict)) = self.rules(subject, &scope, rules) {
                return verdict;
            }
        }
        self.settle(subject.clone(), Reason::NothingAllows, Verdict::Deny)
    }

    /// Asks the tiers alone; `None` when the packet came through all of them undecided.
    pub(super) fn tiers(
        &mut self,
        subject: &Subject,
        labels: &impl LabelSource,
        direction: PolicyType,
        stage: Stage,
    ) -> Option<Verdict> {
        let tiers = self.tiers.clone();
        for mut tier in active(&tiers, labels, direction, stage) {
            if !stage.decides() {
                tier.default_action = DefaultAction::Pass;
            }
            match self.tier(subject, &tier, direction) {
                Decision::Final(verdict) => return Some(verdict),
                Decision::Pass => {}
            }
        }
        None
    }

    fn tier(&mut self, subject: &Subject, tier: &ActiveTier<'_, '_>, direction: PolicyType) -> Decision {
        for policy in &tier.policies {
            let scope = Owner { key: &policy.key, tier: Some(tier.name), namespace: policy.namespace() };
            let rules = policy.policy.rules(direction).iter().enumerate();
            if let Some(decision) = self.rules(subject, &scope, rules) {
                return decision;
            }
        }
        let passes = tier.default_action == DefaultAction::Pass;
        let reason = Reason::EndOfTier { tier: tier.name.clone(), passes };
        let verdict = self.settle(subject.clone(), reason, Verdict::Deny);
        if passes { Decision::Pass } else { Decision::Final(verdict) }
    }

    /// The first rule that matches decides, but for Log, which only notes.
    fn rules<'r>(
        &mut self,
        subject: &Subject,
        owner: &Owner<'_>,
        rules: impl Iterator<Item = (usize, &'r Rule)>,
    ) -> Option<Decision> {
        for (index, rule) in rules {
            let Some(action) = enforced_action(rule, self.enforcers) else { continue };
            let Some(facts) = self.matches(rule, owner.namespace) else { continue };
            let tier = owner.tier.cloned();
            let reason = Reason::Rule { tier, owner: owner.key.clone(), index, action, facts };
            let decision = match action {
                Action::Allow => Some(Decision::Final(Verdict::Allow)),
                Action::Deny => Some(Decision::Final(Verdict::Deny)),
                Action::Pass => Some(Decision::Pass),
                Action::Log => None,
            };
            self.settle(subject.clone(), reason, Verdict::Allow);
            if decision.is_some() {
                return decision;
            }
        }
        None
    }
}

/// Whose rules are asked.
struct Owner<'o> {
    key: &'o ResourceKey,
    tier: Option<&'o Name>,
    namespace: Option<&'o Namespace>,
}

/// What a tier or rule decides.
enum Decision {
    /// This, for the endpoint.
    Final(Verdict),
    /// The next tier decides.
    Pass,
}
