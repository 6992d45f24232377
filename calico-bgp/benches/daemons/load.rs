//! The loads: who the neighbours are, what they say, and when it is done.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::daemon::{ASN, Daemon, Export, Neighbour};
use super::generator::{Neighbours, Order, Table, clock};
use super::session::update;

/// What a run cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// CPU seconds of the daemon.
    pub(crate) cpu: f64,
    /// Seconds until the last neighbour had everything: from the first thing said, or of a flapping route the last.
    pub(crate) wall: f64,
    /// Peak resident memory in MB.
    pub(crate) memory: f64,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Every peer tells its part of the routes; one more is told all, and nobody else anything.
    Split { peers: usize, routes: usize },
    /// Every peer tells the same routes; one more is told the best, and nobody else anything.
    Same { peers: usize, routes: usize, order: Order },
    /// A reflector: every client tells a few blocks and is told those of all others.
    Reflector { clients: usize, blocks: usize },
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

/// How long nothing must come until a load counts as done.
const QUIET: Duration = Duration::from_millis(500);
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
            ("reflector", Kind::Reflector { clients: of(2_000), blocks: 4 }),
            ("sessions", Kind::Sessions { count: of(2_000) }),
            ("flap", Kind::Flap { clients: of(2_000), times: of(1_000) }),
        ]
        .map(|(name, kind)| Load { name, kind })
        .to_vec()
    }

    /// Returns the first load and the reflector's in five sizes each, with what grows: the routes of one peer, or the
    /// clients that are told 8,000 routes.
    pub(crate) fn growing(scale: usize) -> [(&'static str, Vec<(f64, Load)>); 2] {
        let sizes = |whole: usize| [5, 25, 50, 75, 100].map(|part| (whole * scale / 100 * part / 100).max(1));
        let one = |routes| (routes as f64, Load { name: "one", kind: Kind::Split { peers: 1, routes } });
        let reflector = |clients| {
            let kind = Kind::Reflector { clients, blocks: (8_000 * scale / 100 / clients).max(1) };
            (clients as f64, Load { name: "reflector", kind })
        };
        [
            ("routes from one peer, passed to one other", sizes(1_000_000).map(one).to_vec()),
            ("clients told 8,000 routes by a reflector", sizes(2_000).map(reflector).to_vec()),
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
            Kind::Reflector { clients, blocks: each } => (inside(clients), blocks, clients * each),
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
            Kind::Reflector { clients, blocks } => (clients - 1) * blocks,
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
                Kind::Reflector { blocks, .. } => {
                    table.announcements(*from, (at * blocks, blocks), Order::Common)
                }
                _ => Vec::new(),
            })
            .collect();

        let mut running = daemon.start(ours, folder, &neighbours)?;
        if let Kind::Sessions { .. } = self.kind {
            let start = clock();
            let _up = Neighbours::establish(&neighbours, table, total, expected).await?;
            let wall = start.elapsed().as_secs_f64();
            return Ok(Figures { cpu: running.cpu()?, wall, memory: running.memory()? });
        }
        let mut generator = Neighbours::establish(&neighbours, table, total, expected).await?;
        // Daemons are busy for a moment after the last session came up.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let idle = running.cpu()?;
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
        Ok(Figures { cpu: running.cpu()? - idle, wall, memory: running.memory()? })
    }
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
            Kind::Reflector { clients, blocks } => {
                write!(f, "a reflector with {clients} clients of {blocks} blocks, all told everything")
            }
            Kind::Sessions { count } => write!(f, "{count} sessions from cold to Established"),
            Kind::Flap { clients, times } => {
                write!(f, "one route flapping {times} times, reflected to {clients} clients")
            }
        }
    }
}
