//! Watches: every change, once, in order, and one in-sync mark.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use super::super::{Atomicity, Datastore, Precondition, WatchError, WatchEvent, Write};
use super::room::{Room, join};
use super::{Broken, ensure};
use crate::revision::Revision;

pub(super) async fn delivers_each_change_once<S: Datastore>(
    open: &impl AsyncFn() -> S,
) -> Result<(), Broken> {
    let (reader, writer) = (open().await, open().await);
    let room = Room::clear(&reader, "later").await?;
    room.put(&writer, "ns1/old", "before the watch").await?;
    let listing = reader.list(&room.folder("ns1")).await?;
    let mut watch = reader.watch(&room.folder("ns1"), listing.revision).await?;
    let marks = room.expect(&mut watch, &["in-sync"]).await?;
    ensure!(marks[0] >= listing.revision, "in sync at {}, listed at {}", marks[0], listing.revision);

    room.put(&writer, "ns1/k", "1").await?;
    room.put(&writer, "ns10/k", "a sibling").await?;
    room.put(&writer, "ns1/k", "2").await?;
    room.put(&writer, "ns1/k", "2").await?;
    room.delete(&writer, "ns1/k").await?;
    room.delete(&writer, "ns1/k").await?;
    room.put(&writer, "ns1", "the folder's own name").await?;
    let batch = vec![
        room.write("ns1/a", "3"),
        Write::delete(room.key("ns1/old"), Precondition::Any),
        room.write("ns1/b", "3"),
    ];
    let together = writer.commit(batch).await?;
    room.put(&writer, "ns1/last", "4").await?;

    let one_by_one = ["put ns1/k=1", "put ns1/k=2", "put ns1/k=2", "deleted ns1/k"];
    let mut revisions = room.expect(&mut watch, &one_by_one).await?;
    ensure!(revisions.is_sorted_by(|a, b| a < b), "four commits were delivered at {revisions:?}");
    let mut batch = Vec::new();
    for _ in 0..3 {
        batch.push(room.told(&mut watch).await?);
    }
    if reader.atomicity() == Atomicity::Atomic {
        ensure!(
            batch.iter().all(|(_, revision)| *revision == together),
            "a commit at {together} was delivered as {batch:?}"
        );
    }
    revisions.extend(batch.iter().map(|(_, revision)| *revision));
    batch.sort();
    let events: Vec<_> = batch.iter().map(|(event, _)| event.as_str()).collect();
    ensure!(
        events == ["deleted ns1/old", "put ns1/a=3", "put ns1/b=3"],
        "a commit of three writes was delivered as {events:?}"
    );
    revisions.extend(room.expect(&mut watch, &["put ns1/last=4"]).await?);
    ensure!(revisions.is_sorted(), "changes were delivered out of order: {revisions:?}");
    Ok(())
}

pub(super) async fn replays_history<S: Datastore>(open: &impl AsyncFn() -> S) -> Result<(), Broken> {
    let store = open().await;
    let room = Room::clear(&store, "history").await?;
    let start = store.list(&room.folder("")).await?.revision;
    room.put(&store, "k", "1").await?;
    let second = room.put(&store, "k", "2").await?;
    room.put(&store, "gone", "1").await?;
    room.delete(&store, "gone").await?;
    let newest = room.put(&store, "l", "1").await?;
    let other = Room::clear(&store, "history-elsewhere").await?;
    other.put(&store, "k", "1").await?;

    let mut whole = open().await.watch(&room.folder(""), start).await?;
    let all = ["put k=1", "put k=2", "put gone=1", "deleted gone", "put l=1", "in-sync"];
    let revisions = room.expect(&mut whole, &all).await?;
    ensure!(revisions.is_sorted(), "history was replayed out of order: {revisions:?}");
    ensure!(revisions[1] == second, "a change at {second} was replayed at {}", revisions[1]);

    let mut part = open().await.watch(&room.folder(""), second).await?;
    room.expect(&mut part, &all[2..]).await?;
    let mut nothing = open().await.watch(&room.folder(""), newest).await?;
    room.expect(&mut nothing, &["in-sync"]).await?;
    room.put(&store, "l", "2").await?;
    for watch in [&mut whole, &mut part, &mut nothing] {
        room.expect(watch, &["put l=2"]).await?;
    }
    if store.atomicity() == Atomicity::Atomic {
        replays_commits_whole(&store, &room).await?;
    }
    Ok(())
}

/// Who has seen a part of a commit watches again from the revision before it.
async fn replays_commits_whole<S: Datastore>(store: &S, room: &Room) -> Result<(), Broken> {
    let together = store.commit(["x", "y", "z"].map(|name| room.write(name, "1")).to_vec()).await?;
    let mut watch = store.watch(&room.folder(""), Revision(together.0 - 1)).await?;
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(room.told(&mut watch).await?.0);
    }
    told.sort();
    ensure!(
        told == ["put x=1", "put y=1", "put z=1"],
        "a watch from before a commit of three writes delivered {told:?}"
    );
    room.expect(&mut watch, &["in-sync"]).await?;
    Ok(())
}

