//! The loads: who the neighbours are, what they say, and when it is done.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::daemon::{ASN, Cpu, Daemon, Export, Neighbour, Running};
use super::generator::{Neighbours, Order, Table, clock};
use super::session::update;

/// What a run cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// CPU seconds of the daemon, and how many of them were the kernel's.
    pub(crate) cpu: f64,
    pub(crate) system: f64,
    /// Seconds until the last neighbour had everything: from the first thing said, or of a flapping route the last.
    pub(crate) wall: f64,
    /// Peak resident memory in MB.
    pub(crate) memory: f64,
    /// How many MB of routes all neighbours were told.
    pub(crate) told: f64,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Every peer tells its part of the routes; one more is told all, and nobody else anything.
    Split { peers: usize, routes: usize },
    /// Every peer tells the same routes; one more is told the best, and nobody else anything.
    Same { peers: usize, routes: usize, order: Order },
    /// A reflector: so many clients tell a few blocks each, and every one is told those of all others.
    Reflector { clients: usize, tellers: usize, blocks: usize },
    /// Sessions that come up.
    Sessions { count: usize },
    /// A reflector, and one route that comes and goes.
    Flap { clients: usize, times: usize },
}

#[derive(Debug, Clone)]
pub(crate) struct Load {
    name: &'static str,
    kind: Kind,
}

/// A load that grows.
pub(crate) struct Growing {
    /// What it grows in.
    pub(crate) across: &'static str,
    /// Its sizes, each with how large it is in that; `None` where that is the MB that were told.
    pub(crate) loads: Vec<(Option<f64>, Load)>,
}

/// How long nothing must come until a load counts as done.
const QUIET: Duration = Duration::from_millis(500);
/// How many sessions are brought up at once: as many as a node's restart would bring, not all.
const AT_ONCE: usize = 200;
/// And with BIRD, where that is not what is measured: its queue of connections holds so many. Those behind it are lost,
/// which the neighbour's kernel finds out by sending again, each time after twice as long, for minutes.
const AT_ONCE_WITH_BIRD: usize = 8;
/// How long nobody connects to FRR, where that is not what is measured. It begins each peer one to three seconds after it has
/// read its configuration, a passive one too, by failing to connect. Where the peer's own connection comes up at that
/// moment, it takes the failure for this one's and closes the session (`TCP_connection_open_failed (Established->Clearing)`
/// in its log): one of 2,000, in some runs.
const FRR_BEGINS: Duration = Duration::from_secs(10);
/// The time between two flaps.
const PACE: Duration = Duration::from_millis(5);

impl Load {
    /// Returns all loads, at a percentage of their size.
    pub(crate) fn all(scale: usize) -> Vec<Load> {
        let of = |whole: usize| (whole * scale / 100).max(1);
        [
            ("one", Kind::Split { peers: 1, routes: of(1_000_000) }),
            ("split", Kind::Split { peers: 50, routes: of(500_000) }),
            ("same", Kind::Same { peers: 50, routes: of(100_000), order: Order::Common }),
            ("scattered", Kind::Same { peers: 50, routes: of(100_000), order: Order::Own }),
            ("reflector", Kind::Reflector { clients: of(2_000), tellers: of(2_000), blocks: 4 }),
            ("sessions", Kind::Sessions { count: of(2_000) }),
            ("flap", Kind::Flap { clients: of(2_000), times: of(1_000) }),
        ]
        .map(|(name, kind)| Load { name, kind })
        .to_vec()
    }

