//! What may be written: rules between resources, and resources that are every cluster's.

use serde_json::Value;

use super::ClientError;
use crate::datastore::Datastore;
use crate::name::{Name, workload_endpoint_name};
use crate::resource::block::{StoredBlock, block_from_key, blocks_prefix};
use crate::resource::{
    AllowedUse, DEFAULT_ALLOW_PROFILE, Document, IpPool, Kind, ObjectId, Policy, ReadError, Resource,
    ResourceKey, Tier, WorkloadEndpoint,
};
use crate::wire::{Fault, Faults, quoted};

const TIER_LABEL: &str = "projectcalico.org/tier";
const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";

/// Makes the error of one fault.
pub(super) fn fault(
    key: &ResourceKey,
    path: &str,
    value: Option<Value>,
    rule: impl Into<String>,
) -> ClientError {
    let value = value.as_ref().map(quoted);
    let fault = Fault { path: path.to_owned(), value, rule: rule.into(), snippet: None };
    let what = format!("{} {:?}", key.kind, key.id.name.as_str());
    ClientError::Invalid(ReadError::Invalid { what, faults: Faults(vec![fault]) })
}

/// Refuses what nobody may write or delete.
pub(super) fn writable(key: &ResourceKey) -> Result<(), ClientError> {
    if key.kind == Kind::Profile && key.id.name.as_str() == DEFAULT_ALLOW_PROFILE {
        let reason = "it is built in".to_owned();
        return Err(ClientError::Forbidden { key: key.clone(), attempted: "written or deleted", reason });
    }
    Ok(())
}

/// Gives a workload endpoint that has no name the one that it is constructed to have.
pub(super) fn named(document: &Document) -> Document {
    let mut document = document.clone();
    let nameless = document.metadata("name").is_none_or(str::is_empty);
    if nameless && document.kind() == Kind::WorkloadEndpoint {
        let field = |key: &str| document.value().get("spec")?.get(key)?.as_str();
        let segments = endpoint_segments(
            field("node").unwrap_or_default(),
            field("orchestrator").unwrap_or_default(),
            ["workload", "pod", "containerID", "endpoint"].map(|key| field(key).unwrap_or_default()),
        );
        if let Ok(name) = workload_endpoint_name(&segments) {
            document.set_metadata("name", name.as_str());
        }
    }
    document
}

/// The parts of the name of a workload endpoint, by its orchestrator.
fn endpoint_segments<'s>(
    node: &'s str,
    orchestrator: &'s str,
    [workload, pod, container, endpoint]: [&'s str; 4],
) -> [&'s str; 4] {
    let third = match orchestrator {
        "k8s" => pod,
        "cni" => container,
        "libnetwork" => "libnetwork",
        _ => workload,
    };
    [node, orchestrator, third, endpoint]
}

/// Checks what a resource must be whatever else exists.
pub(super) fn alone(key: &ResourceKey, resource: &Resource) -> Result<(), ClientError> {
    resource.check_name().map_err(ClientError::Invalid)?;
    if let Resource::WorkloadEndpoint(endpoint) = resource {
        return endpoint_name(key, &endpoint.spec);
    }
    Ok(())
}

fn endpoint_name(key: &ResourceKey, endpoint: &WorkloadEndpoint) -> Result<(), ClientError> {
    let segments = endpoint_segments(
        endpoint.node.as_str(),
        &endpoint.orchestrator,
        [&endpoint.workload, &endpoint.pod, &endpoint.container_id, &endpoint.endpoint],
    );
    match workload_endpoint_name(&segments) {
        Ok(name) if name == key.id.name => Ok(()),
        Ok(name) => {
            let rule = format!("must be {name}, as node, orchestrator, workload and endpoint make it");
            Err(fault(key, "metadata.name", Some(key.id.name.as_str().into()), rule))
        }
        Err(_) => {
            let [_, orchestrator, third, _] = segments;
            let missing = if orchestrator.is_empty() {
                "spec.orchestrator"
            } else if third.is_empty() {
                match orchestrator {
                    "k8s" => "spec.pod",
                    "cni" => "spec.containerID",
                    _ => "spec.workload",
                }
            } else {
                "spec.endpoint"
            };
            Err(fault(
                key,
                missing,
                None,
                "is required, as the endpoint's name is made of it, and cannot begin or end with '-'",
            ))
        }
    }
}

