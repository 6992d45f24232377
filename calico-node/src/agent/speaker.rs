//! The BGP speaker as the agent drives it: started, told and asked.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calico_bgp::decision::{NextHop, Reachability};
use calico_bgp::net::{Gone, Handle, ListenError, Station, spawn};
use calico_bgp::peers::Plan;
use calico_bgp::session::State;
use calico_bgp::speaker::Extent;
use calico_bgp::{PeerStatus, Start};
use calico_model::datastore::Backoff;
use calico_model::{Cidr, Family, LearnedRoutes};
use calico_route::{Distance, Waiting, Ways};
use futures_util::TryFutureExt;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::report::seconds;
use crate::status::{BgpStatus, PeerStatus as ShownPeer};

/// What a running speaker has to say.
pub(crate) enum News {
    /// Another choice of routes, or none yet while it recovers.
    Learned(Option<Arc<LearnedRoutes>>),
    /// Something that changes the status.
    Status,
    /// It has ended by itself. The next [`Speaker::apply`] fails of that, and one after it starts another: soon, or later
    /// each time where they do not live long.
    Ended,
}

/// A speaker that does not do all that is wanted. Worth another try.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpeakerError {
    /// It does not listen where it should.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// It is gone, though nobody asked it to go.
    #[error("the BGP speaker ended by itself, which is a fault of this program: it is started again")]
    Ended,
}

/// A speaker that runs, or none.
pub(crate) struct Speaker {
    running: Option<Running>,
    /// Whether one ran already: what it learned may be in the kernel.
    has_run: bool,
    /// Whom to ask; none while no speaker runs.
    handles: watch::Sender<Option<Handle>>,
    /// Whether the last one ended by itself, and that is not told yet.
    has_ended: bool,
    /// When the next one may start after that.
    restart: Instant,
    backoff: Backoff,
}

/// How long after its end a speaker is started again: at first, and at most.
const RESTART: Duration = Duration::from_millis(500);
const LATEST_RESTART: Duration = Duration::from_secs(60);
/// What ends after this long ended of something else than the one before it.
const LONG_LIFE: Duration = Duration::from_secs(60);

struct Running {
    handle: Handle,
    started: Instant,
    /// When it was last told something else to do, in seconds since 1970.
    reconfigured: u64,
    desired: Plan,
    /// Where the machine's own routes led when next hops were last judged by them.
    host: Option<Arc<Ways>>,
    learned: watch::Receiver<Option<Arc<LearnedRoutes>>>,
    events: broadcast::Receiver<calico_bgp::Event>,
    pace: Pace,
}

/// When the status is told. The speaker counts what it has told whom for each, and has an event in every round: it is told
/// at once after a time of quiet, and once in [`Pace::REST`] while things happen.
#[derive(Debug, Clone, Copy)]
struct Pace {
    told: Instant,
    due: Instant,
}

impl Pace {
    const REST: Duration = Duration::from_secs(1);
    /// Counters are told at least this often.
    const REFRESH: Duration = Duration::from_secs(2);

    fn begin(now: Instant) -> Self {
        Self { told: now, due: now }
    }

    fn something_happened(&mut self, now: Instant) {
        self.due = self.due.min(now.max(self.told + Self::REST));
    }

    fn tells(&mut self, now: Instant) {
        *self = Self { told: now, due: now + Self::REFRESH };
    }
}