pub(super) async fn is_cancel_safe<S: Datastore>(open: &impl AsyncFn() -> S) -> Result<(), Broken> {
    let store = open().await;
    let room = Room::clear(&store, "cancel").await?;
    let from = store.list(&room.folder("")).await?.revision;
    let mut patient = store.watch(&room.folder(""), from).await?;
    let mut hasty = store.watch(&room.folder(""), from).await?;
    let dropped = store.watch(&room.folder(""), from).await?;
    room.expect(&mut patient, &["in-sync"]).await?;
    let mut events = Vec::new();
    for n in 0..20 {
        room.put(&store, "k", &n.to_string()).await?;
        // Begin to wait, and change one's mind: whatever was not returned has to come again.
        if let Some(event) = poll_once(hasty.next()).await {
            events.push(event?);
        }
    }
    drop(dropped);
    room.put(&store, "k", "last").await?;
    while !matches!(events.last(), Some(WatchEvent::Put(entry)) if entry.value == b"last") {
        events.push(hasty.next().await?);
    }
    let values: Vec<_> = events.iter().filter_map(value_of).collect();
    let mut expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    expected.push("last".to_owned());
    ensure!(values == expected, "a hasty watcher saw {values:?}");
    let told: Vec<_> = expected.iter().map(|value| format!("put k={value}")).collect();
    room.expect(&mut patient, &told.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    Ok(())
}

fn value_of(event: &WatchEvent) -> Option<String> {
    match event {
        WatchEvent::Put(entry) => Some(String::from_utf8_lossy(&entry.value).into_owned()),
        WatchEvent::Deleted { .. } | WatchEvent::InSync(_) => None,
    }
}

async fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

pub(super) async fn from_the_future_is_too_old<S: Datastore>(
    open: &impl AsyncFn() -> S,
) -> Result<(), Broken> {
    let store = open().await;
    let room = Room::clear(&store, "future").await?;
    let newest = room.put(&store, "k", "1").await?;
    let beyond = Revision(newest.0 + 1_000_000_000);
    let outcome = match store.watch(&room.folder(""), beyond).await {
        Ok(mut watch) => watch.next().await,
        Err(error) => Err(error),
    };
    match outcome {
        Err(WatchError::TooOld { from }) if from == beyond => Ok(()),
        Err(other) => Err(other.into()),
        Ok(event) => Err(Broken(format!("a watch from {beyond} delivered {event:?} at about {newest}"))),
    }
}

pub(super) async fn agrees_with_list<S: Datastore>(open: &impl AsyncFn() -> S) -> Result<(), Broken> {
    const WRITERS: usize = 3;
    const ROUNDS: usize = 30;
    let store = open().await;
    let room = &Room::clear(&store, "agree").await?;
    let start = store.list(&room.folder("")).await?.revision;
    let mut watch = store.watch(&room.folder(""), start).await?;

    let mut handles = Vec::new();
    for _ in 0..WRITERS {
        handles.push(open().await);
    }
    let mut tasks: Vec<Pin<Box<dyn Future<Output = Result<_, Broken>>>>> = Vec::new();
    for (writer, handle) in handles.iter().enumerate() {
        tasks.push(Box::pin(async move {
            for round in 0..ROUNDS {
                let shared = format!("shared-{}", (writer + round) % 4);
                match round % 5 {
                    4 => room.delete(handle, &shared).await?,
                    _ => room.put(handle, &shared, &format!("{writer}.{round}")).await?,
                };
            }
            room.put(handle, &format!("done-{writer}"), "").await?;
            Ok(BTreeMap::new())
        }));
    }
    tasks.push(Box::pin(async move {
        let mut state = BTreeMap::new();
        let mut marks = 0;
        let mut last = start;
        while state.keys().filter(|key: &&super::super::Key| key.as_str().contains("/done-")).count()
            < WRITERS
            || marks == 0
        {
            let revision = match watch.next().await? {
                WatchEvent::Put(entry) => {
                    let revision = entry.revision;
                    state.insert(entry.key.clone(), entry);
                    revision
                }
                WatchEvent::Deleted { key, revision } => {
                    ensure!(state.remove(&key).is_some(), "{key} was deleted twice");
                    revision
                }
                WatchEvent::InSync(_) => {
                    marks += 1;
                    ensure!(marks == 1, "the watch was in sync {marks} times");
                    continue;
                }
            };
            ensure!(revision > last, "single writes were delivered at {last} and then {revision}");
            last = revision;
        }
        Ok(state)
    }));
    let mut watched = BTreeMap::new();
    for result in join(tasks).await {
        watched.append(&mut result?);
    }
    let listed = store.list(&room.folder("")).await?.entries;
    ensure!(
        watched.values().eq(&listed),
        "the watch ended with {:?}, the listing shows {listed:?}",
        watched.values().collect::<Vec<_>>()
    );
    Ok(())
}
