//! Rules between a resource's name and the rest of it.
//!
//! They hold for what is written. What is stored is read without them: an older Calico may have named it.

use serde_json::Value;

use super::{
    BgpConfiguration, ClusterInformation, Document, FelixConfiguration, IpamConfiguration, Kind, ReadError,
    Resource, Tier,
};
use crate::name::Namespace;
use crate::wire::{Faults, Path, Report, Rules};

/// The label by which selectors ask for the namespace of an endpoint.
const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";

const NAME: &str = "metadata.name";

impl Resource {
    /// Checks the rules of the name, which hold for everything that is written.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] with every fault.
    pub(crate) fn check_name(&self) -> Result<(), ReadError> {
        let mut report = Report::default();
        let name = self.metadata().name.as_str();
        check_name(self.kind(), name, &mut report);
        self.check_for_name(Rules::of_document(Document::from(self).value(), &mut report));
        if report.faults.is_empty() {
            return Ok(());
        }
        Err(ReadError::Invalid { what: format!("{} {name:?}", self.kind()), faults: Faults(report.faults) })
    }

    /// Reports what a resource of its name may not say.
    pub(super) fn check_for_name(&self, mut rules: Rules<'_, '_, '_>) {
        let name = self.metadata().name.as_str();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the other kinds are an open list and have no such rules"
        )]
        match self {
            Resource::Tier(tier) => check_tier(name, &tier.spec, &mut rules),
            Resource::BgpConfiguration(object) if name != BgpConfiguration::DEFAULT => {
                for key in object.spec.of_the_cluster_alone() {
                    let rule = "must be absent: only the BGPConfiguration named default may set it";
                    rules.broken(&format!("spec.{key}"), &[NAME], rule);
                }
            }
            Resource::FelixConfiguration(object)
                if object.spec.node_selector.is_some()
                    && (name == FelixConfiguration::DEFAULT || name.starts_with("node.")) =>
            {
                let rule = format!("must be absent from the FelixConfiguration named {name}");
                rules.broken("spec.nodeSelector", &[NAME], rule);
            }
            Resource::NetworkSet(object) if object.metadata.labels.get(NAMESPACE_LABEL).is_some() => {
                let rule = "must be absent: it says which namespace the set is in";
                rules.wrong_entry("metadata.labels", NAMESPACE_LABEL, rule);
            }
            Resource::ClusterInformation(object) => {
                let guid = &object.spec.cluster_guid;
                let hex = guid.len() == 32 && guid.bytes().all(|byte| byte.is_ascii_hexdigit());
                if !guid.is_empty() && !hex {
                    rules.wrong("spec.clusterGUID", "must be 32 hex digits");
                }
            }
            _ => {}
        }
    }
}

/// Reports a name that no resource of the kind may have.
pub(super) fn check_name(kind: Kind, name: &str, report: &mut Report) {
    let at = Path::root("metadata");
    let mut fault = |rule: String| report.fault(at.key("name"), Some(&Value::from(name)), rule);
    if let Some(only) = only_name(kind).filter(|only| *only != name) {
        fault(format!("must be {only}: there is one {kind}"));
    }
    if let Some(rule) = policy_name(kind, name) {
        fault(rule.to_owned());
    }
    if kind == Kind::Tier && name.parse::<Namespace>().is_err() {
        fault("must have no dot and at most 63 characters".to_owned());
    }
}

/// The name of the only resource of a kind.
fn only_name(kind: Kind) -> Option<&'static str> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "of the other kinds there may be many")]
    match kind {
        Kind::ClusterInformation => Some(ClusterInformation::NAME),
        Kind::IpamConfiguration => Some(IpamConfiguration::NAME),
        Kind::KubeControllersConfiguration => Some("default"),
        _ => None,
    }
}

/// The rule that a policy's name breaks.
fn policy_name(kind: Kind, name: &str) -> Option<&'static str> {
    // A DNS label is what a namespace's name is too.
    let labels = name.split('.').all(|label| label.parse::<Namespace>().is_ok());
    let plain = labels && name.split('.').count() <= 2;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds are no policies")]
    match kind {
        Kind::NetworkPolicy | Kind::StagedNetworkPolicy => {
            let made = ["knp.default.", "ossg.default."].iter().any(|prefix| name.starts_with(prefix));
            let rule = "must be one or two labels of at most 63 characters with a dot between, or begin with knp.default. or ossg.default.";
            (!plain && !made).then_some(rule)
        }
        Kind::GlobalNetworkPolicy | Kind::StagedGlobalNetworkPolicy => {
            let made =
                ["kcnp.kube-admin.", "kcnp.kube-baseline."].iter().any(|prefix| name.starts_with(prefix));
            let rule = "must be one or two labels of at most 63 characters with a dot between, or begin with kcnp.kube-admin. or kcnp.kube-baseline.";
            (!plain && !made).then_some(rule)
        }
        _ => None,
    }
}

fn check_tier(name: &str, tier: &Tier, rules: &mut Rules<'_, '_, '_>) {
    let Some((_, fixed)) = Tier::reserved().into_iter().find(|(reserved, _)| *reserved == name) else {
        return;
    };
    if tier.order != fixed.order {
        let rule = format!("must be {}: the tier's place is fixed", fixed.order.unwrap_or_default());
        rules.broken("spec.order", &[NAME, "spec.order"], rule);
    }
    if tier.default_action != fixed.default_action {
        let rule = format!("must be {}: the tier's action is fixed", fixed.default_action);
        rules.broken("spec.defaultAction", &[NAME, "spec.defaultAction"], rule);
    }
}
