//! What stands in for a resource that was never valid: something that allows nothing, or a configuration of what of it is
//! sound.

use serde_json::{Map, Value};

use crate::resource::{BgpConfiguration, Document, Kind, Object, Resource, ResourceKey};
use crate::wire::Fault;

/// Returns the document with every field that does not validate left out, when it is a configuration; and with every rule
/// removed as well, when it is of a kind that allows traffic.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is of any other kind is absent")]
pub(super) fn stand_in(document: &Document) -> Option<Resource> {
    let mut closed = document.clone();
    let root = closed.value_mut().as_object_mut()?;
    root.retain(|key, _| ["apiVersion", "kind", "metadata", "spec"].contains(&key.as_str()));
    let spec = root.entry("spec").or_insert_with(|| Value::Object(Map::new()));
    if !spec.is_object() {
        *spec = Value::Object(Map::new());
    }
    let spec = spec.as_object_mut()?;
    match document.kind() {
        Kind::NetworkPolicy | Kind::GlobalNetworkPolicy => {
            let types = types_meant(spec);
            spec.insert("types".to_owned(), types);
        }
        Kind::Profile | Kind::BgpConfiguration | Kind::FelixConfiguration => {}
        _ => return None,
    }
    spec.remove("ingress");
    spec.remove("egress");
    let metadata = closed.value_mut().get_mut("metadata")?.as_object_mut()?;
    metadata.retain(|key, _| ["name", "namespace", "uid"].contains(&key.as_str()));
    let mut resource = keep_sound_fields(closed)?;
    if let Resource::BgpConfiguration(configuration) = &mut resource {
        close_mesh(&mut configuration.spec, document);
    }
    Some(resource)
}

/// What stands in for a document of which nothing can be read: no node-to-node mesh is opened.
pub(super) fn of_unreadable(key: &ResourceKey) -> Option<Resource> {
    let configuration =
        BgpConfiguration { node_to_node_mesh_enabled: Some(false), ..BgpConfiguration::new() };
    let stands_in = key.kind == Kind::BgpConfiguration;
    stands_in.then(|| Resource::BgpConfiguration(Object::new(key.id.name.clone(), configuration)))
}

/// Opens no node-to-node mesh where that it is off, or its password, cannot be read.
fn close_mesh(sound: &mut BgpConfiguration, document: &Document) {
    let spec = &document.value()["spec"];
    let says = |field: &str| spec.get(field).is_some_and(|value| !value.is_null());
    let is_readable = spec.is_null() || spec.is_object();
    if !is_readable
        || says("nodeToNodeMeshEnabled") && sound.node_to_node_mesh_enabled.is_none()
        || says("nodeMeshPassword") && sound.node_mesh_password.is_none()
    {
        sound.node_to_node_mesh_enabled = Some(false);
    }
}

/// The directions that the policy names, as far as they can be read; both when they cannot.
fn types_meant(spec: &Map<String, Value>) -> Value {
    let given = spec.get("types").and_then(Value::as_array).filter(|types| !types.is_empty());
    let sound = |value: &&Value| matches!(value.as_str(), Some("Ingress" | "Egress"));
    match given {
        Some(types) if types.iter().all(|value| sound(&value)) && types.len() <= 2 => {
            Value::Array(types.clone())
        }
        _ => Value::from(["Ingress", "Egress"].map(str::to_owned).to_vec()),
    }
}

/// Removes one field of the spec after the other until what is left validates. Without its selector a policy selects
/// everything it could, which is the closed side.
fn keep_sound_fields(mut closed: Document) -> Option<Resource> {
    loop {
        if let Ok(resource) = closed.check() {
            return Some(resource);
        }
        let keys: Vec<String> = closed.value().get("spec")?.as_object()?.keys().cloned().collect();
        let faults = closed.faults();
        // Faults may hide others; what has none of those that show is not to go for them.
        let is_at = |key: &str| {
            let inside = |fault: &Fault| {
                let rest = fault.path.strip_prefix("spec.")?.strip_prefix(key)?;
                Some(rest.is_empty() || rest.starts_with(['.', '[']))
            };
            faults.iter().any(|fault| inside(fault) == Some(true))
        };
        let faulty = keys.iter().any(|key| is_at(key));
        let (bad, _) = keys
            .iter()
            .filter(|key| !faulty || is_at(key))
            .map(|key| {
                let mut without = closed.clone();
                if let Some(spec) = without.value_mut().get_mut("spec").and_then(Value::as_object_mut) {
                    spec.remove(key);
                }
                (key, without.faults().len())
            })
            .min_by_key(|(_, faults)| *faults)?;
        let bad = bad.clone();
        closed.value_mut().get_mut("spec")?.as_object_mut()?.remove(&bad);
    }
}
