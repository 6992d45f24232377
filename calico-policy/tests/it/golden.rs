//! Resources in, nft text out. `UPDATE_GOLDEN=1` rewrites the text; review reads the difference.

use std::path::{Path, PathBuf};

use calico_model::{Snapshot, Update, manifest};
use calico_policy::compile;

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
