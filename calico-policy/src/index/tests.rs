//! What is found through labels and sets is what asking each finds.

use std::sync::Arc;

use calico_model::Labels;
use calico_model::resource::{Kind, NetworkSet, Object, ObjectId, WorkloadEndpoint};
use calico_model::strategies;
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn workload(place: usize, labels: Labels, parents: Vec<Name>) -> (ResourceKey, Labelled) {
    let mut endpoint = WorkloadEndpoint::on("node".parse().expect("a name"));
    endpoint.profiles = parents;
    let mut object = Object::new(name(&format!("w{place}")), endpoint);
    object.metadata.labels = labels;
    (object.key(), Labelled::Workload(Arc::new(object)))
}

fn set(place: usize, labels: Labels) -> (ResourceKey, Labelled) {
    let mut object = Object::new(name(&format!("s{place}")), NetworkSet { nets: Vec::new() });
    object.metadata.labels = labels;
    let key = ResourceKey { kind: Kind::NetworkSet, id: ObjectId::from(object.metadata.name.clone()) };
    (key, Labelled::Set(Arc::new(object)))
}

/// Something that happens to an index.
#[derive(Debug, Clone)]
enum Step {
    Put(usize, Labels, Vec<usize>),
    PutSet(usize, Labels),
    Remove(usize),
    Parent(usize, Option<Labels>),
    Use(Selector),
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let put = (0usize..6, strategies::labels(), proptest::collection::vec(0usize..3, 0..3));
    prop_oneof![
        3 => put.prop_map(|(place, labels, parents)| Step::Put(place, labels, parents)),
        1 => (0usize..6, strategies::labels()).prop_map(|(place, labels)| Step::PutSet(place, labels)),
        1 => (0usize..6).prop_map(Step::Remove),
        1 => (0usize..3, proptest::option::of(strategies::labels())).prop_map(|(p, l)| Step::Parent(p, l)),
        3 => strategies::selector().prop_map(Step::Use),
        1 => (0usize..6).prop_map(Step::Release),
    ]
}

proptest! {
    #[test]
    fn selectors_and_things_find_each_other_whatever_happens(steps in proptest::collection::vec(step(), 1..40)) {
        let mut index: Index<()> = Index::default();
        let mut used: Vec<SelectorId> = Vec::new();
        for step in steps {
            match step {
                Step::Put(place, labels, parents) => {
                    let parents = parents.iter().map(|place| name(&format!("p{place}"))).collect();
                    let (key, labelled) = workload(place, labels, parents);
                    index.put(&key, labelled, ());
                }
                Step::PutSet(place, labels) => {
                    let (key, labelled) = set(place, labels);
                    index.put(&key, labelled, ());
                }
                Step::Remove(place) => {
                    let (key, _) = workload(place, Labels::new(), Vec::new());
                    index.remove(&key);
                }
                Step::Parent(place, labels) => {
                    index.set_parent(&name(&format!("p{place}")), labels.as_ref());
                }
                Step::Use(selector) => used.push(index.use_selector(&selector)),
                Step::Release(place) if place < used.len() => index.release_selector(used.swap_remove(place)),
                Step::Release(_) => index.forget_idle_keys(),
            }
            for id in &used {
                let selector = index.selectors[id.at()].selector.clone();
                let every = index.items.iter().map(|(id, _)| ItemId(place(id)));
                let matched: Vec<ItemId> = every.filter(|item| index.is_matched(*item, &selector)).collect();
                prop_assert!(index.matching(*id).iter().eq(matched.iter().copied()), "{}", selector);
                let by_sets = index.matching_among(selector.expr(), &index.items.iter().map(|(id, _)| ItemId(place(id))).collect());
                let by_sets = by_sets.expect("every kind is known");
                prop_assert!(by_sets.iter().eq(matched.iter().copied()), "by sets: {}", selector);
                for (place_of, item) in &index.items {
                    let holds = matched.contains(&ItemId(place(place_of)));
                    prop_assert_eq!(item.matched.contains(id), holds);
                }
            }
        }
    }
}
