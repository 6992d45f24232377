//! The form of the network-policy-api's conformance tests: manifests, and beside them `expected.json` with what each test
//! changes and probes.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use calico_model::manifest;
use calico_policy::Verdict;
use serde_json::{Value, json};

use super::cases::{Case, Expected, Service, Step, protocol_of};
use super::scene::{Network, Pod, Scene, host_addr, host_name, list, text};

/// What a file of it is called in a folder.
pub(super) const FILE: &str = "expected.json";
const MANIFESTS: &str = "conformance";
const BASE: &str = "base/manifests.yaml";

/// Reads the tests; manifests are found below `folder`.
pub(super) fn cases(expected: &Value, folder: &Path) -> Result<Vec<Case>, String> {
    let ports: Vec<u64> = list(expected, "host_network_ports").iter().filter_map(Value::as_u64).collect();
    let read = |manifest: &str| objects(&folder.join(MANIFESTS).join(manifest), &ports);
    let base = beginning(&read(BASE)?)?;
    let mut cases = Vec::new();
    for test in list(expected, "tests") {
        let id = text(test, "test").to_owned();
        let mut scene = base.clone();
        for manifest in list(test, "manifests").iter().filter_map(Value::as_str) {
            read(manifest)?.iter().for_each(|object| scene.put(object));
        }
        let mut steps = Vec::new();
        for step in list(test, "steps") {
            read_step(&mut scene, step, &mut steps).map_err(|reason| format!("test {id}: {reason}"))?;
        }
        cases.push(Case { id, steps });
    }
    Ok(cases)
}

/// Probes that follow one another are one step; a change between them begins the next.
fn read_step(scene: &mut Scene, step: &Value, steps: &mut Vec<Step>) -> Result<(), String> {
    let name = text(step, "name").to_owned();
    let mut probes = Vec::new();
    for op in list(step, "ops") {
        if text(op, "op") == "probe" {
            probes.push(probe(op)?);
            continue;
        }
        if !probes.is_empty() {
            steps.push(Step {
                name: name.clone(),
                scene: scene.clone(),
                probes: std::mem::take(&mut probes),
            });
        }
        change(scene, op)?;
    }
    steps.push(Step { name, scene: scene.clone(), probes });
    Ok(())
}

fn probe(op: &Value) -> Result<Expected, String> {
    let port =
        op["port"].as_u64().and_then(|port| u16::try_from(port).ok()).ok_or("a probe without a port")?;
    let verdict = match text(op, "expect") {
        "allow" => Verdict::Allow,
        "drop" => Verdict::Deny,
        other => return Err(format!("a probe expects allow or drop, not {other:?}")),
    };
    let service = Service { protocol: protocol_of(text(op, "protocol"))?, port };
    Ok(Expected { from: text(op, "from").to_owned(), to: text(op, "to").to_owned(), service, verdict })
}

fn change(scene: &mut Scene, op: &Value) -> Result<(), String> {
    let place =
        |key: &str| op[key].as_u64().and_then(|i| usize::try_from(i).ok()).ok_or("a rule without its place");
    match text(op, "op") {
        "set-namespace-labels" => scene.set_namespace(text(op, "namespace"), &op["labels"]),
        "delete-networkpolicy" => {
            let of = |key: &str| text(op, key).to_owned();
            let key = ("NetworkPolicy".to_owned(), of("namespace"), of("name"));
            scene.objects.remove(&key).ok_or("a policy is deleted that is not there")?;
        }
        "set-priority" => spec(scene, op)?["priority"] = op["priority"].clone(),
        "swap-rules" => {
            let (i, j) = (place("i")?, place("j")?);
            let rules = rules(scene, op, text(op, "direction"))?;
            if i.max(j) >= rules.len() {
                return Err("two rules are swapped that are not both there".to_owned());
            }
            rules.swap(i, j);
        }
        "set-rule-action" => rule(scene, op, place("i")?)?["action"] = op["action"].clone(),
        "set-rule-protocols" => rule(scene, op, place("i")?)?["protocols"] = op["protocols"].clone(),
        "prepend-egress-rule" => {
            let addresses: Vec<(String, String)> = scene
                .pods
                .iter()
                .filter_map(|(name, pod)| match pod.network {
                    Network::Own(addr) => Some((format!("$IP({name})"), addr.to_string())),
                    Network::Host => None,
                })
                .collect();
            let mut rule = op["rule"].to_string();
            addresses.iter().for_each(|(hole, addr)| rule = rule.replace(hole, addr));
            let rule = serde_json::from_str(&rule).map_err(|error| error.to_string())?;
            rules(scene, op, "egress")?.insert(0, rule);
        }
        other => return Err(format!("unknown operation {other}")),
    }
    Ok(())
}

