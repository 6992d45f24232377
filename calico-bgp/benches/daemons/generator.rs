//! The neighbours: their sessions, what they send, and whether everybody has got everything.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::daemon::Neighbour;
use super::session::{self, Receiver, Sender, is_inside, update};

/// Where the generated prefixes begin.
const BASE: u32 = u32::from_be_bytes([20, 0, 0, 0]);

/// A table of equally long prefixes, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) prefix_len: u8,
    /// How many prefixes share their attributes on average.
    pub(crate) per_set: usize,
}

impl Table {
    fn step(self) -> u32 {
        1 << (32 - self.prefix_len)
    }

    pub(crate) fn nlri(self, index: usize) -> Vec<u8> {
        let address = BASE + self.step() * index as u32;
        let mut nlri = vec![self.prefix_len];
        nlri.extend_from_slice(&address.to_be_bytes()[..usize::from(self.prefix_len).div_ceil(8)]);
        nlri
    }

    fn index(self, address: Ipv4Addr, len: u8) -> Option<usize> {
        let offset = u32::from(address).checked_sub(BASE)?;
        (len == self.prefix_len).then_some((offset / self.step()) as usize)
    }

    /// Makes the UPDATEs in which a neighbour tells `count` prefixes from `first` on.
    pub(crate) fn announcements(
        self,
        from: Neighbour,
        (first, count): (usize, usize),
        order: Order,
    ) -> Vec<u8> {
        let mut random = Random(u64::from(u32::from(from.address)));
        let order = match order {
            Order::Common => shuffled(first, count, Random(first as u64)),
            Order::Own => shuffled(first, count, Random(!random.0)),
        };
        let mut octets = Vec::new();
        let mut rest = &order[..];
        while !rest.is_empty() {
            let share = 1 + random.below(2 * self.per_set as u64 - 1) as usize;
            let (set, after) = rest.split_at(share.min(rest.len()));
            rest = after;
            let attributes = attributes(from, &mut random);
            let nlri: Vec<u8> = set.iter().flat_map(|index| self.nlri(*index)).collect();
            octets.extend(update(&[], &attributes, &nlri));
        }
        octets
    }
}

/// In which order neighbours tell their prefixes: neighbouring ones often together, as they have one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// All that tell the same prefixes tell them in one order.
    Common,
    /// Each in another.
    Own,
}

fn shuffled(first: usize, count: usize, mut random: Random) -> Vec<usize> {
    let mut runs = Vec::new();
    let mut at = first;
    while at < first + count {
        let end = (at + 1 + random.below(4) as usize).min(first + count);
        runs.push(at..end);
        at = end;
    }
    for at in (1..runs.len()).rev() {
        runs.swap(at, random.below(at as u64 + 1) as usize);
    }
    runs.into_iter().flatten().collect()
}

/// SplitMix64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Attributes as they are on the Internet from another AS, and as Calico's nodes tell them inside the own one.
fn attributes(from: Neighbour, random: &mut Random) -> Vec<u8> {
    let mut out = vec![0x40, 1, 1, 0];
    if is_inside(from) {
        out.extend_from_slice(&[0x40, 2, 0]);
    } else {
        let hops = 2 + random.below(5);
        out.extend_from_slice(&[0x40, 2, (2 + 4 * (hops + 1)) as u8, 2, hops as u8 + 1]);
        out.extend_from_slice(&from.asn.to_be_bytes());
        (0..hops).for_each(|_| out.extend_from_slice(&(1 + random.below(64_000) as u32).to_be_bytes()));
    }
    out.extend_from_slice(&[0x40, 3, 4]);
    out.extend_from_slice(&from.address.octets());
    if is_inside(from) {
        out.extend_from_slice(&[0x40, 5, 4, 0, 0, 0, 100]);
        return out;
    }
    if random.below(5) == 0 {
        out.extend_from_slice(&[0x80, 4, 4]);
        out.extend_from_slice(&(random.below(500) as u32).to_be_bytes());
    }
    if random.below(100) < 65 {
        let count = [1, 1, 2, 3, 4, 6, 8, 12][random.below(8) as usize];
        out.extend_from_slice(&[0xc0, 8, 4 * count]);
        (0..count).for_each(|_| out.extend_from_slice(&(random.below(1 << 32) as u32).to_be_bytes()));
    }
    out
}

/// What one neighbour holds, and whether that is what it waits for.
struct Held {
    bits: Vec<bool>,
    count: usize,
    expected: usize,
}

/// What all neighbours share.
struct Progress {
    table: Table,
    waiting: AtomicUsize,
    octets: AtomicUsize,
    last: Mutex<Instant>,
}

/// Sessions that are up.
pub(crate) struct Neighbours {
    senders: Vec<Arc<Mutex<Sender>>>,
    progress: Arc<Progress>,
    failures: mpsc::UnboundedReceiver<anyhow::Error>,
    _receivers: JoinSet<()>,
    _keepalives: JoinSet<()>,
}

