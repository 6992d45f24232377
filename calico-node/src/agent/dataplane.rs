//! The kernel as the agent sees it: rules through the packet filter, the rest through route netlink.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use calico_bgp::Start;
use calico_model::resource::NodeInterface;
use calico_model::{InterfaceName, NodeName};
use calico_policy::Compiler;
use calico_policy::nft::{self, Nft};
use calico_route::actual::Knowledge;
use calico_route::change::Change;
use calico_route::departed::{Departed, Departures};
use calico_route::netlink::{Event, Netlink, Subject, Watch, WriteError};
use calico_route::ownership::Ownership;
use calico_route::reconcile::Reconciler;
use calico_route::sysctl::Sysctl;
use calico_route::{Delta, Desired, Ways};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::filter::{self, Filter};
use super::flows::{Flows, Walked};
use super::interfaces;
use super::memory::Memory;
use following::follow;
pub(super) use limits::{Kept, Limits};
use limits::{leads_to_workload, leave_alone};
use told::{Changed, Missing, Refused};

mod following;
mod limits;
mod told;

/// A kernel that cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No route netlink.
    #[error(transparent)]
    Netlink(#[from] calico_route::netlink::ConnectError),
    /// No subscription to its changes.
    #[error("cannot watch the kernel's routes and links")]
    Watch(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A clean-up that left something behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CleanupError {
    /// The kernel cannot be reached.
    #[error("the kernel cannot be programmed")]
    Connect(#[from] ConnectError),
    /// Some things could not be removed; the rest was.
    #[error("could not be removed: {}", .0.join("; "))]
    Left(Vec<String>),
}

/// Removes rules, routes, tunnels and neighbours of ours; goes on past failures.
pub(super) async fn cleanup(ownership: &Ownership) -> Result<(), CleanupError> {
    let mut left = Vec::new();
    let mut netlink = Netlink::connect().map_err(ConnectError::from)?;
    match netlink.cleanup(ownership).await {
        Ok(refused) => left.extend(refused.iter().map(|(_, error)| with_causes(error))),
        Err(error) => left.push(with_causes(&error)),
    }
    left.extend(tokio::task::block_in_place(filter::cleanup));
    if left.is_empty() { Ok(()) } else { Err(CleanupError::Left(left)) }
}

/// The kernel of this node.
pub(super) struct Dataplane {
    filter: Filter,
    netlink: Netlink,
    /// `None` from when it fails until it is there again.
    watch: Option<Watch>,
    /// How often more changed than watches that failed could tell.
    former_overruns: u64,
    /// When one that failed may be opened again, and why it is not open.
    reopened: Instant,
    unwatched: Option<String>,
    departures: Departures,
    /// When the last pass began.
    began: Instant,
    missing: Missing,
    flows: Flows,
    /// What the kernel holds: only while it is as wanted and nobody else changed it.
    known: Option<Memory>,
    /// Whether an earlier agent's routes were there when the kernel was first read; `None` while it was not.
    found: Option<Start>,
    /// Whether routes wait for what other tables than the main one may hold.
    for_other_tables: bool,
    /// When the kernel was last read, and when it is to be read again since other tables changed.
    read: Instant,
    read_again: Option<Instant>,
    /// How ours was told from others' in the last pass.
    ownership: Ownership,
    /// When the settings are looked at again, of whose changes no event tells, and what they were the last time.
    sweep: tokio::time::Interval,
    settings: BTreeMap<Sysctl, String>,
    /// What others change in the rules; `None` from when it cannot be followed until it can again.
    rules_watch: Option<mpsc::Receiver<Result<nft::Foreign, String>>>,
    /// When it may be tried again, and why it cannot be followed.
    rules_reopened: Instant,
    rules_unwatched: Option<String>,
    /// When a pass is to try one of both again.
    tries: BTreeSet<Instant>,
}

/// What became of the routes in a pass.
pub(super) struct RoutePass {
    /// Whether something is to be tried again.
    pub(super) failed: bool,
    /// What is wrong, one sentence each.
    pub(super) problems: BTreeSet<String>,
    /// How large workloads' packets may be.
    pub(super) workload_mtu: Option<u32>,
    /// The machine's own interfaces, where they were looked at.
    pub(super) interfaces: Option<Vec<NodeInterface>>,
    /// When there will be more to tell of what is wrong.
    again: Option<Instant>,
}

impl RoutePass {
    fn with_mtu(workload_mtu: u32) -> Self {
        Self {
            failed: false,
            problems: BTreeSet::new(),
            workload_mtu: Some(workload_mtu),
            interfaces: None,
            again: None,
        }
    }

    fn come_again(&self, reconciler: &mut Reconciler) {
        if let Some(again) = self.again {
            reconciler.kernel_changed(again);
        }
    }

    fn failed(problem: String) -> Self {
        Self { failed: true, problems: [problem].into(), workload_mtu: None, interfaces: None, again: None }
    }
}

/// How many of the changes of a pass were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    All,
    NotAll,
}

/// How often the kernel's settings are looked at, so that all of them are put right within five seconds even where each look
/// and the pass after it are late.
const SWEEP: Duration = Duration::from_millis(1500);

impl Dataplane {
    /// Connects in the network namespace of the calling thread.
    pub(super) async fn connect() -> Result<Self, ConnectError> {
        let mut netlink = Netlink::connect()?;
        let watch = netlink
            .watch(&Ownership::default())
            .await
            .map_err(|error| ConnectError::Watch(Box::new(error)))?;
        let mut nft = Nft::new();
        let rules_watch = nft::Watch::open(&mut nft).map_err(|error| ConnectError::Watch(Box::new(error)))?;
        Ok(Self {
            filter: Filter::new(nft),
            rules_watch: Some(follow(rules_watch)),
            rules_reopened: crate::clock::now(),
            rules_unwatched: None,
            tries: BTreeSet::new(),
            netlink,
            watch: Some(watch),
            former_overruns: 0,
            reopened: crate::clock::now(),
            unwatched: None,
            departures: Departures::default(),
            began: crate::clock::now(),
            missing: Missing::default(),
            flows: Flows::default(),
            known: None,
            found: None,
            for_other_tables: false,
            read: crate::clock::now(),
            read_again: None,
            ownership: Ownership::default(),
            sweep: {
                let mut sweep = tokio::time::interval(SWEEP);
                sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
                sweep
            },
            settings: BTreeMap::new(),
        })
    }

    /// Waits until the kernel was changed by somebody else, or a watch that failed may be opened again. Cancel-safe.
    pub(super) async fn event(&mut self) {
        loop {
            let due = self.tries.first().copied();
            let again = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let Self { watch, rules_watch, sweep, .. } = self;
            let routes = async {
                let Some(watch) = watch else { return std::future::pending().await };
                watch.next().await
            };
            let rules = async {
                let Some(watch) = rules_watch else { return std::future::pending().await };
                watch.recv().await.unwrap_or_else(|| Err("its thread has ended".to_owned()))
            };
            tokio::select! {
                event = routes => {
                    let event = event.unwrap_or_else(|error| self.cannot_follow(&error));
                    if self.concerns(&event, crate::clock::now()) {
                        self.known = None;
                        tracing::debug!(?event, "the kernel changed");
                        return;
                    }
                }
                change = rules => return self.rules_changed(change),
                () = again => {
                    self.tries.pop_first();
                    return;
                }
                _ = sweep.tick() => {
                    if self.settings_changed() {
                        self.known = None;
                        tracing::debug!("the kernel's settings changed");
                        return;
                    }
                }
            }
        }
    }

    /// Reports whether settings are others than they were: after a pass, or at the last look.
    fn settings_changed(&mut self) -> bool {
        // Many files where there are many workloads; the other tasks go on meanwhile on another thread.
        let now = match tokio::task::block_in_place(|| self.netlink.settings(&self.ownership)) {
            Ok(now) => now,
            Err(error) => {
                tracing::debug!(error = with_causes(&error), "the kernel's settings cannot be looked at");
                return false;
            }
        };
        let before = self.known.as_ref().map_or(&self.settings, |known| &known.actual.sysctls);
        let changed = *before != now;
        self.settings = now;
        changed
    }

    /// Returns what the kernel holds, if that is known without asking.
    fn remembered(&mut self, ownership: &Ownership, now: Instant) -> Option<Memory> {
        let known = self.known.take().filter(|known| known.serves(ownership, now));
        match self.watch.as_mut()?.already() {
            Ok(Some(event)) if self.concerns(&event, now) => None,
            Ok(_) => known.filter(|_| self.read_again.is_none_or(|due| now < due)),
            Err(error) => {
                self.cannot_follow(&error);
                None
            }
        }
    }

    /// Forgets what the kernel holds: it will be read.
    pub(super) fn forget_kernel(&mut self) {
        self.known = None;
    }

    /// Returns whether packets went by an earlier agent's routes when this one began, as they do unless it is known better.
    pub(super) fn found(&self) -> Start {
        self.found.unwrap_or(Start::Recovering)
    }

    /// Returns when the rules are to be compared with the kernel's again.
    pub(super) fn audit_due(&self) -> Option<Instant> {
        self.filter.check_due(self.rules_watch.is_some())
    }

    /// Puts rules in force, unless they are already. Returns what is closed, one sentence each.
    pub(super) fn apply_rules(
        &mut self,
        compiler: &mut Compiler,
        node: &NodeName,
    ) -> Result<BTreeSet<String>, String> {
        let now = crate::clock::now();
        self.follow_rules(now);
        let followed = self.rules_watch.is_some();
        // The kernel may take long for many rules; the other tasks go on meanwhile on another thread.
        let applied = tokio::task::block_in_place(|| self.filter.apply(compiler, node, followed, now));
        // Where it fails, the kernel may have taken some or all of them, which the next try finds in force already.
        if applied.is_err() || self.filter.was_rewritten() {
            self.flows.rules_changed();
        }
        applied
    }

    /// Returns whether some rules of ours are in force, of now or of before: workloads that they do not know are closed.
    pub(super) fn is_guarded(&self) -> bool {
        self.filter.is_guarded()
    }

    /// Removes what an agent left in packet filters that are not used any more. Returns what could not be removed.
    pub(super) fn tidy_rules(&mut self) -> BTreeSet<String> {
        let now = crate::clock::now();
        tokio::task::block_in_place(|| self.filter.tidy(now))
    }

    /// Returns when live flows are to be asked about again: never while it is not known that the rules are in force.
    pub(super) fn walk_due(&self, now: Instant) -> Option<Instant> {
        self.flows.due(now).filter(|_| self.filter.is_in_force())
    }

    /// Asks about live flows again.
    pub(super) async fn walk_flows(&mut self, compiler: &mut Compiler) -> Result<(), String> {
        let walked = self.flows.walk(&self.netlink, compiler).await.map_err(|error| with_causes(&error))?;
        if walked != Walked::default() {
            let Walked { withdrawn, restored } = walked;
            tracing::info!(withdrawn, restored, "live flows are stopped, or allowed again");
        }
        Ok(())
    }

    /// Makes routes, tunnels and neighbours what they are wanted to be. While it is known what the kernel holds, only
    /// `delta` is looked at, which is what became different since the last call.
    pub(super) async fn apply_routes(
        &mut self,
        desired: &Desired,
        delta: &Delta,
        reconciler: &mut Reconciler,
        limits: Limits<'_>,
        now: Instant,
    ) -> RoutePass {
        self.began = now;
        if self.ownership != desired.ownership {
            self.ownership.clone_from(&desired.ownership);
            if let Some(watch) = &mut self.watch {
                watch.set_ownership(&desired.ownership);
            }
        }
        if let Some(known) = self.remembered(&desired.ownership, now)
            && limits.keep.is_none()
            && limits.to_workloads
        {
            let plan = calico_route::plan_delta(desired, &known.actual, delta, &known.waiting);
            let changes = reconciler.admit(&plan, &known.actual.host, &desired.ownership, now);
            if plan.waiting.node == known.waiting.node && changes == plan.changes {
                let known = Memory { waiting: plan.waiting.clone(), ..known };
                let departed = self.departures.pass_delta(desired, &known.actual, &changes, delta);
                let mut pass = RoutePass::with_mtu(desired.workload_mtu(&known.actual.host));
                let made = self.make(&changes, &plan.tries, &departed, known, &mut pass).await;
                // What was refused is looked at with the kernel's state in hand, before anything is said of it.
                if made == Made::All {
                    pass.come_again(reconciler);
                    return pass;
                }
            }
        }
        if self.watch.is_none() && self.reopened <= now {
            // First it is listened, then read: nothing is missed between.
            match self.netlink.watch(&desired.ownership).await {
                Ok(watch) => (self.watch, self.unwatched) = (Some(watch), None),
                Err(error) => self.stay_unwatched(&error),
            }
        }
        self.read = now;
        if let Some(due) = self.read_again.take() {
            self.tries.remove(&due);
        }
        let actual = match self.netlink.read(&desired.ownership).await {
            Ok(actual) => actual,
            Err(error) => return RoutePass::failed(with_causes(&error)),
        };
        if let Some(watch) = &mut self.watch {
            watch.learn(&actual);
        }
        let found = if actual.routes.is_empty() { Start::Fresh } else { Start::Recovering };
        self.found.get_or_insert(found);
        let mut pass = RoutePass::with_mtu(desired.workload_mtu(&actual.host));
        pass.interfaces = Some(interfaces::of(&actual.host, &desired.ownership));
        let ways_due = reconciler.take_ways(Ways::of(&actual.host), now);
        let plan = match limits.keep {
            Some(keep) => calico_route::plan_unlearned(desired, &actual, keep),
            None => calico_route::plan(desired, &actual),
        };
        let planned = plan.changes.len();
        let mut changes = reconciler.admit(&plan, &actual.host, &desired.ownership, now);
        if let Some(keep) = limits.keep {
            leave_alone(&mut changes, keep);
        }
        if !limits.to_workloads {
            changes.retain(|change| !leads_to_workload(change, &desired.ownership));
        }
        let departed = self.departures.pass(desired, &actual, &changes);
        let read = Memory { actual, since: now, ownership: desired.ownership.clone(), waiting: plan.waiting };
        self.make(&changes, &plan.tries, &departed, read, &mut pass).await;
        if changes.len() < planned || ways_due.is_some() {
            self.known = None;
        }
        pass.come_again(reconciler);
        pass
    }

    /// Makes changes, tries others, and remembers what the kernel then holds unless a change was refused.
    async fn make(
        &mut self,
        changes: &[Change],
        tries: &[Change],
        departed: &Departed,
        mut known: Memory,
        pass: &mut RoutePass,
    ) -> Made {
        self.forget(&departed.before, pass).await;
        let mut made = Made::All;
        let mut knowledge = Knowledge::Kept;
        let mut failed = BTreeSet::new();
        let (mut changed, mut refused) = (Changed::default(), Refused::default());
        for outcome in self.netlink.apply(changes).await {
            match outcome.result {
                Ok(()) => {
                    changed.note(outcome.change);
                    if known.actual.made(outcome.change) == Knowledge::Lost {
                        knowledge = Knowledge::Lost;
                    }
                }
                Err(error) => {
                    made = Made::NotAll;
                    if !follows(outcome.change, &error, &failed) {
                        refused.note(outcome.change, &error);
                        pass.failed |= error.requires_retry();
                    }
                    if let Change::AddVxlan { device, .. } | Change::AddIpip { device, .. } = outcome.change {
                        failed.insert(device);
                    }
                }
            }
        }
        for outcome in self.netlink.apply(tries).await {
            if let (Ok(()), Change::AddRoute { key, .. }) = (&outcome.result, outcome.change) {
                changed.note(outcome.change);
                // A route takes nothing else with it.
                let _ = known.actual.made(outcome.change);
                known.waiting.routes.remove(key);
            }
        }
        changed.tell();
        pass.problems.extend(refused.lines());
        self.for_other_tables = known.waiting.is_for_other_tables();
        let (told, again) = self.missing.told(&known.waiting, &known.ownership, self.began);
        pass.problems.extend(told);
        pass.again = again;
        self.forget(&departed.after, pass).await;
        self.known = (made == Made::All && knowledge == Knowledge::Kept).then_some(known);
        made
    }

    /// Forgets the connections of addresses that have left, so that their next owner does not inherit them.
    async fn forget(&mut self, addresses: &BTreeSet<IpAddr>, pass: &mut RoutePass) {
        match self.netlink.forget_connections(addresses).await {
            Ok(0) => {}
            Ok(connections) => tracing::info!(connections, ?addresses, "forgot connections"),
            Err(error) => {
                pass.problems.insert(with_causes(&error));
                pass.failed = true;
                self.departures.owe(addresses);
            }
        }
    }
}

/// Reports whether a change could not be made since a device could not: why is told, and what belongs on it goes without
/// saying, whatever the kernel calls it.
fn follows(change: &Change, error: &WriteError, failed: &BTreeSet<&InterfaceName>) -> bool {
    let device = if let WriteError::NoDevice { device } = error { Some(device) } else { change.device() };
    device.is_some_and(|device| failed.contains(device))
}

/// An error and its causes, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
