//! The SQLite store: the contract, and many processes on one file.

mod child;
mod interrupted;

use std::fs;
use std::time::Duration;

use calico_model::datastore::{Precondition, Write, contract};
use calico_model::{Datastore, Revision, SqliteStore};
use child::{Child, Task};

use crate::scratch::Scratch;

#[tokio::test]
async fn the_sqlite_store_keeps_the_contract() {
    let scratch = Scratch::new();
    let path = scratch.file("calico.db");
    contract::verify(async || SqliteStore::open(&path).unwrap()).await.unwrap();
    let store = SqliteStore::open(&path).unwrap();
    contract::verify_compaction(&store, async |revision| store.compact(revision).await.unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn eight_processes_count_on_one_new_file_and_lose_nothing() {
    let scratch = Scratch::new();
    let path = scratch.file("new/calico.db");
    let children: Vec<_> = (0..8).map(|_| Child::spawn(Task::Count(50), &path)).collect();
    for child in children {
        child.finish();
    }
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(child::count(&store).await, 8 * 50);
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_that_was_acknowledged() {
    let scratch = Scratch::new();
    let path = scratch.file("calico.db");
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let mut writers = [Child::spawn(Task::Append, &path), Child::spawn(Task::Append, &path)];
        for writer in &mut writers {
            acknowledged.extend((0..10 + 7 * round).map(|_| writer.line()));
        }
        for writer in writers {
            acknowledged.extend(writer.kill());
        }
    }
    let store = SqliteStore::open(&path).unwrap();
    let entries = store.list(&child::appended()).await.unwrap().entries;
    for line in &acknowledged {
        let key = format!("{}{line}", child::appended());
        assert!(entries.iter().any(|entry| entry.key.as_str() == key), "{line} was lost");
    }
    // Each commit appended one entry and counted it, in one transaction.
    assert_eq!(child::count(&store).await, entries.len() as u64);
    drop(store);
    let file = rusqlite::Connection::open(&path).unwrap();
    let verdict: String = file.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

#[tokio::test]
async fn a_watcher_in_another_process_learns_of_commits_even_when_the_doorbell_is_deleted() {
    let scratch = Scratch::new();
    let path = scratch.file("calico.db");
    let store = SqliteStore::open(&path).unwrap();
    let mut watcher = Child::spawn(Task::Watch, &path);
    assert_eq!(watcher.line(), "in-sync");
    for step in 0..6 {
        if step % 3 == 2 {
            fs::remove_file(scratch.file("calico.db.bell")).unwrap();
        }
        let value = step.to_string();
        let write = Write::put(child::counter(), value.clone().into(), Precondition::Any);
        store.commit(vec![write]).await.unwrap();
        assert_eq!(watcher.line(), value);
    }
    watcher.kill();
}

#[tokio::test]
async fn an_unheard_commit_is_found_by_the_backstop() {
    let scratch = Scratch::new();
    let path = scratch.file("calico.db");
    let store = SqliteStore::open(&path).unwrap();
    let folder = child::appended();
    let mut watch = store.watch(&folder, Revision(0)).await.unwrap();
    watch.next().await.unwrap();
    // Written past the store, as a program that died between its commit and its ring would have left it.
    let silent = rusqlite::Connection::open(&path).unwrap();
    let key = format!("{folder}silent");
    silent
        .execute_batch(&format!(
            "BEGIN IMMEDIATE; UPDATE store SET revision = 1;
             INSERT INTO entries VALUES ('{key}', 1, 'v'); INSERT INTO log VALUES (1, 1, '{key}', 'v'); COMMIT"
        ))
        .unwrap();
    tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap();
}