impl Speaker {
    /// None runs yet. The seed decides the jitter of what is started again.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            running: None,
            has_run: false,
            handles: watch::Sender::default(),
            has_ended: false,
            restart: crate::clock::now(),
            backoff: Backoff::new(seed, RESTART, LATEST_RESTART),
        }
    }

    /// Returns whom to ask about the speaker, now and later.
    pub(crate) fn handles(&self) -> watch::Receiver<Option<Handle>> {
        self.handles.subscribe()
    }

    /// Makes the speaker do what is wanted, and judge next hops by where the machine's own routes lead, once that is known.
    /// What did not change is not touched. The first one starts as the machine was found: peers that kept the routes of an
    /// earlier speaker drop them where no packet goes by them any more, as after a reboot (RFC 4724 section 4.1).
    pub(crate) async fn apply(
        &mut self,
        desired: Option<Plan>,
        host: Option<&Arc<Ways>>,
        found: Start,
    ) -> Result<(), SpeakerError> {
        let outcome = self.change(desired, host, found).await;
        self.handles.send_replace(self.running.as_ref().map(|running| running.handle.clone()));
        outcome
    }

    async fn change(
        &mut self,
        desired: Option<Plan>,
        host: Option<&Arc<Ways>>,
        found: Start,
    ) -> Result<(), SpeakerError> {
        let has_ended = std::mem::take(&mut self.has_ended);
        let Some(desired) = desired else {
            // What is switched on again is another one.
            self.backoff.reset();
            self.restart = crate::clock::now();
            if let Some(running) = self.running.take() {
                let _ = running.handle.shut_down("BGP is switched off on this node").await;
            }
            return Ok(());
        };
        if has_ended || (self.running.is_none() && crate::clock::now() < self.restart) {
            return Err(SpeakerError::Ended);
        }
        let mut current = match self.running.take() {
            Some(running) => running,
            None => {
                let start = if self.has_run { Start::Recovering } else { found };
                Running::start(&desired, start).await?
            }
        };
        self.has_run = true;
        // Whether the speaker is gone, the news say.
        if let Some(host) = host {
            current.judge(&desired, host).await;
        }
        if current.desired.speaker != desired.speaker {
            let _ = current.handle.set_config(desired.speaker.clone()).await;
        }
        // Where it listens is nothing to sessions that are up; where it cannot listen, the old places stay.
        let mut listening = Ok(());
        let mut desired = desired;
        if current.desired.listen != desired.listen {
            listening = current.handle.set_listen(&desired.listen).await.unwrap_or(Ok(()));
            if listening.is_err() {
                desired.listen = std::mem::take(&mut current.desired.listen);
            }
        }
        if current.desired.peers != desired.peers {
            let _ = current.handle.set_peers(desired.peers.clone()).await;
        }
        if current.desired.originated != desired.originated {
            let _ = current.handle.set_originated(desired.originated.clone()).await;
        }
        if current.desired.dynamic != desired.dynamic {
            let _ = current.handle.set_dynamic_peers(desired.dynamic.clone()).await;
        }
        let named = stations(&desired);
        if stations(&current.desired) != named {
            let _ = current.handle.set_stations(named).await;
        }
        if current.desired != desired {
            current.reconfigured = seconds();
        }
        current.desired = desired;
        self.running = Some(current);
        listening.map_err(SpeakerError::from)
    }

    /// Waits for something new. Cancel-safe; never completes while no speaker runs.
    pub(crate) async fn news(&mut self) -> News {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        loop {
            tokio::select! {
                changed = running.learned.changed() => match changed {
                    Ok(()) => return News::Learned(running.learned.borrow_and_update().clone()),
                    Err(_) => break,
                },
                Ok(()) | Err(RecvError::Lagged(_)) = running.events.recv().map_ok(log) => {
                    running.pace.something_happened(crate::clock::now());
                }
                () = tokio::time::sleep_until(running.pace.due.into()) => {
                    running.pace.tells(crate::clock::now());
                    return News::Status;
                }
            }
        }
        let now = crate::clock::now();
        if running.started + LONG_LIFE <= now {
            self.backoff.reset();
        }
        self.restart = now + self.backoff.pause();
        (self.running, self.has_ended) = (None, true);
        self.handles.send_replace(None);
        News::Ended
    }

    /// Says to which next hops the machine has no way that is the only one to some destination, in a sentence each.
    pub(crate) async fn problems(&self) -> BTreeSet<String> {
        let Some(running) = &self.running else { return BTreeSet::new() };
        let unreached = running.handle.unreached().await.unwrap_or_default();
        unreached.iter().map(|hop| Waiting::Unreachable(*hop).to_string()).collect()
    }

    pub(crate) async fn status(&self) -> Option<BgpStatus> {
        let running = self.running.as_ref()?;
        let peers = running.handle.status().await.ok()?;
        let speaker = &running.desired.speaker;
        Some(BgpStatus {
            as_number: speaker.local_as.get(),
            router_id: speaker.router_id.to_string(),
            reconfigured: running.reconfigured,
            peers: peers.iter().map(shown).collect(),
        })
    }
}

