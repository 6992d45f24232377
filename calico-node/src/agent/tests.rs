use calico_model::resource::{Object, ObjectId};

use super::*;

#[test]
fn what_no_decision_of_a_node_is_made_from_wakes_nobody_unless_it_was_told_as_invalid() {
    let key = |kind| ResourceKey { kind, id: ObjectId::from("one".parse::<Name>().unwrap()) };
    let mut snapshot = Snapshot::default();
    let removed = |kind| Update::Removed(key(kind));
    for kind in Kind::ALL.iter().copied() {
        let told = format!("{kind:?}");
        let is_nothing = told.starts_with("Ipam") || told.starts_with("Staged");
        let is_nothing = is_nothing
            || [Kind::BlockAffinity, Kind::CalicoNodeStatus, Kind::KubeControllersConfiguration]
                .contains(&kind);
        assert_eq!(bears_on_node(&removed(kind), &snapshot), !is_nothing, "{kind}");
    }
    let invalid =
        Update::Invalid { key: key(Kind::CalicoNodeStatus), problem: "bad".to_owned(), closed: None };
    assert!(bears_on_node(&invalid, &snapshot));
    snapshot.apply(invalid);
    assert!(bears_on_node(&removed(Kind::CalicoNodeStatus), &snapshot));
    assert!(bears_on_node(&Update::InSync, &snapshot));
}

#[test]
fn status_tells_of_a_datastore_that_is_locked() {
    let mut snapshot = Snapshot::default();
    for (ready, is_told) in [(None, false), (Some(false), true), (Some(true), false)] {
        let cluster = ClusterInformation {
            cluster_guid: String::new(),
            cluster_type: String::new(),
            calico_version: String::new(),
            datastore_ready: ready,
            variant: String::new(),
        };
        snapshot.insert(Object::new(ClusterInformation::NAME.parse().unwrap(), cluster));
        assert_eq!(datastore_problems(&snapshot).count() == 1, is_told, "{ready:?}");
    }
}
