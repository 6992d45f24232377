//! Keys as a foreign writer may have left them, with any bytes as their values: a line of key, then the value.
#![no_main]

use calico_model::datastore::{Entry, Key};
use calico_model::resource::block::{affinity_from_key, affinity_key, block_from_key, block_key};
use calico_model::resource::{Kind, ResourceKey};
use calico_model::{Revision, Snapshot, Update};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(path) = str::from_utf8(&data[..end]) else { return };
    let value = data.get(end + 1..).unwrap_or_default();
    for path in [path.to_owned(), format!("{}{path}", Kind::all_prefix()), format!("/calico/ipam/v2/{path}")]
    {
        let Ok(key) = path.parse::<Key>() else { continue };
        if let Some(resource) = ResourceKey::from_datastore_key(&key) {
            assert_eq!(resource.datastore_key(), key);
            assert!(resource.kind.datastore_prefix().contains(&key));
        }
        if let Some(block) = block_from_key(&key) {
            assert_eq!(block_from_key(&block_key(&block)), Some(block));
        }
        if let Some((owner, block)) = affinity_from_key(&key) {
            assert_eq!(affinity_from_key(&affinity_key(&owner, &block)), Some((owner, block)));
        }
        let entry = Entry { key: key.clone(), value: value.to_vec(), revision: Revision(1) };
        let update = Update::from_entry(&entry);
        assert_eq!(update.is_some(), Update::from_deletion(&key).is_some());
        let mut snapshot = Snapshot::default();
        update.into_iter().chain(Update::from_deletion(&key)).for_each(|update| snapshot.apply(update));
        assert_eq!(snapshot, Snapshot::default());
    }
});
