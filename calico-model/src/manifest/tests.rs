use serde_json::json;

use super::*;

fn error(text: &str) -> String {
    let read = parse(text.as_bytes());
    assert_eq!(read.len(), 1, "{text:?}: {read:?}");
    read[0].as_ref().unwrap_err().to_string()
}

fn names(text: &str) -> Vec<String> {
    let name = |document: Result<Document, ManifestError>| {
        document.unwrap().metadata("name").unwrap_or_default().to_owned()
    };
    parse(text.as_bytes()).into_iter().map(name).collect()
}

fn pool(name: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{cidr: 10.0.0.0/16}}\n"
    )
}

#[test]
fn documents_lists_and_bare_lists_are_taken_apart() {
    let documents = format!("# first\n---\n{}---\n# nothing\n---\n{}...\n---\n", pool("a"), pool("b"));
    assert_eq!(names(&documents), ["a", "b"]);
    let item = |name: &str| format!("- {}", pool(name).trim_end().replace('\n', "\n  "));
    assert_eq!(
        names(&format!("kind: List\napiVersion: v1\nitems:\n{}\n{}\n", item("a"), item("b"))),
        ["a", "b"]
    );
    assert_eq!(names(&format!("{}\n{}\n", item("a"), item("b"))), ["a", "b"]);
    let typed = "apiVersion: projectcalico.org/v3\nkind: IPPoolList\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n";
    assert_eq!(names(typed), ["a", "b"]);
    assert_eq!(names("kind: List\nitems: []\n"), [""; 0]);
    assert_eq!(names("\u{feff}# only a remark\r\n"), [""; 0]);
}

#[test]
fn json_is_read_too() {
    let text = r#"{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"a","annotations":{"x":"\ud83d\ude00 \/"}}}"#;
    let read = parse(text.as_bytes()).remove(0).unwrap();
    assert_eq!(read.value()["metadata"]["annotations"]["x"], "😀 /");
}

#[test]
fn one_wrong_document_does_not_hide_the_others() {
    let text = format!("{}---\na: [1\nb: 2\n---\nkind: Banana\n---\n{}", pool("a"), pool("b"));
    let read = parse(text.as_bytes());
    let found: Vec<bool> = read.iter().map(Result::is_ok).collect();
    assert_eq!(found, [true, false, false, true]);
    let syntax = read[1].as_ref().unwrap_err().to_string();
    assert!(syntax.starts_with("document 2 (line 7, column 2): "), "{syntax}");
    let kind = read[2].as_ref().unwrap_err().to_string();
    assert!(kind.starts_with("document 3 (line 9): apiVersion (none) is not known"), "{kind}");
}

#[test]
fn errors_say_where_and_what() {
    for (text, expected) in [
        ("a: 1\na: 2\n", "document 1 (line 2, column 1): the key \"a\" is given twice"),
        ("x: \"a\\0b\"\n", "document 1 (line 1, column 4): the text has a NUL character"),
        (
            "- just text\n",
            "document 1, item 1 (line 1): a resource must be an object with apiVersion, kind and metadata, and this is text",
        ),
        (
            "just text\n",
            "document 1 (line 1): a resource must be an object with apiVersion, kind and metadata, and this is text",
        ),
        ("kind: List\nitems: 3\n", "document 1 (line 1): the items of a list must be a list"),
        (
            "apiVersion: projectcalico.org/v3\nkind: Banana\n",
            "document 1 (line 1): kind \"Banana\" is not known",
        ),
    ] {
        assert_eq!(error(text), expected, "{text:?}");
    }
}

#[test]
fn hostile_input_is_one_short_error() {
    let deep_block: String = (0..10_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    let mut aliases = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..20 {
        aliases += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(","));
    }
    let large_aliases = format!("a: &a {}\nb: [{}]\n", "x".repeat(1_000_000), vec!["*a"; 5000].join(","));
    let quotes = format!("a: \"{}", "x".repeat(100_000));
    let keys = format!("? {}", "? ".repeat(10_000));
    let tags = format!("{} x", "!a ".repeat(10_000));
    for text in [
        "[".repeat(10_000),
        "{a: ".repeat(10_000),
        "- ".repeat(10_000),
        deep_block,
        aliases,
        large_aliases,
        quotes,
        keys,
        tags,
    ] {
        let error = error(&text);
        assert!(error.len() < 200 && !error.contains('\n'), "{error}");
    }
}

#[test]
fn what_is_not_text_or_too_large_is_refused_at_once() {
    assert!(matches!(parse(b"a: \xff\n")[..], [Err(ManifestError::NotUtf8 { offset: 3 })]));
    let large = vec![b'#'; MAX_BYTES + 1];
    assert!(matches!(parse(&large)[..], [Err(ManifestError::TooLarge { .. })]));
    assert!(matches!(
        parse("---\nx\n".repeat(MAX_DOCUMENTS + 1).as_bytes())[..],
        [Err(ManifestError::TooMany)]
    ));
}

#[test]
fn thousands_of_documents_are_read() {
    let text: String = (0..1_100).map(|i| format!("{}---\n", pool(&format!("p{i}")))).collect();
    assert_eq!(parse(text.as_bytes()).into_iter().filter(Result::is_ok).count(), 1_100);
}

#[test]
fn what_is_written_is_read_back_and_no_reader_takes_it_for_something_else() {
    let value = json!({
        "yes": "yes", "on": "on", "date": "2024-01-01", "time": "1:30", "hex": "0x10", "number": "1_000", "null": "null",
        "tilde": "~", "empty": "", "colon": "a: b", "lines": "a\nb", "hash": "a #b", "equals": "=", "y": "y",
        "selector": "role == 'x' && a in {\"b\"}", "star": "*", "order": 100, "half": 0.5, "list": [], "object": {},
        "deep": [{"a": [1, {"b": null}]}], "long": "word ".repeat(60), "control": "\u{1}\u{7f}\u{85}", "space": " a ",
    });
    let text = to_yaml(&value);
    assert_eq!(values(text.as_bytes()).remove(0).1.unwrap(), value);
    for line in ["date: \"2024-01-01\"", "\"yes\": \"yes\"", "time: \"1:30\"", "order: 100", "half: 0.5"] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_yaml_list_of_the_v1_dialect_comes_out_as_todays_resources() {
    let text = "
- apiVersion: v1
  kind: ipPool
  metadata:
    cidr: 10.20.0.0/24
  spec:
    ipip:
      enabled: true
    nat-outgoing: true
- apiVersion: v1
  kind: policy
  metadata: {name: database}
  spec:
    order: 0
    selector: role == 'database'
    ingress:
    - action: allow
      protocol: tcp
      source: {selector: role == 'frontend'}
      destination: {ports: [3306]}
";
    let kinds: Vec<&str> =
        parse(text.as_bytes()).iter().map(|read| read.as_ref().unwrap().kind().as_str()).collect();
    assert_eq!(kinds, ["IPPool", "GlobalNetworkPolicy"]);
}
