//! The laws of selectors, and a second reading of the language to hold them against.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::Labels;
use crate::strategies::{labels, selector};

/// A sentence as its author means it: what it says and how it may be written, with no tree of ours in between.
#[derive(Debug, Clone)]
enum Meaning {
    All,
    Has(&'static str),
    Test(&'static str, &'static str, Vec<&'static str>),
    Not(Box<Meaning>),
    And(Vec<Meaning>),
    Or(Vec<Meaning>),
}

const SETS: [&str; 3] = ["in", "not in", "notin"];
const TESTS: [&str; 7] = ["==", "!=", "contains", "starts with", "startswith", "ends\t with", "endswith"];
const VALUES: [&str; 6] = ["", "x", "y", "xy", "\"", "}' && '"];

fn meaning() -> impl Strategy<Value = Meaning> {
    let key = || select(&["a", "b", "in", "not", "has"][..]);
    let term = prop_oneof![
        Just(Meaning::All),
        key().prop_map(Meaning::Has),
        (key(), select(&TESTS[..]), select(&VALUES[..])).prop_map(|(k, op, v)| Meaning::Test(k, op, vec![v])),
        (key(), select(&SETS[..]), vec(select(&VALUES[..]), 0..4))
            .prop_map(|(k, op, vs)| Meaning::Test(k, op, vs)),
    ];
    term.prop_recursive(4, 20, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|m| Meaning::Not(Box::new(m))),
            vec(inner.clone(), 1..4).prop_map(Meaning::And),
            vec(inner, 1..4).prop_map(Meaning::Or),
        ]
    })
}

impl Meaning {
    fn holds(&self, labels: &BTreeMap<&str, &str>) -> bool {
        match self {
            Meaning::All => true,
            Meaning::Has(key) => labels.contains_key(key),
            Meaning::Test(key, operator, values) => {
                let negative = matches!(*operator, "!=" | "not in" | "notin");
                let Some(label) = labels.get(key) else { return negative };
                let found = values.iter().any(|value| match *operator {
                    "contains" => (0..=label.len()).any(|at| label[at..].starts_with(value)),
                    "starts with" | "startswith" => label.starts_with(value),
                    "ends\t with" | "endswith" => label.ends_with(value),
                    _ => label == value,
                });
                found != negative
            }
            Meaning::Not(inner) => !inner.holds(labels),
            Meaning::And(terms) => terms.iter().all(|term| term.holds(labels)),
            Meaning::Or(terms) => terms.iter().any(|term| term.holds(labels)),
        }
    }

    /// Writes the sentence; `whim` decides on spaces, quotes, trailing commas and brackets nobody needs.
    fn write(&self, whim: &mut impl Iterator<Item = bool>) -> String {
        let space = if flip(whim) { " \t" } else { "" };
        match self {
            Meaning::All => format!("{space}all({space})"),
            Meaning::Has(key) => format!("has({space}{key}{space}){space}"),
            Meaning::Test(key, operator, values) => {
                let mut values: Vec<_> = values.iter().map(|value| quote(value, whim)).collect();
                if !(SETS.contains(operator)) {
                    return format!("{space}{key} {operator}{space}{}", values[0]);
                }
                if flip(whim) && !values.is_empty() {
                    values.push(String::new());
                }
                format!("{key} {operator}{space}{{{}}}", values.join(","))
            }
            Meaning::Not(inner) => format!("!{space}{}", inner.bracketed(whim)),
            Meaning::And(terms) => {
                let terms: Vec<_> = terms.iter().map(|term| term.bracketed(whim)).collect();
                terms.join("&&")
            }
            Meaning::Or(terms) => {
                // `&&` binds tighter, so its sentences need no brackets here.
                let bare = |term: &Meaning| matches!(term, Meaning::And(_));
                let terms: Vec<_> = terms
                    .iter()
                    .map(|term| if bare(term) { term.write(whim) } else { term.bracketed(whim) })
                    .collect();
                terms.join(" || ")
            }
        }
    }

    fn bracketed(&self, whim: &mut impl Iterator<Item = bool>) -> String {
        let text = self.write(whim);
        if matches!(self, Meaning::And(_) | Meaning::Or(_)) || flip(whim) {
            format!("({text})")
        } else {
            text
        }
    }
}

fn flip(whim: &mut impl Iterator<Item = bool>) -> bool {
    whim.next().unwrap_or_default()
}

