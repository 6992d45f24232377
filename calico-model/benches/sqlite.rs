//! What the SQLite store costs beside SQLite itself, and how soon another process learns of a commit.
//!
//! `cargo bench -p calico-model --features sqlite --bench sqlite` prints one line per figure, the median of several runs. Limits: a listing at
//! most 1.5 times the plain read, a watcher's median at most 5 ms, an idle watcher no measurable CPU.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use calico_model::datastore::{Key, Precondition, Prefix, WatchEvent, Write};
use calico_model::{Datastore, Revision, SqliteStore};
use rusqlite::{Connection, TransactionBehavior, params};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Makes this program the watcher of the store whose path it holds.
const WATCH: &str = "CALICO_BENCH_WATCH";

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(path) = std::env::var_os(WATCH) {
        return runtime.block_on(watch(path.into()));
    }
    let directory = std::env::temp_dir().join(format!("calico-bench-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let outcome = runtime.block_on(async {
        list(&directory).await?;
        commit(&directory).await?;
        open(&directory).await?;
        latency(&directory).await
    });
    fs::remove_dir_all(&directory)?;
    outcome
}

fn key(n: usize) -> Outcome<Key> {
    Ok(format!("/calico/resources/v3/projectcalico.org/workloadendpoints/default/node-k8s-pod--{n:06}-eth0")
        .parse()?)
}

/// Lists 100,000 keys of 400 bytes, and reads the same rows with plain SQLite.
async fn list(directory: &Path) -> Outcome<()> {
    const KEYS: usize = 100_000;
    let path = directory.join("list.db");
    let store = SqliteStore::open(&path)?;
    for start in (0..KEYS).step_by(100) {
        let some = (start..start + 100)
            .map(|n| Ok(Write::put(key(n)?, vec![b'v'; 400], Precondition::Any)))
            .collect::<Outcome<_>>()?;
        store.commit(some).await?;
    }
    let mut plain = Connection::open(&path)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        let start = Instant::now();
        let listing = store.list(&Prefix::new("/calico")?).await?;
        ours.push(start.elapsed());
        assert_eq!(listing.entries.len(), KEYS);
        drop(listing);
        // On another thread as well: memory costs more there, whoever uses it.
        let start = Instant::now();
        let rows = std::thread::scope(|scope| scope.spawn(|| read_plainly(&mut plain)).join());
        theirs.push(start.elapsed());
        assert_eq!(rows.map_err(|_| "reading panicked")??.len(), KEYS);
    }
    let ratio = ratio(&ours, &theirs);
    println!("list of {KEYS} keys: {:?}, plain {:?}, ratio {ratio:.2}", median(ours), median(theirs));
    Ok(())
}

fn read_plainly(connection: &mut Connection) -> rusqlite::Result<Vec<(String, i64, Vec<u8>)>> {
    let mut statement = connection.prepare_cached("SELECT key, revision, value FROM entries ORDER BY key")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

/// Compare-and-swaps one key, and does what that takes with plain SQLite, in turns.
async fn commit(directory: &Path) -> Outcome<()> {
    const ROUNDS: usize = 20;
    const COMMITS: i64 = 100;
    let store = SqliteStore::open(directory.join("commit.db"))?;
    let mut plain = Connection::open(directory.join("plain.db"))?;
    plain.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE entries (key TEXT PRIMARY KEY, revision INTEGER, value BLOB) WITHOUT ROWID;
         CREATE TABLE log (revision INTEGER PRIMARY KEY, key TEXT, value BLOB);",
    )?;
    let (name, value) = (key(0)?, vec![b'v'; 400]);
    let mut precondition = Precondition::Absent;
    let mut revision = 0;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..COMMITS {
            let write = Write::put(name.clone(), value.clone(), precondition);
            precondition = Precondition::At(store.commit(vec![write]).await?);
        }
        ours.push(start.elapsed());
        let start = Instant::now();
        for _ in 0..COMMITS {
            compare_and_swap(&mut plain, name.as_str(), &value, revision)?;
            revision += 1;
        }
        theirs.push(start.elapsed());
    }
    let (ratio, rate) = (ratio(&ours, &theirs), |times| COMMITS as f64 / median(times).as_secs_f64());
    println!("commits: {:.0}/s, plain {:.0}/s, ratio {ratio:.2}", rate(ours), rate(theirs));
    Ok(())
}

