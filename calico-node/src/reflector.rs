//! A stand-alone route reflector: a node of the cluster that runs nothing but BGP, and programs no kernel.
//!
//! It writes itself into the datastore as a Node with a cluster id and a label, and does what a node's speaker does: peers
//! with the nodes whose BGPPeers name its address or select its labels, reflects their routes, and peers with the other
//! stand-alone reflectors.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calico_bgp::Start;
use calico_bgp::peers::{self, Concerns, Plan, STANDALONE_REFLECTOR, Secrets};
use calico_model::datastore::client::Client;
use calico_model::datastore::{Backoff, Change, Syncer};
use calico_model::name::{Name, NodeName};
use calico_model::resource::block::all_blocks_prefix;
use calico_model::resource::{Kind, Node, NodeBgp, Object, ObjectId};
use calico_model::{AsNumber, Datastore, Family, InterfaceAddr, RouterId, Snapshot};
use tokio::sync::watch;

use crate::agent::report::Report;
use crate::agent::speaker::{News, Speaker};
use crate::agent::{datastore_problems, with_causes};
use crate::clock;
use crate::paths::Paths;
use crate::secrets::SecretFiles;
use crate::stamp;
use crate::startup::{self, StartupError};
use crate::status::StatusServer;

/// What a reflector needs to run.
pub struct Options {
    /// What the node is called.
    pub node: NodeName,
    /// Its addresses, of one family or both.
    pub addresses: Vec<InterfaceAddr>,
    /// The cluster it reflects for.
    pub cluster_id: RouterId,
    /// Its AS number; without one the cluster's.
    pub as_number: Option<AsNumber>,
    /// The host's folders.
    pub paths: Paths,
    /// The datastore.
    pub store: Arc<dyn Datastore>,
    /// The datastore as status shows it, without secrets.
    pub datastore: String,
    /// The local socket.
    pub server: StatusServer,
    /// Whether a datastore that does not answer, or is locked before the reflector is in it, is waited for.
    pub wait_for_datastore: bool,
}

/// Passwords are looked for again this often, and what failed is tried again at least as often.
const AGAIN: Duration = Duration::from_secs(30);
/// What failed is tried again after this, and then after twice as long each time.
const SOON: Duration = Duration::from_millis(500);

/// Runs the reflector until `shutdown` completes.
///
/// # Errors
/// When it cannot be written into the datastore, as where a node that is no reflector has its name. Everything that fails later is
/// retried and reported.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), StartupError> {
    let Options {
        node,
        addresses,
        cluster_id,
        as_number,
        paths,
        store,
        datastore,
        server,
        wait_for_datastore,
    } = options;
    let client = Client::new(Arc::clone(&store), stamp::stamp);
    let bgp = described(&addresses, cluster_id, as_number);
    tokio::pin!(shutdown);
    tokio::select! {
        registered = startup::in_time(&node, wait_for_datastore, || register(&client, &node, &bgp)) => registered?,
        () = &mut shutdown => {
            tracing::info!("asked to stop before the reflector was set up");
            return Ok(());
        }
    }
    let seed = crate::agent::seed(&node);
    let mut reflector = Reflector {
        snapshot: Snapshot::default(),
        speaker: Speaker::new(seed),
        secrets: SecretFiles::new(paths.secrets_dir()),
        report: Report::new(&node, datastore),
        concerns: Concerns::of(node.clone()),
        is_concerned: true,
        plan: None,
        known: Secrets::default(),
        backoff: Backoff::new(seed, SOON, AGAIN),
        again: clock::now() + AGAIN,
        node,
    };
    let (status, newest) = watch::channel(reflector.report.status());
    let serving = tokio::spawn(server.serve(newest, reflector.speaker.handles()));
    let followed = vec![Kind::all_prefix(), all_blocks_prefix()];
    let mut syncer = Syncer::new(store, followed, seed, tokio::time::sleep);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            changes = syncer.next() => {
                reflector.learn(changes);
                if !reflector.is_concerned {
                    status.send_replace(reflector.report.status());
                    continue;
                }
                reflector.apply().await;
            }
            // Nobody tells of a port that is free again, or of a file that was written.
            () = tokio::time::sleep_until(reflector.again.into()) => reflector.apply().await,
            news = reflector.speaker.news() => match news {
                // Nothing is programmed from what is learned.
                News::Learned(_) => continue,
                News::Status => {}
                News::Ended => reflector.apply().await,
            },
        }
        let bgp = reflector.speaker.status().await;
        reflector.report.set_bgp(bgp);
        status.send_replace(reflector.report.status());
    }
    serving.abort();
    // The socket's file goes with its server.
    let _ = serving.await;
    Ok(())
}