    /// Returns loads in five sizes each: of routes of one peer; of clients that are told 8,000 routes of a hundred of them;
    /// and of clients that tell their own and are told all. Of the last, what grows is what is told, with the square of
    /// their number: each next hop takes a message, and each client is sent it.
    pub(crate) fn growing(scale: usize) -> [Growing; 3] {
        let sizes = |whole: usize| [5, 25, 50, 75, 100].map(|part| (whole * scale / 100 * part / 100).max(1));
        let one = |routes| Load { name: "one", kind: Kind::Split { peers: 1, routes } };
        let reflector = |clients, tellers, blocks| Load {
            name: "reflector",
            kind: Kind::Reflector { clients, tellers, blocks },
        };
        let few = |clients: usize| {
            let tellers = clients.min(100);
            reflector(clients, tellers, (8_000 * scale / 100 / tellers).max(1))
        };
        let by_size = |of: &dyn Fn(usize) -> Load, whole: usize| {
            sizes(whole).map(|size| (Some(size as f64), of(size))).to_vec()
        };
        [
            Growing { across: "routes from one peer, passed to one other", loads: by_size(&one, 1_000_000) },
            Growing {
                across: "clients told 8,000 routes of a hundred of them by a reflector",
                loads: by_size(&few, 2_000),
            },
            Growing {
                across: "MB sent by a reflector to up to 2,000 clients of four routes",
                loads: sizes(2_000).map(|clients| (None, reflector(clients, clients, 4))).to_vec(),
            },
        ]
    }

    pub(crate) fn name(&self) -> &str {
        self.name
    }

    pub(crate) fn run(&self, daemon: Daemon, ours: &Path, folder: &Path) -> Result<Figures> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.measure(daemon, ours, folder))
    }

    async fn measure(&self, daemon: Daemon, ours: &Path, folder: &Path) -> Result<Figures> {
        let internet = Table { prefix_len: 24, per_set: 12 };
        let blocks = Table { prefix_len: 26, per_set: 4 };
        let (neighbours, table, total) = match self.kind {
            Kind::Split { peers, routes } | Kind::Same { peers, routes, .. } => {
                (outside(peers + 1), internet, routes)
            }
            Kind::Reflector { clients, tellers, blocks: each } => (inside(clients), blocks, tellers * each),
            Kind::Sessions { count } => (inside(count), blocks, 0),
            Kind::Flap { clients, .. } => (inside(clients), blocks, 2),
        };
        let sink = neighbours.len() - 1;
        let expected = |at: usize| match self.kind {
            Kind::Split { routes, .. } | Kind::Same { routes, .. } => {
                if at == sink {
                    routes
                } else {
                    0
                }
            }
            Kind::Reflector { tellers, blocks, .. } => {
                let others = if at < tellers { tellers - 1 } else { tellers };
                others * blocks
            }
            Kind::Sessions { .. } => 0,
            Kind::Flap { .. } => {
                if at == 0 {
                    0
                } else {
                    2
                }
            }
        };
        // What is sent is made before the clock starts.
        let said: Vec<Vec<u8>> = neighbours
            .iter()
            .enumerate()
            .map(|(at, from)| match self.kind {
                Kind::Split { peers, routes } if at < peers => {
                    let (first, after) = (routes * at / peers, routes * (at + 1) / peers);
                    table.announcements(*from, (first, after - first), Order::Common)
                }
                Kind::Same { peers, routes, order } if at < peers => {
                    table.announcements(*from, (0, routes), order)
                }
                Kind::Reflector { tellers, blocks, .. } if at < tellers => {
                    table.announcements(*from, (at * blocks, blocks), Order::Common)
                }
                _ => Vec::new(),
            })
            .collect();

        let mut running = daemon.start(ours, folder, &neighbours)?;
        if let Kind::Sessions { .. } = self.kind {
            let start = clock();
            let _up = Neighbours::establish(&neighbours, AT_ONCE, table, total, expected).await?;
            let wall = start.elapsed().as_secs_f64();
            return figures(&mut running, Cpu { all: 0.0, system: 0.0 }, wall, 0);
        }
        if daemon == Daemon::Frr {
            tokio::time::sleep(FRR_BEGINS).await;
        }
        let at_once = if daemon == Daemon::Bird { AT_ONCE_WITH_BIRD } else { AT_ONCE };
        let mut generator = Neighbours::establish(&neighbours, at_once, table, total, expected).await?;
        let idle = idle(&mut running).await?;
        let start = match self.kind {
            // The flaps have a pace, so what counts is how soon after the last one everybody knows how it ended.
            Kind::Flap { times, .. } => {
                flap(&generator, &neighbours, table, times).await?;
                clock()
            }
            _ => {
                let start = clock();
                generator.send(said).await?;
                start
            }
        };
        let end = generator.settled(QUIET).await?;
        let wall = end.saturating_duration_since(start).as_secs_f64();
        figures(&mut running, idle, wall, generator.told())
    }
}