impl Running {
    /// Has next hops judged by where the machine's own routes lead, unless they led there already.
    async fn judge(&mut self, desired: &Plan, host: &Arc<Ways>) {
        let besides = |plan: &Plan| (on_node(plan), plan.gateways.clone());
        let (own, gateways) = besides(desired);
        let is_same = self.host.as_ref().is_some_and(|held| Arc::ptr_eq(held, host));
        if is_same && besides(&self.desired) == (own.clone(), gateways.clone()) {
            return;
        }
        let ways = Ways::clone(host).with(own, gateways);
        let _ = self.handle.set_reachability(Some(Reachability::new(move |hop| way(&ways, hop)))).await;
        self.host = Some(Arc::clone(host));
    }

    async fn start(desired: &Plan, start: Start) -> Result<Self, ListenError> {
        let mut config = desired.speaker.clone();
        config.start = start;
        let handle = spawn(&desired.listen, config)?;
        let events = handle.events();
        // A speaker that has ended already has nothing to tell.
        let learned = handle.learned().await.unwrap_or_else(|Gone| watch::channel(None).1);
        // Both are told even when there are none: a speaker that recovers waits to hear what its node wants.
        let _ = handle.set_originated(desired.originated.clone()).await;
        let _ = handle.set_dynamic_peers(desired.dynamic.clone()).await;
        let _ = handle.set_peers(desired.peers.clone()).await;
        let _ = handle.set_stations(stations(desired)).await;
        let started = crate::clock::now();
        let pace = Pace::begin(started);
        let (reconfigured, desired) = (seconds(), desired.clone());
        Ok(Self { handle, started, reconfigured, desired, host: None, learned, events, pace })
    }
}

fn way(ways: &Ways, hop: IpAddr) -> NextHop {
    match ways.to(hop) {
        None => NextHop::Unreachable,
        Some(Distance::OnLink) => NextHop::ON_LINK,
        Some(Distance::BehindGateway) => NextHop::BEHIND_GATEWAY,
    }
}

/// The destinations on this node, which a next hop may be in that is a workload: its blocks, addresses of workloads outside of
/// them, and the workloads that peer with it.
fn on_node(plan: &Plan) -> BTreeSet<Cidr> {
    let told = plan.originated.iter().filter(|(cidr, how)| how.extent == Extent::Block || cidr.is_host());
    let peers = plan.peers.iter().filter(|peer| kind(&peer.name) == LOCAL_WORKLOAD);
    told.map(|(cidr, _)| *cidr).chain(peers.map(|peer| Cidr::host(peer.address))).collect()
}

/// Returns what kind of peer has a name.
fn kind(name: &str) -> &str {
    name.split('_').next().unwrap_or_default()
}

const LOCAL_WORKLOAD: &str = "Local";

/// The monitoring stations, which know the node by its BGP identifier too.
fn stations(desired: &Plan) -> Vec<Station> {
    let name = format!("calico-node {}", desired.speaker.router_id);
    desired.stations.iter().map(|address| Station { address: *address, name: name.clone() }).collect()
}

fn log(event: calico_bgp::Event) {
    if let calico_bgp::Event::Warning(peer, words) = &event {
        tracing::warn!(%peer, "the BGP peer {words}");
    }
    tracing::debug!(?event, "BGP");
}

fn shown(peer: &PeerStatus) -> ShownPeer {
    let total = |count: &calico_bgp::family::PerFamily<u32>| {
        Family::ALL.iter().map(|family| u64::from(count[*family])).sum()
    };
    let (state, info) = words(peer.state, peer.last_error.as_deref());
    ShownPeer {
        address: peer.address.to_string(),
        peer_type: match kind(&peer.name) {
            "Mesh" => "node-to-node mesh",
            "Node" => "node specific",
            LOCAL_WORKLOAD => "local workload",
            "Dynamic" => "dynamic",
            _ => "global",
        }
        .to_owned(),
        state: state.to_owned(),
        since: seconds().saturating_sub(age(peer.turned).as_secs()),
        info,
        routes_received: total(&peer.prefixes_in),
        routes_sent: total(&peer.prefixes_out),
    }
}

/// Says in BIRD's words how a session is, and in its order why: the state of RFC 4271, then the last failure.
fn words(state: State, last_error: Option<&str>) -> (&'static str, String) {
    let short = match state {
        State::Established => "up",
        State::Idle => "down",
        State::Connect | State::Active | State::OpenSent | State::OpenConfirm => "start",
    };
    let why = last_error.filter(|_| state != State::Established);
    (short, why.map_or_else(|| state.to_string(), |why| format!("{state}: {why}")))
}