fn compare_and_swap(plain: &mut Connection, name: &str, value: &[u8], revision: i64) -> Outcome<()> {
    let transaction = plain.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = transaction
        .prepare_cached("SELECT revision FROM entries WHERE key = ?1")?
        .query_map([name], |row| row.get::<_, i64>(0))?
        .next()
        .transpose()?;
    assert_eq!(found.unwrap_or(0), revision);
    transaction.prepare_cached("INSERT OR REPLACE INTO entries VALUES (?1, ?2, ?3)")?.execute(params![
        name,
        revision + 1,
        value
    ])?;
    transaction.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3)")?.execute(params![
        revision + 1,
        name,
        value
    ])?;
    Ok(transaction.commit()?)
}

/// Opens, commits once and closes, as one call of a CNI plugin does.
async fn open(directory: &Path) -> Outcome<()> {
    let path = directory.join("open.db");
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        let store = SqliteStore::open(&path)?;
        store.commit(vec![Write::put(key(0)?, vec![b'v'; 400], Precondition::Any)]).await?;
        drop(store);
        times.push(start.elapsed());
    }
    println!("open, commit, close: {:?}", median(times));
    Ok(())
}

/// Commits while another process watches, which tells when it learnt of each commit and what waiting cost it.
async fn latency(directory: &Path) -> Outcome<()> {
    let path = directory.join("watch.db");
    let store = SqliteStore::open(&path)?;
    let mut child =
        Command::new(std::env::current_exe()?).env(WATCH, &path).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("the output is piped")?).lines();
    let mut line = || -> Outcome<u64> { Ok(lines.next().ok_or("the watcher ended")??.parse()?) };
    let busy_before = line()?;
    let idle = Duration::from_secs(10);
    std::thread::sleep(idle);
    let mut latencies = Vec::new();
    let mut busy = Duration::ZERO;
    for n in 0..200 {
        std::thread::sleep(Duration::from_millis(10));
        store.commit(vec![Write::put(key(n)?, vec![b'v'; 400], Precondition::Any)]).await?;
        let committed = since_epoch()?;
        let learnt = Duration::from_nanos(line()?);
        latencies.push(learnt.saturating_sub(committed));
        let busy_now = line()?;
        if n == 0 {
            busy = Duration::from_nanos(busy_now - busy_before);
        }
    }
    child.kill()?;
    child.wait()?;
    latencies.sort();
    println!(
        "watcher in another process: median {:?}, p99 {:?}; idle it used {busy:?} of CPU in {idle:?}",
        latencies[latencies.len() / 2],
        latencies[latencies.len() * 99 / 100]
    );
    Ok(())
}

async fn watch(path: PathBuf) -> Outcome<()> {
    let store = SqliteStore::open(path)?;
    let mut watch = store.watch(&Prefix::new("/")?, Revision(0)).await?;
    loop {
        match watch.next().await? {
            WatchEvent::InSync(_) => println!("{}", cpu_time()?),
            WatchEvent::Put(_) => println!("{}\n{}", since_epoch()?.as_nanos(), cpu_time()?),
            WatchEvent::Deleted { .. } => {}
        }
    }
}

fn since_epoch() -> Outcome<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// Returns the nanoseconds of CPU that all threads of this process have used.
fn cpu_time() -> Outcome<u64> {
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().ok_or("schedstat is empty")?.parse::<u64>()?;
    }
    Ok(total)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The median of the ratios of what was measured in turns: others on the machine slow both down.
fn ratio(ours: &[Duration], theirs: &[Duration]) -> f64 {
    let mut ratios: Vec<f64> =
        ours.iter().zip(theirs).map(|(ours, theirs)| ours.as_secs_f64() / theirs.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}
