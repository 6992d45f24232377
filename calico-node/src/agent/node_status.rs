//! CalicoNodeStatus: resources that ask for the status of this node, answered as often as each wants.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use calico_bgp::net::Handle;
use calico_model::datastore::{Change, CommitError, Key, Precondition, Write};
use calico_model::resource::node_status::NodeStatusClass;
use calico_model::resource::{Document, Kind, Resource, ResourceKey};
use calico_model::{Datastore, Family, NodeName, timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::dataplane::with_causes;
use crate::clock;
use crate::status::bgp::{self, BgpPeer, BgpRoute};
use crate::status::{BgpStatus, NodeStatus};

/// What one resource asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    classes: Vec<NodeStatusClass>,
    period: Duration,
}

/// What is asked of this node, and whether it may be answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Asked {
    requests: BTreeMap<Key, Request>,
    is_locked: bool,
}

/// The requests for this node, and the task that answers them, but for while the datastore is locked.
pub(super) struct Requests {
    node: NodeName,
    known: watch::Sender<Asked>,
    problem: watch::Receiver<Option<String>>,
}

impl Requests {
    /// Starts answering, with what the agent tells of itself and what its speaker knows.
    pub(super) fn spawn(
        node: NodeName,
        store: Arc<dyn Datastore>,
        status: watch::Receiver<NodeStatus>,
        speaker: watch::Receiver<Option<Handle>>,
    ) -> Self {
        let known = watch::Sender::new(Asked::default());
        let (tell, problem) = watch::channel(None);
        // It ends when the requests' sender is dropped with the agent.
        tokio::spawn(answer(known.subscribe(), store, status, speaker, tell));
        Self { node, known, problem }
    }

    /// Waits until there is another answer to [`Requests::problem`]. Cancel-safe.
    pub(super) async fn trouble(&mut self) {
        if self.problem.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns why a status was not written, when the last one was not.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }

    /// Takes in one change of the datastore.
    pub(super) fn observe(&self, change: &Change) {
        let (key, request) = if let Change::Put(entry) = change {
            (&entry.key, wanted(&self.node, &entry.key, &entry.value))
        } else if let Change::Deleted(key) = change {
            (key, None)
        } else {
            return;
        };
        let is_locked = locks(change);
        self.known.send_if_modified(|known| {
            let locked_before = known.is_locked;
            known.is_locked = is_locked.unwrap_or(locked_before);
            let requested = match request {
                Some(request) => known.requests.insert(key.clone(), request.clone()) != Some(request),
                None => known.requests.remove(key).is_some(),
            };
            requested || known.is_locked != locked_before
        });
    }
}

fn is_request(key: &Key) -> bool {
    ResourceKey::from_datastore_key(key).is_some_and(|key| key.kind == Kind::CalicoNodeStatus)
}

/// Reads whether the datastore is locked, if the change tells.
fn locks(change: &Change) -> Option<bool> {
    let is_cluster = |key: &Key| {
        ResourceKey::from_datastore_key(key).is_some_and(|key| key.kind == Kind::ClusterInformation)
    };
    if let Change::Put(entry) = change
        && is_cluster(&entry.key)
    {
        let Resource::ClusterInformation(cluster) = Document::from_json(&entry.value).ok()?.check().ok()?
        else {
            return None;
        };
        return Some(cluster.spec.datastore_ready == Some(false));
    }
    matches!(change, Change::Deleted(key) if is_cluster(key)).then_some(false)
}

/// Reads what a resource asks of this node. One that cannot be read asks for nothing.
fn wanted(node: &NodeName, key: &Key, value: &[u8]) -> Option<Request> {
    if !is_request(key) {
        return None;
    }
    let Resource::CalicoNodeStatus(object) = Document::from_json(value).ok()?.check().ok()? else {
        return None;
    };
    let period = object.spec.update_period_seconds.filter(|seconds| *seconds > 0)?;
    let request =
        Request { classes: object.spec.classes.clone(), period: Duration::from_secs(period.into()) };
    (object.spec.node == *node).then_some(request)
}