fn age(since: Instant) -> Duration {
    crate::clock::now().saturating_duration_since(since)
}

#[cfg(test)]
mod tests {
    use calico_bgp::peers::{Secrets, plan};
    use calico_model::resource::bgp::BmpStation;
    use calico_model::resource::block::StoredBlock;
    use calico_model::resource::{
        BgpConfiguration, BgpPeer, Node, NodeBgp, Object, Resource, WorkloadEndpoint,
    };
    use calico_model::{AsNumber, Snapshot, Update};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_speaker_that_ends_by_itself_is_told_of_and_started_again() {
        let mut snapshot = Snapshot::default();
        let bgp = Some(NodeBgp::at("10.0.0.1/24".parse().unwrap()));
        snapshot.insert(Object::new("node1".parse().unwrap(), Node { bgp, ..Node::default() }));
        let mut desired = plan(&snapshot, &"node1".parse().unwrap(), &Secrets::default()).unwrap();
        desired.listen.clear();
        let mut speaker = Speaker::new(7);
        speaker.apply(Some(desired.clone()), None, Start::Fresh).await.unwrap();
        let mut pauses = Vec::new();
        for _ in 0..3 {
            let handle = speaker.handles().borrow().clone().unwrap();
            handle.shut_down("a fault").await.unwrap();
            let ended = async { while !matches!(speaker.news().await, News::Ended) {} };
            tokio::time::timeout(Duration::from_secs(60), ended).await.expect("its end is noticed");
            assert!(speaker.handles().borrow().is_none() && speaker.status().await.is_none());
            let told = speaker.apply(Some(desired.clone()), None, Start::Fresh).await.unwrap_err();
            assert!(matches!(told, SpeakerError::Ended), "{told}");
            let ended = crate::clock::now();
            while speaker.apply(Some(desired.clone()), None, Start::Fresh).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            pauses.push(age(ended));
            assert!(speaker.status().await.is_some());
        }
        // One that ends again and again is left alone for longer each time: at most 0.5 s, and at least 1 s.
        assert!(pauses[2] > Duration::from_millis(900), "{pauses:?}");
    }

    #[tokio::test]
    async fn a_station_hears_anew_from_a_node_that_has_another_router_id() {
        let station = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut configuration = BgpConfiguration::default();
        let address = station.local_addr().unwrap().to_string().parse().unwrap();
        configuration.bmp_stations = vec![BmpStation { address }];
        let mut snapshot = Snapshot::default();
        let bgp = Some(NodeBgp::at("10.0.0.1/24".parse().unwrap()));
        let node = Node { bgp, ..Node::default() };
        let node = Resource::Node(Object::new("node1".parse().unwrap(), node));
        let configuration =
            Resource::BgpConfiguration(Object::new("default".parse().unwrap(), configuration));
        for resource in [node, configuration] {
            snapshot.apply(Update::Put(Box::new(resource)));
        }
        let mut desired = plan(&snapshot, &"node1".parse().unwrap(), &Secrets::default()).unwrap();
        desired.listen.clear();

        let mut speaker = Speaker::new(7);
        for id in ["10.0.0.1", "10.0.0.2"] {
            desired.speaker.router_id = id.parse().unwrap();
            speaker.apply(Some(desired.clone()), None, Start::Fresh).await.unwrap();
            let (mut feed, _) = tokio::time::timeout(Duration::from_secs(60), station.accept())
                .await
                .expect("a connection for each name")
                .unwrap();
            let mut heard = [0; 512];
            let count = feed.read(&mut heard).await.unwrap();
            let text = String::from_utf8_lossy(&heard[..count]).into_owned();
            assert!(text.contains(&format!("calico-node {id}")), "{text:?}");
        }
    }

