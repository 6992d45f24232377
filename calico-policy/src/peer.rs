//! Whom one end of a rule means, once the policy's own place is taken into account.

use calico_model::resource::EntityRule;
use calico_model::resource::service::ServiceId;
use calico_model::{Namespace, Selector};

use crate::labels::{NAMESPACE, SERVICE_ACCOUNT};

/// Who one end of a rule is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The address belongs to something that this selects; `None` is any address.
    pub(crate) selector: Option<Selector>,
    /// The address belongs to nothing that this selects.
    pub(crate) not_selector: Option<Selector>,
    /// It is one of this service's endpoints: a source by its address, a destination by its port too.
    pub(crate) service: Option<ServiceId>,
}

/// Returns whom an end of a rule means in a policy of `namespace`; `None` for policies and profiles of the cluster.
///
/// As soon as an end names anybody, by whatever field, a namespaced policy means its own namespace unless the rule has a
/// namespace selector.
pub(crate) fn peer(entity: &EntityRule, namespace: Option<&Namespace>) -> Peer {
    let mut peer = selected(entity, namespace);
    if let Some(wanted) = &entity.services {
        match wanted.namespace.as_ref().or(namespace) {
            Some(namespace) => {
                peer.service =
                    Some(ServiceId { namespace: namespace.clone(), name: wanted.name.as_str().into() });
            }
            // A service of no namespace has no endpoints.
            None => peer.selector = Some(nobody()),
        }
    }
    peer
}

fn selected(entity: &EntityRule, namespace: Option<&Namespace>) -> Peer {
    let names_nobody = entity.selector.is_none()
        && entity.not_selector.is_none()
        && entity.namespace_selector.is_none()
        && entity.service_accounts.is_none();
    if names_nobody {
        return Peer { selector: None, not_selector: None, service: None };
    }
    let mut terms = Vec::new();
    terms.extend(entity.selector.clone());
    match (&entity.namespace_selector, namespace) {
        (Some(selector), _) => terms.push(selector.for_namespaces()),
        (None, Some(namespace)) => terms.push(closed(Selector::equals(NAMESPACE, namespace.as_str()))),
        (None, None) => {}
    }
    if let Some(accounts) = &entity.service_accounts {
        if !accounts.names.is_empty() {
            terms.push(closed(Selector::in_set(SERVICE_ACCOUNT, &accounts.names)));
        }
        terms.extend(accounts.selector.as_ref().map(Selector::for_service_accounts));
    }
    let selector = terms.into_iter().reduce(|all, term| all.and(&term));
    Peer { selector, not_selector: entity.not_selector.clone(), service: None }
}

/// A name that no selector can hold belongs to nobody.
fn closed<E>(made: Result<Selector, E>) -> Selector {
    made.unwrap_or_else(|_| nobody())
}

fn nobody() -> Selector {
    Selector::in_set::<&str>(NAMESPACE, []).expect("the label is a constant and there are no values")
}
