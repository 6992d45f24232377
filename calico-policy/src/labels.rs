//! The labels of whatever selectors select, with those that the system gives out of users' reach.
//!
//! What a thing *is* (its namespace, service account and orchestrator) comes from where the datastore says it is. A label
//! of that name that somebody wrote on the thing itself is not looked at, nor is one that claims to come from its
//! namespace or service account: those come from profiles alone.

use calico_model::label::Labels;
use calico_model::resource::{HostEndpoint, Metadata, Object, WorkloadEndpoint};
use calico_model::selector::{NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX};
use calico_model::{LabelSource, Name, Snapshot};

pub(crate) const NAMESPACE: &str = "projectcalico.org/namespace";
pub(crate) const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
const ORCHESTRATOR: &str = "projectcalico.org/orchestrator";

/// What only the system says of a thing itself: never taken from what it inherits.
pub(crate) const NOT_INHERITED: [&str; 3] = [NAMESPACE, SERVICE_ACCOUNT, ORCHESTRATOR];

/// Reports whether only parents give a label.
fn is_inherited_only(key: &str) -> bool {
    key.starts_with(NAMESPACE_PREFIX) || key.starts_with(SERVICE_ACCOUNT_PREFIX)
}

/// The labels of one endpoint or network set.
#[derive(Debug, Clone)]
pub(crate) struct SystemLabels<'s> {
    metadata: &'s Metadata,
    service_account: &'s str,
    orchestrator: &'s str,
    inherited: Vec<&'s Labels>,
}

impl<'s> SystemLabels<'s> {
    pub(crate) fn of_workload(snapshot: &'s Snapshot, endpoint: &'s Object<WorkloadEndpoint>) -> Self {
        Self {
            metadata: &endpoint.metadata,
            service_account: &endpoint.spec.service_account_name,
            orchestrator: &endpoint.spec.orchestrator,
            inherited: inherited(snapshot, &endpoint.spec.profiles),
        }
    }

    pub(crate) fn of_host(snapshot: &'s Snapshot, endpoint: &'s Object<HostEndpoint>) -> Self {
        Self { inherited: inherited(snapshot, &endpoint.spec.profiles), ..Self::of_set(&endpoint.metadata) }
    }

    pub(crate) fn of_set(metadata: &'s Metadata) -> Self {
        Self { metadata, service_account: "", orchestrator: "", inherited: Vec::new() }
    }
}

/// Returns the labels that a workload carries itself.
pub(crate) fn of_workload(endpoint: &Object<WorkloadEndpoint>) -> Vec<(&str, &str)> {
    let mut own = of_others(&endpoint.metadata);
    let said = [
        (SERVICE_ACCOUNT, endpoint.spec.service_account_name.as_str()),
        (ORCHESTRATOR, endpoint.spec.orchestrator.as_str()),
    ];
    own.extend(said.into_iter().filter(|(_, value)| !value.is_empty()));
    own
}

/// Returns the labels that a host endpoint or network set carries itself.
pub(crate) fn of_others(metadata: &Metadata) -> Vec<(&str, &str)> {
    let written = metadata.labels.iter();
    let mut own: Vec<_> =
        written.filter(|(key, _)| !is_inherited_only(key) && !NOT_INHERITED.contains(key)).collect();
    own.extend(metadata.namespace.as_ref().map(|namespace| (NAMESPACE, namespace.as_str())));
    own
}

fn inherited<'s>(snapshot: &'s Snapshot, profiles: &[Name]) -> Vec<&'s Labels> {
    let labels = |name: &Name| snapshot.profiles.get(&name.clone().into()).map(|p| &p.spec.labels_to_apply);
    profiles.iter().filter_map(labels).collect()
}

impl LabelSource for SystemLabels<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        let present = |text: &'_ str| !text.is_empty();
        match key {
            NAMESPACE => return self.metadata.namespace.as_ref().map(|namespace| namespace.as_str()),
            SERVICE_ACCOUNT => return Some(self.service_account).filter(|text| present(text)),
            ORCHESTRATOR => return Some(self.orchestrator).filter(|text| present(text)),
            _ => {}
        }
        let own = if is_inherited_only(key) { None } else { self.metadata.labels.get(key) };
        own.or_else(|| self.inherited.iter().find_map(|labels| labels.get(key)))
    }
}
