//! The agent: it learns what is wanted, and makes the node so.
//!
//! ```text
//!   datastore ─ Syncer ──▶ updates ──┐
//!   BGP ───────────── learned routes ┼─ Compiler, Desired ─▶ pass: rules, then routes, then marks for the CNI plugin
//!   kernel ───────────────── events ─┘                          └─▶ BGP: peers, prefixes, and where the machine's own
//!                                                                        routes lead
//! ```
//!
//! One task owns all of that; its loop is the only `select!` here, and each branch is cancel-safe: receivers, a sleep, and
//! [`Syncer::next`] and the kernel's watch, which say so themselves. Beside it run the speaker, the local socket and the
//! keeper of tunnel addresses and blocks, each of which it tells the newest state through a latest-value channel. Those that
//! write to the datastore rest while it is locked.
//!
//! Nothing is written to the kernel before the datastore has been read to the end once. When the agent ends, however it
//! ends, everything stays in force.

use std::collections::BTreeSet;
use std::sync::Arc;

use calico_model::datastore::client::Client;
use calico_model::datastore::{Change, Syncer};
use calico_model::resource::block::all_blocks_prefix;
use calico_model::resource::{ClusterInformation, Kind, ResourceKey};
use calico_model::{Datastore, LearnedRoutes, Name, NodeName, Snapshot, Update};
use calico_policy::Compiler;
use calico_route::Ownership;
use calico_route::reconcile::{End, Next, Reconciler};
use tokio::sync::watch;

use crate::clock;
use crate::desired::Desired;
use crate::paths::Paths;
use crate::secrets::SecretFiles;
use crate::settings::Settings;
use crate::status::{NodeStatus, StatusServer};
pub(crate) use dataplane::with_causes;
pub use dataplane::{CleanupError, ConnectError};
use dataplane::{Dataplane, Kept, Limits};
use interfaces::Interfaces;
use node_status::Requests;
use report::Report;
use speaker::{News, Speaker};
use tunnel::Tunnels;

mod dataplane;
mod filter;
mod flows;
mod interfaces;
mod marks;
mod memory;
mod node_status;
pub(crate) mod report;
pub(crate) mod speaker;
mod tunnel;

/// What an agent needs to run.
pub struct Options {
    /// What the user wrote.
    pub settings: Settings,
    /// The host's folders.
    pub paths: Paths,
    /// The datastore.
    pub store: Arc<dyn Datastore>,
    /// The datastore as status shows it, without secrets.
    pub datastore: String,
    /// The local socket, which also keeps a second agent of the node away.
    pub server: StatusServer,
}

/// An agent that cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The kernel cannot be reached.
    #[error("the kernel cannot be programmed")]
    Kernel(#[from] ConnectError),
}

/// Runs the agent until `shutdown` completes.
///
/// # Errors
/// When the kernel, the local socket or the BGP port cannot be used at all. Everything that fails later is retried and
/// reported.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    let Options { settings, paths, store, datastore, server } = options;
    let report = Report::new(&settings.node, datastore);
    let (status, newest) = watch::channel(report.status());
    let seed = seed(&settings.node);
    let speaker = Speaker::new(seed);
    let requests =
        Requests::spawn(settings.node.clone(), Arc::clone(&store), newest.clone(), speaker.handles());
    let serving = tokio::spawn(server.serve(newest, speaker.handles()));
    let client = Client::new(Arc::clone(&store), crate::stamp::stamp);
    let interfaces = Interfaces::spawn(settings.node.clone(), client.clone(), seed);
    let tunnels = tunnel::spawn(settings.node.clone(), client, Arc::clone(&store), seed);
    let followed = vec![Kind::all_prefix(), all_blocks_prefix()];
    let mut agent = Agent {
        dataplane: Dataplane::connect().await?,
        syncer: Syncer::new(store, followed, seed, tokio::time::sleep),
        reconciler: Reconciler::new(calico_route::reconcile::Settings::default()),
        compiler: Compiler::new(settings.node.clone()),
        desired: Desired::new(settings.node.clone(), settings.backend).known_as(settings.router_id),
        speaker,
        secrets: SecretFiles::new(paths.secrets_dir()),
        learned: Learned::Unknown,
        tunnels,
        interfaces,
        requests,
        report,
        status,
        unwalked: None,
        settings,
        paths,
    };
    let result = agent.run(shutdown).await;
    serving.abort();
    // The socket's file goes with its server.
    let _ = serving.await;
    result
}

/// Removes everything of ours from the kernel of the calling thread's network namespace. `ownership` says which interfaces are
/// workloads'.
///
/// # Errors
/// When the kernel cannot be reached, or something could not be removed.
pub async fn cleanup(ownership: &Ownership) -> Result<(), CleanupError> {
    dataplane::cleanup(ownership).await
}