async fn answer(
    mut asked: watch::Receiver<Asked>,
    store: Arc<dyn Datastore>,
    status: watch::Receiver<NodeStatus>,
    speaker: watch::Receiver<Option<Handle>>,
    problem: watch::Sender<Option<String>>,
) {
    let mut refused: BTreeMap<Key, String> = BTreeMap::new();
    let mut answered: BTreeMap<Key, Instant> = BTreeMap::new();
    loop {
        let Asked { requests: wanted, is_locked } = asked.borrow_and_update().clone();
        if is_locked {
            // What became due meanwhile is answered afterwards.
            if asked.changed().await.is_err() {
                return;
            }
            continue;
        }
        answered.retain(|key, _| wanted.contains_key(key));
        refused.retain(|key, _| wanted.contains_key(key));
        let now = clock::now();
        for (key, request) in &wanted {
            if answered.get(key).is_some_and(|at| *at + request.period > now) {
                continue;
            }
            answered.insert(key.clone(), now);
            let told = status.borrow().clone();
            let handle = speaker.borrow().clone();
            let value = told_of(&request.classes, &told, handle.as_ref()).await;
            match write(&*store, key, value).await {
                Ok(()) => drop(refused.remove(key)),
                Err(error) => {
                    tracing::debug!(%key, %error, "the status was not written; trying again when it is due");
                    // Who else writes it at that moment is no trouble; the next answer comes as well.
                    if !matches!(error.downcast_ref(), Some(CommitError::Conflict { .. })) {
                        refused.insert(key.clone(), with_causes(&*error));
                    }
                }
            }
        }
        let first = refused.first_key_value();
        let told = first.map(|(key, why)| format!("{key}: the status of this node cannot be written: {why}"));
        problem.send_if_modified(|held| std::mem::replace(held, told.clone()) != told);
        let due = |(key, request): (&Key, &Request)| Some(*answered.get(key)? + request.period);
        let next = wanted.iter().filter_map(due).min();
        let alarm = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = asked.changed() => if changed.is_err() { return },
            () = alarm => {}
        }
    }
}

async fn told_of(classes: &[NodeStatusClass], told: &NodeStatus, speaker: Option<&Handle>) -> Value {
    let (mut peers, mut routes) = (Vec::new(), Vec::new());
    if let Some(speaker) = speaker {
        // A speaker that has just ended has neither.
        if classes.contains(&NodeStatusClass::Bgp) || classes.contains(&NodeStatusClass::Routes) {
            peers = bgp::peers(speaker).await.unwrap_or_default();
        }
        if classes.contains(&NodeStatusClass::Routes) {
            routes = bgp::routes(speaker, None).await.unwrap_or_default();
        }
    }
    describe(classes, told, &peers, &routes, clock::wall())
}

/// Puts a status on a resource as it is stored, if nobody else writes it at that moment.
async fn write(
    store: &dyn Datastore,
    key: &Key,
    status: Value,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Some(entry) = store.get(key).await? else { return Ok(()) };
    let mut resource: Value = serde_json::from_slice(&entry.value)?;
    if let Some(fields) = resource.as_object_mut() {
        fields.insert("status".to_owned(), status);
    }
    let value = serde_json::to_vec(&resource)?;
    store.commit(vec![Write::put(key.clone(), value, Precondition::At(entry.revision))]).await?;
    Ok(())
}

