use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use proptest::prelude::*;

use super::super::{Atomicity, CommitError, MemoryStore, Precondition, Write};
use super::*;

/// What a reader of changes has put together.
#[derive(Debug, Default)]
struct Reader {
    entries: BTreeMap<Key, Entry>,
    marks: usize,
    troubles: usize,
    recoveries: usize,
}

impl Reader {
    fn take(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match change {
                Change::Put(entry) => {
                    let old = self.entries.insert(entry.key.clone(), entry.clone());
                    assert_ne!(old, Some(entry), "the same entry was reported twice");
                }
                Change::Deleted(key) => assert!(self.entries.remove(&key).is_some(), "{key} was not there"),
                Change::InSync => self.marks += 1,
                Change::Trouble(_) => self.troubles += 1,
                Change::Recovered => self.recoveries += 1,
            }
        }
    }

    fn values(&self) -> BTreeMap<String, Vec<u8>> {
        self.entries.iter().map(|(key, entry)| (key.to_string(), entry.value.clone())).collect()
    }
}

/// What the store may hold: four keys in two folders, and few values, so that every case comes up often.
type State = BTreeMap<&'static str, u8>;

const KEYS: [&str; 4] = ["/a/1", "/a/2", "/b/1", "/b/2"];

fn state() -> impl Strategy<Value = State> {
    proptest::collection::btree_map(proptest::sample::select(&KEYS), 0..3u8, 0..=4)
}

/// How the store gets to the next state.
#[derive(Debug, Clone, Copy)]
enum Stride {
    /// All differences in one commit.
    Squashed,
    /// Each difference in a commit of its own.
    Split,
    /// Everything deleted, then everything written.
    ByWayOfNothing,
}

/// What the reader's side does in between.
#[derive(Debug, Clone, Copy)]
enum Meanwhile {
    Nothing,
    /// Takes some events of one folder.
    Read(usize, usize),
    /// Takes some events of one folder, perhaps not all of a commit, and loses the watch.
    Lose(usize, usize),
    /// Finds one folder's history gone.
    Forget(usize),
}

fn stride() -> impl Strategy<Value = Stride> {
    prop_oneof![Just(Stride::Squashed), Just(Stride::Split), Just(Stride::ByWayOfNothing)]
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    prop_oneof![
        Just(Meanwhile::Nothing),
        (0..2usize, 1..4usize).prop_map(|(folder, events)| Meanwhile::Read(folder, events)),
        (0..2usize, 1..4usize).prop_map(|(folder, events)| Meanwhile::Lose(folder, events)),
        (0..2usize).prop_map(Meanwhile::Forget),
    ]
}

type Path = Vec<(State, Stride, Meanwhile)>;

fn step_to(store: &MemoryStore, next: &State, stride: Stride) {
    let now = store.list_now(&Prefix::new("/").unwrap()).entries;
    let put = |(key, value): (&&str, &u8)| Write::put(key.parse().unwrap(), vec![*value], Precondition::Any);
    let delete = |entry: &Entry| Write::delete(entry.key.clone(), Precondition::Any);
    let gone = now.iter().filter(|entry| !next.contains_key(entry.key.as_str())).map(delete);
    let written = |(key, value): &(&&str, &u8)| {
        !now.iter().any(|entry| entry.key.as_str() == **key && entry.value == [**value])
    };
    let commits: Vec<Vec<Write>> = match stride {
        Stride::Squashed => vec![gone.chain(next.iter().filter(written).map(put)).collect()],
        Stride::Split => gone.chain(next.iter().filter(written).map(put)).map(|write| vec![write]).collect(),
        Stride::ByWayOfNothing => vec![now.iter().map(delete).collect(), next.iter().map(put).collect()],
    };
    for commit in commits.into_iter().filter(|commit| !commit.is_empty()) {
        store.commit_now(commit).unwrap();
    }
}

