//! IPAM's stored data: blocks, affinities, handles and the configuration.
#![no_main]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, UNIX_EPOCH};

use calico_ipam::{Block, Holder};
use calico_model::resource::block::{StoredAffinity, StoredBlock, StoredHandle, StoredIpamConfig};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|text: &[u8]| {
    reads_back::<StoredAffinity>(text);
    reads_back::<StoredHandle>(text);
    reads_back::<StoredIpamConfig>(text);
    let Some(stored) = reads_back::<StoredBlock>(text) else { return };
    let _ = (stored.host(), stored.borrowed().count());
    let Ok(block) = Block::try_from(stored) else { return };
    assert_eq!(Block::try_from(StoredBlock::from(&block)).as_ref(), Ok(&block));
    in_use(&block);
});

/// An address that is assigned is held, and freed by a release; whoever else holds one keeps it.
fn in_use(block: &Block) {
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let cooldown = Duration::from_secs(30);
    let block = block.thawed(now, cooldown);
    let holder = Holder { handle: "of the fuzzer".to_owned(), attributes: BTreeMap::new() };
    let (assigned, addrs) = block.assign(3, &holder, &[], now, cooldown);
    assert_eq!(addrs.len(), block.free().min(3));
    assert_eq!(assigned.held(), block.held() + addrs.len());
    let freed = assigned.release_handle(&holder.handle, now, Duration::ZERO);
    assert!(freed.freed.len() >= addrs.len() && freed.block.count_of(&holder.handle) == 0);
    assert_eq!(freed.block.held() + freed.freed.len(), assigned.held());
}

fn reads_back<T: DeserializeOwned + Serialize + PartialEq + Debug>(text: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(text).ok()?;
    let written = serde_json::to_vec(&value).expect("data is written as JSON");
    let again: T = serde_json::from_slice(&written).expect("what is written is read");
    assert_eq!(again, value);
    Some(value)
}
