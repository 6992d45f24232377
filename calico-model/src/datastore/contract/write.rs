//! Commits: order, atomicity, preconditions, races.

use std::future::Future;
use std::pin::Pin;

use super::super::{Atomicity, CommitError, Datastore, MAX_COMMIT_BYTES, MAX_WRITES, Precondition, Write};
use super::room::{Room, conflict, join};
use super::{Broken, ensure};
use crate::revision::Revision;

pub(super) async fn revisions_order_all_writes<S: Datastore>(
    open: &impl AsyncFn() -> S,
) -> Result<(), Broken> {
    let handles = [open().await, open().await];
    let room = Room::clear(&handles[0], "order").await?;
    let mut last = handles[0].list(&room.folder("")).await?.revision;
    for step in 0..10 {
        let (name, value) = (format!("k{}", step % 3), step.to_string());
        let revision = room.put(&handles[step % 2], &name, &value).await?;
        ensure!(revision > last, "a commit got revision {revision} after {last}");
        last = revision;
        for (reader, handle) in handles.iter().enumerate() {
            let entry = handle.get(&room.key(&name)).await?;
            let read = entry.as_ref().map(|entry| (entry.value.as_slice(), entry.revision));
            ensure!(
                read == Some((value.as_bytes(), revision)),
                "handle {reader} read {read:?} after {value:?} was written at revision {revision}"
            );
        }
        let listing = handles[1 - step % 2].list(&room.folder("")).await?;
        ensure!(
            listing.revision >= revision,
            "a listing at {} after a commit at {revision}",
            listing.revision
        );
    }
    Ok(())
}

pub(super) async fn values_are_any_bytes<S: Datastore>(open: &impl AsyncFn() -> S) -> Result<(), Broken> {
    let store = open().await;
    let room = Room::clear(&store, "bytes").await?;
    let noise: Vec<u8> = (0..MAX_COMMIT_BYTES).map(|n| (n * 31 % 251) as u8).collect();
    let values: [(&str, Vec<u8>); 7] = [
        ("empty", Vec::new()),
        ("zero", vec![0]),
        ("every-byte", (0..=255).collect()),
        ("one-mebibyte", noise),
        ("fd00::1 %_'\"\\*?[", b"a key with the special characters of others".to_vec()),
        ("größe-漢字-🐈", b"a key outside ASCII".to_vec()),
        (&"n".repeat(900), b"a long key".to_vec()),
    ];
    for (name, value) in &values {
        let write = Write::put(room.key(name), value.clone(), Precondition::Absent);
        let revision = store.commit(vec![write]).await?;
        let Some(entry) = open().await.get(&room.key(name)).await? else {
            return Err(Broken(format!("{name} is not there after it was written")));
        };
        ensure!(entry.key == room.key(name), "{} was read as {}", room.key(name), entry.key);
        ensure!(entry.value == *value, "{name} holds other bytes than were written");
        ensure!(entry.revision == revision, "{name} was written at {revision}, read at {}", entry.revision);
    }
    let listing = store.list(&room.folder("")).await?;
    ensure!(
        listing.entries.len() == values.len(),
        "{} of {} keys listed",
        listing.entries.len(),
        values.len()
    );
    let mut read: Vec<_> = listing.entries.iter().map(|entry| (&entry.key, &entry.value)).collect();
    let keys: Vec<_> = values.iter().map(|(name, _)| room.key(name)).collect();
    let mut written: Vec<_> = keys.iter().zip(values.iter().map(|(_, value)| value)).collect();
    read.sort();
    written.sort();
    ensure!(read == written, "the listing holds other bytes than were written");
    Ok(())
}

