//! The labels of whatever selectors select, with those that the system gives out of users' reach.
//!
//! What a thing *is* (its namespace, service account and orchestrator) comes from where the datastore says it is. A label
//! of that name that somebody wrote on the thing itself is not looked at, nor is one that claims to come from its
//! namespace or service account: those come from profiles alone.

use std::sync::Arc;

use calico_model::label::Labels;
use calico_model::resource::{
    GlobalNetworkSet, HostEndpoint, Metadata, NetworkSet, Object, WorkloadEndpoint,
};
use calico_model::selector::{NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX};
use calico_model::{LabelSource, Name, Snapshot};

pub(crate) const NAMESPACE: &str = "projectcalico.org/namespace";
pub(crate) const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
const ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
/// How the labels begin that only the system gives.
const SYSTEM: &str = "projectcalico.org/";

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

/// Whatever selectors select, as the snapshot holds it.
#[derive(Debug, Clone)]
pub(crate) enum Labelled {
    Workload(Arc<Object<WorkloadEndpoint>>),
    Host(Arc<Object<HostEndpoint>>),
    Set(Arc<Object<NetworkSet>>),
    GlobalSet(Arc<Object<GlobalNetworkSet>>),
}

impl Labelled {
    /// Returns the labels that it carries itself.
    pub(crate) fn own(&self) -> Vec<(&str, &str)> {
        match self {
            Labelled::Workload(object) => of_workload(object),
            Labelled::Host(object) => of_others(&object.metadata),
            Labelled::Set(object) => of_others(&object.metadata),
            Labelled::GlobalSet(object) => of_others(&object.metadata),
        }
    }

    /// Returns the profiles that it inherits from, in order.
    pub(crate) fn parents(&self) -> &[Name] {
        match self {
            Labelled::Workload(object) => &object.spec.profiles,
            Labelled::Host(object) => &object.spec.profiles,
            Labelled::Set(_) | Labelled::GlobalSet(_) => &[],
        }
    }
}

/// Its own labels only.
impl LabelSource for Labelled {
    fn label(&self, key: &str) -> Option<&str> {
        match self {
            Labelled::Workload(object) => {
                own(&object.metadata, &object.spec.service_account_name, &object.spec.orchestrator, key)
            }
            Labelled::Host(object) => own(&object.metadata, "", "", key),
            Labelled::Set(object) => own(&object.metadata, "", "", key),
            Labelled::GlobalSet(object) => own(&object.metadata, "", "", key),
        }
    }
}

/// Returns a label that something carries itself.
fn own<'l>(
    metadata: &'l Metadata,
    service_account: &'l str,
    orchestrator: &'l str,
    key: &str,
) -> Option<&'l str> {
    let said = |text: &'l str| Some(text).filter(|text| !text.is_empty());
    // All that is not for users begins so: most keys are looked up at once.
    if key.starts_with(SYSTEM) {
        match key {
            NAMESPACE => return metadata.namespace.as_ref().map(|namespace| namespace.as_str()),
            SERVICE_ACCOUNT => return said(service_account),
            ORCHESTRATOR => return said(orchestrator),
            _ => {}
        }
    }
    if is_inherited_only(key) { None } else { metadata.labels.get(key) }
}

fn inherited<'s>(snapshot: &'s Snapshot, profiles: &[Name]) -> Vec<&'s Labels> {
    let labels = |name: &Name| snapshot.profiles.get(&name.clone().into()).map(|p| &p.spec.labels_to_apply);
    profiles.iter().filter_map(labels).collect()
}

impl LabelSource for SystemLabels<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        let own = own(self.metadata, self.service_account, self.orchestrator, key);
        let inherited = || self.inherited.iter().find_map(|labels| labels.get(key));
        if NOT_INHERITED.contains(&key) { own } else { own.or_else(inherited) }
    }
}
