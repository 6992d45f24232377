//! The v1 dialect: resources as Calico 1 and 2 wrote them, turned into today's at the door, and back for display.
//!
//! `apiVersion: v1`, kinds with a lower-case first letter (`ipPool`, `policy`, ...), actions and protocols in lower case,
//! a network where today is a list of them, tags beside labels. Nothing beyond this module knows of any of that.
//!
//! | v1 | v3 |
//! |---|---|
//! | `ipPool` | [`IPPool`](crate::resource::IpPool) named by its network, `10.1.0.0/16` → `10-1-0-0-16` |
//! | `node` | [`Node`](crate::resource::Node) |
//! | `hostEndpoint` | [`HostEndpoint`](crate::resource::HostEndpoint) `NODE.NAME` |
//! | `workloadEndpoint` | [`WorkloadEndpoint`](crate::resource::WorkloadEndpoint), its name [constructed](crate::name::workload_endpoint_name) |
//! | `policy` | [`GlobalNetworkPolicy`](crate::resource::GlobalNetworkPolicy), dots in its name as dashes |
//! | `profile` | [`Profile`](crate::resource::Profile), tags as labels without a value |
//! | `bgpPeer` | [`BGPPeer`](crate::resource::BgpPeer) named by its address, `NODE.` before it for a peer of one node |
//!
//! ```
//! use calico_model::resource::Resource;
//! use calico_model::v1;
//!
//! let pool = serde_json::json!({"apiVersion": "v1", "kind": "ipPool", "metadata": {"cidr": "10.1.0.0/16"},
//!                               "spec": {"ipip": {"enabled": true, "mode": "cross-subnet"}, "nat-outgoing": true}});
//! let Resource::IpPool(pool) = v1::to_v3(&pool)?.check_input()? else { panic!() };
//! assert_eq!(pool.metadata.name.as_str(), "10-1-0-0-16");
//! assert_eq!(pool.spec.ipip_mode.as_str(), "CrossSubnet");
//! # Ok::<(), calico_model::resource::ReadError>(())
//! ```

mod back;
mod names;
mod rules;
mod tables;

use serde_json::{Map, Value, json};

pub use back::from_v3;
pub use names::normalized;

use crate::label::Labels;
use crate::name::workload_endpoint_name;
use crate::net::Family;
use crate::resource::{API_VERSION, Document, ReadError};
use crate::wire::{Faults, FromWire, Path, Report, ToWire, UnknownField};

use tables::{BgpPeer, HostEndpoint, IpPool, Node, Policy, Profile, WorkloadEndpoint};

/// The `apiVersion` of the dialect.
pub const API_VERSION_V1: &str = "v1";

const KINDS: [&str; 7] =
    ["bgpPeer", "hostEndpoint", "ipPool", "node", "policy", "profile", "workloadEndpoint"];

/// Reports whether a document is of the dialect: its version is `v1` and its kind one of the seven.
#[must_use]
pub fn is_v1(value: &Value) -> bool {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    value.get("apiVersion").and_then(Value::as_str) == Some(API_VERSION_V1) && KINDS.contains(&kind)
}

/// Converts a v1 resource into today's.
///
/// # Errors
/// [`ReadError::UnknownKind`] when it is none of the dialect's kinds, [`ReadError::Invalid`] with every fault, in the
/// words and paths of v1, and [`ReadError::UnknownFields`] when it has fields that v1 did not know.
pub fn to_v3(value: &Value) -> Result<Document, ReadError> {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or("(none)");
    let convert: fn(&Value, &mut Report) -> Option<Value> = match kind {
        "ipPool" => |value, report| Some(pool(&read::<IpPool>(value, report)?)),
        "node" => |value, report| Some(node(&read::<Node>(value, report)?)),
        "hostEndpoint" => |value, report| Some(host(&read::<HostEndpoint>(value, report)?)),
        "workloadEndpoint" => |value, report| workload(&read::<WorkloadEndpoint>(value, report)?, report),
        "policy" => |value, report| policy(&read::<Policy>(value, report)?, report),
        "profile" => |value, report| profile(&read::<Profile>(value, report)?, report),
        "bgpPeer" => |value, report| Some(peer(&read::<BgpPeer>(value, report)?)),
        _ => return Err(ReadError::UnknownKind(kind.to_owned())),
    };
    let mut report = Report::default();
    let converted = convert(value, &mut report);
    let what = format!("v1 {kind}");
    match converted {
        Some(converted) if report.faults.is_empty() => {
            let document = Document::from_value(converted)?;
            if report.unknown.is_empty() {
                return Ok(document);
            }
            Err(ReadError::UnknownFields { what, kind: document.kind(), fields: report.unknown })
        }
        _ => Err(ReadError::Invalid { what, faults: Faults(report.faults) }),
    }
}

