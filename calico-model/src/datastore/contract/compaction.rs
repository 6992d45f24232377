//! What a store owes its watchers once it has forgotten.

use super::super::{Datastore, WatchError};
use super::room::Room;
use super::{Broken, Violation, ensure};
use crate::revision::Revision;

/// Checks that a store which forgot its history says so.
///
/// `compact` is the store's own way to forget all changes up to and including a revision.
///
/// # Errors
/// When a watch from before the compaction is not reported as too old, or when anything that is still kept is not
/// served.
pub async fn verify_compaction<S: Datastore>(
    store: &S,
    compact: impl AsyncFnOnce(Revision),
) -> Result<(), Violation> {
    check(store, compact)
        .await
        .map_err(|Broken(detail)| Violation { promise: "compaction is reported as too old", detail })
}

async fn check<S: Datastore>(store: &S, compact: impl AsyncFnOnce(Revision)) -> Result<(), Broken> {
    let room = Room::clear(store, "compaction").await?;
    let old = room.put(store, "k", "1").await?;
    room.put(store, "k", "2").await?;
    let mut current = store.watch(&room.folder(""), old).await?;
    room.expect(&mut current, &["put k=2", "in-sync"]).await?;
    let kept = room.put(store, "l", "1").await?;
    room.expect(&mut current, &["put l=1"]).await?;
    compact(kept).await;

    let outcome = match store.watch(&room.folder(""), old).await {
        Ok(mut watch) => watch.next().await,
        Err(error) => Err(error),
    };
    match outcome {
        Err(WatchError::TooOld { from }) => ensure!(from == old, "a watch from {old} was too old for {from}"),
        Err(other) => return Err(other.into()),
        Ok(event) => return Err(Broken(format!("a watch from before the compaction delivered {event:?}"))),
    }
    let entries = store.list(&room.folder("")).await?.entries;
    ensure!(entries.len() == 2, "compaction took entries away: {entries:?}");
    let mut watch = store.watch(&room.folder(""), kept).await?;
    room.expect(&mut watch, &["in-sync"]).await?;
    room.put(store, "k", "3").await?;
    for watch in [&mut current, &mut watch] {
        room.expect(watch, &["put k=3"]).await?;
    }
    Ok(())
}
