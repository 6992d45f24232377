//! Resources in, nft text out. `UPDATE_GOLDEN=1` rewrites the text; review reads the difference.

use std::path::{Path, PathBuf};

use calico_model::{Snapshot, Update, manifest};
use calico_policy::compile;
use calico_policy::ruleset::{Action, Chain, Hook, Ruleset};

/// Reads the resources of `golden/NAME.yaml`.
pub(crate) fn world(name: &str) -> Snapshot {
    parsed(&std::fs::read(path(name, "yaml")).unwrap())
}

/// Reads the resources of a manifest.
pub(crate) fn parsed(text: &[u8]) -> Snapshot {
    let mut world = Snapshot::default();
    for document in manifest::parse(text) {
        let resource = document.unwrap().check_input().unwrap();
        world.apply(Update::Put(Box::new(resource)));
    }
    world
}

fn path(name: &str, extension: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name).with_extension(extension)
}

fn check(name: &str) {
    let ruleset = compile(&world(name), &"node-1".parse().unwrap());
    let text = ruleset.to_string();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path(name, "nft"), &text).unwrap();
    }
    let golden = std::fs::read_to_string(path(name, "nft")).unwrap();
    for (number, (line, wanted)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(line, wanted, "line {} of {name}.nft, which UPDATE_GOLDEN=1 rewrites", number + 1);
    }
    assert_eq!(text.len(), golden.len(), "UPDATE_GOLDEN=1 rewrites {name}.nft");
}

#[test]
fn the_database_and_frontend_pair() {
    check("database");
}

/// Reports whether a chain leads to a map.
fn leads_to(ruleset: &Ruleset, chain: &Chain, map: &str) -> bool {
    chain.rules.iter().any(|rule| {
        if let Action::Jump(next) | Action::Goto(next) = &rule.action {
            return leads_to(ruleset, &ruleset.chains[next], map);
        }
        matches!(&rule.action, Action::Dispatch(_, led) if led.as_str() == map)
    })
}

/// The kernel goes through a chain once for each hook that leads to it, whenever a rule changes.
#[test]
fn workloads_are_led_to_their_policies_from_one_hook_in_each_direction() {
    let ruleset = compile(&world("database"), &"node-1".parse().unwrap());
    for (map, hook) in [("cali-from-workload", Hook::Prerouting), ("cali-to-workload", Hook::Forward)] {
        let leading = ruleset.chains.values().filter(|chain| leads_to(&ruleset, chain, map));
        let hooks: Vec<Hook> = leading.filter_map(|chain| chain.base).map(|base| base.hook).collect();
        assert_eq!(hooks, [hook], "{map}");
    }
}