/// Describes the node in the fields of a CalicoNodeStatus. Pure.
fn describe(
    classes: &[NodeStatusClass],
    told: &NodeStatus,
    peers: &[BgpPeer],
    routes: &[BgpRoute],
    now: SystemTime,
) -> Value {
    let mut status = json!({ "lastUpdated": timestamp::format(now) });
    let of = |peer: &&BgpPeer, family| Family::of(peer.address) == family;
    for class in classes {
        match class {
            NodeStatusClass::Agent => {
                let at = |seconds| timestamp::format(UNIX_EPOCH + Duration::from_secs(seconds));
                let daemon = |bgp: &BgpStatus| {
                    json!({
                        "state": if told.in_sync { "Ready" } else { "NotReady" },
                        "version": told.version,
                        "routerID": bgp.router_id,
                        "lastBootTime": at(told.started),
                        "lastReconfigurationTime": at(bgp.reconfigured),
                    })
                };
                // One speaker serves both families, also where a node has no address of one, as upstream's two do.
                let off = || json!({ "state": "NotReady" });
                let daemon = told.bgp.as_ref().map_or_else(off, daemon);
                status["agent"] = json!({ "birdV4": daemon, "birdV6": daemon });
            }
            NodeStatusClass::Bgp => {
                let up = |peer: &&BgpPeer| peer.state == "Established";
                let mut sessions = json!({});
                for (family, version) in [(Family::V4, "V4"), (Family::V6, "V6")] {
                    let all: Vec<&BgpPeer> = peers.iter().filter(|peer| of(peer, family)).collect();
                    let established = all.iter().filter(|peer| up(peer)).count();
                    sessions[format!("numberEstablished{version}")] = json!(established);
                    sessions[format!("numberNotEstablished{version}")] = json!(all.len() - established);
                    let session = |peer: &&BgpPeer| {
                        let since = now - Duration::from_secs(peer.turned_seconds);
                        json!({
                            "peerIP": peer.address,
                            "type": peer_type(&peer.name),
                            "state": peer.state,
                            "since": timestamp::format(since),
                        })
                    };
                    sessions[format!("peers{version}")] = all.iter().map(session).collect();
                }
                status["bgp"] = sessions;
            }
            NodeStatusClass::Routes => {
                let route = |route: &BgpRoute| {
                    let (gateway, interface, source) = match route.from {
                        // What begins here is there to drop what nobody has.
                        None => (json!("N/A"), Some("blackhole"), json!({ "sourceType": "Static" })),
                        Some(address) => {
                            let peer = peers.iter().find(|peer| peer.address == address);
                            let mesh = peer.is_some_and(|peer| peer_type(&peer.name) == "NodeMesh");
                            let kind = if mesh { "NodeMesh" } else { "BGPPeer" };
                            (json!(route.next_hop), None, json!({ "sourceType": kind, "peerIP": address }))
                        }
                    };
                    let mut described = json!({
                        "type": if route.best { "FIB" } else { "RIB" },
                        "destination": route.prefix,
                        "gateway": gateway,
                        "learnedFrom": source,
                    });
                    if let Some(interface) = interface {
                        described["interface"] = json!(interface);
                    }
                    described
                };
                let family = |family| -> Vec<Value> {
                    routes.iter().filter(|r| r.prefix.family() == family).map(route).collect()
                };
                status["routes"] = json!({ "routesV4": family(Family::V4), "routesV6": family(Family::V6) });
            }
        }
    }
    status
}