/// Plays both sides: the store walks the path, the reader does what it does in between, then catches up.
fn walk(path: &Path) -> Reader {
    let store = MemoryStore::new();
    let mut state = SyncState::new(vec![Prefix::new("/a").unwrap(), Prefix::new("/b").unwrap()]);
    let folders: Vec<_> = state.folders().map(|(folder, prefix)| (folder, prefix.clone())).collect();
    let mut watches: Vec<Option<Box<dyn Watch>>> = vec![None, None];
    let mut reader = Reader::default();
    let mut read =
        |nth: usize, events: usize, watches: &mut Vec<Option<Box<dyn Watch>>>, state: &mut SyncState| {
            let (folder, prefix) = &folders[nth];
            let from = state.resume(*folder).unwrap_or_else(|| {
                reader.take(state.listed(*folder, store.list_now(prefix)));
                state.resume(*folder).unwrap()
            });
            let watch = watches[nth].get_or_insert_with(|| now(store.watch(prefix, from)).unwrap().unwrap());
            for _ in 0..events {
                match now(watch.next()) {
                    Some(event) => reader.take(state.seen(*folder, event.unwrap())),
                    None => break,
                }
            }
        };
    for (next, stride, meanwhile) in path {
        step_to(&store, next, *stride);
        match *meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::Read(nth, events) => read(nth, events, &mut watches, &mut state),
            Meanwhile::Lose(nth, events) => {
                read(nth, events, &mut watches, &mut state);
                watches[nth] = None;
            }
            Meanwhile::Forget(nth) => {
                watches[nth] = None;
                state.too_old(folders[nth].0);
            }
        }
    }
    for nth in 0..2 {
        read(nth, usize::MAX, &mut watches, &mut state);
    }
    let stored = store.list_now(&Prefix::new("/").unwrap()).entries;
    assert!(reader.entries.values().eq(&stored), "{:?} instead of {stored:?}", reader.entries);
    reader
}

/// Polls a future once; those of the memory store are ready or wait for a commit.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

proptest! {
    #[test]
    fn what_is_known_depends_on_the_state_and_not_on_the_path(
        path in proptest::collection::vec((state(), stride(), meanwhile()), 1..12),
        other in proptest::collection::vec((state(), stride(), meanwhile()), 0..12),
    ) {
        let end = path.last().map(|(state, ..)| state.clone()).unwrap_or_default();
        let arrive = (end.clone(), Stride::Split, Meanwhile::Nothing);
        let mut reversed: Path = path.iter().rev().cloned().collect();
        reversed.push(arrive.clone());
        let mut elsewhere = other;
        elsewhere.push(arrive.clone());
        let mut interleaved: Path =
            path.iter().flat_map(|step| [step.clone(), (State::new(), Stride::Squashed, step.2)]).collect();
        interleaved.push(arrive.clone());

        let expected: BTreeMap<_, _> = end.iter().map(|(key, value)| ((*key).to_owned(), vec![*value])).collect();
        for path in [path, reversed, elsewhere, interleaved, vec![arrive]] {
            let reader = walk(&path);
            prop_assert_eq!(reader.values(), expected.clone());
            prop_assert_eq!(reader.marks, 1);
        }
    }
}

/// A memory store whose watches can be cut and which can be made unreachable.
#[derive(Debug)]
struct Shaky {
    store: MemoryStore,
    down: AtomicBool,
    /// How many events of a revision are delivered before the watch is cut.
    cut: Mutex<BTreeMap<u64, usize>>,
}

struct ShakyWatch(Arc<Shaky>, Box<dyn Watch>);

#[async_trait]
impl Watch for ShakyWatch {
    async fn next(&mut self) -> Result<WatchEvent, WatchError> {
        let event = self.1.next().await?;
        let revision = match &event {
            WatchEvent::Put(entry) => entry.revision,
            WatchEvent::Deleted { revision, .. } | WatchEvent::InSync(revision) => *revision,
        };
        if self.0.down.load(Ordering::SeqCst) || self.0.is_cut_at(revision) {
            return Err(self.0.trouble().into());
        }
        Ok(event)
    }
}

impl Shaky {
    fn trouble(&self) -> StoreError {
        StoreError::Unavailable {
            store: "shaky".to_owned(),
            action: "being tested".to_owned(),
            source: "down".into(),
        }
    }

    fn is_cut_at(&self, revision: Revision) -> bool {
        let mut cut = self.cut.lock().unwrap();
        let Some(left) = cut.get_mut(&revision.0) else { return false };
        match left.checked_sub(1) {
            Some(fewer) => *left = fewer,
            None => {
                cut.remove(&revision.0);
                return true;
            }
        }
        false
    }

    fn ask(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::SeqCst) { Err(self.trouble()) } else { Ok(()) }
    }
}

#[derive(Clone)]
struct Handle(Arc<Shaky>);

