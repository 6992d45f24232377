//! The form `policy-truth-table/v1`: who reaches whom on which port, as rows of `.` (allowed), `X` (dropped) and `#` (not
//! asked), after each step of creating, changing and deleting policies, pods and namespaces.

use std::net::Ipv4Addr;

use calico_policy::Verdict;
use serde_json::{Value, json};

use super::cases::{Case, Expected, Service, Step};
use super::scene::{Network, Pod, Scene, list, text};

/// The name of the form.
pub(super) const FORMAT: &str = "policy-truth-table/v1";
/// What a file of it is called in a folder.
pub(super) const FILE: &str = "truth-table.json";

/// Reads the cases.
pub(super) fn cases(table: &Value) -> Result<Vec<Case>, String> {
    list(table, "cases").iter().map(|case| read_case(table, case)).collect()
}

fn read_case(table: &Value, case: &Value) -> Result<Case, String> {
    let id = text(case, "id").to_owned();
    let wrong = |reason: String| format!("case {id}: {reason}");
    let mut scene = beginning(table, case).map_err(wrong)?;
    let mut steps = Vec::new();
    for (index, step) in list(case, "steps").iter().enumerate() {
        list(step, "actions").iter().try_for_each(|action| act(&mut scene, action)).map_err(wrong)?;
        let probes = probes(step).map_err(wrong)?;
        steps.push(Step { name: format!("step {index}"), scene: scene.clone(), probes });
    }
    Ok(Case { id, steps })
}

fn beginning(table: &Value, case: &Value) -> Result<Scene, String> {
    let mut scene = Scene::default();
    for (name, labels) in table["namespaces"].as_object().into_iter().flatten() {
        scene.namespaces.insert(name.clone(), labels.clone());
    }
    let pods = case.get("pods").and_then(Value::as_array).map_or(list(table, "pods"), Vec::as_slice);
    pods.iter().try_for_each(|pod| put_pod(&mut scene, pod))?;
    for host in list(table, "external") {
        scene.external.insert(text(host, "name").to_owned(), addr(text(host, "ip"))?);
    }
    Ok(scene)
}

fn act(scene: &mut Scene, action: &Value) -> Result<(), String> {
    match text(action, "op") {
        "create-policy" | "update-policy" => scene.put(&action["object"]),
        "delete-policy" => {
            let (namespace, name) = (text(action, "namespace"), text(action, "name"));
            scene
                .objects
                .retain(|(_, in_namespace, named), _| (&**in_namespace, &**named) != (namespace, name));
        }
        "create-pod" => put_pod(scene, &action["pod"])?,
        "delete-pod" => {
            scene.pods.remove(&pod_name(action)).ok_or("a pod is deleted that is not there")?;
        }
        "set-pod-labels" => {
            let pod = scene.pods.get_mut(&pod_name(action)).ok_or("labels for a pod that is not there")?;
            pod.labels = action["labels"].clone();
        }
        "create-namespace" | "set-namespace-labels" => {
            scene.set_namespace(text(action, "name"), &action["labels"]);
        }
        "delete-namespace" => {
            scene.namespaces.remove(text(action, "name"));
        }
        other => return Err(format!("unknown action {other}")),
    }
    Ok(())
}

fn probes(step: &Value) -> Result<Vec<Expected>, String> {
    let order: Vec<&str> = list(step, "order").iter().filter_map(Value::as_str).collect();
    let mut probes = Vec::new();
    for (service, rows) in step["table"].as_object().ok_or("a step without a table")? {
        let service = Service::parse(service)?;
        let rows: Option<Vec<&str>> = rows.as_array().into_iter().flatten().map(Value::as_str).collect();
        let rows =
            rows.filter(|rows| rows.len() == order.len()).ok_or("a table of another size than its order")?;
        for (from, row) in order.iter().zip(rows) {
            if row.chars().count() != order.len() {
                return Err(format!("the row of {from} has another length than the order"));
            }
            for (to, mark) in order.iter().zip(row.chars()) {
                let verdict = match mark {
                    '.' => Verdict::Allow,
                    'X' => Verdict::Deny,
                    '#' => continue,
                    other => return Err(format!("{other:?} is no mark of a table: use . X or #")),
                };
                let (from, to) = ((*from).to_owned(), (*to).to_owned());
                probes.push(Expected { from, to, service, verdict });
            }
        }
    }
    Ok(probes)
}

fn put_pod(scene: &mut Scene, pod: &Value) -> Result<(), String> {
    let port = |port: &Value| json!({"name": port["name"], "protocol": port["protocol"], "containerPort": port["port"]});
    let made = Pod {
        namespace: text(pod, "namespace").to_owned(),
        name: text(pod, "name").to_owned(),
        labels: pod["labels"].clone(),
        network: Network::Own(addr(text(pod, "ip"))?),
        ports: list(pod, "ports").iter().map(port).collect(),
    };
    scene.pods.insert(pod_name(pod), made);
    Ok(())
}

fn pod_name(value: &Value) -> String {
    format!("{}/{}", text(value, "namespace"), text(value, "name"))
}

fn addr(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("{text} is no IPv4 address"))
}