/// What keeps the nodes of a cluster from doing the same at the same moment.
pub(crate) fn seed(node: &NodeName) -> u64 {
    node.as_str().bytes().fold(0u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
}

/// What status says of a datastore that is locked, and of what in it cannot be understood, a line each. Pure.
pub(crate) fn datastore_problems(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    const LOCKED: &str = "the datastore is locked (datastoreReady of ClusterInformation is false): nothing is written to it, such as \
                          new addresses, until `calicoctl datastore migrate unlock`";
    let locked = is_locked(snapshot).then(|| LOCKED.to_owned());
    locked.into_iter().chain(snapshot.invalid.iter().map(|(key, problem)| format!("{key}: {problem}")))
}

/// Whether the datastore is locked, as while it is migrated: nothing of it is to change then. Pure.
fn is_locked(snapshot: &Snapshot) -> bool {
    let name: Name = ClusterInformation::NAME.parse().expect("a constant name");
    let cluster = snapshot.cluster_informations.get(&name.into());
    cluster.is_some_and(|cluster| cluster.spec.datastore_ready == Some(false))
}

/// Reports whether what the node is to be, or what is told of it, may be another after an update of a snapshot. Pure.
///
/// In a large cluster somebody always writes a block, a handle or a status. None of them is to have a pass that failed made again.
fn bears_on_node(update: &Update, snapshot: &Snapshot) -> bool {
    let bears = |key: ResourceKey| {
        let is_nothing = matches!(
            key.kind,
            Kind::BlockAffinity
                | Kind::CalicoNodeStatus
                | Kind::IpamBlock
                | Kind::IpamConfiguration
                | Kind::IpamHandle
                | Kind::KubeControllersConfiguration
                | Kind::StagedGlobalNetworkPolicy
                | Kind::StagedKubernetesNetworkPolicy
                | Kind::StagedNetworkPolicy
        );
        // What is mended is told of no more.
        !is_nothing || snapshot.invalid.contains_key(&key.datastore_key())
    };
    match update {
        Update::Put(resource) => bears(resource.key()),
        Update::Removed(key) => bears(key.clone()),
        Update::Invalid { .. }
        | Update::PutBlock(_)
        | Update::RemovedBlock(_)
        | Update::InvalidBlock { .. }
        | Update::InSync
        | _ => true,
    }
}

/// What BGP has learned.
enum Learned {
    /// Nothing is known yet: what an earlier agent's speaker learned stays in the kernel.
    Unknown,
    /// This is all of it.
    Known(Arc<LearnedRoutes>),
}

impl Learned {
    fn known(&self) -> Option<&Arc<LearnedRoutes>> {
        match self {
            Learned::Unknown => None,
            Learned::Known(learned) => Some(learned),
        }
    }
}

struct Agent {
    settings: Settings,
    paths: Paths,
    syncer: Syncer,
    compiler: Compiler,
    desired: Desired,
    reconciler: Reconciler,
    dataplane: Dataplane,
    speaker: Speaker,
    secrets: SecretFiles,
    learned: Learned,
    tunnels: Tunnels,
    interfaces: Interfaces,
    requests: Requests,
    report: Report,
    status: watch::Sender<NodeStatus>,
    /// Why live flows could not be asked about the last time.
    unwalked: Option<String>,
}

impl Agent {
    async fn run(&mut self, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
        tokio::pin!(shutdown);
        loop {
            let due = match self.reconciler.next(clock::now()) {
                Next::Pass => {
                    self.pass().await;
                    continue;
                }
                Next::Wait(at) => Some(at),
                Next::Idle => None,
            };
            if self.dataplane.walk_due(clock::now()).is_some_and(|at| at <= clock::now()) {
                self.walk().await;
                continue;
            }
            let audit = self.dataplane.audit_due();
            let walk = self.dataplane.walk_due(clock::now());
            let due = due.into_iter().chain(audit).chain(walk).min();
            let alarm = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut shutdown => {
                    tracing::info!("asked to stop; everything stays in force");
                    return Ok(());
                }
                changes = self.syncer.next() => self.learn(changes),
                news = self.speaker.news() => match news {
                    News::Learned(learned) => {
                        self.learned = learned.map_or(Learned::Unknown, Learned::Known);
                        self.reconciler.desired_changed(clock::now());
                    }
                    News::Status => self.tell().await,
                    News::Ended => {
                        // What it had learned stays in the kernel until the next one has come that far.
                        self.learned = Learned::Unknown;
                        self.reconciler.desired_changed(clock::now());
                    }
                },
                () = self.dataplane.event() => self.reconciler.kernel_changed(clock::now()),
                () = self.requests.trouble() => self.tell().await,
                () = self.tunnels.trouble() => self.reconciler.desired_changed(clock::now()),
                () = alarm => {
                    if audit.is_some_and(|audit| audit <= clock::now()) {
                        self.reconciler.kernel_changed(clock::now());
                    }
                }
            }
        }
    }

    /// Takes in what the datastore says.
    fn learn(&mut self, changes: Vec<Change>) {
        let mut changed = false;
        for change in changes {
            self.tunnels.observe(&change, clock::wall());
            self.requests.observe(&change);
            if let Some(update) = self.report.heard(change) {
                let in_sync = update == Update::InSync;
                changed |= bears_on_node(&update, self.compiler.snapshot());
                self.desired.apply(&update);
                self.compiler.apply(update);
                if in_sync {
                    tracing::info!("in sync with the datastore");
                    self.reconciler.in_sync(clock::now());
                }
            }
        }
        if changed {
            self.reconciler.desired_changed(clock::now());
        }
        let newest = self.report.status();
        self.status.send_if_modified(|status| std::mem::replace(status, newest.clone()) != newest);
    }

    /// Makes the node what it is wanted to be, as far as can be.
    async fn pass(&mut self) {
        let began = clock::now();
        let snapshot = self.compiler.snapshot();
        self.desired.know(self.secrets.read(snapshot));
        let delta = self.desired.settle(snapshot, self.learned.known());
        if self.desired.bgp().is_none() {
            // A later speaker's knowledge is its own.
            self.learned = Learned::Unknown;
        }
        // What an earlier speaker learned may still be so.
        let is_waited_for = matches!(self.learned, Learned::Unknown) && self.desired.bgp().is_some();
        let mut problems: BTreeSet<String> = datastore_problems(snapshot).collect();
        problems.extend(self.desired.routes().problems.iter().map(ToString::to_string));
        problems.extend(self.desired.bgp().iter().flat_map(|plan| &plan.problems).map(ToString::to_string));
        problems.extend(self.tunnels.problem());
        problems.extend(self.compiler.ruleset().warnings.iter().map(ToString::to_string));

        let mut failed = false;
        // Rules before routes: no packet finds its way before its policy is in force.
        let rules = self.dataplane.apply_rules(&mut self.compiler, &self.settings.node);
        let mut workload_mtu = None;
        if rules.is_ok() || self.dataplane.is_guarded() {
            let may_be_learned = is_waited_for.then(|| self.desired.may_be_learned());
            let keep: Option<&Kept<'_>> = may_be_learned.as_ref().map(|kept| kept as &Kept<'_>);
            let limits = Limits { keep, to_workloads: rules.is_ok() };
            let routes = self.desired.routes();
            let pass = self.dataplane.apply_routes(routes, &delta, &mut self.reconciler, limits, began).await;
            failed |= pass.failed;
            problems.extend(pass.problems);
            workload_mtu = pass.workload_mtu;
            if let Some(found) = pass.interfaces {
                self.interfaces.want(found, self.compiler.snapshot(), &self.settings.node);
            }
        }
        problems.extend(self.dataplane.unfollowed());
        match rules {
            Ok(closed) => {
                problems.extend(closed);
                problems.extend(self.dataplane.tidy_rules());
                let settled = marks::settled(self.compiler.snapshot(), &self.settings.node);
                if let Err(error) = marks::write(&self.paths, &settled, workload_mtu) {
                    problems.insert(error.to_string());
                    failed = true;
                }
            }
            Err(error) => {
                // What became different is not looked at again by itself.
                self.dataplane.forget_kernel();
                problems.insert(error);
                failed = true;
            }
        }
        let (ways, found) = (self.reconciler.ways(), self.dataplane.found());
        if let Err(error) = self.speaker.apply(self.desired.bgp().cloned(), ways, found).await {
            problems.insert(with_causes(&error));
            failed = true;
        }
        self.tunnels.want(tunnel::Wanted::of(self.compiler.snapshot(), &self.settings.node));
        self.report.passed(problems, self.compiler.snapshot().in_sync, !failed);
        self.tell().await;
        let end = if failed { End::Failed } else { End::Clean };
        self.reconciler.finished(end, clock::now());
        tracing::debug!(took = ?clock::now().duration_since(began), "passed");
    }

    /// Asks about live flows again, by the rules that are in force.
    async fn walk(&mut self) {
        let failure = self.dataplane.walk_flows(&mut self.compiler).await.err();
        let failure = failure.map(|why| {
            format!(
                "live flows cannot be asked about again, so that some go on that policy denies by now: {why}"
            )
        });
        if std::mem::replace(&mut self.unwalked, failure) != self.unwalked {
            self.tell().await;
        }
    }

    async fn tell(&mut self) {
        self.report.set_bgp(self.speaker.status().await);
        let mut besides = self.speaker.problems().await;
        besides.extend(self.unwalked.clone());
        besides.extend(self.requests.problem());
        self.report.set_problems(besides);
        self.report.set_kernel_overruns(self.dataplane.overruns());
        self.status.send_replace(self.report.status());
    }
}

#[cfg(test)]
mod tests;
