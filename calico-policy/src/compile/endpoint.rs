//! Chains that decide for endpoints: one for each list of policies and profiles, whoever shares it.

use std::collections::BTreeSet;
use std::iter;

use calico_model::resource::{self, DefaultAction, Kind, ObjectId, PolicyType};
use calico_model::{Name, Namespace, Protocol};

use super::{Action, ChainName, Compilation, End, IPIP, Match, Op, PortSet, ResourceKey, Rule, Warning};
use crate::active::{ActiveTier, Stage};
use crate::closed::enforced_action;
use crate::log::log_prefix;
use crate::lower::lower;
use crate::optimise::{Layout, optimise};

impl Compilation<'_> {
    /// Makes the chain of a workload that has these policies and profiles in one direction; a packet that returns from it is
    /// denied. It is the tier's or profile's own where there is only one: the kernel walks through all chains whenever a rule
    /// changes.
    pub(super) fn workload_chain(
        &mut self,
        direction: PolicyType,
        tiers: &[ActiveTier<'_, '_>],
        profiles: &[Name],
    ) -> ChainName {
        let mut stops = self.tier_and_profile_chains(direction, Stage::Normal, tiers, profiles);
        if stops.len() == 1
            && let Some(only) = stops.pop()
        {
            return only;
        }
        let name = ChainName::digest(word(direction, "to", "from"), stops.iter().map(ChainName::as_str));
        if self.dirty.everything || !self.sets.out.has_chain(&name) {
            let jumps = stops.into_iter().map(|chain| Rule::always(Action::Jump(chain)));
            let rules = jumps.collect();
            self.chain(&name, rules);
        }
        name
    }

    /// Reports whether a shared chain that others change is to be made in this pass.
    fn requires_making(&self, chain: &ChainName, changed: bool) -> bool {
        if self.made.contains(chain) {
            return false;
        }
        let renamed = || !self.renamed.is_empty() && self.sets.out.looks_at(chain, self.renamed);
        self.dirty.everything || changed || !self.sets.out.has_chain(chain) || renamed()
    }

    /// Puts a shared chain in place that comes `of` policies or a profile, with what could not be said in it. What else is said
    /// `beside` its rules is [`optimise`]'s.
    fn make(
        &mut self,
        name: &ChainName,
        of: Vec<ResourceKey>,
        rules: Vec<Rule>,
        warnings: BTreeSet<Warning>,
        beside: impl FnOnce() -> Vec<String>,
    ) {
        let rules = match self.layout {
            Layout::AsWritten => rules,
            Layout::Optimised => optimise(name, rules, beside, self.sets),
        };
        self.chain(name, rules);
        self.made.insert(name.clone());
        self.origins.insert(name.clone(), of);
        if warnings.is_empty() {
            self.warnings.remove(name);
        } else {
            self.warnings.insert(name.clone(), warnings);
        }
    }

    /// Lets tracked flows go on unless their permission was taken back, if this holds of the packet too.
    pub(super) fn going_on(&self, more: impl IntoIterator<Item = Match>) -> Rule {
        let mut matches = vec![Match::Established];
        matches.extend(self.felix.reevaluates_flows().then_some(Match::Withdrawn(Op::IsNot)));
        matches.extend(more);
        Rule::when(matches, Action::Accept)
    }

    /// Drops what belongs to a tracked flow and does not go on, and what cannot belong to one.
    pub(super) fn not_going_on(&self, deny: Action) -> Rule {
        let unchecked = self.felix.disable_conntrack_invalid_check.unwrap_or(false);
        Rule::when([if unchecked { Match::Established } else { Match::TrackedOrInvalid }], deny)
    }

    /// Keeps workloads from making the tunnel packets that only nodes make.
    pub(super) fn no_tunnels(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if !self.felix.allow_vxlan_packets_from_workloads.unwrap_or(false) {
            let port = self.felix.vxlan_port();
            let matches = [
                Match::Protocol(Op::Is, Protocol::UDP),
                Match::Port(End::Destination, Op::Is, PortSet::Range(port, port)),
            ];
            rules.push(Rule::when(matches, self.deny()));
        }
        if !self.felix.allow_ipip_packets_from_workloads.unwrap_or(false) {
            rules.push(Rule::when([Match::Protocol(Op::Is, IPIP)], self.deny()));
        }
        rules
    }

    /// Returns the chains to be asked in order, up to the first from which no packet returns.
    pub(super) fn tier_and_profile_chains(
        &mut self,
        direction: PolicyType,
        stage: Stage,
        tiers: &[ActiveTier<'_, '_>],
        profiles: &[Name],
    ) -> Vec<ChainName> {
        let mut chains = Vec::new();
        for tier in tiers {
            chains.push(self.tier_chain(direction, stage, tier));
            if decides_all(tier, direction) {
                return chains;
            }
        }
        for name in profiles {
            let Some(profile) = self.snapshot.profile(name) else { break };
            let labels = format!("{:?}", profile.labels_to_apply);
            let words = match stage {
                Stage::Translated => "late-profile",
                Stage::Normal | Stage::Forward | Stage::PreDnat | Stage::Untracked => {
                    word(direction, "in-profile", "out-profile")
                }
            };
            let chain = ChainName::digest(words, [name.as_str(), &labels]);
            if self.requires_making(&chain, self.dirty.profiles.contains(name)) {
                let key = ResourceKey { kind: Kind::Profile, id: ObjectId::from(name.clone()) };
                let (mut lowered, mut warnings) = (Vec::new(), BTreeSet::new());
                for rule in
                    profile.rules(direction).iter().filter(|rule| rule.action != resource::Action::Pass)
                {
                    lowered.extend(self.rule(rule, stage, &key, None, None));
                    warnings.extend(self.unenforced(rule, &key));
                }
                let beside = || vec![format!("{:?}", profile.rules(opposite(direction)))];
                self.make(&chain, vec![key], lowered, warnings, beside);
            }
            chains.push(chain);
        }
        chains
    }

    /// Makes the chain of a tier's policies, one after the other: Pass returns from it, and so does its end when the tier
    /// passes. So does the end of one from which nothing is passed on: who asks it denies then. Before connection tracking and
    /// translation every tier passes: what is not decided there is decided later.
    ///
    /// The chain is named by whom the policies apply to. When that and the rules change together, who is new to it, or leaves it, is
    /// led from the old rules to the new ones at once, and nobody to the rules that were there before.
    pub(super) fn tier_chain(
        &mut self,
        direction: PolicyType,
        stage: Stage,
        tier: &ActiveTier<'_, '_>,
    ) -> ChainName {
        let parts = tier.policies.iter().map(|policy| self.locals.applies_to(&policy.key));
        let word = match stage {
            Stage::Normal | Stage::Forward => word(direction, "in-tier", "out-tier"),
            Stage::Translated => "late-tier",
            Stage::PreDnat => "pre-tier",
            Stage::Untracked => word(direction, "in-raw-tier", "out-raw-tier"),
        };
        let name = ChainName::digest(word, iter::once(tier.name.as_str()).chain(parts));
        let changed = tier.policies.iter().any(|policy| self.dirty.policies.contains(&policy.key));
        if !self.requires_making(&name, changed) {
            return name;
        }
        let (mut rules, mut warnings) = (Vec::new(), BTreeSet::new());
        for policy in &tier.policies {
            for rule in policy.policy.rules(direction) {
                warnings.extend(self.unenforced(rule, &policy.key));
                rules.extend(self.rule(rule, stage, &policy.key, Some(tier.name), policy.namespace()));
            }
        }
        if tier.default_action == DefaultAction::Deny && stage.decides() && !decides_all(tier, direction) {
            rules.push(Rule::always(self.deny_in(stage)));
        }
        let of = tier.policies.iter().map(|policy| policy.key.clone()).collect();
        self.make(&name, of, rules, warnings, || {
            tier.policies
                .iter()
                .map(|policy| format!("{:?}", policy.policy.rules(opposite(direction))))
                .collect()
        });
        name
    }

    fn rule(
        &mut self,
        rule: &resource::Rule,
        stage: Stage,
        owner: &ResourceKey,
        tier: Option<&Name>,
        namespace: Option<&Namespace>,
    ) -> Vec<Rule> {
        let action = match enforced_action(rule, self.enforcers) {
            None => return Vec::new(),
            Some(resource::Action::Allow) => self.accept_in(stage),
            Some(resource::Action::Deny) => self.deny_in(stage),
            Some(resource::Action::Pass) => Action::Return,
            Some(resource::Action::Log) => {
                Action::Log { prefix: log_prefix(self.felix.log_prefix.as_deref(), owner, tier) }
            }
        };
        let alternatives = lower(rule, namespace, self.sets);
        alternatives.into_iter().map(|matches| Rule::when(matches, action.clone())).collect()
    }

    /// Returns what cannot be enforced of a rule.
    fn unenforced(&self, rule: &resource::Rule, owner: &ResourceKey) -> Option<Warning> {
        self.enforcers.leave_http(rule).then(|| Warning::HttpRule { policy: owner.clone() })
    }
}

pub(super) fn word(direction: PolicyType, ingress: &'static str, egress: &'static str) -> &'static str {
    match direction {
        PolicyType::Ingress => ingress,
        PolicyType::Egress => egress,
    }
}

fn opposite(direction: PolicyType) -> PolicyType {
    match direction {
        PolicyType::Ingress => PolicyType::Egress,
        PolicyType::Egress => PolicyType::Ingress,
    }
}

/// Reports whether no packet comes out of a tier undecided.
pub(super) fn decides_all(tier: &ActiveTier<'_, '_>, direction: PolicyType) -> bool {
    let passes = |rule: &resource::Rule| rule.action == resource::Action::Pass;
    tier.default_action == DefaultAction::Deny
        && !tier.policies.iter().any(|policy| policy.policy.rules(direction).iter().any(passes))
}
