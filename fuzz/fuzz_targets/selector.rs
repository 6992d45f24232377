//! Selectors: what is read is written so that it reads back as the same, and matching agrees with its restrictions.
#![no_main]

use calico_model::selector::Restrictions;
use calico_model::{Labels, Selector, SelectorError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let selector: Selector = match text.parse() {
        Ok(selector) => selector,
        Err(error) => return describe(text, &error),
    };
    reads_back(&selector);
    for labels in labels(text) {
        let matches = selector.matches(&labels);
        match selector.restrictions() {
            Restrictions::Impossible => assert!(!matches),
            Restrictions::Labels(restrictions) if matches => {
                assert!(restrictions.iter().all(|(key, restriction)| restriction.allows(labels.get(key))));
            }
            Restrictions::Labels(_) => {}
        }
        assert_eq!(selector.and(&Selector::all()).matches(&labels), matches);
    }
    if let Ok(prefixed) = selector.prefix_keys("pcns.") {
        reads_back(&prefixed);
    }
    let _ = (selector.for_namespaces(), selector.for_service_accounts());
});

fn reads_back(selector: &Selector) {
    let canonical = selector.to_string();
    let again: Selector = match canonical.parse() {
        Ok(again) => again,
        // The canonical text has parentheses and quotes that the original need not have.
        Err(_) if canonical.len() > calico_model::selector::MAX_LENGTH => return,
        Err(error) => panic!("{canonical} is not read back: {error}"),
    };
    assert_eq!(again.expr(), selector.expr());
    assert_eq!(again.to_string(), canonical);
    assert_eq!(again.id(), selector.id());
}

fn describe(text: &str, error: &SelectorError) {
    assert!(error.column() >= 1 && error.column() <= text.chars().count() + 1);
    assert!(!error.message().is_empty());
    let _ = (error.to_string(), error.caret());
}

/// Sets of labels made of the words of the selector, so that some match.
fn labels(text: &str) -> [Labels; 3] {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let pairs = words.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let every_other = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    [Labels::new(), pairs, every_other]
}