/// Reads the two parts of a v1 resource.
struct Parts<T: tables::Kind> {
    metadata: T::Metadata,
    spec: T::Spec,
}

fn read<T: tables::Kind>(value: &Value, report: &mut Report) -> Option<Parts<T>> {
    let nothing = Value::Object(Map::new());
    let part = |key: &str| value.get(key).filter(|part| !part.is_null()).unwrap_or(&nothing);
    let metadata = T::Metadata::from_wire(part("metadata"), Path::root("metadata"), report);
    let spec = T::Spec::from_wire(part("spec"), Path::root("spec"), report);
    if let Some(object) = value.as_object() {
        const KNOWN: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
        let unknown = object.keys().filter(|key| !KNOWN.contains(&key.as_str()));
        report.unknown.extend(unknown.map(|key| UnknownField::new(key.clone(), key, KNOWN)));
    }
    Some(Parts { metadata: metadata?, spec: spec? })
}

fn document(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn set_labels(document: &mut Value, labels: &Labels) {
    let renamed: Labels = labels.iter().map(|(key, value)| (names::label_key(key), value)).collect();
    if !renamed.is_empty() {
        document["metadata"]["labels"] = renamed.to_wire();
    }
}

fn pool(pool: &Parts<IpPool>) -> Value {
    let cidr = pool.metadata.cidr;
    let ipip = match &pool.spec.ipip {
        Some(ipip) if ipip.enabled => match ipip.mode.as_str() {
            "cross-subnet" => "CrossSubnet",
            _ => "Always",
        },
        _ => "Never",
    };
    let block_size = if cidr.family() == Family::V4 { 26 } else { 122 };
    let spec = json!({
        "cidr": cidr.to_string(), "ipipMode": ipip, "natOutgoing": pool.spec.nat_outgoing,
        "disabled": pool.spec.disabled, "blockSize": block_size,
    });
    document("IPPool", &names::of_network(&cidr), spec)
}

fn node(node: &Parts<Node>) -> Value {
    let mut spec = node.spec.to_wire();
    if spec["bgp"].as_object().is_some_and(Map::is_empty) {
        spec["bgp"] = Value::Null;
    }
    document("Node", &names::of_node(&node.metadata.name), spec)
}

fn host(host: &Parts<HostEndpoint>) -> Value {
    let node = names::of_node(&host.metadata.node);
    let mut spec = host.spec.to_wire();
    spec["node"] = Value::String(node.clone());
    rename_profiles(&mut spec);
    let mut made = document("HostEndpoint", &normalized(&format!("{node}.{}", host.metadata.name)), spec);
    set_labels(&mut made, &host.metadata.labels);
    made
}

fn rename_profiles(spec: &mut Value) {
    if let Some(profiles) = spec.get_mut("profiles").and_then(Value::as_array_mut) {
        for profile in profiles {
            *profile = Value::String(names::of_profile(profile.as_str().unwrap_or_default()));
        }
    }
}

fn workload(workload: &Parts<WorkloadEndpoint>, report: &mut Report) -> Option<Value> {
    let meta = &workload.metadata;
    let node = names::of_node(&meta.node);
    let mut spec = workload.spec.to_wire();
    rename_profiles(&mut spec);
    spec["node"] = Value::String(node.clone());
    spec["orchestrator"] = Value::String(meta.orchestrator.clone());
    spec["endpoint"] = Value::String(meta.name.clone());
    let (namespace, last) = match (meta.orchestrator.as_str(), meta.workload.split_once('.')) {
        ("k8s", Some((namespace, pod))) => {
            spec["pod"] = Value::String(pod.to_owned());
            (namespace, pod)
        }
        _ => {
            spec["workload"] = Value::String(meta.workload.clone());
            ("default", meta.workload.as_str())
        }
    };
    if !meta.active_instance_id.is_empty() {
        spec["containerID"] = Value::String(meta.active_instance_id.clone());
    }
    let segments = match meta.orchestrator.as_str() {
        "cni" if !meta.active_instance_id.is_empty() => [&node, "cni", &meta.active_instance_id, &meta.name],
        orchestrator => [&node, orchestrator, last, &meta.name],
    };
    let name = workload_endpoint_name(&segments)
        .map_err(|error| report.fault(Path::root("metadata"), None, error.to_string()))
        .ok()?;
    let mut made = document("WorkloadEndpoint", name.as_str(), spec);
    made["metadata"]["namespace"] = Value::String(namespace.to_owned());
    set_labels(&mut made, &meta.labels);
    Some(made)
}

fn policy(policy: &Parts<Policy>, report: &mut Report) -> Option<Value> {
    let at = Path::root("spec");
    let from = &policy.spec;
    let mut spec = json!({
        "selector": names::selector(&from.selector),
        "ingress": rules::to_v3(&from.ingress, at.key("ingress"), report),
        "egress": rules::to_v3(&from.egress, at.key("egress"), report),
    });
    if let Some(order) = from.order {
        spec["order"] = order.to_wire();
    }
    if !from.types.is_empty() {
        spec["types"] = from.types.iter().map(|direction| direction.to_v3()).collect();
    }
    for (key, set) in [("doNotTrack", from.do_not_track), ("preDNAT", from.pre_dnat)] {
        if set {
            spec[key] = Value::Bool(true);
            spec["applyOnForward"] = Value::Bool(true);
        }
    }
    let name = normalized(&policy.metadata.name.replace('.', "-"));
    let mut made = document("GlobalNetworkPolicy", &name, spec);
    if !policy.metadata.annotations.is_empty() {
        made["metadata"]["annotations"] = policy.metadata.annotations.to_wire();
    }
    report.faults.is_empty().then_some(made)
}

fn profile(profile: &Parts<Profile>, report: &mut Report) -> Option<Value> {
    let at = Path::root("spec");
    let mut labels: Labels =
        profile.metadata.labels.iter().map(|(key, value)| (names::label_key(key), value)).collect();
    let metadata_at = Path::root("metadata");
    let tags_at = metadata_at.key("tags");
    for (i, tag) in profile.metadata.tags.iter().enumerate() {
        if labels.get(tag).is_some_and(|value| !value.is_empty()) {
            report.fault(tags_at.index(i), Some(&Value::String(tag.clone())), "is also a label with a value");
        } else {
            labels.insert(tag.as_str(), "");
        }
    }
    let spec = json!({
        "ingress": rules::to_v3(&profile.spec.ingress, at.key("ingress"), report),
        "egress": rules::to_v3(&profile.spec.egress, at.key("egress"), report),
        "labelsToApply": labels.to_wire(),
    });
    report.faults.is_empty().then(|| document("Profile", &names::of_profile(&profile.metadata.name), spec))
}

fn peer(peer: &Parts<BgpPeer>) -> Value {
    let meta = &peer.metadata;
    let mut spec = json!({"peerIP": meta.peer_ip.to_string(), "asNumber": peer.spec.as_number.get()});
    let mut name = names::of_address(meta.peer_ip);
    if !meta.node.is_empty() {
        let node = names::of_node(&meta.node);
        name = format!("{node}.{name}");
        spec["node"] = Value::String(node);
    }
    document("BGPPeer", &name, spec)
}

#[cfg(test)]
mod tests;
