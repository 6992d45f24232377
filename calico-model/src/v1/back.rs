//! Resources of today in the words of v1, for display.

use serde_json::{Map, Value, json};

use super::API_VERSION_V1;
use crate::label::Labels;
use crate::resource::policy::{EntityRule, Rule};
use crate::resource::{
    BgpPeer, EncapMode, GlobalNetworkPolicy, HostEndpoint, IpPool, Metadata, Node, Object, Profile, Resource,
    WorkloadEndpoint,
};
use crate::wire::ToWire;

/// Returns a resource as v1 would show it; `None` for a kind that v1 did not have. What v1 cannot say is left out.
#[must_use]
pub fn from_v3(resource: &Resource) -> Option<Value> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "v1 has these seven kinds and gets no more")]
    match resource {
        Resource::IpPool(object) => Some(pool(object)),
        Resource::Node(object) => Some(node(object)),
        Resource::HostEndpoint(object) => Some(host(object)),
        Resource::WorkloadEndpoint(object) => Some(workload(object)),
        Resource::GlobalNetworkPolicy(object) => Some(policy(object)),
        Resource::Profile(object) => Some(profile(object)),
        Resource::BgpPeer(object) => peer(object),
        _ => None,
    }
}

fn document(kind: &str, metadata: Value, spec: Value) -> Value {
    json!({"apiVersion": API_VERSION_V1, "kind": kind, "metadata": metadata, "spec": spec})
}

fn with_labels(mut metadata: Value, labels: &Labels) -> Value {
    if !labels.is_empty() {
        metadata["labels"] = labels.to_wire();
    }
    metadata
}

fn pool(pool: &Object<IpPool>) -> Value {
    let spec = &pool.spec;
    let mut made = json!({"nat-outgoing": spec.nat_outgoing, "disabled": spec.disabled});
    let mode = match spec.ipip_mode {
        EncapMode::Never => None,
        EncapMode::Always => Some("always"),
        EncapMode::CrossSubnet => Some("cross-subnet"),
    };
    if let Some(mode) = mode {
        made["ipip"] = json!({"enabled": true, "mode": mode});
    }
    document("ipPool", json!({"cidr": spec.cidr.to_string()}), made)
}

fn node(node: &Object<Node>) -> Value {
    let mut spec = node.spec.to_wire();
    if let Some(object) = spec.as_object_mut() {
        object.retain(|key, _| ["bgp", "orchRefs"].contains(&key.as_str()));
        if let Some(bgp) = object.get_mut("bgp").and_then(Value::as_object_mut) {
            bgp.retain(|key, _| ["asNumber", "ipv4Address", "ipv6Address"].contains(&key.as_str()));
        }
    }
    document("node", json!({"name": node.metadata.name.as_str()}), spec)
}

fn host(host: &Object<HostEndpoint>) -> Value {
    let node = host.spec.node.as_str();
    let name = host.metadata.name.as_str();
    let name = name.strip_prefix(node).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name);
    let mut spec = host.spec.to_wire();
    if let Some(object) = spec.as_object_mut() {
        object.retain(|key, _| ["interfaceName", "expectedIPs", "profiles"].contains(&key.as_str()));
    }
    document("hostEndpoint", with_labels(json!({"node": node, "name": name}), &host.metadata.labels), spec)
}

fn workload(workload: &Object<WorkloadEndpoint>) -> Value {
    let from = &workload.spec;
    let name = match (&workload.metadata.namespace, from.orchestrator.as_str()) {
        (Some(namespace), "k8s") => format!("{namespace}.{}", from.pod),
        _ => from.workload.clone(),
    };
    let mut metadata = json!({
        "node": from.node.as_str(), "orchestrator": from.orchestrator, "workload": name, "name": from.endpoint,
    });
    if !from.container_id.is_empty() {
        metadata["activeInstanceID"] = Value::String(from.container_id.clone());
    }
    const KNOWN: [&str; 7] =
        ["ipNetworks", "ipNATs", "ipv4Gateway", "ipv6Gateway", "profiles", "interfaceName", "mac"];
    let mut spec = from.to_wire();
    if let Some(object) = spec.as_object_mut() {
        object.retain(|key, _| KNOWN.contains(&key.as_str()));
    }
    document("workloadEndpoint", with_labels(metadata, &workload.metadata.labels), spec)
}