/// Sets the labels that say what the resource says elsewhere, so that selectors can ask for it.
pub(super) fn force_labels(resource: &mut Resource) {
    let mut forced = Vec::new();
    if let Some(policy) = policy_of(resource) {
        forced.push((TIER_LABEL.to_owned(), policy.tier.to_string()));
    }
    if let Resource::WorkloadEndpoint(endpoint) = &*resource {
        let namespace = endpoint.metadata.namespace.as_ref().map(ToString::to_string).unwrap_or_default();
        forced.push((NAMESPACE_LABEL.to_owned(), namespace));
        forced.push((ORCHESTRATOR_LABEL.to_owned(), endpoint.spec.orchestrator.clone()));
    }
    let labels = &mut resource.metadata_mut().labels;
    let own = labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    *labels = own.chain(forced).collect();
}

/// The policy in a resource of a kind that belongs to tiers, whether in force or staged.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds are an open list and have no tier")]
fn policy_of(resource: &Resource) -> Option<&Policy> {
    match resource {
        Resource::NetworkPolicy(policy) => Some(&policy.spec),
        Resource::GlobalNetworkPolicy(policy) => Some(&policy.spec),
        Resource::StagedNetworkPolicy(policy) => Some(&policy.spec),
        Resource::StagedGlobalNetworkPolicy(policy) => Some(&policy.spec),
        _ => None,
    }
}

/// The kinds of which [`policy_of`] knows.
const POLICY_KINDS: [Kind; 4] = [
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
];

/// Checks a new resource against those that exist.
pub(super) async fn create(
    store: &dyn Datastore,
    key: &ResourceKey,
    resource: &Resource,
) -> Result<(), ClientError> {
    if let Resource::IpPool(pool) = resource {
        new_pool(store, key, &pool.spec).await?;
    }
    filters_exist(store, key, resource).await?;
    match policy_of(resource) {
        Some(policy) => tier_exists(store, key, &policy.tier).await,
        None => Ok(()),
    }
}

async fn new_pool(store: &dyn Datastore, key: &ResourceKey, pool: &IpPool) -> Result<(), ClientError> {
    let pools = store.list(&Kind::IpPool.datastore_prefix()).await?;
    // A taken name is told as such, and not as an overlap of the pool with itself. That is seen in the same listing as
    // the others: agents that start together make the same pool, and one may appear between two reads.
    if pools.entries.iter().any(|entry| entry.key == key.datastore_key()) {
        return Err(ClientError::AlreadyExists { key: key.clone() });
    }
    for entry in &pools.entries {
        // A pool that cannot be read serves no addresses, and nothing is known that could be compared.
        let Ok(Resource::IpPool(other)) = Document::from_json(&entry.value).and_then(|other| other.check())
        else {
            continue;
        };
        if other.spec.cidr.overlaps(&pool.cidr) {
            let rule = format!(
                "must not overlap IPPool {:?}, which is {}",
                other.metadata.name.as_str(),
                other.spec.cidr
            );
            return Err(fault(key, "spec.cidr", Some(pool.cidr.to_string().into()), rule));
        }
    }
    let blocks = store.list(&blocks_prefix(pool.cidr.family())).await?;
    // What cannot be decoded counts as in use: its addresses may be held.
    let deleted =
        |value: &[u8]| serde_json::from_slice::<StoredBlock>(value).is_ok_and(|block| block.deleted);
    let in_use = blocks.entries.iter().filter(|entry| !deleted(&entry.value));
    for block in in_use.filter_map(|entry| block_from_key(&entry.key)) {
        // A block that differs would share addresses with those of the pool, and each would be assigned twice.
        if !block.overlaps(&pool.cidr) || block.prefix_len() == pool.block_size {
            continue;
        }
        if !pool.cidr.covers(&block) {
            let rule = format!("must not lie inside the block {block}, which is in use");
            return Err(fault(key, "spec.cidr", Some(pool.cidr.to_string().into()), rule));
        }
        let rule = format!("must be {}: the block {block} is in use", block.prefix_len());
        return Err(fault(key, "spec.blockSize", Some(pool.block_size.into()), rule));
    }
    Ok(())
}