fn peer_type(name: &str) -> &'static str {
    match name.split('_').next() {
        Some("Mesh") => "NodeMesh",
        Some("Global") => "GlobalPeer",
        _ => "NodePeer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::bgp::BgpCounters;

    fn told() -> NodeStatus {
        NodeStatus {
            node: "node1".to_owned(),
            pid: 7,
            version: "v0.1.0".to_owned(),
            started: 86_400,
            datastore: "memory".to_owned(),
            in_sync: true,
            programmed: true,
            kernel_overruns: 0,
            problems: Vec::new(),
            bgp: Some(BgpStatus {
                as_number: 64_512,
                router_id: "10.0.0.1".to_owned(),
                reconfigured: 86_430,
                peers: Vec::new(),
            }),
        }
    }

    fn peer() -> BgpPeer {
        BgpPeer {
            address: "172.16.6.9".parse().unwrap(),
            name: "Mesh_172_16_6_9".to_owned(),
            as_number: 64_512,
            peering: "iBGP".to_owned(),
            state: "Established".to_owned(),
            seconds: 1,
            turned_seconds: 60,
            router_id: None,
            last_error: None,
            last_refusal: None,
            last_sent: None,
            last_received: None,
            last_fault: None,
            prefixes_in: 1,
            prefixes_out: 1,
            retained_seconds: None,
            counters: BgpCounters {
                messages_in: 0,
                messages_out: 0,
                updates_in: 0,
                updates_out: 0,
                faults_in: 0,
                established: 1,
            },
        }
    }

    fn request(period: u32) -> Vec<u8> {
        let resource = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "CalicoNodeStatus", "metadata": {"name": "mine"},
            "spec": {"node": "node1", "classes": ["Agent"], "updatePeriodSeconds": period},
        });
        serde_json::to_vec(&resource).unwrap()
    }

    fn key() -> Key {
        "/calico/resources/v3/projectcalico.org/caliconodestatuses/mine".parse().unwrap()
    }

    #[tokio::test]
    async fn a_status_that_cannot_be_written_is_told_of_until_it_can() {
        let store: Arc<dyn Datastore> = Arc::new(calico_model::MemoryStore::new());
        let put = async |value: Vec<u8>| {
            store.commit(vec![Write::put(key(), value, Precondition::Any)]).await.unwrap();
        };
        put(b"{".to_vec()).await;
        let (_status, newest) = watch::channel(told());
        let (_speaker, speaker) = watch::channel(None);
        let mut requests = Requests::spawn("node1".parse().unwrap(), Arc::clone(&store), newest, speaker);
        let mut entry = store.get(&key()).await.unwrap().unwrap();
        entry.value = request(1);
        requests.observe(&Change::Put(entry));
        let patience = Duration::from_secs(60);
        tokio::time::timeout(patience, requests.trouble()).await.expect("it is told");
        assert!(requests.problem().is_some_and(|problem| problem.contains("caliconodestatuses/mine")));
        put(request(1)).await;
        tokio::time::timeout(patience, requests.trouble()).await.expect("it is told no more");
        assert_eq!(requests.problem(), None);
    }

    #[tokio::test]
    async fn a_shorter_period_counts_from_the_last_answer() {
        let store: Arc<dyn Datastore> = Arc::new(calico_model::MemoryStore::new());
        let (_status, newest) = watch::channel(told());
        let (_speaker, speaker) = watch::channel(None);
        let requests = Requests::spawn("node1".parse().unwrap(), Arc::clone(&store), newest, speaker);
        store.commit(vec![Write::put(key(), request(3600), Precondition::Absent)]).await.unwrap();
        let stored = async || store.get(&key()).await.unwrap().unwrap();
        for period in [3600, 1] {
            let mut entry = stored().await;
            let before = entry.revision;
            entry.value = request(period);
            requests.observe(&Change::Put(entry));
            let answer = async {
                while stored().await.revision == before {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), answer).await.expect("an answer");
        }
    }

    #[test]
    fn sessions_are_counted_by_family_and_typed_by_what_asks_for_them() {
        let of = |address: &str, name: &str, state: &str| BgpPeer {
            address: address.parse().unwrap(),
            name: name.to_owned(),
            state: state.to_owned(),
            ..peer()
        };
        let peers = [
            of("172.16.6.9", "Mesh_172_16_6_9", "Established"),
            of("172.16.6.1", "Global_172_16_6_1", "Active"),
            of("172.16.6.2", "Node_172_16_6_2", "OpenSent"),
            of("fd00::9", "Mesh_fd00__9", "Connect"),
        ];
        let status =
            describe(&[NodeStatusClass::Bgp], &told(), &peers, &[], UNIX_EPOCH + Duration::from_secs(90));
        let bgp = &status["bgp"];
        let count = |of: &str| bgp[of].as_u64().unwrap();
        assert_eq!([count("numberEstablishedV4"), count("numberNotEstablishedV4")], [1, 2]);
        assert_eq!([count("numberEstablishedV6"), count("numberNotEstablishedV6")], [0, 1]);
        let types: Vec<_> =
            bgp["peersV4"].as_array().unwrap().iter().map(|peer| peer["type"].clone()).collect();
        assert_eq!(types, ["NodeMesh", "GlobalPeer", "NodePeer"]);
        assert_eq!(bgp["peersV6"][0]["state"], "Connect");
    }

    #[tokio::test]
    async fn a_status_is_written_into_the_resource_and_is_a_valid_one() {
        use NodeStatusClass::{Agent, Bgp, Routes};
        let route = BgpRoute {
            prefix: "192.168.0.0/26".parse().unwrap(),
            from: Some("172.16.6.9".parse().unwrap()),
            next_hop: Some("172.16.6.9".parse().unwrap()),
            as_path: String::new(),
            local_pref: None,
            med: None,
            communities: Vec::new(),
            best: true,
            why: None,
        };
        let own = BgpRoute { from: None, next_hop: None, ..route.clone() };
        let at = UNIX_EPOCH + Duration::from_secs(90);
        let status = describe(&[Agent, Bgp, Routes], &told(), &[peer()], &[route, own], at);
        assert_eq!(status["agent"]["birdV4"]["state"], "Ready");
        assert_eq!(status["agent"]["birdV4"]["lastBootTime"], "1970-01-02T00:00:00Z");
        assert_eq!(status["agent"]["birdV4"]["lastReconfigurationTime"], "1970-01-02T00:00:30Z");
        assert_eq!(status["bgp"]["numberEstablishedV4"], 1);
        assert_eq!(status["bgp"]["peersV4"][0]["type"], "NodeMesh");
        assert_eq!(status["bgp"]["peersV4"][0]["since"], "1970-01-01T00:00:30Z");
        assert_eq!(status["agent"]["birdV6"], status["agent"]["birdV4"]);
        let [learned, own] = [0, 1].map(|at| status["routes"]["routesV4"][at].clone());
        assert_eq!(
            learned,
            json!({"type": "FIB", "destination": "192.168.0.0/26", "gateway": "172.16.6.9",
                   "learnedFrom": {"sourceType": "NodeMesh", "peerIP": "172.16.6.9"}})
        );
        assert_eq!(
            own,
            json!({"type": "FIB", "destination": "192.168.0.0/26", "gateway": "N/A", "interface": "blackhole",
                   "learnedFrom": {"sourceType": "Static"}})
        );
        let off = describe(&[Agent], &NodeStatus { bgp: None, ..told() }, &[], &[], at);
        for family in ["birdV4", "birdV6"] {
            assert_eq!(off["agent"][family], json!({"state": "NotReady"}));
        }

        let store = calico_model::MemoryStore::new();
        let key: Key = "/calico/resources/v3/projectcalico.org/caliconodestatuses/mine".parse().unwrap();
        let resource = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "CalicoNodeStatus", "metadata": {"name": "mine"},
            "spec": {"node": "node1", "classes": ["Agent", "BGP", "Routes"], "updatePeriodSeconds": 10},
        });
        let value = serde_json::to_vec(&resource).unwrap();
        assert!(wanted(&"node1".parse().unwrap(), &key, &value).is_some());
        assert_eq!(wanted(&"node2".parse().unwrap(), &key, &value), None);
        store.commit(vec![Write::put(key.clone(), value, Precondition::Absent)]).await.unwrap();
        write(&store, &key, status).await.unwrap();
        let stored = store.get(&key).await.unwrap().unwrap().value;
        let document = Document::from_json(&stored).unwrap();
        document.check().unwrap();
        assert!(wanted(&"node1".parse().unwrap(), &key, &stored).is_some(), "what was asked is still asked");
    }
}