impl Neighbours {
    /// Brings all sessions up, so many at once. Each neighbour waits for as many of `total` prefixes as `expected` says.
    pub(crate) async fn establish(
        neighbours: &[Neighbour],
        at_once: usize,
        table: Table,
        total: usize,
        expected: impl Fn(usize) -> usize,
    ) -> Result<Self> {
        let gate = Arc::new(Semaphore::new(at_once));
        let mut starting = JoinSet::new();
        for (at, neighbour) in neighbours.iter().copied().enumerate() {
            let gate = gate.clone();
            starting.spawn(async move {
                let _turn = gate.acquire().await;
                (at, session::establish(neighbour).await)
            });
        }
        let mut sessions: Vec<Option<(Arc<Mutex<Sender>>, Receiver)>> =
            neighbours.iter().map(|_| None).collect();
        // The first sessions must live while the last ones come up.
        let mut keepalives = JoinSet::new();
        while let Some(started) = starting.join_next().await {
            let (at, session) = started?;
            let (sender, receiver) =
                session.with_context(|| format!("{} does not come up", neighbours[at].address))?;
            let sender = Arc::new(Mutex::new(sender));
            keepalives.spawn(keep_alive(sender.clone()));
            sessions[at] = Some((sender, receiver));
        }
        let waiting = (0..neighbours.len()).filter(|at| expected(*at) > 0).count();
        let last = Mutex::new(clock());
        let progress = Arc::new(Progress {
            table,
            waiting: AtomicUsize::new(waiting),
            octets: AtomicUsize::new(0),
            last,
        });
        let (failed, failures) = mpsc::unbounded_channel();
        let mut senders = Vec::new();
        let mut receivers = JoinSet::new();
        for (at, (sender, receiver)) in sessions.into_iter().flatten().enumerate() {
            let held = Held { bits: vec![false; total], count: 0, expected: expected(at) };
            receivers.spawn(drain(receiver, held, progress.clone(), failed.clone()));
            senders.push(sender);
        }
        Ok(Self { senders, progress, failures, _receivers: receivers, _keepalives: keepalives })
    }

    /// Sends what each neighbour has to say, all at once.
    pub(crate) async fn send(&self, octets: Vec<Vec<u8>>) -> Result<()> {
        let mut sending = JoinSet::new();
        for (sender, octets) in self.senders.iter().zip(octets) {
            let sender = sender.clone();
            sending.spawn(async move { sender.lock().await.send(&octets).await });
        }
        while let Some(sent) = sending.join_next().await {
            sent??;
        }
        Ok(())
    }

    /// Sends from one neighbour.
    pub(crate) async fn send_from(&self, at: usize, octets: &[u8]) -> Result<()> {
        self.senders[at].lock().await.send(octets).await
    }

    /// Returns how many octets all neighbours were told.
    pub(crate) fn told(&self) -> usize {
        self.progress.octets.load(Ordering::Acquire)
    }

    /// Waits until every neighbour holds what it expects and nothing has come for a while; returns when that was.
    pub(crate) async fn settled(&mut self, quiet: Duration) -> Result<Instant> {
        let limit = clock() + Duration::from_secs(400);
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Ok(failure) = self.failures.try_recv() {
                return Err(failure);
            }
            let waiting = self.progress.waiting.load(Ordering::Acquire);
            let last = *self.progress.last.lock().await;
            if waiting == 0 && last + quiet <= clock() {
                return Ok(last);
            }
            if clock() > limit {
                bail!("not done after 400 s: {waiting} neighbours still wait");
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

async fn keep_alive(sender: Arc<Mutex<Sender>>) {
    loop {
        tokio::time::sleep(Duration::from_secs(45)).await;
        if sender.lock().await.keepalive().await.is_err() {
            return;
        }
    }
}

async fn drain(
    mut receiver: Receiver,
    mut held: Held,
    progress: Arc<Progress>,
    failed: mpsc::UnboundedSender<anyhow::Error>,
) {
    loop {
        match receiver.hear().await {
            Ok(heard) if heard.announced.is_empty() && heard.withdrawn.is_empty() => {}
            Ok(heard) => {
                progress.octets.fetch_add(heard.octets, Ordering::AcqRel);
                let complete = held.count >= held.expected;
                for (set, prefixes) in [(false, heard.withdrawn), (true, heard.announced)] {
                    for (address, len) in prefixes {
                        let bit =
                            progress.table.index(address, len).and_then(|index| held.bits.get_mut(index));
                        if let Some(bit) = bit
                            && *bit != set
                        {
                            *bit = set;
                            held.count = if set { held.count + 1 } else { held.count - 1 };
                        }
                    }
                }
                *progress.last.lock().await = clock();
                match (complete, held.count >= held.expected) {
                    (false, true) => drop(progress.waiting.fetch_sub(1, Ordering::AcqRel)),
                    (true, false) => drop(progress.waiting.fetch_add(1, Ordering::AcqRel)),
                    _ => {}
                }
            }
            Err(error) => {
                let _nobody_waits = failed.send(anyhow!("a session was lost: {error:#}"));
                return;
            }
        }
    }
}