async fn tier_exists(store: &dyn Datastore, key: &ResourceKey, tier: &Name) -> Result<(), ClientError> {
    if Tier::reserved().iter().any(|(name, _)| *name == tier.as_str()) {
        return Ok(());
    }
    let tier_key = ResourceKey { kind: Kind::Tier, id: ObjectId { namespace: None, name: tier.clone() } };
    match store.get(&tier_key.datastore_key()).await? {
        Some(_) => Ok(()),
        None => Err(fault(
            key,
            "spec.tier",
            Some(tier.as_str().into()),
            "must be a tier that exists: create it first",
        )),
    }
}

/// Refuses a peer whose filters do not all exist: routes would pass that were meant to be kept back.
async fn filters_exist(
    store: &dyn Datastore,
    key: &ResourceKey,
    resource: &Resource,
) -> Result<(), ClientError> {
    let Resource::BgpPeer(peer) = resource else { return Ok(()) };
    for (i, name) in peer.spec.filters.iter().enumerate() {
        let id = ObjectId { namespace: None, name: name.clone() };
        let filter = ResourceKey { kind: Kind::BgpFilter, id };
        if store.get(&filter.datastore_key()).await?.is_none() {
            let path = format!("spec.filters[{i}]");
            let rule = "must be a BGPFilter that exists: create it first";
            return Err(fault(key, &path, Some(name.as_str().into()), rule));
        }
    }
    Ok(())
}

/// Checks a changed resource against what it was.
pub(super) async fn update(
    store: &dyn Datastore,
    key: &ResourceKey,
    before: &Resource,
    after: &Resource,
) -> Result<(), ClientError> {
    let fixed = |path: &str, before: String, after: String| {
        if before == after {
            return Ok(());
        }
        let rule = format!("must stay {before}: it cannot be changed");
        Err(fault(key, path, Some(after.into()), rule))
    };
    if let (Resource::IpPool(before), Resource::IpPool(after)) = (before, after) {
        fixed("spec.cidr", before.spec.cidr.to_string(), after.spec.cidr.to_string())?;
        fixed("spec.blockSize", before.spec.block_size.to_string(), after.spec.block_size.to_string())?;
        let balances = |uses: &[AllowedUse]| uses.contains(&AllowedUse::LoadBalancer);
        if balances(&before.spec.allowed_uses) && !balances(&after.spec.allowed_uses) {
            let uses = after.spec.allowed_uses.iter().map(|one| one.as_str()).collect();
            let rule = "must stay LoadBalancer: services have addresses of the pool";
            return Err(fault(key, "spec.allowedUses", Some(uses), rule));
        }
    }
    filters_exist(store, key, after).await?;
    match (policy_of(before), policy_of(after)) {
        (Some(before), Some(after)) if before.tier != after.tier => {
            tier_exists(store, key, &after.tier).await
        }
        _ => Ok(()),
    }
}

/// Refuses to delete what every cluster has, and a tier that has policies.
pub(super) async fn delete(store: &dyn Datastore, key: &ResourceKey) -> Result<(), ClientError> {
    let forbidden =
        |reason: String| Err(ClientError::Forbidden { key: key.clone(), attempted: "deleted", reason });
    if key.kind != Kind::Tier {
        return Ok(());
    }
    if Tier::reserved().iter().any(|(name, _)| *name == key.id.name.as_str()) {
        return forbidden("every cluster has it".to_owned());
    }
    for kind in POLICY_KINDS {
        let policies = store.list(&kind.datastore_prefix()).await?;
        let in_tier = policies
            .entries
            .iter()
            .find(|entry| tier_in(&entry.value).as_deref() == Some(key.id.name.as_str()));
        if let Some(policy) = in_tier.and_then(|entry| ResourceKey::from_datastore_key(&entry.key)) {
            return forbidden(format!("{policy} is in it"));
        }
    }
    Ok(())
}

/// The tier that a stored policy names, whether or not the policy is sound.
fn tier_in(policy: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(policy).ok()?;
    Some(value.get("spec")?.get("tier")?.as_str()?.to_owned())
}
