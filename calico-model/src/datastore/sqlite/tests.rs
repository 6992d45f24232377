use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::{Precondition, WatchEvent};
use super::*;

/// A directory that is removed with its contents.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("calico-sqlite-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A store's threads end a moment after the store, and may put a file back meanwhile.
        let _ = (0..10).find(|_| fs::remove_dir_all(&self.0).is_ok());
    }
}

fn put(path: &str, value: &str) -> Write {
    Write::put(path.parse().unwrap(), value.as_bytes().to_vec(), Precondition::Any)
}

fn refusal(path: &Path) -> String {
    let error = SqliteStore::open(path).unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    text
}

#[tokio::test]
async fn every_file_of_a_store_is_private() {
    let scratch = Scratch::new();
    let path = scratch.file("new/deeper/calico.db");
    let store = SqliteStore::open(&path).unwrap();
    store.commit(vec![put("/a", "1")]).await.unwrap();
    let _watch = store.watch(&Prefix::new("/").unwrap(), Revision(0)).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let directory = path.parent().unwrap();
    assert_eq!(mode(directory), 0o700);
    let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    for file in names {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let scratch = Scratch::new();
    let path = scratch.file("calico.db");
    let store = SqliteStore::open(&path).unwrap();
    let revision = store.commit(vec![put("/a", "1")]).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    let entry = store.get(&"/a".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((entry.value, entry.revision), (b"1".to_vec(), revision));
}

#[test]
fn a_directory_is_refused_with_a_remedy() {
    let scratch = Scratch::new();
    assert!(refusal(&scratch.0).contains("name a file in it"));
}

#[test]
fn a_path_through_a_file_is_refused() {
    let scratch = Scratch::new();
    fs::write(scratch.file("plain"), "x").unwrap();
    assert!(refusal(&scratch.file("plain/calico.db")).contains("cannot be made"));
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let path = scratch.file("notes.txt");
    let text = "these are notes and not a database, however long they are\n".repeat(100);
    fs::write(&path, &text).unwrap();
    assert!(refusal(&path).contains("not an SQLite database"));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn the_database_of_another_program_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let path = scratch.file("other.db");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    assert!(refusal(&path).contains("another program"));
    let mode: String = other.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
}

#[test]
fn a_store_made_by_a_newer_version_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.file("calico.db");
    drop(SqliteStore::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
    assert!(refusal(&path).contains("made by a newer version (schema 2"));
}

#[tokio::test]
async fn a_damaged_file_is_named_as_such() {
    let scratch = Scratch::new();
    let path = scratch.file("calico.db");
    let store = SqliteStore::open(&path).unwrap();
    for n in 0..50 {
        store.commit(vec![put(&format!("/a/{n}"), &"v".repeat(500))]).await.unwrap();
    }
    // A copy has no write-ahead log from which good pages would still be read.
    let copy = scratch.file("copy.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    let mut bytes = fs::read(&copy).unwrap();
    bytes[4096 * 2..].fill(0x5a);
    fs::write(&copy, bytes).unwrap();
    let store = SqliteStore::open(&copy).unwrap();
    let error = store.list(&Prefix::new("/a").unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_replaced_under_an_open_store_is_noticed() {
    let scratch = Scratch::new();
    let path = scratch.file("calico.db");
    let store = SqliteStore::open(&path).unwrap();
    let mut watch = store.watch(&Prefix::new("/").unwrap(), Revision(0)).await.unwrap();
    assert!(matches!(watch.next().await, Ok(WatchEvent::InSync(_))));
    fs::remove_file(&path).unwrap();
    let error = store.commit(vec![put("/a", "1")]).await.unwrap_err();
    assert!(error.to_string().contains("restart this program"), "{error}");
    let error = watch.next().await.unwrap_err();
    assert!(error.to_string().contains("restart this program"), "{error}");
}

#[tokio::test]
async fn a_link_and_its_target_are_the_same_store() {
    let scratch = Scratch::new();
    let store = SqliteStore::open(scratch.file("calico.db")).unwrap();
    symlink(scratch.file("calico.db"), scratch.file("link.db")).unwrap();
    let other = SqliteStore::open(scratch.file("link.db")).unwrap();
    store.commit(vec![put("/a", "1")]).await.unwrap();
    assert!(other.get(&"/a".parse().unwrap()).await.unwrap().is_some());
    assert!(!scratch.file("link.db.bell").exists());
}

#[tokio::test]
async fn history_is_pruned_by_count() {
    let scratch = Scratch::new();
    let history = History { changes: 10, bytes: u64::MAX };
    let store = SqliteStore::open_with(&scratch.file("calico.db"), history).unwrap();
    for n in 0..30 {
        store.commit(vec![put("/a", &n.to_string()), put("/b", "v")]).await.unwrap();
    }
    let all = Prefix::new("/").unwrap();
    assert!(matches!(store.watch(&all, Revision(49)).await, Err(WatchError::TooOld { .. })));
    let mut watch = store.watch(&all, Revision(50)).await.unwrap();
    for n in 25..30 {
        assert!(matches!(watch.next().await, Ok(WatchEvent::Put(a)) if a.value == n.to_string().as_bytes()));
        assert!(matches!(watch.next().await, Ok(WatchEvent::Put(b)) if b.value == b"v"));
    }
    assert!(matches!(watch.next().await, Ok(WatchEvent::InSync(Revision(60)))));
}

#[tokio::test]
async fn history_is_pruned_by_size_but_never_the_newest_commit() {
    let scratch = Scratch::new();
    let history = History { changes: 1000, bytes: 10_000 };
    let store = SqliteStore::open_with(&scratch.file("calico.db"), history).unwrap();
    for _ in 0..10 {
        store.commit(vec![put("/a", &"v".repeat(3_000))]).await.unwrap();
    }
    let all = Prefix::new("/").unwrap();
    assert!(store.watch(&all, Revision(7)).await.is_ok());
    assert!(matches!(store.watch(&all, Revision(6)).await, Err(WatchError::TooOld { .. })));
    store.commit(vec![put("/a", &"v".repeat(50_000))]).await.unwrap();
    assert!(store.watch(&all, Revision(10)).await.is_ok());
}

#[tokio::test]
async fn a_reader_is_not_blocked_by_a_writer() {
    let scratch = Scratch::new();
    let path = scratch.file("calico.db");
    let store = SqliteStore::open(&path).unwrap();
    store.commit(vec![put("/a", "1")]).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; UPDATE entries SET value = 'x'").unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.commit(vec![put("/a", "2")]).await }
    });
    // Neither another process's transaction nor this one's own waiting commit holds up a read.
    assert_eq!(store.get(&"/a".parse().unwrap()).await.unwrap().unwrap().value, b"1");
    assert_eq!(store.list(&Prefix::new("/").unwrap()).await.unwrap().entries.len(), 1);
    assert!(!waiting.is_finished());
    other.execute_batch("ROLLBACK").unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_key_spoilt_by_hand_hides_no_other() {
    let scratch = Scratch::new();
    let path = scratch.file("calico.db");
    let store = SqliteStore::open(&path).unwrap();
    store.commit(vec![put("/a/good", "1")]).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("INSERT INTO entries VALUES ('/a//bad', 1, 'text'), ('/a/text', 1, 'text')").unwrap();
    let listing = store.list(&Prefix::new("/a").unwrap()).await.unwrap();
    let found: Vec<_> =
        listing.entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_slice())).collect();
    assert_eq!(found, [("/a/good", b"1".as_slice()), ("/a/text", b"text")]);
}

#[test]
fn a_user_without_permission_is_told_so() {
    let scratch = Scratch::new();
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
    let (path, new) = (scratch.file("calico.db"), scratch.file("new.db"));
    drop(SqliteStore::open(&path).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o555)).unwrap();
    // Only this thread becomes nobody; a test that is not run as root is nobody enough by the modes.
    let refusals = std::thread::spawn(move || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
        [refusal(&path), refusal(&new)]
    });
    for text in refusals.join().unwrap() {
        assert!(text.contains("run as its owner"), "{text}");
    }
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_new_file_is_opened_by_many_at_once() {
    let scratch = Scratch::new();
    for round in 0..40 {
        let path = scratch.file(&format!("{round}.db"));
        let start = std::sync::Barrier::new(6);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    start.wait();
                    drop(SqliteStore::open(&path).unwrap());
                });
            }
        });
    }
}