fn quote(value: &str, whim: &mut impl Iterator<Item = bool>) -> String {
    let quote = match (value.contains('"'), value.contains('\''), flip(whim)) {
        (true, _, _) | (false, false, true) => '\'',
        (false, _, _) => '"',
    };
    format!("{quote}{value}{quote}")
}

fn prefixed(prefix: &str, labels: &Labels) -> Labels {
    labels.iter().map(|(key, value)| (format!("{prefix}{key}"), value)).collect()
}

proptest! {
    #[test]
    fn a_sentence_matches_what_its_author_means(
        meaning in meaning(),
        whim in vec(any::<bool>(), 64),
        chosen in proptest::collection::btree_map(
            select(&["a", "b", "in", "not", "has"][..]), select(&VALUES[..]), 0..5),
    ) {
        let text = meaning.write(&mut whim.into_iter().cycle());
        let parsed: Selector = text.parse().map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        let labels: Labels = chosen.iter().map(|(k, v)| (*k, *v)).collect();
        prop_assert_eq!(parsed.matches(&labels), meaning.holds(&chosen), "{}", text);
    }

    #[test]
    fn the_canonical_text_reads_back_as_the_same_selector(selector in selector()) {
        let text = selector.to_string();
        let again: Selector = text.parse().map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(again.to_string(), text);
        prop_assert_eq!(again.id(), selector.id());
        prop_assert_eq!(again, selector);
    }

    #[test]
    fn selectors_are_equal_when_their_ids_are(a in selector(), b in selector()) {
        prop_assert_eq!(a == b, a.id() == b.id());
    }

    #[test]
    fn no_text_is_a_panic(
        tokens in vec(select(&["a", "has(", "all(", ")", "(", "!", "&&", "||", "==", "!=", "in", "not ", "{", "}", ",",
            "'x'", "\"", "'", " ", "\n", "ü", "starts with", "contains", "global()", "&", "\0"][..]), 0..24),
    ) {
        let text = tokens.concat();
        match text.parse::<Selector>() {
            Ok(selector) => prop_assert_eq!(selector.to_string().parse(), Ok(selector)),
            Err(error) => {
                prop_assert!((1..=text.chars().count() + 1).contains(&error.column()), "{}", error);
                prop_assert_eq!(error.caret().lines().count(), 2);
            }
        }
    }

    #[test]
    fn both_must_match_for_their_conjunction_to(a in selector(), b in selector(), c in selector(), labels in labels()) {
        let both = a.and(&b);
        prop_assert_eq!(both.matches(&labels), a.matches(&labels) && b.matches(&labels));
        prop_assert_eq!(both.and(&c), a.and(&b.and(&c)));
        prop_assert_eq!(both.to_string().parse(), Ok(both));
    }

    #[test]
    fn labels_that_match_meet_every_restriction(selector in selector(), labels in labels()) {
        if selector.matches(&labels) {
            match selector.restrictions() {
                Restrictions::Impossible => prop_assert!(false, "{} matches {:?}", selector, labels),
                Restrictions::Labels(all) => for (key, restriction) in all {
                    prop_assert!(restriction.allows(labels.get(key)), "{}: {} {:?}", selector, key, restriction);
                }
            }
        }
    }

    #[test]
    fn prefixed_selectors_match_prefixed_labels(selector in selector(), labels in labels()) {
        let moved = selector.prefix_keys("p.").map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(moved.matches(&prefixed("p.", &labels)), selector.matches(&labels));
    }

    #[test]
    fn a_workload_is_selected_with_its_namespace(
        selector in selector().prop_filter("global() is about no namespace", |s| !s.to_string().contains("global()")),
        namespace in labels(),
        own in labels(),
    ) {
        let mut inherited = prefixed(NAMESPACE_PREFIX, &namespace);
        inherited.insert("projectcalico.org/namespace", "ns");
        prop_assert_eq!(selector.for_namespaces().matches(&[&own, &inherited][..]), selector.matches(&namespace));
    }

    #[test]
    fn a_workload_is_selected_with_its_service_account(selector in selector(), account in labels(), own in labels()) {
        let mut inherited = prefixed(SERVICE_ACCOUNT_PREFIX, &account);
        inherited.insert("projectcalico.org/serviceaccount", "sa");
        prop_assert_eq!(selector.for_service_accounts().matches(&[&own, &inherited][..]), selector.matches(&account));
    }

    #[test]
    fn rewritten_selectors_are_canonical(selector in selector()) {
        for rewritten in [selector.for_namespaces(), selector.for_service_accounts()] {
            prop_assert_eq!(rewritten.to_string().parse(), Ok(rewritten));
        }
    }
}
