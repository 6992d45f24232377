//! Listings: the right keys, in order, at one instant.

use std::future::Future;
use std::pin::Pin;

use super::super::{Atomicity, Datastore, Prefix};
use super::room::{Room, join};
use super::{Broken, ensure};

pub(super) async fn list_is_one_folder_in_order<S: Datastore>(
    open: &impl AsyncFn() -> S,
) -> Result<(), Broken> {
    let store = open().await;
    let room = Room::clear(&store, "folder").await?;
    let names = [
        "ns1/b",
        "ns1/a/deep",
        "ns1/a",
        "ns1",
        "ns10/a",
        "ns1-x/a",
        "ns1.x",
        "ns1!",
        "ns",
        "NS1/a",
        "ns1/a-b",
    ];
    for name in names {
        room.put(&store, name, "v").await?;
    }
    let inside = store.list(&room.folder("ns1")).await?;
    let listed: Vec<_> = inside.entries.iter().map(|entry| entry.key.clone()).collect();
    let expected = ["ns1/a", "ns1/a-b", "ns1/a/deep", "ns1/b"].map(|name| room.key(name));
    ensure!(listed == expected, "the folder ns1 was listed as {listed:?} instead of {expected:?}");
    ensure!(
        inside.entries.iter().all(|entry| entry.revision <= inside.revision),
        "an entry is newer than the listing at {}",
        inside.revision
    );
    let none = store.list(&room.folder("ns1/missing")).await?;
    ensure!(none.entries.is_empty(), "a folder that does not exist has entries");
    ensure!(none.revision >= inside.revision, "an empty listing is at {}, older than before", none.revision);
    let all = Prefix::new("/").map_err(|error| Broken(error.to_string()))?;
    let everything = store.list(&all).await?.entries;
    let ours = everything.iter().filter(|entry| room.folder("").contains(&entry.key)).count();
    ensure!(ours == names.len(), "the whole store holds {ours} of the {} keys of the room", names.len());
    ensure!(everything.is_sorted_by(|a, b| a.key < b.key), "the whole store is not listed in key order");
    Ok(())
}

pub(super) async fn list_is_one_instant<S: Datastore>(open: &impl AsyncFn() -> S) -> Result<(), Broken> {
    const PAIRS: usize = 60;
    let (reader, writer) = (open().await, open().await);
    let room = &Room::clear(&reader, "instant").await?;
    // Larger than a page of any store: many entries, and a few of a megabyte between the two that must agree.
    for hundred in 0..20 {
        let some = (0..100).map(|n| room.write(&format!("many/{hundred:02}-{n:02}"), "v"));
        writer.commit(some.collect()).await?;
    }
    let megabyte = "v".repeat(1_000_000);
    for n in 0..6 {
        room.put(&writer, &format!("large/{n}"), &megabyte).await?;
    }
    let commit = async |n: usize| -> Result<(), Broken> {
        let value = n.to_string();
        writer.commit(vec![room.write("a-first", &value), room.write("z-last", &value)]).await?;
        Ok(())
    };
    commit(0).await?;
    let writing: Pin<Box<dyn Future<Output = Result<(), Broken>>>> = Box::pin(async {
        for n in 1..PAIRS {
            commit(n).await?;
        }
        Ok(())
    });
    let reading: Pin<Box<dyn Future<Output = Result<(), Broken>>>> = Box::pin(async {
        for _ in 0..4 {
            let listing = reader.list(&room.folder("")).await?;
            ensure!(listing.entries.len() == 2008, "{} of 2008 keys were listed", listing.entries.len());
            let (Some(first), Some(last)) = (listing.entries.first(), listing.entries.last()) else {
                return Err(Broken("the listing is empty".to_owned()));
            };
            let same = first.value == last.value && first.revision == last.revision;
            ensure!(
                same || reader.atomicity() == Atomicity::InOrder,
                "two keys of one commit were listed at {} and {}",
                first.revision,
                last.revision
            );
            ensure!(last.revision <= listing.revision, "an entry is newer than its listing");
        }
        Ok(())
    });
    join(vec![writing, reading]).await.into_iter().collect()
}
