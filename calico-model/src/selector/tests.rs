use super::*;
use crate::Labels;

fn selector(text: &str) -> Selector {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> SelectorError {
    match text.parse::<Selector>() {
        Ok(parsed) => panic!("{text} was read as {parsed}"),
        Err(error) => error,
    }
}

#[test]
fn the_canonical_text_and_the_id_are_those_of_calico() {
    for (input, canonical, id) in [
        ("", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        ("\t ", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        ("(( all( ) ))", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        ("global()", "global()", "s:fiJDJdBoaP_zQxty70sMjIrxwAb5lgM6LYCAow"),
        ("a=='b'", r#"a == "b""#, "s:flMh0m0X_BowkAK_W3j3MgH8oQOsj3WxGDoXCQ"),
        ("a=='b'&&has(c)", r#"(a == "b" && has(c))"#, "s:a7YG9G3XyFzmdwcUzkbtw0ffcKn8o5bm1xsGyQ"),
        ("a in {'c','b','c',}", r#"a in {"b", "c"}"#, "s:SWnTWyWAHLeqA5PXVyAxVZVSk3-7hrbBcNkTsA"),
        ("!(has(b)||!!!has( a ))", "!(has(b) || !has(a))", "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q"),
        ("!(a=='b'&&!c!='d')", r#"!(a == "b" && !c != "d")"#, "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w"),
    ] {
        let parsed = selector(input);
        assert_eq!(parsed.to_string(), canonical, "{input:?}");
        assert_eq!(parsed.id(), id, "{input:?}");
        assert_eq!(selector(canonical), parsed, "{input:?}");
    }
}

#[test]
fn every_spelling_has_one_canonical_text() {
    for (input, canonical) in [
        ("a != '\"'", "a != '\"'"),
        ("a contains \"it's\"", "a contains \"it's\""),
        ("a startswith 'x'", "a starts with \"x\""),
        ("a starts\t with'x'", "a starts with \"x\""),
        ("a endswith 'x'", "a ends with \"x\""),
        ("a notin {}", "a not in {}"),
        ("a not \t in{\"x\"}", "a not in {\"x\"}"),
        ("a == 'a' || b == 'b' && c == 'c'", r#"(a == "a" || (b == "b" && c == "c"))"#),
        ("has(a) && has(b) && has(c)", "(has(a) && has(b) && has(c))"),
        ("(has(a) && has(b)) && has(c)", "((has(a) && has(b)) && has(c))"),
        ("!(!has(a))", "has(a)"),
        ("!!!(!has(a))", "has(a)"),
        ("! a == 'b'", "!a == \"b\""),
        ("a in {'\"', \"'\"}", "a in {'\"', \"'\"}"),
        ("a == 'zwei\nZeilen, ü'", "a == \"zwei\nZeilen, ü\""),
    ] {
        assert_eq!(selector(input).to_string(), canonical, "{input:?}");
        assert_eq!(selector(canonical), selector(input), "{input:?}");
    }
}

#[test]
fn words_are_operators_only_after_a_label() {
    for (text, key, value) in [
        (r#"contains contains "contains""#, "contains", "contains"),
        (r#"in in {"x"}"#, "in", "x"),
        (r#"not not in {"x"}"#, "not", "y"),
        (r#"notin notin{"x"}"#, "notin", "y"),
        (r#"all == "all""#, "all", "all"),
        (r#"has == "has""#, "has", "has"),
        (r#"global == "global""#, "global", "global"),
        (r#"starts starts with "x""#, "starts", "xy"),
        (r#"has(has)"#, "has", ""),
        (r#"-//.9 == "x""#, "-//.9", "x"),
    ] {
        assert!(selector(text).matches(&Labels::from([(key, value)])), "{text}");
    }
}

#[test]
fn an_absent_label_passes_only_negative_tests() {
    let none = Labels::new();
    for text in ["all()", "global()", "a != 'x'", "a not in {'x'}", "a not in {}", "!has(a)", "!a == 'x'"] {
        assert!(selector(text).matches(&none), "{text}");
    }
    for text in [
        "has(a)",
        "a == ''",
        "a in {''}",
        "a contains ''",
        "a starts with ''",
        "a ends with ''",
        "!a != 'x'",
        "!all()",
    ] {
        assert!(!selector(text).matches(&none), "{text}");
    }
}

#[test]
fn an_empty_value_is_present() {
    let empty = Labels::from([("a", "")]);
    for text in ["has(a)", "a == ''", "a in {''}", "a contains ''", "a starts with ''", "a ends with ''"] {
        assert!(selector(text).matches(&empty), "{text}");
    }
}

#[test]
fn large_sets_are_searched_as_small_ones() {
    for size in [1, 8, 9, 200] {
        let set = Selector::in_set("a", (0..size).map(|i| format!("v{i}"))).unwrap();
        let outside = Selector::not_in_set("a", (0..size).map(|i| format!("v{i}"))).unwrap();
        for i in 0..=size {
            let labels = Labels::from([("a", format!("v{i}"))]);
            assert_eq!(set.matches(&labels), i < size, "{i} of {size}");
            assert_eq!(outside.matches(&labels), i >= size, "{i} of {size}");
        }
    }
}

#[test]
fn the_first_source_that_has_a_label_wins() {
    let own = Labels::from([("a", "own")]);
    let first = Labels::from([("a", "first"), ("b", "first")]);
    let second = Labels::from([("b", "second"), ("c", "second")]);
    let chain = [&own, &first, &second];
    assert!(selector("a == 'own' && b == 'first' && c == 'second'").matches(&chain[..]));
}

#[test]
fn faults_are_shown_at_their_column() {
    for (input, column, message) in [
        ("b == b", 6, "expected a value in quotes after \"==\", found 'b'"),
        ("foo in \"\"", 8, "expected \"{\" after \"in\", found '\"'"),
        ("foo in {\"\", ||", 13, "expected a value in quotes after \"{\" or \",\", found '|'"),
        ("foo in {,}", 9, "expected a value in quotes after \"{\" or \",\", found ','"),
        ("foo in {'a' 'b'}", 13, "expected \",\" or \"}\", found '\\''"),
        ("a == 'x", 6, "the value that begins here has no closing '"),
        ("a == \"ü\" x", 10, "expected \"&&\", \"||\" or the end, found 'x'"),
        ("(has(a)", 8, "expected \"&&\", \"||\" or \")\", found the end"),
        ("has(a) &&", 10, "expected a label, \"has(\", \"all()\", \"!\" or \"(\", found the end"),
        ("has()", 5, "expected a label, found ')'"),
        ("all(x)", 5, "expected \")\", found 'x'"),
        ("has(a)\n&& has(b)", 7, "expected \"&&\", \"||\" or the end, found '\\n'"),
        ("has(a)\u{a0}", 7, "expected \"&&\", \"||\" or the end, found '\\u{a0}'"),
    ] {
        let error = refused(input);
        assert_eq!((error.column(), error.message()), (column, message), "{input:?}");
        assert_eq!(error.input(), input);
    }
    for input in
        ["b", "a b", "a inx {'b'}", "a starts 'b'", "a not 'b'", "has (a)", "all ()", "%", "()", ")", "!"]
    {
        refused(input);
    }
}

#[test]
fn the_caret_stands_under_the_fault_on_one_line() {
    let error = refused("a == 'x\ny' && %");
    assert_eq!(error.caret(), "a == 'x·y' && %\n              ^");
    assert_eq!(
        error.to_string(),
        "selector is invalid at column 15: expected a label, \"has(\", \"all()\", \"!\" or \"(\", found '%'"
    );

    let long = format!("{}%{}", "has(label) && ".repeat(50), "x".repeat(500));
    let caret = refused(&long).caret();
    let (line, pointer) = caret.split_once('\n').unwrap();
    assert!(line.chars().count() <= 82, "{line}");
    assert_eq!(line.chars().nth(pointer.chars().count() - 1), Some('%'), "{caret}");
}

#[test]
fn a_label_is_at_most_512_bytes_long() {
    let longest = "k".repeat(MAX_KEY);
    assert!(selector(&format!("has({longest})")).matches(&Labels::from([(longest.as_str(), "")])));
    assert_eq!(refused(&format!("has({longest}k)")).column(), 5);
    assert_eq!(refused(&format!("  {longest}k == 'x'")).column(), 3);
    assert!(Selector::has(&longest).is_ok());
    assert!(Selector::has(&format!("{longest}k")).is_err());
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{}has(a){}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(selector(&nested(MAX_NESTING)).to_string(), "has(a)");
    assert_eq!(refused(&nested(MAX_NESTING + 1)).message(), "expressions nest more than 100 deep");
    assert_eq!(refused(&"(".repeat(10_000)).column(), 101);
    assert_eq!(refused(&"!(".repeat(10_000)).column(), 202);
    assert_eq!(selector(&format!("{}has(a)", "! ".repeat(10_000))).to_string(), "has(a)");

    // One more level of operators than of parentheses: the canonical text could not be read back.
    let alternating = |depth: usize| {
        let open: String =
            (0..depth).map(|i| if i % 2 == 0 { "has(a) && (" } else { "has(b) || (" }).collect();
        format!("{open}has(c){}", ")".repeat(depth))
    };
    let deepest = selector(&alternating(MAX_NESTING));
    assert_eq!(selector(&deepest.to_string()), deepest);
    refused(&format!("{} || has(d)", alternating(MAX_NESTING)));
}

#[test]
fn length_is_bounded_before_and_after_printing() {
    let error = refused(&"has(a) && ".repeat(110_000));
    assert_eq!(
        error.message(),
        "a selector is at most 262144 bytes long and this one has 1100000; split the policy or use fewer values"
    );
    assert!(error.input().len() < 100);

    // Fits as typed, not as printed.
    refused(&format!("{}has(a)", "has(a)&&".repeat(MAX_LENGTH / 8 - 1)));
    let long = selector(&format!("{}has(a)", "has(a) && ".repeat(MAX_LENGTH / 10 - 2)));
    assert_eq!(selector(&long.to_string()), long);
}

#[test]
fn generated_terms_are_what_their_text_says() {
    let labels = ["x", "y", "it's", "\""];
    assert_eq!(Selector::equals("a", "b").unwrap(), selector("a == 'b'"));
    assert_eq!(Selector::has("a").unwrap(), selector("has(a)"));
    assert_eq!(Selector::not_has("a").unwrap(), selector("!has(a)"));
    assert_eq!(Selector::in_set("a", ["c", "b", "c"]).unwrap(), selector("a in {'b', 'c'}"));
    assert_eq!(Selector::not_in_set("a", [""; 0]).unwrap(), selector("a not in {}"));
    let quoted = Selector::in_set("a", labels).unwrap();
    assert_eq!(selector(&quoted.to_string()), quoted);
    assert_eq!(Selector::default(), Selector::all());
    assert!(selector("").is_all() && selector("global()").is_global());
}

#[test]
fn terms_that_cannot_be_written_are_refused() {
    assert_eq!(Selector::equals("a b", "c").unwrap_err().column(), 2);
    assert_eq!(Selector::has("").unwrap_err().message(), "a label cannot be empty");
    assert!(Selector::has("bücher").is_err());
    let escape = "x\" || all() || a == '";
    assert_eq!(Selector::equals("a", escape).unwrap_err().column(), 21);
    assert!(Selector::in_set("a", ["b", "'\""]).is_err());
    assert!(Selector::not_in_set("a", ["b", "\"'"]).is_err());
}

#[test]
fn conjunctions_join_and_all_vanishes() {
    let (a, b, c) = (selector("has(a)"), selector("has(b) || has(x)"), selector("has(c)"));
    assert_eq!(a.and(&b).and(&c), a.and(&b.and(&c)));
    assert_eq!(a.and(&b).and(&c).to_string(), "(has(a) && (has(b) || has(x)) && has(c))");
    assert_eq!(Selector::all().and(&a), a);
    assert_eq!(a.and(&Selector::all()), a);
}

#[test]
fn namespace_selectors_become_workload_selectors() {
    for (namespaces, workloads) in [
        ("all()", "has(projectcalico.org/namespace)"),
        ("", "has(projectcalico.org/namespace)"),
        ("global()", "!has(projectcalico.org/namespace)"),
        ("!global()", "has(projectcalico.org/namespace)"),
        ("all() && a == 'b'", r#"(has(projectcalico.org/namespace) && pcns.a == "b")"#),
        ("a == 'all()' || all == 'global()'", r#"(pcns.a == "all()" || pcns.all == "global()")"#),
        ("!has(a) && b not in {'a'}", r#"(!has(pcns.a) && pcns.b not in {"a"})"#),
    ] {
        assert_eq!(selector(namespaces).for_namespaces().to_string(), workloads, "{namespaces:?}");
    }
}

#[test]
fn service_account_selectors_become_workload_selectors() {
    for (accounts, workloads) in [
        ("all()", "has(projectcalico.org/serviceaccount)"),
        ("global()", "global()"),
        ("a contains 'b' && c starts with 'd'", r#"(pcsa.a contains "b" && pcsa.c starts with "d")"#),
        ("a ends with 'b' || !c != 'd'", r#"(pcsa.a ends with "b" || !pcsa.c != "d")"#),
    ] {
        assert_eq!(selector(accounts).for_service_accounts().to_string(), workloads, "{accounts:?}");
    }
}

#[test]
fn a_prefix_must_leave_labels_labels() {
    let plain = selector("has(a) && all() && b in {'a'}");
    assert_eq!(plain.prefix_keys("x.").unwrap(), selector("has(x.a) && all() && x.b in {'a'}"));
    assert!(plain.prefix_keys("x ").is_err());
    assert!(plain.prefix_keys(&"x".repeat(MAX_KEY)).is_err());
}

#[test]
fn restrictions_are_what_each_label_must_be() {
    use Restriction::{Absent, OneOf, Present};

    for (text, expected) in [
        ("all()", vec![]),
        ("a == 'x'", vec![("a", OneOf(vec!["x"]))]),
        ("!a != 'x'", vec![("a", OneOf(vec!["x"]))]),
        ("a != 'x'", vec![]),
        ("a not in {'x'}", vec![]),
        ("!a not in {'y', 'x'}", vec![("a", OneOf(vec!["x", "y"]))]),
        ("a contains 'x' && !has(b)", vec![("a", Present), ("b", Absent)]),
        ("has(a) && a in {'x', 'y'} && a in {'y', 'z'}", vec![("a", OneOf(vec!["y"]))]),
        ("a == 'y' || a in {'x', 'y'}", vec![("a", OneOf(vec!["x", "y"]))]),
        ("a == 'y' || a starts with 'x'", vec![("a", Present)]),
        ("a == 'y' || has(b)", vec![]),
        ("a == 'y' || !has(a)", vec![]),
        ("(a == 'x' && has(b)) || (a == 'y' && has(c)) || a in {}", vec![("a", OneOf(vec!["x", "y"]))]),
        ("!(has(a) || b != 'x')", vec![("a", Absent), ("b", OneOf(vec!["x"]))]),
    ] {
        let parsed = selector(text);
        assert_eq!(parsed.restrictions(), Restrictions::Labels(expected.into_iter().collect()), "{text}");
    }
    for text in ["a in {}", "!all()", "has(a) && !has(a)", "a == 'x' && a == 'y'", "a in {} || !global()"] {
        assert_eq!(selector(text).restrictions(), Restrictions::Impossible, "{text}");
    }
}

#[test]
fn serde_reads_and_writes_text() {
    let parsed: Selector = serde_json::from_str(r#""a=='b'""#).unwrap();
    assert_eq!(serde_json::to_string(&parsed).unwrap(), r#""a == \"b\"""#);
    let error = serde_json::from_str::<Selector>(r#""a = 'b'""#).unwrap_err();
    assert!(error.to_string().starts_with("selector is invalid at column 3: "), "{error}");
}
