//! A stand-alone route reflector: a node of the cluster that runs nothing but BGP, and programs no kernel.
//!
//! It writes itself into the datastore as a Node with a cluster id and a label, and does what a node's speaker does: peers
//! with the nodes whose BGPPeers name its address or select its labels, reflects their routes, and peers with the other
//! stand-alone reflectors.

use std::collections::BTreeSet;
use std::sync::Arc;

use calico_bgp::peers::{self, Concerns, Plan, STANDALONE_REFLECTOR, Secrets};
use calico_model::datastore::client::{Client, ClientError};
use calico_model::datastore::{Change, Syncer};
use calico_model::name::{Name, NodeName};
use calico_model::resource::block::all_blocks_prefix;
use calico_model::resource::{Kind, Node, NodeBgp, Object, ObjectId};
use calico_model::{AsNumber, Datastore, Family, InterfaceAddr, RouterId, Snapshot};
use tokio::sync::watch;

use crate::agent::report::Report;
use crate::agent::speaker::Speaker;
use crate::agent::with_causes;
use crate::paths::Paths;
use crate::secrets::SecretFiles;
use crate::stamp;
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
}

/// Runs the reflector until `shutdown` completes.
///
/// # Errors
/// When it cannot be written into the datastore. Everything that fails later is retried and reported.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), ClientError> {
    let Options { node, addresses, cluster_id, as_number, paths, store, datastore, server } = options;
    let client = Client::new(Arc::clone(&store), stamp::stamp);
    register(&client, &node, described(&addresses, cluster_id, as_number)).await?;
    let mut reflector = Reflector {
        snapshot: Snapshot::default(),
        speaker: Speaker::default(),
        secrets: SecretFiles::new(paths.secrets_dir()),
        report: Report::new(&node, datastore),
        concerns: Concerns::of(node.clone()),
        is_concerned: true,
        plan: None,
        known: Secrets::default(),
        node,
    };
    let (status, newest) = watch::channel(reflector.report.status());
    let serving = tokio::spawn(server.serve(newest, reflector.speaker.handles()));
    let seed = crate::agent::seed(&reflector.node);
    let followed = vec![Kind::all_prefix(), all_blocks_prefix()];
    let mut syncer = Syncer::new(store, followed, seed, tokio::time::sleep);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            changes = syncer.next() => {
                reflector.learn(changes);
                reflector.apply().await;
            }
            // Nothing is programmed from what is learned.
            _ = reflector.speaker.news() => {}
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
    /// Whether something has changed that the plan depends on.
    is_concerned: bool,
    /// The plan, and the passwords that it was made with.
    plan: Option<Plan>,
    known: Secrets,
}

impl Reflector {
    fn learn(&mut self, changes: Vec<Change>) {
        for change in changes {
            if let Some(update) = self.report.heard(change) {
                self.is_concerned |= self.concerns.has(&update);
                self.snapshot.apply(update);
            }
        }
    }

    /// Makes the speaker do what the resources say, once they are all known.
    async fn apply(&mut self) {
        if !self.snapshot.in_sync {
            return;
        }
        let secrets = self.secrets.read(&self.snapshot);
        if std::mem::take(&mut self.is_concerned) | (self.known != secrets) {
            self.plan = peers::plan(&self.snapshot, &self.node, &secrets);
            self.known = secrets;
        }
        let mut problems: BTreeSet<String> = BTreeSet::new();
        problems.extend(self.snapshot.invalid.iter().map(|(key, problem)| format!("{key}: {problem}")));
        problems.extend(self.plan.iter().flat_map(|plan| &plan.problems).map(ToString::to_string));
        let applied = self.speaker.apply(self.plan.clone()).await;
        problems.extend(applied.as_ref().err().map(|error| with_causes(error)));
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

/// Makes the reflector known, or brings what is known of it up to date.
async fn register(client: &Client, node: &NodeName, bgp: NodeBgp) -> Result<(), ClientError> {
    let name = Name::from(node.clone());
    let mut object = Object::new(name.clone(), Node { bgp: Some(bgp.clone()), ..Node::new() });
    object.metadata.labels = [(STANDALONE_REFLECTOR, "")].into_iter().collect();
    let labels = object.metadata.labels.clone();
    match client.of::<Node>().create(object).await {
        Ok(_) => return Ok(()),
        Err(ClientError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error),
    }
    let write = |metadata: &mut calico_model::resource::Metadata, node: &mut Node| {
        metadata.labels = metadata.labels.iter().chain(labels.iter()).collect();
        node.bgp = Some(bgp.clone());
    };
    client.of::<Node>().modify(&ObjectId::from(name), write).await.map(|_| ())
}