fn policy(policy: &Object<GlobalNetworkPolicy>) -> Value {
    let from = &policy.spec;
    let types: Value = from.types.iter().map(|direction| direction.as_str().to_lowercase()).collect();
    let mut spec = json!({
        "selector": from.selector.to_string(), "types": types, "ingress": rules(&from.ingress), "egress": rules(&from.egress),
    });
    if let Some(order) = from.order {
        spec["order"] = order.to_wire();
    }
    for (key, set) in [("doNotTrack", from.global.do_not_track), ("preDNAT", from.global.pre_dnat)] {
        if set {
            spec[key] = Value::Bool(true);
        }
    }
    document("policy", named(&policy.metadata), spec)
}

fn named(metadata: &Metadata) -> Value {
    let mut made = json!({"name": metadata.name.as_str()});
    if !metadata.annotations.is_empty() {
        made["annotations"] = metadata.annotations.to_wire();
    }
    made
}

fn profile(profile: &Object<Profile>) -> Value {
    let labels = &profile.spec.labels_to_apply;
    let tags: Vec<&str> = labels.iter().filter(|(_, value)| value.is_empty()).map(|(key, _)| key).collect();
    let valued: Labels = labels.iter().filter(|(_, value)| !value.is_empty()).collect();
    let mut metadata = with_labels(json!({"name": profile.metadata.name.as_str()}), &valued);
    if !tags.is_empty() {
        metadata["tags"] = json!(tags);
    }
    let spec = json!({"ingress": rules(&profile.spec.ingress), "egress": rules(&profile.spec.egress)});
    document("profile", metadata, spec)
}

fn peer(peer: &Object<BgpPeer>) -> Option<Value> {
    let address = peer.spec.peer_ip?;
    let mut metadata = json!({"scope": "global", "peerIP": address.addr.to_string()});
    if let Some(node) = &peer.spec.node {
        metadata["scope"] = Value::String("node".to_owned());
        metadata["node"] = Value::String(node.to_string());
    }
    Some(document("bgpPeer", metadata, json!({"asNumber": peer.spec.as_number?.get()})))
}

fn rules(rules: &[Rule]) -> Value {
    rules.iter().map(rule).collect()
}

fn rule(rule: &Rule) -> Value {
    let mut made = Map::new();
    made.insert("action".to_owned(), Value::String(rule.action.as_str().to_lowercase()));
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            made.insert(key.to_owned(), value);
        }
    };
    let lower =
        |value: Value| value.as_str().map_or(value.clone(), |text| Value::String(text.to_lowercase()));
    set("ipVersion", rule.ip_version.as_ref().map(ToWire::to_wire));
    set("protocol", rule.protocol.as_ref().map(|protocol| lower(protocol.to_wire())));
    set("notProtocol", rule.not_protocol.as_ref().map(|protocol| lower(protocol.to_wire())));
    set("icmp", rule.icmp.as_ref().map(ToWire::to_wire));
    set("notICMP", rule.not_icmp.as_ref().map(ToWire::to_wire));
    set("source", end(&rule.source));
    set("destination", end(&rule.destination));
    Value::Object(made)
}

fn end(end: &EntityRule) -> Option<Value> {
    const KNOWN: [&str; 6] = ["nets", "selector", "ports", "notNets", "notSelector", "notPorts"];
    let mut value = end.to_wire();
    let object = value.as_object_mut()?;
    object.retain(|key, _| KNOWN.contains(&key.as_str()));
    (!object.is_empty()).then_some(value)
}