/// Waits until a daemon has nothing to do, a minute at most: some are busy long after the last session came up.
async fn idle(running: &mut Running) -> Result<Cpu> {
    let mut before = running.cpu()?;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = running.cpu()?;
        if now.all - before.all < 0.02 {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

fn figures(running: &mut Running, before: Cpu, wall: f64, told: usize) -> Result<Figures> {
    let cpu = running.cpu()?;
    let (all, system) = (cpu.all - before.all, cpu.system - before.system);
    Ok(Figures { cpu: all, system, wall, memory: running.memory()?, told: told as f64 / 1e6 })
}

/// One route comes and goes; a second one, told last, marks the end.
async fn flap(generator: &Neighbours, neighbours: &[Neighbour], table: Table, times: usize) -> Result<()> {
    let come = table.announcements(neighbours[0], (0, 1), Order::Common);
    let go = update(&table.nlri(0), &[], &[]);
    for _ in 0..times {
        generator.send_from(0, &come).await?;
        tokio::time::sleep(PACE).await;
        generator.send_from(0, &go).await?;
        tokio::time::sleep(PACE).await;
    }
    generator.send_from(0, &come).await?;
    generator.send_from(0, &table.announcements(neighbours[0], (1, 1), Order::Common)).await
}

/// Neighbours of ASes of their own, of which only the last is told anything.
fn outside(count: usize) -> Vec<Neighbour> {
    let neighbour = |(address, at)| Neighbour {
        address,
        asn: ASN - 10_000 + at as u32,
        export: if at == count { Export::All } else { Export::None },
    };
    numbered(1, count).zip(1..).map(neighbour).collect()
}

/// Neighbours of the daemon's AS.
fn inside(count: usize) -> Vec<Neighbour> {
    numbered(2, count).map(|address| Neighbour { address, asn: ASN, export: Export::All }).collect()
}

fn numbered(net: u8, count: usize) -> impl Iterator<Item = Ipv4Addr> {
    (0..count).map(move |at| Ipv4Addr::new(10, net, (at / 250) as u8, (at % 250) as u8 + 1))
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match self.kind {
            Kind::Split { peers: 1, routes } => {
                write!(f, "{routes} routes from one peer, passed to one other")
            }
            Kind::Split { peers, routes } => write!(f, "{routes} routes split over {peers} peers"),
            Kind::Same { peers, routes, order: Order::Common } => {
                write!(f, "the same {routes} routes from {peers} peers")
            }
            Kind::Same { peers, routes, order: Order::Own } => {
                write!(f, "the same {routes} routes from {peers} peers, each in an order of its own")
            }
            Kind::Reflector { clients, tellers, blocks } if clients == tellers => {
                write!(f, "a reflector with {clients} clients of {blocks} blocks, all told everything")
            }
            Kind::Reflector { clients, tellers, blocks } => {
                write!(
                    f,
                    "a reflector with {clients} clients, {tellers} of them of {blocks} blocks, all told everything"
                )
            }
            Kind::Sessions { count } => write!(f, "{count} sessions from cold to Established"),
            Kind::Flap { clients, times } => {
                write!(f, "one route flapping {times} times, reflected to {clients} clients")
            }
        }
    }
}
