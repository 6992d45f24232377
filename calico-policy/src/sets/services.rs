//! The endpoints of services, and the sets that follow them.

use std::collections::{BTreeSet, HashMap};

use calico_model::Cidr;
use calico_model::resource::service::ServiceId;
use calico_model::resource::{EndpointPort, KubernetesEndpointSlice, Object, ResourceKey};

use super::Member;

/// What is known of services.
#[derive(Debug, Default)]
pub(super) struct Services {
    slices: HashMap<ResourceKey, Slice>,
    by_service: HashMap<ServiceId, BTreeSet<ResourceKey>>,
    /// The sets of each service's endpoints.
    pub(super) sets: HashMap<ServiceId, Vec<usize>>,
}

/// Some endpoints of a service.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) service: ServiceId,
    pub(super) member: Member,
}

impl Services {
    /// Puts a slice in place, or takes it away. Returns what was there, and what is.
    pub(super) fn put(
        &mut self,
        key: &ResourceKey,
        object: Option<&Object<KubernetesEndpointSlice>>,
    ) -> (Option<Slice>, Option<&Slice>) {
        let former = self.slices.remove(key);
        if let Some(Slice { service, .. }) = &former
            && let Some(keys) = self.by_service.get_mut(service)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_service.remove(service);
            }
        }
        let made = object.and_then(|object| Some((object.service()?, object)));
        let slice = made.map(|(service, object)| {
            self.by_service.entry(service.clone()).or_default().insert(key.clone());
            &*self.slices.entry(key.clone()).or_insert(Slice { service, member: member(&object.spec) })
        });
        (former, slice)
    }

    /// Returns what a service is made of.
    pub(super) fn members(&self, service: &ServiceId) -> Vec<&Member> {
        let keys = self.by_service.get(service).into_iter().flatten();
        keys.filter_map(|key| self.slices.get(key)).map(|slice| &slice.member).collect()
    }

    /// Forgets a set of a service.
    pub(super) fn forget(&mut self, service: &ServiceId, set: usize) {
        if let Some(sets) = self.sets.get_mut(service) {
            sets.retain(|other| *other != set);
            if sets.is_empty() {
                self.sets.remove(service);
            }
        }
    }
}

/// A port of a service has no name for rules: the service is its name.
fn member(slice: &KubernetesEndpointSlice) -> Member {
    let port = |(protocol, port)| EndpointPort::named("", protocol, port);
    Member {
        nets: slice.addresses().map(Cidr::host).collect(),
        ports: slice.numbered_ports().map(port).collect(),
    }
}