pub(super) async fn commit_is_one_change<S: Datastore>(open: &impl AsyncFn() -> S) -> Result<(), Broken> {
    let store = open().await;
    let room = Room::clear(&store, "together").await?;
    let before = room.put(&store, "changed", "1").await?;
    let before = room.put(&store, "removed", "1").await?.max(before);
    let revision = store
        .commit(vec![
            Write::put(room.key("changed"), b"2".to_vec(), Precondition::Any),
            Write::delete(room.key("removed"), Precondition::At(before)),
            Write::put(room.key("created"), b"2".to_vec(), Precondition::Absent),
        ])
        .await?;
    ensure!(revision > before, "a commit got revision {revision} after {before}");
    let entries = open().await.list(&room.folder("")).await?.entries;
    let state: Vec<_> = entries.iter().map(|entry| (&entry.key, entry.value.as_slice())).collect();
    let expected = [(&room.key("changed"), b"2".as_slice()), (&room.key("created"), b"2".as_slice())];
    ensure!(state == expected, "the folder holds {state:?} instead of {expected:?}");
    let mut revisions = entries.iter().map(|entry| entry.revision);
    match store.atomicity() {
        Atomicity::Atomic => {
            ensure!(
                revisions.all(|of| of == revision),
                "an atomic commit at {revision} left other revisions"
            );
        }
        Atomicity::InOrder => {
            ensure!(
                revisions.all(|of| of > before && of <= revision),
                "a commit up to {revision} left others"
            );
        }
    }
    let many = (0..MAX_WRITES).map(|n| room.write(&format!("many/{n}"), "")).collect();
    store.commit(many).await?;
    let count = store.list(&room.folder("many")).await?.entries.len();
    ensure!(count == MAX_WRITES, "{count} of {MAX_WRITES} writes happened");
    Ok(())
}

pub(super) async fn failed_precondition_writes_nothing<S: Datastore>(
    open: &impl AsyncFn() -> S,
) -> Result<(), Broken> {
    let store = open().await;
    let room = Room::clear(&store, "preconditions").await?;
    let first = room.put(&store, "present", "1").await?;
    let second = room.put(&store, "present", "2").await?;
    let wrong = [
        ("present", Precondition::Absent, Some(second)),
        ("present", Precondition::At(first), Some(second)),
        ("present", Precondition::At(Revision(second.0 + 1)), Some(second)),
        ("missing", Precondition::At(second), None),
        ("missing", Precondition::At(Revision(0)), None),
    ];
    for (name, precondition, found) in wrong {
        for value in [Some(b"3".to_vec()), None] {
            let culprit = Write { key: room.key(name), value, precondition };
            let commit = vec![
                Write::put(room.key("before"), b"x".to_vec(), Precondition::Any),
                culprit,
                Write::put(room.key("after"), b"x".to_vec(), Precondition::Any),
            ];
            let (key, actual) = conflict(store.commit(commit).await)?;
            ensure!(key == room.key(name), "{precondition:?} on {name} was reported for {key}");
            ensure!(actual == found, "{precondition:?} on {name} reported {actual:?} instead of {found:?}");
            ensure!(store.get(&room.key("after")).await?.is_none(), "a write after the failed one happened");
            let earlier = store.get(&room.key("before")).await?.is_some();
            let atomic = store.atomicity() == Atomicity::Atomic;
            ensure!(
                earlier != atomic,
                "the write before the failed one: happened {earlier}, atomic {atomic}"
            );
            let kept = store.get(&room.key("present")).await?.map(|entry| (entry.value, entry.revision));
            ensure!(kept == Some((b"2".to_vec(), second)), "{precondition:?} on {name} changed the key");
        }
    }
    let held = vec![
        Write::put(room.key("present"), b"3".to_vec(), Precondition::At(second)),
        Write::put(room.key("missing"), b"3".to_vec(), Precondition::Absent),
    ];
    store.commit(held).await?;
    Ok(())
}

pub(super) async fn deleted_keys_are_gone<S: Datastore>(open: &impl AsyncFn() -> S) -> Result<(), Broken> {
    let store = open().await;
    let room = Room::clear(&store, "deleted").await?;
    let first = room.put(&store, "k", "1").await?;
    let deleted = store.commit(vec![Write::delete(room.key("k"), Precondition::At(first))]).await?;
    ensure!(deleted > first, "the deletion got revision {deleted} after {first}");
    ensure!(open().await.get(&room.key("k")).await?.is_none(), "a deleted key is read");
    ensure!(open().await.list(&room.folder("")).await?.entries.is_empty(), "a deleted key is listed");

    let mut watch = store.watch(&room.folder(""), deleted).await?;
    for precondition in [Precondition::Any, Precondition::Absent] {
        let nothing = store.commit(vec![Write::delete(room.key("k"), precondition)]).await?;
        ensure!(nothing >= deleted, "a commit that changes nothing returned {nothing}, before {deleted}");
    }
    let second = store.commit(vec![Write::put(room.key("k"), b"1".to_vec(), Precondition::Absent)]).await?;
    let mut told = room.told(&mut watch).await?;
    if told.0 == "in-sync" {
        told = room.told(&mut watch).await?;
    }
    ensure!(told == ("put k=1".to_owned(), second), "after deletions of nothing the watch told {told:?}");
    let stale = store.commit(vec![Write::put(room.key("k"), b"2".to_vec(), Precondition::At(first))]).await;
    let (_, actual) = conflict(stale)?;
    ensure!(actual == Some(second), "a key made anew at {second} was reported at {actual:?}");
    Ok(())
}

