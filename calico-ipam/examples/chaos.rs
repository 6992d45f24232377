//! Chaos: processes that share one SQLite file, each killed with SIGKILL now and then, their clocks apart by up to an hour.
//!
//! `DURATION=120 SEED=7 PROCESSES=8 cargo run -p calico-ipam --example chaos`
//!
//! Every process writes what it holds into one journal: `+ HANDLE ADDR` after an assignment, `- HANDLE` before a release.
//! At the end the journal is replayed: no address may be held twice, and after a reclaim the store must hold exactly what
//! the journal says, with every handle counting what the blocks hold. The exit status says whether it does.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use calico_ipam::{AutoAssign, Emptiness, Finding, Held, Ipam, Liveness, Release};
use calico_model::datastore::sqlite::SqliteStore;
use calico_model::datastore::{Datastore, Precondition, Write};
use calico_model::resource::{Document, IpPool, Object, Resource};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let setting = |name: &str, default: u64| -> Result<u64, Failure> {
        std::env::var(name).map_or(Ok(default), |text| Ok(text.parse()?))
    };
    let seed = setting("SEED", u64::from(std::process::id()))?;
    match std::env::var_os("CHAOS_DIR") {
        Some(dir) => runtime.block_on(work(Path::new(&dir), seed)),
        None => {
            let dir = std::env::temp_dir().join(format!("calico-chaos-{}", std::process::id()));
            std::fs::create_dir_all(&dir)?;
            let duration = Duration::from_secs(setting("DURATION", 120)?);
            println!("seed {seed}, {} s, in {}", duration.as_secs(), dir.display());
            let kills = torment(&runtime, &dir, seed, duration, setting("PROCESSES", 8)?)?;
            let verdict = runtime.block_on(judge(&dir, kills));
            if verdict.is_ok() {
                std::fs::remove_dir_all(&dir)?;
            }
            verdict
        }
    }
}

/// Numbers that follow from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

fn store(dir: &Path) -> Result<Arc<SqliteStore>, Failure> {
    Ok(Arc::new(SqliteStore::open(dir.join("calico.db"))?))
}