fn spec<'s>(scene: &'s mut Scene, op: &Value) -> Result<&'s mut Value, String> {
    let name = text(op, "cnp");
    let key = ("ClusterNetworkPolicy".to_owned(), String::new(), name.to_owned());
    let policy = scene.objects.get_mut(&key).ok_or_else(|| format!("there is no policy {name}"))?;
    Ok(&mut policy["spec"])
}

fn rules<'s>(scene: &'s mut Scene, op: &Value, direction: &str) -> Result<&'s mut Vec<Value>, String> {
    let rules = spec(scene, op)?.get_mut(direction).and_then(Value::as_array_mut);
    rules.ok_or_else(|| format!("{} has no {direction} rules", text(op, "cnp")))
}

fn rule<'s>(scene: &'s mut Scene, op: &Value, place: usize) -> Result<&'s mut Value, String> {
    rules(scene, op, text(op, "direction"))?.get_mut(place).ok_or_else(|| format!("there is no rule {place}"))
}

/// Reads the objects of a manifest, with the ports of the hosts' network filled in.
fn objects(path: &Path, ports: &[u64]) -> Result<Vec<Value>, String> {
    let mut manifest = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for (index, port) in ports.iter().enumerate() {
        manifest = manifest.replace(&format!("{{{{ index .HostNetworkPorts {index} }}}}"), &port.to_string());
    }
    let read = manifest::values(manifest.as_bytes()).into_iter().map(|(_, value)| value);
    read.collect::<Result<_, _>>().map_err(|error| format!("{}: {error}", path.display()))
}

/// The namespaces and pods that all tests share, and the hosts as Kubernetes shows them.
fn beginning(objects: &[Value]) -> Result<Scene, String> {
    let mut scene = Scene::default();
    let mut networks: BTreeMap<&str, u8> = BTreeMap::new();
    for object in objects {
        let (metadata, spec) = (&object["metadata"], &object["spec"]);
        match text(object, "kind") {
            "Namespace" => scene.set_namespace(text(metadata, "name"), &metadata["labels"]),
            "StatefulSet" => {
                let next = u8::try_from(networks.len() + 1).unwrap_or(u8::MAX);
                let network = *networks.entry(text(metadata, "namespace")).or_insert(next);
                for index in 0..spec["replicas"].as_u64().unwrap_or(1) {
                    let pod = replica(metadata, &spec["template"], network, index)?;
                    scene.pods.insert(format!("{}/{}", pod.namespace, pod.name), pod);
                }
            }
            other => return Err(format!("the base manifests hold a {other}, which is not known")),
        }
    }
    for host in 0..2 {
        scene.put(&host_endpoint(host));
    }
    scene.put(&json!({
        "apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration", "metadata": {"name": "default"},
        "spec": {"defaultEndpointToHostAction": "Accept"},
    }));
    Ok(scene)
}

fn replica(metadata: &Value, template: &Value, network: u8, index: u64) -> Result<Pod, String> {
    let last = u8::try_from(index + 10).map_err(|_| "too many replicas")?;
    let containers = list(&template["spec"], "containers");
    let host_network = template["spec"]["hostNetwork"].as_bool().unwrap_or(false);
    Ok(Pod {
        namespace: text(metadata, "namespace").to_owned(),
        name: format!("{}-{index}", text(metadata, "name")),
        labels: template["metadata"]["labels"].clone(),
        network: if host_network {
            Network::Host
        } else {
            Network::Own(Ipv4Addr::new(10, 66, network, last))
        },
        ports: containers.iter().flat_map(|container| list(container, "ports")).cloned().collect(),
    })
}

/// A host as the Kubernetes controllers make one known: by its labels, and open but for what policy says.
fn host_endpoint(host: usize) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint",
        "metadata": {"name": host_name(host), "labels": {
            "kubernetes.io/os": "linux", "projectcalico.org/created-by": "calico-kube-controllers",
        }},
        "spec": {
            "node": host_name(host), "interfaceName": "*", "expectedIPs": [host_addr(host).to_string()],
            "profiles": ["projectcalico-default-allow"],
        },
    })
}
