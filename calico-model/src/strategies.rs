//! Published generators for property tests (feature `strategies`).
//!
//! Domains are tiny, so that what is drawn independently still collides: a selector often matches labels drawn beside
//! it, and two selectors often look at the same label.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::selector::Expr;
use crate::{Labels, Selector};

/// Words of the selector language among them, as they are labels too.
const KEYS: [&str; 5] = ["a", "b", "c.d/e", "in", "has"];
const VALUES: [&str; 5] = ["", "x", "y", "xy", "yxy"];
/// What only a selector can hold, as no resource carries such a value.
const ODD_VALUES: [&str; 4] = ["it's", "say \"x\"", "all()", "ü\n"];

/// Generates labels, valid on every resource.
pub fn labels() -> impl Strategy<Value = Labels> {
    btree_map(select(&KEYS[..]), select(&VALUES[..]), 0..=KEYS.len()).prop_map(Labels::from_iter)
}

/// Generates selectors over the keys and values of [`labels`], up to four levels deep.
pub fn selector() -> impl Strategy<Value = Selector> {
    let expr = term().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(Expr::not),
            vec(inner.clone(), 2..4).prop_map(|terms| Expr::And(terms.into())),
            vec(inner, 2..4).prop_map(|terms| Expr::Or(terms.into())),
        ]
    });
    expr.prop_map(Selector::from_expr)
}

fn term() -> impl Strategy<Value = Expr> {
    let key = || select(&KEYS[..]).prop_map(Box::<str>::from);
    let value =
        || prop_oneof![4 => select(&VALUES[..]), 1 => select(&ODD_VALUES[..])].prop_map(Box::<str>::from);
    let values = || vec(value(), 0..4).prop_map(Expr::set);
    prop_oneof![
        1 => Just(Expr::All),
        1 => Just(Expr::Global),
        3 => key().prop_map(Expr::Has),
        4 => (key(), value()).prop_map(|(key, value)| Expr::Equals { key, value }),
        2 => (key(), value()).prop_map(|(key, value)| Expr::NotEquals { key, value }),
        3 => (key(), values()).prop_map(|(key, values)| Expr::In { key, values }),
        2 => (key(), values()).prop_map(|(key, values)| Expr::NotIn { key, values }),
        1 => (key(), value()).prop_map(|(key, part)| Expr::Contains { key, part }),
        1 => (key(), value()).prop_map(|(key, prefix)| Expr::StartsWith { key, prefix }),
        1 => (key(), value()).prop_map(|(key, suffix)| Expr::EndsWith { key, suffix }),
    ]
}