    /// A peer that never answers keeps a speaker that recovers waiting, and one on a machine that holds nothing not.
    #[tokio::test]
    async fn only_the_first_speaker_of_a_machine_without_routes_has_nothing_to_recover() {
        let mut snapshot = Snapshot::default();
        for (name, address) in [("node1", "127.0.0.1/8"), ("node2", "127.9.0.2/8")] {
            let bgp = Some(NodeBgp::at(address.parse().unwrap()));
            snapshot.insert(Object::new(name.parse().unwrap(), Node { bgp, ..Node::default() }));
        }
        let mut desired = plan(&snapshot, &"node1".parse().unwrap(), &Secrets::default()).unwrap();
        desired.listen.clear();
        let mut speaker = Speaker::new(7);
        let mut chosen = Vec::new();
        for found in [Start::Fresh, Start::Fresh] {
            speaker.apply(Some(desired.clone()), None, found).await.unwrap();
            chosen.push(has_chosen(&speaker));
            speaker.apply(None, None, found).await.unwrap();
        }
        let mut recovering = Speaker::new(7);
        recovering.apply(Some(desired), None, Start::Recovering).await.unwrap();
        chosen.push(has_chosen(&recovering));
        assert_eq!(chosen, [true, false, false]);
    }

    /// Reports whether a speaker has made a choice.
    fn has_chosen(speaker: &Speaker) -> bool {
        speaker.running.as_ref().unwrap().learned.borrow().is_some()
    }

    /// A workload that peers with its node is there whatever the machine's own routes say; so is what its blocks hold.
    #[test]
    fn workloads_of_the_node_are_reached_without_a_route_of_others() {
        let mut snapshot = Snapshot::default();
        let bgp = Some(NodeBgp::at("10.0.0.1/24".parse().unwrap()));
        snapshot.insert(Object::new("node1".parse().unwrap(), Node { bgp, ..Node::default() }));
        let mut router = WorkloadEndpoint::on("node1".parse().unwrap());
        router.ip_networks = vec!["10.65.0.7/32".parse().unwrap()];
        router.interface_name = Some("cali1".parse().unwrap());
        snapshot.insert(Object::new("router".parse().unwrap(), router));
        let peer = BgpPeer {
            local_workload_selector: Some("all()".parse().unwrap()),
            as_number: AsNumber::new(65001),
            ..BgpPeer::new()
        };
        snapshot.insert(Object::new("workloads".parse().unwrap(), peer));
        let edge = BgpPeer {
            peer_ip: Some("10.99.0.1".parse().unwrap()),
            as_number: AsNumber::new(65001),
            reachable_by: Some("10.66.0.9".parse().unwrap()),
            ..BgpPeer::new()
        };
        snapshot.insert(Object::new("edge".parse().unwrap(), edge));
        let block = StoredBlock::on("10.66.0.0/26".parse().unwrap(), "node1".parse().unwrap());
        snapshot.apply(Update::PutBlock(Box::new(block)));
        let desired = plan(&snapshot, &"node1".parse().unwrap(), &Secrets::default()).unwrap();
        let ways = Ways::default().with(on_node(&desired), desired.gateways.clone());
        for (hop, expected) in [
            ("10.65.0.7", NextHop::ON_LINK),
            ("10.65.0.8", NextHop::Unreachable),
            ("10.66.0.9", NextHop::ON_LINK),
            ("10.99.0.1", NextHop::BEHIND_GATEWAY),
            ("10.99.0.2", NextHop::Unreachable),
        ] {
            assert_eq!(way(&ways, hop.parse().unwrap()), expected, "{hop}");
        }
    }

    #[test]
    fn the_status_is_told_at_once_after_a_time_of_quiet_and_once_a_second_while_things_happen() {
        let begin = crate::clock::now();
        let mut pace = Pace::begin(begin);
        let mut told = Vec::new();
        // Quiet but for one event after 2.9 seconds, and from the fifth to the eighth second an event every 10 ms.
        for ms in (0..10_000).step_by(10) {
            let now = begin + Duration::from_millis(ms);
            if ms == 2_900 || (5_000..8_000).contains(&ms) {
                pace.something_happened(now);
            }
            if pace.due <= now {
                pace.tells(now);
                told.push(ms);
            }
        }
        assert_eq!(told, [0, 2_000, 3_000, 5_000, 6_000, 7_000, 8_000]);
    }

    #[test]
    fn a_session_that_is_not_up_says_how_far_it_is_and_why_it_is_no_further() {
        let refused = Some("connection refused");
        for (state, why, words_of) in [
            (State::Established, refused, ("up", "Established")),
            (State::Active, refused, ("start", "Active: connection refused")),
            (State::Connect, None, ("start", "Connect")),
            (State::Idle, Some("too many prefixes"), ("down", "Idle: too many prefixes")),
        ] {
            let (short, info) = words(state, why);
            assert_eq!((short, info.as_str()), words_of);
        }
    }
}