struct Reflector {
    node: NodeName,
    snapshot: Snapshot,
    speaker: Speaker,
    secrets: SecretFiles,
    report: Report,
    concerns: Concerns,
    /// Whether something has changed that the plan or the problems depend on.
    is_concerned: bool,
    /// The plan, and the passwords that it was made with.
    plan: Option<Plan>,
    known: Secrets,
    backoff: Backoff,
    /// When the next attempt is due, whatever changes.
    again: Instant,
}

impl Reflector {
    fn learn(&mut self, changes: Vec<Change>) {
        for change in changes {
            if let Some(update) = self.report.heard(change) {
                let invalid = self.snapshot.invalid.len();
                self.is_concerned |= self.concerns.has(&update);
                self.snapshot.apply(update);
                // What is mended is a problem no more, be it nothing to the plan.
                self.is_concerned |= self.snapshot.invalid.len() != invalid;
            }
        }
    }

    /// Makes the speaker do what the resources say, once they are all known.
    async fn apply(&mut self) {
        self.again = clock::now() + AGAIN;
        if !self.snapshot.in_sync {
            return;
        }
        let secrets = self.secrets.read(&self.snapshot);
        if std::mem::take(&mut self.is_concerned) | (self.known != secrets) {
            self.plan = peers::plan(&self.snapshot, &self.node, &secrets);
            self.known = secrets;
        }
        let mut problems: BTreeSet<String> = datastore_problems(&self.snapshot).collect();
        problems.extend(self.plan.iter().flat_map(|plan| &plan.problems).map(ToString::to_string));
        // No packet goes by way of it: whatever its clients hold from it is as good as before.
        let applied = self.speaker.apply(self.plan.clone(), None, Start::Recovering).await;
        problems.extend(applied.as_ref().err().map(|error| with_causes(error)));
        if applied.is_ok() {
            self.backoff.reset();
        } else {
            self.again = clock::now() + self.backoff.pause();
        }
        self.report.passed(problems, true, applied.is_ok());
    }
}

/// Describes the reflector as a node. Pure.
fn described(addresses: &[InterfaceAddr], cluster_id: RouterId, as_number: Option<AsNumber>) -> NodeBgp {
    let of = |family| addresses.iter().copied().find(|address| Family::of(address.addr()) == family);
    NodeBgp {
        as_number,
        ipv4_address: of(Family::V4),
        ipv6_address: of(Family::V6),
        ipv4_ipip_tunnel_addr: None,
        route_reflector_cluster_id: Some(cluster_id),
    }
}

