//! What selectors promise of memory.

use std::hint::black_box;

use calico_model::resource::{Object, Profile, WorkloadEndpoint};
use calico_model::{Labels, Selector, Snapshot};

use crate::allocations::used_by;

/// One of every operator, a set that is searched by halving among them.
fn selectors() -> Vec<Selector> {
    let many: Vec<String> = (0..100).map(|n| format!("'v{n}'")).collect();
    [
        "app == 'web' && tier in {'backend', 'frontend'} && !has(quarantine)",
        "app != 'web' || tier not in {'backend'} || has(app)",
        "app contains 'e' && app starts with 'w' && !(app ends with 'x')",
        "all() && !global()",
        &format!("app in {{{}}} || zone not in {{{}}}", many.join(","), many.join(",")),
    ]
    .map(|text| text.parse().expect("a sound selector"))
    .into()
}

#[test]
fn matching_allocates_nothing() {
    let few = Labels::from([("app", "web"), ("tier", "frontend")]);
    let many: Labels =
        (0..40).map(|n| (format!("label-{n}"), "value")).chain([("app".to_owned(), "v7")]).collect();

    let mut snapshot = Snapshot::default();
    let mut profile = Profile::allow_all();
    profile.labels_to_apply = Labels::from([("tier", "backend")]);
    snapshot.insert(Object::new("kns.default".parse().unwrap(), profile));
    let mut endpoint = Object::new("web".parse().unwrap(), WorkloadEndpoint::on("node1".parse().unwrap()));
    endpoint.metadata.labels = Labels::from([("app", "web")]);
    endpoint.spec.profiles = vec!["kns.default".parse().unwrap()];
    let inherited = snapshot.workload_labels(&endpoint);

    for selector in selectors() {
        let (_, used) = used_by(|| {
            black_box([selector.matches(&few), selector.matches(&many), selector.matches(&inherited)])
        });
        assert_eq!(used.allocations, 0, "{selector}");
    }
    assert!(selectors()[0].matches(&inherited));
    let (_, used) = used_by(|| selectors()[0].to_string());
    assert!(used.allocations > 0, "nothing is counted");
}
