//! `calicoctl selector`: answers by text, by JSON and by exit status.

use serde_json::json;

use super::Cluster;

#[test]
fn a_selector_is_tried_against_labels() {
    let cluster = Cluster::new("selector-eval");
    let expression = "role == 'db' && has(tier)";
    let matches = cluster.run(&["selector", "eval", expression, "-l", "role=db,tier=x"]);
    assert_eq!((matches.code, matches.out.as_str(), matches.err.as_str()), (0, "true\n", ""));
    let repeated = cluster.run(&["selector", "eval", expression, "-l", "role=db", "-l", "tier=x"]);
    assert_eq!((repeated.code, repeated.out.as_str()), (0, "true\n"));
    let fails = cluster.run(&["selector", "eval", expression]);
    assert_eq!((fails.code, fails.out.as_str(), fails.err.as_str()), (1, "false\n", ""));
    let json = cluster.run(&["selector", "eval", "a == 'b'", "-l", "a=c", "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, answer), (1, json!({"selector": "a == \"b\"", "matches": false})));
}

#[test]
fn a_bad_selector_is_shown_with_a_caret() {
    let cluster = Cluster::new("selector-bad");
    for verb in ["eval", "canonical", "id"] {
        let bad = cluster.run(&["selector", verb, "role == "]);
        assert_eq!((bad.code, bad.out.as_str()), (2, ""), "{verb}");
        assert!(bad.err.contains("column 9"), "{}", bad.err);
        assert!(bad.err.ends_with("\n    role == \n            ^\n"), "{}", bad.err);
    }
    let label = cluster.run(&["selector", "eval", "all()", "-l", "role"]);
    assert_eq!((label.code, label.err.as_str()), (2, "\"role\" is not a label: write key=value\n"));
    let nameless = cluster.run(&["selector", "eval", "all()", "-l", "a=b,=c"]);
    assert_eq!((nameless.code, nameless.err.as_str()), (2, "\"=c\" is not a label: write key=value\n"));
}

#[test]
fn every_spelling_has_one_canonical_form_and_one_id() {
    let cluster = Cluster::new("selector-id");
    assert_eq!(cluster.ok(&["selector", "canonical", "a in {'c','b', 'c'}"]), "a in {\"b\", \"c\"}\n");
    assert_eq!(cluster.ok(&["selector", "id", "a == 'b'"]), "s:flMh0m0X_BowkAK_W3j3MgH8oQOsj3WxGDoXCQ\n");
    assert_eq!(
        cluster.json(&["selector", "id", "", "-o", "json"]),
        json!({"canonical": "all()", "id": "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"})
    );
    assert_eq!(
        cluster.json(&["selector", "canonical", "!has(a)", "-o", "json"]),
        json!({"canonical": "!has(a)"})
    );
}
