//! The objects of a case at one of its steps, and where its pods run.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use calico_model::resource::{Document, Node, NodeBgp, Object};
use calico_model::{Snapshot, Update, kubernetes};
use serde_json::{Value, json};

use super::Hosts;

/// The label by which the Kubernetes API server names a namespace, whatever else its labels become.
pub(super) const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// All objects that there are at a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Scene {
    /// The namespaces, with their labels.
    pub(super) namespaces: BTreeMap<String, Value>,
    /// The pods, by `namespace/name`.
    pub(super) pods: BTreeMap<String, Pod>,
    /// Addresses outside the cluster, by name.
    pub(super) external: BTreeMap<String, Ipv4Addr>,
    /// The policies and whatever else was created, by kind, namespace and name.
    pub(super) objects: BTreeMap<(String, String, String), Value>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: Value,
    pub(super) network: Network,
    /// As Kubernetes lists them: name, protocol and containerPort.
    pub(super) ports: Vec<Value>,
}

/// Which network a pod is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Network {
    /// Its own, with this address.
    Own(Ipv4Addr),
    /// Its host's.
    Host,
}

/// Which host each pod runs on. It never changes while cases are replayed.
#[derive(Debug, Clone)]
pub(super) struct Placement {
    pub(super) hosts: Hosts,
    of: BTreeMap<String, usize>,
}

/// One end of a probe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) seat: Seat,
    pub(super) addr: Ipv4Addr,
}

/// Where an address is at home.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seat {
    /// In a pod of its own network on a host.
    Pod { name: String, host: usize },
    /// On a host itself.
    Host(usize),
    /// Outside the cluster.
    Outside,
}

impl Placement {
    /// Spreads pods over the hosts, in the order of their names.
    pub(super) fn of<'p>(hosts: Hosts, pods: impl IntoIterator<Item = &'p String>) -> Self {
        let names: std::collections::BTreeSet<&String> = pods.into_iter().collect();
        let placed = names.into_iter().enumerate();
        Self { hosts, of: placed.map(|(index, name)| (name.clone(), index % hosts.count())).collect() }
    }

    fn host_of(&self, pod: &str) -> usize {
        self.of.get(pod).copied().unwrap_or(0)
    }
}

/// Returns the name of a host, counted from 0.
pub(super) fn host_name(host: usize) -> String {
    format!("node-{}", host + 1)
}

/// Returns the address of a host, in the network of all hosts.
pub(super) fn host_addr(host: usize) -> Ipv4Addr {
    let last = u8::try_from(host + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(172, 16, 6, last)
}

impl Scene {
    /// Returns the end that a case calls by a name; `None` when there is none of it now.
    pub(super) fn end(&self, name: &str, placement: &Placement) -> Option<End> {
        let Some(pod) = self.pods.get(name) else {
            return self.external.get(name).map(|addr| End { seat: Seat::Outside, addr: *addr });
        };
        let host = placement.host_of(name);
        Some(match pod.network {
            Network::Own(addr) => End { seat: Seat::Pod { name: name.to_owned(), host }, addr },
            Network::Host => End { seat: Seat::Host(host), addr: host_addr(host) },
        })
    }

    /// Returns the same scene with no policy in force.
    pub(super) fn open(&self) -> Self {
        let mut open = self.clone();
        open.objects.retain(|(kind, ..), _| !kind.ends_with("Policy"));
        open
    }

    /// Adds an object, or replaces the one of its kind and name.
    pub(super) fn put(&mut self, object: &Value) {
        let of = |key: &str| text(&object["metadata"], key).to_owned();
        self.objects.insert((text(object, "kind").to_owned(), of("namespace"), of("name")), object.clone());
    }

    /// Sets the labels of a namespace; the one that names it stays.
    pub(super) fn set_namespace(&mut self, name: &str, labels: &Value) {
        let mut labels = if labels.is_object() { labels.clone() } else { json!({}) };
        labels[NAMESPACE_NAME] = name.into();
        self.namespaces.insert(name.to_owned(), labels);
    }

    /// Turns the objects into what the compiler and the oracle read. What of a policy cannot be converted is closed by the
    /// conversion, as it would be in a cluster.
    ///
    /// # Errors
    /// One sentence, when an object cannot be a resource at all.
    pub(super) fn snapshot(&self, placement: &Placement) -> Result<Snapshot, String> {
        let mut world = Snapshot::default();
        for host in 0..placement.hosts.count() {
            world.insert(node(host)?);
        }
        for (name, labels) in &self.namespaces {
            let object = json!({"kind": "Namespace", "metadata": {"name": name, "labels": labels}});
            world.insert(kubernetes::namespace(&object).map_err(|error| error.to_string())?);
        }
        for (name, pod) in &self.pods {
            let (host_network, addrs) = match pod.network {
                Network::Own(addr) => (false, vec![addr]),
                Network::Host => (true, Vec::new()),
            };
            let addrs: Vec<Value> = addrs.iter().map(|addr| json!({"ip": addr.to_string()})).collect();
            let object = json!({
                "kind": "Pod",
                "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels},
                "spec": {
                    "nodeName": host_name(placement.host_of(name)),
                    "hostNetwork": host_network,
                    "containers": [{"ports": pod.ports}],
                },
                "status": {"podIPs": addrs},
            });
            let endpoint = kubernetes::pod(&object).map_err(|error| error.to_string())?;
            endpoint.into_iter().for_each(|endpoint| world.insert(endpoint));
        }
        for object in self.objects.values() {
            put(&mut world, object)?;
        }
        Ok(world)
    }
}

fn node(host: usize) -> Result<Object<Node>, String> {
    let addr = format!("{}/24", host_addr(host)).parse().map_err(|error| format!("{error}"))?;
    let name = host_name(host).parse().map_err(|error| format!("{error}"))?;
    Ok(Object::new(name, Node { bgp: Some(NodeBgp::at(addr)), ..Node::new() }))
}

fn put(world: &mut Snapshot, object: &Value) -> Result<(), String> {
    let name = format!("{} {}", text(object, "kind"), text(&object["metadata"], "name"));
    let wrong = |problem: String| format!("{name}: {problem}");
    match text(object, "apiVersion") {
        "networking.k8s.io/v1" => {
            let converted = kubernetes::network_policy(object).map_err(|error| wrong(error.to_string()))?;
            world.insert(converted.object);
        }
        "policy.networking.k8s.io/v1alpha2" => {
            let converted =
                kubernetes::cluster_network_policy(object).map_err(|error| wrong(error.to_string()))?;
            world.insert(converted.object);
        }
        _ => {
            let checked = Document::from_value(object.clone()).and_then(|document| document.check_input());
            world.apply(Update::Put(Box::new(checked.map_err(|error| wrong(error.to_string()))?)));
        }
    }
    Ok(())
}

impl End {
    /// Returns the address, of whichever family.
    pub(super) fn ip(&self) -> IpAddr {
        self.addr.into()
    }
}

/// Returns a field that is a text, else nothing of it.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Returns a field that is a list, else an empty one.
pub(super) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
