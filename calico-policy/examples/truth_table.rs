//! Replays policy truth tables (`policy-truth-table/v1`) without packets: each probe is asked of the resources and run
//! through the compiled rules.
//!
//! `cargo run -p calico-policy --example truth_table -- FILE...`

use std::collections::BTreeMap;
use std::process::ExitCode;

use calico_model::resource::Document;
use calico_model::{InterfaceName, NodeName, Snapshot, Update, kubernetes};
use calico_policy::packet::PortProtocol;
use calico_policy::{Ruleset, Transport, Verdict, compile, evaluate, simulate, way};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut failed = 0;
    for file in std::env::args().skip(1) {
        match replay(&file) {
            Ok((passed, failures)) => {
                println!("{file}: {passed} passed, {} failed", failures.len());
                failures.iter().take(20).for_each(|failure| println!("{failure}"));
                failed += failures.len();
            }
            Err(error) => {
                eprintln!("{file}: {error}");
                failed += 1;
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(file: &str) -> Result<(usize, Vec<String>), Failure> {
    let table: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let (mut passed, mut failures) = (0, Vec::new());
    for case in list(&table, "cases") {
        for nodes in 1..=2 {
            let mut state = State::of(&table, case, nodes);
            for (index, step) in list(case, "steps").iter().enumerate() {
                list(step, "actions").iter().try_for_each(|action| state.act(action))?;
                let world = state.world()?;
                let name = format!("case {} step {index} on {nodes} nodes", text(case, "id"));
                passed += probe(&state, &world, step, &name, &mut failures)?;
            }
        }
    }
    Ok((passed, failures))
}

/// Asks every probe of a step; returns how many agreed with the table.
fn probe(
    state: &State,
    world: &Snapshot,
    step: &Value,
    name: &str,
    failures: &mut Vec<String>,
) -> Result<usize, Failure> {
    let nodes = ["node-1", "node-2"].map(|node| node.parse::<NodeName>());
    let mut rulesets: BTreeMap<NodeName, Ruleset> = BTreeMap::new();
    for node in nodes {
        let node = node?;
        rulesets.insert(node.clone(), compile(world, &node));
    }
    let uplink: InterfaceName = "eth0".parse()?;
    let order: Vec<&str> = list(step, "order").iter().filter_map(Value::as_str).collect();
    let mut passed = 0;
    for (service, rows) in step["table"].as_object().ok_or("a step without table")? {
        let transport = transport(service)?;
        for (source, row) in order.iter().zip(rows.as_array().ok_or("a table without rows")?) {
            let row = row.as_str().ok_or("a row that is no text")?;
            for (destination, expected) in order.iter().zip(row.chars()).filter(|(_, c)| *c != '#') {
                let expected = if expected == '.' { Verdict::Allow } else { Verdict::Deny };
                let hops = way(
                    world,
                    state.addr(source)?.parse()?,
                    state.addr(destination)?.parse()?,
                    transport,
                    &uplink,
                );
                let traces: Vec<_> = hops.iter().map(|packet| (packet, evaluate(world, packet))).collect();
                let differs = traces
                    .iter()
                    .find(|(packet, trace)| simulate(&rulesets[&packet.node], packet) != trace.outcome);
                let denied = traces.iter().any(|(_, trace)| trace.outcome.verdict == Verdict::Deny);
                let verdict = if denied { Verdict::Deny } else { Verdict::Allow };
                if verdict == expected && differs.is_none() {
                    passed += 1;
                    continue;
                }
                let explained: Vec<String> = traces.iter().map(|(p, t)| format!("{p}: {t}")).collect();
                failures.push(format!(
                    "{name}: {service} from {source} to {destination}: expected {expected}, found {verdict}{}\n{}",
                    if differs.is_some() { ", and the compiled rules differ" } else { "" },
                    explained.join("\n")
                ));
            }
        }
    }
    Ok(passed)
}

fn transport(service: &str) -> Result<Transport, Failure> {
    let (protocol, port) = service.split_once('/').ok_or("a service without port")?;
    let destination = port.parse()?;
    let protocol = match protocol {
        "TCP" => PortProtocol::Tcp,
        "UDP" => PortProtocol::Udp,
        "SCTP" => PortProtocol::Sctp,
        other => return Err(format!("unknown protocol {other}").into()),
    };
    Ok(Transport::Ports { protocol, source: 40_000, destination })
}

/// The objects of a case, as its actions leave them.
struct State {
    nodes: usize,
    namespaces: BTreeMap<String, Value>,
    pods: BTreeMap<String, Value>,
    external: BTreeMap<String, String>,
    policies: BTreeMap<(String, String), Value>,
}

impl State {
    fn of(table: &Value, case: &Value, nodes: usize) -> Self {
        let pods = case.get("pods").unwrap_or(&table["pods"]).as_array().cloned().unwrap_or_default();
        let namespaces = table["namespaces"].as_object().cloned().unwrap_or_default();
        Self {
            nodes,
            namespaces: namespaces.into_iter().collect(),
            pods: pods.into_iter().map(|pod| (pod_name(&pod), pod)).collect(),
            external: list(table, "external")
                .iter()
                .map(|host| (text(host, "name").to_owned(), text(host, "ip").to_owned()))
                .collect(),
            policies: BTreeMap::new(),
        }
    }

    fn addr(&self, name: &str) -> Result<&str, Failure> {
        let pod = self.pods.get(name).map(|pod| text(pod, "ip"));
        pod.or_else(|| self.external.get(name).map(String::as_str)).ok_or_else(|| format!("no {name}").into())
    }

    fn act(&mut self, action: &Value) -> Result<(), Failure> {
        let named = || (text(action, "namespace").to_owned(), text(action, "name").to_owned());
        match text(action, "op") {
            "create-policy" | "update-policy" => {
                let metadata = &action["object"]["metadata"];
                let key = (text(metadata, "namespace").to_owned(), text(metadata, "name").to_owned());
                self.policies.insert(key, action["object"].clone());
            }
            "delete-policy" => {
                self.policies.remove(&named());
            }
            "create-pod" => {
                self.pods.insert(pod_name(&action["pod"]), action["pod"].clone());
            }
            "delete-pod" => {
                self.pods.remove(&pod_name(action));
            }
            "set-pod-labels" => {
                let pod = self.pods.get_mut(&pod_name(action)).ok_or("labels for no pod")?;
                pod["labels"] = action["labels"].clone();
            }
            "create-namespace" | "set-namespace-labels" => {
                let mut labels = action["labels"].clone();
                labels["kubernetes.io/metadata.name"] = action["name"].clone();
                self.namespaces.insert(text(action, "name").to_owned(), labels);
            }
            "delete-namespace" => {
                self.namespaces.remove(text(action, "name"));
            }
            other => return Err(format!("unknown action {other}").into()),
        }
        Ok(())
    }

    fn world(&self) -> Result<Snapshot, Failure> {
        let mut world = Snapshot::default();
        for (name, labels) in &self.namespaces {
            let object = json!({"kind": "Namespace", "metadata": {"name": name, "labels": labels}});
            world.insert(kubernetes::namespace(&object)?);
        }
        for (index, pod) in self.pods.values().enumerate() {
            let ports: Vec<Value> = list(pod, "ports")
                .iter()
                .map(|port| json!({"name": port["name"], "protocol": port["protocol"], "containerPort": port["port"]}))
                .collect();
            let object = json!({
                "kind": "Pod",
                "metadata": {"name": pod["name"], "namespace": pod["namespace"], "labels": pod["labels"]},
                "spec": {"nodeName": format!("node-{}", index % self.nodes + 1), "containers": [{"ports": ports}]},
                "status": {"podIPs": [{"ip": pod["ip"]}]},
            });
            if let Some(endpoint) = kubernetes::pod(&object)? {
                world.insert(endpoint);
            }
        }
        for policy in self.policies.values() {
            if text(policy, "apiVersion").starts_with("projectcalico.org/") {
                world.apply(Update::Put(Box::new(Document::from_value(policy.clone())?.check_input()?)));
            } else {
                world.insert(kubernetes::network_policy(policy)?.object);
            }
        }
        Ok(world)
    }
}

fn pod_name(value: &Value) -> String {
    format!("{}/{}", text(value, "namespace"), text(value, "name"))
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