/// Makes the reflector known, or brings what is known of it up to date. While the datastore is locked, one that is in it goes on as
/// it is there.
async fn register(client: &Client, node: &NodeName, bgp: &NodeBgp) -> Result<(), StartupError> {
    let failed = |source| StartupError::Client { node: node.clone(), source };
    let (nodes, id) = (client.of::<Node>(), ObjectId::from(Name::from(node.clone())));
    let known = nodes.find(&id).await.map_err(failed)?;
    if known.as_ref().is_some_and(|known| known.metadata.labels.get(STANDALONE_REFLECTOR).is_none()) {
        return Err(StartupError::NotReflector { node: node.clone() });
    }
    match (startup::is_locked(client).await.map_err(failed)?, known) {
        (true, None) => Err(StartupError::Locked { node: node.clone() }),
        (true, Some(_)) => {
            tracing::warn!(
                "the datastore is locked: the reflector goes on as it is stored, and what its settings say counts after a restart"
            );
            Ok(())
        }
        (false, None) => {
            let spec = Node { bgp: Some(bgp.clone()), ..Node::new() };
            let mut object = Object::new(Name::from(node.clone()), spec);
            object.metadata.labels = [(STANDALONE_REFLECTOR, "")].into_iter().collect();
            nodes.create(object).await.map(|_| ()).map_err(failed)
        }
        (false, Some(_)) => {
            let write = |_: &mut _, node: &mut Node| node.bgp = Some(bgp.clone());
            nodes.modify(&id, write).await.map(|_| ()).map_err(failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use calico_model::MemoryStore;
    use calico_model::resource::bgp::{Password, SecretKey};
    use calico_model::resource::{BgpConfiguration, ClusterInformation};

    use super::*;
    use crate::lab::Stopwatch;
    use crate::status::{NodeStatus, Question, ask};

    /// Asks the reflector until it is as wanted.
    async fn status(paths: &Paths, wanted: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let watch = Stopwatch::start();
        loop {
            let status: NodeStatus = ask(&paths.status_socket(), Question::Status).await.unwrap();
            if wanted(&status) {
                return status;
            }
            assert!(watch.elapsed() < Duration::from_secs(90), "{status:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    #[tokio::test]
    async fn a_reflector_takes_no_nodes_place_and_writes_nothing_while_the_datastore_is_locked() {
        let client = Client::new(Arc::new(MemoryStore::new()), stamp::stamp);
        let (node, other): (NodeName, NodeName) = ("node1".parse().unwrap(), "reflector".parse().unwrap());
        let bgp = NodeBgp::at("172.16.6.1/24".parse().unwrap());
        client.of().create(Object::new(Name::from(node.clone()), Node::new())).await.unwrap();
        let refused = register(&client, &node, &bgp).await.unwrap_err();
        assert!(matches!(refused, StartupError::NotReflector { .. }), "{refused}");
        assert_eq!(
            client.of::<Node>().find(&Name::from(node.clone()).into()).await.unwrap().unwrap().spec,
            Node::new()
        );

        let moved = NodeBgp::at("172.16.6.2/24".parse().unwrap());
        client.ensure_initialized("v0.1.0", "0123456789abcdef0123456789abcdef").await.unwrap();
        let name: Name = ClusterInformation::NAME.parse().unwrap();
        for (is_locked, bgp, told) in [
            (true, &bgp, None),
            (false, &bgp, Some(&bgp)),
            (true, &moved, Some(&bgp)),
            (false, &moved, Some(&moved)),
        ] {
            let write =
                |_: &mut _, cluster: &mut ClusterInformation| cluster.datastore_ready = Some(!is_locked);
            let id = name.clone().into();
            client.of::<ClusterInformation>().modify(&id, write).await.unwrap();
            assert_eq!(register(&client, &other, bgp).await.is_ok(), told.is_some());
            let stored = client.of::<Node>().find(&Name::from(other.clone()).into()).await.unwrap();
            assert_eq!(stored.and_then(|stored| stored.spec.bgp).as_ref(), told);
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_and_a_secret_that_is_missing_at_the_start_are_looked_for_again() {
        let folder = std::env::temp_dir().join(format!("calico-reflector-{}", std::process::id()));
        let paths = Paths::from_vars(|_| Some(folder.display().to_string()));
        let store: Arc<dyn Datastore> = Arc::new(MemoryStore::new());
        let holder = TcpListener::bind(("0.0.0.0", 0)).unwrap();
        let mut configuration = BgpConfiguration::new();
        configuration.listen_port = Some(holder.local_addr().unwrap().port());
        configuration.node_mesh_password = Some(Password {
            secret_key_ref: Some(SecretKey {
                name: "bgp".to_owned(),
                key: "mesh".to_owned(),
                optional: None,
            }),
        });
        let client = Client::new(Arc::clone(&store), stamp::stamp);
        client.of().create(Object::new("default".parse().unwrap(), configuration)).await.unwrap();
        let mut other = Object::new("other".parse().unwrap(), Node::new());
        other.spec.bgp = Some(NodeBgp::at("127.0.0.2/8".parse().unwrap()));
        other.metadata.labels = [(STANDALONE_REFLECTOR, "")].into_iter().collect();
        client.of().create(other).await.unwrap();
        let options = Options {
            node: "one".parse().unwrap(),
            addresses: vec!["127.0.0.1/8".parse().unwrap()],
            cluster_id: "1.0.0.1".parse().unwrap(),
            as_number: None,
            store,
            datastore: String::new(),
            server: StatusServer::listen(&paths.status_socket()).unwrap(),
            wait_for_datastore: false,
            paths: paths.clone(),
        };
        let running = tokio::spawn(run(options, std::future::pending()));
        let held = status(&paths, |status| status.problems.len() == 2).await;
        assert!(held.bgp.is_none() && !held.programmed, "{held:#?}");
        assert!(
            held.problems.iter().any(|problem| problem.contains("taken by another program")),
            "{held:#?}"
        );

        // From here on nobody writes to the datastore.
        let secrets = paths.secrets_dir().join("bgp");
        std::fs::create_dir_all(&secrets).unwrap();
        std::fs::write(secrets.join("mesh"), "secret").unwrap();
        drop(holder);
        let free = status(&paths, |status| status.problems.is_empty()).await;
        assert_eq!(free.bgp.unwrap().peers.len(), 1);
        assert!(free.programmed);
        running.abort();
        let _ = running.await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}
