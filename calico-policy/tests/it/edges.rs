//! Every edge that others got wrong is answered: by a test that cites its id, or in `EDGES.md`.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

/// The ids there are.
const EDGES: [RangeInclusive<u32>; 7] = [1..=18, 20..=28, 30..=40, 45..=55, 60..=68, 70..=81, 90..=99];

/// Adds the names of all tests under a folder.
fn tests(folder: &Path, names: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let functions = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn "));
            functions.filter_map(|line| line.split('(').next()).for_each(|name| {
                names.push_str(name);
                names.push('\n');
            });
        }
    }
}

#[test]
fn every_edge_has_a_test_or_an_answer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let answers = fs::read_to_string(root.join("EDGES.md")).unwrap();
    let mut names = String::new();
    tests(&root.join("src"), &mut names);
    tests(&root.join("tests"), &mut names);
    let is_cited = |id: u32| {
        let word = format!("pe{id:02}");
        names.lines().any(|name| name.split('_').any(|part| part == word))
    };
    let open: Vec<String> = EDGES
        .into_iter()
        .flatten()
        .filter(|id| !is_cited(*id) && !answers.contains(&format!("PE-{id:02}")))
        .map(|id| format!("PE-{id:02}"))
        .collect();
    assert_eq!(open, [""; 0], "no test is named after these, and EDGES.md says nothing of them");
}