fn journal(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// Keeps the processes running, and kills one of them every tenth of a second or so. Returns how many it killed.
#[expect(clippy::disallowed_methods, reason = "a driver reads the clock")]
fn torment(
    runtime: &tokio::runtime::Runtime,
    dir: &Path,
    seed: u64,
    duration: Duration,
    processes: u64,
) -> Result<u64, Failure> {
    let spec = IpPool { block_size: 29, ..IpPool::new("10.0.0.0/24".parse()?) };
    let pool: Resource = Object::new("p".parse()?, spec).into();
    let value = Document::from(&pool).stored_form();
    let write = Write::put(pool.key().datastore_key(), value, Precondition::Any);
    let store = store(dir)?;
    runtime.block_on(store.commit(vec![write]))?;
    let mut dice = Dice(seed);
    let spawn = |number: u64| -> Result<Child, Failure> {
        let worker = Command::new(std::env::current_exe()?)
            .env("CHAOS_DIR", dir)
            .env("SEED", seed.wrapping_add(number).to_string())
            .spawn()?;
        Ok(worker)
    };
    let mut workers: Vec<Child> = (1..=processes).map(spawn).collect::<Result<_, _>>()?;
    let (mut kills, start) = (0, Instant::now());
    while start.elapsed() < duration {
        std::thread::sleep(Duration::from_millis(20 + dice.below(160)));
        let index = usize::try_from(dice.below(processes))?;
        workers[index].kill()?;
        workers[index].wait()?;
        kills += 1;
        workers[index] = spawn(processes + kills)?;
    }
    for worker in &mut workers {
        worker.kill()?;
        worker.wait()?;
    }
    Ok(kills)
}

/// One process: random operations until it is killed.
#[expect(clippy::disallowed_methods, reason = "a driver reads the clock")]
async fn work(dir: &Path, seed: u64) -> Result<(), Failure> {
    let ipam = Ipam::new(store(dir)?);
    let mut journal = OpenOptions::new().append(true).create(true).open(journal(dir))?;
    let mut dice = Dice(seed);
    let ahead = Duration::from_secs(dice.below(7200));
    let mut held: Vec<(String, Vec<Release>)> = Vec::new();
    for round in 0u64.. {
        let now = SystemTime::now() + ahead - Duration::from_secs(3600);
        let node = format!("n{}", dice.below(6));
        match dice.below(100) {
            0..50 => {
                let handle = format!("h{}-{round}", std::process::id());
                let mut request = AutoAssign::new(node.parse()?, handle.clone());
                request.count.v4 = usize::try_from(1 + dice.below(3))?;
                if let Ok(got) = ipam.auto_assign(request, now).await {
                    let addrs: Vec<Release> = got
                        .v4
                        .iter()
                        .map(|allocation| Release {
                            addr: allocation.addr,
                            handle: Some(handle.clone()),
                            sequence: Some(allocation.sequence),
                        })
                        .collect();
                    let shown: Vec<String> = addrs.iter().map(|release| release.addr.to_string()).collect();
                    note(&mut journal, &format!("+ {handle} {}", shown.join(" ")))?;
                    held.push((handle, addrs));
                }
            }
            50..96 if !held.is_empty() => {
                let index = usize::try_from(dice.below(held.len() as u64))?;
                let (handle, addrs) = held.swap_remove(index);
                note(&mut journal, &format!("- {handle}"))?;
                if dice.below(2) == 0 {
                    let _ = ipam.release(&addrs, now).await;
                } else {
                    let _ = ipam.release_by_handle(&handle, now).await;
                }
            }
            96..98 => {
                let _ = ipam.release_host_affinities(&node.parse()?, Emptiness::Required, now).await;
            }
            98 => {
                let _ = ipam.remove_host(&node.parse()?, now).await;
            }
            _ => {
                let _ = ipam.ensure_block(&node.parse()?, calico_model::Family::V4, &[], now).await;
            }
        }
    }
    Ok(())
}

/// Writes one line at once: lines of several processes never mix, and their order is that of the writes.
fn note(journal: &mut File, line: &str) -> std::io::Result<()> {
    journal.write_all(format!("{line}\n").as_bytes())
}

/// Replays the journal, reclaims what nobody knows of, and compares.
#[expect(clippy::disallowed_methods, reason = "a driver reads the clock")]
async fn judge(dir: &Path, kills: u64) -> Result<(), Failure> {
    let mut holders: BTreeMap<IpAddr, String> = BTreeMap::new();
    let mut handles: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let (mut operations, mut doubles) = (0u64, 0u64);
    for line in std::fs::read_to_string(journal(dir))?.lines() {
        operations += 1;
        let mut words = line.split(' ');
        let (sign, handle) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if sign == "-" {
            for addr in handles.remove(handle).unwrap_or_default() {
                holders.remove(&addr);
            }
            continue;
        }
        let addrs = words.map(str::parse).collect::<Result<Vec<IpAddr>, _>>()?;
        for addr in &addrs {
            if let Some(other) = holders.insert(*addr, handle.to_owned()) {
                println!("DOUBLE: {addr} of {other} was assigned to {handle}");
                doubles += 1;
            }
        }
        handles.insert(handle.to_owned(), addrs);
    }
    let ipam = Ipam::new(store(dir)?);
    let alive = |held: &Held| match &held.handle {
        Some(handle) if handles.contains_key(handle) => Liveness::Alive,
        Some(_) | None => Liveness::Gone,
    };
    let check = ipam.check_with(&alive, SystemTime::now()).await?;
    let found: Vec<Finding> = check.findings.into_iter().collect();
    let mended = ipam.reclaim_with(&found, &alive, SystemTime::now()).await?.mended.len();
    let after = ipam.check_with(&alive, SystemTime::now()).await?;
    let lost = holders.iter().filter(|(addr, handle)| {
        !after.held.iter().any(|held| held.addr == **addr && held.handle.as_ref() == Some(handle))
    });
    let lost = lost.count();
    let leaked = after.held.len() + lost - holders.len();
    println!(
        "{operations} operations, {kills} kills, {mended} things mended: {doubles} addresses held twice, {lost} lost, \
         {leaked} leaked, {} findings left",
        after.findings.len()
    );
    if doubles + u64::try_from(lost + leaked + after.findings.len())? > 0 {
        return Err(format!("the store does not agree with the journal: look into {}", dir.display()).into());
    }
    Ok(())
}