#[async_trait]
impl Datastore for Handle {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.0.ask()?;
        self.0.store.get(key).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.0.ask()?;
        self.0.store.list(prefix).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, CommitError> {
        self.0.store.commit(writes).await
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, WatchError> {
        self.0.ask()?;
        Ok(Box::new(ShakyWatch(Arc::clone(&self.0), self.0.store.watch(prefix, from).await?)))
    }

    fn atomicity(&self) -> Atomicity {
        Atomicity::Atomic
    }
}

fn shaky() -> (Handle, Syncer) {
    let handle =
        Handle(Arc::new(Shaky { store: MemoryStore::new(), down: false.into(), cut: Mutex::default() }));
    let prefixes = ["/a", "/b", "/a/inner"].map(|path| Prefix::new(path).unwrap()).to_vec();
    let syncer = Syncer::new(handle.clone(), prefixes, 1, |_| tokio::task::yield_now());
    (handle, syncer)
}

fn put(path: &str, value: &str) -> Write {
    Write::put(path.parse().unwrap(), value.as_bytes().to_vec(), Precondition::Any)
}

/// Reads until the reader has what the store has.
async fn catch_up(syncer: &mut Syncer, reader: &mut Reader, store: &MemoryStore) {
    let all = Prefix::new("/").unwrap();
    while reader.marks == 0 || !reader.entries.values().eq(&store.list_now(&all).entries) {
        reader.take(syncer.next().await);
    }
}

#[tokio::test]
async fn changes_come_once_whatever_happens_to_the_watch() {
    let (handle, mut syncer) = shaky();
    let (store, mut reader) = (&handle.0.store, Reader::default());
    store.commit_now(vec![put("/a/1", "x"), put("/b/1", "x"), put("/a/inner/1", "x")]).unwrap();
    catch_up(&mut syncer, &mut reader, store).await;

    // A watch that is cut within a commit of two writes.
    handle.0.cut.lock().unwrap().insert(2, 1);
    store.commit_now(vec![put("/a/1", "y"), put("/a/2", "y")]).unwrap();
    catch_up(&mut syncer, &mut reader, store).await;

    // A key that vanishes while the history is forgotten.
    store.commit_now(vec![Write::delete("/a/1".parse().unwrap(), Precondition::Any)]).unwrap();
    store.commit_now(vec![put("/b/1", "z")]).unwrap();
    store.compact(Revision(4));
    catch_up(&mut syncer, &mut reader, store).await;
    assert_eq!(reader.marks, 1);
    assert_eq!(reader.values().keys().collect::<Vec<_>>(), ["/a/2", "/a/inner/1", "/b/1"]);
}

#[tokio::test]
async fn an_outage_is_reported_once_and_so_is_its_end() {
    let (handle, mut syncer) = shaky();
    let (store, mut reader) = (&handle.0.store, Reader::default());
    handle.0.down.store(true, Ordering::SeqCst);
    store.commit_now(vec![put("/a/1", "x")]).unwrap();
    reader.take(syncer.next().await);
    for _ in 0..20 {
        assert!(now(syncer.next()).is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!((reader.troubles, reader.recoveries, reader.marks), (1, 0, 0));
    handle.0.down.store(false, Ordering::SeqCst);
    while reader.recoveries == 0 {
        reader.take(syncer.next().await);
    }
    assert_eq!((reader.troubles, reader.recoveries, reader.marks), (1, 1, 1));
    assert_eq!(reader.values().len(), 1);
}

#[test]
fn a_folder_inside_another_is_left_out() {
    let prefixes = ["/a/b", "/a", "/ab", "/a/b/c"].map(|path| Prefix::new(path).unwrap()).to_vec();
    let state = SyncState::new(prefixes);
    let folders: Vec<_> = state.folders().map(|(_, prefix)| prefix.as_str()).collect();
    assert_eq!(folders, ["/a/", "/ab/"]);
}

#[test]
fn a_store_that_was_set_back_is_compared_by_value_as_well() {
    let mut state = SyncState::new(vec![Prefix::new("/a").unwrap()]);
    let (folder, _) = state.folders().next().unwrap();
    let listing = |value: &str| Listing {
        entries: vec![Entry { key: "/a/1".parse().unwrap(), value: value.into(), revision: Revision(1) }],
        revision: Revision(1),
    };
    assert_eq!(state.listed(folder, listing("x")).len(), 2);
    assert_eq!(state.listed(folder, listing("x")).len(), 0);
    assert_eq!(state.listed(folder, listing("y")).len(), 1);
}