pub(super) async fn unsound_commits_are_refused<S: Datastore>(
    open: &impl AsyncFn() -> S,
) -> Result<(), Broken> {
    let store = open().await;
    let room = Room::clear(&store, "refused").await?;
    let half = "v".repeat(MAX_COMMIT_BYTES / 2 + 1);
    let unsound = [
        ("no write", vec![]),
        ("one key twice", vec![room.write("k", "1"), room.write("l", "1"), room.write("k", "2")]),
        ("too many writes", (0..=MAX_WRITES).map(|n| room.write(&n.to_string(), "")).collect()),
        ("too many bytes", vec![room.write("k", &half), room.write("l", &half)]),
    ];
    for (fault, writes) in unsound {
        match store.commit(writes).await {
            Err(CommitError::Refused { .. }) => {}
            Err(other) => return Err(other.into()),
            Ok(_) => return Err(Broken(format!("a commit with {fault} was carried out"))),
        }
    }
    ensure!(store.list(&room.folder("")).await?.entries.is_empty(), "a refused commit left something");
    Ok(())
}

pub(super) async fn concurrent_writers_never_both_win<S: Datastore>(
    open: &impl AsyncFn() -> S,
) -> Result<(), Broken> {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 25;
    let store = open().await;
    let room = Room::clear(&store, "race").await?;
    let mut handles = Vec::new();
    for _ in 0..WRITERS {
        handles.push(open().await);
    }

    for round in 0..ROUNDS {
        let key = room.key(&format!("first-{round}"));
        let create = |handle| -> Pin<Box<dyn Future<Output = _>>> {
            let write = Write::put(key.clone(), b"mine".to_vec(), Precondition::Absent);
            Box::pin(async move { S::commit(handle, vec![write]).await })
        };
        let mut winners = Vec::new();
        let mut seen_by_losers = Vec::new();
        for result in join(handles.iter().map(create).collect()).await {
            match result {
                Ok(revision) => winners.push(revision),
                Err(error) => seen_by_losers.push(conflict(Err(error))?.1),
            }
        }
        ensure!(winners.len() == 1, "{} of {WRITERS} writers created the same key", winners.len());
        ensure!(
            seen_by_losers.iter().all(|seen| *seen == Some(winners[0])),
            "the winner wrote revision {}, the losers saw {seen_by_losers:?}",
            winners[0]
        );
    }

    room.put(&store, "counter", "0").await?;
    let key = &room.key("counter");
    let count = |handle| -> Pin<Box<dyn Future<Output = Result<(), Broken>> + '_>> {
        Box::pin(async move {
            for _ in 0..ROUNDS {
                increment::<S>(handle, key).await?;
            }
            Ok(())
        })
    };
    for result in join(handles.iter().map(count).collect()).await {
        result?;
    }
    let total = store.get(key).await?.map(|entry| entry.value);
    let expected = (WRITERS * ROUNDS).to_string().into_bytes();
    ensure!(total == Some(expected), "{WRITERS} x {ROUNDS} increments counted {total:?}");
    Ok(())
}

/// Adds one by compare-and-swap, as often as others come first.
async fn increment<S: Datastore>(store: &S, key: &super::super::Key) -> Result<(), Broken> {
    loop {
        let Some(entry) = store.get(key).await? else { return Err(Broken(format!("{key} vanished"))) };
        let count = str::from_utf8(&entry.value).ok().and_then(|text| text.parse::<u64>().ok());
        let Some(count) = count else { return Err(Broken(format!("{key} holds no number"))) };
        let next = Write::put(key.clone(), (count + 1).to_string().into(), Precondition::At(entry.revision));
        match store.commit(vec![next]).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
}
