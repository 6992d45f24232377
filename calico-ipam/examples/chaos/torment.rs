//! One store's turn: clients and leaders are killed and come back while everything is counted.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{PipeWriter, Read as _, pipe};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use calico_model::datastore::etcd::local::LocalCluster;

use crate::Failure;
use crate::client::{Client, Outcome};
use crate::collector::Collector;
use crate::dice::Dice;
use crate::stores::{self, Kind};

/// How often etcd's leader is killed.
const LEADER_LIVES: Duration = Duration::from_secs(10);

/// How long a killed leader stays dead.
const LEADER_STAYS_DEAD: Duration = Duration::from_secs(2);

/// When nothing was done for so long, something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one store has to go through.
pub(crate) struct Phase {
    pub(crate) kind: Kind,
    pub(crate) clients: u64,
    pub(crate) seed: u64,
    pub(crate) operations: u64,
    pub(crate) duration: Option<Duration>,
}

/// Carries out one phase, says what came of it, and fails when something was not as it must be.
pub(crate) async fn torment(phase: &Phase) -> Result<(), Failure> {
    let name = format!("calico-chaos-{}-{:?}", std::process::id(), phase.kind).to_lowercase();
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(directory.join("ledger"))?;
    let mut servers = stores::servers(phase.kind).await?;
    let place = match &servers {
        Some(cluster) => cluster.urls().join(","),
        None => directory.join("calico.db").display().to_string(),
    };
    println!("{:?}: {} clients, in {}", phase.kind, phase.clients, directory.display());
    let store = stores::open(&place)?;
    stores::furnish(&*store).await?;
    let collector = Collector::new(store, directory.clone(), phase.clients);
    let run = Run::new(phase, directory.clone(), place)?;
    tokio::try_join!(
        run.kill_clients(),
        run.kill_leaders(servers.as_mut()),
        run.collect_garbage(&collector),
        run.report()
    )?;
    run.end()?;
    let found = run.patiently(&collector).await?;
    run.add(&found);
    println!("{}", run.summary());
    println!(
        "  at the end {} addresses are held, {} things were reclaimed, {} are not as they must be",
        found.held,
        found.reclaimed,
        found.violations.len()
    );
    if run.violations.get() + run.tally.of(Outcome::Violation) > 0 {
        return Err(format!("seed {}: look into {}", phase.seed, directory.display()).into());
    }
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

/// How often each outcome came.
#[derive(Default)]
struct Tally(BTreeMap<u8, AtomicU64>);

impl Tally {
    fn new() -> Self {
        Self(Outcome::ALL.iter().map(|outcome| (outcome.byte(), AtomicU64::new(0))).collect())
    }

    fn of(&self, outcome: Outcome) -> u64 {
        self.0.get(&outcome.byte()).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn total(&self) -> u64 {
        self.0.values().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

struct Run<'a> {
    phase: &'a Phase,
    directory: PathBuf,
    place: String,
    start: Instant,
    tally: Arc<Tally>,
    outcomes: PipeWriter,
    clients: Cell<Vec<Child>>,
    kills: Cell<u64>,
    leaders: Cell<u64>,
    reclaimed: Cell<usize>,
    looks: Cell<u64>,
    violations: Cell<u64>,
}

impl<'a> Run<'a> {
    #[expect(clippy::disallowed_methods, reason = "a driver reads the clock")]
    fn new(phase: &'a Phase, directory: PathBuf, place: String) -> Result<Self, Failure> {
        let (mut reader, outcomes) = pipe()?;
        let tally = Arc::new(Tally::new());
        let counted = tally.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                for byte in &buffer[..read] {
                    if let Some(count) = counted.0.get(byte) {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        let run = Self {
            phase,
            directory,
            place,
            start: Instant::now(),
            tally,
            outcomes,
            clients: Cell::default(),
            kills: Cell::default(),
            leaders: Cell::default(),
            reclaimed: Cell::default(),
            looks: Cell::default(),
            violations: Cell::default(),
        };
        let clients = (0..phase.clients).map(|slot| run.spawn(slot, 0)).collect::<Result<_, _>>()?;
        run.clients.set(clients);
        Ok(run)
    }

    fn spawn(&self, slot: u64, incarnation: u64) -> Result<Child, Failure> {
        let (directory, place) = (self.directory.clone(), self.place.clone());
        let client = Client { directory, place, seed: self.phase.seed, slot, incarnation };
        Ok(Command::new(std::env::current_exe()?)
            .envs(client.environment())
            .stdin(Stdio::null())
            .stdout(self.outcomes.try_clone()?)
            .spawn()?)
    }

    fn is_over(&self) -> bool {
        self.tally.total() >= self.phase.operations
            || self.phase.duration.is_some_and(|duration| self.start.elapsed() >= duration)
            || self.violations.get() + self.tally.of(Outcome::Violation) > 0
    }

    /// Kills a client every tenth of a second or so, and starts its successor.
    async fn kill_clients(&self) -> Result<(), Failure> {
        let mut dice = Dice::for_use(self.phase.seed, 5);
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(20 + dice.below(260))).await;
            let slot = dice.below(self.phase.clients);
            let kills = self.kills.get() + 1;
            self.kills.set(kills);
            let mut clients = self.clients.take();
            let client = &mut clients[usize::try_from(slot)?];
            let ended = client.try_wait()?;
            client.kill()?;
            client.wait()?;
            *client = self.spawn(slot, kills)?;
            self.clients.set(clients);
            if let Some(status) = ended {
                return Err(format!("client {slot} ended by itself: {status}").into());
            }
        }
        Ok(())
    }

    async fn kill_leaders(&self, servers: Option<&mut LocalCluster>) -> Result<(), Failure> {
        let Some(servers) = servers else { return Ok(()) };
        while !self.is_over() {
            self.rest(LEADER_LIVES - LEADER_STAYS_DEAD).await;
            // Between two leaders there is none to kill.
            if let Some(leader) = servers.leader().await {
                servers.kill(leader)?;
                self.leaders.set(self.leaders.get() + 1);
                tokio::time::sleep(LEADER_STAYS_DEAD).await;
                servers.revive(leader)?;
            }
        }
        Ok(())
    }

    async fn collect_garbage(&self, collector: &Collector) -> Result<(), Failure> {
        while !self.is_over() {
            self.rest(Duration::from_secs(2)).await;
            // Without a leader a look fails now and then.
            if let Ok(found) = collector.collect().await {
                self.looks.set(self.looks.get() + 1);
                self.add(&found);
            }
        }
        Ok(())
    }

    /// Says every ten seconds how far it has come, and fails when it comes no further.
    async fn report(&self) -> Result<(), Failure> {
        let (mut total, mut stuck) = (0, Duration::ZERO);
        while !self.is_over() {
            let pause = Duration::from_secs(10);
            self.rest(pause).await;
            stuck = if self.tally.total() == total { stuck + pause } else { Duration::ZERO };
            if stuck >= PATIENCE {
                return Err(format!("nothing was done for {} s", stuck.as_secs()).into());
            }
            total = self.tally.total();
            println!("{}", self.summary());
        }
        Ok(())
    }

    /// Sleeps, but not beyond the end.
    async fn rest(&self, pause: Duration) {
        let begun = self.start.elapsed();
        while !self.is_over() && self.start.elapsed() - begun < pause {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn add(&self, found: &crate::collector::Found) {
        for violation in &found.violations {
            eprintln!("VIOLATION: {violation}");
        }
        self.violations.set(self.violations.get() + found.violations.len() as u64);
        self.reclaimed.set(self.reclaimed.get() + found.reclaimed);
    }

    /// Kills all clients for good.
    fn end(&self) -> Result<(), Failure> {
        for mut client in self.clients.take() {
            client.kill()?;
            client.wait()?;
        }
        Ok(())
    }

    /// Judges; a cluster whose leader was just killed gets the time to choose another.
    async fn patiently(&self, collector: &Collector) -> Result<crate::collector::Found, Failure> {
        let begun = self.start.elapsed();
        loop {
            match collector.judge().await {
                Err(_) if self.start.elapsed() - begun < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                result => return result,
            }
        }
    }

    fn summary(&self) -> String {
        let (seconds, total) = (self.start.elapsed().as_secs_f64(), self.tally.total());
        let of = |outcome| self.tally.of(outcome);
        format!(
            "  {seconds:.0} s, {total} operations ({:.0}/s): {} assigned, {} refused, {} released, {} released unnoticed \
             before, {} others, {} contended, {} unanswered; {} clients and {} leaders killed, {} looks, {} leaks \
             reclaimed, {} violations",
            total as f64 / seconds,
            of(Outcome::Assigned),
            of(Outcome::Refused),
            of(Outcome::Released),
            of(Outcome::Late),
            of(Outcome::Done),
            of(Outcome::Contended),
            of(Outcome::Unavailable),
            self.kills.get(),
            self.leaders.get(),
            self.looks.get(),
            self.reclaimed.get(),
            self.violations.get() + of(Outcome::Violation),
        )
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        for mut client in self.clients.take() {
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}
